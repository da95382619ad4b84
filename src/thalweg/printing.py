"""Expressions and formulas as text: Python source, and LaTeX.

In LaTeX, state before a step has the index t − 1, after it t.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from thalweg.symbols import Expr

_GREEK = {"beta", "delta", "epsilon", "eta", "gamma", "lambda", "mu", "nu", "phi", "psi", "rho", "tau"}
_INPUT = {
    "t": "t",
    "p": r"\theta_{t-1}",
    "g": "g_t",
    "norm": r"\lVert g_t \rVert",
    "global_norm": r"\lVert G_t \rVert",
}
_COMPARE = {"lt": "<", "le": r"\le", "gt": ">", "ge": r"\ge", "eq": "=", "ne": r"\ne"}
_FUNCTION = {
    "exp": r"\exp",
    "log": r"\log",
    "tanh": r"\tanh",
    "sign": r"\operatorname{sign}",
    "maximum": r"\max",
    "minimum": r"\min",
}

# How tightly an operation binds; an argument that binds less is put in parentheses.
_SUM, _PRODUCT, _POWER, _ATOM = 1, 2, 3, 4


@dataclass(frozen=True)
class Line:
    """`name = value`, where `value` may name earlier lines."""

    name: str
    value: Any


_INFIX = {
    "add": ("+", 4),
    "sub": ("-", 4),
    "mul": ("*", 5),
    "div": ("/", 5),
    "pow": ("**", 7),
    "lt": ("<", 3),
    "le": ("<=", 3),
    "gt": (">", 3),
    "ge": (">=", 3),
    "eq": ("==", 3),
    "ne": ("!=", 3),
}

Call = Callable[[str, list[str]], str]


def write_call(op: str, args: list[str]) -> str:
    """`op(args)`."""
    return f"{op}({', '.join(args)})"


@cache
def _number(x: float) -> str:
    return repr(int(x)) if float(x).is_integer() and abs(x) < 1e15 else repr(float(x))


def to_python(
    x: Any, call: Call = write_call, number: Callable[[float], str] = _number, functions: tuple[str, ...] = ()
) -> str:
    """An expression as Python source.

    Args:
        x: an expression or a number.
        call: writes a function call.
        number: writes a constant.
        functions: operators to write as calls.
    """

    def write(x: Any) -> tuple[str, int]:
        if not isinstance(x, Expr):
            text = number(x)
            return text, 6 if text.startswith("-") else 9
        if x.op == "symbol":
            return x.name, 9
        if x.op == "neg":
            inner, rank = write(x.args[0])
            return f"-{inner if rank >= 7 else f'({inner})'}", 6
        if x.op in _INFIX and x.op not in functions:
            sign, rank = _INFIX[x.op]
            (left, lr), (right, rr) = map(write, x.args)
            left = left if lr >= rank + (x.op == "pow") else f"({left})"
            right = right if rr > rank else f"({right})"
            return f"{left}{sign}{right}" if x.op == "pow" else f"{left} {sign} {right}", rank
        return call(x.op, [write(a)[0] for a in x.args]), 9

    return write(x)[0]


def latex(lines: Sequence[Line], step: Any, slots: Iterable[str], symbols: Mapping[str, str]) -> str:
    """A rule as an `aligned` block, one line a formula, the parameter's last.

    Args:
        lines: the formulas before the step, in the rule's own names.
        step: the step to subtract.
        slots: names of the state slots.
        symbols: the LaTeX symbol of each hyperparameter.
    """
    names = _Names({*slots}, symbols)
    formulas = [f"{names(line.name)} &= {_write(line.value, names)[0]}" for line in lines]
    text, rank = _write(step, names)
    formulas.append(rf"\theta_t &= \theta_{{t-1}} - {text if rank > _SUM else _bracketed(text)}")
    return "\\begin{aligned}\n" + " \\\\\n".join(formulas) + "\n\\end{aligned}"


def _bracketed(text: str) -> str:
    return rf"\left({text}\right)"


@dataclass
class _Names:
    slots: set[str]
    symbols: Mapping[str, str]

    def __call__(self, name: str) -> str:
        if name in _INPUT:
            return _INPUT[name]
        if name in self.symbols:
            return self.symbols[name]
        if name in self.slots:
            return _indexed(name, "t-1")
        if name.removesuffix("_new") in self.slots:
            return _indexed(name.removesuffix("_new"), "t")
        return _indexed(name, "t")


def _indexed(name: str, index: str) -> str:
    r"""`m_hat` as \hat{m} with an index; `v_max` as v with a superscript."""
    base, _, rest = name.partition("_")
    symbol = rf"\{base}" if base in _GREEK else base if len(base) == 1 else rf"\mathrm{{{base}}}"
    if rest == "hat":
        return rf"\hat{{{symbol}}}_{{{index}}}"
    if rest == "inf":
        return rf"{symbol}_\infty"
    if re.fullmatch(r"\d+", rest):
        return rf"{symbol}^{{({rest})}}_{{{index}}}"
    if rest:
        words = rest.replace("_", r"\,")
        return rf"{symbol}^{{\mathrm{{{words}}}}}_{{{index}}}"
    return rf"{symbol}_{{{index}}}"


def _write(x: Any, names: _Names) -> tuple[str, int]:
    if not isinstance(x, Expr):
        return f"{x:g}", _ATOM if x >= 0 else _SUM

    def at_least(rank: int, argument: Any) -> str:
        text, own = _write(argument, names)
        return text if own >= rank else _bracketed(text)

    match x.op, x.args:
        case "symbol", _:
            return names(x.name), _ATOM
        case "add", (a, b):
            return f"{at_least(_SUM, a)} + {at_least(_SUM, b)}", _SUM
        case "sub", (a, b):
            return f"{at_least(_SUM, a)} - {at_least(_PRODUCT, b)}", _SUM
        case "neg", (a,):
            return f"-{at_least(_PRODUCT, a)}", _SUM
        case "mul", (a, b):
            left, right = at_least(_PRODUCT, a), at_least(_PRODUCT, b)
            dot = r"\cdot" if right[0].isdigit() else r"\,"
            return f"{left} {dot} {right}", _PRODUCT
        case "div", (a, b):
            return rf"\frac{{{_write(a, names)[0]}}}{{{_write(b, names)[0]}}}", _PRODUCT
        case "pow", (a, b):
            base = at_least(_ATOM, a)
            # A second superscript, or an index, needs braces around what carries it.
            base = rf"{{{base}}}" if re.search(r"[_^]", base) else base
            return f"{base}^{{{_write(b, names)[0]}}}", _POWER
        case "sqrt", (a,):
            return rf"\sqrt{{{_write(a, names)[0]}}}", _ATOM
        case "abs", (a,):
            return rf"\lvert {_write(a, names)[0]} \rvert", _ATOM
        case "where", (condition, a, b):
            parts = [_write(part, names)[0] for part in (a, condition, b)]
            cases = rf"{parts[0]} & \text{{if }} {parts[1]} \\ {parts[2]} & \text{{otherwise}}"
            return rf"\begin{{cases}} {cases} \end{{cases}}", _ATOM
        case op, (a, b) if op in _COMPARE:
            return f"{at_least(_SUM, a)} {_COMPARE[op]} {at_least(_SUM, b)}", 0
        case op, arguments:
            inside = ", ".join(_write(a, names)[0] for a in arguments)
            return rf"{_FUNCTION[op]}\left({inside}\right)", _ATOM
