"""What `compare` is asked for, as a TOML file says it."""

import tomllib
from pathlib import Path
from typing import Any

from thalweg.errors import nearest
from thalweg.study.contestant import Contestant
from thalweg.study.errors import StudyError
from thalweg.study.plan import Budget

_CONTESTANT = ("optimizer", "dialect", "schedule", "space", "fixed", "batch_size")
_OPTIONS = ("dialect", "seeds", "search_seeds", "batch_size", "every", "halving", "proposer", "defaults")


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
    except ValueError as error:
        raise StudyError(f"{path} is no TOML: {error}") from None
    _known(path, "", found, (*_OPTIONS, "budget", "optimizers"))
    arguments = {key: found[key] for key in _OPTIONS if key in found}
    if "budget" in found:
        _known(path, "budget", found["budget"], ("trials", "epochs", "steps", "seconds"))
        arguments["budget"] = Budget(**found["budget"])
    if "optimizers" in found:
        _table(path, "optimizers", found["optimizers"])
        arguments["optimizers"] = [
            _contestant(path, name, table, found.get("dialect", "keras"))
            for name, table in found["optimizers"].items()
        ]
    return arguments


def _contestant(path: Path, name: str, table: Any, dialect: str) -> Contestant:
    where = f"optimizers.{name}"
    _known(path, where, table, _CONTESTANT)
    given = {"dialect": dialect} | table
    optimizer = given.pop("optimizer", name)
    if "optimizer" in table:
        given["name"] = name
    if ".py:" in optimizer:
        optimizer = str(path.parent / optimizer)
    for part in ("space", "fixed"):
        _table(path, f"{where}.{part}", given.get(part, {}))
    given["space"] = {
        key: _space(path, f"{where}.space.{key}", asked) for key, asked in given.get("space", {}).items()
    }
    return Contestant(optimizer, **given)


def _space(path: Path, where: str, asked: Any) -> Any:
    _known(path, where, asked, ("low", "high", "values"))
    if not asked:
        return None
    if asked.keys() == {"values"}:
        return asked["values"]
    if asked.keys() == {"low", "high"}:
        return asked["low"], asked["high"]
    raise StudyError(f"{path}: {where} has low and high, or values, or nothing; got {', '.join(asked)}")


def _table(path: Path, where: str, table: Any) -> None:
    if not isinstance(table, dict):
        raise StudyError(f"{path}: {where} is a table, got {table!r}")


def _known(path: Path, where: str, table: Any, known: tuple[str, ...]) -> None:
    _table(path, where, table)
    for key in table:
        if key not in known:
            raise StudyError(f"{path}: {where or 'the file'} has no entry {key!r}; {nearest(key, known)}")
