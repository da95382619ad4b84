"""A study in the terminal: progress while it runs, then a table."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from thalweg.study import words
from thalweg.study.plan import Plan
from thalweg.study.statistics import Ranking, Spread

Item = TypeVar("Item")


def progress(items: Iterable[Item], total: int, console: Console) -> Iterator[Item]:
    """Passes items on, with a bar that shows how many of `total` have come and how long the rest may take."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not total) as bar:
        task = bar.add_task("training runs", total=total)
        for item in items:
            bar.advance(task)
            yield item


def table(plan: Plan, ranking: Ranking) -> Table:
    """One row a contestant at its best learning rate, best first; a dot marks ties with the best."""
    figures = ("val_loss", "test_loss", *(f"test_{metric}" for metric in plan.task.metrics))
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)  # fits 80 columns
    grid.add_column("")
    grid.add_column("optimizer")
    grid.add_column("lr", justify="right")
    for figure in figures:
        grid.add_column(figure.replace("val_", "validation_").replace("_", "\n", 1))
    grid.add_column("runs\nfailed", justify="right")
    grid.add_column("ms per\nstep", justify="right")
    for summary in ranking.summaries:
        best = summary.best
        grid.add_row(
            "●" if ranking.seeds > 1 and ranking.ties(summary) else "",
            Text(summary.contestant.name),
            f"{best.lr:g}",
            *(_cell(best.figure(figure)) for figure in figures),
            f"{len(summary.runs) - summary.count('finished')}/{len(summary.runs)}",
            words.number(summary.seconds_per_step * 1e3),
        )
    return grid


def _cell(figure: Spread) -> Text:
    """The median, and below it the range over the seeds."""
    cell = Text(words.number(figure.median))
    if len(figure.values) > 1:
        cell.append(f"\n{words.number(figure.low)}–{words.number(figure.high)}", style="dim")
    return cell
