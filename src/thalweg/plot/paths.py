"""Surfaces seen from above, the paths down them, and the loss along the way."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from thalweg.plot import style
from thalweg.plot.style import Look, Theme
from thalweg.surfaces.functions import Surface
from thalweg.surfaces.paths import Path, named_surface
from thalweg.surfaces.race import labelled

Array: TypeAlias = NDArray[np.float64]
Paths: TypeAlias = Mapping[str, Path] | Sequence[Path] | Path

# Beyond so many half windows from the centre a path is out of sight for good.
_SIGHT = 4.0

# Values beyond it have no room on an axis.
_MOST = 1e300

# So many steps are still told apart by their dots.
_DOTS = 120


def named(paths: Paths) -> Mapping[str, Path]:
    """Paths by label, however they were given.

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
        raise ValueError("what is drawn is single paths; take them from many by an index: many[0]")
    return found


def levels(values: Array, count: int = 22) -> Array:
    """Heights for contour lines, close together at the bottom, where the valley is."""
    seen = values[np.isfinite(values)]
    if not seen.size:  # a formula may have no value anywhere in sight
        return np.arange(3.0)
    found = np.unique(np.quantile(seen, np.linspace(0, 1, count + 1) ** 1.8))
    return found if len(found) > 2 else np.linspace(seen.min() - 1, seen.max() + 1, 3)


def in_sight(path: Path) -> Array:
    """The points (…, n) up to the first that lies far outside the window, moved to its rim."""
    low, high = np.asarray(path.surface.window).T
    from_centre = (path.points - (low + high) / 2) / (high - low) * 2
    with np.errstate(invalid="ignore"):
        out = ~(np.abs(from_centre).max(axis=-1) < _SIGHT)
    last = int(out.argmax()) + 1 if out.any() else len(out)
    far = np.clip(np.nan_to_num(from_centre[:last], nan=_SIGHT), -_SIGHT, _SIGHT)
    return np.asarray(far * (high - low) / 2 + (low + high) / 2)


def surface(
    surface: Surface | str,
    *,
    ax: Axes | None = None,
    theme: str | Theme = "light",
    count: int = 240,
) -> Axes:
    """Draw a surface with its known minima (stars), saddles (crosses) and nothing else.

    Args:
        surface: a surface of one or two dimensions, or the name of one.
        ax: axes to draw into; new ones by default.
        theme: "light" or "dark".
        count: points of the grid along each side.

    Raises:
        ValueError: more than two dimensions.
    """
    surface, theme = named_surface(surface), style.theme_named(theme)
    ax = style.own_axes(ax, theme)
    if surface.dimensions > 2:
        raise ValueError(f"{surface.name} has {surface.dimensions} dimensions: there is no picture of it")
    points = surface.grid(count if surface.dimensions == 2 else 4 * count)
    values = surface.value(points)
    if surface.dimensions == 1:
        ax.plot(points[..., 0], values, color=theme.faint, linewidth=1.5, zorder=1)
        ax.set(xlabel="x", ylabel="f(x)", xlim=surface.window[0])
    else:
        heights = levels(values)
        # Colours by rank: equal areas look equally high, whatever the heights.
        ranks = np.interp(values, heights, np.linspace(0, 1, len(heights)))
        even = np.linspace(0, 1, len(heights))
        grid = (points[..., 0], points[..., 1])
        ax.contourf(*grid, ranks, even, cmap=theme.heights, zorder=0)
        ax.contour(*grid, ranks, even, colors=theme.grid, linewidths=0.6, zorder=1)
        ax.set(xlim=surface.window[0], ylim=surface.window[1], xlabel="x", ylabel="y")
        (left, right), (low, high) = surface.window
        ax.set_aspect("equal" if 1 / 3 < (right - left) / (high - low) < 3 else "auto")
        ax.spines[:].set_visible(True)
    for found, marker, size in ((surface.minima, "*", 10), (surface.saddles, "X", 6)):
        if found:
            x, y = _on_map(surface, np.array(found))
            many = 0.5 if len(found) > 20 else 1
            edge: Any = {"markeredgecolor": theme.paper, "markeredgewidth": 0.8}
            ax.plot(x, y, marker, color=theme.ink, markersize=size * many, zorder=6, **edge)
    return ax


def path(
    paths: Paths,
    *,
    ax: Axes | None = None,
    theme: str | Theme = "light",
    looks: Mapping[str, Look] | None = None,
    base: bool = True,
    **options: Any,
) -> Axes:
    """Draw paths over their surface, seen from above: dots where steps end, a ring at the start.

    Args:
        paths: one path, several, or several by label.
        ax: axes to draw into; new ones by default.
        theme: "light" or "dark".
        looks: how each is drawn, by label; each rule's own by default.
        base: whether to draw the surface too.
        options: of `surface`.

    Raises:
        ValueError: more than two dimensions.
    """
    given, theme = named(paths), style.theme_named(theme)
    looks = looks or style.looks(given, theme)
    down = next(iter(given.values())).surface
    ax = surface(down, ax=ax, theme=theme, **options) if base else style.own_axes(ax, theme)
    for label, one in given.items():
        x, y = _on_map(down, in_sight(one))
        look = looks[label]
        size = 5 if down.dimensions == 1 else 2.6 if len(x) <= 50 else 1.8
        dots: Any = {"marker": "o", "markersize": size}
        # On a curve, a line from step to step would only hide it.
        stroke = look.line if down.dimensions > 1 else "none"
        (line,) = ax.plot(x, y, color=look.colour, linestyle=stroke, linewidth=1.6, zorder=4, label=label)
        line.set_path_effects(style.halo(theme, 3))
        if len(x) <= _DOTS or down.dimensions == 1:
            ax.plot(x, y, color=look.colour, linestyle="none", zorder=4.5, **dots)
        ax.plot(x[-1:], y[-1:], "o", color=look.colour, markersize=6, zorder=5, markeredgecolor=theme.paper)
    for at in {tuple(one.points[0]) for one in given.values()}:
        x, y = _on_map(down, np.array([at]))
        ring: Any = {"markerfacecolor": theme.paper, "markeredgecolor": theme.ink, "markeredgewidth": 1.4}
        ax.plot(x, y, "o", markersize=7, zorder=7, **ring)
    return ax


def height(path: Path) -> Array:
    """The values over the lowest known; as they are where none is known or the surface has no bottom."""
    return path.values - path.surface.lowest if path.surface.minima else path.values


def loss(
    paths: Paths,
    *,
    ax: Axes | None = None,
    theme: str | Theme = "light",
    looks: Mapping[str, Look] | None = None,
) -> Axes:
    """Draw the loss after each step: over the lowest value known, on a logarithmic axis, where there is one.

    Takes what `path` takes.
    """
    given, theme = named(paths), style.theme_named(theme)
    looks = looks or style.looks(given, theme)
    down = next(iter(given.values())).surface
    ax = style.lined(style.own_axes(ax, theme), theme)
    heights = {label: height(one) for label, one in given.items()}
    highest = max((float(h[0]) for h in heights.values() if math.isfinite(h[0])), default=0.0)
    # Below this, computers' rounding is all that is left to see; what is lost climbs out of the picture.
    floor, ceiling = 1e-9 * abs(highest), 100 * abs(highest)
    for label, values in heights.items():
        with np.errstate(invalid="ignore"):
            y = np.where(np.abs(values) <= ceiling, values, np.nan)
        y = np.where(y >= floor, y, np.nan) if down.minima else y
        look = looks[label]
        ax.plot(np.arange(len(y)), y, color=look.colour, linestyle=look.line, linewidth=1.7, label=label)
    if down.minima:
        if highest > 0:  # who starts at the lowest point has nothing to show on such an axis
            ax.set_yscale("log")
        ax.set_ylabel("loss − lowest" if down.lowest else "loss")
    else:
        ax.set_ylim(*_room(down, highest))
        ax.set_ylabel("loss")
    ax.set(xlabel="step", xlim=(0, max(1, *(len(h) - 1 for h in heights.values()))))
    return ax


def race(
    paths: Paths,
    *,
    theme: str | Theme = "light",
    looks: Mapping[str, Look] | None = None,
    size: tuple[float, float] | None = None,
    heading: str | None = None,
    **options: Any,
) -> Figure:
    """The map with all paths, the loss beside it, and one legend below both.

    Takes what `path` takes, and the size in inches and a heading for the map besides. A surface of more than
    two dimensions has the loss alone.
    """
    given, theme = named(paths), style.theme_named(theme)
    looks = looks or style.looks(given, theme)
    down = next(iter(given.values())).surface
    whole = style.figure(theme, size or (10.0, _tall(down)))
    if down.dimensions > 2:
        beside = whole.add_subplot()
    else:
        left, beside = whole.subplots(1, 2, width_ratios=(1.35, 1))
        path(given, ax=left, theme=theme, looks=looks, **options)
        style.title(left, heading if heading is not None else down.title, theme)
    loss(given, ax=beside, theme=theme, looks=looks)
    style.title(beside, "Loss after each step", theme)
    handles, labels = beside.get_legend_handles_labels()
    style.legend(whole, theme, handles=handles, labels=labels, ncols=min(len(labels), 7))
    return whole


def _on_map(surface: Surface, points: Array) -> tuple[Array, Array]:
    """Where points (…, n) stand in the picture; on a curve, at their height."""
    if surface.dimensions == 1:
        return points[..., 0], surface.value(points)
    return points[..., 0], points[..., 1]


def _tall(surface: Surface) -> float:
    """The height of a picture ten inches wide in which a map with equal scales leaves little empty."""
    if surface.dimensions != 2:
        return 4.4
    across, up = (high - low for low, high in surface.window)
    return float(np.clip(5.4 * up / across + 1.3, 3.7, 5.6)) if up < 3 * across else 4.4


def _room(surface: Surface, highest: float) -> tuple[float, float]:
    """What a loss without a bottom may fill: as far below the saddle or window's middle as it began above."""
    level = float(surface.value(surface.saddles).min()) if surface.saddles else highest - abs(highest)
    reach = max(highest - level, 1e-9)
    return max(level - 1.2 * reach, -_MOST), min(highest + 0.1 * reach, _MOST)
