"""Expressions and formulas as text: Python source, LaTeX, and Unicode for a terminal.

In formulas, state before a step has the index t − 1, after it t.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

from thalweg.program.symbols import Expr, is_number

_GREEK = {
    unicodedata.name(letter).split()[-1].lower().replace("lamda", "lambda"): letter
    for letter in "αβγδεζηθικλμνξπρστυφχψω"
}
_INPUT = {
    "t": "t",
    "p": r"\theta_{t-1}",
    "g": "g_t",
    # of the whole model
    "P": r"\Theta_{t-1}",
    "G": "G_t",
}
_PLAIN_INPUT = {"t": "t", "p": "θₜ₋₁", "g": "gₜ", "P": "Θₜ₋₁", "G": "Gₜ"}
_COMPARE = {"lt": "<", "le": r"\le", "gt": ">", "ge": r"\ge", "eq": "=", "ne": r"\ne"}
_PLAIN_COMPARE = {"lt": "<", "le": "≤", "gt": ">", "ge": "≥", "eq": "=", "ne": "≠"}
_FUNCTION = {
    "exp": r"\exp",
    "log": r"\log",
    "tanh": r"\tanh",
    "cos": r"\cos",
    "sin": r"\sin",
    "sign": r"\operatorname{sign}",
    "maximum": r"\max",
    "minimum": r"\min",
}

# How tightly an operation binds; an argument that binds less is put in parentheses.
_SUM, _FRACTION, _PRODUCT, _POWER, _ATOM = 1, 2, 3, 4, 5


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
    return repr(int(x)) if float(x).is_integer() and abs(x) < 1e15 else write_float(x)


def write_float(x: float) -> str:
    """A float as Python source: a literal, of infinities and NaN too."""
    return repr(float(x)).replace("inf", "1e999").replace("nan", "(1e999 - 1e999)")


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


def to_latex(x: Any, symbols: Mapping[str, str]) -> str:
    """An expression in LaTeX.

    Args:
        x: an expression or a number.
        symbols: the LaTeX of each symbol in it.
    """
    return _write(x, symbols.__getitem__)[0]


def to_unicode(x: Any, symbols: Mapping[str, str]) -> str:
    """An expression on one line of text.

    Args:
        x: an expression or a number.
        symbols: the text of each symbol in it.
    """
    return _plainly(x, symbols.__getitem__)[0]


def latex(lines: Sequence[Line], step: Any, slots: Iterable[str], symbols: Mapping[str, str]) -> str:
    """A rule as an `aligned` block, one line a formula, the parameter's last.

    Args:
        lines: the formulas before the step, in the rule's own names.
        step: the step to subtract.
        slots: names of the state slots.
        symbols: the LaTeX symbol of each hyperparameter.
    """
    names = _Names({*slots}, symbols, _INPUT, _indexed, ("_{t-1}", "_{t}"))
    formulas = [f"{names(line.name)} &= {_write(line.value, names)[0]}" for line in lines]
    sign, step = _sign_and_size(step)
    text, rank = _write(step, names)
    text = text if rank > _SUM or sign == "+" else _bracketed(text)
    formulas.append(rf"\theta_t &= \theta_{{t-1}} {sign} {text}")
    return "\\begin{aligned}\n" + " \\\\\n".join(formulas) + "\n\\end{aligned}"


def _sign_and_size(step: Any) -> tuple[str, Any]:
    """What stands before a step to subtract, and the step: θ + b rather than θ − (−1) b."""
    match step:
        case Expr(op="neg", args=(size,)):
            return "+", size
        case Expr(op="mul", args=(factor, size)) if is_number(factor, -1):
            return "+", size
    return "-", step


def _bracketed(text: str) -> str:
    return rf"\left({text}\right)"


def unicode(lines: Sequence[Line], step: Any, slots: Iterable[str], symbols: Mapping[str, str]) -> str:
    """A rule as lines of text, one a formula, equals signs below each other; the parameter's last.

    Args:
        lines: the formulas before the step, in the rule's own names.
        step: the step to subtract.
        slots: names of the state slots.
        symbols: the LaTeX symbol of each hyperparameter.
    """
    plain = {name: plain_symbol(symbol, name) for name, symbol in symbols.items()}
    names = _Names({*slots}, plain, _PLAIN_INPUT, plain_name, ("ₜ₋₁", "ₜ"))
    formulas = [(names(line.name), _plainly(line.value, names)[0]) for line in lines]
    sign, step = _sign_and_size(step)
    text, rank = _plainly(step, names)
    text = text if rank > _SUM or sign == "+" else f"({text})"
    formulas.append(("θₜ", f"θₜ₋₁ {sign.replace('-', '−')} {text}"))
    widest = max(width(name) for name, _ in formulas)
    return "\n".join(f"{' ' * (widest - width(name))}{name} = {value}" for name, value in formulas)


def width(text: str) -> int:
    """How many columns a terminal gives to a line: a hat takes none."""
    return sum(not unicodedata.combining(c) for c in text)


# Signs in the letters that any terminal has.
_ASCII = {
    **{
        "−": "-",
        "–": "-",
        "—": "-",
        "·": "*",
        "⋅": "*",
        "×": "x",
        "√": "sqrt ",
        "‖": "||",
        "∞": "inf",
        "≤": "<=",
    },
    **{
        "≥": ">=",
        "≠": "!=",
        "±": "+-",
        "●": "*",
        "○": "o",
        "⁄": "/",
        "“": '"',
        "”": '"',
        "‘": "'",
        "’": "'",
        "′": "'",
    },
    **{"″": "''", "⌊": "floor(", "⌋": ")", "\u0302": "_hat", "\u0303": "_tilde", "ᵀ": "^T"},
}


def to_ascii(text: str) -> str:
    """A text in ASCII: β₁ᵗ as beta_1^t, an accent dropped, and a question mark for what has no name."""

    def kind(character: str) -> str:
        return unicodedata.decomposition(character).partition(">")[0]

    def plain(character: str) -> str:
        if character.isascii() or character in _ASCII:
            return _ASCII.get(character, character)
        if (simpler := unicodedata.normalize("NFKD", character)) != character:
            return "".join(map(plain, simpler))
        name = unicodedata.name(character, "?").replace("LAMDA", "LAMBDA").split()
        if name[0] == "GREEK":
            return name[-1].lower() if "SMALL" in name else name[-1].title()
        return "" if unicodedata.combining(character) else "?"

    out = ""
    for raised, characters in groupby(unicodedata.normalize("NFD", text), kind):
        inside = "".join(map(plain, characters))
        sign = {"<super": "^", "<sub": "_"}.get(raised, "")
        out += f"{sign}{{{inside}}}" if sign and len(inside) > 1 else f"{sign}{inside}"
    return out


def plain_symbol(symbol: str, name: str) -> str:
    """A LaTeX symbol in Unicode, such as β₁; the name where it is more than Unicode can say."""
    text = re.sub(r"\\mathrm\{([^{}]*)\}", r"\1", symbol).replace(r"\_", "_")
    text = re.sub(r"\\([a-z]+)", lambda found: _GREEK.get(found[1], found[0]), text)
    text = re.sub(r"_\{?(\d+)\}?", lambda found: found[1].translate(_SUBSCRIPT), text)
    return name if re.search(r"[\\{}^]", text) else text


@dataclass
class _Names:
    slots: set[str]
    symbols: Mapping[str, str]
    inputs: Mapping[str, str]
    indexed: Callable[[str, str], str]
    indices: tuple[str, str]

    def __call__(self, name: str) -> str:
        before, after = self.indices
        if name in self.inputs:
            return self.inputs[name]
        if name in self.symbols:
            return self.symbols[name]
        if name in self.slots:
            return self.indexed(name, before)
        name = name.removesuffix("_new")
        if name in self.inputs:  # such as a gradient that has been clipped
            return self.indexed(f"{'theta' if name == 'p' else name}_tilde", after)
        if name in self.symbols:
            symbol = self.symbols[name]
            return f"{{{symbol}}}{after}" if "_" in symbol else f"{symbol}{after}"
        return self.indexed(name, after)

    def whole(self, name: str) -> str:
        """The name over the whole model: a capital, but for what is one number."""
        return self(name if name in (*self.symbols, "t") else name[0].upper() + name[1:])


def _of_model(names: Callable[[str], str]) -> Callable[[str], str]:
    """How names are written within a norm of the whole model."""
    return getattr(names, "whole", names)


def _indexed(name: str, index: str) -> str:
    r"""`m_hat` as \hat{m} with an index, likewise a tilde; `v_max` as v with a superscript."""
    base, _, rest = name.partition("_")
    symbol = rf"\{base}" if base in _GREEK else base if len(base) == 1 else rf"\mathrm{{{base}}}"
    if rest in ("hat", "tilde"):
        return rf"\{rest}{{{symbol}}}{index}"
    if rest == "inf":
        return rf"{symbol}_\infty"
    if re.fullmatch(r"\d+", rest):
        return rf"{symbol}^{{({rest})}}{index}"
    if rest:
        words = rest.replace("_", r"\,")
        return rf"{symbol}^{{\mathrm{{{words}}}}}{index}"
    return f"{symbol}{index}"


def _write(x: Any, names: Callable[[str], str]) -> tuple[str, int]:
    if not isinstance(x, Expr):
        return f"{x:g}".replace("inf", r"\infty"), _ATOM if x >= 0 else _SUM

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
        case "norm", (a,):
            return rf"\lVert {_write(a, names)[0]} \rVert", _ATOM
        case "global_norm", (a,):
            return rf"\lVert {_write(a, _of_model(names))[0]} \rVert", _ATOM
        case "floor", (a,):
            return rf"\lfloor {_write(a, names)[0]} \rfloor", _ATOM
        case "where", (condition, a, b):
            parts = [_write(part, names)[0] for part in (a, condition, b)]
            cases = rf"{parts[0]} & \text{{if }} {parts[1]} \\ {parts[2]} & \text{{otherwise}}"
            return rf"\begin{{cases}} {cases} \end{{cases}}", _ATOM
        case op, (a, b) if op in _COMPARE:
            return f"{at_least(_SUM, a)} {_COMPARE[op]} {at_least(_SUM, b)}", 0
        case op, arguments:
            inside = ", ".join(_write(a, names)[0] for a in arguments)
            return rf"{_FUNCTION[op]}\left({inside}\right)", _ATOM


_ACCENT = {"hat": "\u0302", "tilde": "\u0303"}
_SUBSCRIPT = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_SUPERSCRIPT = str.maketrans("0123456789t+−()", "⁰¹²³⁴⁵⁶⁷⁸⁹ᵗ⁺⁻⁽⁾", " ")


def plain_name(name: str, index: str) -> str:
    """A name of a rule's in Unicode: `m_hat` as m̂ with an index; other words stay as they are."""
    base, _, rest = name.partition("_")
    symbol = _GREEK.get(base, base)
    if rest in _ACCENT and len(symbol) == 1:
        return unicodedata.normalize("NFC", symbol + _ACCENT[rest]) + index
    if rest == "inf":
        return f"{symbol}∞"
    if rest.isdecimal():
        return f"{symbol}{f'({rest})'.translate(_SUPERSCRIPT)}{index}"
    return f"{symbol}{rest and '_'}{rest}{index}"


def _plainly(x: Any, names: Callable[[str], str]) -> tuple[str, int]:
    """An expression on one line, and how tightly its outermost operation binds.

    A fraction binds less than a product here, so that a factor which is one gets parentheses.
    """
    if not isinstance(x, Expr):
        return f"{x:g}".replace("-", "−").replace("inf", "∞"), _ATOM if x >= 0 else _SUM

    def at_least(rank: int, argument: Any) -> str:
        text, own = _plainly(argument, names)
        return text if own >= rank else f"({text})"

    match x.op, x.args:
        case "symbol", _:
            return names(x.name), _ATOM
        case "add", (a, b):
            return f"{at_least(_SUM, a)} + {at_least(_SUM, b)}", _SUM
        case "sub", (a, b):
            return f"{at_least(_SUM, a)} − {at_least(_FRACTION, b)}", _SUM
        case "neg", (a,):
            return f"−{at_least(_FRACTION, a)}", _SUM
        case "mul", (a, b):
            return f"{at_least(_PRODUCT, a)}·{at_least(_PRODUCT, b)}", _PRODUCT
        case "div", (a, b):
            return f"{at_least(_PRODUCT, a)} / {at_least(_POWER, b)}", _FRACTION
        case "pow", (a, b):
            exponent, own = _plainly(b, names)
            if set(exponent) <= {*map(chr, _SUPERSCRIPT)}:
                return f"{at_least(_ATOM, a)}{exponent.translate(_SUPERSCRIPT)}", _POWER
            return f"{at_least(_ATOM, a)}^{exponent if own >= _ATOM else f'({exponent})'}", _POWER
        case "sqrt", (a,):
            return f"√{at_least(_ATOM, a)}", _POWER
        case "abs", (a,):
            return f"|{_plainly(a, names)[0]}|", _ATOM
        case "norm", (a,):
            return f"‖{_plainly(a, names)[0]}‖", _ATOM
        case "global_norm", (a,):
            return f"‖{_plainly(a, _of_model(names))[0]}‖", _ATOM
        case "where", (condition, a, b):
            parts = [_plainly(part, names)[0] for part in (a, condition, b)]
            return f"{{{parts[0]} if {parts[1]}; {parts[2]} otherwise}}", _ATOM
        case op, (a, b) if op in _PLAIN_COMPARE:
            return f"{at_least(_SUM, a)} {_PLAIN_COMPARE[op]} {at_least(_SUM, b)}", 0
        case op, arguments:
            inside = ", ".join(_plainly(a, names)[0] for a in arguments)
            return f"{_FUNCTION[op].split('{')[-1].strip(chr(92) + '}')}({inside})", _ATOM
