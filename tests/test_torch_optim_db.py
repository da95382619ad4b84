"""torch's own table of optimizers and their inputs, over ours; and what its test_optim.py asks, in our words.

The table, `optim_db`, comes with torch. It is read in a process of its own, since importing torch's
testing tools sets Hypothesis's profile and freezes torch's flags.

Left out, with the reason:

- ASGD, Adafactor, LBFGS, Muon, Rprop, SparseAdam: Thalweg has no such optimizer.
- `capturable`: graph capture on accelerators, refused here; the table has it for those devices alone.
- foreach, fused and differentiable compared with one another, their memory, their tensors of 2³¹ entries:
  here is one implementation, which is compared with torch's.
- Several devices, tensors moved between devices, fused steps under a GradScaler: need an accelerator.
- Compiled optimizers: torch.compile leaves our step out of the graph; tests/clients has that.
- Rosenbrock's valley, two thousand steps: test_torch_equality takes 200 steps beside torch in float64.
- Profiler labels, the optimizer's slots in `torch._dynamo`, deprecated import paths: torch's own insides.
"""

import base64
import copy
import functools
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler, swa_utils
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import thalweg.torch
from helpers import both, copies, difference, gradients, largest_difference, output, parameters, python, train

# torch keeps numbers of its own (NAdam's product of momenta) in the default dtype.
in_float64 = pytest.mark.usefixtures("float64")
KINDS = ["SGD", "Adagrad", "RMSprop", "Adadelta", "Adam", "AdamW", "Adamax", "NAdam", "RAdam"]
kinds = pytest.mark.parametrize("kind", KINDS)


def having(setting: str) -> list[str]:
    """Those of torch's optimizers that have such a setting."""
    return [k for k in KINDS if setting in getattr(torch.optim, k)([torch.zeros(1)]).defaults]


# common_optimizers wants expecttest as the base class of torch's test cases, of which none is made here.
_READ = """
import base64, pickle, sys, types, unittest
sys.modules["expecttest"] = types.SimpleNamespace(TestCase=unittest.TestCase)
import torch
from torch.testing._internal.common_optimizers import optim_db
table = {
    info.name: {
        "inputs": [(i.desc, i.kwargs) for i in info.optim_inputs_func("cpu")],
        "errors": [
            (e.optimizer_error_input.desc, e.optimizer_error_input.params, e.optimizer_error_input.kwargs,
             e.error_on.name, e.error_type)
            for e in info.optim_error_inputs_func("cpu", torch.float32)
        ],
        "sparse": info.supports_sparse,
        "complex": info.supports_complex,
    }
    for info in optim_db
}
print(base64.b64encode(pickle.dumps(table)).decode())
"""


@functools.cache
def optim_db() -> dict[str, dict[str, Any]]:
    """For each optimizer of torch's: inputs, erroneous inputs, and what it supports."""
    return pickle.loads(base64.b64decode(output(python(_READ)).splitlines()[-1]))


def beside_torch(kind: str, act: Callable[[Any], Any]) -> None:
    """Whether `act` leads to the same tensors with torch's class and with ours."""
    wanted, found = (act(cls) for cls in both(kind))
    assert largest_difference(found, wanted) <= 1e-10


def least_squares(
    bias: float = 0.0, columns: bool = False
) -> tuple[list[torch.Tensor], Callable[[], torch.Tensor]]:
    """torch's example of a model: a matrix, a vector, and a loss that computes their gradients."""
    weight, offset = parameters((10, 5), (10,))
    if columns:  # every other entry of a larger tensor
        weight = torch.stack([weight.detach()] * 2, -1)[..., 0].requires_grad_()
        assert not weight.is_contiguous()
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)

    def loss() -> torch.Tensor:
        weight.grad = offset.grad = None
        value = (weight @ x + offset - bias).square().sum()
        value.backward()
        return value

    return [weight, offset], loss


# -- the table -----------------------------------------------------------------------------------


def test_the_table_has_all_that_we_have() -> None:
    ours = {name for name in thalweg.torch.__all__ if hasattr(torch.optim, name)} - {"Optimizer"}
    assert ours == {*KINDS} == ours & {*optim_db()}


@in_float64
@kinds
def test_every_input_leads_where_torch_leads(kind: str, path: str) -> None:
    for description, settings in optim_db()[kind]["inputs"]:
        params = parameters((5, 3), (7,), (), (0, 2))
        wanted, found = copies(params), copies(params)
        theirs, ours = (
            cls(ps, **copy.deepcopy(settings)) for cls, ps in zip(both(kind), (wanted, found), strict=True)
        )
        for grads in gradients(params, 8):
            train(theirs, wanted, [grads])
            train(ours, found, [grads])
            assert largest_difference(found, wanted) <= 1e-10, f"{description}: {settings}"


@kinds
def test_every_erroneous_input_is_refused_as_torch_does(kind: str) -> None:
    for description, params, settings, moment, error in optim_db()[kind]["errors"]:
        assert moment == "CONSTRUCTION_ERROR"
        for cls in both(kind):
            print(f"{cls.__module__}.{kind}: {description}: {settings}")  # shown where this fails
            with pytest.warns(error) if issubclass(error, Warning) else pytest.raises(error):
                cls(parameters((2,)) if params is None else params, **settings)


# -- steps ---------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("columns", [False, True], ids=["contiguous", "columns"])
@pytest.mark.parametrize("maximize", [False, True])
def test_a_step_with_a_closure_goes_the_right_way(kind: str, columns: bool, maximize: bool) -> None:
    params, loss = least_squares(columns=columns)
    optimizer = getattr(thalweg.torch, kind)(params, lr=1e-3, maximize=maximize)
    before = loss().item()
    for _ in range(20):
        returned = optimizer.step(loss)
    assert returned.item() != before
    assert loss().item() > before if maximize else loss().item() < before


SCHEDULES: list[list[Callable[[Any], Any]]] = [
    [lambda o: lr_scheduler.StepLR(o, gamma=0.9, step_size=3)],
    [lambda o: lr_scheduler.LinearLR(o, 0.4, total_iters=4)],
    [lambda o: lr_scheduler.PolynomialLR(o, power=0.9, total_iters=4)],
    [lambda o: lr_scheduler.ConstantLR(o, 0.4, 4), lambda o: lr_scheduler.ExponentialLR(o, gamma=0.9)],
    [
        lambda o: lr_scheduler.StepLR(o, gamma=0.9, step_size=2),
        lambda o: lr_scheduler.LinearLR(o, 0.4, total_iters=4),
        lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    ],
]


@in_float64
@kinds
@pytest.mark.parametrize("schedules", SCHEDULES, ids=lambda s: str(len(s)))
def test_schedulers_one_upon_another(kind: str, schedules: list[Callable[[Any], Any]]) -> None:
    def act(cls: Any) -> list[torch.Tensor]:
        params, loss = least_squares(bias=0.5)
        optimizer = cls([{"params": params[:1]}, {"params": params[1:], "lr": 0.02}], lr=0.01)
        made = [schedule(optimizer) for schedule in schedules]
        for _ in range(8):
            value = optimizer.step(loss).detach()
            for s in made:
                s.step(value) if isinstance(s, lr_scheduler.ReduceLROnPlateau) else s.step()
        return params

    beside_torch(kind, act)


@in_float64
@kinds
def test_groups_have_rates_and_decays_of_their_own(kind: str) -> None:
    def act(cls: Any) -> list[torch.Tensor]:
        params, loss = least_squares()
        optimizer = cls([{"params": params[:1], "lr": 0.02}, {"params": params[1:], "weight_decay": 0.1}])
        for _ in range(5):
            optimizer.step(loss)
        return params

    beside_torch(kind, act)


@in_float64
@kinds
def test_a_parameter_group_given_alone(kind: str) -> None:
    def act(cls: Any) -> list[torch.Tensor]:
        params, loss = least_squares()
        optimizer = cls([{"params": params[1], "lr": 0.02}], lr=0.01)  # a tensor, not a list of one
        optimizer.step(loss)
        optimizer.add_param_group({"params": params[0], "weight_decay": 0.1})
        for _ in range(3):
            optimizer.step(loss)
        return params

    beside_torch(kind, act)


@in_float64
@kinds
def test_a_rate_in_a_tensor_of_one_entry(kind: str) -> None:
    for shape in ((), (1,), (1, 1)):
        params = parameters((5, 3), (7,))
        wanted, found = copies(params), copies(params)
        rate = torch.full(shape, 0.01, dtype=torch.float64)
        grads = gradients(params, 6)
        optimizer = getattr(thalweg.torch, kind)(found, lr=rate)
        train(getattr(torch.optim, kind)(wanted, lr=0.01), wanted, grads)
        train(optimizer, found, grads)
        assert largest_difference(found, wanted) <= 1e-12
        assert optimizer.param_groups[0]["lr"] is rate


@kinds
def test_a_rate_in_a_tensor_follows_a_scheduler(kind: str) -> None:
    rates = []
    for cls in both(kind):
        params, loss = least_squares()
        rate = torch.tensor(0.1)
        optimizer = cls(params, lr=rate)
        scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
        for _ in range(3):
            optimizer.step(loss)
            scheduler.step()
        assert optimizer.param_groups[0]["lr"] is rate
        rates.append(float(rate))
    assert rates[0] == rates[1] == pytest.approx(0.0125)


@kinds
def test_a_step_without_gradients_changes_nothing(kind: str, path: str) -> None:
    params, loss = least_squares()
    optimizer = getattr(thalweg.torch, kind)(params, weight_decay=0.1)
    state = copy.deepcopy(optimizer.state_dict())
    before = copies(params)
    optimizer.step()
    assert all(map(torch.equal, params, before))
    assert_same(optimizer.state_dict(), state)
    optimizer.step(loss)
    assert not any(map(torch.equal, params, before))


@kinds
def test_a_step_of_zero_gradients_keeps_parameters(kind: str, path: str) -> None:
    params, _ = least_squares()
    optimizer = getattr(thalweg.torch, kind)(params, weight_decay=0)
    before = copies(params)
    train(optimizer, params, [[torch.zeros_like(p) for p in params]] * 3)
    assert all(map(torch.equal, params, before))


@kinds
def test_empty_parameters_take_part(kind: str, path: str) -> None:
    for cls in both(kind):
        empty, full = parameters((0, 3), (2,))
        optimizer = cls([empty, full])
        train(optimizer, [empty, full], [[torch.zeros_like(empty), torch.ones_like(full)]] * 2)
        assert empty.shape == (0, 3)
        assert {k: v.shape for k, v in optimizer.state[empty].items() if v is not None and v.dim()} == {
            k: (0, 3) for k, v in optimizer.state[full].items() if v is not None and v.dim()
        }


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize("kind", ["SGD", "Adagrad"])
def test_sparse_gradients_of_repeated_entries(kind: str) -> None:
    assert [k for k in KINDS if optim_db()[k]["sparse"]] == ["SGD", "Adagrad"]

    def act(cls: Any) -> list[torch.Tensor]:
        (p,) = parameters((2,))
        optimizer = cls([p], lr=0.1)
        for k in range(6):  # an entry at a time, in two parts
            p.grad = torch.sparse_coo_tensor(
                torch.tensor([[k % 2, k % 2]]), torch.tensor([0.25, 0.5 + k], dtype=torch.float64), (2,)
            )
            optimizer.step()
        return [p]

    beside_torch(kind, act)


@kinds
def test_several_gradients_of_one_backward_pass_each(kind: str) -> None:
    for set_to_none in (True, False):
        for cls in both(kind):
            params, loss = least_squares()
            optimizer = cls(params)
            loss()
            optimizer.zero_grad(set_to_none=set_to_none)
            assert all(p.grad is None if set_to_none else not p.grad.any() for p in params)


@kinds
def test_complex_parameters_are_pairs_of_reals(kind: str, path: str) -> None:
    assert optim_db()[kind]["complex"]
    for _, settings in optim_db()[kind]["inputs"]:
        (real,) = parameters((5, 3, 2))
        whole = torch.view_as_complex(real.detach().clone()).requires_grad_()
        (wanted,) = copies([whole])
        twin, ours, theirs = (
            cls([p], **copy.deepcopy(settings))
            for cls, p in zip((*both(kind)[1:] * 2, both(kind)[0]), (real, whole, wanted), strict=True)
        )
        for (grad,) in gradients([real], 4):
            real.grad, whole.grad = grad, torch.view_as_complex(grad.clone())
            wanted.grad = whole.grad.clone()
            for optimizer in (twin, ours, theirs):
                optimizer.step()
        assert difference(torch.view_as_real(whole.detach()), real) <= 1e-12, settings
        assert difference(torch.view_as_real(whole.detach()), torch.view_as_real(wanted.detach())) <= 1e-6
        for key, value in theirs.state[wanted].items():
            assert ours.state[whole][key].dtype == value.dtype, key


@in_float64
@kinds
def test_steps_that_can_be_differentiated(kind: str) -> None:
    """`differentiable=True`: the step is part of the graph, as in torch's test of each optimizer."""

    (start, grad), (earlier,) = parameters((5,), (5,)), parameters((5,), seed=2)

    def slopes(cls: Any) -> tuple[torch.Tensor, ...]:
        (p,) = copies([start])
        optimizer = cls([p], lr=0.5, weight_decay=0.1)
        train(optimizer, [p], [[earlier.detach()]] * 2)
        state = {k: v.clone() if torch.is_tensor(v) else v for k, v in optimizer.state[p].items()}
        end = p.clone()
        optimizer = cls([end], lr=0.5, weight_decay=0.1, differentiable=True)
        optimizer.state[end] = state
        end.grad = grad.clone()
        optimizer.step()
        return torch.autograd.grad(end.square().sum(), [p, grad])

    beside_torch(kind, slopes)


# -- settings ------------------------------------------------------------------------------------

# One setting of each kind, changed after two steps; later changed back.
CHANGES = {
    "lr": 0.5,
    "weight_decay": 0.3,
    "maximize": True,
    "betas": (0.5, 0.7),
    "eps": 1e-2,
    "momentum": 0.7,
    "dampening": 0.2,
    "nesterov": True,
    "amsgrad": True,
    "centered": True,
    "alpha": 0.6,
    "rho": 0.5,
    "lr_decay": 0.3,
    "momentum_decay": 0.3,
    "decoupled_weight_decay": True,
    "foreach": True,
    "fused": False,
}


@pytest.mark.pairwise
@in_float64
@pytest.mark.parametrize(
    ("kind", "setting"),
    [(kind, setting) for setting in CHANGES for kind in having(setting)],
)
def test_a_setting_changed_between_steps(kind: str, setting: str, path: str) -> None:
    started = {"nesterov": {"momentum": 0.9}, "dampening": {"momentum": 0.9}}.get(setting, {})
    changed = CHANGES[setting]

    def act(cls: Any) -> list[torch.Tensor]:
        params = parameters((5, 3), (7,))
        optimizer = cls(params, **started)
        grads = gradients(params, 9)
        original = optimizer.param_groups[0][setting]
        for value, part in ((original, grads[:1]), (changed, grads[1:4]), (original, grads[4:])):
            optimizer.param_groups[0][setting] = value
            train(optimizer, params, part)
        return params

    theirs, ours = both(kind)
    try:
        wanted = act(theirs)
    except KeyError:  # torch makes a slot at the first step or never; here it begins when it is asked for
        assert all(p.isfinite().all() for p in act(ours))
    else:
        assert largest_difference(act(ours), wanted) <= 1e-10


@in_float64
@kinds
def test_defaults_changed_after_construction_are_those_of_later_groups(kind: str) -> None:
    def act(cls: Any) -> list[torch.Tensor]:
        params, loss = least_squares()
        optimizer = cls(params[:1], lr=0.01)
        optimizer.defaults |= {"lr": 0.3, "weight_decay": 0.2, "foreach": True}
        optimizer.add_param_group({"params": params[1:]})
        assert [g["lr"] for g in optimizer.param_groups] == [0.01, 0.3]
        for _ in range(3):
            optimizer.step(loss)
        return params

    beside_torch(kind, act)


@in_float64
@pytest.mark.parametrize(
    ("kind", "flag", "value"),
    [(k, flag, value) for flag in ("foreach", "fused") for k in having(flag) for value in (True, False)],
)
def test_flags_that_choose_an_implementation(kind: str, flag: str, value: bool) -> None:
    def act(cls: Any) -> list[torch.Tensor]:
        params, loss = least_squares()
        optimizer = cls(params, **{flag: value})
        for _ in range(3):
            optimizer.step(loss)
        assert optimizer.param_groups[0][flag] is value
        return params

    beside_torch(kind, act)


def test_parameters_named() -> None:
    for cls in both("Adam"):
        network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
        optimizer = cls(network.named_parameters())
        optimizer.add_param_group({"params": [("more", nn.Parameter(torch.zeros(2)))]})
        names = ["0.weight", "0.bias", "1.weight", "1.bias"]
        assert [g["param_names"] for g in optimizer.param_groups] == [names, ["more"]]
        assert optimizer.state_dict()["param_groups"][0]["param_names"] == names
        with pytest.raises(ValueError, match="with/without names"):
            optimizer.add_param_group({"params": parameters((2,))})


def test_parameters_on_several_devices() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is one device")

    def act(cls: Any) -> list[torch.Tensor]:
        a, b = parameters((3,), (2,))
        b = b.detach().cuda().requires_grad_()
        optimizer = cls([a, b])
        for _ in range(3):
            a.grad, b.grad = torch.ones_like(a), torch.ones_like(b)
            optimizer.step()
        return [a, b.cpu()]

    beside_torch("Adam", act)


# -- hooks ---------------------------------------------------------------------------------------


def test_hooks_around_a_step_run_in_torchs_order() -> None:
    orders = []
    for cls in both("SGD"):
        order: list[str] = []
        params, loss = least_squares()
        optimizer = cls(params)

        def noted(word: str, order: list[str] = order) -> Callable[..., None]:
            return lambda *_: order.append(word)

        handles = [
            register_optimizer_step_pre_hook(noted("before all")),
            register_optimizer_step_post_hook(noted("after all")),
            optimizer.register_step_pre_hook(noted("before")),
            optimizer.register_step_post_hook(noted("after")),
            optimizer.register_step_post_hook(noted("after, too")),
        ]
        optimizer.step(lambda loss=loss, order=order: order.append("closure") or loss())
        handles[2].remove()
        optimizer.step()
        for handle in handles:
            handle.remove()
        optimizer.step()
        orders.append(order)
    assert orders[1] == orders[0]
    assert len(orders[1]) == 6 + 4


def test_a_hook_before_the_step_gives_it_other_arguments() -> None:
    for cls in both("SGD"):
        params, loss = least_squares()
        optimizer = cls(params)
        optimizer.register_step_pre_hook(lambda o, args, kwargs, loss=loss: ((o, loss), {}))
        before = copies(params)
        assert optimizer.step() is not None
        assert not torch.equal(before[0], params[0])


def test_hooks_around_saving_and_loading_run_in_torchs_order() -> None:
    orders = []
    for cls in both("Adam"):
        order: list[str] = []
        params, loss = least_squares()
        optimizer = cls(params)
        optimizer.step(loss)

        def noted(word: str, order: list[str] = order) -> Callable[..., None]:
            return lambda *_: order.append(word)

        for prepend in (False, True):
            optimizer.register_state_dict_pre_hook(noted(f"save {prepend}"), prepend=prepend)
            optimizer.register_state_dict_post_hook(noted(f"saved {prepend}"), prepend=prepend)
            optimizer.register_load_state_dict_pre_hook(noted(f"load {prepend}"), prepend=prepend)
            optimizer.register_load_state_dict_post_hook(noted(f"loaded {prepend}"), prepend=prepend)
        optimizer.load_state_dict(optimizer.state_dict())
        orders.append(order)
    assert orders[1] == orders[0]


def test_hooks_may_replace_what_is_saved_and_loaded() -> None:
    for cls in both("Adam"):
        params, loss = least_squares()
        optimizer = cls(params, lr=0.1)
        optimizer.step(loss)

        def with_note(o: Any, written: dict[str, Any]) -> dict[str, Any]:
            return {**written, "note": "my run"}  # no dictionary, and no setting

        def with_rate(o: Any, given: dict[str, Any]) -> dict[str, Any]:
            given = copy.deepcopy(given)
            given["param_groups"][0]["lr"] = 0.7
            return given

        optimizer.register_state_dict_post_hook(with_note)
        written = optimizer.state_dict()
        assert written["note"] == "my run"
        optimizer.register_load_state_dict_pre_hook(with_rate)
        optimizer.load_state_dict(written)
        assert optimizer.param_groups[0]["lr"] == 0.7
        assert written["param_groups"][0]["lr"] == 0.1


# -- state ---------------------------------------------------------------------------------------


def assert_same(found: Any, wanted: Any) -> None:
    """The same keys, and values that are equal to the bit, of one dtype."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)


def primed(kind: str, **settings: Any) -> tuple[Any, list[torch.Tensor], Callable[[], torch.Tensor]]:
    params, loss = least_squares()
    optimizer = getattr(thalweg.torch, kind)(params, **settings)
    for _ in range(3):
        optimizer.step(loss)
    return optimizer, params, loss


@kinds
def test_a_state_dict_is_the_same_for_the_same_history(kind: str) -> None:
    for _, settings in optim_db()[kind]["inputs"]:
        optimizer, params, loss = primed(kind, **copy.deepcopy(settings))
        others, another = least_squares()
        with torch.no_grad():
            for q, p in zip(others, params, strict=True):
                q.copy_(p)
        twin = getattr(thalweg.torch, kind)(others, **copy.deepcopy(settings))
        written = optimizer.state_dict()
        kept = copy.deepcopy(written)
        twin.load_state_dict(written)
        assert_same(written, kept)
        for _ in range(3):
            optimizer.step(loss)
            twin.step(another)
        assert all(map(torch.equal, params, others))
        assert_same(optimizer.state_dict(), twin.state_dict())
        # One parameter in two groups has one number.
        twin.param_groups.extend(twin.param_groups)
        assert twin.state_dict()["param_groups"][-1] == optimizer.state_dict()["param_groups"][-1]


@kinds
def test_states_are_torchs_entry_for_entry(kind: str) -> None:
    for description, settings in optim_db()[kind]["inputs"]:
        written = []
        for cls in both(kind):
            params, loss = least_squares()
            optimizer = cls(params, **copy.deepcopy(settings))
            for _ in range(3):
                optimizer.step(loss)
            written.append(optimizer.state_dict())
        theirs, ours = written
        assert ours["param_groups"] == theirs["param_groups"], description
        assert list(ours["state"]) == list(theirs["state"]), description
        for index, state in theirs["state"].items():
            assert {*ours["state"][index]} == {*state}, description
            for key, value in state.items():
                found = ours["state"][index][key]
                if value is None:
                    assert found is None, (description, key)
                else:
                    assert (found.dtype, found.shape) == (value.dtype, value.shape), (description, key)
                    assert difference(found, value) <= 1e-6, (description, key)


@pytest.mark.parametrize(
    ("kind", "absent"),
    [
        (kind, setting)
        for setting in ("maximize", "foreach", "differentiable", "capturable", "fused")
        for kind in having(setting)
    ],
)
def test_a_state_dict_from_before_a_setting_existed(kind: str, absent: str) -> None:
    optimizer, _, loss = primed(kind)
    written = optimizer.state_dict()
    for group in written["param_groups"]:
        del group[absent]
    optimizer.load_state_dict(written)
    optimizer.step(loss)
    assert optimizer.param_groups[0][absent] == optimizer.defaults[absent]


@kinds
def test_step_numbers_that_are_plain_numbers(kind: str) -> None:
    optimizer, params, loss = primed(kind)
    twin_params, twin_loss = least_squares()
    with torch.no_grad():
        for q, p in zip(twin_params, params, strict=True):
            q.copy_(p)
    twin = getattr(thalweg.torch, kind)(twin_params)
    written = optimizer.state_dict()
    for state in written["state"].values():
        if "step" in state:
            state["step"] = state["step"].item()
    twin.load_state_dict(written)
    optimizer.step(loss)
    twin.step(twin_loss)
    assert all(map(torch.equal, params, twin_params))
    for state in twin.state_dict()["state"].values():
        assert "step" not in state or isinstance(state["step"], torch.Tensor)


@kinds
def test_step_numbers_are_tensors_that_count(kind: str) -> None:
    for cls in both(kind):
        params, loss = least_squares()
        optimizer = cls(params)
        for _ in range(3):
            optimizer.step(loss)
        steps = [optimizer.state[p].get("step") for p in params]
        assert all(s is None for s in steps) if kind == "SGD" else all(map(torch.is_tensor, steps))
        assert kind == "SGD" or [(float(s), s.dim(), s.dtype) for s in steps] == [(3.0, 0, torch.float32)] * 2


@kinds
def test_a_state_dict_through_a_file_of_weights_only(kind: str) -> None:
    optimizer, _, _ = primed(kind)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert_same(loaded, optimizer.state_dict())
    twin = getattr(thalweg.torch, kind)(least_squares()[0])
    twin.load_state_dict(state_dict=loaded)
    assert_same(twin.state_dict(), optimizer.state_dict())


@kinds
def test_state_follows_the_dtype_of_a_parameter_as_torch_loads_it(kind: str) -> None:
    """torch casts to the parameter's dtype on loading; we keep what was saved. Step numbers stay as saved."""
    optimizer, _, _ = primed(kind)
    written = optimizer.state_dict()
    loaded = []
    for cls in both(kind):
        twin = cls([p.detach().float().requires_grad_() for p in least_squares()[0]])
        twin.load_state_dict(copy.deepcopy(written))
        for p, grad in zip(
            twin.param_groups[0]["params"], gradients(twin.param_groups[0]["params"], 1)[0], strict=True
        ):
            p.grad = grad
        twin.step()
        loaded.append(twin)
    theirs, ours = loaded
    for p, q in zip(ours.param_groups[0]["params"], theirs.param_groups[0]["params"], strict=True):
        assert difference(p, q) <= 1e-6
        if "step" in theirs.state[q]:
            assert ours.state[p]["step"].dtype == theirs.state[q]["step"].dtype


def test_a_state_dict_with_names_loads_without_and_the_other_way() -> None:
    for cls in both("Adam"):
        params, loss = least_squares()
        names = ["weight", "offset"]
        named = cls(list(zip(names, params, strict=True)), lr=0.1)
        bare = cls(params, lr=0.2)
        named.step(loss)
        bare.load_state_dict(named.state_dict())
        assert bare.param_groups[0]["lr"] == 0.1
        assert float(bare.state[params[0]]["step"]) == 1.0
        bare.step(loss)
        named.load_state_dict(bare.state_dict())
        assert named.param_groups[0]["param_names"] == names
        assert float(named.state[params[0]]["step"]) == 2.0


@kinds
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_keep_every_public_attribute(kind: str, duplicate: Callable[[Any], Any]) -> None:
    optimizer, _, _ = primed(kind)
    twin = duplicate(optimizer)

    def public(o: Any) -> set[str]:
        return {k for k in o.__dict__ if not k.startswith("_")}

    assert public(twin) == public(optimizer)
    assert repr(twin) == repr(optimizer)
    assert_same(twin.state_dict(), optimizer.state_dict())


@kinds
def test_state_exists_once_there_was_a_step(kind: str) -> None:
    for _, settings in optim_db()[kind]["inputs"]:
        for cls in both(kind):
            params, loss = least_squares()
            optimizer = cls(params, **copy.deepcopy(settings))
            optimizer.step(loss)
            optimizer.step(loss)
            stateless = kind == "SGD" and not settings.get("momentum")
            for state in optimizer.state_dict()["state"].values():
                assert stateless or state


# -- what torch.optim brings beside optimizers ---------------------------------------------------


@in_float64
@kinds
def test_averaged_models_and_their_rates(kind: str) -> None:
    def act(cls: Any) -> list[torch.Tensor]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3), nn.Linear(3, 1)).double()
        x = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(6, 4)
        optimizer = cls(network.parameters(), lr=0.01)
        averaged = swa_utils.AveragedModel(network)
        scheduler = swa_utils.SWALR(optimizer, swa_lr=0.05, anneal_epochs=3)
        for _ in range(5):
            optimizer.zero_grad()
            network(x).square().sum().backward()
            optimizer.step()
            averaged.update_parameters(network)
            scheduler.step()
        swa_utils.update_bn([x], averaged)
        return [*averaged.parameters()]

    beside_torch(kind, act)
