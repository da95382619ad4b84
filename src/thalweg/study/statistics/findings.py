"""What the trials of a study show: each contestant tuned and untuned, and which of them differ.

Everything is read from a study's folder, whether it was run here or opened. A run that failed has an infinite
loss, the worst there is.
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

# A learning rate is good if its median loss is at most this share above the lowest. There are too few search
# seeds to estimate the noise instead.
TOLERANCE = 0.1

# Measures that lie between 0 and 1.
PROPORTIONS = ("accuracy", "error")

# The target is the loss that this share of the contestants reached.
REACHED = 0.75


@dataclass(frozen=True)
class Curve:
    """A measure during training, over the finished runs: medians and extremes over the seeds."""

    step: FloatArray
    epoch: FloatArray
    seconds: FloatArray
    median: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True)
class SettingRuns:
    """The runs of a contestant at one setting, in the order of the seeds.

    Attributes:
        hyperparameters: the value of every one, also of those at their defaults.
        chosen: those that differ from the contestant's defaults.
        seeds: the seed of each run.
    """

    hyperparameters: Mapping[str, float]
    chosen: Mapping[str, float]
    runs: tuple[Run, ...]
    seeds: tuple[int, ...]

    def at(self, seeds: Sequence[int]) -> SettingRuns:
        """The same setting with the runs of these seeds only, in their order."""
        by_seed = dict(zip(self.seeds, self.runs, strict=True))
        return replace(self, runs=tuple(by_seed[seed] for seed in seeds), seeds=tuple(seeds))

    @property
    def lr(self) -> float:
        """The learning rate."""
        return self.hyperparameters["lr"]

    @cached_property
    def finished(self) -> tuple[Run, ...]:
        """The runs that reached their end."""
        return tuple(run for run in self.runs if run.finished)

    def losses(self, name: str) -> FloatArray:
        """The final loss of each run, "loss", "val_loss" or "test_loss"; infinite where it failed."""
        return self._final(name, math.inf, self.runs)

    def values(self, name: str) -> FloatArray:
        """Any final value of the finished runs, such as "test_accuracy" or "state_bytes"."""
        return self._final(name, math.nan, self.finished)

    def median(self, name: str) -> Interval | None:
        """Median and interval of a final value over the finished runs; None where none has it."""
        values = self.values(name)
        values = values[np.isfinite(values)]
        if not len(values):
            return None
        if not (name.endswith(PROPORTIONS) and values.min() >= 0 and values.max() <= 1):
            return resampling.median(values)
        # A proportion behaves like a positive number near either end: it is measured from the nearer one.
        mirrored = bool(np.median(values) > 0.5)
        found = resampling.median(1 - values if mirrored else values)
        low, high = max(found.low, 0.0), min(found.high, 1.0)
        if mirrored:
            return Interval(1 - found.estimate, 1 - high, 1 - low, found.level)
        return replace(found, high=high)

    def curve(self, name: str) -> Curve | None:
        """A measure at every step at which all finished runs were evaluated; None if there is none."""
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
        """Steps or seconds of each run until its validation loss was at or below a target; else infinite."""
        curves = [[_number(r.get("val_loss")) for r in run.evaluations] for run in self.runs]
        costs = [[r[cost] for r in run.evaluations] for run in self.runs]
        failed = [not run.finished for run in self.runs]
        return np.where(failed, math.inf, resampling.to_target(curves, costs, target))

    def ratio_to(self, other: SettingRuns) -> Interval | None:
        """The ratio of this test loss to the other's, paired by seed.

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
        """Median time of a training step, without evaluations."""
        seconds = [run.end["seconds"] / run.end["step"] for run in self.finished if run.end["step"]]
        return resampling.median(seconds) if seconds else None

    def _final(self, name: str, otherwise: float, runs: Sequence[Run]) -> FloatArray:
        values = [_number(_last(run).get(name), otherwise) if run.finished else math.inf for run in runs]
        return np.array(values, np.float64)


@dataclass(frozen=True)
class Summary:
    """One contestant: all its runs, by setting.

    Attributes:
        facts: as `Comparison.facts` has it: "name", "dialect", "schedule", "space", "defaults", ...
        search: the settings tried to the end.
        stopped: settings that successive halving stopped.
        final: its best setting with new seeds; None while that is unknown, or where every setting failed.
        default: without tuning, with the same seeds; None where it was not run.
    """

    facts: Mapping[str, Any]
    search: tuple[SettingRuns, ...]
    stopped: tuple[SettingRuns, ...]
    final: SettingRuns | None
    default: SettingRuns | None

    @property
    def name(self) -> str:
        """The contestant's name, unique within the study."""
        return str(self.facts["name"])

    @property
    def tuned(self) -> bool:
        """Whether it had a choice of settings."""
        return bool(self.search)

    @property
    def best(self) -> SettingRuns | None:
        """The final setting, or, while there is none, the best of the search so far."""
        if self.final or not self.search:
            return self.final
        best = min(self.search, key=lambda s: np.median(s.losses("val_loss")))
        return best if math.isfinite(np.median(best.losses("val_loss"))) else None

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """All its runs, each once."""
        settings = (*self.search, *self.stopped, *filter(None, (self.final, self.default)))
        return tuple({run.header["id"]: run for setting in settings for run in setting.runs}.values())

    def count(self, status: str) -> int:
        """How many of its runs ended as "finished", "stopped", "diverged", "memory" or "crashed"."""
        return sum(run.end["status"] == status for run in self.runs)

    @property
    def failed(self) -> int:
        """How many of its runs diverged, crashed or ran out of memory."""
        return len(self.runs) - self.count("finished") - self.count("stopped")

    @property
    def sweep(self) -> tuple[SettingRuns, ...]:
        """Settings that differ only in their learning rate, in its order: those of the search's first part.

        While some runs are missing, with the seeds that all of them have.
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
        """The ratio of the default's test loss to the tuned one's; None where they cannot be compared."""
        if not (self.tuned and self.final and self.default):
            return None
        return self.default.ratio_to(self.final)


@dataclass(frozen=True)
class Findings:
    """What a study has shown so far.

    Attributes:
        study: the study.
        summaries: its contestants, best first.
        bests: each contestant's best setting with the seeds that all have, in the same order; None where
            every setting failed. While some are still searched, seeds differ: then as many runs as all have.
        ranked_by: "test_loss", or "val_loss" while final runs are missing.
        standings: each contestant compared with the first; None while no setting is finished.
        relative: whether losses are compared by their ratio, as all of them are positive.
    """

    study: Comparison
    summaries: tuple[Summary, ...]
    bests: tuple[SettingRuns | None, ...]
    ranked_by: str
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
        """The contestant with the lowest median loss; others may be tied with it, see `tied`."""
        return self.summaries[0] if self.standings else None

    @property
    def seeds(self) -> int:
        """With how many seeds the contestants are compared."""
        return len(self.bests[0].runs) if self.leader and self.bests[0] else 0

    def best(self, summary: Summary) -> SettingRuns | None:
        """A contestant's best setting, of `bests`."""
        return self.bests[self.summaries.index(summary)]

    @cached_property
    def verdicts(self) -> Mapping[str, str]:
        """By name: "best", a "tie" with it, "worse", or "failed" where every setting did."""
        verdicts = {}
        for i, summary in enumerate(self.summaries):
            if self.standings is None or not np.isfinite(np.median(self._losses(summary))):
                verdicts[summary.name] = "failed"
            elif i == self.standings.leader:
                verdicts[summary.name] = "best"
            else:
                same = 1.0 if self.relative else 0.0
                verdicts[summary.name] = resampling.verdict(self.standings.behind[i], same)
        return verdicts

    @property
    def tied(self) -> tuple[Summary, ...]:
        """The leader, and all that the seeds cannot distinguish from it."""
        return tuple(s for s in self.summaries if self.verdicts[s.name] in ("best", "tie", "better"))

    @property
    def behind(self) -> tuple[Summary, ...]:
        """Those whose loss is higher by more than the noise of the seeds."""
        return tuple(s for s in self.summaries if self.verdicts[s.name] == "worse")

    @property
    def failed(self) -> tuple[Summary, ...]:
        """Those of which every setting failed."""
        return tuple(s for s in self.summaries if self.verdicts[s.name] == "failed")

    def lag(self, summary: Summary) -> Interval | None:
        """The ratio of its loss to the leader's, or, where not `relative`, the difference."""
        if self.standings is None:
            return None
        return self.standings.behind[self.summaries.index(summary)]

    def beats(self, a: Summary, b: Summary) -> Interval | None:
        """The probability that one is better than the other with the same seed."""
        x, y = (self._losses(s) for s in (a, b))
        return resampling.beats(x, y) if self.seeds else None

    def _losses(self, summary: Summary) -> FloatArray:
        return _values(self.best(summary), self.ranked_by, self.seeds)

    @cached_property
    def target(self) -> float | None:
        """The validation loss that three in four contestants reached in the median; None if none finished."""
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
    """The findings of a study, complete or not."""
    summaries = [_summary(study, facts) for facts in study.facts["contestants"]]
    finals = [s.final for s in summaries if s.best]
    ranked_by = "test_loss" if study.complete or (finals and all(finals)) else "val_loss"
    some = [s for s in summaries if s.best]
    if not some:
        return Findings(study, tuple(summaries), (None,) * len(summaries), ranked_by, None)
    shared = _shared([s.best for s in some if s.best])
    count = len(shared) or min(len(s.best.runs) for s in some if s.best)
    bests = {s.name: s.best and s.best.at(shared or s.best.seeds[:count]) for s in summaries}
    losses = {name: _values(best, ranked_by, count) for name, best in bests.items()}
    order = sorted(summaries, key=lambda s: (float(np.median(losses[s.name])), s.failed))
    table = np.array([losses[s.name] for s in order])
    relative = bool(table.min() > 0)
    standings = resampling.against_best(table, relative=relative)
    ordered = tuple(bests[s.name] for s in order)
    return Findings(study, tuple(order), ordered, ranked_by, standings, relative)


def _shared(settings: Sequence[SettingRuns]) -> list[int]:
    """The seeds with which all of them have run."""
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
    findings = [find(study) for study in studies]
    by_name = [{s.name: s for s in one.summaries} for one in findings]
    common = names or [name for name in by_name[0] if all(name in others for others in by_name)]
    if not common:
        raise StudyError("these studies have no contestant in common")
    seeds = min(one.seeds for one in findings)
    costs = np.full((len(common), len(findings), max(1, seeds)), math.inf)
    for j, (one, summaries) in enumerate(zip(findings, by_name, strict=True)):
        if one.target is None:
            raise StudyError(f"the study of {one.task['name']} has no final run that finished")
        for i, name in enumerate(common):
            if summaries[name].final and (best := one.best(summaries[name])):
                costs[i, j] = best.to_target(one.target, cost)[:seeds]
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

    def settings(stage: str) -> tuple[SettingRuns, ...]:
        return tuple(
            SettingRuns({**facts["defaults"], **chosen}, chosen, tuple(runs.values()), tuple(runs))
            for chosen, runs in stages.get(stage, {}).values()
        )

    search = settings("search")
    through = {repr(sorted(s.chosen.items())) for s in search}
    stopped = tuple(s for s in settings("stopped") if repr(sorted(s.chosen.items())) not in through)
    (final,), (default,) = ((settings(stage) or (None,))[:1] for stage in ("final", "default"))
    return Summary(facts, search, stopped, final, default)


def _values(best: SettingRuns | None, ranked_by: str, seeds: int) -> FloatArray:
    """The loss with each seed; all infinite where every setting failed."""
    return best.losses(ranked_by) if best else np.full(seeds, math.inf)


def _last(run: Run) -> dict[str, Any]:
    return {**(run.evaluations[-1] if run.evaluations else {}), **run.end}


def _number(value: Any, otherwise: float = math.inf) -> float:
    return otherwise if value is None else float(value)
