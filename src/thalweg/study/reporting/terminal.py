"""A study in the terminal: progress and the ranking so far while it runs, then a table."""

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
from thalweg.study.statistics.findings import Findings, Outcome, find
from thalweg.study.statistics.resampling import Interval

# Columns of the narrowest terminal that people have.
WIDTH = 80

# Longer names are folded where there is no room for them.
NAME = 12

# How wide the bar is that shows how far a study is.
BAR = 24

# Redrawn so often a second; the ranking is computed anew after so many seconds, and at most this share of
# the time is spent on it.
REDRAWN, RANKED, SHARE = 4, 2.0, 0.05

# Without a terminal, such as in a job's log: seconds between lines.
LOGGED = 60.0

# The last runs tell how fast they come.
RECENT = 64


class Screen(Console):
    """Where studies are shown."""

    def __init__(self) -> None:
        super().__init__(highlight=False)

    def on_broken_pipe(self) -> None:
        """As everywhere: rich would end the process on its own."""
        raise BrokenPipeError


class Pace:
    """How fast runs come in.

    Args:
        times: when earlier ones came, or the first was begun, in seconds since the epoch.
    """

    def __init__(self, times: Iterable[float]) -> None:
        self.times = deque(sorted(times)[-RECENT:], maxlen=RECENT)
        self.start = time.time()

    def left(self, runs: int) -> float | None:
        """Seconds that so many more runs may take; None where too few came to tell."""
        if len(self.times) < 2 or self.times[-1] <= self.times[0]:
            return None
        each = (self.times[-1] - self.times[0]) / (len(self.times) - 1)
        return max(0.0, runs * each - (time.time() - self.times[-1]))


class Board:
    """What is shown of a study while it runs: how far it is, when it may be through, and who is ahead."""

    def __init__(self, study: Comparison, pace: Pace) -> None:
        self.study, self.pace = study, pace
        self._ranking: RenderableType | None = None
        self._due = 0.0

    def ran(self) -> None:
        """Notes that a run has come."""
        self.pace.times.append(time.time())

    def sentence(self) -> str:
        """How far it is, in words."""
        more = self.study.total - self.study.done
        left = self.pace.left(more) if more else None
        when = "" if left is None else f", about {_duration(left)} left"
        return f"{self.study.done} of {self.study.total} runs{when}"

    def ranking(self) -> RenderableType:
        """Contestants by their best validation loss so far; computed anew only now and then."""
        now = time.monotonic()
        if self._ranking is None or now >= self._due:
            self._ranking = ranking(find(self.study))
            took = time.monotonic() - now
            self._due = now + max(RANKED, took / SHARE)
        return self._ranking

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        said = f"{self.sentence()}, {_duration(time.time() - self.pace.start)} so far"
        line = Table.grid(padding=(0, 1))
        if BAR + 1 + len(said) <= options.max_width:
            line.add_row(ProgressBar(max(1, self.study.total), self.study.done, width=BAR), said)
        else:
            line.add_row(said)
        yield from (line, "", self.ranking())


def follow(study: Comparison, runs: Iterable[Run], console: Console) -> Iterator[Run]:
    """Passes on the study's runs as they come, and shows how far it is; in a log, by a line a minute."""
    board = Board(study, Pace([time.time()]))
    if console.is_terminal:
        with Live(board, console=console, refresh_per_second=REDRAWN, transient=True):
            for run in runs:
                board.ran()
                yield run
        return
    said = time.monotonic()
    for run in runs:
        board.ran()
        yield run
        if time.monotonic() - said >= LOGGED:
            console.print(board.sentence())
            said = time.monotonic()


def watch(study: Comparison, console: Console, pause: Callable[[], object] = lambda: time.sleep(1.0)) -> None:
    """Shows a study that another process runs, until it is complete.

    Args:
        study: opened by its folder.
        console: where to.
        pause: waits a little between looks.
    """
    board = Board(study, Pace(_arrivals(study)))
    said = -math.inf
    with Live(board, console=console, refresh_per_second=REDRAWN, transient=True) as live:
        live.auto_refresh = console.is_terminal
        while not study.complete:
            if not console.is_terminal and time.monotonic() - said >= LOGGED:
                console.print(board.sentence())
                said = time.monotonic()
            pause()
            before = study.done
            study.refresh()
            for _ in range(study.done - before):
                board.ran()


def state(study: Comparison) -> RenderableType:
    """How far a study is, and its table."""
    return Group(Board(study, Pace(_arrivals(study))).sentence(), "", table(find(study)))


@dataclass(frozen=True)
class _Narrowing:
    """A table whose last columns go where there is no room for them; what it is about stays.

    Attributes:
        table: the table.
        name: which column says what a row is about; it is folded before others go.
    """

    table: Table
    name: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = copy.copy(self.table)
        while len(table.columns) > self.name + 1 and self.least(console, table) > options.max_width:
            table.columns = table.columns[:-1]
        yield table

    def least(self, console: Console, table: Table | None = None) -> int:
        """How wide it is at least, or with fewer columns."""
        table = table or self.table
        name = table.columns[self.name]
        name.max_width = NAME
        wide = console.options.update(width=10 * WIDTH)  # rich says no more than there is room for
        found = Measurement.get(console, wide, table).minimum
        name.max_width = None
        return found


def table(findings: Findings) -> RenderableType:
    """One row a contestant at its best setting, best first; a dot marks ties with the best.

    It fits into 80 columns: long names are folded, and measures that find no room are left to the report. In
    a narrower terminal further columns go, from the last; names stay.
    """
    figures = ["val_loss", *(f"test_{name}" for name in findings.measures)]
    while True:
        found = _Narrowing(_table(findings, figures), 1)
        if found.least(Console()) <= WIDTH or len(figures) == 1:
            return found
        figures.pop()


def ranking(findings: Findings) -> RenderableType:
    """Contestants by their best validation loss so far."""
    found = Table(box=None, padding=(0, 2, 0, 0))
    found.add_column("optimizer so far", overflow="fold")
    for name in ("lr", "validation loss", "runs", "failed"):
        found.add_column(name, justify="right", no_wrap=True)
    for summary in sorted(findings.summaries, key=lambda s: _estimate(s.best)):
        found.add_row(
            Text(summary.name),
            f"{summary.best.lr:g}" if summary.best else "–",
            wording.number(_estimate(summary.best)) if summary.best else "–",
            str(len(summary.runs)),
            str(summary.failed),
        )
    return _Narrowing(found, 0)


def _table(findings: Findings, figures: Sequence[str]) -> Table:
    several = len(findings.tied) > 1 and findings.seeds > 1
    found = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption="● within the noise of the best" if several else None,
        caption_justify="left",
    )
    found.add_column("")
    found.add_column("optimizer", overflow="fold")
    chosen = "tuned\nlr" if any(s.tuned for s in findings.summaries) else "lr"
    heads = [figure.replace("val_", "valid._").replace("_", "\n", 1) for figure in figures]
    for head in ("default\nlr", chosen, *heads, "runs\nfailed", "ms a\nstep"):
        found.add_column(head, justify="right", no_wrap=True)
    for summary in findings.summaries:
        best = summary.best
        seconds = best.seconds_per_step if best else None
        found.add_row(
            "●" if several and summary in findings.tied else "",
            Text(summary.name),
            f"{summary.facts['defaults']['lr']:g}",
            f"{best.lr:g}" if best else "–",
            *(_cell(best.median(figure) if best else None, figure != "val_loss") for figure in figures),
            f"{summary.failed}/{len(summary.runs)}",
            wording.number(seconds.estimate * 1e3) if seconds else "–",
        )
    return found


def _cell(figure: Interval | None, whole: bool) -> Text | str:
    """The estimate, and its interval below where it is to be shown whole."""
    if figure and not whole:
        return wording.number(figure.estimate)
    estimate, _, rest = wording.interval(figure).partition(" (")
    return Text.assemble(estimate, (f"\n{rest.rstrip(')')}" if rest else "", "dim"))


def _estimate(setting: Outcome | None) -> float:
    found = setting.median("val_loss") if setting else None
    return found.estimate if found else math.inf


def _arrivals(study: Comparison) -> list[float]:
    """When the runs that are through came to their end."""
    paths = (study.store.folder / "trials" / f"{key}.jsonl" for key in study.runs)
    return [path.stat().st_mtime for path in paths if path.exists()]


def _duration(seconds: float) -> str:
    """To the unit that matters."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
