"""What each framework means by a rule's name: one table per framework, which all else reads, both ways.

A rule's own defaults are the `paper` dialect; a dialect says only what differs from them. Where a
framework has no default, as Optax has none for a learning rate, the paper's stays.
"""

from typing import Any

from thalweg.dialects.keras import KERAS
from thalweg.dialects.optax import OPTAX
from thalweg.dialects.spelling import Framework, Spelling
from thalweg.dialects.tf1 import TF1
from thalweg.dialects.torch import TORCH
from thalweg.errors import UnknownDialectError
from thalweg.rule import Rule

__all__ = ["DIALECTS", "FRAMEWORKS", "SPELLINGS", "Framework", "Spelling", "spoken"]

FRAMEWORKS: dict[str, Framework] = {one.name: one for one in (TORCH, KERAS, TF1, OPTAX)}

# By dialect and rule: the field values that make ours do the same. A rule that is absent is the paper's.
DIALECTS: dict[str, dict[str, dict[str, Any]]] = {"paper": {}} | {
    name: {rule.__name__: one.dialect for rule, one in framework.native.items() if one.dialect}
    for name, framework in FRAMEWORKS.items()
}

# How each framework spells a rule; one that is absent here, it does not have. Arguments that must be given
# stand bare, those that choose the rule with "=". Under a rule that it lacks, a dialect means the paper's.
SPELLINGS: dict[str, dict[str, str]] = {
    name: {rule.__name__: one.shown(framework.place) for rule, one in framework.native.items()}
    for name, framework in FRAMEWORKS.items()
}


def spoken(dialect: str, rule: type[Rule]) -> dict[str, Any]:
    """What a dialect sets otherwise than the paper.

    Raises:
        UnknownDialectError: there is no such dialect.
    """
    if dialect not in DIALECTS:
        raise UnknownDialectError(dialect, DIALECTS)
    one = FRAMEWORKS[dialect].native.get(rule) if dialect != "paper" else None
    return one.dialect if one else {}
