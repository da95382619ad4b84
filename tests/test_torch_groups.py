"""What parameter groups hold: torch's settings, keys of the user's own, tensors, and parameters at rest."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import thalweg
import thalweg.torch
from helpers import copies, difference, gradients, largest_difference, parameters, train

# -- keys of the user's own --------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["lr_scale", "rho", "adaptive", "layer", "weight_decay_scale", "tag", 3])
def test_keys_of_the_users_own_are_kept_and_saved(key: Any) -> None:
    params = parameters((3,), (2, 2))
    grads = gradients(params, 4)
    ends = []
    for module in (torch.optim, thalweg.torch):
        found = copies(params)
        optimizer = module.Adam([{"params": [p], key: [0.5 * i]} for i, p in enumerate(found)], lr=0.1)
        train(optimizer, found, grads[:2])
        for group in optimizer.param_groups:  # layer-wise decay
            group["lr"] = 0.1 * (1 - group[key][0])
        again = module.Adam([{"params": [p]} for p in found])
        again.load_state_dict(optimizer.state_dict())
        again.param_groups[0][key].append("of its own")
        assert [g[key] for g in again.param_groups] == [[0.0, "of its own"], [0.5]]
        twin = copy.deepcopy(again)
        other = pickle.loads(pickle.dumps(again))
        for one in (optimizer, twin, other):
            assert [g[key][0] for g in one.state_dict()["param_groups"]] == [0.0, 0.5]
        train(again, found, grads[2:])
        ends.append(found)
    assert optimizer.param_groups[0][key] == [0.0]
    assert largest_difference(ends[1], ends[0]) <= 1e-12


def test_the_learning_rate_for_each_layer_of_a_rule_of_any_kind() -> None:
    (p,) = parameters((2,))
    optimizer = thalweg.torch.Optimizer([{"params": [p], "lr_scale": 0.5}], thalweg.Momentum(1.0))
    again = thalweg.torch.Optimizer([p], thalweg.Momentum(1.0))
    again.load_state_dict(optimizer.state_dict())
    assert again.param_groups[0]["lr_scale"] == 0.5


@pytest.mark.parametrize(
    ("kind", "key", "meant"),
    [
        ("Adam", "learning_rate", "lr"),
        ("Adam", "lerning_rate", "lr"),
        ("Adam", "LR", "lr"),
        ("AdamW", "weigth_decay", "weight_decay"),
        ("AdamW", "weightdecay", "weight_decay"),
        ("Adam", "beta", "betas"),
        ("Adam", "beta1", "betas"),
        ("Adam", "epsilon", "eps"),
        ("SGD", "mu", "momentum"),
        ("SGD", "momentun", "momentum"),
        ("RMSprop", "rho", "alpha"),
        ("Adadelta", "alpha", "rho"),
        ("SGD", "maximise", "maximize"),
    ],
)
def test_a_slip_of_the_pen_is_named(kind: str, key: str, meant: str) -> None:
    (p,) = parameters((2,))
    with pytest.raises(
        ValueError, match=f"unknown setting '{key}' in a parameter group; did you mean '{meant}'"
    ):
        getattr(thalweg.torch, kind)([{"params": [p], key: 0.5}])


def test_a_slip_of_the_pen_in_a_rule_of_any_kind_is_named() -> None:
    rule = thalweg.chain(thalweg.ClipByNorm(1.0), thalweg.Adam())
    with pytest.raises(ValueError, match="'clipnorm' in a parameter group; did you mean 'clip_norm'"):
        thalweg.torch.Optimizer([{"params": parameters((2,)), "clipnorm": 0.5}], rule)


def test_settings_of_another_optimizer_are_no_keys_of_the_users_own() -> None:
    (p,) = parameters((2,))
    source = torch.optim.SGD([p], lr=0.1).state_dict()  # which has no state that would tell
    optimizer = thalweg.torch.Adam([p], lr=0.2)
    with pytest.raises(
        ValueError, match="setting 'momentum' that Adam does not have: it was written by another"
    ):
        optimizer.load_state_dict(source)
    assert optimizer.param_groups[0]["lr"] == 0.2


# -- settings that are tensors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("SGD", {"lr": torch.ones(2)}, "Tensor lr must be 1-element"),
        ("RMSprop", {"lr": torch.ones(0)}, "Tensor lr must be 1-element"),
        (
            "Adam",
            {"lr": torch.tensor(0.1), "foreach": True},
            "lr as a Tensor is not supported for capturable=False and foreach=True",
        ),
        (
            "AdamW",
            {"betas": (torch.tensor(0.9), torch.tensor(0.99)), "foreach": True},
            r"betas\[0\] as a Tensor is not supported for capturable=False and foreach=True",
        ),
    ],
)
def test_tensors_are_checked_as_torch_checks_them(kind: str, settings: dict[str, Any], message: str) -> None:
    for module in (torch.optim, thalweg.torch):
        with pytest.raises(ValueError, match=message):
            getattr(module, kind)(parameters((2,)), **settings)


def test_memories_in_tensors_are_one_number_each() -> None:  # torch compares them first, and stumbles
    with pytest.raises(ValueError, match=r"Tensor betas\[0\] must be 1-element, got shape \(2,\)"):
        thalweg.torch.Adam(parameters((2,)), betas=(torch.full((2,), 0.9), torch.tensor(0.9)))


@pytest.mark.parametrize("shape", [(), (1,)])
def test_tensors_changed_in_place_act_on_the_next_step(shape: tuple[int, ...], path: str) -> None:
    (p,) = parameters((3,))
    grads = gradients([p], 6)
    ends = []
    for module in (torch.optim, thalweg.torch):
        (found,) = copies([p])
        rate, beta = (torch.full(shape, x, dtype=torch.float64) for x in (0.1, 0.5))
        optimizer = module.Adam([found], lr=rate, betas=(beta, torch.tensor(0.9, dtype=torch.float64)))
        for k, step in enumerate(grads):
            train(optimizer, [found], [step])
            if k == 0:
                rate.mul_(0.5)
            if k == 2 and module is thalweg.torch:
                optimizer.param_groups[0]["betas"][0].fill_(0.8)
            elif k == 2:
                optimizer.param_groups[0]["betas"] = (
                    torch.tensor(0.8, dtype=torch.float64),
                    torch.tensor(0.9),
                )
        ends.append(found)
    assert difference(ends[1], ends[0]) <= 1e-7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fused": True, "differentiable": True}, "`fused` does not support `differentiable`"),
        ({"fused": True, "foreach": True}, "`fused` and `foreach` cannot be `True` together"),
    ],
)
def test_what_torch_does_not_do_together(settings: dict[str, bool], message: str) -> None:
    for module in (torch.optim, thalweg.torch):
        with pytest.raises(RuntimeError, match=message):
            module.Adam(parameters((2,)), **settings)


# -- parameters at rest ------------------------------------------------------------------------------


def at_rest() -> list[Any]:
    quantised = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    return [
        nn.Parameter(torch.arange(4), requires_grad=False),
        nn.Parameter(torch.tensor([True]), requires_grad=False),
        nn.Parameter(torch.ones(3, dtype=torch.uint8), requires_grad=False),
        quantised,
    ]


@pytest.mark.filterwarnings("ignore:.*quantiz:DeprecationWarning", "ignore:.*quantiz:UserWarning")
@pytest.mark.parametrize("kind", [name for name in thalweg.torch.__all__ if name != "Optimizer"])
def test_parameters_of_integers_are_passed_over(kind: str) -> None:
    (p,), rest = parameters((3,)), at_rest()
    optimizer = getattr(thalweg.torch, kind)([rest[0], p, *rest[1:]], lr=0.1)
    before = [str(x) for x in rest]
    train(optimizer, [p], gradients([p], 3))
    assert [str(x) for x in rest] == before
    assert not any(x in optimizer.state for x in rest)
    again = getattr(thalweg.torch, kind)([rest[0], p, *rest[1:]], lr=0.1)
    again.load_state_dict(optimizer.state_dict())
    (q,) = parameters((3,))
    train(getattr(thalweg.torch, kind)([q], lr=0.1), [q], gradients([q], 3))
    assert torch.equal(p, q)


def test_an_integer_with_a_gradient_is_named() -> None:
    p = torch.arange(3)
    optimizer = thalweg.torch.SGD([p], lr=1.0)
    p.grad = torch.ones(3, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"parameter 0 is a tensor .*torch\.int64.*has a gradient"):
        optimizer.step()
    assert p.tolist() == [0, 1, 2]


# -- groups edited by hand ---------------------------------------------------------------------------


def test_a_parameter_moved_to_another_group_takes_its_settings() -> None:
    wanted, found = parameters((3,), (2,)), parameters((3,), (2,))
    reference, optimizer = torch.optim.Adam(wanted), thalweg.torch.Adam(found)
    for t, step in enumerate(gradients(wanted, 5)):
        for some, chosen in ((wanted, reference), (found, optimizer)):
            for p, g in zip(some, step, strict=True):
                p.grad = g.clone()
            groups = chosen.param_groups
            if t == 2:  # all parameters are in the order in which they were
                groups.append({**groups[0], "params": [groups[0]["params"].pop()], "lr": 0.5})
            if t == 4:
                groups[0]["params"] += groups.pop()["params"]
            chosen.step()
        assert largest_difference(found, wanted) <= 1e-12, f"step {t + 1}"


@pytest.mark.parametrize("value", [None, "x", torch.ones(2), 1j, 10**400])
def test_a_setting_that_is_no_number_is_named(value: Any) -> None:
    (p,) = parameters((3,))
    p.grad = torch.ones_like(p)
    optimizer = thalweg.torch.Adam([p])
    optimizer.step()
    optimizer.param_groups[0]["lr"] = value
    with pytest.raises(TypeError, match=r"is (one|a) number"):
        optimizer.step()


# -- a parameter listed twice, a number held twice ---------------------------------------------------


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate:UserWarning")
@pytest.mark.parametrize(
    "kind", ["Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "SGD"]
)
def test_a_parameter_listed_twice_takes_two_steps(kind: str, path: str) -> None:
    ends = []
    for module in (torch.optim, thalweg.torch):
        p, q = found = parameters((3,), (2, 2))
        optimizer = getattr(module, kind)([p, q, p], lr=0.1, foreach=False)
        for step in gradients(found, 6)[:5]:
            train(optimizer, found, [step])
            optimizer.load_state_dict(optimizer.state_dict())
        (final,) = gradients(found, 6)[5:]
        p.grad, q.grad = final[0], None
        optimizer.step()
        numbers = (
            {k: x for k, x in optimizer.state[p].items() if x is not None} if p in optimizer.state else {}
        )
        ends.append([p, q, *(numbers[k] for k in sorted(numbers))])
    assert largest_difference(ends[1], ends[0]) <= 1e-6
    if kind != "SGD":
        assert (optimizer.state[p]["step"], optimizer.state[q]["step"]) == (12, 5)


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate:UserWarning")
def test_a_velocity_listed_twice_goes_on_from_the_first() -> None:
    (p,) = parameters((1,))
    optimizer = thalweg.torch.SGD([p, p], lr=0.1, momentum=0.5, dampening=0.5)
    train(optimizer, [p], [[torch.ones(1)]] * 2)
    velocities = [1.0]
    for _ in range(3):
        velocities.append(0.5 * velocities[-1] + 0.5)
    assert float(optimizer.state[p]["momentum_buffer"]) == velocities[-1]
    assert difference(p, parameters((1,))[0] - 0.1 * sum(velocities)) <= 1e-12


def shared(number: torch.Tensor) -> torch.Tensor:
    return number.share_memory_()


@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("make", [torch.clone, torch.Tensor.detach, shared], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("kind", "key"), [("Adam", "step"), ("NAdam", "mu_product")])
def test_one_number_in_the_state_of_two_parameters_counts_for_each(
    kind: str, key: str, make: Any, differentiable: bool
) -> None:
    wanted, found = (parameters((3,), (2, 2)) for _ in range(2))
    if differentiable:  # which takes no leaf
        wanted, found = ([p.clone() for p in some] for some in (wanted, found))
    steps = gradients(found, 4)
    optimizers = []
    for params in (wanted, found):
        optimizers.append(getattr(thalweg.torch, kind)(params, lr=0.1, differentiable=differentiable))
        put(optimizers[-1], params, steps[:2])
    reference, optimizer = optimizers
    one = make(optimizer.state[found[0]][key])
    for p in found:
        optimizer.state[p][key] = one
    put(reference, wanted, steps[2:])
    put(optimizer, found, steps[2:])
    for p, q in zip(wanted, found, strict=True):
        assert optimizer.state[q]["step"] == reference.state[p]["step"] == 4
    assert largest_difference(found, wanted) <= 1e-12


def put(optimizer: Any, params: list[torch.Tensor], steps: list[list[torch.Tensor]]) -> None:
    """Train parameters that need not be leaves."""
    for step in steps:
        for p, g in zip(params, step, strict=True):
            p.retain_grad()
            p.grad = g.clone()
        optimizer.step()
