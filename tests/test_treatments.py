"""What is done around a rule: each treatment against a framework's own, order, and the guard."""

import math
from collections.abc import Callable
from typing import Any

import jax
import keras
import numpy as np
import pytest
import torch

import thalweg
import thalweg.torch
from helpers import copies, descend_torch, difference, gradients, largest_difference, parameters, train
from thalweg import (
    L2,
    SGD,
    Adam,
    ClipByGlobalNorm,
    ClipByNorm,
    ClipByValue,
    DecoupledDecay,
    Maximize,
    Momentum,
    Rule,
    Scalar,
    SkipNonFinite,
    Treatment,
    chain,
    trace,
)
from thalweg.eager import descend
from thalweg.statefile import State
from thalweg.treatments import Chain

STEPS = 10


@pytest.mark.parametrize(
    ("treatment", "setting"),
    [
        (ClipByValue(0.7), {"clipvalue": 0.7}),
        (ClipByNorm(1.5), {"clipnorm": 1.5}),
        (ClipByGlobalNorm(2.5), {"global_clipnorm": 2.5}),
        (DecoupledDecay(0.3), {"weight_decay": 0.3}),
    ],
    ids=lambda x: type(x).__name__,
)
def test_as_in_keras(treatment: Treatment, setting: dict[str, float], path: str) -> None:
    params = parameters((4, 3), (), (5,))
    grads = gradients(params, STEPS)
    with jax.enable_x64(True):
        variables = [keras.Variable(p.detach().numpy(), dtype="float64") for p in params]
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9, **setting)
        optimizer.build(variables)
        for step in grads:
            optimizer.apply([keras.ops.convert_to_tensor(g.numpy()) for g in step], variables)
        wanted = [np.asarray(v) for v in variables]
    found = copies(params)
    train(thalweg.torch.Optimizer(found, chain(treatment, Momentum(0.1))), found, grads)
    # Keras holds its learning rate in float32.
    assert largest_difference(found, wanted) <= 1e-7


@pytest.mark.parametrize(
    ("treatment", "clip"),
    [
        (ClipByValue(0.7), lambda params: torch.nn.utils.clip_grad_value_(params, 0.7)),
        (ClipByGlobalNorm(2.5), lambda params: torch.nn.utils.clip_grad_norm_(params, 2.5)),
    ],
    ids=["value", "global norm"],
)
def test_as_torchs_clipping(treatment: Treatment, clip: Callable[[Any], Any]) -> None:
    params = parameters((4, 3), (), (5,))
    grads = gradients(params, STEPS)
    wanted, found = copies(params), copies(params)
    optimizer = torch.optim.SGD(wanted, 0.1, momentum=0.9)
    for step in grads:
        for p, g in zip(wanted, step, strict=True):
            p.grad = g.clone()
        clip(wanted)
        optimizer.step()
    train(thalweg.torch.Optimizer(found, chain(treatment, Momentum(0.1))), found, grads)
    # torch adds 1e-6 to the norm that it divides by.
    assert largest_difference(found, wanted) <= 1e-5


@pytest.mark.parametrize(
    ("treatments", "kind", "settings"),
    [
        ([L2(0.3)], "Adam", {"weight_decay": 0.3}),
        ([DecoupledDecay(0.3)], "AdamW", {"weight_decay": 0.3}),
        ([Maximize()], "Adam", {"maximize": True}),
        ([Maximize(), L2(0.3)], "Adam", {"weight_decay": 0.3, "maximize": True}),
        ([Maximize(), DecoupledDecay(0.3)], "AdamW", {"weight_decay": 0.3, "maximize": True}),
    ],
)
def test_as_torchs_settings(treatments: list[Treatment], kind: str, settings: dict[str, Any]) -> None:
    params = parameters((4, 3), (5,))
    grads = gradients(params, STEPS)
    wanted, found = copies(params), copies(params)
    train(getattr(torch.optim, kind)(wanted, lr=0.1, **settings), wanted, grads)
    train(thalweg.torch.Optimizer(found, chain(*treatments, Adam(0.1))), found, grads)
    assert largest_difference(found, wanted) <= 1e-12


@pytest.mark.parametrize(
    ("treatments", "wanted"),
    [
        # p = 10, g = 6, lr = 1
        ([ClipByValue(1.0), L2(0.5)], 10 - (1 + 5)),
        ([L2(0.5), ClipByValue(1.0)], 10 - 1),
        ([Maximize(), L2(0.5)], 10 - (-6 + 5)),
        ([L2(0.5), Maximize()], 10 + (6 + 5)),
        ([DecoupledDecay(0.5), ClipByValue(1.0)], 10 - (1 + 5)),
        ([Maximize(), DecoupledDecay(0.5)], 10 - (-6 + 5)),
        ([ClipByValue(4.0), ClipByNorm(8.0)], 10 - 4),
        ([L2(1.0), ClipByNorm(4.0)], 10 - 4),
        ([ClipByNorm(4.0), L2(1.0)], 10 - (4 + 10)),
        ([ClipByNorm(3.0), ClipByValue(1.0), L2(0.5)], 10 - (1 + 5)),
    ],
)
def test_treatments_act_in_the_order_written(treatments: list[Treatment], wanted: float, path: str) -> None:
    (p,) = parameters((1,))
    p.data.fill_(10.0)
    train(thalweg.torch.Optimizer([p], chain(*treatments, SGD(1.0))), [p], [[torch.full((1,), 6.0)]])
    assert p.item() == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize("kind", [ClipByNorm, ClipByGlobalNorm])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_gradient_of_zero_has_nothing_to_clip(kind: type, dtype: torch.dtype, path: str) -> None:
    params = parameters((3,), (2,), dtype=dtype)
    before = copies(params)
    optimizer = thalweg.torch.Optimizer(params, chain(kind(1.0), SGD(0.5)))
    train(optimizer, params, [[torch.zeros(3), torch.zeros(2)]])
    assert all(map(torch.equal, params, before))


@pytest.mark.parametrize("g", [0.0, 0.5, -4.0, np.float64(4.0), np.float32(4.0), np.array([0.0, -4.0])])
def test_clipping_as_written_takes_numbers_and_arrays(g: Any) -> None:
    for kind in (ClipByNorm, ClipByGlobalNorm):
        found = descend(chain(kind(2.0), SGD(1.0)), 0.0, [g])
        np.testing.assert_allclose(found, -np.clip(g, -2, 2), rtol=1e-15)


def test_a_global_norm_spans_groups_forms_and_dtypes(path: str) -> None:
    a, b, c = (
        *parameters((4,)),
        *parameters((3, 2), dtype=torch.float32),
        *parameters((5,), dtype=torch.bfloat16),
    )
    before = [p.detach().clone().double() for p in (a, b, c)]
    groups = [{"params": [a]}, {"params": [b], "lr": 0.5}, {"params": [c], "clip_global_norm": 2.0}]
    (grads,) = gradients([a, b, c], 1)
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in grads))
    assert norm > 2
    train(thalweg.torch.Optimizer(groups, chain(ClipByGlobalNorm(1.0), SGD(1.0))), [a, b, c], [grads])
    for p, was, g, factor in zip((a, b, c), before, grads, (1.0, 0.5, 2.0), strict=True):
        tolerance = {torch.float64: 1e-8, torch.float32: 1e-6, torch.bfloat16: 5e-3}[p.dtype]
        assert difference(p, was - factor / norm * g.double()) <= tolerance


def test_norms_are_exact_over_many_chunks() -> None:
    (p,) = parameters((100_001,), dtype=torch.float32)
    (before,) = copies([p])
    g = torch.full_like(p, 2.0)
    g[-1] = 300.0
    norm = math.sqrt(4.0 * 100_000 + 300.0**2)
    train(thalweg.torch.Optimizer([p], chain(ClipByNorm(1.0), SGD(1.0))), [p], [[g]])
    torch.testing.assert_close(before - p, g / norm, rtol=1e-4, atol=1e-6)


# -- the guard -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_step_that_is_not_finite_changes_nothing(bad: float, dtype: torch.dtype, path: str) -> None:
    rule = chain(SkipNonFinite(), Adam(0.1))
    params = parameters((4, 3), (5,), dtype=dtype)
    grads = gradients(params, 4)
    poisoned = [grads[0][0], grads[0][1].clone()]
    poisoned[1][3] = bad
    wanted, found = copies(params), copies(params)
    optimizer = thalweg.torch.Optimizer(found, rule)
    train(thalweg.torch.Optimizer(wanted, rule), wanted, grads)

    train(optimizer, found, [poisoned])
    assert all(map(torch.equal, found, params))
    train(optimizer, found, grads[:2])
    held = {i: {k: x.clone() for k, x in optimizer.state[p].items()} for i, p in enumerate(found)}
    before = copies(found)
    train(optimizer, found, [poisoned, poisoned])
    assert all(map(torch.equal, found, before))
    for i, p in enumerate(found):
        assert all(torch.equal(optimizer.state[p][k], x) for k, x in held[i].items())
        assert float(held[i]["step"]) == 2
    train(optimizer, found, grads[2:])
    assert all(map(torch.equal, found, wanted))


def test_one_bad_gradient_holds_back_every_group() -> None:
    good, bad = parameters((3,), (3,))
    before = good.detach().clone()
    optimizer = thalweg.torch.Optimizer(
        [{"params": [good]}, {"params": [bad]}], chain(SkipNonFinite(), ClipByGlobalNorm(1.0), SGD(0.1))
    )
    train(optimizer, [good, bad], [[torch.ones(3), torch.tensor([1.0, math.nan, 1.0])]])
    assert torch.equal(good, before)


def test_without_the_guard_a_bad_gradient_goes_through() -> None:
    (p,) = parameters((3,))
    train(thalweg.torch.Optimizer([p], Adam()), [p], [[torch.tensor([1.0, math.nan, 1.0])]])
    assert p.isnan().tolist() == [False, True, False]


# -- chains --------------------------------------------------------------------------------------


def test_a_chain_is_a_rule() -> None:
    rule = chain(ClipByGlobalNorm(1.0), L2(1e-4), Adam(0.1))
    assert isinstance(rule, Rule)
    assert rule.name == "adam"
    assert [*rule.values] == ["clip_global_norm", "l2", "lr", "beta_1", "beta_2", "epsilon"]
    assert rule.slots == Adam().slots
    assert trace(rule) is trace(rule.replaced(l2=0.5, clip_global_norm=3.0, lr=0.2))
    assert rule.replaced(l2=0.5).values["l2"] == 0.5
    assert chain(Adam(0.1)) == Adam(0.1)


def test_a_chain_within_a_chain_is_one_chain() -> None:
    rule = chain(ClipByValue(0.5), chain(L2(0.3), SkipNonFinite(), Adam(0.1)))
    flat = chain(ClipByValue(0.5), L2(0.3), SkipNonFinite(), Adam(0.1))
    assert rule.guarded
    assert rule == flat == Chain((ClipByValue(0.5),), Chain((L2(0.3), SkipNonFinite()), Adam(0.1)))
    assert trace(rule) is trace(flat)
    assert State.of(rule, 3, {}, {}).rebuilt() == flat
    assert rule.values == flat.values
    (p,) = parameters((6,))
    grads = gradients([p], STEPS)
    (found,) = copies([p])
    train(thalweg.torch.Optimizer([found], rule), [found], grads)
    assert difference(found, descend_torch(flat, p, [g[0] for g in grads])) <= 1e-12


@pytest.mark.parametrize(
    "links",
    [(L2(0.1), L2(0.2), SGD()), (DecoupledDecay(0.1), thalweg.AdamW()), (L2(0.1), chain(L2(0.2), SGD()))],
)
def test_two_hyperparameters_of_one_name_are_an_error(links: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"brings a second '(l2|weight_decay)'"):
        chain(*links)


def test_a_flag_may_not_come_twice_either() -> None:
    class Upwards(Treatment):
        up: bool = True

    with pytest.raises(ValueError, match="chain: Upwards brings a second 'up', which Turned has"):
        chain(Turned(), Upwards(), SGD())


@pytest.mark.parametrize("links", [(L2(0.1),), (SGD(), L2(0.1)), (SGD(), Adam()), ("l2", SGD()), (L2, SGD())])
def test_a_chain_is_treatments_and_then_a_rule(links: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match=r"chain (ends with a rule|takes treatments before the rule)"):
        chain(*links)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (ClipByValue, 0.0),
        (ClipByNorm, -1.0),
        (ClipByGlobalNorm, math.inf),
        (L2, -0.1),
        (DecoupledDecay, math.nan),
    ],
)
def test_values_are_checked(kind: Callable[[float], Treatment], value: float) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        kind(value)
    with pytest.raises(TypeError, match="is a number or a schedule"):
        kind("1")  # type: ignore[arg-type]


class OnlyUp(Treatment):
    """A treatment of one's own."""

    share: Any

    def gradient(self, g: Any, given: Any) -> Any:
        return g * self.share

    def step(self, step: Any, lr: Any, given: Any) -> Any:
        return step + lr


class Turned(Treatment):
    """A treatment with a flag, and a hyperparameter that it can do without."""

    up: bool = False
    factor: Scalar | None = None

    def gradient(self, g: Any, given: Any) -> Any:
        g = g if self.factor is None else g * self.factor
        return -g if self.up else g


@pytest.mark.parametrize(
    ("link", "wanted"), [(Turned(), 3.0), (Turned(up=True), -3.0), (Turned(True, 2.0), -6.0)]
)
def test_flags_of_treatments_choose_the_form(link: Treatment, wanted: float) -> None:
    rule = chain(link, SGD(0.5))
    assert [*rule.values] == (["lr"] if link.values == {} else ["factor", "lr"])
    (p,) = parameters((3,))
    p.data.zero_()
    train(thalweg.torch.Optimizer([p], rule), [p], [[torch.full((3,), 3.0)]])
    assert p.tolist() == pytest.approx([-0.5 * wanted] * 3)
    state = State.of(rule, 1, {}, {})
    assert (state.flags, state.rebuilt()) == ({"up": link.up}, rule)  # type: ignore[attr-defined]


def test_a_treatment_says_what_it_does_not_know() -> None:
    with pytest.raises(thalweg.UnknownHyperparameterError, match="did you mean 'clip_norm'"):
        ClipByNorm(clipnorm=1.0)  # type: ignore[call-arg]


def test_a_treatment_of_ones_own() -> None:
    (p,) = parameters((3,))
    p.data.zero_()
    train(thalweg.torch.Optimizer([p], chain(OnlyUp(0.5), SGD(0.1))), [p], [[torch.full((3,), 4.0)]])
    assert p.tolist() == pytest.approx([-0.3] * 3)
