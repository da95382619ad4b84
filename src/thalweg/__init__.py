"""Gradient-descent optimizers: a rule is written once, runs everywhere, and is compared fairly."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from thalweg import notebook, schedules
from thalweg.errors import UnknownDialectError, UnknownHyperparameterError, UnknownRuleError, no_attribute
from thalweg.explain.notebook import rule_html
from thalweg.hyperparameters import Hyperparameter, hyper
from thalweg.program.tracing import Program, trace
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
    from thalweg import surfaces as surfaces
    from thalweg.study.contestant import Contestant as Contestant
    from thalweg.study.learners.batches import Loaders as Loaders
    from thalweg.study.learners.metrics import Metric as Metric
    from thalweg.study.planning.budget import Budget as Budget
    from thalweg.study.study import Study as Study
    from thalweg.study.study import compare as compare
    from thalweg.study.task import Task as Task
    from thalweg.surfaces import solvers as solvers
    from thalweg.surfaces.maps import Theory as Theory
    from thalweg.surfaces.maps import basins as basins
    from thalweg.surfaces.maps import rate_map as rate_map
    from thalweg.surfaces.paths import Path as Path
    from thalweg.surfaces.paths import path as path
    from thalweg.surfaces.paths import paths as paths

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
    **dict.fromkeys(("Path", "path", "paths"), "surfaces.paths"),
    **dict.fromkeys(("Theory", "basins", "rate_map"), "surfaces.maps"),
    **dict.fromkeys(("Study", "compare"), "study.study"),
    "Budget": "study.planning.budget",
    "Contestant": "study.contestant",
    "Loaders": "study.learners.batches",
    "Metric": "study.learners.metrics",
    "Task": "study.task",
}
_MODULES = {"solvers": "surfaces.solvers", "surfaces": "surfaces"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"thalweg.{_MODULES[name]}")
    if name not in _LAZY:
        raise no_attribute(__name__, name, [*__all__, *_LAZY, *_MODULES])
    try:
        return getattr(import_module(f"thalweg.{_LAZY[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("thalweg"):
            raise
        raise ImportError(f"thalweg.{name} needs {error.name}: pip install 'thalweg[study]'") from error


def _picture(path: Path) -> str | None:
    """One path as a picture; None without matplotlib."""
    if find_spec("matplotlib") is None:
        return None
    picture: str = import_module("thalweg.plot").inline(path)
    return picture


notebook.register("rule", rule_html)
notebook.register("path", _picture)


def __dir__() -> list[str]:
    return [*globals(), *_LAZY, *_MODULES]
