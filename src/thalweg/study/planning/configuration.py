"""What `compare` is asked for, as a TOML file says it."""

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
    Every,
    Kind,
    Optional,
    non_empty,
    within,
    wrong,
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
_TABLE = Every(Kind("anything", lambda value: True))
_FIXED = Kind("a number, or true or false", lambda value: NUMBER.passes(value) or FLAG.passes(value))
_SPACE = {"low": NUMBER, "high": NUMBER, "values": (non_empty("a list of numbers"), [NUMBER])}
_CONTESTANT = {
    "optimizer": TEXT,
    "dialect": TEXT,
    "schedule": TEXT,
    "space": Every(_TABLE),
    "fixed": Every(_FIXED),
    "batch_size": NATURAL,
}


def from_toml(path: str | Path) -> dict[str, Any]:
    """Arguments for `compare` from a file such as

        dialect = "keras"              # any of: dialect, seeds, search_seeds, batch_size, every,
        seeds = 5                      # halving, proposer, defaults

        [budget]                       # as `Budget`
        trials = 12
        epochs = 20

        [optimizers.sgd]               # searched where its description says

        [optimizers."adam+cosine"]
        space.lr = { low = 1e-4, high = 0.1 }
        space.beta_1 = { values = [0.8, 0.9, 0.95] }
        space.beta_2 = {}              # where its description says
        fixed.epsilon = 1e-6

        [optimizers.mine]              # a name of your own; a file is looked for beside this one
        optimizer = "my_optimizers.py:Mine"

    Raises:
        StudyError: the file cannot be read, or something in it is not understood.
    """
    path = Path(path)
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{path} is no TOML: {error}") from None
    try:
        return _arguments(path, found)
    except (StudyError, ValueError, TypeError) as error:
        raise StudyError(f"{path}: {error}") from None


def _arguments(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    _check("", found, _OPTIONS | {"budget": _TABLE, "optimizers": _TABLE})
    arguments = {key: found[key] for key in _OPTIONS if key in found}
    if "budget" in found:
        _check("budget", found["budget"], _BUDGET)
        arguments["budget"] = Budget(**found["budget"])
    if "optimizers" in found:
        arguments["optimizers"] = [
            _contestant(path, name, table, found.get("dialect", "keras"))
            for name, table in found["optimizers"].items()
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


def _check(where: str, table: Any, shapes: dict[str, Any]) -> None:
    """A table has none but these entries, each of its shape."""
    for key in table if isinstance(table, dict) else ():
        if key not in shapes:
            raise StudyError(f"{where or 'the file'} has no entry {key!r}; {nearest(key, shapes)}")
    if fault := wrong(table, {key: Optional(shape) for key, shape in shapes.items()}, where):
        raise StudyError(fault)
