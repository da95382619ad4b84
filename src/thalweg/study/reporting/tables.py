"""Tables of findings: a row for each contestant, each cell with its uncertainty."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from thalweg.study.reporting import wording
from thalweg.study.statistics.findings import Findings, SettingRuns, Summary
from thalweg.study.statistics.resampling import Interval

# Verdicts in tables: each with a sign, for not everybody sees colours.
MARKS = {"best": "● best", "tie": "◐ tie", "better": "◐ tie", "worse": "○ behind", "failed": "✕ failed"}


class Cell(NamedTuple):
    """A cell of a table: its text, a line below it, and a tooltip."""

    text: str
    below: str = ""
    more: str = ""


@dataclass(frozen=True)
class ResultsRow:
    """A contestant: its verdict, and a cell for each column."""

    name: str
    mark: str
    below: str
    leading: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class ResultsTable:
    """A table; its first column are the rows' names."""

    columns: tuple[str, ...]
    rows: tuple[ResultsRow, ...]


def of(findings: Findings) -> ResultsTable:
    """A study's table: its contestants by rank, and what is known of each."""
    columns: dict[str, Callable[[Summary], Cell]] = {
        "default lr": lambda s: Cell(f"{s.facts['defaults']['lr']:g}"),
        "tuned lr" if any(s.tuned for s in findings.summaries) else "lr": _chosen,
        "validation loss": lambda s: _median(s.best, "val_loss"),
        **{f"test {m}": _of_best(f"test_{m}") for m in findings.measures},
        **({"beats the best": partial(_chance, findings)} if findings.seeds > 1 else {}),
        "test loss untuned": lambda s: _median(s.default, "test_loss"),
        "ms per step": _time,
        "state memory": _memory,
        "steps to target": partial(_to_target, findings),
        "runs failed": _failures,
    }
    return ResultsTable(
        tuple(columns),
        tuple(
            ResultsRow(
                s.name,
                MARKS[findings.verdicts[s.name]] if len(findings.summaries) > 1 else "",
                _origin(s),
                s in findings.tied,
                tuple(cell(s) for cell in columns.values()),
            )
            for s in findings.summaries
        ),
    )


def overview(findings: Sequence[Findings], labels: Sequence[str]) -> ResultsTable:
    """A row for each contestant, a column for each study."""
    by_name = [{s.name: s for s in one.summaries} for one in findings]
    names = list(dict.fromkeys(name for summaries in by_name for name in summaries))
    columns = [f"{label}: {_label(one.ranked_by)}" for label, one in zip(labels, findings, strict=True)]

    def row(name: str) -> ResultsRow:
        cells = []
        for one, summaries in zip(findings, by_name, strict=True):
            summary = summaries.get(name)
            cell = _median(summary.best, one.ranked_by) if summary else Cell("–")
            mark = MARKS[one.verdicts[name]] if summary else ""
            cells.append(cell._replace(text=f"{cell.text} {mark}".strip()))
        best = sum(name in {s.name for s in one.tied} for one in findings)
        return ResultsRow(
            name, "", f"best or tied in {best} of {len(findings)}", best == len(findings), tuple(cells)
        )

    def rank(name: str) -> tuple[int, int]:
        ranks = [list(summaries).index(name) if name in summaries else len(names) for summaries in by_name]
        return -sum(name in {s.name for s in one.tied} for one in findings), sum(ranks)

    return ResultsTable(tuple(columns), tuple(map(row, sorted(names, key=rank))))


def _of_best(measure: str) -> Callable[[Summary], Cell]:
    return lambda summary: _median(summary.best, measure)


def _median(setting: SettingRuns | None, measure: str) -> Cell:
    """A median and its interval; in the tooltip, each seed's value."""
    median = setting.median(measure) if setting else None
    seeds = [wording.number(v) for v in setting.values(measure)] if setting and median else []
    more = f"each seed: {', '.join(seeds)}" if seeds else ""
    return _estimate(median, more)


def _estimate(interval: Interval | None, more: str = "") -> Cell:
    text, _, below = wording.interval(interval).partition(" (")
    return Cell(text, below.removesuffix(")"), more)


def _chance(findings: Findings, summary: Summary) -> Cell:
    """The probability that it is better than the leader with the same seed."""
    if summary is findings.leader or findings.leader is None or summary.best is None:
        return Cell("–")
    return _estimate(findings.beats(summary, findings.leader), "share of the seeds, and 95 % interval")


def _origin(summary: Summary) -> str:
    """A contestant's dialect and schedule."""
    return " · ".join(str(summary.facts[key]) for key in ("dialect", "schedule") if summary.facts.get(key))


def _chosen(summary: Summary) -> Cell:
    if summary.best is None:
        return Cell("–")
    further = [f"{key} {value:g}" for key, value in summary.best.chosen.items() if key != "lr"]
    return Cell(f"{summary.best.lr:g}", ", ".join(further))


def _time(summary: Summary) -> Cell:
    seconds = summary.best.seconds_per_step if summary.best else None
    if seconds is None:
        return Cell("–")
    ms = Interval(1000 * seconds.estimate, 1000 * seconds.low, 1000 * seconds.high, seconds.level)
    return Cell(wording.number(ms.estimate), more=wording.interval(ms))


def _memory(summary: Summary) -> Cell:
    state = summary.best.median("state_bytes") if summary.best else None
    return Cell(wording.bytes_(state.estimate) if state else "–")


def _to_target(findings: Findings, summary: Summary) -> Cell:
    steps, seconds = (findings.to_target(summary, cost) for cost in ("step", "seconds"))
    if steps is None or not math.isinf(steps.estimate):
        return _estimate(steps, f"{wording.interval(seconds)} seconds" if seconds else "")
    return Cell("not reached", f"from {wording.number(steps.low)}" if math.isfinite(steps.low) else "")


def _failures(summary: Summary) -> Cell:
    runs = len(summary.runs)
    share = f"{summary.failed / runs:.0%}" if runs else "–"
    counts = {happened: summary.count(status) for status, happened in wording.FAILED.items()}
    each = ", ".join(f"{count} {happened}" for happened, count in counts.items() if count)
    return Cell(share, f"of {runs}" if runs and summary.failed else "", each)


def _label(measure: str) -> str:
    return measure.replace("val_", "validation ").replace("_", " ")
