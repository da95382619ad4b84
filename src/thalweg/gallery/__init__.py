"""The field's classic pictures, each drawn from data that the production code computes.

from thalweg import gallery
drawn = gallery.get("race-beale").draw(theme="dark")
drawn.figure, drawn.caption
"""

# isort: off
from thalweg.gallery.registry import Drawn, Picture, Sheet, get, names
from thalweg.gallery import descent, adaptive, races, noise, landscape  # noqa: F401  (they register)
# isort: on

__all__ = ["Drawn", "Picture", "Sheet", "get", "names"]
