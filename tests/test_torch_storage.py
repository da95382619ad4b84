"""Storage moved under an optimizer, settings changed between steps: followed as torch does, or refused."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

import thalweg
import thalweg.kernels.torch_glance
import thalweg.torch
from helpers import both, copies, difference, gradients, largest_difference, parameters


@pytest.fixture(params=["glance", "asked one by one"], autouse=True)
def _looked_at(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors are looked at as with this torch, and as with one that has no functions for a glance."""
    if request.param != "glance":
        monkeypatch.setattr(thalweg.kernels.torch_glance, "_loop", lambda: None)


# -- storage -------------------------------------------------------------------------------------

Change = Callable[[Tensor], None]


def transposed(x: Tensor) -> None:
    x.data = x.data.t().contiguous().t()


def with_gaps(x: Tensor) -> None:
    x.data = torch.empty(2 * x.numel(), dtype=x.dtype)[::2].view(x.shape).copy_(x.data)


def at_an_offset(x: Tensor) -> None:
    room = torch.zeros(x.numel() + 3, dtype=x.dtype)
    room[3:] = x.data.flatten()
    x.data = room[3:].view(x.shape)


def set_elsewhere(x: Tensor) -> None:
    with torch.no_grad():
        x.set_(x.detach().clone())


def negated_twice(x: Tensor) -> None:
    x.data = torch._neg_view(-x.data)


def resized_there_and_back(x: Tensor) -> None:
    kept, size = x.detach().clone(), x.untyped_storage().nbytes()
    x.untyped_storage().resize_(0)
    x.untyped_storage().resize_(size)
    x.data.copy_(kept)


MOVES: dict[str, Change] = {
    "cloned": lambda x: setattr(x, "data", x.data.clone()),
    "copied to its device": lambda x: setattr(x, "data", x.data.to("cpu", copy=True)),
    "transposed": transposed,
    "with gaps": with_gaps,
    "at an offset": at_an_offset,
    "set_": set_elsewhere,
    "share_memory_": lambda x: x.share_memory_(),
    "negated twice": negated_twice,
    "resized there and back": resized_there_and_back,
}


def copied(x: Tensor) -> Tensor:
    return x.detach().resolve_neg().clone()


def of_state(optimizer: torch.optim.Optimizer, change: Change) -> None:
    for state in optimizer.state.values():
        for key in state:
            if state[key].dim():
                change(state[key])


@pytest.mark.pairwise
@pytest.mark.parametrize("where", ["parameter", "gradient", "state"])
@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("kind", ["Adam", "NAdam", "SGD"])
def test_storage_that_moved_is_followed(kind: str, move: str, where: str) -> None:
    theirs, ours = both(kind)
    settings = {"momentum": 0.9} if kind == "SGD" else {}
    wanted = parameters((3, 4), (5, 2))
    found = copies(wanted)
    reference, optimizer = theirs(wanted, **settings), ours(found, **settings)
    for t, step in enumerate(gradients(wanted, 6)):
        for p, q, g in zip(wanted, found, step, strict=True):
            p.grad, q.grad = g.clone(), g.clone()
            if t >= 2 and where == "gradient":
                MOVES[move](q.grad)
            if t in (2, 4) and where == "parameter":
                MOVES[move](q)
        if t in (2, 4) and where == "state":
            of_state(optimizer, MOVES[move])
        reference.step()
        optimizer.step()
        # Of copies: a NumPy view would forbid to resize a storage. NAdam's product is a float32.
        assert largest_difference(map(copied, found), wanted) <= 1e-7, f"step {t + 1}"


def test_state_of_half_precision_is_followed_in_half_precision() -> None:
    p, reference = parameters((40,), dtype=torch.float32), parameters((40,), dtype=torch.float32)
    optimizer, expected = thalweg.torch.Adam(p), thalweg.torch.Adam(reference)
    for t, (g,) in enumerate(gradients(p, 4)):
        p[0].grad, reference[0].grad = g, g.clone()
        if t == 2:
            of_state(optimizer, lambda x: setattr(x, "data", x.data.half()))
        optimizer.step()
        expected.step()
    assert optimizer.state[p[0]]["exp_avg"].dtype == torch.float16
    assert 0 < difference(p[0], reference[0]) <= 1e-3


def test_state_made_smaller_is_refused_by_name() -> None:
    p = parameters((4,))
    optimizer = thalweg.torch.Adam(p)
    p[0].grad = torch.ones(4, dtype=torch.float64)
    optimizer.step()
    before = p[0].detach().clone()
    of_state(optimizer, lambda x: setattr(x, "data", x.data[:2]))
    with pytest.raises(ValueError, match=r"Adam: 'exp_avg' in the state of parameter 0 has shape \(2,\)"):
        optimizer.step()
    assert torch.equal(p[0], before)


@pytest.mark.parametrize("where", ["parameter 0", "the gradient of parameter 0", "'exp_avg' in the state"])
def test_storage_emptied_is_refused_by_name(where: str, path: str) -> None:
    (p,) = parameters((40,))
    optimizer = thalweg.torch.Adam([p])
    p.grad = torch.ones(40, dtype=torch.float64)
    optimizer.step()
    emptied = {"p": p, "t": p.grad, "'": optimizer.state[p]["exp_avg"]}[where[0]]
    emptied.untyped_storage().resize_(8)
    with pytest.raises(ValueError, match=re.escape(where) + ".*storage has been emptied or made smaller"):
        optimizer.step()


@pytest.mark.parametrize("where", ["parameter", "gradient", "state"])
def test_storage_emptied_and_refilled_at_half_its_size_is_refused(where: str) -> None:
    """The allocator may give the same address again: an address alone proves nothing."""
    (p,) = parameters((1000,))
    optimizer = thalweg.torch.SGD([p], momentum=0.9)
    p.grad = torch.ones(1000, dtype=torch.float64)
    optimizer.step()
    x = {"parameter": p, "gradient": p.grad, "state": optimizer.state[p]["momentum_buffer"]}[where]
    for _ in range(2):
        x.untyped_storage().resize_(0)
        x.untyped_storage().resize_(4000)
    with pytest.raises(ValueError, match="storage has been emptied or made smaller"):
        optimizer.step()


def test_a_parameter_seen_as_another_dtype_of_the_same_size_is_read_as_that() -> None:
    (p,) = parameters((8,), dtype=torch.float16)
    optimizer = thalweg.torch.SGD([p], lr=1.0)
    p.grad = torch.ones(8, dtype=torch.float16)
    optimizer.step()
    p.data = p.data.view(torch.bfloat16)
    p.grad = torch.zeros(8, dtype=torch.bfloat16)
    before = p.detach().clone()
    optimizer.step()
    assert torch.equal(p, before)
    p.grad = torch.ones(8, dtype=torch.bfloat16)
    optimizer.step()
    assert torch.equal(p, before - 1)


def test_a_gradient_of_another_dtype_at_the_same_address() -> None:
    p = torch.nn.Parameter(torch.zeros(8, dtype=torch.float16))
    optimizer = thalweg.torch.SGD([p], lr=1.0)
    p.grad = torch.ones(8, dtype=torch.float16)
    optimizer.step()
    p.grad.data = p.grad.data.view(torch.bfloat16).fill_(2.0)
    optimizer.step()
    assert torch.equal(p.detach(), torch.full((8,), -3.0, dtype=torch.float16))


@pytest.mark.parametrize("change", ["data", "set_", "assigned", "a number", "shared"])
def test_a_step_number_that_is_set_counts(change: str) -> None:
    theirs, ours = both("Adam")
    wanted = parameters((3,), (2,))
    found = copies(wanted)
    reference, optimizer = theirs(wanted), ours(found)
    for t, step in enumerate(gradients(wanted, 5)):
        for p, q, g in zip(wanted, found, step, strict=True):
            p.grad, q.grad = g, g.clone()
        if t == 2:
            for p, q in zip(wanted, found, strict=True):
                reference.state[p]["step"].fill_(100.0)
                number = torch.tensor(100.0)
                held = optimizer.state[q]["step"]
                if change == "data":
                    held.data = number
                elif change == "set_":
                    held.set_(number)
                elif change == "shared":
                    held.share_memory_().fill_(100.0)
                else:
                    optimizer.state[q]["step"] = number if change == "assigned" else 100.0
        reference.step()
        optimizer.step()
    assert largest_difference(found, wanted) <= 1e-12
    assert optimizer.state[found[0]]["step"].item() == reference.state[wanted[0]]["step"].item()


def test_a_step_number_that_is_shared_is_counted_where_it_is_shared() -> None:
    (p,) = parameters((3,))
    optimizer = thalweg.torch.Adam([p])
    p.grad = torch.ones(3, dtype=torch.float64)
    optimizer.step()
    shared = optimizer.state[p]["step"].share_memory_()
    for _ in range(3):
        optimizer.step()
        shared += 1  # another process's step
    assert optimizer.state[p]["step"] is shared
    assert shared.item() == 7


def test_state_put_in_by_update_is_seen() -> None:
    theirs, ours = both("Adam")
    (w,) = parameters((3,))
    (f,) = copies([w])
    reference, optimizer = theirs([w]), ours([f])
    for t, (g,) in enumerate(gradients([w], 5)):
        w.grad, f.grad = g, g.clone()
        if t == 2:
            other = {"step": torch.tensor(7.0), "exp_avg": g / 3, "exp_avg_sq": g.square()}
            reference.state.update({w: {k: x.clone() for k, x in other.items()}})
            optimizer.state.update({f: other})
        reference.step()
        optimizer.step()
    assert difference(f, w) <= 1e-12


def test_step_numbers_that_change_places_count_where_they_are() -> None:
    theirs, ours = both("Adam")
    wanted = parameters((3,), (2,))
    found = copies(wanted)
    reference, optimizer = theirs(wanted), ours(found)
    for t, step in enumerate(gradients(wanted, 6)):
        for p, q, g in zip(wanted, found, step, strict=True):
            p.grad, q.grad = g, g.clone()
        if t == 0:  # so that one is a step behind
            wanted[0].grad = found[0].grad = None
        if t == 3:
            for (a, b), held in ((wanted, reference.state), (found, optimizer.state)):
                held[a]["step"], held[b]["step"] = held[b]["step"], held[a]["step"]
        reference.step()
        optimizer.step()
        assert largest_difference(found, wanted) <= 1e-12, f"step {t + 1}"
    assert [optimizer.state[q]["step"].item() for q in found] == [6, 5]


@pytest.mark.parametrize("number", [-3.0, 2.5, float("nan"), float("inf")])
@pytest.mark.parametrize("assigned", [True, False])
def test_a_step_number_that_is_none_is_refused_by_name(number: float, assigned: bool) -> None:
    (p,) = parameters((3,))
    optimizer = thalweg.torch.Adam([p])
    p.grad = torch.ones(3, dtype=torch.float64)
    optimizer.step()
    before = p.detach().clone()
    if assigned:
        optimizer.state[p]["step"] = torch.tensor(number)
    else:
        optimizer.state[p]["step"].fill_(number)
    with pytest.raises(ValueError, match=f"Adam: parameter 0 is at step {number}, which is no whole number"):
        optimizer.step()
    assert torch.equal(p, before)


def nested() -> Tensor:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(1)], layout=torch.jagged)


def everything(optimizer: torch.optim.Optimizer) -> list[Any]:
    """Parameters and state, down to the tensors that hold it."""
    held = [[p, *optimizer.state.get(p, {}).values()] for p in optimizer.param_groups[0]["params"]]
    # Not of what is odd: a meta tensor has no numbers.
    return [
        [[id(x), x.is_meta or x.is_nested or x.layout != torch.strided or x.tolist()] for x in some]
        for some in held
    ]


FLOAT8 = torch.zeros(3).to(torch.float8_e4m3fn)


@pytest.mark.parametrize("others", ["begun", "new"])
@pytest.mark.parametrize(
    ("key", "odd", "message"),
    [
        ("exp_avg", torch.zeros(3, dtype=torch.int64), "is a dense tensor of float64"),
        ("exp_avg", torch.zeros(3).to_sparse(), "is a dense tensor of .*torch.sparse_coo"),
        ("exp_avg", nested(), "is a dense tensor of .*got a nested tensor"),
        ("exp_avg", FLOAT8, "is a dense tensor of .*torch.float8_e4m3fn"),
        (
            "exp_avg",
            torch.zeros(3, dtype=torch.complex64),
            "is of torch.complex64, its parameter of torch.float",
        ),
        ("exp_avg", torch.zeros(3, device="meta"), "is on the device meta, its parameter on cpu"),
        ("step", torch.ones((), device="meta"), "is one number, got a tensor .* on meta"),
        ("step", torch.ones(1).to_sparse(), "is one number, got a tensor .*sparse"),
        ("step", torch.tensor(1 + 1j), "is one number, got a tensor .*complex"),
        ("step", nested(), "is one number, got a nested tensor"),
        ("step", torch.ones(2), r"is one number, got a tensor of shape \(2,\)"),
    ],
)
def test_state_that_cannot_hold_the_rules_numbers_is_refused_whole(
    key: str, odd: Tensor, message: str, others: str, path: str
) -> None:
    params = parameters((3,), (3,), (3,))
    optimizer = thalweg.torch.Adam(params)
    for p in params if others == "begun" else params[1:2]:
        p.grad = torch.ones(3, dtype=torch.float64)
    optimizer.step()
    held = optimizer.state[params[1]][key]
    for p in params:
        p.grad = torch.ones(3, dtype=torch.float64)
    optimizer.state[params[1]][key] = odd
    before = everything(optimizer)
    with pytest.raises((TypeError, ValueError), match=f"'{key}' in the state of parameter 1 {message}"):
        optimizer.step()
    assert everything(optimizer) == before
    optimizer.state[params[1]][key] = held
    optimizer.step()
    assert [int(optimizer.state[p]["step"]) for p in params] == ([2] * 3 if others == "begun" else [1, 2, 1])


ODD: dict[str, Callable[[], Tensor]] = {
    "sparse": lambda: torch.ones(3).to_sparse(),
    "compressed rows": lambda: torch.eye(3).to_sparse_csr(),
    "jagged": nested,
    "float8": FLOAT8.clone,
}


@pytest.mark.pairwise
@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
@pytest.mark.parametrize("kind", ["Adam", "SGD", "Adagrad"])
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("differentiable", [False, True])
def test_a_parameter_of_an_odd_kind_stops_the_step_before_anything_is_written(
    odd: str, kind: str, differentiable: bool, path: str
) -> None:
    (p,) = parameters((3,))
    q = torch.nn.Parameter(ODD[odd]())
    settings = {"momentum": 0.9, "dampening": 0.5} if kind == "SGD" else {}
    optimizer = getattr(thalweg.torch, kind)(
        [("good", p), ("odd", q)], differentiable=differentiable, **settings
    )
    p.grad, q.grad = torch.ones(3, dtype=torch.float64), q.detach().clone()
    start, states = p.detach().clone(), {k: {**v} for k, v in optimizer.state.items()}
    with pytest.raises(
        TypeError, match=f"{kind} updates dense parameters of float64.*; parameter 'odd' is a"
    ):
        optimizer.step()
    assert torch.equal(p, start)
    assert {k: {**v} for k, v in optimizer.state.items()} == states


def test_a_parameter_without_numbers_has_no_norm_to_clip_by() -> None:
    p, q = torch.ones(3, requires_grad=True), torch.ones(3, device="meta", requires_grad=True)
    for x in (p, q):
        x.grad = torch.ones_like(x)
    optimizer = thalweg.torch.Optimizer(
        [p, q], thalweg.chain(thalweg.ClipByGlobalNorm(1.0), thalweg.SGD(1.0))
    )
    with pytest.raises(TypeError, match="parameter 1 is on the device meta, where no norm can be taken"):
        optimizer.step()
    assert p.tolist() == [1, 1, 1]
    thalweg.torch.Adam([q]).step()  # to find out shapes and memory, as with torch's own


def test_a_velocity_that_was_refused_has_not_begun() -> None:
    """A zero left in its place would dampen the first step, which torch does not."""
    p, q = parameters((3,), (3,))
    optimizer = thalweg.torch.SGD([p, q], lr=1.0, momentum=0.9, dampening=0.5)
    start = p.detach().clone()
    p.grad, q.grad = torch.ones(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    q.grad.untyped_storage().resize_(8)
    with pytest.raises(ValueError, match="the gradient of parameter 1"):
        optimizer.step()
    assert not optimizer.state
    q.grad = torch.ones(3, dtype=torch.float64)
    optimizer.step()
    assert difference(start - p, torch.ones(3)) <= 1e-12


def test_a_sparse_parameter_is_refused_by_name() -> None:
    p = torch.nn.Parameter(torch.ones(3).to_sparse())
    p.grad = torch.ones(3).to_sparse()
    with pytest.raises(
        TypeError, match=r"SGD updates dense .* parameter 0 is a tensor .*torch.float32, torch.sparse"
    ):
        thalweg.torch.SGD([p]).step()


def test_a_step_within_a_transform_of_functions_is_refused_by_name() -> None:
    def loss(x: Tensor) -> Tensor:
        p = torch.nn.Parameter(torch.ones(3))
        p.grad = x
        thalweg.torch.SGD([p]).step()
        return p.sum()

    with pytest.raises(RuntimeError, match=r"SGD: no step is prepared within torch.func's transforms"):
        torch.func.grad(loss)(torch.ones(3))


# -- threads -------------------------------------------------------------------------------------


def test_threads_may_step_one_optimizer() -> None:
    """One after the other: a step whose tensors another thread let go of wrote into freed memory."""
    params = parameters((50, 40), (30,))
    optimizer = thalweg.torch.SGD(params, lr=1.0)
    for p in params:
        p.grad = torch.ones_like(p)
    before = [p.detach().clone() for p in params]
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(optimizer.step) for _ in range(400)]:
            done.result()
    assert largest_difference(params, [p - 400 for p in before]) <= 1e-12


# -- shared and overlapping memory ---------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9}])
def test_parameters_over_one_memory_are_stepped_one_after_the_other(settings: dict[str, Any]) -> None:
    def made() -> list[Tensor]:
        room = torch.arange(12, dtype=torch.float64)
        return [room[:8].requires_grad_(), room[4:].view(2, 4).requires_grad_(), room[::2].requires_grad_()]

    wanted, found = made(), made()
    reference, optimizer = torch.optim.SGD(wanted, **settings), thalweg.torch.SGD(found, **settings)
    for step in gradients(wanted, 4):
        for p, q, g in zip(wanted, found, step, strict=True):
            p.grad, q.grad = g, g.clone()
        reference.step()
        optimizer.step()
    assert largest_difference(found, wanted) <= 1e-14


def test_a_parameter_that_is_its_own_gradient() -> None:
    p = torch.linspace(-1, 1, 70_000, dtype=torch.float64).requires_grad_()
    wanted = p.detach().clone()
    optimizer = thalweg.torch.SGD([p], lr=0.25)
    p.grad = p.data
    for _ in range(3):
        optimizer.step()
        wanted *= 0.75
    assert torch.equal(p.detach(), wanted)


def test_parameters_tied_between_steps() -> None:
    p, q = parameters((5,), (5,))
    optimizer = thalweg.torch.SGD([p, q], lr=1.0)
    p.grad, q.grad = torch.ones(5, dtype=torch.float64), torch.full((5,), 2.0, dtype=torch.float64)
    optimizer.step()
    q.data = p.data
    before = p.detach().clone()
    optimizer.step()
    assert torch.allclose(p, before - 3, rtol=0, atol=1e-15)


def test_an_expanded_parameter_is_refused_as_torch_refuses_it() -> None:
    p = torch.ones(1, 3, dtype=torch.float64).expand(4, 3).requires_grad_()
    p.grad = torch.ones(4, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="parameter 0 holds one entry in several places"):
        thalweg.torch.SGD([p]).step()


def test_a_parameter_of_overlapping_rows_is_refused() -> None:
    p = torch.as_strided(torch.arange(20.0), (4, 4), (1, 1)).requires_grad_()
    p.grad = torch.ones(4, 4)
    with pytest.raises(ValueError, match="parameter 0 holds one entry in several places"):
        thalweg.torch.SGD([p]).step()


def test_an_expanded_gradient_is_read() -> None:
    (p,) = parameters((4, 3))
    before = p.detach().clone()
    p.grad = torch.ones(1, 3, dtype=torch.float64).expand(4, 3)
    thalweg.torch.SGD([p], lr=1.0).step()
    assert torch.equal(p, before - 1)


# -- negative and conjugate bits, complex numbers ------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["SGD", "Adam", "AdamW", "Adagrad", "RMSprop", "Adadelta", "Adamax", "NAdam", "RAdam"]
)
def test_complex_parameters_are_pairs_of_reals_as_in_torch(kind: str, path: str) -> None:
    theirs, ours = both(kind)
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.view_as_complex(torch.randn(*shape, 2, generator=generator, dtype=torch.float64))

    wanted = [drawn(3, 2).requires_grad_(), drawn(4).requires_grad_()]
    found = copies(wanted)
    reference, optimizer = theirs(wanted, foreach=False), ours(found)
    for t in range(5):
        for p, q in zip(wanted, found, strict=True):
            g = drawn(*p.shape)
            p.grad, q.grad = g, (g.conj().resolve_conj().conj() if t % 2 else g.clone())
        reference.step()
        optimizer.step()
    pairs = [[torch.view_as_real(x.detach()) for x in some] for some in (found, wanted)]
    assert largest_difference(*pairs) <= 1e-7
    own, torchs = optimizer.state_dict()["state"], reference.state_dict()["state"]
    kinds = [{k: v.dtype for k, v in states.get(0, {}).items()} for states in (own, torchs)]
    assert kinds[0] == kinds[1]


def test_the_real_and_imaginary_parts_of_a_conjugate() -> None:
    z = torch.complex(torch.ones(4, dtype=torch.float64), torch.full((4,), 2.0, dtype=torch.float64))
    p = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = thalweg.torch.SGD([p], lr=1.0)
    p.grad = z.conj().imag  # -2, by a bit: its memory holds 2
    assert p.grad.is_neg()
    optimizer.step()
    assert torch.equal(p.detach(), torch.full((4,), 2.0, dtype=torch.float64))


# -- settings changed between steps --------------------------------------------------------------

CHANGES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "decay on": ("AdamW", {"lr": 0.1, "weight_decay": 0}, {"weight_decay": 1}),
    "decay off": ("AdamW", {"lr": 0.1, "weight_decay": 1}, {"weight_decay": 0}),
    "l2 on": ("Adam", {}, {"weight_decay": 0.5}),
    "momentum on": ("SGD", {"lr": 0.1}, {"momentum": 0.9}),
    "momentum off": ("SGD", {"lr": 0.1, "momentum": 0.9}, {"momentum": 0}),
    "nesterov on": ("SGD", {"lr": 0.1, "momentum": 0.9}, {"nesterov": True}),
    "dampening": ("SGD", {"lr": 0.1, "momentum": 0.9}, {"dampening": 0.5}),
    "maximize": ("Adam", {}, {"maximize": True}),
    "betas": ("Adam", {}, {"betas": (0.5, 0.6)}),
    "decoupled": ("Adam", {"weight_decay": 0.3}, {"decoupled_weight_decay": True}),
    "lr_decay": ("Adagrad", {}, {"lr_decay": 0.5}),
    "lr": ("RMSprop", {}, {"lr": 1.0}),
}


@pytest.mark.parametrize("loaded", [False, True], ids=["stepped", "loaded"])
@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("change", CHANGES)
def test_a_setting_changed_between_steps_acts_as_in_torch(change: str, at: int, loaded: bool) -> None:
    kind, settings, changed = CHANGES[change]
    theirs, ours = both(kind)
    wanted = parameters((3, 2), (4,))
    found = copies(wanted)
    reference, optimizer = theirs(wanted, **settings), ours(found, **settings)
    for t, step in enumerate(gradients(wanted, 7)):
        for p, q, g in zip(wanted, found, step, strict=True):
            p.grad, q.grad = g, g.clone()
        if t == at - 1 and loaded:
            optimizer.load_state_dict(optimizer.state_dict())
            reference.load_state_dict(reference.state_dict())
        if t in (at, at + 2):
            values = changed if t == at else {k: settings.get(k, reference.defaults[k]) for k in changed}
            reference.param_groups[0].update(values)
            optimizer.param_groups[0].update(values)
        reference.step()
        optimizer.step()
        assert largest_difference(found, wanted) <= 1e-10, f"step {t + 1}"
