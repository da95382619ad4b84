"""Learning curves and learning-rate sensitivity, drawn."""

import io
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from thalweg.study.plan import Plan
from thalweg.study.statistics import Ranking, Setting, Spread

# After Okabe & Ito 2008, https://jfly.uni-koeln.de/color/: told apart by colour-blind readers too;
# darkened for white paper, lightened for the dark. Dashes tell apart what colours do not.
LIGHT = ("#0072b2", "#d55e00", "#00805d", "#aa4499", "#b87a00", "#2f93d1", "#7a7a7a", "#202020")
DARK = ("#4da6dc", "#f08a4b", "#2fc79b", "#e08ac8", "#f0b73f", "#8ccbf2", "#9a9a9a", "#f0f0f0")
DASHES = ((), (5, 1.5), (1.5, 1.2))

# Inks that appear nowhere else in a picture, so that a page can replace them by its own.
INK, GRID = "#1f2328", "#d0d7de"

# The sensitivity picture ends where losses are this many times the best.
CUT = 100

STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "thalweg",
}


class Look(NamedTuple):
    """How one contestant is drawn everywhere: which colour of the palette, which dashes."""

    colour: int
    dashes: tuple[float, ...]


class Panel(NamedTuple):
    """One picture: its title and what draws it."""

    title: str
    draw: Callable[[Axes], None]


def looks(plan: Plan) -> dict[str, Look]:
    """Each contestant's look, by name: all different up to 24 contestants."""
    return {
        contestant.name: Look(i % len(LIGHT), DASHES[i % len(DASHES)])
        for i, contestant in enumerate(plan.contestants)
    }


def panels(plan: Plan, ranking: Ranking) -> list[Panel]:
    """The pictures that a study has."""
    look_of = looks(plan)
    curves = {"loss": "Training loss", "val_loss": "Validation loss"} | {
        f"val_{metric}": f"Validation {metric}" for metric in plan.task.metrics
    }
    found = [Panel(title, partial(_curves, name, ranking, look_of)) for name, title in curves.items()]
    settings = [setting for summary in ranking.summaries for setting in summary.settings if _mostly(setting)]
    if len({setting.lr for setting in settings}) > 1:
        title = "Sensitivity to the learning rate"
        found.append(Panel(title, partial(_sensitivity, ranking, look_of)))
    return found


def save(path: Path, plan: Plan, ranking: Ranking) -> None:
    """Writes all panels as one picture; the file's ending chooses the format."""
    found = panels(plan, ranking)
    columns = 2 if len(found) > 1 else 1
    rows = -(-len(found) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4 * columns, 4 * rows + 0.8), layout="constrained", dpi=150)
        for place, panel in enumerate(found, 1):
            axes = figure.add_subplot(rows, columns, place)
            axes.set_title(panel.title)
            panel.draw(axes)
        handles = [
            Line2D([], [], color=LIGHT[look.colour], dashes=_pattern(look), label=name)
            for name, look in looks(plan).items()
        ]
        figure.suptitle(
            f"{plan.task.name}: medians over {len(plan.seeds)} seeds, bands from lowest to highest"
        )
        figure.legend(handles=handles, loc="outside lower center", ncols=min(8, len(handles)), frameon=False)
        figure.savefig(path)


def svg(panel: Panel) -> str:
    """One panel as an SVG element whose colours are CSS variables: --ink, --grid, --series-0 and up."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5, 3.7), layout="constrained")
        axes = figure.add_subplot()
        panel.draw(axes)
        file = io.StringIO()
        figure.savefig(
            file,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )
    text = file.getvalue()
    # Several pictures share a page: names of their groups would occur twice.
    text = re.sub('<g id="[^"]*">', "<g>", text[text.index("<svg") :])
    text = text.replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
    for i, colour in enumerate(LIGHT):
        text = text.replace(colour, f"var(--series-{i})")
    return text


def _curves(name: str, ranking: Ranking, look_of: dict[str, Look], axes: Axes) -> None:
    for summary in ranking.summaries:
        curve = summary.best.curve(name)
        _band(axes, look_of[summary.contestant.name], range(1, len(curve) + 1), curve)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if name.endswith("loss"):
        _logarithmic(axes)


def _sensitivity(ranking: Ranking, look_of: dict[str, Look], axes: Axes) -> None:
    for summary in ranking.summaries:
        look, best = look_of[summary.contestant.name], summary.best
        settings = sorted((s for s in summary.settings if _mostly(s)), key=lambda s: s.lr)
        _band(axes, look, [s.lr for s in settings], [s.figure("val_loss") for s in settings])
        axes.plot(best.lr, best.figure("val_loss").median, "o", color=LIGHT[look.colour])
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("validation loss after the last epoch")
    _logarithmic(axes)
    # A rate far too high may end anywhere; what matters happens near the best.
    best_loss = min(s.best.losses("val_loss").median for s in ranking.summaries)
    if math.isfinite(best_loss):
        axes.set_ylim(top=min(axes.get_ylim()[1], CUT * best_loss))


def _mostly(setting: Setting) -> bool:
    """Whether more runs went through than not, so that their median says something."""
    return 2 * len(setting.finished) > len(setting.runs)


def _band(axes: Axes, look: Look, x: Sequence[float], spreads: list[Spread]) -> None:
    colour = LIGHT[look.colour]
    axes.plot(x, [s.median for s in spreads], color=colour, dashes=_pattern(look))
    low, high = [s.low for s in spreads], [s.high for s in spreads]
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def _pattern(look: Look) -> tuple[float, ...]:
    return look.dashes or (1, 0)


def _logarithmic(axes: Axes) -> None:
    if not math.isfinite(axes.dataLim.minposy):  # nothing drawn, or nothing above zero
        return
    axes.set_yscale("log")
    # Curves seldom span a decade: label what lies between its ends too.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5), numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
