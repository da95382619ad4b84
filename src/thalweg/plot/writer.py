"""Figures as files and as parts of pages: all that is written by matplotlib, plotly, Pillow and FFmpeg."""

import base64
import html
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from thalweg.statefile import replaced

Frames: TypeAlias = Iterator[NDArray[np.uint8]]

# Nothing that differs from one run to the next is written into a file.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": dict.fromkeys(("Creator", "Date", "Format", "Type")),
    "pdf": {"CreationDate": None},
}
_SVG: Any = {"svg.hashsalt": "thalweg", "svg.fonttype": "none"}


def save(
    figure: Any,
    file: str | Path | BinaryIO,
    *,
    kind: str = "",
    dpi: float | None = None,
    caption: str = "",
) -> None:
    """Write a figure: equal bytes from equal data.

    Args:
        figure: matplotlib's, or axes of it, as .png, .svg, .pdf and what else matplotlib writes; plotly's as
            .html, which opens offline.
        file: a path, or an open file.
        kind: of file, such as "png"; by default what the path ends in.
        dpi: pixels an inch; the figure's own by default.
        caption: below a figure in .html.

    Raises:
        ValueError: a figure that is not written as this kind.
        OSError: it cannot be written.
    """
    kind = kind or (isinstance(file, str | Path) and Path(file).suffix[1:].lower()) or "png"
    if isinstance(file, str | Path):
        with replaced(Path(file)) as out:
            save(figure, out, kind=kind, dpi=dpi, caption=caption)
    elif isinstance(figure, Figure | Axes):
        whole: Any = figure if isinstance(figure, Figure) else figure.figure
        with matplotlib.rc_context(_SVG):
            whole.savefig(file, format=kind, dpi=dpi or "figure", metadata=_METADATA.get(kind))
    elif kind == "html":
        file.write(html_page(figure, caption).encode())
    else:
        raise ValueError(f"a plotly figure is written as .html, not as .{kind}")


def save_animation(frames: Frames, file: str | Path, *, fps: int, hold: float) -> None:
    """Write pictures (rows, columns, 3) as .gif or .mp4, the last of them for `hold` seconds.

    Raises:
        ValueError: another ending.
        ImportError: an MP4 without imageio-ffmpeg.
        OSError: it cannot be written.
    """
    writers = {".gif": _save_gif, ".mp4": _save_mp4}
    kind = Path(file).suffix.lower()
    if kind not in writers:
        raise ValueError(f"an animation is written as .gif or .mp4, got {Path(file).name!r}")
    with replaced(Path(file)) as out:
        writers[kind](frames, out, fps, hold)


def img_element(figure: Figure, alt: str, dpi: float = 90) -> str:
    """A matplotlib figure as an HTML element that needs no file."""
    picture = io.BytesIO()
    save(figure, picture, kind="png", dpi=dpi)
    data = base64.b64encode(picture.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'


def svg_element(figure: Figure, variables: Mapping[str, str]) -> str:
    """A matplotlib figure as an SVG element without a background.

    Args:
        figure: what to write.
        variables: CSS custom properties to name in place of colours, by colour.
    """
    file = io.BytesIO()
    figure.set_facecolor("none")
    for ax in figure.axes:
        ax.set_facecolor("none")
    save(figure, file, kind="svg")
    text = file.getvalue().decode()
    # Several pictures share a page: names of their groups would occur twice.
    text = re.sub('<g id="[^"]*"', "<g", text[text.index("<svg") :])
    for colour, name in variables.items():
        text = text.replace(colour, f"var({name})")
    return text


def html_page(figure: Any, caption: str = "") -> str:
    """A plotly figure as a page that opens offline, in the figure's own colours, the caption below.

    What `layout.meta["narrow"]` says of the layout holds on narrow screens, `layout.meta["wide"]` on others.
    """
    colours = figure.layout.template.layout
    drawn = figure.to_html(
        full_html=False,
        include_plotlyjs=True,
        auto_play=False,
        div_id="figure",
        config={"displaylogo": False, "responsive": True},
        post_script=_FIT,
    )
    return _PAGE.format(
        background=colours.paper_bgcolor or "white",
        text=colours.font.color or "black",
        fonts=colours.font.family or "sans-serif",
        figure=drawn,
        caption=html.escape(caption),
    )


def plotly_script() -> str:
    """plotly.js itself, for pages that hold several figures."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Thalweg</title>
<style>
body {{ margin: 1rem auto; max-width: 75rem; background: {background}; color: {text}; font-family: {fonts}; }}
p {{ max-width: 60rem; margin: 1rem auto; padding: 0 1rem; line-height: 1.5; overflow-wrap: anywhere; }}
</style>
<body>
{figure}
<p>{caption}</p>
</body>
</html>
"""

_FIT = """
const figure = document.getElementById("{plot_id}"), narrow = matchMedia("(max-width: 45rem)");
const fit = () => {
  Plotly.relayout(figure, (figure.layout.meta ?? {})[narrow.matches ? "narrow" : "wide"] ?? {});
  const height = figure.layout.height;
  if (height) figure.style.height = figure.parentElement.style.height = `${height}px`;
};
narrow.addEventListener("change", fit);
fit();
"""


def _save_gif(frames: Frames, file: BinaryIO, fps: int, hold: float) -> None:
    from PIL import Image

    # One palette for all frames, or colours flicker; one that covers the lines, few as their pixels are.
    images = [Image.fromarray(frame) for frame in frames]
    palette = images[-1].quantize(255, method=Image.Quantize.MAXCOVERAGE)
    first, *others = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    durations = [1000 // fps] * len(others) + [int(1000 * hold)]
    first.save(file, "GIF", save_all=True, append_images=others, duration=durations, loop=0, disposal=1)


def _save_mp4(frames: Frames, file: BinaryIO, fps: int, hold: float) -> None:
    try:
        from imageio_ffmpeg import write_frames
    except ModuleNotFoundError as error:
        raise ImportError("an MP4 needs imageio-ffmpeg: pip install 'thalweg[video]'") from error
    first = next(frames)
    rows, columns = (n - n % 2 for n in first.shape[:2])  # the codec takes even sizes
    options = {"macro_block_size": 2, "quality": 8, "output_params": ["-f", "mp4"]}
    writer = write_frames(file.name, (columns, rows), fps=fps, **options)
    writer.send(None)
    frame = first
    for frame in (first, *frames):
        writer.send(np.ascontiguousarray(frame[:rows, :columns]))
    for _ in range(int(fps * hold)):
        writer.send(np.ascontiguousarray(frame[:rows, :columns]))
    writer.close()
