"""Learners: a model in training, whichever framework it is written in."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, Protocol, TypeAlias

import numpy as np

from thalweg.study.errors import StudyError

# The loss and metrics by name.
Measurements: TypeAlias = dict[str, float]


class Diverged(Exception):  # noqa: N818  (an outcome, not an error)
    """A loss is no longer a finite number."""


class Learner(Protocol):
    """A model with fresh weights and its optimizer.

    Attributes:
        steps_per_epoch: how many steps visit every training example once.
        state_bytes: memory of the optimizer's state, known after the first step.
    """

    @property
    def steps_per_epoch(self) -> int: ...  # noqa: D102

    @property
    def state_bytes(self) -> int: ...  # noqa: D102

    def train(self, steps: int) -> Measurements:
        """Takes steps, going on where the last call stopped; only this is timed.

        Returns:
            means over the examples of these steps, each at the weights of its step.

        Raises:
            Diverged: a training loss is not finite.
        """
        ...

    def evaluate(self, subset: str) -> Measurements:
        """All measures over one set of examples, at the present weights.

        Args:
            subset: "train", "validation" or "test".

        Raises:
            Diverged: the mean loss is not finite.
        """
        ...

    def diagnostics(self) -> Measurements:
        """What is measured of the last `train` outside the timed part.

        Returns:
            2-norms of the last step over all parameters, "gradient_norm" and "update_norm"; and metrics that
            need all outputs at once.
        """
        ...


def check_labels(labels: Collection[int], classes: int, subset: str) -> None:
    """Refuses class numbers that a model has no output for.

    Args:
        labels: of the set, each once, in order.
        classes: how many outputs the model has.
        subset: which set it is.

    Raises:
        StudyError: naming the first few of them.
    """
    wrong = [label for label in labels if not 0 <= label < classes]
    if wrong:
        shown = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
        raise StudyError(
            f"the model has {classes} outputs, so labels are 0 to {classes - 1}; "
            f"the {subset} set has {shown} too"
        )


def seeds(seed: int) -> tuple[int, int]:
    """A trial's two seeds, for weights and order, so that a model that draws numbers keeps the order."""
    weights, order = np.random.SeedSequence(seed).generate_state(2).tolist()
    return weights, order


class RandomStates:
    """A learner's own random states, active within a `with` block; the user's are restored after it.

    Args:
        seed: of Python's and NumPy's global generators.
        framework: reads the state of the framework's generator, and sets it.
        seed_framework: seeds the framework's generator.
    """

    def __init__(
        self,
        seed: int,
        framework: tuple[Callable[[], Any], Callable[[Any], Any]],
        seed_framework: Callable[[int], Any],
    ) -> None:
        self._generators = (
            (random.getstate, random.setstate),
            (np.random.get_state, np.random.set_state),
            framework,
        )
        before = self._read()
        random.seed(seed)
        np.random.seed(seed)
        seed_framework(seed)
        self._own = self._read()
        self._write(before)

    def _read(self) -> list[Any]:
        return [read() for read, _ in self._generators]

    def _write(self, states: list[Any]) -> None:
        for (_, write), state in zip(self._generators, states, strict=True):
            write(state)

    def __enter__(self) -> None:
        self._users = self._read()
        self._write(self._own)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._own = self._read()
        self._write(self._users)
