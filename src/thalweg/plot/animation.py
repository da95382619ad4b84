"""A race as an animation: GIF or MP4, step by step, with the loss beside the map."""

from collections.abc import Iterator
from pathlib import Path as File
from typing import Any, Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from thalweg.plot import writer
from thalweg.plot.paths import Paths, by_label, race
from thalweg.plot.theme import Theme, find_theme
from thalweg.plot.three_d import race_3d

# Nobody sees more frames than that: longer races are shown every second, third, … step.
_MAX_FRAMES = 150

View = Literal["map", "3d"]


def animate(
    paths: Paths,
    file: str | File,
    *,
    view: View = "map",
    theme: str | Theme = "light",
    fps: int = 20,
    hold: float = 2.0,
    size: tuple[float, float] | None = None,
    dpi: int = 100,
) -> None:
    """Write a race as an animation.

    Args:
        paths: one path, several, or several by label.
        file: ends in .gif or .mp4.
        view: "map" or "3d".
        theme: "light" or "dark".
        fps: frames a second.
        hold: how long the last frame stays, in seconds.
        size: in inches.
        dpi: pixels an inch.

    Raises:
        ValueError: another ending.
        ImportError: an MP4 without imageio-ffmpeg.
        OSError: it cannot be written.
    """
    writer.save_animation(frames(paths, view=view, theme=theme, size=size, dpi=dpi), file, fps=fps, hold=hold)


def frames(
    paths: Paths,
    *,
    view: View = "map",
    theme: str | Theme = "light",
    size: tuple[float, float] | None = None,
    dpi: int = 100,
) -> Iterator[NDArray[np.uint8]]:
    """The pictures (rows, columns, 3) of a race, one step or a few after the other."""
    paths, theme = by_label(paths), find_theme(theme)
    draw: Any = race_3d if view == "3d" else race
    figure = draw(paths, theme=theme, **({"size": size} if size else {}))
    figure.set_dpi(dpi)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    figure.set_layout_engine("none")  # everything has its place: later frames only add to it
    growing = [_GrowingLine(ax, line) for ax in figure.axes for line in ax.lines if line.get_label() in paths]
    for line in (line for ax in figure.axes for line in ax.lines if _marks_steps(line, paths)):
        line.set_visible(False)
    for each in growing:
        each.line.set_animated(True)
    loss_axes: Any = figure.axes[-1]
    counter = loss_axes.text(0.98, 0.97, "", transform=loss_axes.transAxes, ha="right", va="top")
    counter.set(color=theme.text, fontsize=10, animated=True)
    canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)
    last = max(each.length for each in growing) - 1
    for step in sorted({*range(0, last + 1, 1 + last // _MAX_FRAMES), last}):
        canvas.restore_region(background)
        for each in growing:
            each.draw(step)
        counter.set_text(f"step {step}")
        loss_axes.draw_artist(counter)
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _marks_steps(line: Line2D, paths: Any) -> bool:
    """Whether an unlabelled line is a path's dots or its end: no mark of the surface or start."""
    return line.get_zorder() in (4.5, 5) and line.get_label() not in paths


class _GrowingLine:
    """A line that grows, with a dot at its end."""

    def __init__(self, ax: Any, line: Any) -> None:
        self.ax, self.line = ax, line
        three_d = hasattr(line, "get_data_3d")
        self.data = line.get_data_3d() if three_d else line.get_data()
        self.set_data = line.set_data_3d if three_d else line.set_data
        self.length = len(self.data[0])

    def draw(self, step: int) -> None:
        end = min(step, self.length - 1)  # it may have ended before
        for first, marker in ((0, ""), (end, "o")):
            self.set_data(*(np.asarray(d)[first : end + 1] for d in self.data))
            self.line.set_marker(marker)
            self.ax.draw_artist(self.line)
