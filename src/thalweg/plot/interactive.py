"""Plotly figures: hover for numbers, press Play for the race, turn the view in three dimensions."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from thalweg.palette import STROKES
from thalweg.plot import style
from thalweg.plot.paths import Paths, height, in_sight, levels, named
from thalweg.plot.style import Theme
from thalweg.plot.three_d import lowered, scale, track, upward
from thalweg.surfaces.paths import Path

# Plotly's names for the palette's dashes.
_DASHES = {"solid": "solid", "dashed": "dash", "dotted": "dot"}

# More steps of the Play button than these make a page slow.
_FRAMES = 100


def race(paths: Paths, *, theme: str | Theme = "light", view: str = "map") -> Any:
    """A plotly figure: the map or view with all paths, the loss beside it, a Play button and a slider.

    Args:
        paths: one path, several, or several by label.
        theme: "light" or "dark".
        view: "map" or "3d".

    Raises:
        ImportError: plotly is not there.
        ValueError: a surface that has no such view.
    """
    go, subplots = _plotly()
    given, theme = named(paths), style.theme_named(theme)
    down = next(iter(given.values())).surface
    if down.dimensions > 2 or (view == "3d" and down.dimensions != 2):
        raise ValueError(f"{down.name} has {down.dimensions} dimensions: there is no picture of it")
    solid = view == "3d"
    whole = subplots.make_subplots(
        rows=1,
        cols=2,
        column_widths=[0.6, 0.4],
        horizontal_spacing=0.09,
        subplot_titles=(down.title, "Loss after each step"),
        specs=[[{"type": "scene" if solid else "xy"}, {"type": "xy"}]],
    )
    whole.add_trace(_ground(go, down, theme, solid), row=1, col=1)
    if not solid and down.minima:
        at = np.array(down.minima)
        star = {"symbol": "star", "size": 11, "color": theme.ink}
        y = down.value(at) if down.dimensions == 1 else at[:, 1]
        drawn = go.Scatter(x=at[:, 0], y=y, mode="markers", marker=star, name="minimum", showlegend=False)
        whole.add_trace(drawn, row=1, col=1)
    first = len(whole.data)
    lines = _lines(go, given, theme, solid)
    for column, trace in lines:
        whole.add_trace(trace, row=1, col=column)
    _play(go, whole, [trace for _, trace in lines], first, max(len(p.points) for p in given.values()) - 1)
    _dress(whole, down, theme, solid)
    return whole


def _plotly() -> tuple[Any, Any]:
    try:
        import plotly.graph_objects as go
        from plotly import subplots
    except ModuleNotFoundError as error:
        raise ImportError("interactive pictures need plotly: pip install 'thalweg[plot]'") from error
    return go, subplots


def _ground(go: Any, surface: Any, theme: Theme, solid: bool) -> Any:
    """The surface itself: heights by rank as in `plot.surface`, true values on hover."""
    ramp = [[i / (len(theme.ramp) - 1), colour] for i, colour in enumerate(theme.ramp)]
    hover = "x %{x:.3g}, y %{y:.3g}<br>f %{text:.4g}<extra></extra>"
    if solid:
        points, heights = scale(surface)
        values = surface.value(points)
        z = lowered(surface, values, heights)
        x, y = points[0, :, 0], points[:, 0, 1]
        look = {"colorscale": ramp, "showscale": False, "opacity": 0.9, "hoverinfo": "skip"}
        return go.Surface(x=x, y=y, z=z, **look)
    points = surface.grid(120 if surface.dimensions == 2 else 400)
    values = surface.value(points)
    if surface.dimensions == 1:
        line = {"color": theme.faint}
        return go.Scatter(x=points[:, 0], y=values, mode="lines", line=line, showlegend=False, name="f")
    heights = levels(values)
    ranks = np.interp(values, heights, np.linspace(0, 1, len(heights)))
    look = {"colorscale": ramp, "showscale": False, "line": {"color": theme.grid, "width": 0.7}}
    steps = {"start": 0, "end": 1, "size": 1 / (len(heights) - 1)}
    axes = {"x": points[0, :, 0], "y": points[:, 0, 1]}
    return go.Contour(z=ranks, text=values, hovertemplate=hover, contours=steps, **axes, **look)


def _lines(go: Any, paths: Mapping[str, Path], theme: Theme, solid: bool) -> list[tuple[int, Any]]:
    """Each path's line on the map and in the loss, with the column that it belongs to."""
    made: list[tuple[int, Any]] = []
    looks = style.looks(paths, theme)
    for i, (label, one) in enumerate(paths.items()):
        points, values = in_sight(one), height(one)
        stroke = _DASHES[STROKES[i % len(STROKES)]]
        line = {"color": looks[label].colour, "dash": stroke, "width": 4 if solid else 2}
        shared = {"line": line, "legendgroup": label, "name": label}
        shown = np.where(np.isfinite(one.values[: len(points)]), one.values[: len(points)], np.nan)
        about = np.column_stack([np.arange(len(points)), shown])
        hover = "step %{customdata[0]}<br>f %{customdata[1]:.4g}"
        on_map = {**shared, "customdata": about, "hovertemplate": hover, "mode": "lines+markers"}
        small = {"marker": {"size": 2.5 if solid else 4}}
        if solid:
            x, y, z = track(points, one.surface)
            made.append((1, go.Scatter3d(x=x, y=y, z=z, **on_map, **small)))
        else:
            y = one.surface.value(points) if one.surface.dimensions == 1 else points[:, 1]
            made.append((1, go.Scatter(x=points[:, 0], y=y, **on_map, **small)))
        high = 100 * abs(float(values[0]))
        with np.errstate(invalid="ignore"):
            kept = np.where(np.abs(values) <= high, values, np.nan)
        kept = np.where(kept > 1e-11 * high, kept, np.nan) if one.surface.minima else kept
        made.append((2, go.Scatter(x=np.arange(len(kept)), y=kept, mode="lines", showlegend=False, **shared)))
    return made


def _play(go: Any, whole: Any, lines: list[Any], first: int, last: int) -> None:
    """Frames, and the button and slider that run through them; without Play all is shown."""
    steps = sorted({*range(0, last + 1, 1 + last // _FRAMES), last})
    keys = [key for key in ("x", "y", "z") if any(key in line for line in lines)]
    numbers = list(range(first, first + len(lines)))
    whole.frames = [
        go.Frame(
            name=str(t),
            data=[type(line)(**{key: line[key][: t + 1] for key in keys if key in line}) for line in lines],
            traces=numbers,
        )
        for t in steps
    ]
    now = {"frame": {"duration": 50, "redraw": True}, "fromcurrent": True, "transition": {"duration": 0}}
    at_once = {**now, "mode": "immediate"}
    play = {"label": "▶ Play", "method": "animate", "args": [None, {**now, "fromcurrent": False}]}
    pause = {"label": "❚❚", "method": "animate", "args": [[None], at_once]}
    buttons = {"type": "buttons", "direction": "left", "buttons": [play, pause], "x": 0, "y": -0.14}
    place = {"xanchor": "left", "yanchor": "top", "showactive": False, "pad": {"t": 8}}
    marks = [{"label": str(t), "method": "animate", "args": [[str(t)], at_once]} for t in steps]
    slider = {"steps": marks, "active": len(marks) - 1, "x": 0.16, "len": 0.84, "y": -0.1}
    prefix = {"prefix": "step ", "xanchor": "right"}
    whole.update_layout(
        updatemenus=[{**buttons, **place}],
        sliders=[{**slider, "currentvalue": prefix, "ticklen": 0, "minorticklen": 0}],
    )
    # Without numbers at every mark: they would lie over each other.
    whole.layout.sliders[0].font = {"color": "rgba(0,0,0,0)", "size": 1}
    whole.layout.sliders[0].currentvalue.font = {"size": 12, "color": "#808890"}


def _dress(whole: Any, surface: Any, theme: Theme, solid: bool) -> None:
    lines = {"gridcolor": theme.grid, "zeroline": False, "linecolor": theme.grid}
    whole.update_layout(
        paper_bgcolor=theme.paper,
        plot_bgcolor=theme.paper,
        font={"color": theme.ink, "family": "system-ui, sans-serif"},
        margin={"l": 50, "r": 20, "t": 50, "b": 60},
        legend={"orientation": "h", "y": 1.12, "x": 0.5, "xanchor": "center"},
        height=560,
    )
    whole.update_xaxes(**lines)
    whole.update_yaxes(**lines)
    whole.update_xaxes(title="step", row=1, col=2)
    loss: dict[str, Any] = {"title": "loss"}
    if surface.minima:
        name = "loss − lowest" if surface.lowest else "loss"
        loss = {"type": "log", "exponentformat": "power", "title": name, "dtick": 1}
    whole.update_yaxes(row=1, col=2, **loss)
    if solid:
        axis = {"backgroundcolor": theme.paper, "gridcolor": theme.grid, "color": theme.ink}
        up = {**axis, "title": upward(surface, scale(surface)[1])}
        eye = {"eye": {"x": 0.9, "y": -1.25, "z": 1.1}}
        shape = {"aspectmode": "manual", "aspectratio": {"x": 1, "y": 1, "z": 0.6}}
        whole.update_scenes(xaxis=axis, yaxis=axis, zaxis=up, camera=eye, **shape)
        return
    whole.update_xaxes(range=surface.window[0], row=1, col=1)
    if surface.dimensions == 2:
        whole.update_yaxes(range=surface.window[1], row=1, col=1)
