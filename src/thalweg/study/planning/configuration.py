"""The arguments of `compare`, from a TOML file."""

import tomllib
from pathlib import Path
from typing import Any

from thalweg.errors import nearest
from thalweg.study.contestant import Contestant
from thalweg.study.errors import StudyError
from thalweg.study.planning.budget import Budget
from thalweg.study.schema import (
    FLAG,
    NATURAL,
    NUMBER,
    POSITIVE,
    TEXT,
    Kind,
    NotRequired,
    TableOf,
    mismatch,
    non_empty,
    within,
)

_OPTIONS = {
    "dialect": TEXT,
    "seeds": NATURAL,
    "search_seeds": NATURAL,
    "batch_size": NATURAL,
    "every": NATURAL,
    "halving": FLAG,
    "proposer": TEXT,
    "defaults": FLAG,
}
_BUDGET = {"trials": NATURAL, "epochs": NATURAL, "steps": NATURAL, "seconds": POSITIVE}
_TABLE = TableOf(Kind("anything", lambda value: True))
_FIXED = Kind("a number, or true or false", lambda value: NUMBER.passes(value) or FLAG.passes(value))
_SPACE = {"low": NUMBER, "high": NUMBER, "values": (non_empty("a list of numbers"), [NUMBER])}
_CONTESTANT = {
    "optimizer": TEXT,
    "dialect": TEXT,
    "schedule": TEXT,
    "space": TableOf(_TABLE),
    "fixed": TableOf(_FIXED),
    "batch_size": NATURAL,
}


def from_toml(path: str | Path) -> dict[str, Any]:
    """Arguments for `compare` from a file such as

        dialect = "keras"              # any of: dialect, seeds, search_seeds, batch_size, every,
        seeds = 5                      # halving, proposer, defaults

        [budget]                       # as `Budget`
        trials = 12
        epochs = 20

        [optimizers.sgd]               # searched over its default range

        [optimizers."adam+cosine"]
        space.lr = { low = 1e-4, high = 0.1 }
        space.beta_1 = { values = [0.8, 0.9, 0.95] }
        space.beta_2 = {}              # its default range
        fixed.epsilon = 1e-6

        [optimizers.mine]              # a name of your own; a file is looked for beside this one
        optimizer = "my_optimizers.py:Mine"

    Raises:
        StudyError: the file cannot be read, or an entry is unknown or wrong.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{path} is not TOML: {error}") from None
    try:
        return _arguments(path, content)
    except (StudyError, ValueError, TypeError) as error:
        raise StudyError(f"{path}: {error}") from None


def _arguments(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    _check("", content, _OPTIONS | {"budget": _TABLE, "optimizers": _TABLE})
    arguments = {key: content[key] for key in _OPTIONS if key in content}
    if "budget" in content:
        _check("budget", content["budget"], _BUDGET)
        arguments["budget"] = Budget(**content["budget"])
    if "optimizers" in content:
        arguments["optimizers"] = [
            _contestant(path, name, table, content.get("dialect", "keras"))
            for name, table in content["optimizers"].items()
        ]
    return arguments


def _contestant(path: Path, name: str, table: Any, dialect: str) -> Contestant:
    where = within("optimizers", name)
    _check(where, table, _CONTESTANT)
    given = {"dialect": dialect} | table
    optimizer = given.pop("optimizer", name)
    if "optimizer" in table:
        given["name"] = name
    if ".py:" in optimizer:
        optimizer = str(path.parent / optimizer)
    given["space"] = {
        key: _space(within(f"{where}.space", key), asked) for key, asked in given.get("space", {}).items()
    }
    return Contestant(optimizer, **given)


def _space(where: str, asked: Any) -> Any:
    _check(where, asked, _SPACE)
    if not asked:
        return None
    if asked.keys() == {"values"}:
        return asked["values"]
    if asked.keys() == {"low", "high"}:
        return asked["low"], asked["high"]
    raise StudyError(f"{where} has low and high, or values, or nothing; got {', '.join(asked)}")


def _check(where: str, table: Any, schema: dict[str, Any]) -> None:
    """Refuses a table that has another entry, or one that does not fit its schema."""
    for key in table if isinstance(table, dict) else ():
        if key not in schema:
            raise StudyError(f"{where or 'the file'} has no entry {key!r}; {nearest(key, schema)}")
    if fault := mismatch(table, {key: NotRequired(one) for key, one in schema.items()}, where):
        raise StudyError(fault)
