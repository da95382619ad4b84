"""Formulas that people type: read into symbols, differentiated, and compiled for arrays.

A text is read through Python's grammar and a list of what is allowed; nothing of it is ever run. What runs
is printed from the symbols.
"""

import ast
import math
import string
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from thalweg import ops
from thalweg.errors import InvalidFormulaError, nearest
from thalweg.program.printing import LATEX, PYTHON, UNICODE
from thalweg.program.symbols import Expr, apply, symbol, walk
from thalweg.program.tracing import in_lines
from thalweg.surfaces.calculus import gradient, hessian

__all__ = ["LIMITS", "Formula", "read"]

Array: TypeAlias = NDArray[np.float64]

# Of a text: its length in characters, how deep operations nest, how many there are once all is written out,
# and the size of a number as an exponent.
LIMITS = {"length": 400, "depth": 64, "operations": 1000, "exponent": 64}

_CONSTANTS = {"pi": np.float64(math.pi), "e": np.float64(math.e)}  # what NumPy divides by 0 is no exception
_LATEX = {"pi": r"\pi"}
_UNICODE = {"pi": "π"}

# By name: how many arguments, and what is made of them.
_FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "sqrt": (1, ops.sqrt),
    "exp": (1, ops.exp),
    "log": (1, ops.log),
    "ln": (1, ops.log),
    "sin": (1, ops.sin),
    "cos": (1, ops.cos),
    "tan": (1, lambda u: ops.sin(u) / ops.cos(u)),
    "sinh": (1, lambda u: (ops.exp(u) - ops.exp(-u)) / 2),
    "cosh": (1, lambda u: (ops.exp(u) + ops.exp(-u)) / 2),
    "tanh": (1, ops.tanh),
    "abs": (1, ops.abs),
    "max": (2, ops.maximum),
    "min": (2, ops.minimum),
}
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.Pow: "pow",
}

_CHARACTERS = {*string.ascii_letters, *string.digits, *" _.,()+-*/"}

# What mathematicians write and Python does not.
_SPELLED = {"^": "**", "·": "*", "⋅": "*", "×": "*", "−": "-", "π": "pi", "√": "sqrt"}
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-", strict=True))


def read(text: str, variables: Sequence[str] = ("x", "y")) -> Any:
    """The expression that a text means; a number where it has no variable.

    Args:
        text: such as "x**2/20 + y**2" or "x²/20 + y²", in `variables`, numbers, pi, e, + − * / ^ and the
            functions sqrt exp log sin cos tan sinh cosh tanh abs max min.
        variables: their names.

    Raises:
        InvalidFormulaError: naming what is not allowed and where.
    """
    if not isinstance(text, str):
        raise TypeError(f"a formula is a text, such as 'x**2 + y**2'; got {text!r}")
    if len(text) > LIMITS["length"]:
        raise InvalidFormulaError(
            f"a formula has at most {LIMITS['length']} characters; this one has {len(text)}"
        )
    return _Reader(text, tuple(variables)).expression()


class _Reader:
    """One text on its way to an expression."""

    def __init__(self, text: str, variables: tuple[str, ...]) -> None:
        self.text, self.variables = text, variables
        self.plain = ""
        self.origin: list[int] = []  # of each character of `plain`, its place in `text`
        for i, character in enumerate(text):
            if character in _RAISED:
                continues = i > 0 and text[i - 1] in _RAISED
                spelled = _RAISED[character] if continues else "**" + _RAISED[character]
            else:
                spelled = _SPELLED.get(character, character)
            spelled = " " if spelled.isspace() else spelled
            if not set(spelled) <= _CHARACTERS:
                raise self.error(f"the character {character!r} has no meaning here", i)
            self.plain += spelled
            self.origin += [i] * len(spelled)
        self.origin.append(len(text))

    def expression(self) -> Any:
        """See `read`."""
        start = len(self.plain) - len(self.plain.lstrip())
        if start == len(self.plain):
            raise InvalidFormulaError("the formula is empty")
        self.origin = self.origin[start:]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "1if" is a warning to Python; here it is refused below
                tree = ast.parse(self.plain[start:], mode="eval")
        except SyntaxError as error:
            at = min(max((error.offset or 1) - 1, 0), len(self.origin) - 1)
            hint = "; a product is written 2*x" if "decimal literal" in error.msg else ""
            raise self.error(f"this is no formula: {error.msg}{hint}", self.origin[at]) from None
        except (ValueError, MemoryError, RecursionError):
            raise InvalidFormulaError("this is no formula: Python cannot read it") from None
        found = self.of(tree.body, 1)
        if operations(found) > LIMITS["operations"]:
            raise InvalidFormulaError(
                f"written out, this formula has more than {LIMITS['operations']} operations: "
                "nest tan, sinh and cosh less deeply, for each repeats what it is applied to"
            )
        return found

    def error(self, why: str, at: int) -> InvalidFormulaError:
        return InvalidFormulaError(f"{why} (character {at + 1} of {self.text!r})")

    def of(self, node: ast.expr, depth: int) -> Any:
        """What a node of Python's syntax tree means."""

        def refused(why: str) -> InvalidFormulaError:
            return self.error(why, self.origin[node.col_offset])

        if depth > LIMITS["depth"]:
            raise refused(f"operations nest deeper than {LIMITS['depth']}")
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                made: Any = float(number) if abs(number) < 1e300 else math.inf
            case ast.Name(id=name):
                if name not in self.variables and name not in _CONSTANTS:
                    kind = "is a function: write {0}(…)" if name in _FUNCTIONS else "is no variable; {1}"
                    known = nearest(name, (*self.variables, *_CONSTANTS))
                    raise refused(f"{name!r} {kind.format(name, known)}")
                made = symbol(name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                made = apply("neg", self.of(operand, depth + 1))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                made = self.of(operand, depth + 1)
            case ast.BinOp(op=operator, left=left, right=right) if type(operator) in _OPERATORS:
                a, b = self.of(left, depth + 1), self.of(right, depth + 1)
                if isinstance(operator, ast.Pow) and not isinstance(b, Expr) and abs(b) > LIMITS["exponent"]:
                    raise refused(f"exponents lie within ±{LIMITS['exponent']}; this one is {b:g}")
                # A sign stands before a product or fraction: −2·x, where Python reads (−2)·x.
                ahead = isinstance(operator, ast.Mult | ast.Div) and _is_negative(a)
                made = apply(_OPERATORS[type(operator)], apply("neg", a) if ahead else a, b)
                made = apply("neg", made) if ahead else made
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                if name not in _FUNCTIONS:
                    raise refused(f"no function is named {name!r}; {nearest(name, _FUNCTIONS)}")
                arity, function = _FUNCTIONS[name]
                if len(arguments) != arity:
                    raise refused(
                        f"{name} takes {arity} argument{'s' if arity > 1 else ''}, got {len(arguments)}"
                    )
                made = function(*(self.of(a, depth + 1) for a in arguments))
            case _:
                segment = ast.get_source_segment(self.plain.lstrip(), node) or type(node).__name__
                raise refused(
                    f"{segment!r} is not allowed; a formula has numbers, {', '.join(self.variables)}, "
                    f"{', '.join(_CONSTANTS)}, + - * / ^ and the functions {', '.join(_FUNCTIONS)}"
                )
        if not isinstance(made, Expr) and not math.isfinite(made):
            raise refused("this is no finite number")
        return made


def operations(x: Any) -> int:
    """How many operations an expression has as it is printed, with whatever it repeats.

    They are counted without being written out. Each first derivative has at most eight times as many
    different operations, and they are what is computed.
    """
    count: dict[Expr, int] = {}
    for e in walk(x):
        count[e] = (e.op != "symbol") + sum(count[a] for a in e.args if isinstance(a, Expr))
    return count[x] if isinstance(x, Expr) else 0


def _is_negative(x: Any) -> bool:
    return x.op == "neg" if isinstance(x, Expr) else x < 0


@dataclass(frozen=True)
class Formula:
    """A function of a few variables, given by its formula.

    Attributes:
        text: the formula, as `read` takes it.
        variables: names of the variables, in the order of a point's entries.
    """

    text: str
    variables: tuple[str, ...] = ("x", "y")

    def __post_init__(self) -> None:
        read(self.text, self.variables)

    @property
    def dimensions(self) -> int:
        """How many variables it has."""
        return len(self.variables)

    @cached_property
    def expression(self) -> Any:
        """The formula as an expression."""
        return read(self.text, self.variables)

    @cached_property
    def symbols(self) -> tuple[Expr, ...]:
        """The variables as symbols."""
        return tuple(map(symbol, self.variables))

    def latex(self) -> str:
        """`f(x, y) = …` in LaTeX."""
        return f"f({', '.join(self.variables)}) = {LATEX.write(self.expression, _LATEX)}"

    def unicode(self) -> str:
        """`f(x, y) = …` on one line of text."""
        return f"f({', '.join(self.variables)}) = {UNICODE.write(self.expression, _UNICODE)}"

    def value(self, x: Array) -> Array:
        """The values at points (n, …): an array (…)."""
        out: Array = np.empty(x.shape[1:])
        out[...] = self._value(*x)
        return out

    def gradient(self, x: Array) -> Array:
        """The gradients at points (n, …): an array (n, …)."""
        return _rows(self._gradient(*x), x.shape)

    def hessian(self, x: Array) -> Array:
        """The Hessians at points (n, …): an array (n, n, …)."""
        return _rows(self._hessian(*x), (x.shape[0] ** 2, *x.shape[1:])).reshape(x.shape[0], *x.shape)

    @cached_property
    def constant_hessian(self) -> Array | None:
        """The Hessian (n, n) of a quadratic; None where it changes from point to point."""
        entries = [entry for row in hessian(self.expression, self.symbols) for entry in row]
        if any(e.name in self.variables for e in walk(*entries) if e.op == "symbol"):
            return None
        return self.hessian(np.zeros(self.dimensions))

    @cached_property
    def _value(self) -> Callable[..., Any]:
        function = self._compiled("value", [self.expression])
        return lambda *x: function(*x)[0]

    @cached_property
    def _gradient(self) -> Callable[..., Any]:
        return self._compiled("gradient", gradient(self.expression, self.symbols))

    @cached_property
    def _hessian(self) -> Callable[..., Any]:
        return self._compiled(
            "hessian", [entry for row in hessian(self.expression, self.symbols) for entry in row]
        )

    def _compiled(self, name: str, roots: list[Any]) -> Callable[..., Any]:
        lines, results = in_lines(roots, _CONSTANTS)
        body = [f"    {line.name} = {PYTHON.write(line.value)}" for line in lines]
        head = f"def {name}({', '.join(self.variables)}):"
        out = "".join(f"{PYTHON.write(result)}, " for result in results)
        namespace: dict[str, Any] = {**_NUMPY, **_CONSTANTS, "inf": math.inf, "nan": math.nan}
        exec(compile("\n".join([head, *body, f"    return {out}", ""]), f"<{name}>", "exec"), namespace)
        return namespace[name]  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        # What is compiled is neither copied nor pickled.
        return {f.name: getattr(self, f.name) for f in fields(self)}


_NUMPY: Mapping[str, Callable[..., Any]] = {name: getattr(np, name) for name in ops.__all__}


def _rows(parts: Sequence[Any], shape: tuple[int, ...]) -> Array:
    """One array of arrays; a part may be a number."""
    out: Array = np.empty(shape)
    for i, part in enumerate(parts):
        out[i] = part
    return out
