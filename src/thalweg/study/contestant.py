"""Who competes: an optimizer, the schedule of its learning rate, and where its hyperparameters are sought."""

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

# What a space says of a hyperparameter: (low, high), values to choose from, a Range, or None for metadata's.
Space: TypeAlias = Mapping[str, "Range | Sequence[float] | None"] | Iterable[str]

# The shares of a trial's steps that a learning rate rises from zero for, and that "wsd" falls to zero in.
WARM_UP, FALL = 0.05, 0.2


@dataclass(frozen=True)
class Range:
    """Where to look for a hyperparameter's value.

    Attributes:
        low, high: the ends.
        scale: "log" spreads the values' logarithms evenly, "complement" those of one minus the value (as
            for 0.9, 0.99, 0.999), "linear" the values themselves.
        values: where given, the only ones to choose from; then `low` and `high` are their ends.
    """

    low: float
    high: float
    scale: str = "log"
    values: tuple[float, ...] = ()

    def at(self, share: float) -> float:
        """The value that lies `share` of the way from `low` to `high`, 0 <= share < 1."""
        if self.values:
            return self.values[int(share * len(self.values))]
        if self.scale == "log":
            return tidy(self.low * (self.high / self.low) ** share)
        if self.scale == "complement":
            farthest, nearest_ = 1 - self.low, 1 - self.high
            return float(f"{1 - tidy(farthest * (nearest_ / farthest) ** share):.9g}")
        return tidy(self.low + (self.high - self.low) * share)


@dataclass(frozen=True, init=False, eq=False)
class Contestant:
    """An optimizer with a search space. Its defaults are those of its dialect, or of its own signature.

    Attributes:
        name: unique within a study.
        dialect: whose arithmetic and defaults, where the optimizer is a rule by name.
        rule: the update rule, or None.
        factory: makes a `torch.optim`-style optimizer from parameters and hyperparameters, or None.
        schedule: of the learning rate: "cosine", "linear", "wsd", "warmup", or "warmup+cosine" and
            "warmup+linear"; scaled to each trial's steps. None: constant.
        space: the range of every hyperparameter that is searched.
        defaults: every hyperparameter's untuned number.
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
        """Finds the optimizer and checks its space.

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
        found, own_dialect, parts = _parse(optimizer, schedule)
        dialect = own_dialect or dialect
        fixed = dict(fixed or {})
        ranges = dict(space) if isinstance(space, Mapping) else dict.fromkeys(space or ())
        if twice := ranges.keys() & fixed.keys():
            raise StudyError(f"{min(twice)} is fixed and searched at once: leave it out of one")
        ranges = {"lr": [fixed["lr"]] if "lr" in fixed else None} | ranges
        rule: Rule | None = None
        factory = None
        if isinstance(found, str):
            rule = get(found, dialect=dialect, **fixed)
        elif isinstance(found, Rule):
            rule = _changed(found, fixed)
        else:
            factory = found
        own = rule.name if rule else _name_of(factory)
        at = f"@{own_dialect}" if own_dialect else ""
        values: dict[str, Any] = {
            "name": name or "+".join([own + at, *parts]),
            "dialect": dialect if isinstance(found, str) else "own",
            "rule": rule,
            "factory": factory,
            "schedule": "+".join(parts) or None,
            "batch_size": batch_size,
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)
        described = rule.hyperparameters if rule else HYPERPARAMETERS
        defaults = _numbers(rule) if rule else _signature(factory, self.name) | fixed
        if "lr" not in defaults:
            raise StudyError(
                f"{self.name} has no learning rate of a known default: "
                + ("its `lr` must be a number, its schedule given by name" if rule else _PARTIAL)
            )
        checked = {key: self._range(key, asked, described) for key, asked in ranges.items()}
        object.__setattr__(self, "space", checked)
        object.__setattr__(self, "defaults", {key: float(value) for key, value in defaults.items()})

    def __reduce__(self) -> Any:
        """By what it was made from: another process finds the user's file by its name."""
        return partial(Contestant, **self._given), ()

    def setting(
        self, hyperparameters: Mapping[str, float], total_steps: int | None, batch_size: int
    ) -> Setting:
        """This contestant at one point.

        Args:
            hyperparameters: numbers other than the defaults.
            total_steps: how many steps the schedule spans; None leaves it out.
            batch_size: examples a step.
        """
        return Setting(self, {**self.defaults, **hyperparameters}, total_steps, batch_size)

    @cached_property
    def cost(self) -> float:
        """Bytes that a step moves for each entry, which tells the slow from the quick; where unknown, inf."""
        return trace(self.rule).bytes_per_entry() if self.rule else math.inf

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What tells this optimizer's arithmetic from any other's, as JSON has it."""
        if self.rule:
            program = trace(self.rule)
            # What is computed, not how it is written: comments and names of variables make no other rule.
            content = (program.formulas, program.formulas_step, program.slots, program.scalar_slots)
            whole = repr((content, self.rule.slots, self.rule.guarded))
            return {"rule": self.rule.name, "source": hashlib.sha256(whole.encode()).hexdigest()[:16]}
        return {"factory": _name_of(self.factory), "source": self._made_of.text}

    @property
    def covers(self) -> Mapping[str, str]:
        """What counts of a factory: the user's modules, with a hash of each; of a rule nothing."""
        return {} if self.rule else self._made_of.covers

    @cached_property
    def _made_of(self) -> Fingerprint:
        return examine({"optimizer": self.factory})

    def specification(self, hyperparameters: Mapping[str, float]) -> dict[str, Any]:
        """All hyperparameters at one point, as JSON has them; a schedule by its own description."""
        found: dict[str, Any] = {**self.defaults, **hyperparameters}
        if self.rule:
            found = {
                key: _described(value) if callable(value) else float(value)
                for key, value in _changed(self.rule, found).values.items()
            }
        return found

    def _range(self, key: str, asked: Any, described: Mapping[str, Hyperparameter]) -> Range:
        """The range of one hyperparameter, from what was asked for and its description."""
        where = f"{self.name}: the search space of {key}"
        if self.rule and key not in described:
            # One that is None unless it is given, such as RMSprop's momentum.
            probe = asked.low if isinstance(asked, Range) else asked[0] if asked else 0.5
            described = _changed(self.rule, {key: float(probe)}).hyperparameters
        about = described.get(key, Hyperparameter())
        if asked is None:
            if about.search is None:
                raise StudyError(f"{where} has no default: give (low, high) or a list of values")
            asked = about.search
        if isinstance(asked, Range):
            found = asked
        else:
            values = [asked] if isinstance(asked, int | float) else list(asked)
            if not values or not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
                raise StudyError(f"{where} is (low, high) or a list of numbers, got {asked!r}")
            values = [float(value) for value in values]
            if isinstance(asked, tuple):
                if len(values) != 2:
                    raise StudyError(f"{where}: a tuple is (low, high); values to choose from go in a list")
                scale = "complement" if about.complement else "log" if values[0] > 0 else "linear"
                found = Range(values[0], values[1], scale)
            else:
                values = list(dict.fromkeys(values))
                found = Range(min(values), max(values), "list", tuple(values))
        for value in found.values or (found.low, found.high):
            if not about.admits(value):
                raise StudyError(f"{where} reaches {value:g}; {key} must lie in {about.range}")
        if not found.values and not found.low < found.high:
            raise StudyError(f"{where}: {found.low:g} must be below {found.high:g}")
        if found.scale == "complement" and found.high >= 1:
            raise StudyError(f"{where} is spread by 1 − {key}, so it ends below 1, not at {found.high:g}")
        if key == "lr" and not found.values and found.low <= 0:
            raise StudyError(f"{where} is logarithmic, so it begins above 0, not at {found.low:g}")
        return found


@dataclass(frozen=True)
class Setting:
    """One contestant at one point: what a learner trains with.

    Attributes:
        origin: the contestant.
        hyperparameters: every one's number.
        total_steps: how many steps the schedule spans; None: the learning rate is constant.
        batch_size: examples a step.
    """

    origin: Contestant
    hyperparameters: Mapping[str, float]
    total_steps: int | None
    batch_size: int

    @property
    def contestant(self) -> str:
        """Its name."""
        return self.origin.name

    def rule(self) -> Rule | None:
        """The rule with these numbers and the schedule; None where there is a factory instead."""
        if self.origin.rule is None:
            return None
        lr = self._schedule()
        return _changed(self.origin.rule, {**self.hyperparameters, **({"lr": lr} if lr else {})})

    def torch(self, params: Any) -> Any:
        """An optimizer of torch's kind over parameters or parameter groups."""
        if rule := self.rule():
            from thalweg.torch import Optimizer as TorchOptimizer

            return TorchOptimizer(params, rule)
        assert self.origin.factory is not None, "either a rule or a factory"
        optimizer = self.origin.factory(params, **self.hyperparameters)
        if schedule := self._schedule():
            _follow(optimizer, schedule)
        return optimizer

    def keras(self) -> Any:
        """A Keras optimizer.

        Raises:
            StudyError: the contestant is a `torch.optim`-style factory.
        """
        rule = self.rule()
        if rule is None:
            raise StudyError(f"{self.contestant} makes optimizers of torch's kind, and the model is Keras's")
        from thalweg.keras import Optimizer as KerasOptimizer

        return KerasOptimizer(rule)

    def _schedule(self) -> Schedule | None:
        if self.origin.schedule is None or self.total_steps is None:
            return None
        return schedule(self.origin.schedule, self.hyperparameters["lr"], self.total_steps)


def schedule(name: str, lr: float, steps: int) -> Schedule:
    """A schedule by name over so many steps.

    "cosine" and "linear" fall to zero; "warmup" rises over the first 5 %, and may stand before either or
    alone; "wsd" (warm-up, stable, decay) rises over 5 %, stays, and falls over the last 20 %.
    """
    rise, fall = round(WARM_UP * steps), round(FALL * steps)
    parts = name.split("+")
    if "wsd" in parts:
        return WarmUpStableDecay(lr, rise, steps - rise - fall, fall)
    left = steps - rise if "warmup" in parts else steps
    then: float | Schedule = lr
    if "cosine" in parts:
        then = Cosine(lr, left)
    elif "linear" in parts:
        then = Polynomial(lr, left)
    return WarmUp(rise, then) if "warmup" in parts else then  # type: ignore[return-value]


SCHEDULES = ("cosine", "linear", "wsd", "warmup")
_PARTIAL = "give it one, as in functools.partial(optimizer, lr=0.01)"


def _parse(optimizer: Optimizer, schedule: str | None) -> tuple[Any, str | None, list[str]]:
    """The optimizer, its dialect where it says one, and the parts of its schedule in order."""
    dialect, parts = None, schedule.split("+") if schedule else []
    found: Any = optimizer
    if isinstance(optimizer, str):
        found, *more = (part.strip() for part in optimizer.split("+"))
        if more and parts:
            raise StudyError(f"{optimizer!r} has a schedule already; {schedule!r} is a second")
        parts = more or parts
        found, _, after = found.partition("@")
        dialect = after or None
        if ":" in found:
            found = _own(found)
    elif not isinstance(optimizer, Rule) and not callable(optimizer):
        raise StudyError(
            "an optimizer is a rule's name, a rule, or a class or function of torch.optim's kind; "
            f"got {optimizer!r}"
        )
    for part in parts:
        if part not in SCHEDULES:
            raise StudyError(
                f"no schedule is named {part!r}; {nearest(part, SCHEDULES)}", argument="optimizers"
            )
    if len(set(parts)) < len(parts) or len(set(parts) - {"warmup"}) > 1 or {"wsd", "warmup"} <= set(parts):
        raise StudyError(
            f"{'+'.join(parts)!r} is no schedule: it is one of cosine, linear and wsd (which has a warm-up), "
            "or warmup alone or before cosine or linear"
        )
    if isinstance(found, type) and issubclass(found, Rule):
        found = found()
    return found, dialect, sorted(parts, key=lambda part: part != "warmup")


def _own(reference: str) -> Any:
    """What "FILE.py:NAME" or "module:NAME" names."""
    place, _, name = reference.rpartition(":")
    try:
        module = module_named(place)
    except ValueError as error:
        raise StudyError(str(error), argument="optimizers") from None
    if not hasattr(module, name):
        raise StudyError(f"{place} has no {name!r}; {nearest(name, vars(module))}", argument="optimizers")
    return getattr(module, name)


def _changed(rule: Rule, values: Mapping[str, Any]) -> Rule:
    """The rule with other hyperparameters or flags; one that was None may be given."""
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
    """A class's or function's own name; a partial's is that of what it calls."""
    while hasattr(thing, "func"):
        thing = thing.func
    return str(getattr(thing, "__name__", type(thing).__name__))


def _signature(factory: Any, name: str) -> dict[str, Any]:
    """The numbers that a factory's signature has as defaults."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        raise StudyError(
            f"{name} has no signature to read its default learning rate from: wrap it in a "
            "function that has `lr`"
        ) from None
    return {
        p.name: p.default
        for p in parameters
        if isinstance(p.default, int | float) and not isinstance(p.default, bool)
    }


def _follow(optimizer: Any, schedule: Schedule) -> None:
    """Sets the learning rate of a torch optimizer before each of its steps."""
    taken = 0

    def set_rate(*_: Any) -> None:
        nonlocal taken
        taken += 1
        for group in optimizer.param_groups:
            group["lr"] = float(schedule(taken))

    optimizer.register_step_pre_hook(set_rate)


def tidy(value: float) -> float:
    """To three figures: what is searched is what is printed."""
    return float(f"{value:.3g}")
