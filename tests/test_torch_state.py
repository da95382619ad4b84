"""`state_dict`: between torch.optim and us in both directions, by name, or refused whole."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim._stateless import swap_in_optimizer_params_and_state

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


def nested() -> torch.Tensor:
    """A matrix whose rows have lengths of their own."""
    rows = [torch.ones(2, dtype=torch.float64), torch.ones(3, dtype=torch.float64)]
    return torch.nested.nested_tensor(rows, layout=torch.jagged)


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


@pytest.mark.pairwise
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


@pytest.mark.pairwise
@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("form", TORCH_FORMS)
def test_states_have_torchs_names_shapes_and_dtypes(form: str, steps: int, default: torch.dtype) -> None:
    theirs, ours = both(TORCH_FORMS[form][0])
    settings = draw_settings(form, 1)
    written = []
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        for kind in (theirs, ours):
            params = parameters(*SHAPES, dtype=torch.float32)
            optimizer = kind(params, **settings)
            saved = trained(optimizer, params, steps)
            live = [{k: (x.shape, x.dtype) for k, x in s.items()} for s in optimizer.state.values()]
            kept = {i: {k: (x.shape, x.dtype) for k, x in s.items()} for i, s in saved["state"].items()}
            written.append((kept, live, [group.keys() for group in saved["param_groups"]]))
    finally:
        torch.set_default_dtype(before)
    assert written[1] == written[0]


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
        lambda s: s["param_groups"][0].update(lerning_rate=0.5),
        "unknown setting 'lerning_rate' in a parameter group; did you mean 'lr'",
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
    "a negative step number": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s["state"][1].update(step=torch.tensor(-5.0)),
        "step of parameter 1 is a whole number from 0, got -5",
    ),
    "a step number between two": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s["state"][1].update(step=1.5),
        "step of parameter 1 is a whole number from 0, got 1.5",
    ),
    "a step number that is a word": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s["state"][1].update(step="three"),
        "step of parameter 1 is one number, got 'three'",
    ),
    "a slot of integers": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s["state"][1].update(exp_avg=torch.ones(2, 3, dtype=torch.int64)),
        "exp_avg of parameter 1 is of torch.int64, the parameter of torch.float64",
    ),
    "a slot that is no tensor": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s["state"][1].update(exp_avg=1.0),
        "exp_avg of parameter 1 is a tensor, got 1.0",
    ),
    "a slot of float8": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s["state"][1].update(exp_avg=torch.ones(2, 3).to(torch.float8_e4m3fn)),
        r"exp_avg of parameter 1 is a dense tensor of .*, got a tensor of shape \(2, 3\), torch.float8",
    ),
    "a slot on no device": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s["state"][1].update(exp_avg=torch.ones(2, 3, device="meta")),
        "exp_avg of parameter 1 is a dense tensor of .* on meta",
    ),
    "a slot of rows of several lengths": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s["state"][1].update(exp_avg=nested()),
        "exp_avg of parameter 1 is a dense tensor of .*, got a nested tensor",
    ),
    "a slot without its storage": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s["state"][1]["exp_avg"].untyped_storage().resize_(8),
        "exp_avg of parameter 1 is a dense tensor of",
    ),
    "a step number on no device": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s["state"][1].update(step=torch.ones((), device="meta")),
        "step of parameter 1 is one number, got a tensor",
    ),
    "parameters by what names none": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s["param_groups"][0].update(params=[0, []]),
        r"lists its parameters as numbers or names, got \[\]",
    ),
    "no state": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s.pop("state"),
        "not the state_dict",
    ),
    "a list of states": (
        lambda: thalweg.torch.Adam(parameters((4,), (2, 3))),
        lambda s: s.update(state=[]),
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


# -- what users keep there themselves --------------------------------------------------------------


def test_entries_of_the_users_own_in_state_are_kept_and_saved() -> None:
    params = parameters((3,), (2, 2))
    grads = gradients(params, 4)
    ends = []
    for module in (torch.optim, thalweg.torch):
        found = copies(params)
        first = module.Adam(found, lr=0.1)
        train(first, found, grads[:2])
        first.state[found[0]]["old_p"] = found[0].detach().clone()
        first.state[found[1]]["masks"] = {"row": torch.ones(2).double(), "many": [torch.zeros(1).double(), 2]}
        first.state["of the whole model"] = {"seen": 5}
        saved = copy.deepcopy(first.state_dict())
        second = module.Adam(found, lr=0.1)
        second.load_state_dict(state_dict=first.state_dict())
        if module is thalweg.torch:
            first.state[found[0]]["old_p"].zero_()  # nothing is shared
        assert second.state["of the whole model"] == {"seen": 5}
        train(second, found, grads[2:])
        written = second.state_dict()["state"]
        for place, key in ((0, "old_p"), (1, "masks")):
            assert str(written[place][key]) == str(saved["state"][place][key])
        assert written["of the whole model"] == {"seen": 5}
        ends.append(found)
    assert largest_difference(ends[1], ends[0]) <= 1e-12


@pytest.mark.parametrize("key", ["0", "of the whole model", 7, ("a", 1)], ids=str)
def test_any_key_of_the_users_own_in_state_goes_there_and_back(key: Any) -> None:
    found = []
    for module in (torch.optim, thalweg.torch):
        (p,) = parameters((3,))
        optimizer, again = module.Adam([p]), module.Adam([p])
        train(optimizer, [p], gradients([p], 1))
        optimizer.state[key] = {"seen": [torch.tensor(5.0)]}
        again.load_state_dict(optimizer.state_dict())
        again.load_state_dict(again.state_dict())
        assert again.state[key] == {"seen": [torch.tensor(5.0)]}
        assert again.state[p]["step"] == 1
        found.append([*again.state_dict()["state"]])
    assert found[1] == found[0]


def test_entries_of_the_users_own_alone_are_no_state_to_go_on_from() -> None:
    (p,) = parameters((3,))
    first = thalweg.torch.Adam([p], lr=0.1)
    first.state[p]["note"] = "mine"
    second = thalweg.torch.Adam([p], lr=0.1)
    second.load_state_dict(first.state_dict())
    before = p.detach().clone()
    train(second, [p], [[torch.ones(3)]])
    assert second.state[p]["note"] == "mine"
    assert difference(before - p, torch.full((3,), 0.1)) <= 1e-6


def test_hooks_see_and_may_change_a_state_of_torchs_form() -> None:
    (p,) = parameters((3,))
    optimizer = thalweg.torch.SGD([p], lr=0.1, momentum=0.9)
    train(optimizer, [p], gradients([p], 2))
    seen: list[Any] = []

    def note(_: Any, written: Any) -> None:
        seen.append({*written["state"][0]})
        written["state"]["note"] = 7
        written["state"][0]["extra"] = [1, 2]

    optimizer.register_state_dict_post_hook(note)
    written = optimizer.state_dict()
    assert seen == [{"momentum_buffer"}]
    assert written["state"]["note"] == 7
    assert "extra" not in optimizer.state[p]
    optimizer.load_state_dict(written)
    assert optimizer.state["note"] == 7
    assert optimizer.state[p]["extra"] == [1, 2]
    train(optimizer, [p], gradients([p], 2))
    assert optimizer.state_dict()["state"]["note"] == 7


# -- torch.distributed and torch's own tools ---------------------------------------------------------


def through_checkpoint(model: Any, optimizer: Any, flat: bool) -> Any:
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    return copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))


@pytest.mark.pairwise
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
@pytest.mark.parametrize("direction", ["from torch", "to torch", "among ours"])
@pytest.mark.parametrize("form", TORCH_FORMS)
def test_states_through_distributed_checkpoints(form: str, direction: str, flat: bool) -> None:
    theirs, ours = both(TORCH_FORMS[form][0])
    settings = draw_settings(form, 1)
    first, second = {"from torch": (theirs, ours), "to torch": (ours, theirs), "among ours": (ours, ours)}[
        direction
    ]
    ends = []
    for kinds in ((theirs, theirs), (first, second)):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        params = [*model.parameters()]
        grads = gradients(params, 6)
        before = kinds[0](params, **settings)
        train(before, params, grads[:3])
        saved = through_checkpoint(model, before, flat)
        model.zero_grad()
        after = kinds[1](params, **{**settings, "lr": 0.5})
        set_optimizer_state_dict(
            model, after, saved, options=StateDictOptions(flatten_optimizer_state_dict=flat)
        )
        train(after, params, grads[3:])
        ends.append(params)
    assert largest_difference(ends[1], ends[0]) <= 1e-10


@pytest.mark.parametrize("form", ["SGD-momentum", "Adam", "NAdam", "Adagrad"])
def test_parameters_and_state_swapped_for_a_while(form: str) -> None:
    kind, settings = TORCH_FORMS[form]
    params = parameters((3,), (2, 2))
    grads = gradients(params, 5)
    ends = []
    for optimizer_of in both(kind):
        found = copies(params)
        optimizer = optimizer_of(found, lr=0.1, **settings)
        train(optimizer, found, grads[:2])
        guests = copies(found)
        state = copy.deepcopy(optimizer.state_dict())
        state["param_groups"][0]["lr"] = 0.5
        with swap_in_optimizer_params_and_state(optimizer, {"a": guests[0], "b": guests[1]}, state):
            train(optimizer, guests, grads[2:3])
        train(optimizer, found, grads[3:])
        tensors = [x.double() for s in state["state"].values() for x in s.values()]
        ends.append([*found, *guests, *tensors])
    assert largest_difference(ends[1], ends[0]) <= 1e-6


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


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (None, "not the state_dict of an optimizer: NoneType"),
        ({"param_groups": ["x"]}, "parameter group 0 of the loaded state has no 'params'"),
        ({"param_groups": [{"lr": 1.0}]}, "parameter group 0 of the loaded state has no 'params'"),
        ({"state": {0: [1.0]}}, r"the state of parameter 0 is no dictionary, got \[1.0\]"),
    ],
)
def test_what_is_no_state_dict_is_named(part: Any, message: str) -> None:
    optimizer = thalweg.torch.Adam(parameters((3,)))
    with pytest.raises((TypeError, ValueError), match=f"Adam: {message}"):
        optimizer.load_state_dict(part if part is None else optimizer.state_dict() | part)
