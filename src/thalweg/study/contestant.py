"""Contestants: an optimizer, the schedule of its learning rate, and its search space."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeAlias

from thalweg.errors import nearest
from thalweg.hyperparameters import HYPERPARAMETERS, Hyperparameter
from thalweg.program.tracing import trace
from thalweg.registry import get, module_named
from thalweg.rule import Rule
from thalweg.schedules import Cosine, Polynomial, Schedule, WarmUp, WarmUpStableDecay
from thalweg.study.errors import StudyError
from thalweg.study.fingerprint.hashing import Fingerprint, examine, fingerprint
from thalweg.treatments import Chain

# What `Contestant` takes: "adam", "adam+cosine", "sgd@torch", "my_file.py:Mine", a rule, a class or function.
Optimizer: TypeAlias = "str | Rule | Callable[..., Any]"

# A search space, by hyperparameter: (low, high), values to choose from, a Range, or None for its own range.
Space: TypeAlias = Mapping[str, "Range | Sequence[float] | None"] | Iterable[str]

# The shares of a trial's steps that a warm-up takes, and the final decay of "wsd".
WARM_UP, DECAY = 0.05, 0.2


@dataclass(frozen=True)
class Range:
    """The search range of a hyperparameter.

    Attributes:
        low, high: the smallest and the largest value.
        scale: "log" spreads values evenly in their logarithms, "complement" in those of one minus the value
            (as for 0.9, 0.99, 0.999), "linear" in the values themselves.
        values: where given, the only ones to choose from; `low` and `high` are then the extremes.
    """

    low: float
    high: float
    scale: str = "log"
    values: tuple[float, ...] = ()

    def at(self, fraction: float) -> float:
        """The value at a fraction of the way from `low` to `high`, 0 <= fraction < 1."""
        if self.values:
            return self.values[int(fraction * len(self.values))]
        if self.scale == "log":
            return rounded(self.low * (self.high / self.low) ** fraction)
        if self.scale == "complement":
            most, least = 1 - self.low, 1 - self.high
            return float(f"{1 - rounded(most * (least / most) ** fraction):.9g}")
        return rounded(self.low + (self.high - self.low) * fraction)


@dataclass(frozen=True, init=False, eq=False)
class Contestant:
    """An optimizer with a search space; its defaults are those of its dialect, or of its own signature.

    Attributes:
        name: unique within a study.
        dialect: whose arithmetic and defaults it has, where it is a rule given by name.
        rule: the update rule, or None.
        factory: makes an optimizer like those of `torch.optim` from parameters and hyperparameters, or None.
        schedule: of the learning rate: "cosine", "linear", "wsd", "warmup", or "warmup+cosine" and
            "warmup+linear"; scaled to each trial's steps. None: constant.
        space: the range of every hyperparameter that is searched.
        defaults: every hyperparameter's value without tuning.
        batch_size: its own, or None for the study's.
    """

    name: str
    dialect: str
    rule: Rule | None
    factory: Callable[..., Any] | None
    schedule: str | None
    space: Mapping[str, Range]
    defaults: Mapping[str, float]
    batch_size: int | None
    _given: Mapping[str, Any] = field(repr=False)

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        name: str | None = None,
        dialect: str = "keras",
        schedule: str | None = None,
        space: Space | None = None,
        fixed: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Finds the optimizer and checks its search space.

        Args:
            optimizer: a registered rule's name, with "@dialect" and "+schedule" where wanted
                ("adamw@torch+warmup+cosine"); "FILE.py:NAME" or "module:NAME" of one of your own; a rule;
                or a class or function called as `optimizer(params, **hyperparameters)`.
            name: None: the optimizer's own, as given.
            dialect: where the optimizer's name does not say.
            schedule: where the optimizer's name does not say.
            space: hyperparameters to search, by name: a pair (low, high), a list of values, a `Range`, or
                None for the range that the hyperparameter's description has; or names alone, for the latter.
                The learning rate is searched in any case.
            fixed: hyperparameters and flags other than the defaults. A learning rate is then the only one
                tried.
            batch_size: None: the study's.

        Raises:
            StudyError: an unknown schedule or file; an inadmissible range; no learning rate.
            UnknownRuleError, UnknownDialectError, UnknownHyperparameterError: naming the nearest name.
        """
        given = {"name": name, "dialect": dialect, "schedule": schedule, "space": space, "fixed": fixed}
        object.__setattr__(self, "_given", {"optimizer": optimizer, **given, "batch_size": batch_size})
        kind, own_dialect, phases = _parse(optimizer, schedule)
        dialect = own_dialect or dialect
        fixed = dict(fixed or {})
        ranges = dict(space) if isinstance(space, Mapping) else dict.fromkeys(space or ())
        if twice := ranges.keys() & fixed.keys():
            raise StudyError(f"{min(twice)} is fixed and searched at once: leave it out of one")
        ranges = {"lr": [fixed["lr"]] if "lr" in fixed else None} | ranges
        rule: Rule | None = None
        factory = None
        if isinstance(kind, str):
            rule = get(kind, dialect=dialect, **fixed)
        elif isinstance(kind, Rule):
            rule = _changed(kind, fixed)
        else:
            factory = kind
        own_name = rule.name if rule else _name_of(factory)
        at = f"@{own_dialect}" if own_dialect else ""
        values: dict[str, Any] = {
            "name": name or "+".join([own_name + at, *phases]),
            "dialect": dialect if isinstance(kind, str) else "own",
            "rule": rule,
            "factory": factory,
            "schedule": "+".join(phases) or None,
            "batch_size": batch_size,
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)
        described = rule.hyperparameters if rule else HYPERPARAMETERS
        object.__setattr__(self, "defaults", self._defaults(fixed))
        checked = {key: self._range(key, asked, described) for key, asked in ranges.items()}
        object.__setattr__(self, "space", checked)

    def __reduce__(self) -> Any:
        """Pickles the arguments, so that another process imports the user's file by its name."""
        return partial(Contestant, **self._given), ()

    def setting(
        self, hyperparameters: Mapping[str, float], total_steps: int | None, batch_size: int
    ) -> Setting:
        """This contestant at one point of its search space.

        Args:
            hyperparameters: values other than the defaults.
            total_steps: how many steps the schedule spans; None: no schedule.
            batch_size: examples a step.
        """
        return Setting(self, {**self.defaults, **hyperparameters}, total_steps, batch_size)

    @cached_property
    def cost(self) -> float:
        """Bytes that a step moves per parameter, an estimate of its time; infinite where it is unknown."""
        return trace(self.rule).bytes_per_entry() if self.rule else math.inf

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What identifies the optimizer's arithmetic, as JSON."""
        if self.rule:
            program = trace(self.rule)
            # What is computed, not how it is written: comments and names of variables make no difference.
            formulas = (program.formulas, program.formulas_step, program.slots, program.scalar_slots)
            content = repr((formulas, self.rule.slots, self.rule.guarded))
            return {"rule": self.rule.name, "source": hashlib.sha256(content.encode()).hexdigest()[:16]}
        return {"factory": _name_of(self.factory), "source": self._fingerprint.text}

    @property
    def covers(self) -> Mapping[str, str]:
        """The user's modules that a factory is made of, with a hash of each; empty for a rule."""
        return {} if self.rule else self._fingerprint.covers

    @cached_property
    def _fingerprint(self) -> Fingerprint:
        return examine({"optimizer": self.factory})

    def specification(self, hyperparameters: Mapping[str, float]) -> dict[str, Any]:
        """All hyperparameters at one point, as JSON; a schedule by its description."""
        values: dict[str, Any] = {**self.defaults, **hyperparameters}
        if self.rule:
            values = {
                key: _described(value) if callable(value) else float(value)
                for key, value in _changed(self.rule, values).values.items()
            }
        return values

    def _defaults(self, fixed: Mapping[str, Any]) -> dict[str, float]:
        """The value of every hyperparameter without tuning."""
        defaults = _numbers(self.rule) if self.rule else _signature(self.factory, self.name) | dict(fixed)
        if "lr" not in defaults:
            reason = "its `lr` must be a number, and its schedule given by name" if self.rule else _PARTIAL
            raise StudyError(f"{self.name} has no default learning rate: {reason}")
        return {key: float(value) for key, value in defaults.items()}

    def _range(self, key: str, asked: Any, described: Mapping[str, Hyperparameter]) -> Range:
        """The range of one hyperparameter: the one asked for, or that of its description."""
        where = f"{self.name}: the search space of {key}"
        if self.rule and key not in described:
            # A hyperparameter that is None unless it is given, such as RMSprop's momentum.
            probe = asked.low if isinstance(asked, Range) else asked[0] if asked else 0.5
            described = _changed(self.rule, {key: float(probe)}).hyperparameters
        about = described.get(key, Hyperparameter())
        if asked is None:
            if about.search is None:
                raise StudyError(f"{where} has no default: give (low, high) or a list of values")
            asked = about.search
        space = asked if isinstance(asked, Range) else _range(where, asked, about)
        _check_range(where, key, space, about)
        return space


def _range(where: str, asked: Any, about: Hyperparameter) -> Range:
    """A range from (low, high) or a list of values."""
    values = [asked] if isinstance(asked, int | float) else list(asked)
    if not values or not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
        raise StudyError(f"{where} is (low, high) or a list of numbers, got {asked!r}")
    values = [float(value) for value in values]
    if not isinstance(asked, tuple):
        values = list(dict.fromkeys(values))
        return Range(min(values), max(values), "list", tuple(values))
    if len(values) != 2:
        raise StudyError(f"{where}: a tuple is (low, high); values to choose from go in a list")
    scale = "complement" if about.complement else "log" if values[0] > 0 else "linear"
    return Range(values[0], values[1], scale)


def _check_range(where: str, key: str, space: Range, about: Hyperparameter) -> None:
    for value in space.values or (space.low, space.high):
        if not about.admits(value):
            raise StudyError(f"{where} reaches {value:g}; {key} must lie in {about.range}")
    if space.values:
        return
    if not space.low < space.high:
        raise StudyError(f"{where}: {space.low:g} must be below {space.high:g}")
    if space.scale == "complement" and space.high >= 1:
        raise StudyError(f"{where} is spread by 1 − {key}, so it ends below 1, not at {space.high:g}")
    if key == "lr" and space.low <= 0:
        raise StudyError(f"{where} is logarithmic, so it begins above 0, not at {space.low:g}")


@dataclass(frozen=True)
class Setting:
    """A contestant at one point of its search space: what a learner trains with.

    Attributes:
        origin: the contestant.
        hyperparameters: the value of every one.
        total_steps: how many steps the schedule spans; None: the learning rate is constant.
        batch_size: examples a step.
    """

    origin: Contestant
    hyperparameters: Mapping[str, float]
    total_steps: int | None
    batch_size: int

    @property
    def contestant(self) -> str:
        """The contestant's name."""
        return self.origin.name

    def rule(self) -> Rule | None:
        """The rule with these values and the schedule; None where there is a factory instead."""
        if self.origin.rule is None:
            return None
        lr = self._schedule()
        return _changed(self.origin.rule, {**self.hyperparameters, **({"lr": lr} if lr else {})})

    def torch(self, params: Any) -> Any:
        """A PyTorch optimizer over parameters or parameter groups."""
        if rule := self.rule():
            from thalweg.torch import Optimizer as TorchOptimizer

            return TorchOptimizer(params, rule)
        assert self.origin.factory is not None, "either a rule or a factory"
        optimizer = self.origin.factory(params, **self.hyperparameters)
        if schedule := self._schedule():
            _set_schedule(optimizer, schedule)
        return optimizer

    def keras(self) -> Any:
        """A Keras optimizer.

        Raises:
            StudyError: the contestant makes PyTorch optimizers.
        """
        rule = self.rule()
        if rule is None:
            raise StudyError(f"{self.contestant} makes PyTorch optimizers, and the model is a Keras model")
        from thalweg.keras import Optimizer as KerasOptimizer

        return KerasOptimizer(rule)

    def _schedule(self) -> Schedule | None:
        if self.origin.schedule is None or self.total_steps is None:
            return None
        return schedule(self.origin.schedule, self.hyperparameters["lr"], self.total_steps)


def schedule(name: str, lr: float, steps: int) -> Schedule:
    """A schedule by name, over a number of steps.

    "cosine" and "linear" fall to zero; "warmup" rises over the first 5 %, and may precede either or
    stand alone; "wsd" (warm-up, stable, decay) rises over 5 %, stays, and falls over the last 20 %.
    """
    warm_up, decay = round(WARM_UP * steps), round(DECAY * steps)
    phases = name.split("+")
    if "wsd" in phases:
        return WarmUpStableDecay(lr, warm_up, steps - warm_up - decay, decay)
    left = steps - warm_up if "warmup" in phases else steps
    then: float | Schedule = lr
    if "cosine" in phases:
        then = Cosine(lr, left)
    elif "linear" in phases:
        then = Polynomial(lr, left)
    return WarmUp(warm_up, then) if "warmup" in phases else then  # type: ignore[return-value]


SCHEDULES = ("cosine", "linear", "wsd", "warmup")
_PARTIAL = "give it one, as in functools.partial(optimizer, lr=0.01)"


def _parse(optimizer: Optimizer, schedule: str | None) -> tuple[Any, str | None, list[str]]:
    """The optimizer, the dialect that its name gives, and the phases of its schedule in order."""
    dialect, phases = None, schedule.split("+") if schedule else []
    kind: Any = optimizer
    if isinstance(optimizer, str):
        kind, *named = (part.strip() for part in optimizer.split("+"))
        if named and phases:
            raise StudyError(f"{optimizer!r} has a schedule already; {schedule!r} is a second")
        phases = named or phases
        kind, _, after = kind.partition("@")
        dialect = after or None
        if ":" in kind:
            kind = _imported(kind)
    elif not isinstance(optimizer, Rule) and not callable(optimizer):
        raise StudyError(
            "an optimizer is a rule's name, a rule, or a class or function that makes a PyTorch optimizer; "
            f"got {optimizer!r}"
        )
    _check_schedule(phases)
    if isinstance(kind, type) and issubclass(kind, Rule):
        kind = kind()
    return kind, dialect, sorted(phases, key=lambda phase: phase != "warmup")


def _check_schedule(phases: Sequence[str]) -> None:
    for phase in phases:
        if phase not in SCHEDULES:
            raise StudyError(
                f"no schedule is named {phase!r}; {nearest(phase, SCHEDULES)}", argument="optimizers"
            )
    names = set(phases)
    if len(names) < len(phases) or len(names - {"warmup"}) > 1 or {"wsd", "warmup"} <= names:
        raise StudyError(
            f"{'+'.join(phases)!r} is not a schedule: it is one of cosine, linear and wsd (which has a "
            "warm-up), or warmup alone or before cosine or linear"
        )


def _imported(reference: str) -> Any:
    """What "FILE.py:NAME" or "module:NAME" refers to."""
    place, _, name = reference.rpartition(":")
    try:
        module = module_named(place)
    except ValueError as error:
        raise StudyError(str(error), argument="optimizers") from None
    if not hasattr(module, name):
        raise StudyError(f"{place} has no {name!r}; {nearest(name, vars(module))}", argument="optimizers")
    return getattr(module, name)


def _changed(rule: Rule, values: Mapping[str, Any]) -> Rule:
    """The rule with other hyperparameters or flags, also with one that was None."""
    if not values:
        return rule
    if isinstance(rule, Chain) or values.keys() <= rule.hyperparameters.keys():
        return rule.replaced(**values)
    return dataclasses.replace(rule, **values)


def _numbers(rule: Rule) -> dict[str, Any]:
    return {key: value for key, value in rule.values.items() if not callable(value)}


def _described(value: Any) -> str:
    return repr(value) if dataclasses.is_dataclass(value) else f"{_name_of(value)} {fingerprint(value)}"


def _name_of(thing: Any) -> str:
    """The name of a class or function; of a partial, that of what it calls."""
    while hasattr(thing, "func"):
        thing = thing.func
    return str(getattr(thing, "__name__", type(thing).__name__))


def _signature(factory: Any, name: str) -> dict[str, Any]:
    """The numbers among the defaults of a factory's signature."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        raise StudyError(
            f"{name} has no signature that gives its default learning rate: wrap it in a "
            "function that has `lr`"
        ) from None
    return {
        p.name: p.default
        for p in parameters
        if isinstance(p.default, int | float) and not isinstance(p.default, bool)
    }


def _set_schedule(optimizer: Any, schedule: Schedule) -> None:
    """Has a torch optimizer set its learning rate before each step."""
    step = 0

    def set_rate(*_: Any) -> None:
        nonlocal step
        step += 1
        for group in optimizer.param_groups:
            group["lr"] = float(schedule(step))

    optimizer.register_step_pre_hook(set_rate)


def rounded(value: float) -> float:
    """To three significant digits, so that the value used is the value printed."""
    return float(f"{value:.3g}")
