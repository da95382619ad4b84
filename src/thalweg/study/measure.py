"""What is measured of a model, and which way is better."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from thalweg.study.errors import StudyError


@dataclass(frozen=True)
class Measure:
    """One figure of a task, and which way is better."""

    name: str
    lower_is_better: bool


@dataclass(frozen=True)
class Metric:
    """A metric of the user's own.

    Attributes:
        name: names it in records and reports.
        function: `(outputs, targets) -> scalar`, a mean over examples; a Keras metric for a Keras model.
        better: "higher" or "lower", whichever is better.

    Raises:
        StudyError: another direction, or no function.
    """

    name: str
    function: Callable[..., Any]
    better: str

    def __post_init__(self) -> None:
        if self.better not in ("higher", "lower"):
            raise StudyError(f"metric {self.name}: better is 'higher' or 'lower', not {self.better!r}")
        if not callable(self.function):
            raise StudyError(f"metric {self.name}: {self.function!r} is no function")

    @property
    def measure(self) -> Measure:
        """Its name and direction."""
        return Measure(self.name, self.better == "lower")


LOSS = Measure("loss", lower_is_better=True)
