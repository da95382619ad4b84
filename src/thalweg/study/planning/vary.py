"""One optimizer with several values of one setting: a contestant a value."""

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
    """The setting in which the contestants of a study differ.

    Attributes:
        name: "batch_size", "lr" or another hyperparameter.
        values: each contestant's, by the contestant's name.
        note: what was done about the learning rate.
    """

    name: str
    values: Mapping[str, float]
    note: str

    @classmethod
    def of(cls, variants: Sequence[Contestant], name: str) -> Varied:
        """The setting in which variants differ."""
        if name == BATCH_SIZE:
            values: dict[str, float] = {c.name: c.batch_size or 0 for c in variants}
        else:
            values = {c.name: c.defaults[name] for c in variants}
        if name == "lr":
            note = "Each learning rate was used as given: none was searched."
        elif len(variants[0].space["lr"].values) == 1:
            note = f"All ran at one learning rate, which may suit one {_label(name)} better than another."
        else:
            note = f"The learning rate was tuned for each {_label(name)} separately."
        return cls(name, values, note)


def variants(
    optimizer: Optimizer | Contestant,
    name: str,
    values: Sequence[float],
    *,
    dialect: str = "keras",
    lr: Sequence[float] | None = None,
    tune: Sequence[str] = (),
) -> list[Contestant]:
    """One contestant a value, such as "adam, batch size 32" and "adam, lr 0.01".

    Where the learning rate itself is varied, each has its own. Otherwise the learning rate of each is tuned
    separately: at one rate for all, the value that this rate happens to suit would look best.

    Args:
        optimizer: which; a Contestant keeps its own search space.
        name: "batch_size" or a hyperparameter of the optimizer.
        values: its values; repeated ones count once. Batch sizes are whole numbers from 1.
        dialect: whose arithmetic and defaults, where the optimizer's name does not say.
        lr: learning rates to choose from, except for a Contestant. None: the optimizer's own search range.
        tune: further hyperparameters to search, except for a Contestant.

    Raises:
        StudyError: the optimizer has no such setting, it is also given or searched, or there is no value.
        ValueError: the setting may not have one of the values.
    """
    base = optimizer if isinstance(optimizer, Contestant) else Contestant(optimizer, dialect=dialect)
    names = _settings(base)
    if name not in names:
        raise StudyError(
            f"{base.name} has no setting {name!r} to vary; {nearest(name, names)}", argument="vary"
        )
    if name in tune or (name == "lr" and lr):
        raise StudyError(f"{name} is varied: it cannot be given or tuned at the same time", argument="vary")
    if not values:
        raise StudyError(f"give the values of {name}", argument="vary")
    if isinstance(optimizer, Contestant):
        given = dict(optimizer._given)  # its arguments, so that everything else stays the same
        space = given["space"] if isinstance(given["space"], Mapping) else dict.fromkeys(given["space"] or ())
    else:
        given = {"optimizer": optimizer, "dialect": dialect}
        space = {"lr": list(lr) if lr else None} | {key: None for key in tune if key in base.defaults}
    given["space"] = {key: asked for key, asked in space.items() if key != name}
    return [_variant(base, given, name, value) for value in dict.fromkeys(map(float, values))]


def _settings(base: Contestant) -> list[str]:
    """The settings that can be varied, also hyperparameters that are None unless they are given."""
    names = [BATCH_SIZE, *base.defaults]
    if base.rule and not isinstance(base.rule, Chain):
        names += [f.name for f in dataclasses.fields(base.rule) if not is_flag(f)]
    return list(dict.fromkeys(names))


def _variant(base: Contestant, given: Mapping[str, Any], name: str, value: float) -> Contestant:
    # `:g` is how people write numbers, but two values must not share a name.
    text = f"{value:g}" if float(f"{value:g}") == value else repr(value)
    changes: dict[str, Any] = {"name": f"{base.name}, {_label(name)} {text}"}
    if name == BATCH_SIZE:
        if not (value >= 1 and value.is_integer()):
            raise StudyError(
                f"a batch size must be a whole number of at least 1, got {text}", argument="vary"
            )
        changes |= {"batch_size": int(value)}
    else:
        if not math.isfinite(value):
            raise StudyError(f"{name} must be a finite number, got {text}", argument="vary")
        changes |= {"fixed": {**(given.get("fixed") or {}), name: value}}
    return Contestant(**{**given, **changes})


def _label(name: str) -> str:
    return "batch size" if name == BATCH_SIZE else name
