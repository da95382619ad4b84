"""How every picture looks: a light and a dark theme, for matplotlib, plotly and pages."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from mpl_toolkits.mplot3d.axes3d import Axes3D

from thalweg import palette

FONTS = "system-ui, 'DejaVu Sans', sans-serif"


class LineStyle(NamedTuple):
    """How a line is drawn.

    Attributes:
        colour: as "#rrggbb".
        dashes: lengths of dash and gap, in line widths; none for a solid line.
    """

    colour: str
    dashes: tuple[float, ...] = ()

    @property
    def matplotlib(self) -> dict[str, Any]:
        """As `Axes.plot` takes it."""
        return {"color": self.colour, "linestyle": (0, self.dashes) if self.dashes else "-"}

    @property
    def plotly_dash(self) -> str:
        """As plotly's `line.dash`, for lines two pixels wide."""
        return ",".join(f"{2 * length:g}px" for length in self.dashes) or "solid"


@dataclass(frozen=True)
class Theme:
    """The colours of pictures on one background, and how figures get them.

    Attributes:
        background, panel, text, muted, grid: of the figure, of boxes on it, of text, of secondary text and
            marks, and of grid lines.
        series: of lines that differ in kind.
        sequential: of lines that differ by a number, from the smallest to the largest.
        elevation: of surfaces, from low to high: pale, so that paths stand out.
    """

    name: str
    background: str
    panel: str
    text: str
    muted: str
    grid: str
    series: Sequence[str]
    sequential: Sequence[str]
    elevation: Sequence[str]

    # -- lines and colours ------------------------------------------------------------------------

    def line_style(self, i: int) -> LineStyle:
        """The style of the i-th line: 24 differ."""
        return LineStyle(self.series[i % len(self.series)], palette.DASHES[i % len(palette.DASHES)])

    def graded_styles(self, count: int) -> list[LineStyle]:
        """Styles of lines that differ by one number, smallest first."""
        colours = [to_hex(self.sequential_colormap(i / max(1, count - 1))) for i in range(count)]
        return [LineStyle(c, palette.DASHES[i % len(palette.DASHES)]) for i, c in enumerate(colours)]

    @property
    def sequential_colormap(self) -> LinearSegmentedColormap:
        """Of numbers."""
        return LinearSegmentedColormap.from_list("sequential", list(self.sequential))

    @property
    def elevation_colormap(self) -> LinearSegmentedColormap:
        """Of a surface's heights."""
        return LinearSegmentedColormap.from_list("elevation", list(self.elevation))

    # -- matplotlib -------------------------------------------------------------------------------

    def figure(self, size: tuple[float, float]) -> Figure:
        """An empty figure of a size in inches; no window is opened for it."""
        made = Figure(figsize=size, layout="constrained", facecolor=self.background, dpi=150)
        made.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr, call-arg]
        return made

    def axes(self, ax: Axes | None = None, size: tuple[float, float] = (5.4, 4.2)) -> Axes:
        """The axes given, or those of a new figure, in these colours."""
        return self.style_axes(ax if ax is not None else self.figure(size).add_subplot())

    def style_axes(self, ax: Axes) -> Axes:
        """Give axes these colours, not through rcParams: ticks are made later, under whatever holds then."""
        ax.set_facecolor(self.background)
        ax.tick_params(which="both", colors=self.muted, labelcolor=self.text, labelsize=9)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[:].set_color(self.grid)
        for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
            text.set_color(self.text)
        return ax

    def style_axes_3d(self, ax: Axes3D) -> Axes3D:
        """Give axes in three dimensions these colours."""
        ax.set_facecolor(self.background)
        for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
            axis.set_pane_color(self.background)
            axis.line.set_color(self.grid)
            axis.label.set_color(self.text)
            axis._axinfo["grid"]["color"] = self.grid  # there is no public way
        ax.tick_params(colors=self.muted, labelcolor=self.text, labelsize=8)
        return ax

    def set_title(self, ax: Axes, text: str) -> None:
        """Set a title, to the left as one reads."""
        ax.set_title(text, loc="left", fontsize=10.5, fontweight="bold", color=self.text)

    def add_grid(self, ax: Axes) -> Axes:
        """Add faint lines at the ticks, for reading numbers off."""
        ax.grid(visible=True, color=self.grid, linewidth=0.6, alpha=0.7)
        ax.set_axisbelow(True)
        return ax

    def add_legend(self, target: Axes | Figure, **options: Any) -> None:
        """Add a legend; a figure's stands below it."""
        where = {"loc": "outside lower center"} if isinstance(target, Figure) else {"loc": "best"}
        text = {"fontsize": 9, "handlelength": 3.2, "labelcolor": self.text}
        frame = target.legend(**{**where, **text, **options}).get_frame()
        frame.set_facecolor(self.background)
        frame.set_linewidth(0)
        frame.set_alpha(0.85)

    def outline(self, width: float = 3.4) -> list[Any]:
        """Path effects that set a line or mark off from what lies under it."""
        return [Stroke(linewidth=width, foreground=self.background), Normal()]

    # -- plotly and pages -------------------------------------------------------------------------

    @property
    def plotly_template(self) -> dict[str, Any]:
        """As plotly's `layout.template`."""
        axis = {
            **{"gridcolor": self.grid, "linecolor": self.grid, "zeroline": False, "automargin": True},
            "title": {"standoff": 8},
        }
        axis_3d = {"backgroundcolor": self.background, "gridcolor": self.grid, "color": self.text}
        box = {"bgcolor": self.panel, "bordercolor": self.grid, "font": {"color": self.text}}
        return {
            "layout": {
                "paper_bgcolor": self.background,
                "plot_bgcolor": self.background,
                "font": {"family": FONTS, "size": 12, "color": self.text},
                "colorway": list(self.series),
                "xaxis": axis,
                "yaxis": axis,
                "scene": {"xaxis": axis_3d, "yaxis": axis_3d, "zaxis": axis_3d},
                "hoverlabel": {**box, "align": "left"},
                "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": self.muted, "activecolor": self.text},
                "shapedefaults": {"line": {"color": self.muted}},
                "sliderdefaults": {
                    "bordercolor": self.grid,
                    "bgcolor": self.panel,
                    "activebgcolor": self.muted,
                },
                "updatemenudefaults": box,
            }
        }

    @property
    def css(self) -> dict[str, str]:
        """The colours of text and background as custom properties of CSS: "--text" and so on."""
        return {f"--{f.name}": getattr(self, f.name) for f in fields(self)[1:6]}


LIGHT = Theme(
    name="light",
    background="#ffffff",
    panel="#f6f8fa",
    text="#1f2328",
    muted="#59636e",
    grid="#d0d7de",
    series=palette.LIGHT,
    sequential=palette.SEQUENTIAL_LIGHT,
    elevation=("#c3d3de", "#dbe5ec", "#edf2f5", "#fafbfc"),
)
DARK = Theme(
    name="dark",
    background="#14171c",
    panel="#1c2128",
    text="#e6edf3",
    muted="#9aa5b1",
    grid="#3a424d",
    series=palette.DARK,
    sequential=palette.SEQUENTIAL_DARK,
    elevation=("#3a4a5a", "#2b3743", "#202932", "#181e25"),
)
THEMES = {theme.name: theme for theme in (LIGHT, DARK)}


def find_theme(theme: str | Theme) -> Theme:
    """A theme, given by itself or by name.

    Raises:
        ValueError: no theme has the name.
    """
    if isinstance(theme, Theme):
        return theme
    if theme not in THEMES:
        raise ValueError(f"no theme is named {theme!r}; known: {', '.join(THEMES)}")
    return THEMES[theme]
