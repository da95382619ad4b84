"""What a file may hold, checked before it is believed."""

from __future__ import annotations

import math
import re
import reprlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """Values that a test passes, and what to call them."""

    words: str
    passes: Callable[[Any], bool]


@dataclass(frozen=True)
class Every:
    """A table whose values are all of one shape."""

    shape: Any


@dataclass(frozen=True)
class Optional:
    """An entry that need not be there."""

    shape: Any


def wrong(value: Any, shape: Any, where: str) -> str | None:
    """What is wrong with a value, where, and what would be right; None where it is as it should be.

    Args:
        value: as JSON or TOML have it.
        shape: a `Kind`; a list of one shape for a list of such; a dict of the entries that a table has,
            others apart; `Every`; or a tuple of shapes that all have to fit.
        where: names the value; "" for what a file holds.
    """
    faults: Any = []
    if isinstance(shape, Kind):
        return None if shape.passes(value) else f"{where or 'it'} is {reprlib.repr(value)}, not {shape.words}"
    if isinstance(shape, tuple):
        faults = (wrong(value, one, where) for one in shape)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where or 'it'} is {reprlib.repr(value)}, not a list"
        faults = (wrong(each, shape[0], f"{where}[{i}]") for i, each in enumerate(value))
    elif not isinstance(value, dict):
        return f"{where or 'it'} is {reprlib.repr(value)}, not a table"
    elif isinstance(shape, Every):
        faults = (wrong(each, shape.shape, within(where, key)) for key, each in value.items())
    else:
        faults = (_entry(value, key, one, where) for key, one in shape.items())
    return next(filter(None, faults), None)


def _entry(table: dict[str, Any], key: str, shape: Any, where: str) -> str | None:
    if key in table:
        return wrong(table[key], shape.shape if isinstance(shape, Optional) else shape, within(where, key))
    return None if isinstance(shape, Optional) else f"{where or 'it'} has no {key}"


def within(where: str, key: str) -> str:
    """The name of an entry of a table: "optimizers.adam"."""
    key = key if key.isprintable() else repr(key)
    return f"{where}.{key}" if where else key


def maybe(kind: Any) -> Kind:
    """What may be null, too."""
    if isinstance(kind, Kind):
        return Kind(f"{kind.words} or null", lambda value: value is None or kind.passes(value))
    return Kind("a table that is right, or null", lambda value: value is None or not wrong(value, kind, ""))


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= sys.maxsize


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return _whole(value, -sys.maxsize)


def _written(value: Any) -> bool:
    """Whether it is text that can be written down again: JSON can spell halves of characters."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


NUMBER = Kind("a finite number", _finite)
POSITIVE = Kind("a number above 0", lambda value: _finite(value) and value > 0)
INTEGER = Kind("a whole number", lambda value: _whole(value, -sys.maxsize))
COUNT = Kind("a whole number from 0", lambda value: _whole(value, 0))
NATURAL = Kind("a whole number from 1", lambda value: _whole(value, 1))
TEXT = Kind("text", _written)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))


def one_of(*values: str) -> Kind:
    """One of these words."""
    return Kind(f"one of {', '.join(values)}", lambda value: isinstance(value, str) and value in values)


def matching(pattern: str, words: str) -> Kind:
    """Text of a certain form."""
    return Kind(words, lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value)))


def non_empty(words: str) -> Kind:
    """A list or table that has something."""
    return Kind(words, lambda value: isinstance(value, list | dict) and bool(value))
