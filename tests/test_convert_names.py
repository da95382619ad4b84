"""Maps of names: proposed from shapes or refused, applied, inverted."""

from typing import Any

import keras
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import thalweg
from thalweg import convert
from thalweg.statefile import State

# How each kind of torch's parameters is laid out in Keras.
TO_KERAS = {1: None, 2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)}


def turned(shape: tuple[int, ...], axes: tuple[int, ...] | None) -> tuple[int, ...]:
    return shape if axes is None else tuple(shape[i] for i in axes)


@st.composite
def models(draw: st.DrawFn) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """A weight and a bias for each layer, no weight of which reads the same in both layouts."""
    layers = []
    for _ in range(draw(st.integers(1, 5))):
        rank = draw(st.integers(2, 5))
        out, fed, *space = draw(st.lists(st.integers(2, 4), min_size=rank, max_size=rank))
        weight = (out + 10, fed, *space)
        layers.append((weight, (out + 10,)))
    return layers


@given(models())
def test_the_same_layers_in_order_are_told_apart(layers: list[Any]) -> None:
    source, target, wanted = {}, {}, {}
    for i, (weight, bias) in enumerate(layers):
        axes = TO_KERAS[len(weight)]
        source |= {f"{i}.weight": weight, f"{i}.bias": bias}
        target |= {f"layer_{i}/kernel": turned(weight, axes), f"layer_{i}/bias": bias}
        wanted |= {f"{i}.weight": (f"layer_{i}/kernel", axes), f"{i}.bias": f"layer_{i}/bias"}
    proposed = convert.propose_names(source, target)
    assert proposed == wanted
    assert convert.propose_names(target, source) == convert.inverted(proposed)


@given(models(), st.randoms(use_true_random=False))
def test_in_any_order_a_proposal_fits_or_is_refused(layers: list[Any], random: Any) -> None:
    source = {f"{i}.{k}": s for i, layer in enumerate(layers) for k, s in zip(("w", "b"), layer, strict=True)}
    entries = [(f"x{i}", turned(s, TO_KERAS[len(s)])) for i, s in enumerate(source.values())]
    random.shuffle(entries)
    target = dict(entries)
    try:
        proposed = convert.propose_names(source, target)
    except convert.Refused:
        proposed = {}
    shapes = [tuple(sorted(s)) for s in source.values()]
    if not proposed and len(set(shapes)) < len(shapes):
        return  # some could be taken for each other
    pairs = [(to, None) if isinstance(to, str) else to for to in proposed.values()]
    assert sorted(to for to, _ in pairs) == sorted(target)
    for (_, shape), (to, axes) in zip(source.items(), pairs, strict=True):
        assert turned(shape, axes) == target[to]


@given(st.integers(2, 5), st.integers(2, 9))
def test_a_weight_that_reads_the_same_in_both_layouts_is_ambiguous(rank: int, n: int) -> None:
    source, target = {"a.weight": (n,) * rank, "a.bias": (n,)}, {"a/kernel": (n,) * rank, "a/bias": (n,)}
    with pytest.raises(convert.Refused, match=r"shapes do not tell: 'a.weight'.*as None and as"):
        convert.propose_names(source, target)
    settled = {"a.weight": ("a/kernel", TO_KERAS[rank])}
    assert convert.propose_names(source, target, settled) == {**settled, "a.bias": "a/bias"}  # type: ignore[arg-type]


@given(st.integers(2, 9), st.permutations([0, 1]))
def test_axes_of_length_1_make_nothing_ambiguous(n: int, order: list[int]) -> None:
    shape = (n, 1)
    target = tuple(shape[i] for i in order)
    wanted: Any = "b" if order == [0, 1] else ("b", (1, 0))
    assert convert.propose_names({"a": shape}, {"b": target}) == {"a": wanted}
    assert convert.propose_names({"a": (1, 1)}, {"b": (1, 1)}) == {"a": "b"}
    assert convert.propose_names({"a": (1, n, 1, 1)}, {"b": (1, 1, n, 1)}) == {"a": ("b", (2, 3, 1, 0))}


def test_equal_shapes_out_of_order_are_ambiguous() -> None:
    source = {"a.weight": (5, 4), "a.bias": (5,), "b.weight": (5, 3), "b.bias": (5,)}
    target = {"a/bias": (5,), "a/kernel": (4, 5), "b/bias": (5,), "b/kernel": (3, 5)}
    with pytest.raises(convert.Refused, match=r"'a.bias' .5,. fits 'a/bias', 'b/bias'; 'b.bias'") as refusal:
        convert.propose_names(source, target)
    assert "weight" not in str(refusal.value)
    proposed = convert.propose_names(source, target, {"a.bias": "a/bias"})
    assert proposed == {
        "a.weight": ("a/kernel", (1, 0)),
        "a.bias": "a/bias",
        "b.weight": ("b/kernel", (1, 0)),
        "b.bias": "b/bias",
    }


def test_a_bias_is_not_taken_for_a_scale() -> None:
    """A layer's normalization has two parameters of one shape, which JAX sorts by name."""
    source, target = {"norm.weight": (7,), "norm.bias": (7,)}, {"norm/bias": (7,), "norm/scale": (7,)}
    with pytest.raises(convert.Refused, match=r"norm.weight"):
        convert.propose_names(source, target)
    in_order = {"norm/gamma": (7,), "norm/beta": (7,)}
    wanted = {"norm.weight": "norm/gamma", "norm.bias": "norm/beta"}
    assert convert.propose_names(source, in_order) == wanted
    assert convert.propose_names({"0": (7,), "1": (7,)}, in_order) == {"0": "norm/gamma", "1": "norm/beta"}


@pytest.mark.parametrize(
    ("source", "target", "known", "message"),
    [
        ({"a": (3,)}, {"b": (4,)}, {}, r"nothing has a shape that fits 'a' \(3,\), 'b' \(4,\)"),
        ({"a": (3,)}, {"b": (3,), "c": (3,)}, {}, "the models differ: 1 parameters and 2"),
        ({"a": (3, 4, 5)}, {"b": (4, 3, 5)}, {}, "nothing has a shape that fits"),
        ({"a": (3,)}, {"b": (3,)}, {"x": "b"}, "known: there is no parameter 'x'"),
        ({"a": (3,)}, {"b": (3,)}, {"a": "x"}, "known: there is no parameter 'x'"),
        ({"a": (3, 4)}, {"b": (4, 3)}, {"a": "b"}, r"known: 'a' \(3, 4\) does not become 'b' \(4, 3\)"),
    ],
)
def test_what_does_not_fit_is_named(source: Any, target: Any, known: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert.propose_names(source, target, known)


# -- applied -----------------------------------------------------------------------------------------


def test_arrays_are_copied_turned_and_renamed() -> None:
    weight = torch.arange(24.0).reshape(2, 3, 2, 2)
    params = {
        "conv.weight": weight,
        "conv.bias": torch.ones(2, dtype=torch.bfloat16),
        "buffer": torch.zeros(1),
    }
    names = {"conv.weight": ("kernel", (2, 3, 1, 0)), "conv.bias": "bias"}
    found = convert.arrays(params, names)
    assert list(found) == ["kernel", "bias"]
    np.testing.assert_array_equal(found["kernel"], weight.permute(2, 3, 1, 0).numpy())
    assert found["kernel"].flags.c_contiguous
    assert found["bias"].dtype.name == "bfloat16"
    found["kernel"][:] = 7
    assert weight[0, 0, 0, 1] == 1
    again = convert.arrays(convert.arrays(params, names), convert.inverted(names))
    np.testing.assert_array_equal(again["conv.weight"], weight.numpy())
    with pytest.raises(ValueError, match=r"no parameter 'conv.wieght'; did you mean 'conv.weight'"):
        convert.arrays(params, {"conv.wieght": "x"})
    with pytest.raises(ValueError, match=r"\(0, 0\) is no permutation of the 4 axes of 'conv.weight'"):
        convert.arrays(params, {"conv.weight": ("x", (0, 0))})
    variable = keras.Variable(np.ones((2, 3)), name="w")
    assert convert.arrays({"w": variable}, {"w": ("w", (1, 0))})["w"].shape == (3, 2)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"names": {"w": "x"}}, "nothing is said of b, whose state would be lost"),
        ({"names": {"w": "x", "b": "x"}}, "two parameters become 'x'"),
        ({"names": {"w": "x", "b": "y", "c": "z"}}, "the source has no parameter 'c'"),
        ({"names": ["x"]}, "1 names for 2 parameters"),
        ({"names": {"w": ("x", (0, 1, 2)), "b": "y"}}, "no permutation of the 2 axes of 'w'"),
        (
            {"target_params": {"x": (2, 3), "b": (3,)}},
            "without a counterpart in the source: x; in the target: w",
        ),
        (
            {"target_params": {"w": (3, 2), "b": (3,)}},
            r"'w' has shape \(2, 3\) in the source, \(3, 2\).*axes",
        ),
        (
            {"target_params": {"w": (2, 3), "b": (4,)}},
            r"'b' has shape \(3,\) in the source, \(4,\) in the target$",
        ),
        ({"names": "propose"}, "names='propose' needs the shapes of all parameters"),
        ({"target_params": {"w": 3.0}}, "parameters are arrays, or their shapes or names; 'w' is 3.0"),
    ],
)
def test_names_that_do_not_fit_are_refused(asked: dict[str, Any], message: str) -> None:
    m = {"w": np.ones((2, 3)), "b": np.ones(3)}
    state = State.of(thalweg.Momentum(), 2, {}, {"b": m})
    with pytest.raises((ValueError, TypeError), match=message):
        convert.state(state, source="thalweg.numpy", target="torch", **asked)


@pytest.mark.parametrize(
    "params",
    [
        {"w": (2, 3), "b": (3,)},
        {"w": np.ones((2, 3)), "b": np.ones(3)},
        [("w", torch.ones(2, 3)), ("b", torch.ones(3))],
        ["w", "b"],
        [keras.Variable(np.ones((2, 3)), name="w"), keras.Variable(np.ones(3), name="b")],
    ],
    ids=["shapes", "arrays", "named_parameters", "names", "variables"],
)
def test_parameters_are_given_in_many_ways(params: Any) -> None:
    m = {"b": np.ones(3), "w": np.ones((2, 3))}
    state = State.of(thalweg.Momentum(), 2, {}, {"b": m})
    moved = convert.state(state, source="thalweg.numpy", target="torch", target_params=params)
    assert moved.names == ("w", "b")
    assert moved.state["state"][0]["momentum_buffer"].shape == (2, 3)


def test_a_parameter_without_state_may_stay_behind() -> None:
    frozen, moving = torch.zeros(3, requires_grad=True), torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([("frozen", frozen), ("moving", moving)])
    moving.grad = torch.ones(2)
    optimizer.step()
    names = {"moving": "w"}
    assert convert.state(optimizer, source="torch", target="thalweg.numpy", names=names).names == ("w",)


def test_nested_parameters_are_named_by_their_path() -> None:
    m = {"layers/0/w": np.ones((2, 3), np.float32), "layers/1/w": np.ones(3, np.float32)}
    state = State.of(thalweg.Momentum(), 2, {}, {"b": m})
    tree = {"layers": [{"w": np.ones((2, 3))}, {"w": np.ones(3)}]}
    for target in ("torch", "thalweg.jax"):
        moved = convert.state(state, source="thalweg.numpy", target=target, target_params=tree)
        assert moved.names == ("layers/0/w", "layers/1/w")
