"""What the trials of a study show: each contestant tuned and untuned, and who is told apart from whom.

Everything is read from a study's folder, whether it was run here or opened. A run that failed counts as an
infinite loss, the worst there is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from thalweg.study.comparison import Comparison
from thalweg.study.errors import StudyError
from thalweg.study.records import Run
from thalweg.study.statistics import profiles, resampling, tuning
from thalweg.study.statistics.profiles import Profile
from thalweg.study.statistics.resampling import FloatArray, Interval, Standings
from thalweg.study.statistics.tuning import BestOf, GoodRegion

# A learning rate is good whose median loss is at most this much above the lowest: there are too few search
# seeds for their noise to say.
TOLERANCE = 0.1

# Measures that lie between 0 and 1.
SHARES = ("accuracy", "error")

# The target is what this share of the contestants reached.
REACHED = 0.75


@dataclass(frozen=True)
class Curve:
    """A figure on the way, over the runs that went through: medians and extremes over the seeds."""

    step: FloatArray
    epoch: FloatArray
    seconds: FloatArray
    median: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True)
class Outcome:
    """A contestant at one point: its runs, in the order of the seeds.

    Attributes:
        hyperparameters: every one's number, defaults too.
        chosen: those that differ from the contestant's defaults.
        seeds: each run's.
    """

    hyperparameters: Mapping[str, float]
    chosen: Mapping[str, float]
    runs: tuple[Run, ...]
    seeds: tuple[int, ...]

    def at(self, seeds: Sequence[int]) -> Outcome:
        """The same with the runs from these seeds alone, in their order."""
        by_seed = dict(zip(self.seeds, self.runs, strict=True))
        return replace(self, runs=tuple(by_seed[seed] for seed in seeds), seeds=tuple(seeds))

    @property
    def lr(self) -> float:
        """The learning rate."""
        return self.hyperparameters["lr"]

    @cached_property
    def finished(self) -> tuple[Run, ...]:
        """The runs that went through."""
        return tuple(run for run in self.runs if run.finished)

    def losses(self, name: str) -> FloatArray:
        """A final loss of each run: "loss", "val_loss", "test_loss"; infinite where it failed."""
        return self._ends(name, math.inf, self.runs)

    def figures(self, name: str) -> FloatArray:
        """Any final figure of the runs that went through, such as "test_accuracy" or "state_bytes"."""
        return self._ends(name, math.nan, self.finished)

    def median(self, name: str) -> Interval | None:
        """Median and interval of a final figure over the runs that went through; None where none has it."""
        found = self.figures(name)
        found = found[np.isfinite(found)]
        if not len(found):
            return None
        if not (name.endswith(SHARES) and found.min() >= 0 and found.max() <= 1):
            return resampling.median(found)
        # What lies between 0 and 1 is like a positive number at either end, so is measured from the nearer.
        far = bool(np.median(found) > 0.5)
        of = resampling.median(1 - found if far else found)
        low, high = max(of.low, 0.0), min(of.high, 1.0)
        return Interval(1 - of.estimate, 1 - high, 1 - low, of.level) if far else replace(of, high=high)

    def curve(self, name: str) -> Curve | None:
        """A figure at every step at which all runs that went through were evaluated; None if none did."""
        records = [
            {r["step"]: r for r in run.evaluations if r.get(name) is not None} for run in self.finished
        ]
        steps = sorted(set.intersection(*map(set, records))) if records else []
        if not steps:
            return None
        table, seconds, epochs = (
            np.array([[run[step][key] for step in steps] for run in records], np.float64)
            for key in (name, "seconds", "epoch")
        )
        return Curve(
            np.array(steps, np.float64),
            epochs[0],
            np.median(seconds, axis=0),
            np.median(table, axis=0),
            table.min(axis=0),
            table.max(axis=0),
        )

    def to_target(self, target: float, cost: str = "step") -> FloatArray:
        """Steps or seconds of each run when its validation loss was first at or below a target; else inf."""
        curves = [[_number(r.get("val_loss")) for r in run.evaluations] for run in self.runs]
        costs = [[r[cost] for r in run.evaluations] for run in self.runs]
        failed = [not run.finished for run in self.runs]
        return np.where(failed, math.inf, resampling.to_target(curves, costs, target))

    def times(self, other: Outcome) -> Interval | None:
        """How many times the other's test loss this one's is, by seed.

        None where runs are missing or failed, or a loss is not positive.
        """
        if self.seeds != other.seeds:
            return None
        mine, theirs = self.losses("test_loss"), other.losses("test_loss")
        both = np.concatenate([mine, theirs])
        if not np.isfinite(both).all() or both.min() <= 0:
            return None
        return resampling.ratio(mine, theirs)

    @property
    def seconds_per_step(self) -> Interval | None:
        """Median time of a training step, evaluations apart."""
        times = [run.end["seconds"] / run.end["step"] for run in self.finished if run.end["step"]]
        return resampling.median(times) if times else None

    def _ends(self, name: str, otherwise: float, runs: Sequence[Run]) -> FloatArray:
        found = [_number(_last(run).get(name), otherwise) if run.finished else math.inf for run in runs]
        return np.array(found, np.float64)


@dataclass(frozen=True)
class Summary:
    """One contestant.

    Attributes:
        facts: as `Comparison.facts` has it: "name", "dialect", "schedule", "space", "defaults", ...
        search: the settings tried, through to their end.
        stopped: settings that successive halving stopped.
        final: its winner, from fresh seeds; None while that is unknown, or where every setting failed.
        default: untuned, from the same seeds; None where it was not run.
    """

    facts: Mapping[str, Any]
    search: tuple[Outcome, ...]
    stopped: tuple[Outcome, ...]
    final: Outcome | None
    default: Outcome | None

    @property
    def name(self) -> str:
        """Unique within the study."""
        return str(self.facts["name"])

    @property
    def tuned(self) -> bool:
        """Whether it had a choice of settings."""
        return bool(self.search)

    @property
    def best(self) -> Outcome | None:
        """The final setting, or, while there is none, the best of the search so far."""
        if self.final or not self.search:
            return self.final
        best = min(self.search, key=lambda s: np.median(s.losses("val_loss")))
        return best if math.isfinite(np.median(best.losses("val_loss"))) else None

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """All its runs, each once."""
        several = (*self.search, *self.stopped, *filter(None, (self.final, self.default)))
        return tuple({run.header["id"]: run for setting in several for run in setting.runs}.values())

    def count(self, status: str) -> int:
        """How many of its runs ended so: "finished", "stopped", "diverged", "memory" or "crashed"."""
        return sum(run.end["status"] == status for run in self.runs)

    @property
    def failed(self) -> int:
        """How many of its runs diverged, crashed or ran out of memory."""
        return len(self.runs) - self.count("finished") - self.count("stopped")

    @property
    def sweep(self) -> tuple[Outcome, ...]:
        """Settings that differ in their learning rate alone, by rate: those of the search's first part.

        While some of their runs are missing, at the seeds that all of them have.
        """
        alone = [s for s in self.search if s.chosen.keys() <= {"lr"}]
        shared = _shared(alone)
        return tuple(sorted((s.at(shared) for s in alone), key=lambda s: s.lr)) if shared else ()

    @property
    def on_edge(self) -> bool:
        """Whether the best learning rate is the smallest or largest tried: a better may lie beyond."""
        rates = self.rates
        return len(rates) > 1 and self.best is not None and self.best.lr in (rates[0], rates[-1])

    @property
    def rates(self) -> list[float]:
        """Every learning rate that was tried, from the smallest."""
        return sorted({setting.lr for setting in (*self.search, *self.stopped)})

    @cached_property
    def region(self) -> GoodRegion | None:
        """The learning rates whose validation loss is at most a tenth above the lowest."""
        losses = np.array([s.losses("val_loss") for s in self.sweep])
        if len(losses) < 2:
            return None
        return tuning.good_region([s.lr for s in self.sweep], losses, TOLERANCE)

    @cached_property
    def best_of(self) -> BestOf | None:
        """What tuning with fewer trials would have found, by validation loss."""
        if not self.search or self.stopped:
            return None
        return tuning.best_of([float(np.median(s.losses("val_loss"))) for s in self.search])

    @property
    def gain(self) -> Interval | None:
        """How many times the default's test loss is the tuned one's; None where they cannot be compared."""
        if not (self.tuned and self.final and self.default):
            return None
        return self.default.times(self.final)


@dataclass(frozen=True)
class Findings:
    """What a study has shown so far.

    Attributes:
        study: whose they are.
        summaries: its contestants, best first.
        bests: each one's best setting at the seeds that all have, in the same order; None where none went
            through. Seeds differ while some are still searched: then as many runs as all have.
        figure: what they are ranked by: "test_loss", or "val_loss" while finals are missing.
        standings: each beside the first; None where nothing went through.
        relative: whether losses are compared by their ratio: all that there are, are positive.
    """

    study: Comparison
    summaries: tuple[Summary, ...]
    bests: tuple[Outcome | None, ...]
    figure: str
    standings: Standings | None
    relative: bool = False

    @property
    def task(self) -> Mapping[str, Any]:
        """The task's facts."""
        return self.study.facts["task"]  # type: ignore[no-any-return]

    @property
    def measures(self) -> list[str]:
        """Names of what the task measures; the first is "loss"."""
        return [measure["name"] for measure in self.task["measures"]]

    @property
    def leader(self) -> Summary | None:
        """The one of the lowest median; not necessarily the winner: see `tied`."""
        return self.summaries[0] if self.standings else None

    @property
    def seeds(self) -> int:
        """How many seeds the contestants are compared at."""
        return len(self.bests[0].runs) if self.leader and self.bests[0] else 0

    def best(self, summary: Summary) -> Outcome | None:
        """A contestant's, of `bests`."""
        return self.bests[self.summaries.index(summary)]

    @cached_property
    def verdicts(self) -> Mapping[str, str]:
        """By name: "best", "tie" with it, "worse", or "failed" where no setting went through."""
        found = {}
        for i, summary in enumerate(self.summaries):
            if self.standings is None or not np.isfinite(np.median(self._losses(summary))):
                found[summary.name] = "failed"
            elif i == self.standings.leader:
                found[summary.name] = "best"
            else:
                same = 1.0 if self.relative else 0.0
                found[summary.name] = resampling.verdict(self.standings.behind[i], same)
        return found

    @property
    def tied(self) -> tuple[Summary, ...]:
        """The leader and all that the seeds do not tell from it."""
        return tuple(s for s in self.summaries if self.verdicts[s.name] in ("best", "tie", "better"))

    @property
    def behind(self) -> tuple[Summary, ...]:
        """Those that are worse by more than the seeds' noise."""
        return tuple(s for s in self.summaries if self.verdicts[s.name] == "worse")

    @property
    def failed(self) -> tuple[Summary, ...]:
        """Those of which no setting went through."""
        return tuple(s for s in self.summaries if self.verdicts[s.name] == "failed")

    def lag(self, summary: Summary) -> Interval | None:
        """How many times (or, where not `relative`, by how much) the leader's loss is exceeded."""
        if self.standings is None:
            return None
        return self.standings.behind[self.summaries.index(summary)]

    def beats(self, a: Summary, b: Summary) -> Interval | None:
        """How probable it is that one is better than the other from the same seed."""
        x, y = (self._losses(s) for s in (a, b))
        return resampling.beats(x, y) if self.seeds else None

    def _losses(self, summary: Summary) -> FloatArray:
        return _values(self.best(summary), self.figure, self.seeds)

    @cached_property
    def target(self) -> float | None:
        """A validation loss that three of four contestants reached in the median; None if none finished."""
        lowest = [
            np.median([min(_number(r.get("val_loss")) for r in run.evaluations) for run in s.final.finished])
            for s in self.summaries
            if s.final and s.final.finished
        ]
        return float(np.quantile(lowest, REACHED, method="inverted_cdf")) if lowest else None

    def to_target(self, summary: Summary, cost: str = "step") -> Interval | None:
        """Steps or seconds to the target, over the final seeds; infinite where it was not reached."""
        if self.target is None or summary.final is None:
            return None
        return resampling.median(summary.final.to_target(self.target, cost))


def find(study: Comparison) -> Findings:
    """What a study has shown, complete or not."""
    summaries = [_summary(study, facts) for facts in study.facts["contestants"]]
    finals = [s.final for s in summaries if s.best]
    figure = "test_loss" if study.complete or (finals and all(finals)) else "val_loss"
    some = [s for s in summaries if s.best]
    if not some:
        return Findings(study, tuple(summaries), (None,) * len(summaries), figure, None)
    shared = _shared([s.best for s in some if s.best])
    count = len(shared) or min(len(s.best.runs) for s in some if s.best)
    bests = {s.name: s.best and s.best.at(shared or s.best.seeds[:count]) for s in summaries}
    losses = {name: _values(best, figure, count) for name, best in bests.items()}
    order = sorted(summaries, key=lambda s: (float(np.median(losses[s.name])), s.failed))
    table = np.array([losses[s.name] for s in order])
    relative = bool(table.min() > 0)
    standings = resampling.against_best(table, relative=relative)
    return Findings(study, tuple(order), tuple(bests[s.name] for s in order), figure, standings, relative)


def _shared(settings: Sequence[Outcome]) -> list[int]:
    """The seeds that all of them have run from."""
    return sorted(set.intersection(*(set(s.seeds) for s in settings))) if settings else []


def across(
    studies: Sequence[Comparison], cost: str = "step", names: Sequence[str] | None = None
) -> tuple[list[str], Profile]:
    """A performance profile over the tasks of several studies, by steps or seconds to each one's target.

    Args:
        studies: of different tasks; contestants that all of them have are compared.
        cost: "step" or "seconds".
        names: which contestants; None: all that the studies have in common.

    Returns:
        The contestants' names, and the profile in their order.

    Raises:
        StudyError: fewer than two studies, no contestant in common, or a study without final runs.
    """
    if len(studies) < 2:
        raise StudyError("a performance profile is across two tasks or more")
    found = [find(study) for study in studies]
    common = names or [
        s.name for s in found[0].summaries if all(s.name in {t.name for t in f.summaries} for f in found)
    ]
    if not common:
        raise StudyError("these studies have no contestant in common")
    seeds = min(f.seeds for f in found)
    costs = np.full((len(common), len(found), max(1, seeds)), math.inf)
    for j, findings in enumerate(found):
        if findings.target is None:
            raise StudyError(f"the study of {findings.task['name']} has no final run that went through")
        by_name = {s.name: s for s in findings.summaries}
        for i, name in enumerate(common):
            if by_name[name].final and (best := findings.best(by_name[name])):
                costs[i, j] = best.to_target(findings.target, cost)[:seeds]
    return list(common), profiles.profile(costs)


def _summary(study: Comparison, facts: Mapping[str, Any]) -> Summary:
    stages: dict[str, dict[str, tuple[Mapping[str, float], dict[int, Run]]]] = {}
    for entry in study.entries:
        if entry.contestant == facts["name"] and entry.id in study.runs:
            stage = "stopped" if entry.until is not None else entry.stage
            point = stages.setdefault(stage, {}).setdefault(
                repr(sorted(entry.hyperparameters.items())), (entry.hyperparameters, {})
            )
            point[1][entry.seed] = study.runs[entry.id]

    def settings(stage: str) -> tuple[Outcome, ...]:
        return tuple(
            Outcome({**facts["defaults"], **chosen}, chosen, tuple(runs.values()), tuple(runs))
            for chosen, runs in stages.get(stage, {}).values()
        )

    search = settings("search")
    through = {repr(sorted(s.chosen.items())) for s in search}
    stopped = tuple(s for s in settings("stopped") if repr(sorted(s.chosen.items())) not in through)
    (final,), (default,) = ((settings(stage) or (None,))[:1] for stage in ("final", "default"))
    return Summary(facts, search, stopped, final, default)


def _values(best: Outcome | None, figure: str, seeds: int) -> FloatArray:
    """A loss from each of so many seeds; all infinite for who has no setting that went through."""
    return best.losses(figure) if best else np.full(seeds, math.inf)


def _last(run: Run) -> dict[str, Any]:
    return {**(run.evaluations[-1] if run.evaluations else {}), **run.end}


def _number(value: Any, otherwise: float = math.inf) -> float:
    return otherwise if value is None else float(value)
