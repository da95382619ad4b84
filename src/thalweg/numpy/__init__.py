"""Thalweg's rules on NumPy arrays, updated in place: the idiom of courses.

    from thalweg.numpy import Adam

    optimizer = Adam(lr=0.01)
    optimizer.update(params, grads)  # dictionaries, lists, nested or not, or single arrays
    optimizer.lr *= 0.95  # hyperparameters are attributes

Every registered rule is here, under its own name and as courses spell it (`AdaGrad`, `NAdam`); so are its
hyperparameters (`beta1`, `learning_rate`, `decay_rate`).
"""

from thalweg.numpy.base import Optimizer
from thalweg.numpy.optimizers import class_of
from thalweg.registry import front_end

__all__ = ["Optimizer"]

__getattr__, __dir__ = front_end(__name__, __all__, class_of)
