"""What a study found, in plain sentences with their uncertainty."""

import math
from collections.abc import Sequence

from thalweg.study.plan import Plan
from thalweg.study.statistics import Ranking, Spread, Summary


def answer(plan: Plan, ranking: Ranking) -> str:
    """Which optimizer did best, and how sure that is."""
    if not ranking.tied:
        return "No run went through, at any learning rate."
    leader, tied, behind = ranking.leader, ranking.tied, ranking.behind
    best = f"{_name(leader)} at learning rate {leader.best.lr:g}: {_figures(plan, leader)}"
    if len(ranking.summaries) == 1:
        return f"{best}."
    if ranking.seeds == 1:
        return (
            f"Lowest test loss: {best}. "
            "With one seed the noise is unknown, so no optimizer can be called better than another."
        )
    if not behind:
        return (
            "No optimizer can be told from another: all lie within the seeds' noise of the best. "
            f"Lowest median test loss: {best}."
        )
    if len(tied) == 1:
        return f"Best is {best}. All others are behind by more than the seeds' noise."
    return (
        f"{_list(tied)} are within the seeds' noise of the best; {_list(behind)} "
        f"{'are' if len(behind) > 1 else 'is'} behind by more. Lowest median test loss: {best}."
    )


def notes(plan: Plan, ranking: Ranking) -> list[str]:
    """What to know before believing the answer."""
    found = []
    if ranking.seeds > 1:
        found.append(
            "An optimizer counts as behind only where each of its seeds has a higher test loss than every "
            f"seed of the best; with {ranking.seeds} seeds, two equal optimizers look so different by chance "
            f"{_often(ranking.chance)}."
        )
    if len(ranking.summaries) > 1 and all(len(s.settings) == 1 for s in ranking.summaries):
        found.append(
            f"All ran at one learning rate, {ranking.leader.best.lr:g}: "
            "how they compare when each is tuned is another question (leave --lr out)."
        )
    edges = [s for s in ranking.summaries if s.on_edge]
    if edges:
        found.append(
            f"The best learning rate of {_list(edges)} lies at an end of the range tried: "
            "a better one may lie beyond (--lr)."
        )
    for status in ("diverged", "crashed"):
        counts = {s.contestant.name: s.count(status) for s in ranking.summaries if s.count(status)}
        if counts:
            each = ", ".join(f"{name} {count}" for name, count in counts.items())
            found.append(f"{sum(counts.values())} of {len(plan.trials)} runs {status}: {each}.")
    reasons = {
        run.end["reason"] for s in ranking.summaries for run in s.runs if run.end["status"] == "crashed"
    }
    return found + [f"Reason of a crash: {reason}." for reason in sorted(reasons)]


def number(value: float) -> str:
    """Three significant figures; a dash for what was never measured."""
    return f"{value:#.3g}".rstrip(".") if math.isfinite(value) else "–"


def spread(figure: Spread) -> str:
    """Median, and the range over the seeds where there are several."""
    if len(figure.values) < 2:
        return number(figure.median)
    return f"{number(figure.median)} ({number(figure.low)}–{number(figure.high)})"


def _figures(plan: Plan, summary: Summary) -> str:
    names = ("loss", *plan.task.metrics)
    return ", ".join(f"test {name} {spread(summary.best.figure(f'test_{name}'))}" for name in names)


def _name(summary: Summary) -> str:
    return summary.contestant.name


def _list(summaries: Sequence[Summary]) -> str:
    *head, last = map(_name, summaries)
    return f"{', '.join(head)} and {last}" if head else last


def _often(chance: float) -> str:
    return f"one time in {round(1 / chance):,}"
