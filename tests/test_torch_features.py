"""What programs do with torch optimizers, done with ours: beside torch's own, or beside plain arithmetic."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import thalweg
import thalweg.torch
from helpers import copies, difference, gradients, largest_difference, parameters, train
from thalweg import Momentum

CLASSES = [getattr(thalweg.torch, name) for name in thalweg.torch.__all__ if name != "Optimizer"]
classes = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()


def loss(network: nn.Module) -> torch.Tensor:
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(6, 4)
    return (network(x) - x.sum(1, keepdim=True).sin()).square().mean()


def fit(
    network: nn.Module, optimizer: torch.optim.Optimizer, steps: int, after: Callable[[], Any] = lambda: None
) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss(network).backward()
        optimizer.step()
        after()


def held(optimizer: torch.optim.Optimizer) -> Any:
    """All that an optimizer holds, as plain values."""
    return plain(copy.deepcopy(optimizer.state_dict()))


def plain(x: Any) -> Any:
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [plain(v) for v in x]
    return x.tolist() if isinstance(x, torch.Tensor) else x


# -- training ------------------------------------------------------------------------------------


@classes
def test_a_little_network_learns(kind: Any, path: str) -> None:
    network = model()
    start = loss(network).item()
    rate = {"Adadelta": 10.0, "SGD": 0.3, "Adagrad": 0.1}.get(kind.__name__, 0.03)
    fit(network, kind(network.parameters(), lr=rate), 60)
    assert loss(network).item() < 0.9 * start


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 3, 0.5),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 8),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda k: 1 / (1 + k)),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=12),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 3),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, 1.0, 4), lr_scheduler.ExponentialLR(o, 0.9)], [4]
    ),
}


@pytest.mark.filterwarnings("ignore:.*epoch parameter in `scheduler.step.*:UserWarning")
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize(("kind", "settings"), [("SGD", {"momentum": 0.9}), ("Adam", {})])
def test_learning_rate_schedulers(name: str, kind: str, settings: dict[str, Any]) -> None:
    ends = []
    for module in (torch.optim, thalweg.torch):
        network = model()
        optimizer = getattr(module, kind)(network.parameters(), lr=0.05, **settings)
        fit(
            network,
            optimizer,
            12,
            SCHEDULERS[name](optimizer).step
            if name != "OneCycleLR"
            else _all_but_last(SCHEDULERS[name](optimizer)),
        )
        ends.append([*network.parameters()])
    assert largest_difference(ends[1], ends[0]) <= 1e-10


def _all_but_last(scheduler: Any) -> Callable[[], None]:
    return lambda: scheduler.step() if scheduler.last_epoch < 11 else None


def test_reduce_on_plateau() -> None:
    (p,) = parameters((2,))
    optimizer = thalweg.torch.SGD([p], lr=1.0)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    for value in (1.0, 2.0, 3.0):
        scheduler.step(value)
    assert optimizer.param_groups[0]["lr"] == 0.25
    before = p.detach().clone()
    train(optimizer, [p], [[torch.ones(2)]])
    assert torch.equal(before - p, torch.full((2,), 0.25, dtype=torch.float64))


def test_a_learning_rate_in_a_tensor_changed_in_place() -> None:
    (p,) = parameters((3,))
    before = p.detach().clone()
    rate = torch.tensor(0.5, dtype=torch.float64)
    optimizer = thalweg.torch.SGD([p], lr=rate)
    train(optimizer, [p], [[torch.ones(3)]])
    rate.fill_(0.25)
    train(optimizer, [p], [[torch.ones(3)]])
    assert difference(before - p, torch.full((3,), 0.75)) <= 1e-15


def test_grad_scaler_skips_a_step_that_overflowed() -> None:
    ends = []
    for module in (torch.optim, thalweg.torch):
        network = model()
        optimizer = module.Adam(network.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for k in range(6):
            optimizer.zero_grad()
            scaler.scale(loss(network) * (float("inf") if k == 2 else 1.0)).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
        assert scaler.get_scale() == 512.0
        assert {float(s["step"]) for s in optimizer.state.values()} == {5.0}
        ends.append([*network.parameters()])
    assert largest_difference(ends[1], ends[0]) <= 1e-10


def test_autocast_on_the_cpu() -> None:
    torch.manual_seed(0)
    network = nn.Linear(8, 1)
    optimizer = thalweg.torch.Adam(network.parameters(), lr=0.05)
    x = torch.randn(32, 8)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            value = (network(x) - x[:, :1]).float().square().mean()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:Dynamo:UserWarning")
@pytest.mark.parametrize("what", ["step", "training"])
def test_a_compiled_function_leaves_our_step_as_it_is(what: str) -> None:
    torch.compiler.reset()
    network, twin = model(), model()
    optimizer = thalweg.torch.Adam(network.parameters(), lr=0.05)

    def training() -> None:
        optimizer.zero_grad()
        loss(network).backward()
        optimizer.step()

    compiled = torch.compile(training if what == "training" else optimizer.step, backend="aot_eager")
    for _ in range(5):
        if what == "step":
            optimizer.zero_grad()
            loss(network).backward()
        compiled()
    fit(twin, torch.optim.Adam(twin.parameters(), lr=0.05), 5)
    assert largest_difference(network.parameters(), twin.parameters()) <= 1e-12


def test_a_closure_is_called_once_and_its_loss_returned(path: str) -> None:
    network = model()
    optimizer = thalweg.torch.SGD(network.parameters(), lr=0.1)
    calls = []

    def closure() -> torch.Tensor:
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        value = loss(network)
        value.backward()
        calls.append(value.item())
        return value

    with torch.no_grad():
        found = [optimizer.step(closure).item() for _ in range(2)]
    assert found == calls
    assert calls[1] < calls[0]
    assert optimizer.step() is None


def test_step_hooks() -> None:
    (p,) = parameters((2,))
    optimizer = thalweg.torch.SGD([p], lr=0.1)
    seen: list[Any] = []
    hooks = [
        optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append(("before", p.tolist()))),
        optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append(("after", p.tolist()))),
    ]
    start = p.tolist()
    train(optimizer, [p], [[torch.ones(2)]])
    assert seen == [("before", start), ("after", p.tolist())]
    assert start != p.tolist()
    for hook in hooks:
        hook.remove()
    train(optimizer, [p], [[torch.ones(2)]])
    assert len(seen) == 2


def test_a_step_between_forward_and_backward_is_noticed() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    optimizer = thalweg.torch.SGD(network.parameters(), lr=0.1)
    x = torch.ones(2, 3)
    network(x).sum().backward()
    value = network(x).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_a_step_is_no_part_of_the_graph() -> None:
    (p,) = parameters((2,))
    (p.grad,) = torch.autograd.grad(p.square().sum(), p, create_graph=True)
    optimizer = thalweg.torch.Adam([p])
    optimizer.step()
    assert p.is_leaf
    assert not any(x.requires_grad for x in optimizer.state[p].values())


# -- gradients that are not there ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["SGD", "Adam", "NAdam", "Adagrad"])
@pytest.mark.parametrize(
    "pattern",
    [
        ["110", "110", "111", "111"],
        ["100", "010", "100", "010", "001", "111"],
        ["000", "111", "000"],
        [f"{k:03b}" for k in (*range(8), *range(8))],
        [f"{k % 2}{k % 3 % 2}{k % 5 % 2}" for k in range(20)],
    ],
    ids=["later", "alternating", "none", "all", "mixed"],
)
@pytest.mark.usefixtures("float64")
def test_gradients_that_are_absent_now_and_then(kind: str, pattern: list[str], path: str) -> None:
    settings = {"momentum": 0.9} if kind == "SGD" else {}
    params = parameters((3,), (2, 2), ())
    grads = [
        [g if present == "1" else None for g, present in zip(step, row, strict=True)]
        for step, row in zip(gradients(params, len(pattern)), pattern, strict=True)
    ]
    wanted, found = copies(params), copies(params)
    train(getattr(torch.optim, kind)(wanted, lr=0.1, **settings), wanted, grads)
    train(getattr(thalweg.torch, kind)(found, lr=0.1, **settings), found, grads)
    assert largest_difference(found, wanted) <= 1e-12


def test_more_patterns_of_absence_than_are_remembered() -> None:
    params = parameters(*[(2,)] * 5)
    full = gradients(params, 64)
    grads = [[g if k % 32 >> i & 1 else None for i, g in enumerate(step)] for k, step in enumerate(full)]
    wanted, found = copies(params), copies(params)
    train(torch.optim.Adam(wanted), wanted, grads)
    train(thalweg.torch.Adam(found), found, grads)
    assert largest_difference(found, wanted) <= 1e-12


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad(set_to_none: bool) -> None:
    network = model()
    optimizer = thalweg.torch.Adam(network.parameters())
    loss(network).backward()
    optimizer.zero_grad(set_to_none=set_to_none)
    grads = [p.grad for p in network.parameters()]
    assert all(g is None if set_to_none else not g.any() for g in grads)


def test_gradients_accumulate_in_place() -> None:
    ends = []
    for module in (torch.optim, thalweg.torch):
        network = model()
        optimizer = module.Adam(network.parameters(), lr=0.05)
        for _ in range(4):
            optimizer.zero_grad(set_to_none=False)
            for _ in range(3):
                loss(network).backward()
            optimizer.step()
        ends.append([*network.parameters()])
    assert largest_difference(ends[1], ends[0]) <= 1e-12


# -- sparse gradients ----------------------------------------------------------------------------


def embed(module: Any, kind: str, indices: list[list[int]], **settings: Any) -> torch.Tensor:
    torch.manual_seed(0)
    table = nn.Embedding(6, 3, sparse=True, dtype=torch.float64)
    optimizer = getattr(module, kind)(table.parameters(), lr=0.1, **settings)
    for rows in indices:
        optimizer.zero_grad()
        table(torch.tensor(rows)).square().sum().backward()
        optimizer.step()
    return table.weight


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize(("kind", "settings"), [("SGD", {}), ("SGD", {"momentum": 0.9}), ("Adagrad", {})])
def test_sparse_gradients_equal_torch(kind: str, settings: dict[str, float], path: str) -> None:
    indices = [[1, 1, 4], [0], [4, 5]]
    assert (
        difference(
            embed(thalweg.torch, kind, indices, **settings), embed(torch.optim, kind, indices, **settings)
        )
        <= 1e-12
    )


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "RMSprop", "Adadelta", "Adamax", "NAdam", "RAdam", "Lion"])
def test_sparse_gradients_are_refused_where_they_mean_something_else(kind: str, path: str) -> None:
    with pytest.raises(RuntimeError, match=f"{kind} does not take sparse gradients"):
        embed(thalweg.torch, kind, [[1]])


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_sparse_and_dense_gradients_take_turns() -> None:
    (p,) = parameters((4, 2))
    before = p.detach().clone()
    optimizer = thalweg.torch.SGD([p], lr=1.0)
    dense = torch.arange(8, dtype=torch.float64).reshape(4, 2)
    for g in (dense, dense.to_sparse(), dense, dense.to_sparse()):
        p.grad = g
        optimizer.step()
    assert difference(before - p, 4 * dense) <= 1e-15


# -- parameters and their memory -----------------------------------------------------------------


def test_new_memory_for_a_parameter_is_found(path: str) -> None:
    (p,) = parameters((5,))
    grads = gradients([p], 6)
    (wanted,) = copies([p])
    train(torch.optim.Adam([wanted], lr=0.1), [wanted], grads)
    optimizer = thalweg.torch.Adam([p], lr=0.1)
    for g in grads:
        p.data = p.data.clone()
        train(optimizer, [p], [g])
    assert difference(p, wanted) <= 1e-12


def test_a_parameter_moved_to_another_dtype(path: str) -> None:
    network = nn.Linear(3, 2)
    optimizer = thalweg.torch.Adam(network.parameters(), lr=0.1)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    network.double()
    optimizer.zero_grad()
    before = copies(network.parameters())
    network(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
    optimizer.step()
    # A constant gradient: Adam's step is its rate.
    for p, was in zip(network.parameters(), before, strict=True):
        assert difference(was - p, torch.full_like(p, 0.1)) <= 1e-6


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_another_parameter_put_into_a_group(kind: str, path: str) -> None:
    first, second = parameters((3,), (5,))
    optimizer = getattr(thalweg.torch, kind)([first], lr=0.1)
    train(optimizer, [first], [[torch.ones(3)]])
    left = first.detach().clone()
    optimizer.param_groups[0]["params"][0] = second
    before = second.detach().clone()
    train(optimizer, [second], [[torch.ones(5)]])
    assert torch.equal(first, left)
    assert difference(before - second, torch.full((5,), 0.1)) <= 1e-6


def test_a_step_number_edited_by_the_user(path: str) -> None:
    for edit in (
        lambda s: s["step"].fill_(10.0),
        lambda s: s.update(step=torch.tensor(10.0)),
        lambda s: s.update(step=10),
    ):
        params = parameters((3,), (2,))
        grads = gradients(params, 4)
        wanted, found = copies(params), copies(params)
        theirs, ours = torch.optim.Adam(wanted, lr=0.1), thalweg.torch.Adam(found, lr=0.1)
        train(theirs, wanted, grads[:2])
        train(ours, found, grads[:2])
        theirs.state[wanted[0]]["step"].fill_(10.0)
        edit(ours.state[found[0]])
        train(theirs, wanted, grads[2:])
        train(ours, found, grads[2:])
        assert largest_difference(found, wanted) <= 1e-12
        assert [float(ours.state[p]["step"]) for p in found] == [12.0, 4.0]


def test_a_state_tensor_replaced_or_edited_by_the_user(path: str) -> None:
    for edit in (
        lambda s: s["exp_avg"].zero_(),
        lambda s: s.update(exp_avg=torch.zeros(3, 4)),
        lambda s: s.update(exp_avg=torch.zeros(4, 3, dtype=torch.float64).t()),
    ):
        (p,) = parameters((3, 4))
        grads = gradients([p], 4)
        (wanted,), (found,) = copies([p]), copies([p])
        theirs, ours = torch.optim.Adam([wanted], lr=0.1), thalweg.torch.Adam([found], lr=0.1)
        train(theirs, [wanted], grads[:2])
        train(ours, [found], grads[:2])
        theirs.state[wanted]["exp_avg"].zero_()
        edit(ours.state[found])
        train(theirs, [wanted], grads[2:])
        train(ours, [found], grads[2:])
        assert difference(found, wanted) <= 1e-6


@pytest.mark.parametrize(
    "clear", [lambda o, p: o.state.clear(), lambda o, p: o.state.pop(p)], ids=["all", "one"]
)
def test_state_cleared_by_the_user_starts_anew(clear: Callable[[Any, Any], Any], path: str) -> None:
    p, other = parameters((3,), (2,))
    optimizer = thalweg.torch.Adam([p, other], lr=0.1)
    train(optimizer, [p, other], gradients([p, other], 3))
    clear(optimizer, p)
    before = p.detach().clone()
    train(optimizer, [p, other], [[torch.ones(3), torch.ones(2)]])
    assert difference(before - p, torch.full((3,), 0.1)) <= 1e-6
    assert float(optimizer.state[p]["step"]) == 1.0


def test_inference_and_frozen_parameters_stay() -> None:
    network = model()
    network[0].requires_grad_(False)
    before = network[0].weight.clone()
    fit(network, thalweg.torch.Adam(network.parameters(), lr=0.1), 3)
    assert torch.equal(network[0].weight, before)


# -- groups --------------------------------------------------------------------------------------


def test_a_group_added_in_the_middle_of_training(path: str) -> None:
    params = parameters((3,), (2, 2), (4,))
    grads = gradients(params, 6)
    ends = []
    for module in (torch.optim, thalweg.torch):
        found = copies(params)
        optimizer = module.Adam(found[:1], lr=0.1)
        train(optimizer, found[:1], [g[:1] for g in grads[:3]])
        optimizer.add_param_group({"params": found[1:], "lr": 0.01, "weight_decay": 0.1})
        train(optimizer, found, grads[3:])
        ends.append(found)
    assert largest_difference(ends[1], ends[0]) <= 1e-12


def test_settings_changed_in_a_group_take_effect(path: str) -> None:
    params = parameters((3,), (2, 2))
    grads = gradients(params, 8)
    changes: list[dict[str, Any]] = [
        {"lr": 0.01},
        {"weight_decay": 0.1},
        {"maximize": True},
        {"betas": (0.5, 0.9), "eps": 1e-3},
    ]
    ends = []
    for module in (torch.optim, thalweg.torch):
        found = copies(params)
        optimizer = module.Adam([{"params": [p]} for p in found], lr=0.1)
        for k, change in enumerate(changes):
            train(optimizer, found, grads[2 * k : 2 * k + 2])
            optimizer.param_groups[k % 2].update(change)
        train(optimizer, found, grads[-1:])
        ends.append(found)
    assert largest_difference(ends[1], ends[0]) <= 1e-12


def test_groups_of_any_rule_override_its_hyperparameters() -> None:
    a, b = parameters((2,), (2,))
    starts = a.detach().clone(), b.detach().clone()
    optimizer = thalweg.torch.Optimizer([{"params": [a]}, {"params": [b], "lr": 2.0}], Momentum(1.0))
    train(optimizer, [a, b], [[torch.ones(2), torch.ones(2)]])
    assert difference(starts[0] - a, torch.ones(2)) <= 1e-15
    assert difference(starts[1] - b, 2 * torch.ones(2)) <= 1e-15


@pytest.mark.parametrize(
    ("group", "error", "message"),
    [
        ({"beta": 0.5}, ValueError, "unknown setting 'beta' in a parameter group; did you mean 'betas'"),
        ({"learning_rate": 0.5}, ValueError, "unknown setting 'learning_rate'"),
        ({"lr": -1.0}, ValueError, r"lr must lie in \[0, ∞\), got -1.0"),
        ({"betas": (0.9, 1.5)}, ValueError, r"beta_2 must lie in \[0, 1\), got 1.5"),
        ({"lr": torch.ones(2)}, ValueError, "Tensor lr must be 1-element"),
        ({"params": "twice"}, ValueError, "some parameters appear in more than one parameter group"),
        ({"params": [1.0]}, TypeError, "optimizer can only optimize Tensors"),
        ({"capturable": True}, ValueError, "capturable"),
    ],
)
def test_a_group_that_is_refused_changes_nothing(group: dict[str, Any], error: type, message: str) -> None:
    first, second = parameters((3,), (2,))
    optimizer = thalweg.torch.Adam([first], lr=0.1)
    grads = gradients([first], 4)
    train(optimizer, [first], grads[:2])
    before = held(optimizer)
    params = [first] if group.get("params") == "twice" else group.get("params", [second])
    with pytest.raises(error, match=message):
        optimizer.add_param_group({**group, "params": params})
    assert held(optimizer) == before
    (wanted,) = parameters((3,))
    train(optimizer, [first], grads[2:])
    train(torch.optim.Adam([wanted], lr=0.1), [wanted], grads)
    assert difference(first, wanted) <= 1e-12


@classes
def test_what_is_not_supported_is_refused(kind: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="capturable"):
        kind(parameters((2,)), capturable=True)


@pytest.mark.parametrize(
    "settings", [{"foreach": True}, {"foreach": False}, {"fused": True}, {"fused": False}]
)
def test_what_chooses_among_torchs_implementations_has_no_effect(settings: dict[str, bool]) -> None:
    (p,), (q,) = parameters((3,)), parameters((3,))
    grads = gradients([p], 3)
    train(thalweg.torch.Adam([p], **settings), [p], grads)
    train(thalweg.torch.Adam([q]), [q], grads)
    assert torch.equal(p, q)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("SGD", {"nesterov": True}, "nesterov needs a momentum"),
        ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov needs a momentum"),
        ("SGD", {"momentum": -0.1}, "momentum must lie in"),
        ("SGD", {"weight_decay": -0.1}, "must lie in"),
        ("Adagrad", {"lr_decay": -0.1}, "lr_decay must lie in"),
        ("RMSprop", {"alpha": -0.1}, "rho must lie in"),
        ("Adam", {"eps": -1.0}, "epsilon must lie in"),
        ("NAdam", {"momentum_decay": -1.0}, "psi must lie in"),
    ],
)
def test_settings_are_checked(kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(thalweg.torch, kind)(parameters((2,)), **settings)


def test_an_empty_list_of_parameters_is_torchs_error() -> None:
    with pytest.raises(ValueError, match="empty parameter list"):
        thalweg.torch.Adam([])


def test_the_generic_optimizer_takes_a_rule() -> None:
    with pytest.raises(TypeError, match="takes a rule"):
        thalweg.torch.Optimizer(parameters((2,)), "adam")  # type: ignore[arg-type]


# -- copies --------------------------------------------------------------------------------------


def unpickled(x: Any) -> Any:
    return pickle.loads(pickle.dumps(x))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, unpickled], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("steps", [0, 3])
def test_an_optimizer_copied_goes_its_own_way(duplicate: Callable[[Any], Any], steps: int) -> None:
    for make in (
        lambda ps: thalweg.torch.NAdam(ps, lr=0.05),
        lambda ps: thalweg.torch.Optimizer(ps, thalweg.chain(thalweg.L2(0.1), thalweg.Adam(0.05))),
    ):
        network = model()
        optimizer = make(network.parameters())
        fit(network, optimizer, steps)
        twin, twins = duplicate((network, optimizer))
        start = copies(twin.parameters())
        fit(network, optimizer, 3)
        assert all(map(torch.equal, twin.parameters(), start))
        fit(twin, twins, 3)
        assert all(map(torch.equal, network.parameters(), twin.parameters()))
        assert held(optimizer) == held(twins)


def test_a_state_dict_saved_and_loaded_with_weights_only() -> None:
    network = model()
    optimizer = thalweg.torch.NAdam(network.parameters(), lr=0.05)
    fit(network, optimizer, 3)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    twin = copy.deepcopy(network)
    fit(network, optimizer, 3)
    other = thalweg.torch.NAdam(twin.parameters(), lr=0.3)
    other.load_state_dict(torch.load(file, weights_only=True))
    fit(twin, other, 3)
    assert all(map(torch.equal, network.parameters(), twin.parameters()))


def test_it_shows_itself_as_torch_does() -> None:
    shown = repr(thalweg.torch.Adam(parameters((2,)), lr=0.25))
    assert shown.startswith("Adam (\nParameter Group 0")
    assert "lr: 0.25" in shown


def test_another_dictionary_of_state_is_taken_up() -> None:
    p, q = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    ours, theirs = thalweg.torch.SGD([p], lr=0.1, momentum=0.9), torch.optim.SGD([q], lr=0.1, momentum=0.9)
    for step in range(4):
        p.grad, q.grad = torch.ones(3), torch.ones(3)
        ours.step()
        theirs.step()
        if step == 1:
            ours.state[p] = {"momentum_buffer": torch.full((3,), 5.0)}
            theirs.state[q] = {"momentum_buffer": torch.full((3,), 5.0)}
        if step == 2:
            ours.state = copy.deepcopy(theirs.state)
            ours.state = type(theirs.state)(dict, {p: dict(theirs.state[q])})
            ours.state[p]["momentum_buffer"] = ours.state[p]["momentum_buffer"].clone()
    torch.testing.assert_close(p, q)


def test_a_transposed_parameter_is_noticed() -> None:
    p = torch.nn.Parameter(torch.zeros(3, 3))
    optimizer = thalweg.torch.SGD([p], lr=1.0)
    p.grad = torch.zeros(3, 3)
    optimizer.step()
    p.data = p.data.t()
    p.grad = torch.arange(9.0).reshape(3, 3)
    optimizer.step()
    torch.testing.assert_close(p.detach(), -torch.arange(9.0).reshape(3, 3))
