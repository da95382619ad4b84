"""Surfaces and paths in three dimensions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.axes3d import Axes3D

from thalweg.plot.paths import Array, Paths, add_loss, by_label, contour_levels, line_styles, points_to_draw
from thalweg.plot.theme import LineStyle, Theme, find_theme
from thalweg.surfaces.functions import Surface
from thalweg.surfaces.paths import named_surface

# From above the valley, not from behind a wall.
_VIEW = {"elev": 48.0, "azim": -62.0}


def z_scale(surface: Surface, values: Array, levels: Array) -> Array:
    """Values on a scale on which both the walls and the bottom of the valley are seen.

    By a root of the height over the lowest, where the surface has a bottom: else as they are.
    """
    clipped = np.clip(values, levels[0], levels[-1])
    if not surface.minima:
        return np.asarray(clipped)
    return np.asarray(np.maximum(clipped - surface.lowest, 0) ** (1 / _root(surface, levels)))


def z_label(surface: Surface, levels: Array) -> str:
    """What the vertical axis shows."""
    if not surface.minima:
        return "f"
    return f"{'√' if _root(surface, levels) == 2 else '⁴√'}(f − lowest)"


def _root(surface: Surface, levels: Array) -> int:
    """The second, or the fourth where walls are a thousand times as high as half of the window."""
    above = levels - surface.lowest
    return 4 if above[-1] > 1000 * above[len(above) // 2] else 2


def grid_and_levels(surface: Surface) -> tuple[Array, Array]:
    """The grid (n, n, 2) that is drawn, and heights from its lowest to its highest."""
    points = surface.grid(90)
    return points, contour_levels(surface.value(points))


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
    surface, theme = named_surface(surface), find_theme(theme)
    if surface.dimensions != 2:
        raise ValueError(
            f"{surface.name} has {surface.dimensions} dimensions; a view in 3d needs a surface of two"
        )
    if ax is None:
        ax = theme.figure((6, 5)).add_subplot(projection="3d")
    theme.style_axes_3d(ax)
    points, levels = grid_and_levels(surface)
    z = z_scale(surface, surface.value(points), levels)
    x, y = points[..., 0], points[..., 1]
    mesh: Any = {"linewidth": 0.15, "edgecolor": theme.muted, "alpha": 0.85}
    ax.plot_surface(x, y, z, rcount=45, ccount=45, cmap=theme.elevation_colormap, **mesh)
    ax.set(xlabel="x", ylabel="y", xlim=surface.window[0], ylim=surface.window[1])
    ax.set_zlabel(z_label(surface, levels))
    ax.view_init(**_VIEW)
    ax.set_box_aspect((1, 1, 0.6), zoom=1.05)
    return ax


def path_3d(surface: Surface, points: Array) -> tuple[Array, Array, Array]:
    """The coordinates of a path in the view; NaN outside the window."""
    _, levels = grid_and_levels(surface)
    z = z_scale(surface, surface.value(points), levels)
    z = np.where(inside(surface, points), z, np.nan)
    # A little above the surface: between its grid's points it would sink in.
    lift = 0.015 * float(np.ptp(z_scale(surface, levels, levels)))
    return points[..., 0], points[..., 1], z + lift


def race_3d(
    paths: Paths,
    *,
    theme: str | Theme = "light",
    styles: Mapping[str, LineStyle] | None = None,
    size: tuple[float, float] = (11.0, 5.2),
) -> Figure:
    """The view with all paths, the loss beside it, and one legend below both; takes what `race` takes.

    Raises:
        ValueError: a surface of other than two dimensions.
    """
    paths, theme = by_label(paths), find_theme(theme)
    styles = styles or line_styles(paths, theme)
    surface = next(iter(paths.values())).surface
    figure = theme.figure(size)
    grid = figure.add_gridspec(1, 2, width_ratios=(1.5, 1))
    view = surface_3d(surface, ax=figure.add_subplot(grid[0], projection="3d"), theme=theme)
    for label, one in paths.items():
        x, y, z = path_3d(surface, points_to_draw(one))
        view.plot(x, y, z, **styles[label].matplotlib, linewidth=2, zorder=10, label=label)
    theme.set_title(view, surface.title)
    add_loss(figure.add_subplot(grid[1]), paths, theme, styles)
    return figure
