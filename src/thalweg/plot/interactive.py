"""Plotly figures: hover for numbers, press Play for the race, turn the view in three dimensions."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from thalweg import palette
from thalweg.plot.paths import (
    Paths,
    by_label,
    contour_levels,
    equal_scales,
    line_styles,
    loss_curves,
    on_map,
    points_to_draw,
)
from thalweg.plot.theme import Theme, find_theme
from thalweg.plot.three_d import grid_and_levels, path_3d, z_label, z_scale
from thalweg.surfaces.paths import Path

# In three dimensions plotly knows dashes by name alone.
_DASHES_3D = dict(zip(palette.DASHES, ("solid", "dash", "dot"), strict=True))

# More steps of the Play button than these make a page slow.
_MAX_FRAMES = 100


def race(paths: Paths, *, theme: str | Theme = "light", view: str = "map") -> Any:
    """A plotly figure: the map or view with all paths, the loss beside it, a Play button and a slider.

    Args:
        paths: one path, several, or several by label.
        theme: "light" or "dark".
        view: "map" or "3d".

    Raises:
        ImportError: plotly is not installed.
        ValueError: a surface that has no such view.
    """
    try:
        import plotly.graph_objects as go
    except ModuleNotFoundError as error:
        raise ImportError("interactive pictures need plotly: pip install 'thalweg[plot]'") from error
    paths, theme = by_label(paths), find_theme(theme)
    surface = next(iter(paths.values())).surface
    three_d = view == "3d"
    if surface.dimensions > 2 or (three_d and surface.dimensions != 2):
        raise ValueError(f"{surface.name} has {surface.dimensions} dimensions: there is no picture of it")
    figure = go.Figure()
    figure.add_trace((_surface_3d if three_d else _surface)(go, surface, theme))
    if not three_d and surface.minima:
        x, y = on_map(surface, np.array(surface.minima))
        star = {"symbol": "star", "size": 11, "color": theme.text}
        figure.add_trace(go.Scatter(x=x, y=y, mode="markers", marker=star, name="minimum", showlegend=False))
    first = len(figure.data)
    lines = _lines(go, paths, theme, three_d)
    figure.add_traces(lines)
    _set_layout(figure, paths, theme, three_d)
    _add_controls(go, figure, lines, first, max(len(p.points) for p in paths.values()) - 1)
    figure.layout.meta = _placements(surface, three_d)
    for key, value in figure.layout.meta["wide"].items():
        figure.layout[key] = value
    return figure


def _colorscale(theme: Theme) -> dict[str, Any]:
    scale = [[i / (len(theme.elevation) - 1), colour] for i, colour in enumerate(theme.elevation)]
    return {"colorscale": scale, "showscale": False}


def _surface_3d(go: Any, surface: Any, theme: Theme) -> Any:
    points, levels = grid_and_levels(surface)
    z = z_scale(surface, surface.value(points), levels)
    x, y = points[0, :, 0], points[:, 0, 1]
    return go.Surface(x=x, y=y, z=z, opacity=0.9, hoverinfo="skip", **_colorscale(theme))


def _surface(go: Any, surface: Any, theme: Theme) -> Any:
    """A curve, or contours coloured by rank as in `plot.surface`, with the true values on hover."""
    points = surface.grid(120 if surface.dimensions == 2 else 400)
    values = surface.value(points)
    if surface.dimensions == 1:
        line = {"color": theme.muted}
        return go.Scatter(x=points[:, 0], y=values, mode="lines", line=line, showlegend=False, name="f")
    levels = contour_levels(values)
    return go.Contour(
        x=points[0, :, 0],
        y=points[:, 0, 1],
        z=np.interp(values, levels, np.linspace(0, 1, len(levels))),
        text=values,
        hovertemplate="x %{x:.3g}, y %{y:.3g}<br>f %{text:.4g}<extra></extra>",
        contours={"start": 0, "end": 1, "size": 1 / (len(levels) - 1)},
        line={"color": theme.grid, "width": 0.7},
        **_colorscale(theme),
    )


def _lines(go: Any, paths: Mapping[str, Path], theme: Theme, three_d: bool) -> list[Any]:
    """Each path's line on the map and its loss, one after the other."""
    made: list[Any] = []
    styles, losses = line_styles(paths, theme), loss_curves(paths).values
    for label, one in paths.items():
        points = points_to_draw(one)
        style = styles[label]
        line = {"color": style.colour, "dash": style.plotly_dash, "width": 2}
        shared = {"legendgroup": label, "name": label}
        values = one.values[: len(points)]
        on_hover = np.column_stack([np.arange(len(points)), np.where(np.isfinite(values), values, np.nan)])
        hover = "step %{customdata[0]}<br>f %{customdata[1]:.4g}"
        path = {**shared, "customdata": on_hover, "hovertemplate": hover}
        if three_d:
            x, y, z = path_3d(one.surface, points)
            thick = {**line, "dash": _DASHES_3D[style.dashes], "width": 4}
            path |= {"mode": "lines+markers", "marker": {"size": 2.5}}
            made.append(go.Scatter3d(x=x, y=y, z=z, line=thick, **path))
        else:
            x, y = on_map(one.surface, points)
            # On a curve, a line from step to step would only hide it.
            flat = one.surface.dimensions > 1
            path |= {"mode": "lines+markers" if flat else "markers", "marker": {"size": 4 if flat else 8}}
            made.append(go.Scatter(x=x, y=y, line=line, **path))
        loss = losses[label]
        axes = {"xaxis": "x2", "yaxis": "y2"}
        of_loss = {"x": np.arange(len(loss)), "y": loss, "mode": "lines", "showlegend": False}
        made.append(go.Scatter(**of_loss, line=line, **axes, **shared))
    return made


def _set_layout(figure: Any, paths: Mapping[str, Path], theme: Theme, three_d: bool) -> None:
    surface = next(iter(paths.values())).surface
    losses = loss_curves(paths)
    title = {"showarrow": False, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
    bold = {"size": 14, "weight": 700}
    figure.update_layout(
        template=theme.plotly_template,
        margin={"l": 50, "r": 20},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "yanchor": "bottom"},
        annotations=[
            {**title, "text": text, "font": bold} for text in (surface.title, "Loss after each step")
        ],
        xaxis2={"anchor": "y2", "title": {"text": "step"}},
        yaxis2={"anchor": "x2", "title": {"text": losses.label}},
    )
    if losses.log:
        figure.update_layout(yaxis2={"type": "log", "exponentformat": "power", "dtick": 1})
    if losses.limits:
        figure.update_layout(yaxis2_range=losses.limits)
    if three_d:
        figure.update_layout(
            scene={
                "zaxis": {"title": {"text": z_label(surface, grid_and_levels(surface)[1])}},
                "camera": {"eye": {"x": 0.9, "y": -1.25, "z": 1.1}},
                "aspectmode": "manual",
                "aspectratio": {"x": 1, "y": 1, "z": 0.6},
            }
        )
    else:
        figure.update_layout(xaxis={"anchor": "y", "range": surface.window[0]}, yaxis_anchor="x")
        if surface.dimensions == 2:
            figure.update_layout(yaxis_range=surface.window[1])
        if equal_scales(surface):
            figure.update_layout(
                xaxis={"constrain": "domain", "constraintoward": "left"},
                yaxis={"constrain": "domain", "constraintoward": "top", "scaleanchor": "x"},
            )


def _placements(surface: Any, three_d: bool) -> dict[str, Any]:
    """Map and loss side by side, and for narrow screens one below the other."""
    sides = [high - low for low, high in surface.window]
    ratio = sides[1] / sides[0] if equal_scales(surface) and not three_d else 1
    upper, gap, lower = min(330, 320 * ratio), 75, 270
    whole = upper + gap + lower
    stacked = ((0, 1), (1 - upper / whole, 1)), ((0, 1), (0, lower / whole))
    return {
        "wide": _placed(three_d, 520, (((0, 0.5), (0, 1)), ((0.57, 1), (0, 1))), top=90),
        "narrow": _placed(three_d, whole, stacked, top=155),
    }


def _placed(three_d: bool, height: float, domains: Any, top: int, bottom: int = 110) -> dict[str, Any]:
    """Where everything is: `height` of the axes and margins in pixels, domains of map and loss in shares."""
    found = {
        "height": height + top + bottom,
        "margin.t": top,
        "margin.b": bottom,
        "legend.y": 1 + 32 / height,
    }
    found |= {"sliders[0].y": -55 / height, "updatemenus[0].y": -75 / height}
    keys = ("scene.domain.x", "scene.domain.y") if three_d else ("xaxis.domain", "yaxis.domain")
    for i, ((x, y), at) in enumerate(zip(domains, (keys, ("xaxis2.domain", "yaxis2.domain")), strict=True)):
        found |= {at[0]: x, at[1]: y, f"annotations[{i}].x": x[0], f"annotations[{i}].y": y[1] + 5 / height}
    return found


def _add_controls(go: Any, figure: Any, lines: list[Any], first: int, last: int) -> None:
    """Add frames, and the button and slider that run through them; without Play all is shown."""
    steps = sorted({*range(0, last + 1, 1 + last // _MAX_FRAMES), last})
    keys = [[key for key in ("x", "y", "z") if key in line] for line in lines]
    figure.frames = [
        go.Frame(
            name=str(t),
            data=[
                type(line)(**{key: line[key][: t + 1] for key in has})
                for line, has in zip(lines, keys, strict=True)
            ],
            traces=list(range(first, first + len(lines))),
        )
        for t in steps
    ]
    now = {"frame": {"duration": 50, "redraw": True}, "fromcurrent": True, "transition": {"duration": 0}}
    at_once = {**now, "mode": "immediate"}
    play = {"label": "▶ Play", "method": "animate", "args": [None, {**now, "fromcurrent": False}]}
    pause = {"label": "❚❚", "method": "animate", "args": [[None], at_once]}
    buttons = {"type": "buttons", "direction": "left", "buttons": [play, pause], "x": 0, "xanchor": "left"}
    marks = [{"label": str(t), "method": "animate", "args": [[str(t)], at_once]} for t in steps]
    slider = {"steps": marks, "active": len(marks) - 1, "x": 0.3, "len": 0.7}
    figure.update_layout(
        updatemenus=[{**buttons, "yanchor": "top", "showactive": False, "pad": {"t": 8}}],
        sliders=[
            {
                **slider,
                "currentvalue": {"prefix": "step ", "xanchor": "right"},
                "ticklen": 0,
                "minorticklen": 0,
            }
        ],
    )
    # Without numbers at every mark: they would lie over each other.
    figure.layout.sliders[0].font = {"color": "rgba(0,0,0,0)", "size": 1}
    figure.layout.sliders[0].currentvalue.font = {
        "size": 12,
        "color": figure.layout.template.layout.modebar.color,
    }
