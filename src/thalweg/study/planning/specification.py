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

# Goes up when training itself changes what it computes; older trials are then run anew.
PROTOCOL = 3

# A loss beyond it counts as diverged.
BOUND = 1e8


@dataclass(frozen=True)
class Trial:
    """One training run, settled to the last figure.

    Attributes:
        hyperparameters: those that differ from the contestant's defaults.
        seed: decides the initial weights and the order of examples, and nothing else does.
        stage: "search", "final" or "default".
        every: steps between evaluations; None: one each epoch.
        until: the share of its length after which it is stopped, by successive halving.
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
        """What its learner trains with."""
        return self.contestant.setting(self.hyperparameters, total_steps, self.batch_size)

    @cached_property
    def specification(self) -> dict[str, Any]:
        """What it is and all that decides its outcome, as JSON has it."""
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
