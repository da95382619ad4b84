"""Rules by name."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from thalweg.dialects import DIALECTS
from thalweg.errors import UnknownDialectError, UnknownHyperparameterError, UnknownRuleError, nearest
from thalweg.rule import ALIASES, REGISTRY, Rule

# Names that other libraries use for the same hyperparameter. `decay` is none: in Optax it is ρ, in old
# Keras the time decay of the learning rate.
SYNONYMS = {
    "learningrate": "lr",
    "stepsize": "lr",
    "eta": "lr",
    "eps": "epsilon",
    "alpha": "rho",
    "decayrate": "rho",
    "mu": "momentum",
}


class Rules:
    """All registered rules: `rules()` lists their names as `get` takes them; `rules.Adam` is one."""

    def __call__(self) -> list[str]:
        """Names of all registered rules."""
        return [name.lower() for name in REGISTRY]

    def __getattr__(self, name: str) -> type[Rule]:
        if name not in REGISTRY:
            raise AttributeError(f"no rule is named {name!r}; {nearest(name, REGISTRY)}")
        return REGISTRY[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *REGISTRY]


rules = Rules()


def find(name: str) -> type[Rule]:
    """The rule of that name; capitals, underscores, hyphens and spaces make no difference.

    Raises:
        UnknownRuleError: no rule has the name; the message names the nearest.
    """
    folded = {_fold(known): rule for known, rule in REGISTRY.items()}
    folded |= {_fold(alias): REGISTRY[known] for alias, known in ALIASES.items()}
    if _fold(name) not in folded:
        raise UnknownRuleError(name, rules())
    return folded[_fold(name)]


def get(name: str, *, dialect: str = "paper", **hyperparameters: Any) -> Rule:
    """A rule by name: `get("adam", lr=0.01)`, `get("NAdam", dialect="keras")`.

    Args:
        name: as in `rules()`, in any spelling ("ada_grad", "NAdam").
        dialect: whose arithmetic and defaults: "paper", "torch", "keras", "tf1" or "optax".
        hyperparameters: values other than the dialect's; spellings such as `beta1`, `eps` and
            `learning_rate` are understood.

    Raises:
        UnknownRuleError, UnknownDialectError, UnknownHyperparameterError: naming the nearest name.
        TypeError, ValueError: a value of the wrong type, outside its range, or given twice.
    """
    rule = find(name)
    if dialect not in DIALECTS:
        raise UnknownDialectError(dialect, DIALECTS)
    return rule(**{**DIALECTS[dialect].get(rule.__name__, {}), **spelled(rule, hyperparameters)})


def spelled(rule: type[Rule], hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters by the names that a rule has for them.

    Raises:
        UnknownHyperparameterError: it has none of such a name; the message names the nearest.
        TypeError: one is given twice.
    """
    known = [f.name for f in fields(rule)]  # type: ignore[arg-type]
    chosen: dict[str, Any] = {}
    for given, value in hyperparameters.items():
        field = known_as(given, known)
        if field is None:
            raise UnknownHyperparameterError(rule.__name__, given, known)
        if field in chosen:
            raise TypeError(f"{rule.__name__}: {field} is given twice")
        chosen[field] = value
    return chosen


def known_as(name: str, known: Iterable[str]) -> str | None:
    """Which of the known names `name` is another spelling of, `SYNONYMS` included; None if of none."""
    return _spellings(known).get(_fold(name))


def meant_by(name: str, known: Iterable[str]) -> str | None:
    """Which of the known names is meant by another one: it, differently spelled or a slip of the pen away.

    A known name with further words is a name of its own: `weight_decay_scale` is no slip for `weight_decay`.

    Returns:
        the known name; None where `name` is not near any.
    """
    spellings = _spellings(known)
    words = [_fold(word) for word in name.split("_")]
    runs = {"".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
    for close in difflib.get_close_matches(_fold(name), spellings, 5, 0.8):
        if close == _fold(name) or close not in runs:
            return spellings[close]
    return None


def _spellings(known: Iterable[str]) -> dict[str, str]:
    """The known names by each of their spellings, folded."""
    known = list(known)
    own = {SYNONYMS.get(_fold(name), ""): name for name in known} | {_fold(name): name for name in known}
    return {synonym: own[name] for synonym, name in SYNONYMS.items() if name in own} | own


def _fold(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
