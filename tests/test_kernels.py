"""Compiled kernels: every dtype, size and layout; on disk; among processes and threads."""

import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import llvmlite.binding as llvm
import numpy as np
import pytest
import torch
from hypothesis import given
from llvmlite import ir

import thalweg
import thalweg.numpy
import thalweg.torch
from helpers import (
    FORMS,
    copies,
    descend_torch,
    difference,
    fair_gradients,
    gradients,
    largest_difference,
    output,
    parameters,
    python,
    takes_signs,
    train,
)
from thalweg import Rule, trace
from thalweg.eager import Driver
from thalweg.kernels import cpu, memory, threads
from thalweg.kernels.cache import step_kernel
from thalweg.kernels.cpu import CHUNK, Batch
from thalweg.kernels.source import cpu_source
from thalweg.kernels.threads import FROM_WITH_POOL, worthwhile_from
from thalweg.ops import clip, maximum, minimum, sign, where

forms = pytest.mark.parametrize("form", FORMS)
HALVES = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}  # half the last place at 1


# -- dtypes --------------------------------------------------------------------------------------


@forms
def test_float32_follows_the_rule_in_float64(form: str) -> None:
    rule = FORMS[form]
    params = parameters((37,), (5, 3), dtype=torch.float32)
    grads = fair_gradients(rule, params, 100)
    found = copies(params)
    train(thalweg.torch.Optimizer(found, rule), found, grads)
    for i, p in enumerate(params):
        assert difference(found[i], descend_torch(rule, p, [g[i] for g in grads])) <= 1e-5


def in_half(rule: Rule, p: torch.Tensor, grads: list[torch.Tensor]) -> torch.Tensor:
    """The rule computed in float32, with all that is stored rounded at every step."""
    kept, p, driver = p.dtype, p.detach(), Driver(rule)
    for g in grads:
        p = (p.float() - driver.step(p.float(), g.float())).to(kept)
        (state,) = driver.states
        state |= {k: x.to(kept).float() for k, x in state.items() if isinstance(x, torch.Tensor)}
    return p


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", thalweg.rules())
def test_half_types_are_within_their_rounding(name: str, dtype: torch.dtype) -> None:
    # A rate that is no power of two and large enough for steps to be seen.
    rule = thalweg.get(name).replaced(lr=0.03)
    (p,) = parameters((301,), dtype=dtype)
    grads = fair_gradients(rule, [p], 20)
    (found,) = copies([p])
    train(thalweg.torch.Optimizer([found], rule), [found], grads)
    wanted = in_half(rule, p, [g[0] for g in grads])
    assert found.dtype == dtype
    # A fused multiplication may fall on the other side of a tie, seldom.
    assert float((found == wanted).double().mean()) > 0.9
    assert difference(found, wanted) <= 4 * HALVES[dtype]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_value_of_a_half_type_is_read_and_written_unchanged(dtype: torch.dtype) -> None:
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.uint16)
    p = bits.view(dtype).clone().requires_grad_()
    before = p.detach().clone()
    if dtype == torch.bfloat16:  # computed with in float32, in which the subnormal ones are so too
        before[before.abs() < torch.finfo(dtype).tiny] = 0
    train(thalweg.torch.Optimizer([p], thalweg.SGD(0.0)), [p], [[torch.ones(2**16)]])
    same = (p == before) | (p.isnan() & before.isnan())
    assert bool(same.all())


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_rounding_to_a_half_type_is_to_nearest_even(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    p = (
        torch.randn(5000, generator=generator) * 10.0 ** torch.randint(-8, 5, (5000,), generator=generator)
    ).to(dtype)
    g = torch.randn(5000, generator=generator).to(dtype)
    found = p.clone().requires_grad_()
    train(thalweg.torch.Optimizer([found], thalweg.SGD(1.0)), [found], [[g]])
    assert torch.equal(found, (p.float() - g.float()).to(dtype))


def test_an_epsilon_below_half_precision_still_divides() -> None:
    (p,) = parameters((4,), dtype=torch.float16)
    train(thalweg.torch.Adam([p], eps=1e-8), [p], [[torch.zeros(4)]] * 3)
    assert bool(p.isfinite().all())


@pytest.mark.parametrize("state", [torch.float32, torch.float64], ids=str)
def test_state_of_another_dtype_than_its_parameter(state: torch.dtype) -> None:
    (p,) = parameters((50,), dtype=torch.bfloat16)
    grads = gradients([p], 10)
    optimizer = thalweg.torch.SGD([p], lr=0.1, momentum=0.9)
    train(optimizer, [p], grads[:1])
    optimizer.state[p]["momentum_buffer"] = optimizer.state[p]["momentum_buffer"].to(state)
    b, wanted = optimizer.state[p]["momentum_buffer"].clone(), p.detach().clone()
    train(optimizer, [p], grads[1:])
    for (g,) in grads[1:]:
        b = 0.9 * b + g.to(state)
        wanted = (wanted.to(state) - 0.1 * b).bfloat16()
    assert optimizer.state[p]["momentum_buffer"].dtype == state
    assert difference(optimizer.state[p]["momentum_buffer"], b) <= 1e-6
    assert difference(p, wanted) <= 2 * HALVES[torch.bfloat16]


@pytest.mark.parametrize("odd", ["gradient", "state"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["adam", "adagrad", "rmsprop-centered"])
def test_what_is_narrower_than_its_parameter_is_computed_with_in_float64(
    name: str, dtype: torch.dtype, odd: str, path: str
) -> None:
    rule = FORMS[name].replaced(lr=0.01)
    (p,) = parameters((50,))
    of_gradient, of_state = (dtype if odd == what else torch.float64 for what in ("gradient", "state"))
    optimizer = thalweg.torch.Optimizer([p], rule)
    state = optimizer.state[p]
    state |= {"step": torch.tensor(0.0), **{k: torch.zeros(50, dtype=of_state) for k in trace(rule).slots}}
    wanted, driver = p.detach().numpy().copy(), Driver(rule)
    for (g,) in gradients([p], 3):
        p.grad = torch.zeros(50, dtype=torch.float64)
        p.grad.data = (0.1 * g).to(of_gradient)  # the square of which float32 rounds
        given = p.grad.double().numpy()
        optimizer.step()
        wanted = wanted - driver.step(wanted, given)
        (slots,) = driver.states
        for slot in trace(rule).slots:
            slots[slot] = torch.as_tensor(slots[slot]).to(of_state).double().numpy()
        assert difference(p, wanted) <= 1e-15


def test_a_dtype_without_a_kernel_is_named() -> None:
    with pytest.raises(ValueError, match="no CPU kernel for int8; there is one for float64, float32"):
        cpu_source(trace(thalweg.SGD()), ("int8", "int8"))


# -- sizes and layouts ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [0, 1, 2, 3, 7, 8, 15, 17, 31, 33, 63, 65, 1001, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK]
)
def test_odd_sizes(size: int) -> None:
    (p,) = parameters((size,), dtype=torch.float32)
    grads = gradients([p], 3)
    beyond = torch.full((size + 64,), 7.0)
    found = beyond[32 : 32 + size].detach().copy_(p.detach()).requires_grad_()
    train(thalweg.torch.Optimizer([found], thalweg.Adam(0.1)), [found], grads)
    assert difference(found, descend_torch(thalweg.Adam(0.1), p, [g[0] for g in grads])) <= 1e-6
    assert bool((beyond[:32] == 7).all())
    assert bool((beyond[32 + size :] == 7).all())


LAYOUTS = {
    "transposed": lambda: torch.zeros(6, 4).t(),
    "channels last": lambda: torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "every other": lambda: torch.zeros(20)[::2],
    "columns": lambda: torch.zeros(6, 8)[:, 1:4],
    "columns transposed": lambda: torch.zeros(6, 8)[:, ::2].t(),
    "permuted with a length of one": lambda: torch.zeros(3, 1, 5).permute(2, 1, 0),
    "rows": lambda: torch.zeros(8, 6)[2:5],
    "no dimensions": lambda: torch.zeros(()),
    "empty": lambda: torch.zeros(3, 0, 2),
}


@pytest.mark.parametrize(
    "gradient", ["as the parameter", "contiguous", "transposed", "every other", "expanded"]
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, gradient: str) -> None:
    found = LAYOUTS[layout]()
    (p,) = parameters(found.shape, dtype=torch.float32)
    found.copy_(p.detach()).requires_grad_()
    stride = found.stride()
    grads = gradients([p], 4)
    if gradient == "expanded":
        grads = [[torch.full((), float(k + 1)).expand(p.shape)] for k in range(4)]
    optimizer = thalweg.torch.Optimizer([found], thalweg.Adam(0.1))
    for (g,) in grads:
        found.grad = {
            "as the parameter": lambda g: torch.empty_like(found).copy_(g),
            "contiguous": lambda g: g.contiguous(),
            "transposed": lambda g: g.mT.contiguous().mT if g.dim() > 1 else g,
            "every other": lambda g: torch.stack([g, g], -1)[..., 0],
            "expanded": lambda g: g,
        }[gradient](g)
        optimizer.step()
    assert found.stride() == stride
    assert difference(found, descend_torch(thalweg.Adam(0.1), p, [g[0] for g in grads])) <= 1e-6
    if found.dim() and layout not in ("every other", "columns", "rows"):
        assert optimizer.state[found]["m"].shape == found.shape


def test_gaps_between_entries_are_left_alone() -> None:
    whole = torch.zeros(6, 8)
    p = whole[:, 1::3].requires_grad_()
    train(thalweg.torch.Optimizer([p], thalweg.SGD(1.0)), [p], [[torch.full((6, 3), -1.0)]])
    assert float(whole.sum()) == 18


@given(
    shapes=st.lists(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6), min_size=1, max_size=6),
    lr=st.floats(1e-5, 1.0),
    beta_1=st.floats(0.0, 0.99),
    beta_2=st.floats(0.0, 0.9999),
    epsilon=st.floats(1e-12, 1e-2),
)
def test_any_shapes_and_hyperparameters(
    shapes: Any, lr: float, beta_1: float, beta_2: float, epsilon: float
) -> None:
    rule = thalweg.Adam(lr, beta_1, beta_2, epsilon)
    params = parameters(*shapes)
    grads = gradients(params, 4)
    found = copies(params)
    train(thalweg.torch.Optimizer(found, rule), found, grads)
    wanted = [descend_torch(rule, p, [g[i] for g in grads]) for i, p in enumerate(params)]
    assert largest_difference(found, wanted) <= 1e-10


@pytest.mark.parametrize("count", [1, 2, 50, 1000])
def test_many_tensors(count: int) -> None:
    params = parameters(*[(k % 23,) for k in range(count)], dtype=torch.float32)
    grads = gradients(params, 3)
    found = copies(params)
    train(thalweg.torch.Optimizer(found, thalweg.Adam(0.1)), found, grads)
    wanted = copies(params)
    train(torch.optim.Adam(wanted, 0.1), wanted, grads)
    assert largest_difference(found, wanted) <= 1e-6


def test_dtypes_in_one_model() -> None:
    dtypes = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
    params = [p for k, d in enumerate(dtypes * 2) for p in parameters((k + 2,), dtype=d, seed=k)]
    grads = gradients(params, 5)
    found = copies(params)
    train(thalweg.torch.Optimizer(found, thalweg.SGD(0.1)), found, grads)
    for i, p in enumerate(params):
        assert difference(found[i], descend_torch(thalweg.SGD(0.1), p, [g[i] for g in grads])) <= 1e-2
        assert (
            torch.equal(found[i], in_half(thalweg.SGD(0.1), p, [g[i] for g in grads]))
            or p.dtype in dtypes[:2]
        )


def test_groups_of_one_form_take_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    params = parameters((3,), (4,), (5,), dtype=torch.float32)
    groups = [{"params": [p], "lr": 0.1 * (k + 1)} for k, p in enumerate(params)]
    optimizer = thalweg.torch.Adam(groups)
    grads = gradients(params, 3)
    wanted = copies(params)
    train(
        torch.optim.Adam([{"params": [p], "lr": 0.1 * (k + 1)} for k, p in enumerate(wanted)]), wanted, grads
    )
    taken = []
    step = Batch.step
    monkeypatch.setattr(Batch, "step", lambda self, threads: taken.append(self) or step(self, threads))
    train(optimizer, params, grads)
    assert len(taken) == 3
    assert len(set(taken)) == 1
    assert largest_difference(params, wanted) <= 1e-6


# -- threads -------------------------------------------------------------------------------------


@pytest.fixture(params=["OpenMP", "pool"])
def team(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both kinds of threads: the framework's, and our own where it has none that we know."""
    if request.param == "pool":
        monkeypatch.setattr(threads, "_openmp", lambda: None)
    elif threads._openmp() is None:
        pytest.skip("GNU OpenMP is not loaded in this process: torch uses another here")
    return str(request.param)


@pytest.mark.usefixtures("two_threads", "team")
@pytest.mark.parametrize(
    "sizes", [(FROM_WITH_POOL + 12345,), (FROM_WITH_POOL // 2 + 1, 5, FROM_WITH_POOL // 2, 0, 77)]
)
def test_two_threads_equal_one_bit_for_bit(sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    rule = thalweg.chain(thalweg.ClipByGlobalNorm(1.0), thalweg.Adam(0.1))
    params = parameters(*[(n,) for n in sizes], dtype=torch.float32)
    grads = gradients(params, 2)
    ends, shares = [], []

    def counted(kernel: Any, split: Any, arguments: Any) -> Callable[[], None]:
        call = threads.prepared(kernel, split, arguments)

        def counts() -> None:
            shares.append(len(split))
            call()

        return counts

    monkeypatch.setattr(cpu, "prepared", counted)
    for count in (1, 2):
        torch.set_num_threads(count)
        found = copies(params)
        train(thalweg.torch.Optimizer(found, rule), found, grads)
        ends.append(found)
    assert shares == [1] * 4 + [2] * 4
    assert all(map(torch.equal, *ends))


@pytest.mark.usefixtures("team")
def test_more_shares_than_the_team_has_threads_are_all_done() -> None:
    """OpenMP may give fewer threads than asked for, as under OMP_THREAD_LIMIT."""
    n = FROM_WITH_POOL + 1
    p, g = np.zeros(n), np.ones(n)
    optimizer = thalweg.numpy.Optimizer(thalweg.SGD(1.0), threads=7)
    optimizer.update(p, g)
    assert (p == -1).all()


def test_a_team_smaller_than_asked_for_does_everything() -> None:
    script = (
        "import torch, numpy as np, thalweg, thalweg.numpy\n"
        "from thalweg.kernels import threads\n"
        "p = np.zeros(threads.FROM_WITH_POOL + 1)\n"
        "thalweg.numpy.Optimizer(thalweg.SGD(1.0), threads=5).update(p, np.ones_like(p))\n"
        "assert (p == -1).all()\n"
    )
    limited = {**os.environ, "OMP_THREAD_LIMIT": "2"}
    subprocess.run([sys.executable, "-c", script], env=limited, check=True)


@pytest.mark.usefixtures("team")
def test_below_the_threshold_one_thread_does_it_all() -> None:
    dtypes, least = ("float32",) * 4, worthwhile_from()
    assert len(Batch(trace(thalweg.Adam()), dtypes, [least - 1])._shares(8)) == 1
    assert len(Batch(trace(thalweg.Adam()), dtypes, [8 * CHUNK + least])._shares(8)) == 8
    assert Batch(trace(thalweg.Adam()), dtypes, [])._shares(8) == [(0, 0)]


@pytest.mark.usefixtures("two_threads")
def test_optimizers_may_step_in_several_threads_at_once() -> None:
    rule = thalweg.Adam(0.1)
    params = parameters((FROM_WITH_POOL + 1,), (100,), dtype=torch.float32)
    grads = gradients(params, 3)
    ends: list[list[torch.Tensor]] = [copies(params) for _ in range(4)]

    def work(found: list[torch.Tensor]) -> None:
        train(thalweg.torch.Optimizer(found, rule), found, grads)

    workers = [threading.Thread(target=work, args=(found,)) for found in ends]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    for found in ends[1:]:
        assert all(map(torch.equal, found, ends[0]))


def test_threads_settings_are_left_as_they_were() -> None:
    before = torch.get_num_threads(), torch.get_num_interop_threads()
    params = parameters((FROM_WITH_POOL + 1,), dtype=torch.float32)
    train(thalweg.torch.Adam(params), params, gradients(params, 1))
    assert (torch.get_num_threads(), torch.get_num_interop_threads()) == before


# -- among processes ----------------------------------------------------------------------------


def test_changed_source_is_another_kernel() -> None:
    assert step_kernel(trace(thalweg.SGD()), ("float32",) * 2) is step_kernel(
        trace(thalweg.SGD(0.5)), ("float32",) * 2
    )
    assert step_kernel(trace(thalweg.SGD()), ("float32",) * 2) is not step_kernel(
        trace(thalweg.SGD()), ("float64",) * 2
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_steps_a_large_model() -> None:
    source = """
import os, sys, numpy as np, thalweg
from thalweg.numpy import Optimizer
optimizer = Optimizer(thalweg.Adam(0.1), threads=2)
p, g = np.zeros(2_000_000, np.float32), np.ones(2_000_000, np.float32)
optimizer.update(p, g)
child = os.fork()
if not child:
    optimizer.update(p, g)
    os._exit(0 if abs(p[-1] + 0.2) < 1e-5 and abs(p[0] + 0.2) < 1e-5 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), abs(p[-1] + 0.1) < 1e-5)
"""
    assert output(python(source)) == "0 True"


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
def test_a_child_forked_in_the_middle_of_another_threads_step_steps_too() -> None:
    output(
        python("""
import os, sys, threading, time, torch, thalweg, thalweg.torch
inside, forked = threading.Event(), threading.Event()

def rate(t):  # called within the step
    if threading.current_thread() is not threading.main_thread():
        inside.set()
        forked.wait(60)
    return 0.1

p = torch.ones(3, requires_grad=True)
p.grad = torch.ones(3)
optimizer = thalweg.torch.Optimizer([p], thalweg.SGD(rate))
optimizer.step()
other = threading.Thread(target=optimizer.step)
other.start()
inside.wait(60)
child = os.fork()
if not child:
    with torch.no_grad():
        p.fill_(1.0)
    optimizer.step()
    os._exit(0 if abs(float(p[0]) - 0.9) < 1e-6 else 1)
until = time.monotonic() + 60
while (found := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
    time.sleep(0.01)
if found == (0, 0):
    os.kill(child, 9)
forked.set()
other.join()
sys.exit(0 if found == (child, 0) else f"the child: {found}")
""")
    )


def test_a_step_allocates_nothing_that_grows_with_the_model() -> None:
    source = """
import resource, torch, thalweg, thalweg.torch
n = 24_000_000
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
for rule in (thalweg.Adam(), thalweg.chain(thalweg.ClipByGlobalNorm(1.0), thalweg.Adam())):
    p = torch.nn.Parameter(torch.ones(n))
    p.grad = torch.ones(n)
    optimizer = thalweg.torch.Optimizer([p], rule)
    optimizer.step()
    before = peak()
    for _ in range(2):
        optimizer.step()
    print(peak() - before < n // 2)
    del p, optimizer
"""
    assert output(python(source)) == "True\nTrue"


def test_signs_are_known() -> None:
    # The helper that chooses gradients relies on it.
    assert takes_signs(thalweg.Lion())
    assert not takes_signs(thalweg.Adam())


@forms
def test_nan_goes_where_the_rule_sends_it(form: str) -> None:
    rule = FORMS[form]
    (p,) = parameters((9,))
    grads = gradients([p], 3)
    grads[1][0][4] = math.nan
    (found,) = copies([p])
    train(thalweg.torch.Optimizer([found], rule), [found], grads)
    wanted = descend_torch(rule, p, [g[0] for g in grads])
    assert np.isnan(wanted).tolist() == [k == 4 for k in range(9)]
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-10)


class Functions(Rule):
    def update(self, g, a=0, b=0, c=0, d=0, e=0, f=0):  # type: ignore[no-untyped-def]
        low, high = maximum(g, 0.5), maximum(0.5, g)
        return (
            where(g > 0, 1.0, 2.0),
            low,
            high,
            minimum(g, 0.5),
            minimum(0.5, g),
            sign(g),
            clip(g, -1.0, 1.0),
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_functions_in_kernels_are_those_of_arrays(dtype: torch.dtype) -> None:
    g = torch.tensor([math.nan, math.inf, -math.inf, -3.0, 0.0, 0.25, 0.5, 3.0], dtype=dtype)
    p = torch.zeros(8, dtype=dtype, requires_grad=True)
    optimizer = thalweg.torch.Optimizer([p], Functions())
    train(optimizer, [p], [[g]])
    step, wanted = Functions().advance(1, g, p, dict.fromkeys("abcdef", 0.0))
    for slot, value in wanted.items():
        torch.testing.assert_close(optimizer.state[p][slot], value, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(-p, step.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_subnormal_numbers_are_zero_in_a_kernel_and_nowhere_else(dtype: torch.dtype) -> None:
    smallest = torch.finfo(dtype).tiny
    p = torch.ones(64, dtype=dtype, requires_grad=True)
    optimizer = thalweg.torch.Adam([p], lr=1.0, betas=(0.5, 0.5))
    train(optimizer, [p], [[torch.full_like(p, smallest / 2)], [torch.full_like(p, 4 * smallest)]])
    state = optimizer.state[p]
    assert torch.equal(state["exp_avg"], torch.full_like(p, 2 * smallest))  # of the second gradient alone
    for _ in range(2):
        train(optimizer, [p], [[torch.zeros_like(p)]])
    assert torch.equal(state["exp_avg"], torch.zeros_like(p))
    assert (torch.tensor([smallest], dtype=dtype) / 2).item() > 0


@pytest.mark.parametrize(
    ("machine", "triple", "register"),
    [
        ("x86", "x86_64-unknown-linux-gnu", "ldmxcsr"),
        ("arm", "aarch64-unknown-linux-gnu", "fpcr"),
        ("other", "riscv64-unknown-linux-gnu", "ret"),
    ],
)
def test_every_processor_gets_code(
    machine: str, triple: str, register: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    for name in ("x86", "arm"):
        monkeypatch.setattr(memory, f"_{name}", name == machine)
    module = ir.Module()
    module.triple = triple
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), []), "run")
    builder = ir.IRBuilder(function.append_basic_block())
    memory._set_arithmetic(builder, memory._arithmetic(builder))
    builder.ret_void()
    target = llvm.Target.from_triple(triple).create_target_machine()
    assembly = target.emit_assembly(llvm.parse_assembly(str(module)))
    assert register in assembly.lower()


def test_openmp_threads_are_found_when_torch_comes_after_the_first_numpy_step() -> None:
    script = (
        "import numpy as np, thalweg, thalweg.numpy\n"
        "from thalweg.kernels import threads\n"
        "big = np.zeros(threads.FROM_WITH_POOL + 1)\n"
        "thalweg.numpy.Optimizer(thalweg.SGD(1.0), threads=2).update(big, big.copy())\n"
        "before = threads.worthwhile_from()\n"
        "import thalweg.torch\n"
        "print(before, threads.worthwhile_from())\n"
    )
    if threads._loaded_openmp() is None:
        pytest.skip("GNU OpenMP is not loaded in this process: torch uses another here")
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.split() == [str(FROM_WITH_POOL), str(threads.FROM_WITH_OPENMP)]
