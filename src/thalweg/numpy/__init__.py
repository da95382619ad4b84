"""Thalweg's rules on NumPy arrays, updated in place: the idiom of courses.

    from thalweg.numpy import Adam

    optimizer = Adam(lr=0.01)
    optimizer.update(params, grads)  # dictionaries, lists, nested or not, or single arrays
    optimizer.lr *= 0.95  # hyperparameters are attributes

Every registered rule is here, under its own name and as courses spell it (`AdaGrad`, `NAdam`); so are its
hyperparameters (`beta1`, `learning_rate`, `decay_rate`).
"""

from thalweg.errors import UnknownRuleError, no_attribute
from thalweg.numpy.base import Optimizer
from thalweg.numpy.optimizers import Named, class_of
from thalweg.registry import find, rules

__all__ = ["Optimizer"]


def __getattr__(name: str) -> type[Named]:
    try:
        return class_of(find(name))
    except UnknownRuleError:
        raise no_attribute(__name__, name, __dir__()) from None


def __dir__() -> list[str]:
    return [*__all__, *(class_of(find(name)).__name__ for name in rules())]
