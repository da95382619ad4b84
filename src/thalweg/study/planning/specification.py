"""A trial: one training run, specified by all that decides its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from thalweg.study.contestant import Contestant, Setting
from thalweg.study.planning.budget import Length
from thalweg.study.planning.proposers import Point
from thalweg.study.records import identify
from thalweg.study.task import Task

# Increased when training computes something else than before; older trials are then run again.
PROTOCOL = 3

# A trial whose loss exceeds it has diverged.
BOUND = 1e8


@dataclass(frozen=True)
class Trial:
    """One training run, with everything that decides its outcome.

    Attributes:
        hyperparameters: those that differ from the contestant's defaults.
        seed: of the initial weights and the order of examples.
        stage: "search", "final" or "default".
        every: steps between evaluations; None: one evaluation an epoch.
        until: the share of its length after which successive halving stops it, or None.
    """

    task: Task
    contestant: Contestant
    hyperparameters: Point
    length: Length
    batch_size: int
    seed: int
    stage: str
    every: int | None = None
    until: float | None = None

    def setting(self, total_steps: int | None) -> Setting:
        """What the learner trains with."""
        return self.contestant.setting(self.hyperparameters, total_steps, self.batch_size)

    @cached_property
    def specification(self) -> dict[str, Any]:
        """All that decides the outcome, and names, as JSON."""
        return {
            "protocol": PROTOCOL,
            "task": self.task.name,
            "task_version": self.task.version,
            "contestant": {"name": self.contestant.name} | self.contestant.identity,
            "dialect": self.contestant.dialect,
            "hyperparameters": self.contestant.specification(self.hyperparameters),
            "schedule": self.contestant.schedule,
            self.length.unit: self.length.amount,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "stage": self.stage,
            "every": self.every,
            "until": self.until,
        }

    @cached_property
    def id(self) -> str:
        """Hash of what decides the outcome; see `records.identify`."""
        return identify(self.specification)
