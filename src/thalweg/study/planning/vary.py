"""One optimizer several times, with another value of one setting each: what that setting does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thalweg.errors import nearest
from thalweg.rule import is_flag
from thalweg.study.contestant import Contestant, Optimizer
from thalweg.study.errors import StudyError
from thalweg.treatments import Chain

BATCH_SIZE = "batch_size"


@dataclass(frozen=True)
class Varied:
    """What sets the contestants of a study apart.

    Attributes:
        name: "batch_size", "lr" or another hyperparameter.
        values: each contestant's, by the contestant's name.
        note: what was done about the learning rate.
    """

    name: str
    values: Mapping[str, float]
    note: str

    @classmethod
    def of(cls, found: Sequence[Contestant], name: str) -> Varied:
        """What sets apart those that `contestants` made."""
        if name == BATCH_SIZE:
            values: dict[str, float] = {c.name: c.batch_size or 0 for c in found}
        else:
            values = {c.name: c.defaults[name] for c in found}
        if name == "lr":
            note = "Each learning rate is as it was given: none was searched."
        elif len(found[0].space["lr"].values) == 1:
            note = f"All ran at one learning rate, which may suit one {_words(name)} better than another."
        else:
            note = f"The learning rate was tuned for each {_words(name)} by itself."
        return cls(name, values, note)


def contestants(
    optimizer: Optimizer | Contestant,
    name: str,
    values: Sequence[float],
    *,
    dialect: str = "keras",
    lr: Sequence[float] | None = None,
    tune: Sequence[str] = (),
) -> list[Contestant]:
    """One contestant a value, such as "adam, batch size 32" and "adam, lr 0.01".

    Where the learning rate itself is varied, each has the one that it is named by. Else each is tuned by
    itself: at one rate for all, the value that this rate happens to suit would look best.

    Args:
        optimizer: which; a Contestant keeps its own search space.
        name: "batch_size" or a hyperparameter of the optimizer.
        values: what it is to be; one that is there twice counts once. Batch sizes are whole numbers from 1.
        dialect: whose arithmetic and defaults, where the optimizer does not say.
        lr: learning rates to choose from, but for a Contestant. None: the optimizer's own search range.
        tune: further hyperparameters to search, but for a Contestant.

    Raises:
        StudyError: the optimizer has no such setting, it is given or searched besides, there is no value.
        ValueError: a value that it may not have.
    """
    base = optimizer if isinstance(optimizer, Contestant) else Contestant(optimizer, dialect=dialect)
    known = _known(base)
    if name not in known:
        raise StudyError(
            f"{base.name} has no setting {name!r} to vary; {nearest(name, known)}", argument="vary"
        )
    if name in tune or (name == "lr" and lr):
        raise StudyError(
            f"{name} is what is varied: do not ask for its values, or to tune it, besides", argument="vary"
        )
    if not values:
        raise StudyError(f"give the values of {name}", argument="vary")
    if isinstance(optimizer, Contestant):
        given = dict(optimizer._given)  # what it was made from, so that all else stays as it is
        space = given["space"] if isinstance(given["space"], Mapping) else dict.fromkeys(given["space"] or ())
    else:
        given = {"optimizer": optimizer, "dialect": dialect}
        space = {"lr": list(lr) if lr else None} | {key: None for key in tune if key in base.defaults}
    given["space"] = {key: asked for key, asked in space.items() if key != name}
    return [_one(base, given, name, value) for value in dict.fromkeys(map(float, values))]


def _known(base: Contestant) -> list[str]:
    """What can be varied; hyperparameters that are None unless they are given among it."""
    known = [BATCH_SIZE, *base.defaults]
    if base.rule and not isinstance(base.rule, Chain):
        known += [f.name for f in dataclasses.fields(base.rule) if not is_flag(f)]
    return list(dict.fromkeys(known))


def _one(base: Contestant, given: Mapping[str, Any], name: str, value: float) -> Contestant:
    # `:g` is what people write, but two values never have one name.
    said = f"{value:g}" if float(f"{value:g}") == value else repr(value)
    changes: dict[str, Any] = {"name": f"{base.name}, {_words(name)} {said}"}
    if name == BATCH_SIZE:
        if not (value >= 1 and value.is_integer()):
            raise StudyError(f"a batch size is a whole number from 1, got {said}", argument="vary")
        changes |= {"batch_size": int(value)}
    else:
        if not math.isfinite(value):
            raise StudyError(f"{name} is a number, got {said}", argument="vary")
        changes |= {"fixed": {**(given.get("fixed") or {}), name: value}}
    return Contestant(**{**given, **changes})


def _words(name: str) -> str:
    return "batch size" if name == BATCH_SIZE else name
