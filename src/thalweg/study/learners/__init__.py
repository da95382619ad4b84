"""A model in training: what one trial steps and evaluates, whatever framework the model is written in."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, TypeAlias

import numpy as np

# A loss and metrics by name.
Figures: TypeAlias = dict[str, float]


class Diverged(Exception):  # noqa: N818  (an outcome, not a fault)
    """A loss is no longer a finite number."""


class Learner(Protocol):
    """A model with fresh weights and its optimizer.

    Attributes:
        steps_per_epoch: how many steps see every training example once.
        state_bytes: memory of the optimizer's state; it is there after the first step.
    """

    @property
    def steps_per_epoch(self) -> int: ...  # noqa: D102

    @property
    def state_bytes(self) -> int: ...  # noqa: D102

    def train(self, steps: int) -> Figures:
        """Takes steps, going on where the last call stopped; this is what is timed.

        Returns:
            means over the examples of these steps, the weights moving on the way.

        Raises:
            Diverged: a training loss is not finite.
        """
        ...

    def evaluate(self, part: str) -> Figures:
        """All measures over a part of the data, at the weights as they are.

        Args:
            part: "train", "validation" or "test".

        Raises:
            Diverged: the mean loss is not finite.
        """
        ...

    def afterwards(self) -> Figures:
        """What is measured of the steps of the last `train` when the clock stands still.

        Returns:
            2-norms over all parameters of its last step, "gradient_norm" and "update_norm"; and metrics that
            need all its outputs at once.
        """
        ...


def seeds(seed: int) -> tuple[int, int]:
    """A trial's two seeds, for weights and for order: a model that draws numbers leaves the order alone."""
    weights, order = np.random.SeedSequence(seed).generate_state(2).tolist()
    return weights, order


class Streams:
    """Random streams of a learner's own, entered while it works; the user's are put back on leaving.

    Args:
        seed: what Python's and NumPy's streams start from.
        framework: reads the framework's own stream, and writes it.
        sow: starts the framework's own stream.
    """

    def __init__(
        self,
        seed: int,
        framework: tuple[Callable[[], Any], Callable[[Any], Any]],
        sow: Callable[[int], Any],
    ) -> None:
        self._streams = (
            (random.getstate, random.setstate),
            (np.random.get_state, np.random.set_state),
            framework,
        )
        before = self._read()
        random.seed(seed)
        np.random.seed(seed)
        sow(seed)
        self._own = self._read()
        self._write(before)

    def _read(self) -> list[Any]:
        return [read() for read, _ in self._streams]

    def _write(self, states: list[Any]) -> None:
        for (_, write), state in zip(self._streams, states, strict=True):
            write(state)

    def __enter__(self) -> None:
        self._users = self._read()
        self._write(self._own)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._own = self._read()
        self._write(self._users)
