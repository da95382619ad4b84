"""What a picture of the gallery is, and the sheet that it is drawn on."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thalweg import palette, plot
from thalweg.errors import nearest
from thalweg.plot import style
from thalweg.plot.style import Look, Theme
from thalweg.surfaces.paths import Path
from thalweg.surfaces.race import Race, described


@dataclass
class Sheet:
    """Paper to draw one picture on.

    Attributes:
        theme: its colours.
        scale: its size, beside the usual.
        detail: how fine surfaces are drawn, beside the usual; and how long what is slow is computed.
        paths: what was drawn, by label, for the caption.
    """

    theme: Theme
    scale: float = 1.0
    detail: float = 1.0
    paths: dict[str, Path] = field(default_factory=dict)
    figure: Figure = field(init=False)

    def axes(
        self, rows: int = 1, columns: int = 1, size: tuple[float, float] = (10.0, 4.4), **options: Any
    ) -> list[Axes]:
        """Dressed axes, row by row."""
        self.figure = style.figure(self.theme, (size[0] * self.scale, size[1] * self.scale))
        made = self.figure.subplots(rows, columns, squeeze=False, **options)
        return [style.dress(ax, self.theme) for ax in made.flat]

    def map(
        self, ax: Axes, paths: Mapping[str, Path], title: str = "", looks: Mapping[str, Look] | None = None
    ) -> Axes:
        """The paths over their surface."""
        self.paths |= paths
        plot.path(paths, ax=ax, theme=self.theme, looks=looks, count=max(40, int(240 * self.detail)))
        return self.titled(ax, title)

    def loss(
        self, ax: Axes, paths: Mapping[str, Path], title: str = "", looks: Mapping[str, Look] | None = None
    ) -> Axes:
        """The loss of each path after each step."""
        self.paths |= paths
        plot.loss(paths, ax=ax, theme=self.theme, looks=looks)
        return self.titled(ax, title)

    def race(
        self, paths: Mapping[str, Path], title: str = "", *, graded: bool = False, tall: float = 4.4
    ) -> list[Axes]:
        """Map and loss side by side with one legend; `graded` where paths differ by one number, in order."""
        looks = style.graded(paths, self.theme) if graded else style.looks(paths, self.theme)
        left, right = self.axes(1, 2, (10.0, tall), width_ratios=(1.35, 1))
        self.map(left, paths, title, looks)
        self.loss(right, paths, "Loss after each step", looks)
        self.legend(right)
        return [left, right]

    def lines(self, ax: Axes, curves: Mapping[str, tuple[Any, Any]], **labels: Any) -> Axes:
        """Curves (x, y) by label."""
        style.lined(ax, self.theme)
        for i, (label, (x, y)) in enumerate(curves.items()):
            look = self.look(i)
            ax.plot(x, y, color=look.colour, linestyle=look.line, linewidth=1.7, label=label)
        ax.set(**labels)
        return ax

    def look(self, i: int) -> Look:
        """The i-th look."""
        return Look(self.theme.colours[i % len(self.theme.colours)], palette.DASHES[i % len(palette.DASHES)])

    def titled(self, ax: Axes, title: str) -> Axes:
        """The axes with a heading."""
        if title:
            style.title(ax, title, self.theme)
        return ax

    def legend(self, source: Axes, columns: int = 7) -> None:
        """One legend below the whole picture, of what `source` has."""
        handles, labels = source.get_legend_handles_labels()
        style.legend(self.figure, self.theme, handles=handles, labels=labels, ncols=min(columns, len(labels)))

    def arrived(self, race: Race) -> str:
        """When each arrived, in words."""
        said = {label: "not" if t is None else str(t) for label, t in race.arrivals.items()}
        return f"Steps {race.goal.sentence}: {', '.join(f'{label} {t}' for label, t in said.items())}."

    def said(self, text: str, how: str = "") -> str:
        """A caption: what to see, then every setting in use and how it was chosen."""
        text = " ".join(text.split())
        surfaces: dict[str, dict[str, Path]] = {}
        for label, one in self.paths.items():
            surfaces.setdefault(one.surface.unicode() + str(one.surface.noise), {})[label] = one
        settings = " ".join(described(paths) for paths in surfaces.values())
        return " ".join(part for part in (text, settings, how) if part)


@dataclass(frozen=True)
class Drawn:
    """A picture.

    Attributes:
        figure: a matplotlib figure.
        caption: what to see, the settings, and how they were chosen: one paragraph.
        paths: what it shows, by label, where it shows paths.
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
        function: draws on a sheet and returns the caption.
    """

    name: str
    title: str
    function: Callable[[Sheet], str]

    def draw(self, *, theme: str | Theme = "light", scale: float = 1.0, detail: float = 1.0) -> Drawn:
        """Draw it.

        Args:
            theme: "light" or "dark".
            scale: its size, beside the usual.
            detail: how fine, beside the usual: less is sooner.

        Raises:
            ImportError: what the picture's data needs is not there.
        """
        sheet = Sheet(style.theme_named(theme), scale, detail)
        caption = self.function(sheet)
        return Drawn(sheet.figure, caption, dict(sheet.paths))

    @property
    def code(self) -> str:
        """The function that draws it, as written."""
        source = inspect.getsource(self.function)
        return source[source.index("def ") :].rstrip()


_PICTURES: dict[str, Picture] = {}


def picture(name: str, title: str) -> Callable[[Callable[[Sheet], str]], Callable[[Sheet], str]]:
    """Registers the function below it as a picture."""

    def register(function: Callable[[Sheet], str]) -> Callable[[Sheet], str]:
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
