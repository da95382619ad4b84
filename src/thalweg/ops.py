"""The functions an update rule is written with.

Each works on arrays of any library that follows the Python array API standard (NumPy, PyTorch,
JAX, …), on symbols while a rule is traced, and on plain numbers. They follow IEEE 754: no exception
for a division by zero or the root of a negative number, and NaN stays NaN.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from thalweg.program.symbols import OPERATIONS, Value, unwrapped

__all__ = [
    "abs",
    "clip",
    "cos",
    "exp",
    "floor",
    "log",
    "maximum",
    "minimum",
    "sign",
    "sin",
    "sqrt",
    "tanh",
    "where",
]


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float)


def _on_values(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that also takes what stands for an entry while a rule runs as it is written."""

    @wraps(function)
    def lifted(*xs: Any) -> Any:
        if any(isinstance(x, Value) for x in xs):
            return Value(function(*map(unwrapped, xs)))
        return function(*xs)

    return lifted


def _elementwise(name: str, meaning: str) -> Callable[[Any], Any]:
    def function(x: Any) -> Any:
        if _is_number(x):
            return float(OPERATIONS[name](float(x)))
        return getattr(array_namespace(x), name)(x)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = meaning
    return _on_values(function)


sqrt = _elementwise("sqrt", "√x; NaN below zero.")
exp = _elementwise("exp", "eˣ.")
log = _elementwise("log", "The natural logarithm.")
tanh = _elementwise("tanh", "The hyperbolic tangent.")
cos = _elementwise("cos", "The cosine of an angle in radians.")
sin = _elementwise("sin", "The sine of an angle in radians.")
abs = _elementwise("abs", "|x|.")
floor = _elementwise("floor", "The largest whole number that is not above x.")
sign = _elementwise("sign", "−1, 0 or 1.")


def _as_arrays(*xs: Any) -> tuple[Any, ...]:
    """The namespace of the arrays among `xs`, then `xs` with numbers brought to the arrays' dtype."""
    arrays = [x for x in xs if not _is_number(x)]
    xp = array_namespace(*arrays)
    first = arrays[0]
    return xp, *(xp.full_like(first, x) if _is_number(x) else x for x in xs)


@_on_values
def maximum(a: Any, b: Any) -> Any:
    """The larger of the two, entry by entry; NaN if either is."""
    if _is_number(a) and _is_number(b):
        return OPERATIONS["maximum"](a, b)
    xp, a, b = _as_arrays(a, b)
    return xp.maximum(a, b)


@_on_values
def minimum(a: Any, b: Any) -> Any:
    """The smaller of the two, entry by entry; NaN if either is."""
    if _is_number(a) and _is_number(b):
        return OPERATIONS["minimum"](a, b)
    xp, a, b = _as_arrays(a, b)
    return xp.minimum(a, b)


@_on_values
def clip(x: Any, low: Any, high: Any) -> Any:
    """`x` brought into [low, high]; NaN stays NaN."""
    return minimum(maximum(x, low), high)


def norm(x: Any) -> Any:
    """The Euclidean norm of an array. A rule does not call it: it asks for `norm` or `global_norm`."""
    if _is_number(x):
        return OPERATIONS["abs"](x)
    xp = array_namespace(x)
    return xp.sqrt(xp.sum(x * x))


@_on_values
def where(condition: Any, a: Any, b: Any) -> Any:
    """`a` where the condition holds, `b` elsewhere."""
    if isinstance(condition, bool | np.bool_):
        return a if condition else b
    if _is_number(a) and _is_number(b):
        xp = array_namespace(condition)
        return xp.where(condition, xp.asarray(float(a)), xp.asarray(float(b)))
    xp, a, b = _as_arrays(a, b)
    return xp.where(condition, a, b)
