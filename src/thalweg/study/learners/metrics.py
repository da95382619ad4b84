"""What is measured of a model, and which way is better."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from thalweg.study.errors import StudyError

# Ends what is said of a metric that nobody knows.
OF_ONES_OWN = 'nor is it one of your own, such as Metric("name", function, "higher")'


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
        function: `(outputs, targets) -> scalar`, called once with all that a part gave, as F1 and AUC want
            it, on the CPU. For a Keras model a Keras metric, or `(targets, outputs)` as Keras has it.
        better: "higher" or "lower", whichever is better.
        mean: whether the function is a mean over examples: then it is called batch by batch, and outputs
            need not be kept. Else all of a part's are in memory at once, which for the logits of a language
            model may be more than there is.

    Raises:
        StudyError: another direction, or no function.
    """

    name: str
    function: Callable[..., Any]
    better: str
    mean: bool = False

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
