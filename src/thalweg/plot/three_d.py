"""Surfaces and paths in three dimensions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.axes3d import Axes3D

from thalweg.plot import style
from thalweg.plot.paths import Array, Paths, in_sight, levels, loss, named
from thalweg.plot.style import Look, Theme
from thalweg.surfaces.functions import Surface
from thalweg.surfaces.paths import named_surface

# Seen from above the valley, not from behind a wall.
_VIEW = {"elev": 48.0, "azim": -62.0}


def lowered(surface: Surface, values: Array, heights: Array) -> Array:
    """Values on a scale on which both the walls and the bottom of the valley are seen.

    By a root of the height over the lowest, where the surface has a bottom: else as they are.
    """
    shown = np.clip(values, heights[0], heights[-1])
    if not surface.minima:
        return np.asarray(shown)
    return np.asarray(np.maximum(shown - surface.lowest, 0) ** (1 / _root(surface, heights)))


def upward(surface: Surface, heights: Array) -> str:
    """What the vertical axis shows."""
    if not surface.minima:
        return "f"
    return f"{'√' if _root(surface, heights) == 2 else '⁴√'}(f − lowest)"


def _root(surface: Surface, heights: Array) -> int:
    """The second, or the fourth where walls are a thousand times as high as half of the window."""
    above = heights - surface.lowest
    return 4 if above[-1] > 1000 * above[len(above) // 2] else 2


def scale(surface: Surface) -> tuple[Array, Array]:
    """The grid (n, n, 2) that is drawn, and the heights between which it is."""
    points = surface.grid(90)
    return points, levels(surface.value(points))


def inside(surface: Surface, points: Array) -> Array:
    """Which points (…) lie in the window."""
    low, high = np.asarray(surface.window).T
    return np.asarray(((points >= low) & (points <= high)).all(axis=-1))


def surface_3d(surface: Surface | str, *, ax: Axes3D | None = None, theme: str | Theme = "light") -> Axes3D:
    """Draw a surface in three dimensions; heights by their root, so that the valley's floor is seen too.

    Args:
        surface: a surface of two dimensions, or the name of one.
        ax: axes to draw into, made with projection="3d"; new ones by default.
        theme: "light" or "dark".

    Raises:
        ValueError: a surface of other than two dimensions.
    """
    surface, theme = named_surface(surface), style.theme_named(theme)
    if surface.dimensions != 2:
        raise ValueError(f"{surface.name} has {surface.dimensions} dimensions; a view needs two")
    if ax is None:
        ax = style.figure(theme, (6, 5)).add_subplot(projection="3d")
    style.dress_3d(ax, theme)
    points, heights = scale(surface)
    z = lowered(surface, surface.value(points), heights)
    x, y = points[..., 0], points[..., 1]
    look: Any = {"cmap": theme.heights, "linewidth": 0.15, "edgecolor": theme.faint, "alpha": 0.85}
    ax.plot_surface(x, y, z, rcount=45, ccount=45, **look)
    ax.set(xlabel="x", ylabel="y", xlim=surface.window[0], ylim=surface.window[1])
    ax.set_zlabel(upward(surface, heights))
    ax.view_init(**_VIEW)
    ax.set_box_aspect((1, 1, 0.6), zoom=1.05)
    return ax


def track(path_points: Array, surface: Surface) -> tuple[Array, Array, Array]:
    """A path in the view; what leaves the window is left out."""
    _, heights = scale(surface)
    z = lowered(surface, surface.value(path_points), heights)
    z = np.where(inside(surface, path_points), z, np.nan)
    # A little above the ground: between its grid's points it would sink in.
    lift = 0.015 * float(np.ptp(lowered(surface, heights, heights)))
    return path_points[..., 0], path_points[..., 1], z + lift


def race_3d(
    paths: Paths,
    *,
    theme: str | Theme = "light",
    looks: Mapping[str, Look] | None = None,
    size: tuple[float, float] = (11.0, 5.2),
) -> Figure:
    """The view with all paths, the loss beside it, and one legend below both; takes what `race` takes.

    Raises:
        ValueError: a surface of other than two dimensions.
    """
    given, theme = named(paths), style.theme_named(theme)
    looks = looks or style.looks(given, theme)
    down = next(iter(given.values())).surface
    whole = style.figure(theme, size)
    grid = whole.add_gridspec(1, 2, width_ratios=(1.5, 1))
    view = surface_3d(down, ax=whole.add_subplot(grid[0], projection="3d"), theme=theme)
    for label, one in given.items():
        look = looks[label]
        x, y, z = track(in_sight(one), down)
        view.plot(x, y, z, color=look.colour, linestyle=look.line, linewidth=2, zorder=10, label=label)
    style.title(view, down.title, theme)
    beside = whole.add_subplot(grid[1])
    loss(given, ax=beside, theme=theme, looks=looks)
    style.title(beside, "Loss after each step", theme)
    handles, labels = beside.get_legend_handles_labels()
    style.legend(whole, theme, handles=handles, labels=labels, ncols=min(len(labels), 7))
    return whole
