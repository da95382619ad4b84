"""Charts drawn by matplotlib: as a picture, and as SVG elements that follow a page's colours."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

from thalweg.study.reporting import charts
from thalweg.study.reporting.charts import Chart, Line, Look

# Inks that appear nowhere else in a picture, so that a page can replace them by its own.
INK, GRID, FAINT = "#1f2328", "#d0d7de", "#59636e"

# What belongs to no contestant.
PLAIN = Look(INK, INK, ())

# A picture of more lines would show none: the best are drawn, and the rest is left to the page and table.
MOST = 12

STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,  # names are the user's
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "thalweg",
}


def together(pictures: Sequence[Chart], looks: Mapping[str, Look], title: str) -> Figure:
    """All charts as one picture."""
    columns = min(2, max(1, len(pictures)))
    rows = max(1, math.ceil(len(pictures) / columns))
    names = dict.fromkeys(line.name for chart in pictures for line in chart.lines if line.name in looks)
    shown = list(names)[:MOST]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4 * columns, 4 * rows + 0.8), layout="constrained", dpi=150)
        for place, chart in enumerate(pictures, 1):
            axes = figure.add_subplot(rows, columns, place)
            axes.set_title(chart.title)
            _draw(axes, chart, looks, set(names) - set(shown))
        if not pictures:
            figure.text(0.5, 0.5, "No run went through: there is nothing to draw.", ha="center")
        left = f"; the first {MOST} of {len(names)} optimizers" if len(names) > MOST else ""
        figure.suptitle(title + left)
        handles = [
            Line2D([], [], color=looks[name].light, dashes=_pattern(looks[name].dashes), label=name)
            for name in shown
        ]
        if handles:
            columns = max(1, min(4 * columns, 120 // max(12, *map(len, shown))))
            figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def save(figure: Figure, file: BinaryIO, kind: str) -> None:
    """Writes a picture of a kind: "png" or "svg".

    Raises:
        OSError: it cannot be written.
    """
    with matplotlib.rc_context(STYLE):
        figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)


def svg(chart: Chart, looks: Mapping[str, Look], variables: Mapping[str, str]) -> str:
    """A chart as an SVG element.

    Args:
        chart: what to draw.
        looks: of the contestants.
        variables: the page's names for colours, by the colours on white.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.6), layout="constrained")
        _draw(figure.add_subplot(), chart, looks, frozenset())
        file = io.StringIO()
        figure.savefig(
            file,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )
    text = file.getvalue()
    # Several pictures share a page: names of their groups would occur twice.
    text = re.sub('<g id="[^"]*"', "<g", text[text.index("<svg") :])
    for colour, name in {INK: "--ink", GRID: "--grid", FAINT: "--faint", **variables}.items():
        text = text.replace(colour, f"var({name})")
    return text


def _draw(axes: Axes, chart: Chart, looks: Mapping[str, Look], hidden: frozenset[str] | set[str]) -> None:
    for line in reversed(chart.lines):  # the best on top
        if line.name not in hidden:
            _line(axes, chart, line, looks.get(line.name, PLAIN))
    if chart.level is not None:
        axes.axhline(chart.level, color=FAINT, linewidth=1, linestyle=":")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
    if chart.x_log:
        axes.set_xscale("log")
    if chart.y_log:
        axes.set_yscale("log")
    for axis, ticks in ((axes.xaxis, chart.x_ticks), (axes.yaxis, chart.y_ticks)):
        if ticks:
            axis.set_major_locator(FixedLocator(ticks))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    if chart.y_range:
        axes.set_ylim(*chart.y_range)
    axes.set_xlabel(chart.x_label)
    if chart.y_label.lower() != chart.title.lower():
        axes.set_ylabel(chart.y_label)


def _line(axes: Axes, chart: Chart, line: Line, look: Look) -> None:
    colour, pattern = look.light, _pattern(charts.dashes(chart, line, look))
    # A single point has no line: it is marked, or it would not be seen.
    marker = "o" if chart.dots or sum(map(math.isfinite, line.y)) == 1 else None
    axes.plot(line.x, line.y, color=colour, dashes=pattern, marker=marker, markersize=4)
    for piece in line.pieces():
        x, low, high = (values[piece] for values in (line.x, line.low, line.high))
        axes.fill_between(x, low, high, color=colour, alpha=chart.shade, linewidth=0)
    if line.good:
        axes.plot(*chart.stretch(line), color=colour, linewidth=4.5, solid_capstyle="round")
    if line.mark:
        axes.plot(*line.mark, "o", color=colour, markersize=8, markeredgecolor="white")


def _pattern(dashes: tuple[float, ...]) -> tuple[float, ...]:
    return dashes or (1, 0)
