"""What a picture of the gallery is, and the builder that draws it."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thalweg import plot
from thalweg.errors import nearest
from thalweg.plot.paths import line_styles
from thalweg.plot.theme import LineStyle, Theme, find_theme
from thalweg.surfaces.paths import Path
from thalweg.surfaces.race import Race, described

Styles = Mapping[str, LineStyle]


@dataclass
class FigureBuilder:
    """A figure while it is drawn.

    Attributes:
        theme: its colours.
        scale: its size, as a multiple of the usual.
        detail: how fine surfaces are drawn, as a multiple of the usual, and how long is computed.
        paths: those drawn, by label, for the caption.
    """

    theme: Theme
    scale: float = 1.0
    detail: float = 1.0
    paths: dict[str, Path] = field(default_factory=dict)
    figure: Figure = field(init=False)

    def axes(
        self, rows: int = 1, columns: int = 1, size: tuple[float, float] = (10.0, 4.4), **options: Any
    ) -> list[Axes]:
        """Axes of the theme, row by row."""
        self.figure = self.theme.figure((size[0] * self.scale, size[1] * self.scale))
        made = self.figure.subplots(rows, columns, squeeze=False, **options)
        return [self.theme.style_axes(ax) for ax in made.flat]

    def map(self, ax: Axes, paths: Mapping[str, Path], title: str = "", styles: Styles | None = None) -> None:
        """Draw the paths over their surface."""
        self.paths |= paths
        plot.path(paths, ax=ax, theme=self.theme, styles=styles, count=max(40, int(240 * self.detail)))
        self.set_title(ax, title)

    def loss(
        self, ax: Axes, paths: Mapping[str, Path], title: str = "", styles: Styles | None = None
    ) -> None:
        """Draw the loss of each path after each step."""
        self.paths |= paths
        plot.loss(paths, ax=ax, theme=self.theme, styles=styles)
        self.set_title(ax, title)

    def race(
        self, paths: Mapping[str, Path], title: str = "", *, graded: bool = False, height: float = 4.4
    ) -> None:
        """Draw map and loss side by side; `graded` where paths differ by one number, in order."""
        styles = self.graded_styles(paths) if graded else line_styles(paths, self.theme)
        left, right = self.axes(1, 2, (10.0, height), width_ratios=(1.35, 1))
        self.map(left, paths, title, styles)
        self.loss(right, paths, "Loss after each step", styles)
        self.add_legend(right)

    def curves(
        self,
        ax: Axes,
        curves: Mapping[str, tuple[Any, Any]],
        title: str = "",
        styles: Styles | None = None,
    ) -> None:
        """Draw curves (x, y) by label."""
        self.theme.add_grid(ax)
        styles = styles or {label: self.theme.line_style(i) for i, label in enumerate(curves)}
        for label, (x, y) in curves.items():
            ax.plot(x, y, **styles[label].matplotlib, linewidth=1.7, label=label)
        self.set_title(ax, title)

    def graded_styles(self, labels: Mapping[str, Any]) -> Styles:
        """Styles of lines that differ by one number, by label, smallest first."""
        return dict(zip(labels, self.theme.graded_styles(len(labels)), strict=True))

    def set_title(self, ax: Axes, title: str) -> None:
        """Set a title."""
        self.theme.set_title(ax, title)

    def add_legend(self, source: Axes, columns: int = 7) -> None:
        """Add one legend below the whole figure, of what `source` has."""
        handles, labels = source.get_legend_handles_labels()
        self.theme.add_legend(self.figure, handles=handles, labels=labels, ncols=min(columns, len(labels)))

    def arrivals(self, race: Race) -> str:
        """After how many steps each arrived, as a sentence."""
        steps = (f"{label} {'not' if t is None else t}" for label, t in race.arrivals.items())
        return f"Steps {race.goal.sentence}: {', '.join(steps)}."

    def caption(self, text: str, how: str = "") -> str:
        """A caption: what to see, then every setting in use and how it was chosen."""
        surfaces: dict[str, dict[str, Path]] = {}
        for label, one in self.paths.items():
            surfaces.setdefault(one.surface.unicode() + str(one.surface.noise), {})[label] = one
        settings = " ".join(described(paths) for paths in surfaces.values())
        return " ".join(part for part in (" ".join(text.split()), settings, how) if part)


@dataclass(frozen=True)
class CaptionedFigure:
    """A picture as drawn.

    Attributes:
        figure: a matplotlib figure.
        caption: what to see, the settings, and how they were chosen: one paragraph.
        paths: those shown, by label.
    """

    figure: Figure
    caption: str
    paths: Mapping[str, Path]


@dataclass(frozen=True)
class Picture:
    """One picture of the gallery.

    Attributes:
        name: as `get` takes it.
        title: what it is about.
        function: draws with a builder and returns the caption.
    """

    name: str
    title: str
    function: Callable[[FigureBuilder], str]

    def draw(
        self, *, theme: str | Theme = "light", scale: float = 1.0, detail: float = 1.0
    ) -> CaptionedFigure:
        """Draw it.

        Args:
            theme: "light" or "dark".
            scale: its size, as a multiple of the usual.
            detail: how fine, as a multiple of the usual: less is sooner.

        Raises:
            ImportError: a package that the picture's data needs is not installed.
        """
        builder = FigureBuilder(find_theme(theme), scale, detail)
        caption = self.function(builder)
        return CaptionedFigure(builder.figure, caption, dict(builder.paths))

    @property
    def code(self) -> str:
        """The function that draws it, as written."""
        source = inspect.getsource(self.function)
        return source[source.index("def ") :].rstrip()


_PICTURES: dict[str, Picture] = {}


def picture(
    name: str, title: str
) -> Callable[[Callable[[FigureBuilder], str]], Callable[[FigureBuilder], str]]:
    """Register the function below as a picture."""

    def register(function: Callable[[FigureBuilder], str]) -> Callable[[FigureBuilder], str]:
        _PICTURES[name] = Picture(name, title, function)
        return function

    return register


def names() -> Sequence[str]:
    """The names that `get` takes."""
    return list(_PICTURES)


def get(name: str) -> Picture:
    """A picture by name.

    Raises:
        ValueError: none has the name; the message names the nearest.
    """
    key = name.lower().replace("_", "-")
    if key not in _PICTURES:
        raise ValueError(f"no figure is named {name!r}; {nearest(name, _PICTURES)}")
    return _PICTURES[key]
