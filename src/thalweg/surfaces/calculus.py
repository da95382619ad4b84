"""Derivatives of expressions, as expressions.

At a kink the slope is one of those beside it, and 0 where it would point both ways: that of |x| at 0 is
sign(0) = 0, and so is that of √x, which has none there.
"""

from typing import Any

from thalweg.program.symbols import Expr, apply, is_number, walk

__all__ = ["derivative", "gradient", "hessian"]


def derivative(x: Any, by: Expr) -> Any:
    """The derivative of an expression by a symbol; simplified, as 0·u is dropped even where u may be NaN.

    Raises:
        TypeError: a truth value, such as x > 0 outside of `where`, has none.
    """
    if not isinstance(x, Expr):
        return 0.0
    slopes: dict[Expr, Any] = {}

    def slope(a: Any) -> Any:
        return slopes[a] if isinstance(a, Expr) else 0.0

    for e in walk(x):
        slopes[e] = _slope(e, by, [slope(a) for a in e.args])
    if slopes[x] is None:
        raise TypeError(f"{x!r} is true or false and has no derivative")
    return slopes[x]


def gradient(x: Any, by: tuple[Expr, ...]) -> list[Any]:
    """The derivatives of an expression by each symbol."""
    return [derivative(x, s) for s in by]


def hessian(x: Any, by: tuple[Expr, ...]) -> list[list[Any]]:
    """The second derivatives of an expression: rows of a symmetric matrix."""
    upper = [[derivative(slope, s) for s in by[i:]] for i, slope in enumerate(gradient(x, by))]
    return [[upper[min(i, j)][abs(i - j)] for j in range(len(by))] for i in range(len(by))]


def _slope(e: Expr, by: Expr, slopes: list[Any]) -> Any:
    """By the chain rule, from the slopes of the arguments. None for a truth value."""
    if e.op == "symbol":
        return 1.0 if e is by else 0.0
    if e.op in ("lt", "le", "gt", "ge", "eq", "ne"):
        return None
    if all(s is None or is_number(s, 0) for s in slopes):
        return 0.0
    match e.op, e.args, slopes:
        case "add", _, (du, dv):
            return _plus(du, dv)
        case "sub", _, (du, dv):
            return _minus(du, dv)
        case "mul", (u, v), (du, dv):
            return _plus(_times(du, v), _times(u, dv))
        case "div", (u, v), (du, dv) if is_number(dv, 0):
            return _over(du, v)
        case "div", (u, v), (du, dv):
            return _over(_minus(du, _times(e, dv)), v)
        case "pow", (u, v), (du, dv) if is_number(dv, 0):
            return _times(_times(v, _power(u, _minus(v, 1.0))), du)
        case "pow", (u, v), (du, dv):
            return _times(e, _plus(_times(dv, apply("log", u)), _over(_times(v, du), u)))
        case "neg", _, (du,):
            return _times(-1.0, du)
        case "sqrt", (u,), (du,):
            return apply("where", apply("eq", u, 0.0), 0.0, _over(du, _times(2.0, e)))
        case "exp", _, (du,):
            return _times(e, du)
        case "log", (u,), (du,):
            return _over(du, u)
        case "sin", (u,), (du,):
            return _times(apply("cos", u), du)
        case "cos", (u,), (du,):
            return _times(-1.0, _times(apply("sin", u), du))
        case "tanh", _, (du,):
            return _times(_minus(1.0, _power(e, 2.0)), du)
        case "abs", (u,), (du,):
            return _times(apply("sign", u), du)
        case "maximum", (u, v), (du, dv):
            return apply("where", apply("ge", u, v), du, dv)
        case "minimum", (u, v), (du, dv):
            return apply("where", apply("le", u, v), du, dv)
        case "where", (condition, _, _), (_, du, dv):
            return apply("where", condition, du, dv)
        case (("floor" | "sign"), _, _):
            return 0.0
    raise TypeError(f"the derivative of {e.op} is not known")


# Arithmetic that drops zeros and gathers numbers in front, so that the Hessian of a quadratic is numbers.


def _plus(a: Any, b: Any) -> Any:
    if a is b:
        return _times(2.0, a)
    match b:
        case Expr(op="neg", args=(c,)):
            return _minus(a, c)
    return apply("add", a, b)


def _minus(a: Any, b: Any) -> Any:
    return 0.0 if a is b else apply("sub", a, b)


def _times(a: Any, b: Any) -> Any:
    (m, u), (n, v) = _split(a), _split(b)
    number = m * n
    if number == 0:
        return 0.0
    factors = [factor for factor in (u, v) if factor is not None]
    if not factors:
        return number
    rest = apply("mul", *factors) if len(factors) == 2 else factors[0]
    return apply("neg", rest) if number == -1 else apply("mul", number, rest)


def _over(a: Any, b: Any) -> Any:
    if is_number(a, 0):
        return 0.0
    if isinstance(b, Expr) or b == 0:
        return apply("div", a, b)
    number, rest = _split(a)
    return number / b if rest is None else _times(number / b, rest)


def _power(a: Any, b: Any) -> Any:
    return 1.0 if is_number(b, 0) else apply("pow", a, b)


def _split(x: Any) -> tuple[float, Any]:
    """An expression as a number times the rest, which is None where the number is all."""
    if not isinstance(x, Expr):
        return float(x), None
    if x.op == "neg":
        number, rest = _split(x.args[0])
        return -number, rest
    if x.op == "mul" and not isinstance(x.args[0], Expr):
        return x.args[0], x.args[1]
    if x.op == "mul" and not isinstance(x.args[1], Expr):
        return x.args[1], x.args[0]
    if x.op == "div" and not isinstance(x.args[1], Expr) and x.args[1] != 0:
        return 1 / x.args[1], x.args[0]
    return 1.0, x
