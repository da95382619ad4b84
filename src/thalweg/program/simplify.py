"""Formulas for print, without what does nothing at the present settings: τ = 0 leaves no factor 1 − τ."""

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from thalweg.program.symbols import NORMS, Expr, Line, Rewriter, apply, intern, is_number, symbol, walk

__all__ = ["without"]


def without(
    zeros: Iterable[str], lines: Sequence[Line], step: Any, kept: Collection[str]
) -> tuple[tuple[Line, ...], Any]:
    """Formulas without the terms and factors that do nothing where some hyperparameters are 0.

    Args:
        zeros: the names of these hyperparameters.
        lines: the formulas before the step.
        step: the step to subtract.
        kept: the lines that are shown whatever becomes of them: the state's.

    Returns:
        the lines that are left, and the step.
    """
    simplified = _Simplified({symbol(name): 0.0 for name in zeros})
    shown: list[Line] = []
    for line in lines:
        value = simplified(line.value)
        plain = not isinstance(value, Expr) or value.op == "symbol"
        if plain and value is not line.value and (line.name not in kept or not isinstance(value, Expr)):
            simplified.done[symbol(line.name)] = value
        shown.append(Line(line.name, value))
    step = simplified(step)
    read = _names(step)
    for line in reversed(shown):
        if line.name in read or line.name in kept:
            read |= {line.name} | _names(line.value)
    return tuple(line for line in shown if line.name in read), step


def _names(x: Any) -> set[str]:
    return {e.name for e in walk(x) if e.op == "symbol"}


class _Simplified(Rewriter):
    """Arithmetic with zeros carried out."""

    def rewrite(self, op: str, args: tuple[Any, ...]) -> Any:
        """The operation, or what it comes to."""
        if op in NORMS:
            return intern(op, args) if isinstance(args[0], Expr) else abs(args[0])
        match op, args:
            case ("mul", (x, y)) if is_number(x, 0) or is_number(y, 0):
                return 0.0
            case ("div", (x, Expr())) if is_number(x, 0):
                return 0.0
            case ("pow", (x, Expr(name="t"))) if is_number(x, 0):  # t is 1 or more
                return 0.0
            case ("pow", (Expr(), y)) if is_number(y, 0):
                return 1.0
            case ("where", (_, x, y)) if not isinstance(x, Expr) and is_number(y, x):
                return x
        made = apply(op, *args)
        # A division by zero is shown as one.
        return made if isinstance(made, Expr) or math.isfinite(made) else intern(op, args)
