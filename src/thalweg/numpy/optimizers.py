"""Every rule under its own name, as courses spell it, with its hyperparameters as arguments."""

from typing import ClassVar

from thalweg.numpy.base import Optimizer
from thalweg.registry import class_name, spelled
from thalweg.rule import Rule, Scalar


class Named(Optimizer):
    """A rule under its own name: `thalweg.numpy.Adam(lr=0.01)`."""

    kind: ClassVar[type[Rule]]

    def __init__(self, *args: Scalar, threads: int | None = None, **hyperparameters: Scalar) -> None:
        super().__init__(self.kind(*args, **spelled(self.kind, hyperparameters)), threads=threads)


_classes: dict[type[Rule], type[Named]] = {}


def class_of(rule: type[Rule]) -> type[Named]:
    """The optimizer of a rule."""
    if rule not in _classes:
        members = {"kind": rule, "__doc__": rule.__doc__, "__module__": "thalweg.numpy"}
        _classes[rule] = type(class_name(rule), (Named,), members)
    return _classes[rule]
