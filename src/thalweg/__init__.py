"""Gradient-descent optimizers: a rule is written once, runs everywhere, and is compared fairly."""

from thalweg import schedules
from thalweg.errors import UnknownDialectError, UnknownHyperparameterError, UnknownRuleError
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
from thalweg.registry import get, rules  # isort: skip

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
    "rules",
    "schedules",
    "trace",
]
