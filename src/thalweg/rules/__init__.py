"""The update rules, by family, simplest first; within a file too."""

from thalweg.rule import Rule

# isort: off
from thalweg.rules.descent import SGD, Momentum, Nesterov
from thalweg.rules.adaptive import Adadelta, Adagrad, RMSprop
from thalweg.rules.adam import AMSGrad, AdaBelief, AdaMax, Adam, AdamW, Adan, Nadam, RAdam
from thalweg.rules.sign import Lion
# isort: on

RULES: tuple[type[Rule], ...] = (
    *(SGD, Momentum, Nesterov),
    *(Adagrad, RMSprop, Adadelta),
    *(Adam, AdamW, AMSGrad, AdaMax, Nadam, RAdam, AdaBelief, Adan),
    Lion,
)

# The rules that textbooks compare, the best known first.
WELL_KNOWN = ("sgd", "momentum", "adagrad", "adam", "rmsprop", "nesterov", "adadelta", "nadam", "adamax")

__all__ = [
    "RULES",
    "SGD",
    "WELL_KNOWN",
    "AMSGrad",
    "AdaBelief",
    "AdaMax",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adan",
    "Lion",
    "Momentum",
    "Nadam",
    "Nesterov",
    "RAdam",
    "RMSprop",
]
