"""The step on Keras's torch back end: one kernel call on the variables' own tensors.

Between steps only gradients move. A plan keeps the kernel's table, makes sure at each step that nothing
else has moved, and leaves everything unusual to Keras's own way through `apply`.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from operator import attrgetter, is_
from typing import Any

import numpy as np
import torch
from keras.src.backend.common.stateless_scope import in_stateless_scope
from torch import Tensor

from thalweg.keras.base import DECAYS, ArrayOptimizer
from thalweg.keras.scheduled import Scheduled
from thalweg.kernels import threads
from thalweg.kernels.cpu import Batch
from thalweg.program import trace
from thalweg.rule import Rule
from thalweg.sources import DTYPES

_DTYPES = {getattr(torch, name): name for name in DTYPES}
threads.look_again()  # torch, imported above, brings OpenMP threads

_tensor = attrgetter("_value")
_constraint = attrgetter("_constraint")
_look = attrgetter("dtype", "shape", "is_cpu")
# How many sets of variables with a gradient to remember (alternating losses, experts).
_PLANS = 8


class FusedOptimizer(ArrayOptimizer):
    """A rule as a Keras optimizer that steps by a fused kernel where the tensors allow it."""

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Take one step; as Keras's `apply`, of which the common case is done here in one go."""
        if torch.compiler.is_compiling():
            _apply_uncompiled(self, grads, trainable_variables)
            return
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
        own, rule = self._own, self._treated()
        key = (*map(id, variables), *(getattr(g, "dtype", None) for g in grads))
        plan = own.plans.get(key)
        if plan is None or not plan.take(grads, variables):
            plan = self._prepare(rule, variables, grads)
            if plan is None or not plan.take(grads, variables):
                return None
            if len(own.plans) > _PLANS:
                own.plans.clear()
            own.plans[key] = plan
        own.plans["last"] = plan
        return plan

    def _prepare(self, rule: Rule, variables: Sequence[Any], grads: Sequence[Any]) -> "Plan | None":
        own = self._own
        indices = [self._get_variable_index(v) for v in variables]
        columns = [[own.slots[slot][i] for i in indices] for slot in trace(rule).slots]
        tensors = [list(map(_tensor, of_slot)) for of_slot in (variables, *columns)]
        readable = all(map(_has_kernel, itertools.chain(grads, *tensors)))
        plain = readable and all(x.is_contiguous() for of_slot in tensors[1:] for x in of_slot)
        alike = plain and all(g.shape == p.shape for g, p in zip(grads, tensors[0], strict=True))
        numbers = map(_tensor, (self._iterations, *own.scalars.values()))
        if not (alike and all(x.is_cpu for x in numbers)):
            return None
        decays = [self._use_weight_decay(v) for v in variables]
        return Plan(rule, [variables, *columns], own.scalars, grads, decays)

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
    """Variables that are stepped together, on tables of where they are.

    Args:
        rule: the rule within its treatments.
        columns: the variables, then those of each of the program's slots in order.
        scalars: the variable of each slot that is one number.
        grads: gradients like those to come.
        decays: whether weight decay acts on each variable.
    """

    def __init__(
        self,
        rule: Rule,
        columns: Sequence[Sequence[Any]],
        scalars: Mapping[str, Any],
        grads: Sequence[Tensor],
        decays: Sequence[bool],
    ) -> None:
        self.rule, self.program = rule, trace(rule)
        self.variables = columns[0]
        self.scalars = scalars
        self.needs_norms = bool({"norm", "global_norm"} & {*rule.inputs})
        self.spared = {} if all(decays) else {n: 0.0 for n in DECAYS if n in rule.hyperparameters}
        self._all = list(itertools.chain(*columns))
        self._tensors = list(map(_tensor, self._all))
        self._addresses = list(map(Tensor.data_ptr, self._tensors))
        self._strides = list(map(Tensor.stride, self._tensors))
        self.params = self._tensors[: len(self.variables)]
        self._looks = [_look(g) for g in grads]
        self._grads: list[Tensor] = []
        # A variable that is not contiguous is stepped in a copy that is.
        strided = [p.detach() for p in self.params if not p.is_contiguous()]
        self.copies = [(p, torch.empty(p.shape, dtype=p.dtype)) for p in strided]
        copies = {p.data_ptr(): copy for p, copy in self.copies}
        self.lanes: list[tuple[list[int], Batch]] = []
        for form, places in self._forms(columns, grads).items():
            batch = Batch(self.program, form, [self.params[i].numel() for i in places])
            for row, column in enumerate(columns):
                found = [_tensor(column[i]) for i in places]
                batch.addresses[row + (row > 0)] = [copies.get(x.data_ptr(), x).data_ptr() for x in found]
            batch.rows[:] = [int(bool(self.spared) and not decays[i]) for i in places]
            batch.scalars = np.empty((2 if self.spared else 1, len(self.program.kernel_scalars)))
            self.lanes.append((places, batch))

    @staticmethod
    def _forms(columns: Sequence[Sequence[Any]], grads: Sequence[Tensor]) -> dict[tuple[str, ...], list[int]]:
        """The places of the variables of each set of dtypes: of variable, gradient and slots."""
        forms: dict[tuple[str, ...], list[int]] = {}
        for i, (grad, of_variable) in enumerate(zip(grads, zip(*columns, strict=True), strict=True)):
            p, *slots = (_DTYPES[_tensor(v).dtype] for v in of_variable)
            forms.setdefault((p, _DTYPES[grad.dtype], *slots), []).append(i)
        return forms

    def take(self, grads: Sequence[Any], variables: Sequence[Any]) -> bool:
        """Note where this step's gradients are; False where anything is not as it was."""
        try:
            looks = list(map(_look, grads))
            addresses = list(map(Tensor.data_ptr, grads))
        except (AttributeError, TypeError, RuntimeError):  # None, another library's array, a sparse tensor
            return False
        if not (
            looks == self._looks
            and len(variables) == len(self.variables)
            and all(map(is_, variables, self.variables))
            and all(map(is_, map(_tensor, self._all), self._tensors))
            and list(map(Tensor.data_ptr, self._tensors)) == self._addresses
            and list(map(Tensor.stride, self._tensors)) == self._strides
        ):
            return False
        if not all(map(Tensor.is_contiguous, grads)):
            self._grads = [g.contiguous() for g in grads]  # kept until the step is done
            addresses = list(map(Tensor.data_ptr, self._grads))
        for places, batch in self.lanes:
            batch.addresses[1] = addresses if len(self.lanes) == 1 else [addresses[i] for i in places]
        return True

    def step(self, t: int, rate: float) -> None:
        """Take step `t` (from 1) with the gradients noted, at this learning rate."""
        team, global_norm = torch.get_num_threads(), 0.0
        if self.needs_norms:
            squares = 0.0
            for _, batch in self.lanes:
                of_tensors = batch.squared_norms(team)
                batch.norms[:] = np.sqrt(of_tensors)
                squares += float(of_tensors.sum())
            global_norm = math.sqrt(squares)
        values = self.rule.values_at(t)
        if "lr" in values:
            values = {**values, "lr": rate}
        state = {slot: variable._value.item() for slot, variable in self.scalars.items()}
        told, new = self.program.scalar_function(t=t, global_norm=global_norm, **state, **values)
        rows = [told]
        if self.spared:
            values = {**values, **self.spared}
            rows.append(self.program.scalar_function(t=t, global_norm=global_norm, **state, **values)[0])
        for p, copy in self.copies:
            copy.copy_(p)
        for _, batch in self.lanes:
            batch.scalars[:] = rows
            batch.step(team)
        for p, copy in self.copies:
            p.copy_(copy)
        for variable, value in zip(self.scalars.values(), new, strict=True):
            variable._value.fill_(value)
        # Autograd learns that variables changed, as from any in-place operation.
        torch.autograd.graph.increment_version(self.params)


def _has_kernel(x: Any) -> bool:
    """Whether a CPU kernel reads it: a plain, strided tensor on the CPU, of a known dtype."""
    return (
        type(x) in (Tensor, torch.nn.Parameter)
        and x.is_cpu
        and x.layout == torch.strided
        and x.dtype in _DTYPES
    )
