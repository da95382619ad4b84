"""`state_dict`: between torch.optim and us in both directions, by name, or refused whole."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch

import thalweg
import thalweg.torch
from helpers import (
    TORCH_FORMS,
    both,
    copies,
    difference,
    draw_settings,
    gradients,
    largest_difference,
    parameters,
    train,
)

SHAPES = [(4, 3), (), (5,), (0,)]
Optimizer = torch.optim.Optimizer


def snapshot(optimizer: Optimizer) -> Any:
    """Everything that loading could change: settings, state, and where tensors lie."""
    written = optimizer.state_dict()
    return copy.deepcopy(written["param_groups"]), {
        k: {n: (x.tolist(), x.dtype, x.shape) for n, x in v.items()} for k, v in written["state"].items()
    }


def trained(optimizer: Optimizer, params: Sequence[torch.Tensor], steps: int = 3) -> Any:
    """The optimizer's state after a few steps, copied."""
    train(optimizer, params, gradients(params, steps))
    return copy.deepcopy(optimizer.state_dict())


# -- between torch.optim and us ------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("steps", [0, 1, 6])
@pytest.mark.parametrize("direction", ["from torch", "to torch", "among ours"])
@pytest.mark.parametrize("form", TORCH_FORMS)
def test_training_goes_on_as_if_uninterrupted(form: str, direction: str, steps: int) -> None:
    theirs, ours = both(TORCH_FORMS[form][0])
    settings = draw_settings(form, 1)
    first, second = {"from torch": (theirs, ours), "to torch": (ours, theirs), "among ours": (ours, ours)}[
        direction
    ]
    params = parameters(*SHAPES)
    grads = gradients(params, 12)
    wanted, found = copies(params), copies(params)
    train(theirs(wanted, **settings), wanted, grads)

    before = first(found, **settings)
    train(before, found, grads[:steps])
    # Other settings, so that it shows when the saved ones are not taken.
    after = second(found, **{**settings, "lr": 0.5})
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    train(after, found, grads[steps:])
    assert largest_difference(found, wanted) <= 1e-10


@pytest.mark.parametrize("form", TORCH_FORMS)
def test_states_have_torchs_names_shapes_and_dtypes(form: str) -> None:
    theirs, ours = both(TORCH_FORMS[form][0])
    settings = draw_settings(form, 1)
    written = []
    for kind in (theirs, ours):
        params = parameters(*SHAPES, dtype=torch.float32)
        written.append(trained(kind(params, **settings), params))
    wanted, found = written
    assert found.keys() == wanted.keys()
    for group, other in zip(found["param_groups"], wanted["param_groups"], strict=True):
        assert group.keys() == other.keys()
    for index, state in wanted["state"].items():
        same = {k: (x.shape, x.dtype) for k, x in state.items() if k != "mu_product"}
        assert {k: (x.shape, x.dtype) for k, x in found["state"][index].items() if k in same} == same
        # torch's SGD keeps no step number.
        assert found["state"][index].keys() - state.keys() <= {"step"}


@pytest.mark.usefixtures("float64")
def test_a_parameter_without_a_gradient_so_far_begins_at_its_beginning() -> None:
    for kind, settings in (("SGD", {"momentum": 0.9, "dampening": 0.5}), ("NAdam", {})):
        params = parameters((3,), (2,))
        grads = gradients(params, 6)
        late = [[a, None] for a, _ in grads[:3]] + grads[3:]
        theirs, ours = both(kind)
        wanted, found = copies(params), copies(params)
        train(theirs(wanted, lr=0.1, **settings), wanted, late)
        before = theirs(found, lr=0.1, **settings)
        train(before, found, late[:3])
        after = ours(found, lr=0.1, **settings)
        after.load_state_dict(copy.deepcopy(before.state_dict()))
        train(after, found, late[3:])
        assert largest_difference(found, wanted) <= 1e-12


@pytest.mark.usefixtures("float64")
def test_a_state_written_without_a_kernel_is_read_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    params = parameters((4, 3), (5,))
    grads = gradients(params, 8)
    wanted, found = copies(params), copies(params)
    train(torch.optim.NAdam(wanted), wanted, grads)
    with monkeypatch.context() as patch:
        patch.setattr("thalweg.torch.plan.has_kernel", lambda tensors: False)
        before = thalweg.torch.NAdam(found)
        train(before, found, grads[:4])
    after = thalweg.torch.NAdam(found)
    after.load_state_dict(before.state_dict())
    train(after, found, grads[4:])
    assert largest_difference(found, wanted) <= 1e-12


def test_a_parameter_in_columns_goes_on_too() -> None:
    def columns(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(4, 12, dtype=torch.float64)[:, ::2].t().copy_(values).requires_grad_()

    (p,) = parameters((6, 4))
    grads = gradients([p], 8)
    (wanted,) = copies([p])
    train(torch.optim.Adam([wanted], lr=0.1), [wanted], grads)
    found = columns(p.detach())
    before = thalweg.torch.Adam([found], lr=0.1)
    train(before, [found], grads[:4])
    again = columns(found.detach())
    after = thalweg.torch.Adam([again], lr=0.1)
    after.load_state_dict(before.state_dict())
    train(after, [again], grads[4:])
    assert difference(again, wanted) <= 1e-12


def test_going_back_to_an_earlier_state(path: str) -> None:
    params = parameters((4, 3), (5,))
    optimizer = thalweg.torch.NAdam(params, lr=0.1)
    grads = gradients(params, 4)
    train(optimizer, params, grads)
    saved, start = copy.deepcopy(optimizer.state_dict()), copies(params)
    train(optimizer, params, grads)
    wanted = copies(params)
    optimizer.load_state_dict(saved)
    with torch.no_grad():
        for p, was in zip(params, start, strict=True):
            p.copy_(was)
    train(optimizer, params, grads)
    assert all(map(torch.equal, params, wanted))


# -- copies and dtypes ---------------------------------------------------------------------------


def test_nothing_is_shared_between_optimizers() -> None:
    params = parameters((4, 3), (5,))
    twins = copies(params)
    first, second = thalweg.torch.NAdam(params), thalweg.torch.NAdam(twins)
    train(first, params, gradients(params, 3))
    second.load_state_dict(first.state_dict())
    before = snapshot(first)
    train(second, twins, gradients(twins, 3))
    second.param_groups[0]["lr"] = 7.0
    assert snapshot(first) == before


def test_a_state_dict_keeps_its_numbers_while_training_goes_on() -> None:
    params = parameters((3,), (2,))
    optimizer = thalweg.torch.NAdam(params)
    train(optimizer, params, gradients(params, 3))
    written = optimizer.state_dict()
    numbers = [float(s[k]) for s in written["state"].values() for k in ("step", "mu_product")]
    train(optimizer, params, gradients(params, 3))
    assert [float(s[k]) for s in written["state"].values() for k in ("step", "mu_product")] == numbers


def test_what_a_state_dict_holds_is_left_alone_by_loading() -> None:
    params = parameters((3,))
    source = trained(torch.optim.Adam(params), params)
    before = copy.deepcopy(source)
    optimizer = thalweg.torch.Adam(params)
    optimizer.load_state_dict(source)
    train(optimizer, params, gradients(params, 3))
    assert str(source) == str(before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_state_of_a_half_parameter_stays_float32(dtype: torch.dtype, path: str) -> None:
    (p,) = parameters((6,), dtype=dtype)
    (wide,) = copies([p.detach().float()])
    grads = gradients([p], 6)
    source = torch.optim.Adam([wide], lr=0.1)
    train(source, [wide], [[g[0].float()] for g in grads[:3]])
    with torch.no_grad():
        p.copy_(wide)
    optimizer = thalweg.torch.Adam([p])
    optimizer.load_state_dict(copy.deepcopy(source.state_dict()))
    train(source, [wide], [[g[0].float()] for g in grads[3:]])
    train(optimizer, [p], grads[3:])
    for key in ("exp_avg", "exp_avg_sq"):
        assert optimizer.state[p][key].dtype == torch.float32
        assert difference(optimizer.state[p][key], source.state[wide][key]) <= 1e-6
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert difference(p, wide) <= 0.02
    again = thalweg.torch.Adam(copies([p]))
    again.load_state_dict(optimizer.state_dict())
    (state,) = again.state.values()
    assert state["exp_avg"].dtype == torch.float32


def test_step_numbers_of_old_checkpoints_are_plain_numbers() -> None:
    params = parameters((3,))
    source = trained(torch.optim.Adam(params), params)
    source["state"][0]["step"] = 3
    optimizer = thalweg.torch.Adam(params)
    optimizer.load_state_dict(source)
    train(optimizer, params, gradients(params, 1))
    assert float(optimizer.state[params[0]]["step"]) == 4.0


# -- names ---------------------------------------------------------------------------------------


def named(*names: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Parameters of one shape, which position alone would mix up."""
    return dict(zip(names, parameters(*[(3,)] * len(names), seed=seed), strict=True))


def test_parameters_are_matched_by_name() -> None:
    params = named("a", "b", "c")
    grads = dict(zip(params, zip(*gradients([*params.values()], 8), strict=True), strict=True))
    wanted = {k: v.detach().clone().requires_grad_() for k, v in params.items()}
    for source in (torch.optim.Adam, thalweg.torch.Adam):
        found = {k: v.detach().clone().requires_grad_() for k, v in params.items()}
        first = source(found.items(), lr=0.1)
        train(first, [*found.values()], list(zip(*grads.values(), strict=True))[:4])
        order = ["c", "a", "b"]
        second = thalweg.torch.Adam([(k, found[k]) for k in order], lr=0.5)
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        assert second.param_groups[0]["param_names"] == order
        train(second, [found[k] for k in order], list(zip(*(grads[k] for k in order), strict=True))[4:])
        whole = {k: v.detach().clone().requires_grad_() for k, v in wanted.items()}
        train(torch.optim.Adam(whole.values(), lr=0.1), [*whole.values()], zip(*grads.values(), strict=True))
        assert largest_difference(found.values(), whole.values()) <= 1e-12


def test_names_find_their_settings_across_groups() -> None:
    params = named("a", "b", "c")
    pairs = [*params.items()]
    first = thalweg.torch.Adam([{"params": pairs[:1], "lr": 0.1}, {"params": pairs[1:], "lr": 0.2}])
    source = trained(first, [*params.values()])
    second = thalweg.torch.Adam([{"params": pairs[:0:-1]}, {"params": pairs[:1]}])
    second.load_state_dict(source)
    assert [(g["lr"], g["param_names"]) for g in second.param_groups] == [(0.2, ["c", "b"]), (0.1, ["a"])]
    for name, p in pairs:
        assert torch.equal(second.state[p]["exp_avg"], first.state[params[name]]["exp_avg"])
    mixed = thalweg.torch.Adam([{"params": pairs}])
    before = snapshot(mixed)
    with pytest.raises(
        ValueError, match="'a' and 'b' are in one parameter group here but come from groups with"
    ):
        mixed.load_state_dict(source)
    assert snapshot(mixed) == before


def test_without_names_on_one_side_position_decides() -> None:
    params = named("a", "b")
    source = trained(torch.optim.Adam(params.values()), [*params.values()])
    optimizer = thalweg.torch.Adam(params.items())
    optimizer.load_state_dict(source)
    assert optimizer.state[params["b"]]["exp_avg"].tolist() == source["state"][1]["exp_avg"].tolist()


# -- what does not fit ---------------------------------------------------------------------------

MISFITS: dict[str, tuple[Any, Any, str]] = {
    "a wrong shape": (
        lambda: thalweg.torch.Adam(parameters((4,), (3, 2))),
        None,
        r"exp_avg of parameter 1 has shape \(3, 2\), the parameter \(2, 3\)",
    ),
    "another rule": (lambda: thalweg.torch.Adamax(parameters((4,), (2, 3))), None, "setting|does not fit"),
    "another rule of torch": (
        lambda: torch.optim.RMSprop(parameters((4,), (2, 3))),
        None,
        "setting|does not fit",
    ),
    "another form": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s["state"][1].update(max_exp_avg_sq=torch.zeros(2, 3)),
        "unknown max_exp_avg_sq",
    ),
    "a slot is missing": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s["state"][1].pop("exp_avg_sq"),
        "the state of parameter 1 does not fit: missing exp_avg_sq; unknown nothing",
    ),
    "fewer parameters": (
        lambda: thalweg.torch.Adam(parameters((4,))),
        None,
        r"parameter groups of \[1\] parameters, this optimizer has \[2\]",
    ),
    "more groups": (
        lambda: thalweg.torch.Adam([{"params": [p]} for p in parameters((4,), (2, 3))]),
        None,
        r"parameter groups of \[1, 1\] parameters, this optimizer has \[2\]",
    ),
    "an unknown setting": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s["param_groups"][0].update(rate=0.5),
        "setting 'rate'",
    ),
    "an inadmissible setting": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s["param_groups"][0].update(lr=-1.0),
        "lr must lie in",
    ),
    "a step number that is none": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s["state"][1].update(step=torch.ones(2)),
        "step of parameter 1 is one number",
    ),
    "a slot that is no tensor": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s["state"][1].update(exp_avg=1.0),
        "exp_avg of parameter 1 has shape 1.0",
    ),
    "no state": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s.pop("state"),
        "not the state_dict",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_does_not_fit_is_refused_and_changes_nothing(misfit: str) -> None:
    build, spoil, message = MISFITS[misfit]
    other = build()
    source = trained(other, [p for g in other.param_groups for p in g["params"]])
    if spoil:
        spoil(source)
    params = parameters((4,), (2, 3))
    optimizer = thalweg.torch.Adam(params, lr=0.1)
    grads = gradients(params, 6)
    train(optimizer, params, grads[:3])
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(source)
    assert snapshot(optimizer) == before
    train(optimizer, params, grads[3:])
    wanted = parameters((4,), (2, 3))
    train(torch.optim.Adam(wanted, lr=0.1), wanted, grads)
    assert largest_difference(params, wanted) <= 1e-12


@pytest.mark.parametrize(
    ("mine", "saved", "message"),
    [
        (("a", "b"), ("a", "c"), "not in the loaded state: b; not in this optimizer: c"),
        (("a", "b"), ("a",), "not in the loaded state: b; not in this optimizer: none"),
        (("a",), ("a", "b"), "not in the loaded state: none; not in this optimizer: b"),
    ],
)
def test_names_that_differ_are_refused(mine: tuple[str, ...], saved: tuple[str, ...], message: str) -> None:
    theirs, ours = named(*saved), named(*mine)
    source = trained(thalweg.torch.Adam(theirs.items(), lr=0.3), [*theirs.values()])
    optimizer = thalweg.torch.Adam(ours.items(), lr=0.1)
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(source)
    assert snapshot(optimizer) == before
    optimizer.load_state_dict(source, strict=False)
    assert optimizer.param_groups[0]["lr"] == 0.3
    for name, p in ours.items():
        assert (p in optimizer.state) == (name in saved)
    train(optimizer, [*ours.values()], gradients([*ours.values()], 1))
    assert {n: float(optimizer.state[p]["step"]) for n, p in ours.items()} == {
        n: 4.0 if n in saved else 1.0 for n in mine
    }


def test_not_strict_loads_what_fits_of_another_form() -> None:
    (p,) = parameters((3,))
    source = trained(torch.optim.Adam([p], amsgrad=True), [p])
    optimizer = thalweg.torch.Adamax([p])
    with pytest.raises(ValueError, match="Adamax"):
        optimizer.load_state_dict(source)
    optimizer.load_state_dict(source, strict=False)
    assert {*optimizer.state[p]} == {"step", "exp_avg"}
    train(optimizer, [p], gradients([p], 1))
    assert float(optimizer.state[p]["step"]) == 4.0
    assert "amsgrad" not in optimizer.param_groups[0]


def test_a_state_of_another_form_turns_the_form_on() -> None:
    # amsgrad is a setting, and settings are loaded.
    (p,) = parameters((3,))
    (q,) = copies([p])
    source = torch.optim.Adam([q], amsgrad=True, lr=0.1)
    grads = gradients([p], 6)
    train(source, [q], grads[:3])
    with torch.no_grad():
        p.copy_(q)
    optimizer = thalweg.torch.Adam([p])
    optimizer.load_state_dict(copy.deepcopy(source.state_dict()))
    train(source, [q], grads[3:])
    train(optimizer, [p], grads[3:])
    assert difference(p, q) <= 1e-12


# -- hooks and rules of one's own ----------------------------------------------------------------


def test_hooks_around_saving_and_loading() -> None:
    (p,) = parameters((3,))
    optimizer = thalweg.torch.Adam([p], lr=0.1)
    train(optimizer, [p], gradients([p], 2))
    seen: list[str] = []
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("before saving"))
    optimizer.register_state_dict_post_hook(lambda o, s: {**s, "note": 1})
    optimizer.register_load_state_dict_pre_hook(
        lambda o, s: {**s, "param_groups": [{**g, "lr": 0.7} for g in s["param_groups"]]}
    )
    optimizer.register_load_state_dict_post_hook(
        lambda o: seen.append(f"after loading {o.param_groups[0]['lr']}")
    )
    written = optimizer.state_dict()
    assert written["note"] == 1
    optimizer.load_state_dict(written)
    assert seen == ["before saving", "after loading 0.7"]


def test_any_rule_saves_and_loads() -> None:
    rule = thalweg.chain(thalweg.ClipByGlobalNorm(1.0), thalweg.L2(0.1), thalweg.Nadam(0.05, psi=0.5))
    params = parameters((3,), (2, 2))
    grads = gradients(params, 8)
    wanted, found = copies(params), copies(params)
    train(thalweg.torch.Optimizer(wanted, rule), wanted, grads)
    first = thalweg.torch.Optimizer(found, rule)
    train(first, found, grads[:4])
    second = thalweg.torch.Optimizer(found, rule.replaced(lr=0.9, l2=0.9))
    second.load_state_dict(first.state_dict())
    train(second, found, grads[4:])
    assert largest_difference(found, wanted) == 0.0
    third = thalweg.torch.Optimizer(copies(params), thalweg.Adam())
    with pytest.raises(ValueError, match="clip_global_norm"):
        third.load_state_dict(first.state_dict())
