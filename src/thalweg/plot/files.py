"""A race in a file of any kind, or within a page."""

import base64
import html
import io
from pathlib import Path as File
from typing import Any

from thalweg.plot import interactive, style
from thalweg.plot.animation import View, animate
from thalweg.plot.paths import Paths
from thalweg.plot.paths import race as draw
from thalweg.plot.style import Theme
from thalweg.plot.three_d import race_3d
from thalweg.statefile import replaced
from thalweg.surfaces.race import Race

# By their endings.
FORMATS = (".png", ".svg", ".pdf", ".html", ".gif", ".mp4")


def write(race: Race, file: str | File, *, view: View = "map", theme: str | Theme = "light") -> None:
    """Write a race; the file's ending tells its kind.

    Args:
        race: as `thalweg.surfaces.race.compete` makes it.
        file: ends in one of `FORMATS`; an .html opens offline and has the caption below.
        view: "map" or "3d".
        theme: "light" or "dark".

    Raises:
        ValueError: another ending, or a surface that has no such view.
        ImportError: what this kind needs is not there.
        OSError: it cannot be written.
    """
    kind = File(file).suffix.lower()
    if kind not in FORMATS:
        raise ValueError(f"a picture ends in {', '.join(FORMATS)}; got {File(file).name!r}")
    if kind == ".html":
        theme = style.theme_named(theme)
        page(interactive.race(race.paths, theme=theme, view=view), file, race.caption, theme)
    elif kind in (".gif", ".mp4"):
        animate(race.paths, file, view=view, theme=theme)
    else:
        style.save((race_3d if view == "3d" else draw)(race.paths, theme=theme), file)


def inline(paths: Paths, *, theme: str | Theme = "light") -> str:
    """The picture that `race` draws, as an HTML element that needs no file: for notebooks."""
    picture = io.BytesIO()
    draw(paths, theme=theme).savefig(picture, format="png", dpi=90)
    return f'<img alt="paths" src="data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}">'


_PLAIN: Any = {"config": {"displaylogo": False}}


def page(figure: Any, file: str | File, caption: str, theme: Theme) -> None:
    """Write a plotly figure as a page that opens offline, its caption below."""
    drawn = figure.to_html(full_html=False, include_plotlyjs=True, auto_play=False, div_id="race", **_PLAIN)
    body = f"margin:1rem auto;max-width:75rem;background:{theme.paper};color:{theme.ink}"
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Thalweg</title>'
        f'<body style="{body};font-family:system-ui,sans-serif">{drawn}'
        f'<p style="max-width:60rem;margin:1rem auto;line-height:1.5">{html.escape(caption)}</p>'
        "</body></html>"
    )
    with replaced(File(file)) as out:
        out.write(text.encode())
