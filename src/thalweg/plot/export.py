"""A race as a file of any kind, and paths within a page."""

from pathlib import Path as File

from thalweg.plot import interactive, writer
from thalweg.plot.animation import View, animate
from thalweg.plot.paths import Paths
from thalweg.plot.paths import race as draw
from thalweg.plot.theme import Theme
from thalweg.plot.three_d import race_3d
from thalweg.surfaces.race import Race

# By their endings.
FORMATS = (".png", ".svg", ".pdf", ".html", ".gif", ".mp4")


def write(race: Race, file: str | File, *, view: View = "map", theme: str | Theme = "light") -> None:
    """Write a race as a file; its ending says of what kind.

    Args:
        race: as `thalweg.surfaces.race.compete` makes it.
        file: ends in one of `FORMATS`; an .html opens offline and has the caption below.
        view: "map" or "3d".
        theme: "light" or "dark".

    Raises:
        ValueError: another ending, or a surface that has no such view.
        ImportError: a package that this kind needs is not installed.
        OSError: it cannot be written.
    """
    kind = File(file).suffix.lower()
    if kind not in FORMATS:
        raise ValueError(f"a picture ends in {', '.join(FORMATS)}; got {File(file).name!r}")
    if kind in (".gif", ".mp4"):
        animate(race.paths, file, view=view, theme=theme)
    elif kind == ".html":
        writer.save(interactive.race(race.paths, theme=theme, view=view), file, caption=race.caption)
    else:
        writer.save((race_3d if view == "3d" else draw)(race.paths, theme=theme), file)


def inline(paths: Paths, *, theme: str | Theme = "light") -> str:
    """The picture that `race` draws, as an HTML element that needs no file: for notebooks."""
    return writer.img_element(draw(paths, theme=theme), "paths")
