"""Charts drawn by plotly, for a page whose reader may point at them."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from thalweg.plot.theme import LIGHT, LineStyle
from thalweg.study.reporting import charts, wording
from thalweg.study.reporting.charts import Chart, Series


def plotly(chart: Chart, styles: Mapping[str, LineStyle], variables: Mapping[str, str]) -> dict[str, Any]:
    """A chart as plotly's JSON, its colours left to the page, which knows whether it is dark.

    Each trace's `meta` says which contestant it is of and its colour's name.
    """
    from plotly.graph_objects import Layout

    traces = [trace for line in reversed(chart.series) for trace in _traces(chart, line, styles, variables)]
    shapes = []
    if chart.level is not None:
        line = {"width": 1, "dash": "dot"}
        at = {"y0": chart.level, "y1": chart.level}
        shapes.append({"type": "line", "xref": "paper", "x0": 0, "x1": 1, "line": line, **at})
    named = chart.y_label.lower() != chart.title.lower()
    span = chart.y_range and [math.log10(v) if chart.y_log else v for v in chart.y_range]
    layout = Layout(
        xaxis=_axis(chart.x_label, chart.x_log, chart.x_ticks),
        yaxis=_axis(chart.y_label if named else "", chart.y_log, chart.y_ticks)
        | ({"range": span} if span else {}),
        shapes=shapes,
        meta={"band_opacity": chart.band_opacity},
    )
    return {"data": [t.to_plotly_json() for t in traces], "layout": layout.to_plotly_json()}


def _axis(label: str, log: bool, ticks: Sequence[float]) -> dict[str, Any]:
    fixed = {"tickmode": "array", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    title = {"text": html.escape(label)}
    return {"title": title, "type": "log" if log else "linear", **(fixed if ticks else {})}


def _traces(
    chart: Chart, line: Series, styles: Mapping[str, LineStyle], variables: Mapping[str, str]
) -> list[Any]:
    from plotly.graph_objects import Scatter

    style = charts.line_style(chart, line, styles.get(line.name, LineStyle(LIGHT.text)))
    label = html.escape(f"{line.name}, {line.study}" if line.study else line.name)

    def trace(part: str, xs: Sequence[float | None], ys: Sequence[float | None], **how: Any) -> Any:
        meta = {"name": line.name, "colour": variables.get(style.colour, "--text"), "part": part}
        return Scatter(x=_rounded(xs), y=_rounded(ys), name=label, meta=meta, showlegend=False, **how)

    found = []
    if line.low != line.high:
        xs: list[float | None] = []
        ys: list[float | None] = []
        for segment in line.segments():
            xs += [*line.x[segment], *line.x[segment][::-1], None]
            ys += [*line.low[segment], *line.high[segment][::-1], None]
        found.append(trace("band", xs, ys, fill="toself", mode="none", hoverinfo="skip"))
    single = sum(map(math.isfinite, line.y)) == 1
    found.append(
        trace(
            "line",
            line.x,
            line.y,
            mode="lines+markers" if chart.markers or single else "lines",
            line={"width": 2, "dash": style.plotly_dash},
            customdata=[_span(low, high) for low, high in zip(line.low, line.high, strict=True)],
            hovertemplate=f"<b>%{{fullData.name}}</b><br>{html.escape(chart.x_label)} %{{x:.4~g}}<br>"
            "%{y:.3~g}%{customdata}<extra></extra>",
        )
    )
    at, there = chart.good_part(line)
    if at:
        found.append(trace("good", at, there, mode="lines", line={"width": 5}, hoverinfo="skip"))
    if line.mark:
        found.append(
            trace(
                "mark",
                line.mark[:1],
                line.mark[1:],
                mode="markers",
                marker={"size": 10, "line": {"width": 1.5}},
                hovertemplate="<b>%{fullData.name}</b> chose %{x:.4~g}<extra></extra>",
            )
        )
    return found


def _span(low: float, high: float) -> str:
    return f" ({wording.number(low)}–{wording.number(high)})" if low != high else ""


def _rounded(values: Sequence[float | None]) -> list[float | None]:
    """Numbers at five figures, which no eye tells from more; a gap as JSON has it."""
    return [None if v is None or not math.isfinite(v) else float(f"{v:.5g}") for v in values]
