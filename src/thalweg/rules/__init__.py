"""The update rules, by family, simplest first; within a file too."""

# isort: off
from thalweg.rules.descent import SGD, Momentum, Nesterov
from thalweg.rules.adaptive import Adadelta, Adagrad, RMSprop
from thalweg.rules.adam import AMSGrad, AdaBelief, AdaMax, Adam, AdamW, Adan, Nadam, RAdam
from thalweg.rules.sign import Lion
# isort: on

__all__ = [
    "SGD",
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
