"""Steps between which storage of every kind is moved, against the rule as written.

Hypothesis draws sequences of steps and of what users do to parameters, gradients and state in between. After
each step every entry is what the rule as written makes of the entries before it; what is refused leaves all
entries as they were. The same sequences run in memory between forbidden pages (see `guarded`), which is gone
once nobody holds it: a stale address ends the process. JAX's arrays cannot be changed: its front end has no
such sequences.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

import thalweg
import thalweg.numpy
import thalweg.torch
from guarded import guarded, guarded_tensor
from helpers import python
from thalweg.eager import Driver

GUARDED = "THALWEG_TEST_GUARDED" in os.environ
RULES = [
    thalweg.SGD(0.1),
    thalweg.Momentum(0.1, 0.9),
    thalweg.Adam(0.01),
    thalweg.AMSGrad(0.01),
    thalweg.AdamW(0.01, weight_decay=0.1),
    thalweg.Nadam(0.01),
    thalweg.chain(thalweg.ClipByGlobalNorm(0.5), thalweg.L2(0.1), thalweg.RMSprop(0.01)),
    thalweg.chain(thalweg.L2(0.5), thalweg.ClipByNorm(0.3), thalweg.Momentum(0.1, 0.9)),
]
SHAPES = [(), (1,), (5,), (3, 4), (2, 3, 2), (33,), (0, 3), (70, 3)]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
TOLERANCE = {torch.float64: 1e-11, torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def placed(x: torch.Tensor, at_end: bool = True) -> torch.Tensor:
    """A copy of its own; between forbidden pages where that is what is tested."""
    return guarded_tensor(x, at_end) if GUARDED else x.clone(memory_format=torch.contiguous_format)


# -- what users do to a tensor ---------------------------------------------------------------------


def with_gaps(x: torch.Tensor) -> torch.Tensor:
    room = placed(x.new_zeros(2 * x.numel()))
    return room[::2].view(x.shape).copy_(x)


def at_an_offset(x: torch.Tensor) -> torch.Tensor:
    room = placed(x.new_zeros(x.numel() + 3))
    return room[3:].view(x.shape).copy_(x)


def backwards(x: torch.Tensor) -> torch.Tensor:
    axes = tuple(reversed(range(x.dim())))
    return placed(x.permute(axes)).permute(axes)


MOVES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "copied": placed,
    "at the start of a page": lambda x: placed(x, at_end=False),
    "gaps": with_gaps,
    "offset": at_an_offset,
    "backwards": backwards,
    "negated": lambda x: torch._neg_view(placed(-x)),
    **{str(dtype): lambda x, dtype=dtype: placed(x.to(dtype)) for dtype in DTYPES},
    "shared": lambda x: x.clone().share_memory_(),
    "in place": lambda x: x.mul_(0.5),
}
MISFITS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "smaller": lambda x: placed(x.flatten()[: x.numel() // 2]),
    "flat": lambda x: placed(x.flatten().repeat(2)),
}


def put(x: torch.Tensor, new: torch.Tensor, by_set: bool) -> None:
    with torch.no_grad():
        if by_set and x.dtype == new.dtype and not new.is_neg():
            x.set_(new)
        else:
            x.data = new


def plain(x: torch.Tensor) -> Any:
    return x.detach().resolve_neg().double().clone().numpy()


# -- front ends ------------------------------------------------------------------------------------


class Torch:
    """`thalweg.torch.Optimizer`."""

    def __init__(self, of: thalweg.Rule, values: list[torch.Tensor]) -> None:
        self.params = [torch.nn.Parameter(x) for x in values]
        self.optimizer = thalweg.torch.Optimizer(self.params, of)
        self.slots = tuple(thalweg.trace(of).slots)

    def state(self) -> dict[str, list[torch.Tensor]]:
        state = self.optimizer.state
        return {slot: [state[p][slot] for p in self.params] for slot in self.slots if self.begun()}

    def begun(self) -> bool:
        return all(p in self.optimizer.state for p in self.params)

    def step(self, grads: list[torch.Tensor]) -> None:
        for p, g in zip(self.params, grads, strict=True):
            p.grad = None
            p.grad = torch.zeros_like(p)
            p.grad.data = g
        self.optimizer.step()


class Keras:
    """`thalweg.keras.Optimizer` on Keras's torch back end."""

    def __init__(self, of: thalweg.Rule, values: list[torch.Tensor]) -> None:
        import keras

        import thalweg.keras

        self.variables = [keras.Variable(x, dtype=str(x.dtype).removeprefix("torch.")) for x in values]
        for variable, x in zip(self.variables, values, strict=True):
            variable._value.data = x
        self.params = [variable._value for variable in self.variables]
        self.optimizer = thalweg.keras.Optimizer(of)
        self.slots = tuple(thalweg.trace(of).slots)

    def state(self) -> dict[str, list[torch.Tensor]]:
        return {s: [v._value for v in self.optimizer._own.slots[s]] for s in self.slots if self.begun()}

    def begun(self) -> bool:
        return bool(self.optimizer.built)

    def step(self, grads: list[torch.Tensor]) -> None:
        self.optimizer.apply(grads, self.variables)


FRONT_ENDS: dict[str, Any] = {"torch": Torch, "keras": Keras}


class Moving(RuleBasedStateMachine):
    """Steps of one optimizer, and what happens in between."""

    front_end = "torch"

    @initialize(
        of=st.sampled_from(RULES),
        shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=4),
        dtype=st.sampled_from(DTYPES),
        seed=st.integers(0, 1000),
    )
    def begin(self, of: thalweg.Rule, shapes: list[tuple[int, ...]], dtype: torch.dtype, seed: int) -> None:
        self.rule, self.t = of, 0
        self.generator = torch.Generator().manual_seed(seed)
        self.world = FRONT_ENDS[self.front_end](of, [placed(self.drawn(s).to(dtype)) for s in shapes])
        self.scalars = {k: float(of.initial_state()[k]) for k in thalweg.trace(of).scalar_slots}
        self.grads = [placed(self.drawn(s).to(dtype)) for s in shapes]

    def drawn(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def tensor(self, where: str, index: int, slot: int) -> torch.Tensor | None:
        state = [*self.world.state().values()]
        column = {"p": self.world.params, "g": self.grads, "s": state[slot % len(state)] if state else []}[
            where
        ]
        return column[index % len(column)] if column else None

    @rule(
        where=st.sampled_from("pgs"),
        index=st.integers(0, 3),
        slot=st.integers(0, 2),
        move=st.sampled_from([*MOVES]),
        by_set=st.booleans(),
    )
    def move(self, where: str, index: int, slot: int, move: str, by_set: bool) -> None:
        x = self.tensor(where, index, slot)
        if x is None or (self.front_end == "keras" and where != "g" and move.startswith("torch.")):
            return  # a Keras variable says its dtype itself
        with torch.no_grad():
            put(x, MOVES[move](x.detach().resolve_neg()), by_set)

    @rule()
    def new_gradients(self) -> None:
        self.grads = [placed(self.drawn(tuple(p.shape)).to(p.dtype)) for p in self.world.params]

    @precondition(lambda self: self.front_end == "torch")
    @rule(index=st.integers(0, 3), how=st.sampled_from(["data", "assigned", "number"]), t=st.integers(0, 50))
    def set_the_step(self, index: int, how: str, t: int) -> None:
        if not self.world.begun():
            return
        for p in self.world.params:  # of all, so that one number says it
            state = self.world.optimizer.state[p]
            if how == "data" and isinstance(state["step"], torch.Tensor):
                state["step"].data = torch.tensor(float(t))
            else:
                state["step"] = torch.tensor(float(t)) if how == "assigned" else t
        self.t = t

    @rule(
        where=st.sampled_from("pgs"),
        index=st.integers(0, 3),
        slot=st.integers(0, 2),
        misfit=st.sampled_from([*MISFITS]),
    )
    def misfit(self, where: str, index: int, slot: int, misfit: str) -> None:
        x = self.tensor(where, index, slot)
        if x is None or x.numel() < 2 or not self.world.begun():
            return
        kept = x.data
        x.data = MISFITS[misfit](x.detach().resolve_neg())
        before = self.snapshot()
        with pytest.raises((ValueError, RuntimeError)):
            self.world.step(self.grads)
        for old, new in zip(before, self.snapshot(), strict=True):
            np.testing.assert_array_equal(new, old)
        x.data = kept

    def snapshot(self) -> list[Any]:
        state = [x for column in self.world.state().values() for x in column]
        return [plain(x) for x in (*self.world.params, *state)]

    @rule()
    def step(self) -> None:
        params, rule_now = self.world.params, self.rule
        p, g = [plain(x) for x in params], [plain(x) for x in self.grads]
        program, initial = thalweg.trace(rule_now), rule_now.initial_state()
        held = self.world.state()
        slots = [
            {s: plain(held[s][i]) if held else np.full(x.shape, float(initial[s])) for s in program.slots}
            for i, x in enumerate(p)
        ]
        self.world.step(self.grads)
        self.t += 1
        steps, new = reference(rule_now, self.t, g, p, slots, self.scalars)
        self.scalars = {k: new[0][k] for k in self.scalars} if new else self.scalars
        held = self.world.state()
        for i, x in enumerate(params):
            rate = (
                () if self.front_end == "torch" else (torch.float32,)
            )  # in which Keras keeps the learning rate
            close(x, p[i] - steps[i], params[i].dtype, self.grads[i].dtype, *rate)
            for s in program.slots:
                close(held[s][i], new[i][s], held[s][i].dtype, params[i].dtype, self.grads[i].dtype, *rate)


def close(found: torch.Tensor, wanted: Any, *dtypes: torch.dtype) -> None:
    """Within what the coarsest of the dtypes can tell."""
    tolerance = max(TOLERANCE[d] for d in dtypes)
    np.testing.assert_allclose(plain(found), wanted, rtol=tolerance, atol=tolerance)


NUMPY_DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


def array(x: Any) -> Any:
    """A copy of an array; between forbidden pages where that is what is tested."""
    if not (GUARDED and x.size):
        return x.copy(order="C")
    made = np.frombuffer(guarded(x.nbytes, at_end=True), x.dtype).reshape(x.shape)
    made[...] = x
    return made


def spread(x: Any) -> Any:
    room = array(np.zeros(2 * x.size, x.dtype))[::2].reshape(x.shape)
    room[...] = x
    return room


ARRAY_MOVES: dict[str, Callable[[Any], Any]] = {
    "gaps": spread,
    "the other way round": lambda x: array(x.T).T,
    "from the end": lambda x: np.flip(array(np.flip(x))) if x.ndim else array(x),
}


def reference(
    of: thalweg.Rule,
    t: int,
    g: list[Any],
    p: list[Any],
    slots: list[dict[str, Any]],
    scalars: dict[str, float],
) -> tuple[list[Any], list[dict[str, Any]]]:
    """The rule as written, in float64, on all tensors: each step and each new state."""
    driver = Driver(of, len(p))
    driver.t = t - 1
    driver.states = [{**state, **held, **scalars} for state, held in zip(driver.states, slots, strict=True)]
    return driver.steps(p, g), driver.states


class Arrays(RuleBasedStateMachine):
    """Steps of `thalweg.numpy.Optimizer`, whose arrays may be others each time."""

    @initialize(
        of=st.sampled_from(RULES),
        shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=4),
        dtype=st.sampled_from(NUMPY_DTYPES),
        seed=st.integers(0, 1000),
    )
    def begin(self, of: thalweg.Rule, shapes: list[tuple[int, ...]], dtype: Any, seed: int) -> None:
        self.rule, self.generator = of, np.random.default_rng(seed)
        self.optimizer = thalweg.numpy.Optimizer(of)
        self.params = [array(self.generator.standard_normal(s).astype(dtype)) for s in shapes]
        self.grads = [array(self.generator.standard_normal(s).astype(dtype)) for s in shapes]
        self.scalars = {k: float(of.initial_state()[k]) for k in thalweg.trace(of).scalar_slots}

    @rule(
        where=st.sampled_from("pg"), index=st.integers(0, 3), move=st.sampled_from(["copied", *ARRAY_MOVES])
    )
    def move(self, where: str, index: int, move: str) -> None:
        column = {"p": self.params, "g": self.grads}[where]
        x = column[index % len(column)]
        column[index % len(column)] = ARRAY_MOVES.get(move, array)(x)

    @rule(where=st.sampled_from("pg"), index=st.integers(0, 3), dtype=st.sampled_from(NUMPY_DTYPES))
    def change_dtype(self, where: str, index: int, dtype: Any) -> None:
        column = {"p": self.params, "g": self.grads}[where]
        column[index % len(column)] = array(column[index % len(column)].astype(dtype))

    @rule(dtype=st.sampled_from(NUMPY_DTYPES), swapped=st.booleans())
    def load_state_of_another_dtype(self, dtype: Any, swapped: bool) -> None:
        state = self.optimizer.state()
        for arrays in state.slots.values():
            for name, a in arrays.items():
                other = a.astype(dtype)
                arrays[name] = (
                    other.astype(other.dtype.newbyteorder()) if swapped and other.dtype.kind == "f" else other
                )
        if all(a.dtype.isnative for arrays in state.slots.values() for a in arrays.values()):
            self.optimizer.load(state)
            return
        with pytest.raises(ValueError, match="slots are float64"):
            self.optimizer.load(state)

    @rule(index=st.integers(0, 3))
    def misfit(self, index: int) -> None:
        grads = list(self.grads)
        index %= len(grads)
        grads[index] = np.ones((2, *grads[index].shape))
        before = [p.copy() for p in self.params]
        with pytest.raises(ValueError, match="has shape"):
            self.optimizer.update(self.params, grads)
        for old, new in zip(before, self.params, strict=True):
            np.testing.assert_array_equal(new, old)

    @rule()
    def step(self) -> None:
        program, initial = thalweg.trace(self.rule), self.rule.initial_state()
        p, g = ([np.array(x, np.float64) for x in column] for column in (self.params, self.grads))
        held = {s: [*arrays.values()] for s, arrays in self.optimizer.state().slots.items()}
        kinds = [x.dtype for x in self.params]
        slots = [
            {
                s: np.array(held[s][i], np.float64) if held.get(s) else np.full(x.shape, float(initial[s]))
                for s in program.slots
            }
            for i, x in enumerate(p)
        ]
        # What a parameter's dtype cannot hold of its gradient is gone before the rule sees it.
        g = [np.array(x.astype(kind), np.float64) for x, kind in zip(g, kinds, strict=True)]
        self.optimizer.update(self.params, self.grads)
        steps, new = reference(self.rule, self.optimizer.t, g, p, slots, self.scalars)
        self.scalars = {k: new[0][k] for k in self.scalars}
        held = {s: [*arrays.values()] for s, arrays in self.optimizer.state().slots.items()}
        for i, x in enumerate(self.params):
            alike(x, p[i] - steps[i], x.dtype)
            for s in program.slots:
                alike(held[s][i], new[i][s], held[s][i].dtype, x.dtype)


def alike(found: Any, wanted: Any, *dtypes: Any) -> None:
    tolerance = max(TOLERANCE[getattr(torch, d.name)] for d in dtypes)
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=tolerance, atol=tolerance)


def run(machine: Any, request: pytest.FixtureRequest) -> None:
    run_state_machine_as_test(
        hypothesis.seed(request.config.getoption("--seed"))(machine),
        settings=settings(
            max_examples=request.config.getoption("--rounds"),
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=[*HealthCheck],
        ),
    )


def test_arrays_that_move_under_numpy(request: pytest.FixtureRequest) -> None:
    run(Arrays, request)


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_storage_that_moves_under_torch(front_end: str, request: pytest.FixtureRequest) -> None:
    if front_end == "keras" and os.environ.get("KERAS_BACKEND") != "torch":
        pytest.skip("Keras's torch back end has a process of its own: the test below")
    run(type(front_end, (Moving,), {"front_end": front_end}), request)


@pytest.mark.skipif(GUARDED, reason="this is the process of its own")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are forbidden by Linux's calls")
def test_the_same_between_forbidden_pages(request: pytest.FixtureRequest) -> None:
    options = [
        f"--rounds={request.config.getoption('--rounds')}",
        f"--seed={request.config.getoption('--seed')}",
    ]
    done = subprocess.run(
        [
            sys.executable,
            *("-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"),
            *options,
            __file__,
        ],
        env={**os.environ, "THALWEG_TEST_GUARDED": "1", "KERAS_BACKEND": "torch", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout, done.stdout


BESIDE = """
import sys, numpy, torch, thalweg.torch
from guarded import guarded_tensor
p = guarded_tensor(torch.ones(40))[: int(sys.argv[1])]
from thalweg.kernels import torch_tensors as tensors
tensors.Tensors.layout  # what is broken below: a table that believes a tensor to be longer than it is
before = tensors.Tensors.layout
def longer(self, x):
    import dataclasses
    found = before(self, x)
    return dataclasses.replace(found, shape=(found.shape[0] + int(sys.argv[2]),), memory=(0, 1 << 62))
tensors.Tensors.layout = longer
p.requires_grad_()
p.grad = guarded_tensor(torch.ones(40))
thalweg.torch.SGD([p]).step()
print("went on")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are forbidden by Linux's calls")
def test_forbidden_pages_notice_one_entry_beside_an_array() -> None:
    tests = str(Path(__file__).parents[1])
    assert "went on" in python(BESIDE, "40", "0", PYTHONPATH=path_with(tests)).stdout
    assert python(BESIDE, "40", "1", PYTHONPATH=path_with(tests)).returncode == -signal.SIGSEGV


def path_with(folder: str) -> str:
    return os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
