"""Surfaces from above, the paths shared them, and the loss along the way."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from thalweg.plot.theme import LineStyle, Theme, find_theme
from thalweg.registry import rules
from thalweg.rule import Rule
from thalweg.rules import WELL_KNOWN
from thalweg.surfaces.functions import Surface
from thalweg.surfaces.paths import Path, named_surface
from thalweg.surfaces.race import labelled

Array: TypeAlias = NDArray[np.float64]
Paths: TypeAlias = Mapping[str, Path] | Sequence[Path] | Path

# The best-known rules have the colours that differ most.
FIRST = WELL_KNOWN[:8]

# Beyond so many half windows from the centre a path is not followed further.
_REACH = 4.0

# matplotlib cannot scale an axis to values beyond it.
_LARGEST = 1e300

# Of more steps than these, dots would lie over each other.
_MAX_DOTS = 120


def by_label(paths: Paths) -> Mapping[str, Path]:
    """Paths by label, given as one path, several, or by label.

    Raises:
        ValueError: no path, paths of several surfaces, or many paths in one.
    """
    if isinstance(paths, Mapping):
        found = dict(paths)
    else:
        found = labelled([paths] if isinstance(paths, Path) else list(paths))
    if not found:
        raise ValueError("there is no path to draw")
    if any(p.shape for p in found.values()):
        raise ValueError("only single paths can be drawn; take one of many by its index: many[0]")
    return found


def line_styles(paths: Mapping[str, Path], theme: Theme) -> dict[str, LineStyle]:
    """Each path's style by label: the same for a rule in every picture in which no rule comes twice."""
    names = [p.method.name for p in paths.values()]
    known = [*FIRST, *(name for name in rules() if name not in FIRST)]
    own = (
        len({*names}) == len(names)
        and {*names} <= {*known}
        and all(isinstance(p.method, Rule) for p in paths.values())
    )
    places = [known.index(name) for name in names] if own else range(len(names))
    return {label: theme.line_style(i) for label, i in zip(paths, places, strict=True)}


def contour_levels(values: Array, count: int = 22) -> Array:
    """Heights for contour lines, close together at the bottom, where the valley is."""
    finite = values[np.isfinite(values)]
    if not finite.size:  # a formula may have no value anywhere in the window
        return np.arange(3.0)
    levels = np.unique(np.quantile(finite, np.linspace(0, 1, count + 1) ** 1.8))
    return levels if len(levels) > 2 else np.linspace(finite.min() - 1, finite.max() + 1, 3)


def equal_scales(surface: Surface) -> bool:
    """Whether a map of it has one scale along both axes: not where that would make it a thin strip."""
    if surface.dimensions != 2:
        return False
    (left, right), (low, high) = surface.window
    return 1 / 3 < (right - left) / (high - low) < 3


def points_to_draw(path: Path) -> Array:
    """The points (…, n) up to the first that lies far outside the window, moved closer to it."""
    low, high = np.asarray(path.surface.window).T
    from_centre = (path.points - (low + high) / 2) / (high - low) * 2
    with np.errstate(invalid="ignore"):
        far = ~(np.abs(from_centre).max(axis=-1) < _REACH)
    count = int(far.argmax()) + 1 if far.any() else len(far)
    drawn = np.clip(np.nan_to_num(from_centre[:count], nan=_REACH), -_REACH, _REACH)
    return np.asarray(drawn * (high - low) / 2 + (low + high) / 2)


def surface(
    surface: Surface | str,
    *,
    ax: Axes | None = None,
    theme: str | Theme = "light",
    count: int = 240,
) -> Axes:
    """Draw a surface with its known minima (stars) and saddles (crosses).

    Args:
        surface: a surface of one or two dimensions, or the name of one.
        ax: axes to draw into; new ones by default.
        theme: "light" or "dark".
        count: points of the grid along each side.

    Raises:
        ValueError: more than two dimensions.
    """
    surface, theme = named_surface(surface), find_theme(theme)
    ax = theme.axes(ax)
    if surface.dimensions > 2:
        raise ValueError(f"{surface.name} has {surface.dimensions} dimensions: there is no picture of it")
    points = surface.grid(count if surface.dimensions == 2 else 4 * count)
    values = surface.value(points)
    if surface.dimensions == 1:
        ax.plot(points[..., 0], values, color=theme.muted, linewidth=1.5, zorder=1)
        ax.set(xlabel="x", ylabel="f(x)", xlim=surface.window[0])
    else:
        draw_contours(ax, points[..., 0], points[..., 1], values, theme)
        ax.set(xlim=surface.window[0], ylim=surface.window[1], xlabel="x", ylabel="y")
        ax.set_aspect("equal" if equal_scales(surface) else "auto")
        ax.spines[:].set_visible(True)
    for found, marker, size in ((surface.minima, "*", 10), (surface.saddles, "X", 6)):
        if found:
            x, y = on_map(surface, np.array(found))
            share = 0.5 if len(found) > 20 else 1
            edge: Any = {"markeredgecolor": theme.background, "markeredgewidth": 0.8}
            ax.plot(x, y, marker, color=theme.text, markersize=share * size, zorder=6, **edge)
    return ax


def draw_contours(ax: Axes, x: Array, y: Array, values: Array, theme: Theme, count: int = 22) -> Any:
    """Draw values (rows, columns) as contours coloured by rank: equal areas look equally high.

    Returns:
        The contour lines, whose `levels` are ranks from 0 to 1, and the height of each.
    """
    heights = contour_levels(values, count)
    even = np.linspace(0, 1, len(heights))
    ranks = np.interp(values, heights, even)
    ax.contourf(x, y, ranks, even, cmap=theme.elevation_colormap, zorder=0)
    return ax.contour(x, y, ranks, even, colors=theme.grid, linewidths=0.6, zorder=1), heights


def path(
    paths: Paths,
    *,
    ax: Axes | None = None,
    theme: str | Theme = "light",
    styles: Mapping[str, LineStyle] | None = None,
    base: bool = True,
    **options: Any,
) -> Axes:
    """Draw paths over their surface from above: dots where steps end, a ring at the start.

    Args:
        paths: one path, several, or several by label.
        ax: axes to draw into; new ones by default.
        theme: "light" or "dark".
        styles: how each is drawn, by label; each rule's own by default.
        base: whether to draw the surface too.
        options: of `surface`.

    Raises:
        ValueError: more than two dimensions.
    """
    paths, theme = by_label(paths), find_theme(theme)
    styles = styles or line_styles(paths, theme)
    shared = next(iter(paths.values())).surface
    ax = surface(shared, ax=ax, theme=theme, **options) if base else theme.axes(ax)
    for label, one in paths.items():
        x, y = on_map(shared, points_to_draw(one))
        colour = styles[label].colour
        line_style = {**styles[label].matplotlib, "linewidth": 1.6}
        if shared.dimensions == 1:  # on a curve, a line from step to step would only hide it
            line_style["linestyle"] = "none"
        (line,) = ax.plot(x, y, **line_style, zorder=4, label=label)
        line.set_path_effects(theme.outline(3))
        if len(x) <= _MAX_DOTS or shared.dimensions == 1:
            size = 5 if shared.dimensions == 1 else 2.6 if len(x) <= 50 else 1.8
            ax.plot(x, y, "o", color=colour, markersize=size, zorder=4.5)
        ax.plot(x[-1:], y[-1:], "o", color=colour, markersize=6, zorder=5, markeredgecolor=theme.background)
    for start in {tuple(one.points[0]) for one in paths.values()}:
        x, y = on_map(shared, np.array([start]))
        edge: Any = {"markeredgecolor": theme.text, "markeredgewidth": 1.4}
        ax.plot(x, y, "o", markersize=7, markerfacecolor=theme.background, zorder=7, **edge)
    return ax


class LossCurves(NamedTuple):
    """What a plot of the loss shows.

    Attributes:
        values: after each step, by label; NaN where nothing is drawn.
        label: of the axis.
        log: whether the axis is logarithmic.
        limits: of the axis; None where all values are shown.
    """

    values: dict[str, Array]
    label: str
    log: bool
    limits: tuple[float, float] | None


def loss_curves(paths: Mapping[str, Path]) -> LossCurves:
    """The loss over the lowest value known; as it is where none is known or the surface has no bottom."""
    surface = next(iter(paths.values())).surface
    values = {label: one.values - (surface.lowest if surface.minima else 0) for label, one in paths.items()}
    highest = max((float(v[0]) for v in values.values() if math.isfinite(v[0])), default=0.0)
    # Below the floor all that is left is rounding; what diverges leaves the picture.
    floor, ceiling = 1e-9 * abs(highest), 100 * abs(highest)
    with np.errstate(invalid="ignore"):
        values = {label: np.where(np.abs(v) <= ceiling, v, np.nan) for label, v in values.items()}
        if surface.minima:
            values = {label: np.where(v >= floor, v, np.nan) for label, v in values.items()}
    if not surface.minima:
        return LossCurves(values, "loss", log=False, limits=_loss_limits(surface, highest))
    # Paths that start at the lowest point have nothing to show on a logarithmic axis.
    return LossCurves(values, "loss − lowest" if surface.lowest else "loss", log=highest > 0, limits=None)


def loss(
    paths: Paths,
    *,
    ax: Axes | None = None,
    theme: str | Theme = "light",
    styles: Mapping[str, LineStyle] | None = None,
) -> Axes:
    """Draw the loss after each step: over the lowest value known, on a logarithmic axis, where there is one.

    Takes what `path` takes.
    """
    paths, theme = by_label(paths), find_theme(theme)
    styles = styles or line_styles(paths, theme)
    ax = theme.add_grid(theme.axes(ax))
    curves = loss_curves(paths)
    for label, y in curves.values.items():
        ax.plot(np.arange(len(y)), y, **styles[label].matplotlib, linewidth=1.7, label=label)
    if curves.log:
        ax.set_yscale("log")
    if curves.limits:
        ax.set_ylim(*curves.limits)
    last = max(len(y) - 1 for y in curves.values.values())
    ax.set(xlabel="step", xlim=(0, max(1, last)), ylabel=curves.label)
    return ax


def race(
    paths: Paths,
    *,
    theme: str | Theme = "light",
    styles: Mapping[str, LineStyle] | None = None,
    size: tuple[float, float] | None = None,
    title: str | None = None,
    **options: Any,
) -> Figure:
    """The map with all paths, the loss beside it, and one legend below both.

    Takes what `path` takes, and the size in inches and a title for the map besides. Of a surface of more than
    two dimensions the loss alone is drawn.
    """
    paths, theme = by_label(paths), find_theme(theme)
    styles = styles or line_styles(paths, theme)
    shared = next(iter(paths.values())).surface
    figure = theme.figure(size or (10.0, _figure_height(shared)))
    if shared.dimensions > 2:
        loss_axes = figure.add_subplot()
    else:
        map_axes, loss_axes = figure.subplots(1, 2, width_ratios=(1.35, 1))
        path(paths, ax=map_axes, theme=theme, styles=styles, **options)
        theme.set_title(map_axes, title if title is not None else shared.title)
    add_loss(loss_axes, paths, theme, styles)
    return figure


def add_loss(ax: Axes, paths: Mapping[str, Path], theme: Theme, styles: Mapping[str, LineStyle]) -> None:
    """Draw the loss beside what its figure has already, and one legend below all."""
    loss(paths, ax=ax, theme=theme, styles=styles)
    theme.set_title(ax, "Loss after each step")
    handles, labels = ax.get_legend_handles_labels()
    figure: Any = ax.figure
    theme.add_legend(figure, handles=handles, labels=labels, ncols=min(len(labels), 7))


def on_map(surface: Surface, points: Array) -> tuple[Array, Array]:
    """Where points (…, n) are in the picture; on a curve, at their height."""
    if surface.dimensions == 1:
        return points[..., 0], surface.value(points)
    return points[..., 0], points[..., 1]


def _figure_height(surface: Surface) -> float:
    """The height of a figure ten inches wide in which a map with equal scales leaves little empty."""
    if surface.dimensions != 2:
        return 4.4
    width, height = (high - low for low, high in surface.window)
    return float(np.clip(5.4 * height / width + 1.3, 3.7, 5.6)) if height < 3 * width else 4.4


def _loss_limits(surface: Surface, highest: float) -> tuple[float, float]:
    """Limits for a loss without a bottom: as far below the saddle or window's middle as it began above."""
    level = float(surface.value(surface.saddles).min()) if surface.saddles else highest - abs(highest)
    reach = max(highest - level, 1e-9)
    return max(level - 1.2 * reach, -_LARGEST), min(highest + 0.1 * reach, _LARGEST)
