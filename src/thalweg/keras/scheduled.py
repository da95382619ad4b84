"""Learning rates and other hyperparameters that depend on the step number, which may be traced."""

import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

import thalweg.ops
from thalweg.keras.config import value_from_config, value_to_config
from thalweg.program.symbols import Expr, symbol, walk
from thalweg.schedules import Schedule

# The operations that rules name; arithmetic is the tensors' own. Some of Keras's functions compute in
# float32 whatever they are given, but not on TensorFlow, whose tensors are no arrays of the standard.
_LIBRARY: Any = ops if keras.backend.backend() == "tensorflow" else thalweg.ops
NAMESPACE: dict[str, Callable[..., Any]] = {name: getattr(_LIBRARY, name) for name in thalweg.ops.__all__}
NAMESPACE["sum_of_squares"] = lambda x: ops.sum(ops.square(x))
_OPERATORS = {"div": "truediv"}


def is_traced(x: Any) -> bool:
    """Whether `x` stands for a value that is known only when a compiled function runs."""
    if keras.backend.backend() == "jax":
        import jax

        return isinstance(x, jax.core.Tracer)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.is_symbolic_tensor(x))
    return False  # torch leaves a compiled function where it needs a number


def value_at(schedule: Schedule, t: Any) -> Any:
    """A schedule's value at step `t` (from 1, an integer tensor).

    Where `t` is traced, a schedule written with `thalweg.ops`, as those of `thalweg.schedules` are, is
    traced with it. Any other, one that branches on `t` or uses Python's `math`, is called on the host
    each time the compiled step runs; TensorFlow can do that only without XLA (`jit_compile=False`).
    """
    if not is_traced(t):
        return float(schedule(int(t)))
    dtype = keras.config.floatx()
    try:
        expression: Any = schedule(symbol("t"))  # type: ignore[arg-type]
    except (TypeError, AttributeError):  # it wants a number
        return _on_host(lambda now: np.asarray(schedule(int(now)), dtype), t, dtype)
    return _evaluated(expression, ops.cast(t, dtype)) if isinstance(expression, Expr) else expression


def _evaluated(expression: Expr, t: Any) -> Any:
    """The value of an expression over `t`."""
    values: dict[Expr, Any] = {}
    for e in walk(expression):
        arguments = (values[a] if isinstance(a, Expr) else a for a in e.args)
        values[e] = t if e.op == "symbol" else _function(e.op)(*arguments)
    return values[expression]


def _function(operation: str) -> Callable[..., Any]:
    """What does an operation to tensors."""
    return NAMESPACE.get(operation) or getattr(operator, _OPERATORS.get(operation, operation))


def _on_host(function: Callable[[Any], Any], t: Any, dtype: str) -> Any:
    if keras.backend.backend() == "jax":
        import jax

        like = jax.ShapeDtypeStruct((), dtype)  # type: ignore[no-untyped-call]
        return jax.pure_callback(function, like, t, vmap_method="sequential")
    import tensorflow as tf

    return tf.ensure_shape(tf.numpy_function(function, [t], dtype), ())


class Scheduled(LearningRateSchedule):  # type: ignore[misc]
    """A schedule of t, counted from 1, as Keras's learning rate: a function of steps taken, from 0."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __call__(self, step: Any) -> Any:
        """The learning rate after `step` steps."""
        return value_at(self.schedule, ops.convert_to_tensor(step) + 1)

    def get_config(self) -> dict[str, Any]:
        """The schedule, for `from_config`."""
        return {"schedule": value_to_config(self.schedule)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Scheduled":
        """What `get_config` described."""
        return cls(value_from_config(config["schedule"]))


keras.saving.register_keras_serializable("thalweg", "Scheduled")(Scheduled)


def learning_rate(given: Any) -> Any:
    """A number, a schedule of t, or a learning rate of Keras's, as Keras takes it."""
    if isinstance(given, LearningRateSchedule):
        return given
    if callable(given):
        return given if _takes_nothing(given) else Scheduled(given)
    return float(given)


def _takes_nothing(function: Callable[..., Any]) -> bool:
    """Whether a function is called without arguments, as Keras calls a learning rate."""
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return False
    return True
