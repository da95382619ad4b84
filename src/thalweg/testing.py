"""A conformance test that any rule can run: `check_rule(MyRule())`.

It needs NumPy and the CPU kernels only, takes a few seconds the first time, and says in its error
which promise the rule broke.
"""

import copy
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.eager import Driver, descend
from thalweg.errors import no_rule
from thalweg.kernels.source import cpu_source
from thalweg.numpy import Optimizer
from thalweg.program.symbols import symbol
from thalweg.program.tracing import trace
from thalweg.rule import Rule
from thalweg.statefile import apart

__all__ = ["check_rule"]

Floats = NDArray[np.float64]


def check_rule(rule: Rule) -> None:
    """Check that a rule keeps every promise that front ends and kernels rely on.

    Args:
        rule: an instance; its hyperparameters are used as they are.

    Raises:
        AssertionError: it does not; the message begins with the rule's name and the promise.
        TypeError: it is not a rule, or its `update` cannot be traced.
    """
    if not isinstance(rule, Rule):
        raise no_rule("check_rule", rule)
    for promise in _PROMISES:
        try:
            promise(rule)
        except AssertionError as error:
            raise AssertionError(f"{rule.name}: {promise.__doc__} {error}") from error


def _describes_hyperparameters(rule: Rule) -> None:
    """Every hyperparameter has a symbol and a meaning, and a search range that is admissible."""
    for name, about in rule.hyperparameters.items():
        assert about.symbol, f"{name} has no symbol"
        assert about.meaning, f"{name} has no meaning: declare it with hyper(default, meaning=…)"
        if about.search is not None:
            low, high = about.search
            assert low < high, f"the search range of {name} is empty"
            assert about.admits(low), f"the search range of {name} begins outside {about.range}"
            assert about.admits(high), f"the search range of {name} ends outside {about.range}"


def _writes_its_state(rule: Rule) -> None:
    """The state changes with the steps."""
    program, inner = trace(rule), apart(rule)[1]
    new = {**program.slots, **program.scalar_slots}
    if not inner.flags and len(inner.values) == len(fields(inner)):  # no form that could do without a slot
        new = {slot: symbol(slot) for slot in inner.slots} | new
    for slot, value in new.items():
        assert value is not symbol(slot), f"{slot} stays as it is: return its next value or leave it out"


def _keeps_dtype_and_shape(rule: Rule) -> None:
    """The step and the state have the gradient's shape and dtype."""
    for dtype in (np.float32, np.float64):
        p, g = np.ones((2, 3), dtype), np.full((2, 3), 0.5, dtype)
        driver, slots = Driver(rule), trace(rule).slots
        driver.states[0] |= {slot: np.full_like(p, driver.states[0][slot]) for slot in slots}
        found = {"the step": driver.step(p, g)} | {slot: driver.states[0][slot] for slot in slots}
        for what, value in found.items():
            assert np.shape(value) == p.shape, f"{what} has shape {np.shape(value)}, not {p.shape}"
            assert value.dtype == dtype, f"{what} is {value.dtype}, not {np.dtype(dtype)}"


def _rests_without_gradient(rule: Rule) -> None:
    """With gradients that have always been zero, parameters stay finite."""
    end = descend(rule, *_locked(np.ones(4), [np.zeros(4)] * 5))
    assert np.isfinite(end).all(), f"they became {end}"


def _descends(rule: Rule) -> None:
    """On the bowl ½‖p‖², 100 steps lead downhill."""
    p = np.linspace(-1, 1, 8)
    optimizer = Optimizer(rule)
    for _ in range(100):
        optimizer.update(p, p.copy())
    start, end = 0.5 * float(np.sum(np.linspace(-1, 1, 8) ** 2)), 0.5 * float(np.sum(p**2))
    assert end < start, f"the loss went from {start:g} to {end:g}"


def _kernel_agrees_in_float64(rule: Rule) -> None:
    """The float64 kernel takes the steps of the rule as written (relative 1e-10 after 100)."""
    _compare(rule, np.float64, 1e-10)


def _kernel_agrees_in_float32(rule: Rule) -> None:
    """The float32 kernel follows the rule as written in float64 (relative 1e-5 after 100)."""
    _compare(rule, np.float32, 1e-5)


def _prints(rule: Rule) -> None:
    """It prints as a formula and as kernel source."""
    program = trace(rule)
    assert r"\theta_t" in program.latex(rule), "no formula"
    compile(cpu_source(program), "<kernel>", "exec")


def _copies(rule: Rule) -> None:
    """A deep copy is equal and of the same form."""
    again = copy.deepcopy(rule)
    assert again == rule, "the copy differs"
    assert again.form == rule.form, "the copy has another form"


_PROMISES: tuple[Callable[[Rule], None], ...] = (
    _describes_hyperparameters,
    _copies,
    _writes_its_state,
    _keeps_dtype_and_shape,
    _rests_without_gradient,
    _prints,
    _kernel_agrees_in_float64,
    _kernel_agrees_in_float32,
    _descends,
)


def _problem(shape: tuple[int, ...], steps: int) -> tuple[Floats, list[Floats]]:
    """A parameter and a row of gradients of both signs, away from zero, where a sign would flip."""
    generator = np.random.default_rng(0)
    signs = generator.choice([-1.0, 1.0], (steps, *shape))
    sizes = generator.uniform(0.1, 1.0, (steps, *shape))
    return generator.standard_normal(shape), list(signs * sizes)


def _locked(p: Floats, gradients: list[Floats]) -> tuple[Floats, list[Floats]]:
    """Arrays that a rule cannot change in place."""
    for array in (p, *gradients):
        array.flags.writeable = False
    return p, gradients


def _compare(rule: Rule, dtype: type, tolerance: float) -> None:
    # More than one vector, and a tail.
    p, gradients = _problem((67,), 100)
    gradients = [g.astype(dtype).astype(np.float64) for g in gradients]
    p = p.astype(dtype).astype(np.float64)
    wanted = descend(rule, *_locked(p, gradients))
    found: NDArray[Any] = p.astype(dtype)
    optimizer = Optimizer(rule)
    for g in gradients:
        optimizer.update(found, g.astype(dtype))
    difference = float(np.max(np.abs(found - wanted)) / np.max(np.abs(wanted)))
    assert difference <= tolerance, f"relative difference {difference:.1e}"
