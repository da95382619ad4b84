"""Charts drawn by matplotlib: all in one figure, and each as an SVG element that follows a page's colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

from thalweg.plot import writer
from thalweg.plot.theme import LIGHT, LineStyle, Theme
from thalweg.study.reporting import charts
from thalweg.study.reporting.charts import Chart, Series

# A figure of more lines would show none: the best are drawn, and the rest is left to the page and table.
MAX_LINES = 12


def combined(
    pictures: Sequence[Chart], styles: Mapping[str, LineStyle], title: str, theme: Theme = LIGHT
) -> Figure:
    """All charts in one figure."""
    columns = min(2, max(1, len(pictures)))
    rows = max(1, math.ceil(len(pictures) / columns))
    names = list(
        dict.fromkeys(line.name for chart in pictures for line in chart.series if line.name in styles)
    )
    shown, hidden = names[:MAX_LINES], frozenset(names[MAX_LINES:])
    figure = theme.figure((5.4 * columns, 4 * rows + 0.8))
    for place, chart in enumerate(pictures, 1):
        ax = figure.add_subplot(rows, columns, place)
        draw(ax, chart, styles, theme, hidden)
        theme.set_title(ax, chart.title)
    if not pictures:
        nothing = "Every run failed: there is nothing to draw."
        figure.text(0.5, 0.5, nothing, ha="center", color=theme.text)
    rest = f"; the first {MAX_LINES} of {len(names)} optimizers" if hidden else ""
    figure.suptitle(title + rest, color=theme.text)
    handles = [Line2D([], [], **styles[name].matplotlib, label=name) for name in shown]
    if handles:
        columns = max(1, min(4 * columns, 120 // max(12, *map(len, shown))))
        theme.add_legend(figure, handles=handles, ncols=columns)
    return _literal(figure)


def svg(chart: Chart, styles: Mapping[str, LineStyle], variables: Mapping[str, str]) -> str:
    """A chart as an SVG element.

    Args:
        chart: what to draw.
        styles: of the contestants, in the light theme.
        variables: the page's names for colours, by the colours of the light theme.
    """
    figure = LIGHT.figure((4.8, 3.2))
    draw(figure.add_subplot(), chart, styles, LIGHT)
    names = {colour: name for name, colour in LIGHT.css.items()}
    return writer.svg_element(_literal(figure), {**names, **variables})


def _literal(figure: Figure) -> Figure:
    """Without formulas in its text: names are the user's, dollars and all."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    return figure


def draw(
    ax: Axes,
    chart: Chart,
    styles: Mapping[str, LineStyle],
    theme: Theme,
    hidden: frozenset[str] = frozenset(),
) -> None:
    """Draw a chart but for its title, without the lines of contestants that are hidden."""
    theme.add_grid(theme.style_axes(ax))
    for line in reversed(chart.series):  # the best on top
        if line.name not in hidden:
            _draw_line(ax, chart, line, styles.get(line.name, LineStyle(theme.text)), theme)
    if chart.level is not None:
        ax.axhline(chart.level, color=theme.muted, linewidth=1, linestyle=":")
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
    if chart.x_log:
        ax.set_xscale("log")
    if chart.y_log:
        ax.set_yscale("log")
    for axis, ticks in ((ax.xaxis, chart.x_ticks), (ax.yaxis, chart.y_ticks)):
        if ticks:
            axis.set_major_locator(FixedLocator(ticks))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    if chart.y_range:
        ax.set_ylim(*chart.y_range)
    ax.set_xlabel(chart.x_label)
    if chart.y_label.lower() != chart.title.lower():
        ax.set_ylabel(chart.y_label)


def _draw_line(ax: Axes, chart: Chart, line: Series, style: LineStyle, theme: Theme) -> None:
    style = charts.line_style(chart, line, style)
    # A single point has no line: it is marked, or it would not be seen.
    marker = "o" if chart.markers or sum(map(math.isfinite, line.y)) == 1 else None
    ax.plot(line.x, line.y, **style.matplotlib, linewidth=1.8, marker=marker, markersize=4)
    for segment in line.segments():
        x, low, high = (values[segment] for values in (line.x, line.low, line.high))
        ax.fill_between(x, low, high, color=style.colour, alpha=chart.band_opacity, linewidth=0)
    if line.good:
        ax.plot(*chart.good_part(line), color=style.colour, linewidth=4.5, solid_capstyle="round")
    if line.mark:
        ax.plot(*line.mark, "o", color=style.colour, markersize=8, markeredgecolor=theme.background)
