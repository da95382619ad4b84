"""What is measured of a model, and which way is better."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from thalweg.study.errors import StudyError

# What the message about an unknown metric says of metrics of the user's own.
OF_ONES_OWN = 'nor is it one of your own, such as Metric("name", function, "higher")'


@dataclass(frozen=True)
class Measure:
    """What is measured of a model: its name, and whether lower is better."""

    name: str
    lower_is_better: bool


@dataclass(frozen=True)
class Metric:
    """A metric of the user's own.

    Attributes:
        name: names it in records and reports.
        function: `(outputs, targets) -> scalar`, called once with all outputs of a set, as F1 and AUC
            need them, on the CPU. For a Keras model a Keras metric, or `(targets, outputs)` as Keras has it.
        better: "higher" or "lower", whichever is better.
        mean: whether the function is a mean over examples: then it is called batch by batch, and outputs
            need not be kept. Otherwise all outputs of a set are in memory at once, which for the logits of a
            language model may be too much.

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
            raise StudyError(f"metric {self.name}: {self.function!r} is not a function")

    @property
    def measure(self) -> Measure:
        """Its name and direction."""
        return Measure(self.name, self.better == "lower")


LOSS = Measure("loss", lower_is_better=True)
