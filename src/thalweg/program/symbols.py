"""Symbols: what stands for the numbers while an update rule is traced.

An `Expr` is made by arithmetic on other expressions and by the functions of `thalweg.ops`, which
find its namespace as they find an array's. Equal expressions are one object, so a subexpression
that a rule writes twice is computed once.
"""

import math
import operator
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

# What each operation does to numbers: constants are folded with it, and scalar lines run it.
# IEEE 754 rather than exceptions, as arrays do.


def _divide(a: float, b: float) -> float:
    if b == 0:
        return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)
    return a / b


def _power(a: float, b: float) -> float:
    try:
        result = float(a) ** float(b)  # of whole numbers Python would compute every digit
    except ZeroDivisionError:
        return math.inf
    except OverflowError:
        return -math.inf if a < 0 and b % 2 == 1 else math.inf
    return result if isinstance(result, int | float) else math.nan


def _sqrt(x: float) -> float:
    return math.sqrt(x) if x >= 0 else math.nan


def _log(x: float) -> float:
    return math.log(x) if x > 0 else (-math.inf if x == 0 else math.nan)


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _cos(x: float) -> float:
    return math.cos(x) if math.isfinite(x) else math.nan


def _sin(x: float) -> float:
    return math.sin(x) if math.isfinite(x) else math.nan


def _floor(x: float) -> float:
    return float(math.floor(x)) if math.isfinite(x) else x


def _maximum(a: float, b: float) -> float:
    return a if a >= b or a != a else b


def _minimum(a: float, b: float) -> float:
    return a if a <= b or a != a else b


def _sign(x: float) -> float:
    return (x > 0) - (x < 0) if x == x else x


def _where(condition: bool, a: float, b: float) -> float:
    return a if condition else b


OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": _divide,
    "pow": _power,
    "neg": operator.neg,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
    "sqrt": _sqrt,
    "exp": _exp,
    "log": _log,
    "tanh": math.tanh,
    "cos": _cos,
    "sin": _sin,
    "abs": abs,
    "floor": _floor,
    "sign": _sign,
    "maximum": _maximum,
    "minimum": _minimum,
    "where": _where,
}

# What is not done to one entry: the norm of what stands in every entry of a tensor, or of the model.
NORMS = ("norm", "global_norm")


class _Arithmetic:
    """Operators that all come to one method."""

    __slots__ = ()

    @staticmethod
    def _apply(op: str, *args: Any) -> Any:
        """The operation on these arguments, one of which is of this class."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"in update, g, p and state stand for one entry each, a number, which has no {name!r}; "
            "use operators and the functions of thalweg.ops"
        )

    def __add__(self, other: Any) -> Any:
        return self._apply("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return self._apply("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return self._apply("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._apply("sub", other, self)

    def __mul__(self, other: Any) -> Any:
        return self._apply("mul", self, other)

    def __rmul__(self, other: Any) -> Any:
        return self._apply("mul", other, self)

    def __truediv__(self, other: Any) -> Any:
        return self._apply("div", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._apply("div", other, self)

    def __pow__(self, other: Any) -> Any:
        return self._apply("pow", self, other)

    def __rpow__(self, other: Any) -> Any:
        return self._apply("pow", other, self)

    def __neg__(self) -> Any:
        return self._apply("neg", self)

    def __abs__(self) -> Any:
        return self._apply("abs", self)

    def __lt__(self, other: Any) -> Any:
        return self._apply("lt", self, other)

    def __le__(self, other: Any) -> Any:
        return self._apply("le", self, other)

    def __gt__(self, other: Any) -> Any:
        return self._apply("gt", self, other)

    def __ge__(self, other: Any) -> Any:
        return self._apply("ge", self, other)

    def __eq__(self, other: object) -> Any:
        return self._apply("eq", self, other)

    def __ne__(self, other: object) -> Any:
        return self._apply("ne", self, other)

    __hash__ = object.__hash__


class Expr(_Arithmetic):
    """A symbol (`op == "symbol"`) or an operation on expressions and numbers."""

    __slots__ = ("__weakref__", "args", "name", "op")
    op: str
    args: tuple["Expr | float", ...]
    name: str

    @staticmethod
    def _apply(op: str, *args: Any) -> Any:
        # Rules that write m + None or m + "x" meet apply's TypeError, which names the None.
        return apply(op, *args)

    def __array_namespace__(self, api_version: str | None = None) -> ModuleType:
        """The functions of `thalweg.ops`, for symbols."""
        return _namespace

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **_: Any) -> Any:
        """A NumPy number beside a symbol; a function of NumPy's of a symbol is refused."""
        op = _UFUNCS.get(function.__name__)
        if op is None or method != "__call__":
            raise _not_for_symbols(f"np.{function.__name__}")
        return apply(op, *inputs)

    def __array_function__(self, function: Any, *_: Any) -> Any:
        """As `__array_ufunc__` refuses."""
        raise _not_for_symbols(f"np.{function.__name__}")

    @classmethod
    def __torch_function__(cls, function: Any, *_: Any) -> Any:
        """As `__array_ufunc__` refuses, for PyTorch's functions."""
        raise _not_for_symbols(f"torch.{function.__name__}")

    def __float__(self) -> float:
        """Refused: math's functions ask for a number."""
        raise _not_for_symbols("a function of Python's math")

    def __round__(self, *_: Any) -> Any:
        """Refused."""
        raise _not_for_symbols("round")

    def __bool__(self) -> bool:
        raise TypeError(
            "update cannot branch on a value that is known only when it runs: "
            "write thalweg.ops.where(condition, a, b), and thalweg.ops.maximum(a, b) and minimum(a, b) for "
            "Python's max and min; fields of type bool may be branched on"
        )

    def __repr__(self) -> str:
        return self.name or f"{self.op}({', '.join(map(repr, self.args))})"


# NumPy's names for operators: a NumPy number beside a symbol is a number.
_UFUNCS = {
    **{"add": "add", "subtract": "sub", "multiply": "mul", "divide": "div", "power": "pow"},
    **{"less": "lt", "less_equal": "le", "greater": "gt", "greater_equal": "ge"},
    **{"equal": "eq", "not_equal": "ne"},
}
# What other libraries call the functions of `thalweg.ops`.
_ELSEWHERE = {"absolute": "abs", "fabs": "abs", "clamp": "clip", "fmax": "maximum", "fmin": "minimum"}


def _not_for_symbols(name: str) -> TypeError:
    """The error of a function that takes no symbols, with the one that does."""
    own = name.rpartition(".")[2]
    own = _ELSEWHERE.get(own, own)
    if own in OPERATIONS or own == "clip":
        right = f"use thalweg.ops.{own}"
    elif name == "round":
        right = "use thalweg.ops.floor(x + 0.5)"
    else:
        functions = "sqrt, exp, log, tanh, sin, cos, abs, floor, sign, maximum, minimum, clip and where"
        right = f"use those of thalweg.ops ({functions})"
    return TypeError(
        f"{name} does not work in update, where g, p and state stand for one entry each; {right}"
    )


class Value(_Arithmetic):
    """What stands for an entry while a rule runs as it is written: numbers follow IEEE 754, as arrays do.

    Attributes:
        value: a number, or an array of any library.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    @staticmethod
    def _apply(op: str, *args: Any) -> "Value":
        plain = [unwrapped(a) for a in args]
        if all(isinstance(a, int | float) for a in plain):
            return Value(OPERATIONS[op](*plain))
        return Value(getattr(operator, {"div": "truediv"}.get(op, op))(*plain))

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **options: Any) -> "Value":
        """A NumPy array or number beside a value."""
        return Value(getattr(function, method)(*map(unwrapped, inputs), **options))

    def __float__(self) -> float:
        return float(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __repr__(self) -> str:
        return repr(self.value)


def unwrapped(x: Any) -> Any:
    """A value's number or array; anything else as it is."""
    return x.value if isinstance(x, Value) else x


_known: "weakref.WeakValueDictionary[Any, Expr]" = weakref.WeakValueDictionary()


def intern(op: str, args: tuple[Any, ...], name: str = "") -> Expr:
    """The one expression of that operation on those arguments, as it stands."""
    # Arguments are known by identity: comparing symbols makes a new symbol. An id cannot be met
    # again while its entry lives, since the entry's value holds the arguments.
    key = (op, name, *(id(a) if isinstance(a, Expr) else ("number", float(a)) for a in args))
    found = _known.get(key)
    if found is None:
        found = Expr()
        found.op, found.args, found.name = op, args, name
        _known[key] = found
    return found


def symbol(name: str) -> Expr:
    """A symbol of that name."""
    return intern("symbol", (), name)


@dataclass(frozen=True)
class Line:
    """`name = value`, where `value` may name earlier lines."""

    name: str
    value: Any


def is_number(x: Any, number: float) -> bool:
    """Whether `x` is no symbol but that number."""
    return not isinstance(x, Expr) and x == number


def apply(op: str, *args: Any) -> Any:
    """An operation on expressions and numbers; a number where all arguments are numbers.

    Raises:
        TypeError: an argument is neither.
    """
    args = tuple(a.item() if isinstance(a, np.generic) else a for a in args)
    for a in args:
        if not isinstance(a, Expr | float | int):
            raise TypeError(
                f"update computes with t, g, p, state, hyperparameters and numbers, not with {a!r}"
            )
    if not any(isinstance(a, Expr) for a in args):
        return OPERATIONS[op](*args)
    match op, args:
        case ("add", (x, y)) if is_number(y, 0):
            return x
        case ("add", (x, y)) if is_number(x, 0):
            return y
        case ("sub" | "div" | "mul" | "pow", (x, y)) if is_number(y, 0 if op == "sub" else 1):
            return x
        case ("mul", (x, y)) if is_number(x, 1):
            return y
        case ("sub", (x, y)) if is_number(x, 0):
            return apply("neg", y)
        case ("neg", (Expr(op="neg", args=(x,)),)):
            return x
        case ("where", (bool() as condition, x, y)):
            return x if condition else y
        case ("where", (_, x, y)) if x is y:
            return x
    return intern(op, args)


def _function(op: str) -> Callable[..., Any]:
    return lambda *args: apply(op, *args)


_namespace = ModuleType("thalweg.program.symbols.functions")
vars(_namespace).update(
    {name: _function(name) for name in OPERATIONS},
    full_like=lambda _, number: number,
    asarray=lambda number: number,
)


def walk(*roots: Any) -> Iterator[Expr]:
    """Every expression under `roots` once, arguments before what uses them."""
    seen: set[Expr] = set()
    for root in roots:
        stack = [(root, False)]
        while stack:
            expr, expanded = stack.pop()
            if not isinstance(expr, Expr) or expr in seen:
                continue
            if expanded:
                seen.add(expr)
                yield expr
            else:
                stack.append((expr, True))
                stack.extend((a, False) for a in reversed(expr.args))


class Rewriter:
    """Expressions made anew, arguments first.

    Attributes:
        done: what became of each expression met; what is here from the start is put in its place.
    """

    def __init__(self, given: Mapping[Expr, Any] | None = None) -> None:
        self.done: dict[Expr, Any] = dict(given or {})

    def __call__(self, x: Any) -> Any:
        """What becomes of an expression; a number stays."""
        for e in walk(x):
            if e not in self.done:
                args = tuple(self.done[a] if isinstance(a, Expr) else a for a in e.args)
                self.done[e] = self.rewrite(e.op, args) if e.args else e
        return self.done[x] if isinstance(x, Expr) else x

    def rewrite(self, op: str, args: tuple[Any, ...]) -> Any:
        """What becomes of an operation on arguments that are made anew already; here it stays."""
        return intern(op, args)
