"""What is to be run: every contestant, at every learning rate, from every seed."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import thalweg
from thalweg import Rule
from thalweg.study.errors import StudyError
from thalweg.study.task import Task

CLASSICAL = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamax", "nadam")

# Goes up when training itself changes what it computes; older trials are then run anew.
PROTOCOL = 1


@dataclass(frozen=True)
class Contestant:
    """A rule, the dialect it is meant in, and the learning rates to try."""

    name: str
    dialect: str
    rule: Rule
    rates: tuple[float, ...]


@dataclass(frozen=True)
class Trial:
    """One training run, settled to the last figure.

    Attributes:
        rule: has the trial's learning rate.
        seed: decides the initial weights and the order of examples, and nothing else does.
    """

    task: Task
    contestant: str
    dialect: str
    rule: Rule
    epochs: int
    batch_size: int
    seed: int

    @cached_property
    def specification(self) -> dict[str, Any]:
        """All that decides the outcome, as JSON has it."""
        return {
            "protocol": PROTOCOL,
            "task": self.task.name,
            "task_version": self.task.version,
            "rule": self.rule.name,
            "dialect": self.dialect,
            "hyperparameters": {
                field.name: _plain(getattr(self.rule, field.name))
                for field in dataclasses.fields(self.rule)  # type: ignore[arg-type]
            },
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "seed": self.seed,
        }

    @cached_property
    def id(self) -> str:
        """Hash of the specification."""
        return hashlib.sha256(json.dumps(self.specification, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Plan:
    """All trials of a study: the same number of rates, seeds and epochs for every contestant.

    Raises:
        StudyError: nothing to run, or a count below one.
    """

    task: Task
    contestants: tuple[Contestant, ...]
    epochs: int
    batch_size: int
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        counts = {
            "the number of optimizers": len(self.contestants),
            "the number of epochs": self.epochs,
            "the batch size": self.batch_size,
            "the number of seeds": len(self.seeds),
        }
        for name, value in counts.items():
            if value < 1:
                raise StudyError(f"{name} must be at least 1, got {value}")

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """The trials, a whole round of all contestants for one seed after the other."""
        return tuple(
            Trial(
                self.task,
                contestant.name,
                contestant.dialect,
                dataclasses.replace(contestant.rule, lr=rate),  # type: ignore[type-var]
                self.epochs,
                self.batch_size,
                seed,
            )
            for seed in self.seeds
            for contestant in self.contestants
            for rate in contestant.rates
        )


def make(
    task: Task,
    optimizers: Sequence[str] = CLASSICAL,
    *,
    dialect: str = "keras",
    lr: Sequence[float] | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seeds: int = 3,
) -> Plan:
    """A plan for optimizers by name.

    Args:
        task: what to train.
        optimizers: names as `thalweg.get` takes them; a repeated one counts once.
        dialect: whose arithmetic and defaults.
        lr: learning rates to try with every optimizer. None: half-decade steps through each
            one's search range, the same number for all.
        epochs: None: the task's own.
        batch_size: None: the task's own.
        seeds: how many.

    Raises:
        StudyError: a count below one.
        UnknownRuleError, UnknownDialectError: naming the nearest name.
        ValueError: a learning rate outside its admissible range.
    """
    found = (thalweg.get(name, dialect=dialect) for name in optimizers)
    rules = {rule.name: rule for rule in found}
    points = max((_half_decades(rule) for rule in rules.values()), default=0)
    contestants = tuple(
        Contestant(name, dialect, rule, tuple(dict.fromkeys(lr)) if lr else grid(rule, points))
        for name, rule in rules.items()
    )
    plan = Plan(
        task,
        contestants,
        task.epochs if epochs is None else epochs,
        task.batch_size if batch_size is None else batch_size,
        tuple(range(task.seed, task.seed + seeds)),
    )
    plan.trials  # an inadmissible learning rate shows here, before any work  # noqa: B018
    return plan


def grid(rule: Rule, points: int) -> tuple[float, ...]:
    """Learning rates evenly spread over the logarithm of the rule's search range, to two figures."""
    low, high = _search(rule)
    step = math.log(high / low) / max(points - 1, 1)
    return tuple(float(f"{low * math.exp(step * i):.2g}") for i in range(points))


def _half_decades(rule: Rule) -> int:
    low, high = _search(rule)
    return round(2 * math.log10(high / low)) + 1


def _search(rule: Rule) -> tuple[float, float]:
    search = rule.hyperparameters["lr"].search
    assert search is not None, "every rule's learning rate has a search range"
    return search


def _plain(value: Any) -> Any:
    """A hyperparameter as JSON has it; a schedule by its own description."""
    if value is None or isinstance(value, bool):
        return value
    return repr(value) if callable(value) else float(value)
