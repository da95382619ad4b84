"""One optimizer for every rule: parameter groups, state and steps as `torch.optim` has them."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from operator import is_
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from thalweg.kernels.threads import lock
from thalweg.kernels.torch_tensors import is_dense
from thalweg.program.tracing import Program, trace
from thalweg.rule import Rule
from thalweg.torch import differentiable
from thalweg.torch.groups import check_keys, check_tensors
from thalweg.torch.loading import load, number_dtype, save
from thalweg.torch.plan import NUMBERS, Member, Members, Numbers, Plan, check_step, described, one_number

# Without torch's wrapper, whose first call imports torch's compiler: most of a second, for nothing.
_add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)

# What torch.compile calls for each function that starts, within a compiled one: None otherwise. Were it to
# compile a step, it would take tables of addresses for tensors, and kernels would write where they once lay.
_compiling = torch._C._dynamo.eval_frame.get_eval_frame_callback

# How many patterns of absent gradients to remember (alternating losses, experts).
_PLANS = 8


class BaseOptimizer(torch.optim.Optimizer):
    """What all optimizers share. Subclasses say which rule a parameter group means.

    Attributes:
        slot_names: torch's names of the rule's slots.
        keeps_step: whether `state` holds each parameter's step number; torch's SGD has none.
        takes_sparse: whether a sparse gradient means the same as a dense one with zeros.
        starts_at_once: whether state exists before the first step, as torch's Adagrad has it.
    """

    slot_names: ClassVar[Mapping[str, str]] = {}
    keeps_step: ClassVar[bool] = True
    takes_sparse: ClassVar[bool] = False
    starts_at_once: ClassVar[bool] = False

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self._lock = lock()
        self._reset()
        self._home: Any = None
        if defaults.get("dialect") == "torch":  # as torch writes it
            del defaults["dialect"]
        super().__init__(params, defaults)
        self._home = self.state

    def rule_of(self, group: Mapping[str, Any]) -> Rule:
        """The rule that a parameter group's settings mean."""
        raise NotImplementedError

    # -- parameter groups ------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, as in `torch.optim.Optimizer`.

        Keys of the user's own, such as `lr_scale`, are kept there, and saved. Parameters that are not
        floating-point cannot have a gradient and are passed over. One that a group lists twice, of which
        torch warns, takes two steps in turn; the first velocity of torch's own SGD is of the second alone.

        Raises:
            ValueError: a key that is nearly a setting, or a value outside its range.
        """
        if isinstance(param_group, dict):
            check_keys(type(self).__name__, param_group, self.defaults)
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
            if is_dense(p):
                rule = self.rule_of(group)
                self._count(p, index, rule)
                self._fill(p, rule)

    def _check_group(self, group: dict[str, Any]) -> None:
        if group.get("capturable"):
            raise ValueError(f"{type(self).__name__}: capturable=True is not supported; leave it False")
        check_tensors(type(self).__name__, group)
        self.rule_of(group)

    def _reset(self) -> None:
        """Forget what was prepared for the step; it is prepared anew from the state."""
        self._plans: dict[Any, Plan] = {}
        self._rules: list[_Known] = []
        self._numbers: dict[str, Numbers] = {}
        self._params: list[Tensor] = []
        self._sizes: list[int] = []
        self._states: list[Any] = []

    def _rule(self, index: int) -> tuple[Rule, Program]:
        """The rule and program of a group, made anew when a setting has changed."""
        group = self.param_groups[index]
        values = [*group.values()]
        known = self._rules[index] if index < len(self._rules) else None
        if known and known.lasting and _same(values, known.values):
            return known.rule, known.program
        noted = [_noted(v) for k, v in group.items() if k != "params" and k != "param_names"]
        if known and noted == known.noted:
            known.values = values
            return known.rule, known.program
        rule = self.rule_of(group)
        settings = [v for k, v in group.items() if k != "params" and k != "param_names"]
        entry = _Known(values, noted, all(map(_is_lasting, settings)), rule, trace(rule))
        if known:
            if known.program is not entry.program:
                self._plans.clear()
            self._rules[index] = entry
        else:
            self._rules.append(entry)
        return rule, entry.program

    # -- the step --------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step with the gradients in `.grad`; parameters without one stay.

        Args:
            closure: computes the loss and its gradients anew; called once, before the step.

        Returns:
            what the closure returned, or None.

        Raises:
            RuntimeError: a sparse gradient where the rule means something else for it.
            ValueError: a parameter, gradient or state tensor whose shape does not fit, or whose storage does
                not hold it.
        """
        if _compiling() is not None:
            return self._uncompiled_step(closure)
        # torch wraps the `step` of its optimizers in a profiler's record and in hooks, which takes longer
        # than many a step. Here that is done where someone is listening.
        listening = (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
            or torch._C._autograd._profiler_enabled()
        )
        if listening and type(self).step is BaseOptimizer.step:  # a subclass's own is wrapped by torch
            return _observed(self, closure) if closure is not None else _observed(self)
        return self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]  # so torch leaves it as it is

    @_disable_dynamo
    def _uncompiled_step(self, closure: Callable[[], Any] | None) -> Any:
        return self.step(closure)

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        with self._lock:  # what is prepared for one step is not for another thread's
            lists = [group["params"] for group in groups]
            params, sizes = [*chain.from_iterable(lists)], [*map(len, lists)]
            if not (
                _same(params, self._params)
                and sizes == self._sizes
                and _same([*self.state, *self.state.values()], self._states)
            ):
                self._reset()  # someone has put other parameters into a group, or other state
                self._params, self._sizes = params, sizes
            if self.defaults.get("differentiable"):
                differentiable.step(self)
                return loss
            rules = [self._rule(i) for i in range(len(groups))]
            grads = [p.grad for p in params]
            absent = tuple(map(is_, grads, repeat(None)))
            plan = self._plans.get(absent)
            if plan is None or not plan.take(grads):
                if len(self._plans) >= _PLANS:
                    self._plans.clear()
                with self._untouched():
                    plan = self._plans[absent] = self._plan(rules, grads)
                self._states = [*self.state, *self.state.values()]
            plan.step([rule for rule, _ in rules])
        return loss

    def _dense(self, grad: Tensor, index: int) -> Tensor:
        if grad.layout == torch.strided:
            return grad
        if not self.takes_sparse:
            raise RuntimeError(
                f"{type(self).__name__} does not take sparse gradients; that of {self._named(index)} is: "
                "a row without one would have to keep its momentum. Use SGD or Adagrad, or dense "
                "embeddings (sparse=False)."
            )
        return grad.to_dense()

    @contextmanager
    def _untouched(self) -> Iterator[None]:
        """Within: an error leaves the state as it was."""
        before = {key: {**held} if isinstance(held, dict) else held for key, held in self.state.items()}
        try:
            yield
        except Exception:
            for key, held in [*self.state.items()]:
                if key not in before:
                    del self.state[key]
                elif isinstance(held, dict):
                    held.clear()
                    held.update(before[key])
            raise

    @torch.no_grad()
    def _members(
        self, rules: Sequence[Rule], grads: Sequence[Tensor | None]
    ) -> list[tuple[int, int, Member, Tensor]]:
        """The parameters that have a gradient, with all of their state in place.

        Returns:
            for each its turn (a parameter that is listed twice is stepped twice), its place among all, itself
            and its gradient.
        """
        if torch._C._functorch.peek_interpreter_stack() is not None:
            raise RuntimeError(
                f"{type(self).__name__}: no step is prepared within torch.func's transforms, such as "
                "grad and vmap, whose tensors have no memory; take it outside of them"
            )
        owners = [(p, i) for i, group in enumerate(self.param_groups) for p in group["params"]]
        listed: dict[Tensor, list[int]] = {}
        found = []
        for index, ((p, group), held) in enumerate(zip(owners, grads, strict=True)):
            places = listed.setdefault(p, [])
            places.append(index)
            self._part_numbers(self.state.get(p, {}), places[0])
            if held is None:
                continue
            if not is_dense(p):
                raise TypeError(
                    f"{type(self).__name__} updates dense parameters of {NUMBERS}; "
                    f"{self._named(index)} is {described(p)}, and has a gradient"
                )
            found.append((len(places) - 1, index, p, places[0], group, self._dense(held, index)))
        # First all numbers, then the slots: those that are there tell that a velocity has begun.
        for _, _, p, first, group, _ in found:
            self._count(p, first, rules[group])
        return [
            (turn, index, Member(p, self._fill(p, rules[group]), group, first), grad)
            for turn, index, p, first, group, grad in found
        ]

    def _plan(self, rules: Sequence[tuple[Rule, Program]], grads: Sequence[Tensor | None]) -> Plan:
        found: dict[tuple[int, int], list[tuple[int, Member, Tensor]]] = {}
        for turn, index, member, grad in self._members([rule for rule, _ in rules], grads):
            program = rules[member.group][1]
            found.setdefault((turn, id(program)), []).append((index, member, grad))
        turns: dict[int, list[tuple[list[int], Members]]] = {}
        for (turn, _), of_program in found.items():
            places, members, given = map(list, zip(*of_program, strict=True))
            program = rules[members[0].group][1]
            keys = [self.key(slot) for slot in program.slots]
            numbers: list[tuple[str | None, Numbers]] = [
                ("step" if self.keeps_step else None, self._numbers["step"]),
                *((self.key(slot), self._numbers[self.key(slot)]) for slot in program.scalar_slots),
            ]
            part = Members(program, members, given, numbers, keys, partial(self._called, keys))
            turns.setdefault(turn, []).append((places, part))
        return Plan(turns.values())

    def _called(self, keys: Sequence[str], row: int, index: int) -> str:
        """What to call a parameter (row 0), its gradient (1) or what is in its state, in an error."""
        of = ["", "the gradient of ", *(f"{key!r} in the state of " for key in keys)][row]
        return f"{type(self).__name__}: {of}{self._named(index)}"

    def _named(self, index: int) -> str:
        """What to call a parameter, by its place among all."""
        names = [n for g in self.param_groups for n in g.get("param_names", [None] * len(g["params"]))]
        return f"parameter {index if names[index] is None else repr(names[index])}"

    def _count(self, p: Tensor, index: int, rule: Rule) -> None:
        """Put the numbers of a parameter's state in place: its step number and scalar slots."""
        program, initial = trace(rule), rule.initial_state()
        state: dict[str, Any] = self.state.get(p, {})
        # torch's SGD keeps no step number: with a velocity, the first step is over.
        begun = any(state.get(self.key(slot)) is not None for slot in program.slots)
        kept = state if self.keeps_step else {}
        self._hold(kept, index, "step", float(begun), number_dtype())
        for slot in program.scalar_slots:
            dtype = number_dtype() if slot in self.slot_names else torch.float64
            self._hold(state, index, self.key(slot), initial[slot], dtype)
        if state and p not in self.state:
            self.state[p] = state

    def _fill(self, p: Tensor, rule: Rule) -> dict[str, Any]:
        """A parameter's state, with every slot of the rule in place."""
        program, initial = trace(rule), rule.initial_state()
        state: dict[str, Any] = self.state.get(p, {})
        for slot in program.slots:
            if state.get(self.key(slot)) is None:
                state[self.key(slot)] = _filled(p, initial[slot])
        if state and p not in self.state:
            self.state[p] = state
        return state

    def _part_numbers(self, state: dict[str, Any], index: int) -> None:
        """Give a parameter numbers of its own where its state holds those of another one."""
        for key, numbers in self._numbers.items():
            held = state.get(key)
            if held is not None and numbers.are_at(held, index):
                state[key] = held.clone()

    def _hold(self, state: dict[str, Any], index: int, key: str, initial: float, dtype: torch.dtype) -> None:
        """Keep one of a parameter's numbers beside the other parameters'."""
        if key not in self._numbers:
            count = sum(len(group["params"]) for group in self.param_groups)
            self._numbers[key] = Numbers(count, dtype)
        held = state.get(key)
        try:
            number = initial if held is None else one_number(held)
        except ValueError as error:
            raise ValueError(f"{self._called([key], 2, index)} {error}") from None
        if key == "step":
            check_step(number, partial(self._called, [], 0, index))
        # Torch's `swap_in_optimizer_params_and_state` lends another dictionary of state.
        lent = self.state is not self._home
        state[key] = self._numbers[key].hold(index, held, number, lent)

    def key(self, slot: str) -> str:
        """The name of a slot in `state`."""
        return self.slot_names.get(slot, slot)

    # -- state -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Settings and state, as `torch.optim`'s own optimizer of that name writes them."""
        return save(self)

    def load_state_dict(self, state_dict: Mapping[str, Any], *, strict: bool = True) -> None:
        """Load what `state_dict` of this class or of its torch.optim namesake wrote.

        Parameters are matched by name where both sides have names, by position otherwise. Dtypes are
        kept, tensors are copied; so are entries of the user's own, in parameter groups and in state.
        Nothing is changed unless everything fits.

        Args:
            state_dict: as `state_dict` returns it.
            strict: whether missing or unknown parameters, and slots and settings of another rule, are
                errors; if not, what fits is loaded and the rest starts anew.

        Raises:
            ValueError: it does not fit; the message names what.
        """
        with self._lock:
            load(self, state_dict, strict)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # torch keeps settings and state; plans hold addresses and are made anew.
        super().__setstate__(state)
        self._lock = lock()
        self._home = self.state
        self._reset()


_observed = torch.optim.Optimizer.profile_hook_step(BaseOptimizer._step)


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


@dataclass
class _Known:
    """The rule that a parameter group's settings mean.

    Attributes:
        values: all that the group holds.
        noted: its settings, to compare later.
        lasting: whether none of them can be changed in place.
    """

    values: list[Any]
    noted: list[Any]
    lasting: bool
    rule: Rule
    program: Program


def _is_lasting(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_lasting, value))
    return value is None or isinstance(value, bool | int | float | str) or callable(value)


def _noted(value: Any) -> Any:
    """A setting, to compare later: tensors may be changed in place."""
    if isinstance(value, tuple | list):
        return [*map(_noted, value)]
    return value.tolist() if isinstance(value, Tensor) else value


def _same(now: Sequence[Any], before: Sequence[Any]) -> bool:
    return len(now) == len(before) and all(map(is_, now, before))


def _filled(p: Tensor, value: float) -> Tensor:
    """A tensor like a parameter, of one number; complex entries are pairs of it."""
    return torch.full_like(p, complex(value, value) if p.is_complex() else value)
