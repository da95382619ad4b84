"""What a file may hold, as data: its values are checked before they are used."""

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
    """Values that pass a test, and their description for error messages."""

    description: str
    passes: Callable[[Any], bool]


@dataclass(frozen=True)
class TableOf:
    """A table of any keys, whose values all have one schema."""

    schema: Any


@dataclass(frozen=True)
class NotRequired:
    """An entry that may be absent."""

    schema: Any


def mismatch(value: Any, schema: Any, where: str) -> str | None:
    """What is wrong with a value, and where, as a sentence; None where it fits its schema.

    Args:
        value: from JSON or TOML.
        schema: a `Kind`; a list of one schema for a list of such values; a dict of the entries that a table
            must have, besides any others; `TableOf`; or a tuple of schemas, all of which must fit.
        where: the value's name in the file; "" for the whole file.
    """
    mismatches: Any = []
    if isinstance(schema, Kind):
        return (
            None
            if schema.passes(value)
            else f"{where or 'it'} is {reprlib.repr(value)}, not {schema.description}"
        )
    if isinstance(schema, tuple):
        mismatches = (mismatch(value, one, where) for one in schema)
    elif isinstance(schema, list):
        if not isinstance(value, list):
            return f"{where or 'it'} is {reprlib.repr(value)}, not a list"
        mismatches = (mismatch(item, schema[0], f"{where}[{i}]") for i, item in enumerate(value))
    elif not isinstance(value, dict):
        return f"{where or 'it'} is {reprlib.repr(value)}, not a table"
    elif isinstance(schema, TableOf):
        mismatches = (mismatch(item, schema.schema, within(where, key)) for key, item in value.items())
    else:
        mismatches = (_entry(value, key, one, where) for key, one in schema.items())
    return next(filter(None, mismatches), None)


def _entry(table: dict[str, Any], key: str, schema: Any, where: str) -> str | None:
    if key in table:
        required = schema.schema if isinstance(schema, NotRequired) else schema
        return mismatch(table[key], required, within(where, key))
    return None if isinstance(schema, NotRequired) else f"{where or 'it'} has no {key}"


def within(where: str, key: str) -> str:
    """The name of an entry of a table: "optimizers.adam"."""
    key = key if key.isprintable() else repr(key)
    return f"{where}.{key}" if where else key


def nullable(kind: Any) -> Kind:
    """What may also be null."""
    if isinstance(kind, Kind):
        return Kind(f"{kind.description} or null", lambda value: value is None or kind.passes(value))
    return Kind(
        "a table that is right, or null", lambda value: value is None or not mismatch(value, kind, "")
    )


def _is_integer(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= sys.maxsize


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return _is_integer(value, -sys.maxsize)


def _is_text(value: Any) -> bool:
    """Whether it is text that can be encoded: JSON can spell half of a surrogate pair."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


NUMBER = Kind("a finite number", _is_finite)
POSITIVE = Kind("a number above 0", lambda value: _is_finite(value) and value > 0)
INTEGER = Kind("a whole number", lambda value: _is_integer(value, -sys.maxsize))
COUNT = Kind("a whole number from 0", lambda value: _is_integer(value, 0))
NATURAL = Kind("a whole number from 1", lambda value: _is_integer(value, 1))
TEXT = Kind("text", _is_text)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))


def one_of(*values: str) -> Kind:
    """One of these texts."""
    return Kind(f"one of {', '.join(values)}", lambda value: isinstance(value, str) and value in values)


def matching(pattern: str, description: str) -> Kind:
    """Text of a certain form."""
    return Kind(description, lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value)))


def non_empty(description: str) -> Kind:
    """A list or table that is not empty."""
    return Kind(description, lambda value: isinstance(value, list | dict) and bool(value))
