"""Thalweg's rules as optimizers of Keras 3, on its torch, JAX and TensorFlow back ends.

Replace `keras.optimizers` by `thalweg.keras`: names, signatures, defaults, arithmetic and the layout of
saved state are Keras's. Course code for older Keras runs too: `lr`, `decay` and `epsilon=None` mean what
they did. Every registered rule is here under its own name, and `Optimizer(rule)` runs any rule,
treatments and schedules included.

    from thalweg import keras as optimizers

    model.compile(optimizer=optimizers.SGD(lr=0.01, decay=1e-6, momentum=0.9, nesterov=True), loss="mse")
"""

from typing import Any

try:
    import keras
except ModuleNotFoundError as error:
    if error.name != "keras":
        raise  # Keras is there, its back end is not: Keras says which
    raise ImportError("thalweg.keras needs Keras 3: pip install 'thalweg[keras]'") from error

from thalweg.dialects.keras import KERAS
from thalweg.errors import UnknownRuleError
from thalweg.keras.optimizers import Named, Optimizer, class_of
from thalweg.registry import find, front_end, rules
from thalweg.rule import Rule

__all__ = ["Optimizer", "get"]
__all__ += dict.fromkeys(one.name for one in KERAS.spellings)

for _name in rules():
    class_of(find(_name))  # from here on Keras knows it by the string "thalweg>Class"


def get(identifier: Any) -> Any:
    """An optimizer with default settings by name, such as "sgd"; as `keras.optimizers.get`.

    Args:
        identifier: a name in any spelling, "module:Name" of a rule of one's own, a rule, a configuration as
            `keras.optimizers.serialize` writes it (one of Keras's own makes ours of that name), or an
            optimizer, which is returned as it is.

    Raises:
        UnknownRuleError: no rule has the name; the message names the nearest.
        ValueError: it is none of these.
    """
    if isinstance(identifier, Rule):
        return Optimizer(identifier)
    if isinstance(identifier, str):
        return Optimizer(find(identifier)()) if ":" in identifier else _class(identifier)()
    if isinstance(identifier, dict):
        try:
            kind = _class(identifier["class_name"])
        except UnknownRuleError:
            return keras.optimizers.get(identifier)
        return kind.from_config(dict(identifier.get("config") or {}))
    return keras.optimizers.get(identifier)


def _class(name: str) -> type[Named]:
    return class_of(find(name.removeprefix("thalweg>")))


__getattr__, __dir__ = front_end(__name__, __all__, class_of)
