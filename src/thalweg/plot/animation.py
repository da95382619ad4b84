"""A race in motion: GIF or MP4, step by step, with the loss beside the map."""

from collections.abc import Iterator
from pathlib import Path as File
from typing import Any, BinaryIO, Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from thalweg.plot import style
from thalweg.plot.paths import Paths, named, race
from thalweg.plot.style import Theme
from thalweg.plot.three_d import race_3d
from thalweg.statefile import replaced

# More frames than that are seen by nobody: longer races are shown every second, third, … step.
_FRAMES = 150

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
    """Write a race as a moving picture.

    Args:
        paths: one path, several, or several by label.
        file: ends in .gif or .mp4.
        view: "map" or "3d".
        theme: "light" or "dark".
        fps: frames a second.
        hold: how long the last frame stands, in seconds.
        size: in inches.
        dpi: pixels an inch.

    Raises:
        ValueError: another ending.
        ImportError: an MP4 without imageio-ffmpeg.
        OSError: it cannot be written.
    """
    kind = File(file).suffix.lower()
    if kind not in (".gif", ".mp4"):
        raise ValueError(f"a moving picture is a .gif or .mp4, got {File(file).name!r}")
    shown = frames(paths, view=view, theme=theme, size=size, dpi=dpi)
    with replaced(File(file)) as out:
        (_gif if kind == ".gif" else _mp4)(shown, out, fps, hold)


def frames(
    paths: Paths,
    *,
    view: View = "map",
    theme: str | Theme = "light",
    size: tuple[float, float] | None = None,
    dpi: int = 100,
) -> Iterator[NDArray[np.uint8]]:
    """The pictures (rows, columns, 3) of a race, one step or a few after the other."""
    given, theme = named(paths), style.theme_named(theme)
    draw: Any = race_3d if view == "3d" else race
    whole = draw(given, theme=theme, **({"size": size} if size else {}))
    whole.set_dpi(dpi)
    canvas: Any = FigureCanvasAgg(whole)
    canvas.draw()
    whole.set_layout_engine("none")  # everything has its place: later frames only add to it
    moving = [_Moving(ax, line) for ax in whole.axes for line in ax.lines if line.get_label() in given]
    marks = [line for ax in whole.axes for line in ax.lines if _moves(line, given)]
    for line in marks:
        line.set_visible(False)
    for each in moving:
        each.line.set_animated(True)
    beside: Any = whole.axes[-1]
    counter = beside.text(0.98, 0.97, "", transform=beside.transAxes, ha="right", va="top")
    counter.set(color=theme.ink, fontsize=10, animated=True)
    canvas.draw()
    still = canvas.copy_from_bbox(whole.bbox)
    last = max(each.length for each in moving) - 1
    for step in sorted({*range(0, last + 1, 1 + last // _FRAMES), last}):
        canvas.restore_region(still)
        for each in moving:
            each.show(step)
        counter.set_text(f"step {step}")
        beside.draw_artist(counter)
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _moves(line: Line2D, given: Any) -> bool:
    """Whether an unlabelled line is a path's dots or its end: all but the marks in ink that stand still."""
    return line.get_zorder() in (4.5, 5) and line.get_label() not in given


class _Moving:
    """A line that grows, with a dot at its head."""

    def __init__(self, ax: Any, line: Any) -> None:
        self.ax, self.line = ax, line
        self.solid = hasattr(line, "get_data_3d")
        self.data = line.get_data_3d() if self.solid else line.get_data()
        self.length = len(self.data[0])

    def show(self, step: int) -> None:
        for since, head in ((0, False), (step, True)):
            part = [np.asarray(d)[since : step + 1] for d in self.data]
            if head and not len(part[0]):
                part = [np.asarray(d)[-1:] for d in self.data]  # it has ended before
            (self.line.set_data_3d if self.solid else self.line.set_data)(*part)
            self.line.set_marker("o" if head else "")
            self.ax.draw_artist(self.line)


def _gif(pictures: Iterator[NDArray[np.uint8]], file: BinaryIO, fps: int, hold: float) -> None:
    from PIL import Image

    # One palette for all frames, or colours flicker; one that covers the lines, few as their pixels are.
    images = [Image.fromarray(p) for p in pictures]
    colours = images[-1].quantize(255, method=Image.Quantize.MAXCOVERAGE)
    few = [image.quantize(palette=colours, dither=Image.Dither.NONE) for image in images]
    durations = [1000 // fps] * (len(few) - 1) + [int(1000 * hold)]
    few[0].save(file, "GIF", save_all=True, append_images=few[1:], duration=durations, loop=0, disposal=1)


def _mp4(pictures: Iterator[NDArray[np.uint8]], file: BinaryIO, fps: int, hold: float) -> None:
    try:
        from imageio_ffmpeg import write_frames
    except ModuleNotFoundError as error:
        raise ImportError("an MP4 needs imageio-ffmpeg: pip install 'thalweg[video]'") from error
    first = next(pictures)
    rows, columns = (n - n % 2 for n in first.shape[:2])  # the codec takes even sizes
    options = {"fps": fps, "macro_block_size": 2, "quality": 8, "output_params": ["-f", "mp4"]}
    writer = write_frames(file.name, (columns, rows), **options)
    writer.send(None)
    picture = first
    for picture in (first, *pictures):
        writer.send(np.ascontiguousarray(picture[:rows, :columns]))
    for _ in range(int(fps * hold)):
        writer.send(np.ascontiguousarray(picture[:rows, :columns]))
    writer.close()
