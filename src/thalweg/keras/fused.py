"""The step on Keras's torch back end: one kernel call on the variables' own tensors.

Between steps only gradients move. A plan keeps the table of tensors, which is proven before each step,
and leaves everything unusual to Keras's own way through `apply`.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from operator import attrgetter, is_
from typing import Any

import numpy as np
import torch
from keras.src.backend.common.stateless_scope import in_stateless_scope
from torch import Tensor

from thalweg.keras.base import DECAYS, ArrayOptimizer
from thalweg.keras.scheduled import Scheduled
from thalweg.kernels.table import Table
from thalweg.kernels.torch_tensors import TENSORS, has_kernel
from thalweg.program.tracing import trace
from thalweg.rule import Rule

_tensor = attrgetter("_value")
_constraint = attrgetter("_constraint")
# How many sets of variables with a gradient to remember (alternating losses, experts).
_PLANS = 8


class FusedOptimizer(ArrayOptimizer):
    """A rule as a Keras optimizer that steps by a fused kernel where the tensors allow it."""

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Take one step; as Keras's `apply`, of which the common case is done here in one go."""
        if torch.compiler.is_compiling():
            _apply_uncompiled(self, grads, trainable_variables)
            return
        with self._own.lock:
            self._apply(grads, trainable_variables)

    def _apply(self, grads: Any, trainable_variables: Any) -> None:
        plan = self._own.plans.get("last")
        if (
            plan is None
            or self.use_ema
            or self.gradient_accumulation_steps
            or self.loss_scale_factor is not None
            or self._own.rule.guarded
            or in_stateless_scope()
            or self._treated() is not plan.rule
            or not plan.take(grads, trainable_variables or self._trainable_variables)
        ):
            super().apply(grads, trainable_variables)
            return
        steps = self._iterations._value
        t = steps.item() + 1
        plan.step(t, self._rate())
        steps.fill_(t)
        for variable, constraint in zip(plan.variables, map(_constraint, plan.variables), strict=True):
            if constraint is not None:
                variable.assign(constraint(variable))

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        with torch.no_grad():
            plan = None if in_stateless_scope() else self._plan(grads, trainable_variables)
            if plan is None:
                super()._backend_update_step(grads, trainable_variables, learning_rate)
            else:
                plan.step(int(self.iterations) + 1, self._rate())

    def _plan(self, grads: Sequence[Any], variables: Sequence[Any]) -> "Plan | None":
        """The plan for these gradients, which it has taken; None where there is no kernel for them."""
        if len(grads) != len(variables):
            raise ValueError(f"{type(self).__name__}: {len(grads)} gradients for {len(variables)} variables")
        own, rule = self._own, self._treated()
        key = (*map(id, variables), *(getattr(g, "dtype", None) for g in grads))
        plan = own.plans.get(key)
        if plan is None or not plan.take(grads, variables):
            plan = self._prepare(rule, variables, grads)
            if plan is None:
                return None
            if len(own.plans) > _PLANS:
                own.plans.clear()
            own.plans[key] = plan
        own.plans["last"] = plan
        return plan

    def _prepare(self, rule: Rule, variables: Sequence[Any], grads: Sequence[Any]) -> "Plan | None":
        own = self._own
        indices = [self._get_variable_index(v) for v in variables]
        slots = [[own.slots[slot][i] for i in indices] for slot in trace(rule).slots]
        tensors = [list(map(_tensor, column)) for column in (variables, *slots)]
        if not has_kernel(itertools.chain(grads, *tensors)):
            return None
        if not all(x.is_cpu for x in map(_tensor, (self._iterations, *own.scalars.values()))):
            return None
        decays = [self._use_weight_decay(v) for v in variables]
        return Plan(rule, [variables, *slots], [self._iterations, *own.scalars.values()], grads, decays)

    def _rate(self) -> float:
        """The learning rate of this step."""
        rate = self._learning_rate
        if isinstance(rate, Scheduled):
            return float(rate.schedule(self._iterations._value.item() + 1))
        value = getattr(rate, "_value", None)
        return float(self._get_current_learning_rate() if value is None else value.item())


# A kernel call is nothing that torch could compile.
_apply_uncompiled = torch.compiler.disable(FusedOptimizer.apply)  # type: ignore[no-untyped-call]


class Plan:
    """Variables that are stepped together, on a table of where they are.

    Args:
        rule: the rule within its treatments.
        columns: the variables, then those of each of the program's slots in order.
        numbers: the variable of the number of steps taken, and of each slot that is one number.
        grads: this step's gradients.
        decays: whether weight decay acts on each variable.

    Raises:
        ValueError: a tensor does not fit, or its storage does not hold it.
    """

    def __init__(
        self,
        rule: Rule,
        columns: Sequence[Sequence[Any]],
        numbers: Sequence[Any],
        grads: Sequence[Tensor],
        decays: Sequence[bool],
    ) -> None:
        self.rule, self._program = rule, trace(rule)
        self.variables, self._slots = columns[0], columns[1:]
        self._numbers = numbers
        # A second row of scalars, without decay, for the variables that are excluded from it.
        self._undecayed = {} if all(decays) else {n: 0.0 for n in DECAYS if n in rule.hyperparameters}
        self._row_of = np.array([int(bool(self._undecayed) and not d) for d in decays], np.int64)
        self._table = Table(TENSORS, self._program, self._columns(grads), self._name)

    def take(self, grads: Sequence[Any], variables: Sequence[Any]) -> bool:
        """Note where this step's gradients are; False where anything is not as it was."""
        return (
            len(grads) == len(variables) == len(self.variables)
            and all(map(is_, variables, self.variables))
            and self._table.holds(self._columns(grads))
        )

    def step(self, t: int, rate: float) -> None:
        """Take step `t` (from 1) with the gradients noted, at this learning rate."""
        team = torch.get_num_threads()
        try:
            values = self.rule.values_at(t)
            if "lr" in values:
                values = {**values, "lr": rate}
            state = dict(zip(self._program.scalar_slots, map(_item, self._numbers[1:]), strict=True))
            given = {"t": t, **state, **values}
            rows = [given, {**given, **self._undecayed}] if self._undecayed else [given]
            whole = self._program.measure([partial(self._table.measure, self._row_of, rows, team)])
            scalars, news = zip(*(self._program.scalar_function(**row, **whole) for row in rows), strict=True)
            self._table.step(self._row_of, scalars, team)
        finally:
            self._table.release()
        for variable, value in zip(self._numbers[1:], news[0], strict=True):
            variable._value.fill_(value)

    def _columns(self, grads: Sequence[Any]) -> list[Sequence[Any]]:
        p, *slots = (list(map(_tensor, column)) for column in (self.variables, *self._slots))
        return [p, grads, *slots]

    def _name(self, row: int, place: int) -> str:
        variable = self.variables[place].path
        if row == 1:
            return f"the gradient of {variable}"
        return f"{self._slots[row - 2][place].path}, state of {variable}," if row else variable


def _item(variable: Any) -> float:
    return variable._value.item()  # type: ignore[no-any-return]
