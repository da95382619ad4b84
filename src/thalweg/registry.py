"""Rules by name."""

import re
from dataclasses import fields
from typing import Any

from thalweg.dialects import DIALECTS
from thalweg.errors import UnknownDialectError, UnknownHyperparameterError, UnknownRuleError, nearest
from thalweg.rule import ALIASES, REGISTRY, Rule

# Names that other libraries use for the same hyperparameter. `decay` is none: in Optax it is ρ, in old
# Keras the time decay of the learning rate.
SYNONYMS = {
    "learningrate": "lr",
    "eta": "lr",
    "eps": "epsilon",
    "alpha": "rho",
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
    known = [f.name for f in fields(rule)]  # type: ignore[arg-type]
    folded = {_fold(field): field for field in known}
    chosen: dict[str, Any] = {}
    for given, value in hyperparameters.items():
        field = folded.get(_fold(given)) or SYNONYMS.get(_fold(given))
        if field not in known:
            raise UnknownHyperparameterError(rule.__name__, given, known)
        if field in chosen:
            raise TypeError(f"{rule.__name__}: {field} is given twice")
        chosen[field] = value
    return rule(**{**DIALECTS[dialect].get(rule.__name__, {}), **chosen})


def _fold(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
