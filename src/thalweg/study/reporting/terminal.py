"""A study in the terminal: progress and a ranking while it runs, then a table."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from thalweg.study.comparison import Comparison
from thalweg.study.records import Run
from thalweg.study.reporting import wording
from thalweg.study.statistics.findings import Findings, SettingRuns, find
from thalweg.study.statistics.resampling import Interval

# The usual width of a terminal, in characters.
WIDTH = 80

# Longer names are wrapped where space is short.
NAME = 12

# The width of the progress bar.
BAR = 24

# Redraws a second; seconds between rankings, and the largest share of time that these may take.
REFRESH_RATE, RANKING_INTERVAL, RANKING_SHARE = 4, 2.0, 0.05

# Seconds between lines where the output is not a terminal, as in a job's log.
LOG_INTERVAL = 60.0

# How many of the last runs the remaining time is estimated from.
RECENT = 64


class Screen(Console):
    """The console that studies are shown on."""

    def __init__(self) -> None:
        super().__init__(highlight=False)

    def on_broken_pipe(self) -> None:
        """As in other commands; rich itself would end the process."""
        raise BrokenPipeError


class Pace:
    """How fast runs end.

    Args:
        times: when earlier ones ended, or the first began, in seconds since the epoch.
    """

    def __init__(self, times: Iterable[float]) -> None:
        self.times = deque(sorted(times)[-RECENT:], maxlen=RECENT)
        self.start = time.time()

    def left(self, runs: int) -> float | None:
        """Seconds that a number of further runs may take; None while too few have ended for an estimate."""
        if len(self.times) < 2 or self.times[-1] <= self.times[0]:
            return None
        each = (self.times[-1] - self.times[0]) / (len(self.times) - 1)
        return max(0.0, runs * each - (time.time() - self.times[-1]))


class Dashboard:
    """A running study: its progress, the remaining time, and the ranking so far."""

    def __init__(self, study: Comparison, pace: Pace) -> None:
        self.study, self.pace = study, pace
        self._ranking: RenderableType | None = None
        self._due = 0.0

    def run_ended(self) -> None:
        """Notes that a run has ended."""
        self.pace.times.append(time.time())

    def sentence(self) -> str:
        """The progress in a sentence."""
        more = self.study.total - self.study.done
        left = self.pace.left(more) if more else None
        when = "" if left is None else f", about {_duration(left)} left"
        return f"{self.study.done} of {self.study.total} runs{when}"

    def ranking(self) -> RenderableType:
        """Contestants by their best validation loss so far, computed only now and then."""
        now = time.monotonic()
        if self._ranking is None or now >= self._due:
            self._ranking = ranking(find(self.study))
            took = time.monotonic() - now
            self._due = now + max(RANKING_INTERVAL, took / RANKING_SHARE)
        return self._ranking

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        progress = f"{self.sentence()}, {_duration(time.time() - self.pace.start)} so far"
        line = Table.grid(padding=(0, 1))
        if BAR + 1 + len(progress) <= options.max_width:
            line.add_row(ProgressBar(max(1, self.study.total), self.study.done, width=BAR), progress)
        else:
            line.add_row(progress)
        yield from (line, "", self.ranking())


def follow(study: Comparison, runs: Iterable[Run], console: Console) -> Iterator[Run]:
    """Passes on the study's runs as they end, and shows its progress; in a log, a line a minute."""
    dashboard = Dashboard(study, Pace([time.time()]))
    if console.is_terminal:
        with Live(dashboard, console=console, refresh_per_second=REFRESH_RATE, transient=True):
            for run in runs:
                dashboard.run_ended()
                yield run
        return
    logged = time.monotonic()
    for run in runs:
        dashboard.run_ended()
        yield run
        if time.monotonic() - logged >= LOG_INTERVAL:
            console.print(dashboard.sentence())
            logged = time.monotonic()


def watch(study: Comparison, console: Console, pause: Callable[[], object] = lambda: time.sleep(1.0)) -> None:
    """Shows a study that another process runs, until it is complete.

    Args:
        study: opened from its folder.
        console: where to show it.
        pause: waits between updates.
    """
    dashboard = Dashboard(study, Pace(_arrivals(study)))
    logged = -math.inf
    with Live(dashboard, console=console, refresh_per_second=REFRESH_RATE, transient=True) as live:
        live.auto_refresh = console.is_terminal
        while not study.complete:
            if not console.is_terminal and time.monotonic() - logged >= LOG_INTERVAL:
                console.print(dashboard.sentence())
                logged = time.monotonic()
            pause()
            before = study.done
            study.refresh()
            for _ in range(study.done - before):
                dashboard.run_ended()


def state(study: Comparison) -> RenderableType:
    """The progress of a study, and its table."""
    return Group(Dashboard(study, Pace(_arrivals(study))).sentence(), "", table(find(study)))


@dataclass(frozen=True)
class _Narrowing:
    """A table that drops its last columns where the terminal is too narrow for them.

    Attributes:
        table: the table.
        name: the index of the column that names the row: it is wrapped before others are dropped, and stays.
    """

    table: Table
    name: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = copy.copy(self.table)
        while len(table.columns) > self.name + 1 and self.least(console, table) > options.max_width:
            table.columns = table.columns[:-1]
        yield table

    def least(self, console: Console, table: Table | None = None) -> int:
        """The least width of the table, or of one with fewer columns."""
        table = table or self.table
        name = table.columns[self.name]
        name.max_width = NAME
        wide = console.options.update(width=10 * WIDTH)  # rich reports no more than the available width
        width = Measurement.get(console, wide, table).minimum
        name.max_width = None
        return width


def table(findings: Findings) -> RenderableType:
    """One row a contestant at its best setting, best first; a dot marks ties with the best.

    It fits into 80 columns: long names are wrapped, and measures that do not fit are left to the report. In a
    narrower terminal further columns are dropped, from the last; names stay.
    """
    measures = ["val_loss", *(f"test_{name}" for name in findings.measures)]
    while True:
        narrowing = _Narrowing(_table(findings, measures), 1)
        if narrowing.least(Console()) <= WIDTH or len(measures) == 1:
            return narrowing
        measures.pop()


def ranking(findings: Findings) -> RenderableType:
    """Contestants by their best validation loss so far."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("optimizer so far", overflow="fold")
    for name in ("lr", "validation loss", "runs", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    for summary in sorted(findings.summaries, key=lambda s: _estimate(s.best)):
        table.add_row(
            Text(summary.name),
            f"{summary.best.lr:g}" if summary.best else "–",
            wording.number(_estimate(summary.best)) if summary.best else "–",
            str(len(summary.runs)),
            str(summary.failed),
        )
    return _Narrowing(table, 0)


def _table(findings: Findings, measures: Sequence[str]) -> Table:
    several = len(findings.tied) > 1 and findings.seeds > 1
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption="● within the noise of the best" if several else None,
        caption_justify="left",
    )
    table.add_column("")
    table.add_column("optimizer", overflow="fold")
    chosen = "tuned\nlr" if any(s.tuned for s in findings.summaries) else "lr"
    heads = [measure.replace("val_", "valid._").replace("_", "\n", 1) for measure in measures]
    for head in ("default\nlr", chosen, *heads, "runs\nfailed", "ms a\nstep"):
        table.add_column(head, justify="right", no_wrap=True)
    for summary in findings.summaries:
        best = summary.best
        seconds = best.seconds_per_step if best else None
        table.add_row(
            "●" if several and summary in findings.tied else "",
            Text(summary.name),
            f"{summary.facts['defaults']['lr']:g}",
            f"{best.lr:g}" if best else "–",
            *(_cell(best.median(measure) if best else None, measure != "val_loss") for measure in measures),
            f"{summary.failed}/{len(summary.runs)}",
            wording.number(seconds.estimate * 1e3) if seconds else "–",
        )
    return table


def _cell(median: Interval | None, with_interval: bool) -> Text | str:
    """An estimate, with its interval below."""
    if median and not with_interval:
        return wording.number(median.estimate)
    estimate, _, rest = wording.interval(median).partition(" (")
    return Text.assemble(estimate, (f"\n{rest.rstrip(')')}" if rest else "", "dim"))


def _estimate(setting: SettingRuns | None) -> float:
    median = setting.median("val_loss") if setting else None
    return median.estimate if median else math.inf


def _arrivals(study: Comparison) -> list[float]:
    """When each run ended, by the times of the files."""
    paths = (study.store.folder / "trials" / f"{key}.jsonl" for key in study.runs)
    return [path.stat().st_mtime for path in paths if path.exists()]


def _duration(seconds: float) -> str:
    """A duration in its largest unit."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
