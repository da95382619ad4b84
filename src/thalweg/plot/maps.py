"""Maps: which start ends where, and which learning rate arrives how soon."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from thalweg.plot.paths import surface
from thalweg.plot.theme import Theme, find_theme
from thalweg.surfaces.maps import Basins, RateMap


def basins(found: Basins, *, ax: Axes | None = None, theme: str | Theme = "light") -> Axes:
    """Draw which start ends in which minimum: a colour each, none for what ends elsewhere.

    Args:
        found: of starts on a grid over a surface of two dimensions, as `thalweg.basins` makes them.
        ax: axes to draw into; new ones by default.
        theme: "light" or "dark".

    Raises:
        ValueError: starts that are no grid.
    """
    theme = find_theme(theme)
    if found.labels.ndim != 2:
        raise ValueError(f"basins are drawn from a grid of starts (rows, columns), got {found.labels.shape}")
    ax = surface(found.surface, ax=ax, theme=theme)
    # Eight colours for any number of minima: neighbours in the list stand apart in the picture.
    coloured = np.ma.masked_less(found.labels, 0) % len(theme.series)
    (left, right), (low, high) = found.surface.window
    ax.imshow(
        coloured,
        extent=(left, right, low, high),
        origin="lower",
        aspect=ax.get_aspect(),
        cmap=ListedColormap(list(theme.series)),
        vmin=-0.5,
        vmax=len(theme.series) - 0.5,
        alpha=0.55,
        interpolation="nearest",
        zorder=0.5,
    )
    return ax


def rate_map(found: RateMap, *, ax: Axes | None = None, theme: str | Theme = "light") -> Axes:
    """Draw how many steps a rule needs over one or two hyperparameters.

    Nothing is drawn where it diverged or did not arrive. Beyond the dashed line it diverges in theory; the
    star is the best.

    Args:
        found: as `thalweg.rate_map` makes it.
        ax: axes to draw into; new ones by default.
        theme: "light" or "dark".
    """
    theme = find_theme(theme)
    ax = theme.axes(ax)
    names = list(found.axes)
    steps = np.ma.masked_less(found.steps, 0)
    if len(names) == 1:
        ax.plot(found.axes[names[0]], steps, color=theme.series[0], linewidth=1.7)
        ax.set(xlabel=names[0], ylabel="steps to arrive")
        return theme.add_grid(ax)
    # The learning rate lies along the bottom, wherever it was given.
    x, y = (names[::-1]) if names[1] == "lr" else names
    shown = steps.T if x == names[0] else steps
    drawn = ax.pcolormesh(
        found.axes[x], found.axes[y], shown, cmap=theme.sequential_colormap.reversed(), shading="nearest"
    )
    if ax.figure:
        bar = ax.figure.colorbar(drawn, ax=ax)
        theme.style_axes(bar.ax)
        bar.set_label("steps to arrive", color=theme.text)
        bar.outline.set_visible(False)
    if found.limit is not None and x == "lr":
        ax.plot(found.limit, found.axes[y], color=theme.text, linewidth=1.3, linestyle="--")
        ax.set_xlim(found.axes[x].min(), found.axes[x].max())
    if found.best:
        star: Any = {"color": theme.background, "markeredgecolor": theme.text, "markersize": 12}
        ax.plot(found.best[x], found.best[y], "*", **star)
    ax.set(xlabel=x, ylabel=y)
    return ax
