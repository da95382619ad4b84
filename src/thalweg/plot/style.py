"""How pictures look: two themes, and what each rule is drawn with."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from mpl_toolkits.mplot3d.axes3d import Axes3D

from thalweg import palette
from thalweg.registry import rules
from thalweg.rule import Rule
from thalweg.statefile import replaced
from thalweg.surfaces.paths import Path


@dataclass(frozen=True)
class Theme:
    """The colours of one kind of paper.

    Attributes:
        paper, ink, faint, grid: behind everything; of words; of what is secondary; of lines behind data.
        colours: of contestants.
        ordered: from the smallest to the largest number.
        ramp: of heights, from low to high.
    """

    name: str
    paper: str
    ink: str
    faint: str
    grid: str
    colours: Sequence[str]
    ordered: Sequence[str]
    ramp: Sequence[str]

    @property
    def heights(self) -> LinearSegmentedColormap:
        """Of surfaces: pale, so that paths stand out."""
        return LinearSegmentedColormap.from_list("heights", list(self.ramp))

    @property
    def order(self) -> LinearSegmentedColormap:
        """Of numbers."""
        return LinearSegmentedColormap.from_list("order", list(self.ordered))


THEMES = {
    "light": Theme(
        *("light", "#ffffff", "#1f2328", "#59636e", "#d0d7de", palette.LIGHT, palette.ORDERED_LIGHT),
        ("#c3d3de", "#dbe5ec", "#edf2f5", "#fafbfc"),
    ),
    "dark": Theme(
        *("dark", "#14181d", "#e6edf3", "#9aa4af", "#3a424b", palette.DARK, palette.ORDERED_DARK),
        ("#3a4a5a", "#2b3743", "#202932", "#181e25"),
    ),
}


class Look(NamedTuple):
    """How a contestant is drawn."""

    colour: str
    dashes: tuple[float, ...]

    @property
    def line(self) -> Any:
        """As matplotlib takes a line's style."""
        return (0, self.dashes) if self.dashes else "-"


# The classical rules have the colours that are told apart best.
_FIRST = ("sgd", "momentum", "adagrad", "adam", "rmsprop", "nesterov", "adadelta", "nadam")


def theme_named(theme: str | Theme) -> Theme:
    """A theme, given by itself or by name.

    Raises:
        ValueError: there is none of the name.
    """
    if isinstance(theme, Theme):
        return theme
    if theme not in THEMES:
        raise ValueError(f"no theme is named {theme!r}; known: {', '.join(THEMES)}")
    return THEMES[theme]


def looks(paths: Mapping[str, Path], theme: Theme) -> dict[str, Look]:
    """Each path's look by label: a rule's own, the same in every picture, where no rule comes twice."""
    kinds = [p.method.name for p in paths.values()]
    known = [*_FIRST, *(name for name in rules() if name not in _FIRST)]
    own = (
        len({*kinds}) == len(kinds)
        and {*kinds} <= {*known}
        and all(isinstance(p.method, Rule) for p in paths.values())
    )
    places = [known.index(kind) for kind in kinds] if own else range(len(kinds))
    return {
        label: Look(theme.colours[i % len(theme.colours)], palette.DASHES[i % len(palette.DASHES)])
        for label, i in zip(paths, places, strict=True)
    }


def graded(labels: Iterable[str], theme: Theme) -> dict[str, Look]:
    """Looks of what differs by one number, smallest first: by a scale of colours, and by dashes."""
    listed = list(labels)
    colours = [theme.order(i / max(1, len(listed) - 1)) for i in range(len(listed))]
    return {
        label: Look(matplotlib.colors.to_hex(colour), palette.DASHES[i % len(palette.DASHES)])
        for i, (label, colour) in enumerate(zip(listed, colours, strict=True))
    }


def figure(theme: Theme, size: tuple[float, float]) -> Figure:
    """An empty figure on the theme's paper; no window is opened for it."""
    made = Figure(figsize=size, layout="constrained", facecolor=theme.paper, dpi=150)
    made.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    return made


def own_axes(ax: Axes | None, theme: Theme, size: tuple[float, float] = (5.4, 4.2)) -> Axes:
    """The axes given, or new ones; dressed."""
    return dress(ax if ax is not None else figure(theme, size).add_subplot(), theme)


def dress(ax: Axes, theme: Theme) -> Axes:
    """Axes in the theme's colours, said outright: ticks are made later, under whatever style holds then."""
    ax.set_facecolor(theme.paper)
    ax.tick_params(which="both", colors=theme.faint, labelcolor=theme.ink, labelsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[:].set_color(theme.grid)
    for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
        text.set_color(theme.ink)
    return ax


def dress_3d(ax: Axes3D, theme: Theme) -> Axes3D:
    """Likewise, of a view in three dimensions."""
    ax.set_facecolor(theme.paper)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_pane_color(theme.paper)
        axis.line.set_color(theme.grid)
        axis.label.set_color(theme.ink)
        axis._axinfo["grid"]["color"] = theme.grid  # there is no public way
    ax.tick_params(colors=theme.faint, labelcolor=theme.ink, labelsize=8)
    return ax


def title(ax: Axes, text: str, theme: Theme) -> None:
    """A heading, to the left as one reads."""
    ax.set_title(text, loc="left", fontsize=10.5, fontweight="bold", color=theme.ink)


def lined(ax: Axes, theme: Theme) -> Axes:
    """With faint lines at the ticks, for reading numbers off."""
    ax.grid(visible=True, color=theme.grid, linewidth=0.6, alpha=0.7)
    ax.set_axisbelow(True)
    return ax


def legend(target: Axes | Figure, theme: Theme, **options: Any) -> None:
    """A legend in the theme's colours; a figure's stands below it."""
    where = {"loc": "outside lower center"} if isinstance(target, Figure) else {"loc": "best"}
    kind = target.legend(**{**where, "fontsize": 9, "handlelength": 3.2, "labelcolor": theme.ink, **options})
    frame = kind.get_frame()
    frame.set_facecolor(theme.paper)
    frame.set_linewidth(0)
    frame.set_alpha(0.85)


def halo(theme: Theme, width: float = 3.4) -> list[Any]:
    """Sets a line or mark off from what lies under it."""
    return [Stroke(linewidth=width, foreground=theme.paper), Normal()]


# Else every SVG would have other names of its parts, and a font of its own.
_STEADY: Any = {"svg.hashsalt": "thalweg", "svg.fonttype": "none"}


def save(drawn: Figure | Axes, file: str | File) -> None:
    """Write a figure, or the figure of axes: .png, .svg or .pdf; equal bytes from equal data.

    Raises:
        OSError: it cannot be written.
    """
    whole: Any = drawn if isinstance(drawn, Figure) else drawn.figure
    undated = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    kind = File(file).suffix.lower().removeprefix(".") or "png"
    with replaced(File(file)) as out, matplotlib.rc_context(_STEADY):
        whole.savefig(out, format=kind, metadata=undated.get(kind))
