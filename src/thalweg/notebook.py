"""What a notebook shows of an object whose class knows nobody who could draw it.

The class asks here; who draws is registered by the front door, `thalweg/__init__.py`, which Python imports
before any other module of the package. So a notebook shows the same, whatever is imported first.
"""

from collections.abc import Callable
from typing import Any

_drawn_by: dict[str, Callable[[Any], str | None]] = {}


def register(kind: str, draw: Callable[[Any], str | None]) -> None:
    """Let a function draw all objects of a kind: their HTML, or None for those that it does not draw."""
    _drawn_by[kind] = draw


def html(kind: str, shown: Any) -> str | None:
    """An object of that kind as HTML; None where it has none."""
    return _drawn_by[kind](shown)
