"""The steps of a rule, one after the other, without a framework and without kernels.

    driver = Driver(Adam())
    p = p - driver.step(p, gradient(p))

What any driver of rules must do is described in docs/drivers.md; this one is the reference for the others.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import array_namespace

from thalweg import ops
from thalweg.program.tracing import trace
from thalweg.rule import Rule

__all__ = ["Driver", "as_traced", "as_written", "descend", "numpy_functions"]

Array: TypeAlias = Any
State: TypeAlias = dict[str, Any]

# One step of a model, which changes nothing in place: from the number of the step, each hyperparameter's
# value there, and each tensor's parameter, gradient and state, to each tensor's step to subtract and next
# state, and the norm of the model's gradient where the rule has a guard.
Step: TypeAlias = Callable[
    [int, Mapping[str, Any], Sequence[Array], Sequence[Array], Sequence[State]],
    tuple[list[Array], list[State], Any],
]


class Driver:
    """Takes the steps of a rule, on arrays of any library, or on numbers.

    Attributes:
        rule: the rule; its schedules are asked for each step's number.
        t: how many steps were taken; a step that is skipped is not counted.
        states: each tensor's state, by slot. Until the first step a slot is a number.
    """

    def __init__(
        self,
        rule: Rule,
        tensors: int = 1,
        *,
        values: Mapping[str, Array] | None = None,
        step: Step | None = None,
    ) -> None:
        """A driver before its first step.

        Args:
            rule: the rule, within treatments or not.
            tensors: how many tensors the model has.
            values: hyperparameters that are arrays, which broadcast against the parameters; unchecked.
            step: what takes a step; the rule as it is written by default.
        """
        self.rule, self.t = rule, 0
        self._values = dict(values or {})
        initial: State = dict(rule.initial_state())
        initial |= {slot: self._values[str(x)] for slot, x in rule.slots.items() if x in self._values}
        self.states = [dict(initial) for _ in range(tensors)]
        self._step = step or as_written(rule)

    def step(self, p: Array, g: Array) -> Array:
        """Take a step of a model of one tensor; what to subtract from it."""
        return self.steps([p], [g])[0]

    def steps(self, params: Sequence[Array], grads: Sequence[Array]) -> list[Array]:
        """Take a step; what to subtract from each tensor. Nothing is changed in place."""
        t = self.t + 1
        values = self.rule.values_at(t) | self._values
        steps, states, norm = self._step(t, values, params, grads, self.states)
        if norm is None:
            self.t, self.states = t, states
            return steps
        finite = norm < math.inf  # NaN is not
        self.t += finite if isinstance(finite, bool) else bool(finite.any())
        self.states = [
            {slot: ops.where(finite, value, old[slot]) for slot, value in new.items()}
            for new, old in zip(states, self.states, strict=True)
        ]
        return [ops.where(finite, step, 0.0) for step in steps]


def descend(rule: Rule, p: Array, grads: Iterable[Array]) -> Array:
    """Where the rule as it is written leads one tensor, given the gradient of each step."""
    driver = Driver(rule)
    for g in grads:
        p = p - driver.step(p, g)
    return p


def as_written(rule: Rule) -> Step:
    """Steps by the rule's `update` as it stands; several tensors are one vector of all their entries."""

    def step(
        t: int,
        values: Mapping[str, Any],
        params: Sequence[Array],
        grads: Sequence[Array],
        states: Sequence[State],
    ) -> tuple[list[Array], list[State], Any]:
        now = rule.with_values(values)
        if len(params) == 1:
            (p,), (g,), (state,) = params, grads, states
            taken, new = now.advance(t, g, p, state)
            return [taken], [new], ops.norm(g) if rule.guarded else None
        model = _Model(grads)
        g, p = model.joined(grads), model.joined(params)
        joined = {slot: model.shared_or_joined([state[slot] for state in states]) for slot in states[0]}
        taken, new = now.advance(t, g, p, joined, norm=model.norms)
        slots = {slot: model.parted(value) for slot, value in new.items()}
        each = [{slot: tensors[i] for slot, tensors in slots.items()} for i in range(len(params))]
        return model.parted(taken), each, ops.norm(g) if rule.guarded else None

    return step


class _Model:
    """Several tensors as one vector."""

    def __init__(self, tensors: Sequence[Array]) -> None:
        self._xp = array_namespace(*tensors)
        self._shapes = [x.shape for x in tensors]
        self._sizes = [math.prod(shape) for shape in self._shapes]

    def joined(self, tensors: Sequence[Array]) -> Array:
        """One vector of all entries."""
        return self._xp.concat([self._xp.reshape(x, (-1,)) for x in tensors])

    def shared_or_joined(self, values: Sequence[Any]) -> Any:
        """The number that a slot is for all tensors; one vector where it has a value for each entry."""
        first = values[0]
        if isinstance(first, int | float) and all(value is first for value in values):
            return first
        return self.joined(values)

    def _slices(self, vector: Array) -> list[Array]:
        ends = np.cumsum(self._sizes).tolist()
        return [vector[end - size : end] for size, end in zip(self._sizes, ends, strict=True)]

    def parted(self, x: Array) -> list[Array]:
        """Each tensor of a vector."""
        if isinstance(x, int | float):
            return [x] * len(self._shapes)
        pairs = zip(self._slices(x), self._shapes, strict=True)
        return [self._xp.reshape(entries, shape) for entries, shape in pairs]

    def norms(self, vector: Array) -> Array:
        """At each entry of a vector, the norm of the tensor that the entry belongs to."""
        xp = self._xp
        return xp.concat([xp.broadcast_to(ops.norm(x), x.shape) for x in self._slices(vector)])


def as_traced(rule: Rule, functions: Mapping[str, Callable[..., Any]]) -> Step:
    """Steps by the rule's Program, on whole arrays: faster than `as_written`.

    Args:
        rule: the rule.
        functions: those of an array library, as `Program.array_norms` takes them.
    """
    program = trace(rule)
    function, norms = program.array_function(functions), program.array_norms(functions)
    slots = (*program.slots, *program.scalar_slots)

    def step(
        t: int,
        values: Mapping[str, Any],
        params: Sequence[Array],
        grads: Sequence[Array],
        states: Sequence[State],
    ) -> tuple[list[Array], list[State], Any]:
        tensors = [
            {"t": t, "g": g, "p": p, **state, **values}
            for p, g, state in zip(params, grads, states, strict=True)
        ]
        whole = norms(tensors)
        results = [function(**tensor, **whole) for tensor in tensors]
        states = [dict(zip(slots, result[1:], strict=True)) for result in results]
        return [result[0] for result in results], states, whole[program.guard] if program.guard else None

    return step


def numpy_functions(axis: int | None = None) -> dict[str, Callable[..., Any]]:
    """NumPy's functions for `as_traced`; a tensor's entries lie along `axis`, by default along every axis."""
    functions: dict[str, Callable[..., Any]] = {name: getattr(np, name) for name in ops.__all__}
    return functions | {"sum_of_squares": lambda x: np.sum(x * x, axis=axis)}
