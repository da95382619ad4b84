"""What the trials show: each contestant at its best learning rate, and who is told apart from whom."""

import math
import statistics
from dataclasses import dataclass
from functools import cached_property

from thalweg.study.plan import Contestant, Plan
from thalweg.study.store import Run, Store


@dataclass(frozen=True)
class Spread:
    """One figure over the seeds. Without any value all is NaN."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values) if self.values else math.nan

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(self.values, default=math.nan)

    @property
    def high(self) -> float:
        """The largest value."""
        return max(self.values, default=math.nan)


@dataclass(frozen=True)
class Setting:
    """A contestant at one learning rate: its runs, in the order of the seeds."""

    lr: float
    runs: tuple[Run, ...]

    @cached_property
    def finished(self) -> tuple[Run, ...]:
        """The runs that went through."""
        return tuple(run for run in self.runs if run.finished)

    def figure(self, name: str) -> Spread:
        """A figure at the end of the runs that went through: "loss", "val_loss", "test_accuracy" …"""
        return Spread(tuple({**run.epochs[-1], **run.end}[name] for run in self.finished))

    def losses(self, name: str) -> Spread:
        """A final loss over all runs; where one failed it is infinite, the worst there is."""
        return Spread(self.figure(name).values + (math.inf,) * (len(self.runs) - len(self.finished)))

    def curve(self, name: str) -> list[Spread]:
        """A figure after each epoch of the runs that went through."""
        epochs = zip(*(run.epochs for run in self.finished), strict=True)
        return [Spread(tuple(record[name] for record in epoch)) for epoch in epochs]


@dataclass(frozen=True)
class Summary:
    """A contestant's settings, one for each learning rate."""

    contestant: Contestant
    settings: tuple[Setting, ...]

    @cached_property
    def best(self) -> Setting:
        """The setting with the lowest median validation loss, failed runs counted as worst of all."""
        return min(self.settings, key=lambda setting: setting.losses("val_loss").median)

    @property
    def on_edge(self) -> bool:
        """Whether the best learning rate is the smallest or largest tried: a better may lie beyond."""
        rates = [setting.lr for setting in self.settings]
        chosen = math.isfinite(self.best.losses("val_loss").median)
        return chosen and len(rates) > 1 and self.best.lr in (min(rates), max(rates))

    @property
    def runs(self) -> list[Run]:
        """All runs at all learning rates."""
        return [run for setting in self.settings for run in setting.runs]

    def count(self, status: str) -> int:
        """How many of all runs ended with a status: "finished", "diverged" or "crashed"."""
        return sum(run.end["status"] == status for run in self.runs)

    @property
    def seconds_per_step(self) -> float:
        """Median time of a training step at the best rate; NaN where no run went through."""
        return Spread(tuple(run.end["seconds"] / run.end["step"] for run in self.best.finished)).median


@dataclass(frozen=True)
class Ranking:
    """Contestants by median test loss, best first.

    Two are told apart only where every seed's test loss of the one lies below every seed's of the other.
    """

    summaries: tuple[Summary, ...]

    @property
    def leader(self) -> Summary:
        """The one with the lowest median; not necessarily the winner: see `ties`."""
        return self.summaries[0]

    @property
    def seeds(self) -> int:
        """How many seeds each setting was run from."""
        return len(self.leader.best.runs)

    @property
    def chance(self) -> float:
        """How probable it is that two equal contestants are told apart by chance alone."""
        return 2 / math.comb(2 * self.seeds, self.seeds)

    def ties(self, summary: Summary) -> bool:
        """Whether a contestant is within the seeds' noise of the leader. One seed tells nobody apart."""
        worst = self.leader.best.losses("test_loss").high
        lowest = summary.best.losses("test_loss").low
        return math.isfinite(lowest) and (self.seeds == 1 or lowest <= worst)

    @property
    def tied(self) -> tuple[Summary, ...]:
        """The leader and all within the seeds' noise of it; none where nothing went through."""
        return tuple(summary for summary in self.summaries if self.ties(summary))

    @property
    def behind(self) -> tuple[Summary, ...]:
        """All others."""
        return tuple(summary for summary in self.summaries if not self.ties(summary))


def rank(plan: Plan, store: Store) -> Ranking:
    """What the store holds of a plan whose trials have all been run."""
    found: dict[tuple[str, float], list[Run]] = {}
    for trial in plan.trials:
        run = store.read(trial)
        assert run is not None, "every trial of the plan has been run"
        found.setdefault((trial.contestant, trial.rule.values["lr"]), []).append(run)
    summaries = (
        Summary(c, tuple(Setting(lr, tuple(found[c.name, lr])) for lr in c.rates)) for c in plan.contestants
    )
    return Ranking(tuple(sorted(summaries, key=lambda s: s.best.losses("test_loss").median)))
