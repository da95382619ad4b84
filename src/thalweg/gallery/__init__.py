"""The field's classic pictures, each drawn from data computed by the rules that train.

from thalweg import gallery
drawn = gallery.get("race-beale").draw(theme="dark")
drawn.figure, drawn.caption
"""

# isort: off
from thalweg.gallery.registry import CaptionedFigure, FigureBuilder, Picture, get, names
from thalweg.gallery import descent, adaptive, races, noise, landscape  # noqa: F401  (they register)
# isort: on

__all__ = ["CaptionedFigure", "FigureBuilder", "Picture", "get", "names"]
