"""One optimizer for every rule: parameter groups, state and steps as `torch.optim` has them."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from operator import is_
from typing import Any, ClassVar

import torch
from torch import Tensor

from thalweg.errors import nearest
from thalweg.program import Program, trace
from thalweg.rule import Rule
from thalweg.torch.lanes import (
    EagerLane,
    KernelLane,
    Lane,
    Member,
    Numbers,
    StaleError,
    States,
    has_kernel,
    is_dense,
)
from thalweg.torch.loading import SCHEDULER_KEYS, load

# Without torch's wrapper, whose first call imports torch's compiler: most of a second, for nothing.
_add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)

# How many patterns of absent gradients to remember (alternating losses, experts).
_PLANS = 8


class BaseOptimizer(torch.optim.Optimizer):
    """What all optimizers share. Subclasses say which rule a parameter group means.

    Attributes:
        slot_names: torch's names of the rule's slots.
        takes_sparse: whether a sparse gradient means the same as a dense one with zeros.
        starts_at_once: whether state exists before the first step, as torch's Adagrad has it.
    """

    slot_names: ClassVar[Mapping[str, str]] = {}
    takes_sparse: ClassVar[bool] = False
    starts_at_once: ClassVar[bool] = False

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self._reset()
        if defaults.get("dialect") == "torch":  # as torch writes it
            del defaults["dialect"]
        super().__init__(params, defaults)

    def rule_of(self, group: Mapping[str, Any]) -> Rule:
        """The rule that a parameter group's settings mean."""
        raise NotImplementedError

    # -- parameter groups ------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, as in `torch.optim.Optimizer`.

        Raises:
            ValueError: an unknown setting, or a value outside its range.
            TypeError: a parameter that is complex or not floating-point.
        """
        if isinstance(param_group, dict):
            known = (*self.defaults, "params", "param_names", *SCHEDULER_KEYS)
            for key in param_group:
                if key not in known:
                    raise ValueError(
                        f"{type(self).__name__}: unknown setting {key!r} in a parameter group; "
                        f"{nearest(str(key), self.defaults)}"
                    )
        _add_param_group(self, param_group)
        try:
            self._check_group(self.param_groups[-1])
        except Exception:
            self.param_groups.pop()
            raise
        self._reset()
        if self.starts_at_once:
            self._start()

    def _start(self) -> None:
        owners = [(p, group) for group in self.param_groups for p in group["params"]]
        for index, (p, group) in enumerate(owners):
            self._prepare(p, index, self.rule_of(group))

    def _check_group(self, group: dict[str, Any]) -> None:
        for name in ("differentiable", "capturable"):
            if group.get(name):
                raise ValueError(f"{type(self).__name__}: {name}=True is not supported; leave it False")
        self.rule_of(group)
        for p in group["params"]:
            if not p.is_floating_point():
                kind = "complex" if p.is_complex() else str(p.dtype)
                raise TypeError(
                    f"{type(self).__name__} updates real floating-point parameters, not {kind} ones"
                )

    def _reset(self) -> None:
        """Forget what was prepared for the step; it is prepared anew from the state."""
        self._plans: dict[Any, _Plan] = {}
        self._rules: list[tuple[list[Any], Rule, Program]] = []
        self._numbers: dict[str, Numbers] = {}
        self._params: list[Tensor] = []
        self._seen = (0, 0, 0)

    def _rule(self, index: int) -> tuple[Rule, Program]:
        """The rule and program of a group, made anew when a setting has changed."""
        group = self.param_groups[index]
        now = [
            v.tolist() if isinstance(v, Tensor) else v
            for k, v in group.items()
            if k != "params" and k != "param_names"
        ]
        if index < len(self._rules) and self._rules[index][0] == now:
            return self._rules[index][1:]
        rule = self.rule_of(group)
        entry = (now, rule, trace(rule))
        if index < len(self._rules):
            if self._rules[index][2] is not entry[2]:
                self._plans.clear()
            self._rules[index] = entry
        else:
            self._rules.append(entry)
        return entry[1:]

    # -- the step --------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step with the gradients in `.grad`; parameters without one stay.

        Args:
            closure: computes the loss and its gradients anew; called once, before the step.

        Returns:
            what the closure returned, or None.

        Raises:
            RuntimeError: a sparse gradient where the rule means something else for it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        rules = [self._rule(i) for i in range(len(self.param_groups))]
        params = [p for group in self.param_groups for p in group["params"]]
        if not isinstance(self.state, States):
            self.state = States(self.state)
        known = len(params) == len(self._params) and all(map(is_, params, self._params))
        if not known or self._seen != (id(self.state), self.state.changes, len(self.state)):
            self._reset()  # someone has put other parameters into a group, or touched the state
            self._params = params
        grads = [p.grad for p in params]
        try:
            plan = self._plan(rules, grads)
            plan.take(grads)
        except (StaleError, RuntimeError):  # RuntimeError: a sparse tensor has no address
            self._plans.clear()
            grads = [self._dense(g) for g in grads]
            plan = self._plan(rules, grads)
            plan.take(grads)
        plan.step([rule for rule, _ in rules])
        self._seen = id(self.state), self.state.changes, len(self.state)
        return loss

    def _dense(self, grad: Tensor | None) -> Tensor | None:
        if grad is None or grad.layout == torch.strided:
            return grad
        if not self.takes_sparse:
            raise RuntimeError(
                f"{type(self).__name__} does not take sparse gradients: a row without a gradient would "
                "have to keep its momentum. Use SGD or Adagrad, or dense embeddings (sparse=False)."
            )
        return grad.to_dense()

    def _plan(self, rules: Sequence[tuple[Rule, Program]], grads: Sequence[Tensor | None]) -> "_Plan":
        absent = tuple(g is None for g in grads)
        plan = self._plans.get(absent)
        if plan is None:
            if len(self._plans) >= _PLANS:
                self._plans.pop(next(iter(self._plans)))
            plan = self._plans[absent] = _Plan(self, rules, grads)
        return plan

    def _prepare(self, p: Tensor, index: int, rule: Rule) -> dict[str, Any]:
        """A parameter's state, with every slot of the rule in place, laid out as its parameter is."""
        state: dict[str, Any] = self.state[p]
        program = trace(rule)
        initial = rule.initial_state()
        # torch's SGD keeps no step number: with a velocity, the first step is over.
        begun = any(state.get(self.key(slot)) is not None for slot in program.slots)
        self._hold(state, index, "step", float(begun), torch.float32)
        for slot in program.scalar_slots:
            self._hold(state, index, self.key(slot), initial[slot], torch.float64)
        for slot in program.slots:
            key = self.key(slot)
            held = state.get(key)
            if held is None:
                state[key] = torch.full_like(p, initial[slot], memory_format=_layout(p))
            elif held.shape != p.shape:
                raise ValueError(
                    f"{type(self).__name__}: {key} has shape {tuple(held.shape)}, "
                    f"its parameter {tuple(p.shape)}"
                )
            elif held.stride() != p.stride() if is_dense(p) else not held.is_contiguous():
                state[key] = torch.empty_like(p, dtype=held.dtype, memory_format=_layout(p)).copy_(held)
        return state

    def _hold(self, state: dict[str, Any], index: int, key: str, initial: float, dtype: torch.dtype) -> None:
        """Keep one of a parameter's numbers beside the other parameters'."""
        if key not in self._numbers:
            count = sum(len(group["params"]) for group in self.param_groups)
            self._numbers[key] = Numbers(count, dtype)
        numbers = self._numbers[key]
        held = state.get(key)
        if held is not numbers.views[index]:
            numbers.array[index] = initial if held is None else float(held)
            state[key] = numbers.views[index]

    def key(self, slot: str) -> str:
        """The name of a slot in `state`."""
        return self.slot_names.get(slot, slot)

    # -- state -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Settings and state, as `torch.optim`'s own optimizer of that name writes them."""
        written = super().state_dict()
        # Step numbers live side by side in one tensor; each is written as a tensor of its own.
        written["state"] = {
            k: {n: x.clone() if isinstance(x, Tensor) and x.dim() == 0 else x for n, x in v.items()}
            for k, v in written["state"].items()
        }
        return written

    def load_state_dict(self, state_dict: Mapping[str, Any], *, strict: bool = True) -> None:
        """Load what `state_dict` of this class or of its torch.optim namesake wrote.

        Parameters are matched by name where both sides have names, by position otherwise. Dtypes are
        kept, tensors are copied. Nothing is changed unless everything fits.

        Args:
            state_dict: as `state_dict` returns it.
            strict: whether missing or unknown parameters, slots and settings are errors; if not,
                what fits is loaded and the rest starts anew.

        Raises:
            ValueError: it does not fit; the message names what.
        """
        load(self, state_dict, strict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # torch keeps settings and state; plans hold addresses and are made anew.
        super().__setstate__(state)
        self._reset()


class Optimizer(BaseOptimizer):
    """Any rule as a `torch.optim.Optimizer`.

    Parameter groups hold the rule's hyperparameters under their own names, and may override them.

    Args:
        params: parameters, named parameters or parameter groups, as in `torch.optim`.
        rule: a rule, within treatments or not, with schedules or not.

    Raises:
        TypeError: `rule` is not a rule.
        ValueError: an unknown or inadmissible setting in a parameter group.
    """

    def __init__(self, params: Any, rule: Rule) -> None:
        if not isinstance(rule, Rule):
            raise TypeError(f"Optimizer takes a rule, such as thalweg.get('adam'); got {rule!r}")
        self.rule = rule
        super().__init__(params, dict(rule.values))

    def rule_of(self, group: Mapping[str, Any]) -> Rule:
        """The optimizer's rule, with the group's hyperparameters."""
        values = {name: group[name] for name in self.rule.values}
        return self.rule.replaced(**{k: float(v) if isinstance(v, Tensor) else v for k, v in values.items()})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "rule": self.rule}


class _Plan:
    """The lanes of one pattern of present gradients."""

    def __init__(
        self,
        optimizer: BaseOptimizer,
        rules: Sequence[tuple[Rule, Program]],
        grads: Sequence[Tensor | None],
    ) -> None:
        owners = [(p, i) for i, group in enumerate(optimizer.param_groups) for p in group["params"]]
        self.present = [i for i, g in enumerate(grads) if g is not None]
        self.all_present = len(self.present) == len(grads)
        sorted_in: dict[Any, list[tuple[int, Member]]] = {}
        for place, index in enumerate(self.present):
            p, group = owners[index]
            rule, program = rules[group]
            member = Member(p, optimizer._prepare(p, index, rule), group, index)
            tensors = [p, grads[index], *member.slots(optimizer.key(s) for s in program.slots)]
            form = tuple(x.dtype for x in tensors) if has_kernel(tensors) else None
            sorted_in.setdefault((id(program), form), []).append((place, member))
        self.lanes: list[tuple[list[int], Lane]] = []
        for (_, form), found in sorted_in.items():
            members = [member for _, member in found]
            program = rules[members[0].group][1]
            keys = [optimizer.key(s) for s in program.slots]
            inner = KernelLane(program, members, keys, form) if form else EagerLane(program, members, keys)
            numbers = ["step", *(optimizer.key(s) for s in program.scalar_slots)]
            lane = Lane(inner, program, members, optimizer._numbers, numbers)
            self.lanes.append(([place for place, _ in found], lane))
        self.guarded = any(rule.guarded for rule, _ in rules)
        self.needs_norms = self.guarded or any({"norm", "global_norm"} & {*rule.inputs} for rule, _ in rules)

    def take(self, grads: Sequence[Any]) -> None:
        """Note this step's gradients. Raises StaleError where something else has moved."""
        present = grads if self.all_present else [grads[i] for i in self.present]
        for places, lane in self.lanes:
            lane.take(present if len(self.lanes) == 1 else [present[i] for i in places])

    def step(self, rules: Sequence[Rule]) -> None:
        """Take the step, or none where a guard forbids it."""
        threads = torch.get_num_threads()
        square = sum(lane.inner.norms(threads) for _, lane in self.lanes) if self.needs_norms else 0.0
        if self.guarded and not math.isfinite(square):
            return
        for _, lane in self.lanes:
            lane.prepare(rules, math.sqrt(square))
        for _, lane in self.lanes:
            lane.step(threads)


def _layout(p: Tensor) -> torch.memory_format:
    return torch.preserve_format if is_dense(p) else torch.contiguous_format
