"""What every contestant may spend, and how long a trial trains."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass

from thalweg.study.errors import StudyError
from thalweg.study.schema import POSITIVE
from thalweg.study.task import Task

# A study has no more settings a contestant, or final seeds: a larger number is a typing error.
MOST = 10_000


@dataclass(frozen=True)
class Budget:
    """What every contestant may spend.

    Attributes:
        trials: how many settings it may try, each with every search seed. None: 12, or the number of
            learning rates where these are given.
        epochs, steps, seconds: how long each trial trains: one of them, or none for the task's epochs.
            Seconds do not include evaluation.

    Raises:
        StudyError: a number below one (seconds: not above zero), or two lengths.
    """

    trials: int | None = None
    epochs: int | None = None
    steps: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        at_least_one("trials", self.trials, MOST)
        for name in ("epochs", "steps"):
            at_least_one(name, getattr(self, name))
        if self.seconds is not None and not POSITIVE.passes(self.seconds):
            raise StudyError(
                f"the seconds of a trial must be {POSITIVE.description}, got {self.seconds!r}",
                argument="seconds",
            )
        given = [name for name in ("epochs", "steps", "seconds") if getattr(self, name) is not None]
        if len(given) > 1:
            raise StudyError(f"a trial's length is given twice, in {given[0]} and in {given[1]}")

    def length(self, task: Task) -> Length:
        """Each trial's length."""
        for unit in ("steps", "seconds", "epochs"):
            if (amount := getattr(self, unit)) is not None:
                return Length(unit, amount)
        return Length("epochs", task.epochs)


@dataclass(frozen=True)
class Length:
    """How long a trial trains: a number of "epochs", "steps" or "seconds"."""

    unit: str
    amount: float

    def __str__(self) -> str:
        return counted(self.amount, self.unit)


def counted(count: float, things: str) -> str:
    """A number with its noun: "1 epoch", "20 epochs"."""
    return f"{count:g} {things.removesuffix('s') if count == 1 else things}"


# What a count is called where its argument's name does not say what it counts.
_COUNTED = {
    "search_seeds": "the number of search seeds",
    "batch_size": "the batch size",
    "every": "the number of steps between evaluations",
}


def at_least_one(argument: str, value: int | None, most: int = 10**9) -> None:
    """Refuses a count that is not a whole number, or below one, or too large."""
    if value is None:
        return
    name = _COUNTED.get(argument, f"the number of {argument}")
    if not isinstance(value, int) or isinstance(value, bool):
        raise StudyError(f"{name} must be a whole number, got {value!r}", argument=argument)
    if value < 1:
        raise StudyError(f"{name} must be at least 1, got {value}", argument=argument)
    if value > most:
        raise StudyError(f"{name} must be at most {most}, got {reprlib.repr(value)}", argument=argument)
