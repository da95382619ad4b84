"""Gradient-descent optimizers: a rule is written once, runs everywhere, and is compared fairly."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from thalweg import notebook as notebook
from thalweg import schedules
from thalweg.errors import UnknownDialectError, UnknownHyperparameterError, UnknownRuleError, no_attribute
from thalweg.hyperparameters import Hyperparameter, hyper
from thalweg.program import Program, trace
from thalweg.rule import Rule, Scalar
from thalweg.rules import (
    SGD,
    AdaBelief,
    Adadelta,
    Adagrad,
    Adam,
    AdaMax,
    AdamW,
    Adan,
    AMSGrad,
    Lion,
    Momentum,
    Nadam,
    Nesterov,
    RAdam,
    RMSprop,
)
from thalweg.treatments import (
    L2,
    ClipByGlobalNorm,
    ClipByNorm,
    ClipByValue,
    DecoupledDecay,
    Maximize,
    SkipNonFinite,
    Treatment,
    chain,
)

# After the package of that name: `thalweg.rules()` lists names, `thalweg.rules.Adam` is a rule.
from thalweg.registry import get, register, rules  # isort: skip

if TYPE_CHECKING:
    from thalweg import solvers as solvers
    from thalweg import surfaces as surfaces
    from thalweg.following import Path as Path
    from thalweg.following import path as path
    from thalweg.following import paths as paths
    from thalweg.maps import Theory as Theory
    from thalweg.maps import basins as basins
    from thalweg.maps import rate_map as rate_map
    from thalweg.study.contestant import Contestant as Contestant
    from thalweg.study.learners.batches import Loaders as Loaders
    from thalweg.study.measure import Metric as Metric
    from thalweg.study.plan import Budget as Budget
    from thalweg.study.study import Study as Study
    from thalweg.study.study import compare as compare
    from thalweg.study.task import Task as Task

__version__ = "0.1.0"

__all__ = [
    "L2",
    "SGD",
    "AMSGrad",
    "AdaBelief",
    "AdaMax",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adan",
    "ClipByGlobalNorm",
    "ClipByNorm",
    "ClipByValue",
    "DecoupledDecay",
    "Hyperparameter",
    "Lion",
    "Maximize",
    "Momentum",
    "Nadam",
    "Nesterov",
    "Program",
    "RAdam",
    "RMSprop",
    "Rule",
    "Scalar",
    "SkipNonFinite",
    "Treatment",
    "UnknownDialectError",
    "UnknownHyperparameterError",
    "UnknownRuleError",
    "chain",
    "get",
    "hyper",
    "register",
    "rules",
    "schedules",
    "trace",
]

# What looks at rules and compares them is loaded when it is asked for: it needs more than the rules do.
_LAZY = {
    **dict.fromkeys(("Path", "path", "paths"), "following"),
    **dict.fromkeys(("Theory", "basins", "rate_map"), "maps"),
    **dict.fromkeys(("Study", "compare"), "study.study"),
    "Budget": "study.plan",
    "Contestant": "study.contestant",
    "Loaders": "study.learners.batches",
    "Metric": "study.measure",
    "Task": "study.task",
}
_MODULES = ("solvers", "surfaces")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"thalweg.{name}")
    if name not in _LAZY:
        raise no_attribute(__name__, name, [*__all__, *_LAZY, *_MODULES])
    try:
        module = import_module(f"thalweg.{_LAZY[name]}")
        if _LAZY[name] == "following":
            module.Path.picture = staticmethod(_picture)
        return getattr(module, name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("thalweg"):
            raise
        raise ImportError(f"thalweg.{name} needs {error.name}: pip install 'thalweg[study]'") from error


def _picture(path: Path) -> str:
    picture: str = import_module("thalweg.plot").inline(path)
    return picture


def __dir__() -> list[str]:
    return [*globals(), *_LAZY, *_MODULES]
