"""Expressions and formulas as text: Python source, LaTeX, and Unicode for a terminal.

One printer writes them all: what tells the languages apart is in a `Notation` each. In formulas, state
before a step has the index t − 1, after it t.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple, Self

from thalweg.program.symbols import Expr, Line, Rewriter, intern, is_number, symbol, walk

_GREEK = {
    unicodedata.name(letter).split()[-1].lower().replace("lamda", "lambda"): letter
    for letter in "αβγδεζηθικλμνξπρστυφχψω"
}
_ACCENTS = {"hat": "\u0302", "tilde": "\u0303"}
_SUBSCRIPT = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_SUPERSCRIPT = str.maketrans("0123456789t+−()", "⁰¹²³⁴⁵⁶⁷⁸⁹ᵗ⁺⁻⁽⁾", " ")

# How tightly an operation binds: an argument that binds less than its place asks for is put in brackets.
COMPARISON, SUM, FRACTION, PRODUCT, SIGN, POWER, ATOM = range(7)


class Operation(NamedTuple):
    """How one operation is written.

    Attributes:
        write: makes its text of those of its arguments.
        needs: how tightly each argument must bind to stand without brackets.
        binds: how tightly the whole binds.
    """

    write: Callable[..., str]
    needs: tuple[int, ...]
    binds: int


@dataclass(frozen=True)
class Naming:
    """How the names in a rule are written in its formula.

    Attributes:
        inputs: the step number, gradient and parameter; those of the whole model have capitals.
        updated: the parameter after the step.
        before: the index of state before the step.
        after: the index of what the step computes.
        indexed: writes a name of the rule's with an index.
        hyperparameter: writes a hyperparameter, by its LaTeX symbol and its name.
        carrier: writes what an index is put to.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    updated: str = "p"
    before: str = ""
    after: str = ""
    indexed: Callable[[str, str], str] = "{}{}".format
    hyperparameter: Callable[[str, str], str] = "{1}".format
    carrier: Callable[[str], str] = str

    def writer(self, slots: Iterable[str], symbols: Mapping[str, str]) -> Callable[[str], str]:
        """What writes the names of one rule.

        Args:
            slots: names of the state slots.
            symbols: the LaTeX symbol of each hyperparameter.
        """
        slots = {*slots}
        constants = {name: self.hyperparameter(symbol, name) for name, symbol in symbols.items()}

        def write(name: str) -> str:
            if name in self.inputs:
                return self.inputs[name]
            if name in constants:
                return constants[name]
            if name in slots:
                return self.indexed(name, self.before)
            name = name.removesuffix("_new")
            if name in self.inputs:  # such as a gradient that has been clipped
                return self.indexed(f"{'theta' if name == 'p' else name}_tilde", self.after)
            if name in constants:
                return self.carrier(constants[name]) + self.after
            return self.indexed(name, self.after)

        return write


@dataclass(frozen=True)
class Notation:
    """How one language writes mathematics.

    Attributes:
        operations: by name; one that is not here is written as the call of a function.
        number: writes a constant.
        negative: how tightly a constant with a sign binds.
        brackets: writes brackets around a text; a function's arguments stand in such.
        functions: names of functions that are called otherwise than the operation.
        names: how a rule's names are written.
        layout: puts formulas below each other, of which each is given by its two sides.
    """

    operations: Mapping[str, Operation]
    number: Callable[[float], str]
    negative: int = SUM
    brackets: Callable[[str], str] = "({})".format
    functions: Mapping[str, str] = field(default_factory=dict)
    names: Naming = field(default_factory=Naming)
    layout: Callable[[Sequence[tuple[str, str]]], str] = lambda rows: "\n".join(map(" = ".join, rows))

    def write(self, x: Any, symbols: Mapping[str, str] | None = None) -> str:
        """An expression or a number in this notation.

        Args:
            x: what to write.
            symbols: the texts of those symbols in it that are not written as they are called.
        """
        return self._written(x, symbols or {})[0]

    def _written(self, x: Any, symbols: Mapping[str, str]) -> tuple[str, int]:
        """The text, and how tightly its outermost operation binds."""
        if not isinstance(x, Expr):
            text = self.number(x)
            return text, self.negative if text[0] in "-−" else ATOM
        if x.op == "symbol":
            return symbols.get(x.name, x.name), ATOM
        arguments = [self._written(a, symbols) for a in x.args]
        operation = self.operations.get(x.op)
        if operation is None:
            inside = self.brackets(", ".join(text for text, _ in arguments))
            return self.functions.get(x.op, x.op) + inside, ATOM
        texts = [
            text if binds >= needed else self.brackets(text)
            for (text, binds), needed in zip(arguments, operation.needs, strict=True)
        ]
        return operation.write(*texts), operation.binds

    def calling(self, *operations: str) -> Self:
        """This notation with some operations written as calls of functions."""
        kept = {op: how for op, how in self.operations.items() if op not in operations}
        return replace(self, operations=kept)

    def formulas(
        self, lines: Sequence[Line], step: Any, slots: Iterable[str], symbols: Mapping[str, str]
    ) -> str:
        """A rule, one line a formula, the parameter's last.

        Args:
            lines: the formulas before the step, in the rule's own names.
            step: the step to subtract.
            slots: names of the state slots.
            symbols: the LaTeX symbol of each hyperparameter.
        """
        name, over_model = self.names.writer(slots, symbols), _OverModel({*symbols, "t"})
        rows = [(name(line.name), over_model(line.value)) for line in lines]
        rows.append((self.names.updated, over_model(parameter_after(step))))
        texts = {e.name: name(e.name) for e in walk(*(right for _, right in rows)) if e.op == "symbol"}
        return self.layout([(left, self.write(right, texts)) for left, right in rows])


def parameter_after(step: Any) -> Expr:
    """The parameter less a step: θ + b rather than θ − (−1) b."""
    p = symbol("p")
    match step:
        case Expr(op="neg", args=(added,)):
            return intern("add", (p, added))
        case Expr(op="mul", args=(factor, added)) if is_number(factor, -1):
            return intern("add", (p, added))
    return intern("sub", (p, step))


class _OverModel(Rewriter):
    """Writes with capitals what stands in a norm of the whole model, but for what is one number."""

    def __init__(self, numbers: set[str]) -> None:
        super().__init__()
        self._numbers = numbers

    def rewrite(self, op: str, args: tuple[Any, ...]) -> Expr:
        """The operation as it is."""
        if op == "global_norm":
            inside = [e for e in walk(*args) if e.op == "symbol" and e.name not in self._numbers]
            capitals = Rewriter({e: symbol(e.name[0].upper() + e.name[1:]) for e in inside})
            args = tuple(map(capitals, args))
        return intern(op, args)


# -- operations that languages write alike -----------------------------------------------------------


def _sums(minus: str) -> dict[str, Operation]:
    return {
        "add": Operation("{} + {}".format, (SUM, SUM), SUM),
        "sub": Operation(f"{{}} {minus} {{}}".format, (SUM, FRACTION), SUM),
        "neg": Operation(f"{minus}{{}}".format, (FRACTION,), SUM),
    }


def _comparisons(*signs: str) -> dict[str, Operation]:
    return {
        op: Operation(f"{{}} {sign} {{}}".format, (SUM, SUM), COMPARISON)
        for op, sign in zip(("lt", "le", "gt", "ge", "eq", "ne"), signs, strict=True)
    }


def _enclosed(templates: Mapping[str, str]) -> dict[str, Operation]:
    """Operations that need no brackets, neither within nor around them."""
    return {
        op: Operation(text.format, (COMPARISON,) * (3 if op == "where" else 1), ATOM)
        for op, text in templates.items()
    }


# -- Python ------------------------------------------------------------------------------------------


@cache
def _literal(x: float) -> str:
    return repr(int(x)) if float(x).is_integer() and abs(x) < 1e15 else float_literal(x)


def float_literal(x: float) -> str:
    """A float as Python source: a literal, of infinities and NaN too."""
    return repr(float(x)).replace("inf", "1e999").replace("nan", "(1e999 - 1e999)")


PYTHON = Notation(
    {
        "add": Operation("{} + {}".format, (SUM, FRACTION), SUM),
        "sub": Operation("{} - {}".format, (SUM, FRACTION), SUM),
        "mul": Operation("{} * {}".format, (PRODUCT, SIGN), PRODUCT),
        "div": Operation("{} / {}".format, (PRODUCT, SIGN), PRODUCT),
        "neg": Operation("-{}".format, (POWER,), SIGN),
        "pow": Operation("{}**{}".format, (ATOM, ATOM), POWER),
        **_comparisons("<", "<=", ">", ">=", "==", "!="),
    },
    number=_literal,
    negative=SIGN,
)


# -- LaTeX -------------------------------------------------------------------------------------------


def _latex_name(name: str, index: str) -> str:
    r"""`m_hat` as \hat{m} with an index, likewise a tilde; `v_max` as v with a superscript."""
    base, _, rest = name.partition("_")
    letter = rf"\{base}" if base in _GREEK else base if len(base) == 1 else rf"\mathrm{{{base}}}"
    if rest in _ACCENTS:
        return rf"\{rest}{{{letter}}}{index}"
    if rest == "inf":
        return rf"{letter}_\infty"
    if rest.isdecimal():
        return rf"{letter}^{{({rest})}}{index}"
    if rest:
        spaced = rest.replace("_", r"\,")
        return rf"{letter}^{{\mathrm{{{spaced}}}}}{index}"
    return f"{letter}{index}"


def _braced(text: str) -> str:
    """What carries a second index or superscript needs braces."""
    return rf"{{{text}}}" if re.search(r"[_^]", text) else text


def _latex_product(a: str, b: str) -> str:
    return rf"{a} \cdot {b}" if b[0].isdigit() else rf"{a} \, {b}"


def _aligned_in_latex(rows: Sequence[tuple[str, str]]) -> str:
    lines = " \\\\\n".join(f"{left} &= {right}" for left, right in rows)
    return f"\\begin{{aligned}}\n{lines}\n\\end{{aligned}}"


LATEX = Notation(
    {
        **_sums("-"),
        "mul": Operation(_latex_product, (PRODUCT, PRODUCT), PRODUCT),
        "div": Operation(r"\frac{{{}}}{{{}}}".format, (COMPARISON, COMPARISON), PRODUCT),
        "pow": Operation(lambda a, b: f"{_braced(a)}^{{{b}}}", (ATOM, COMPARISON), POWER),
        "sqrt": Operation(r"\sqrt{{{}}}".format, (COMPARISON,), ATOM),
        **_enclosed(
            {
                "abs": r"\lvert {} \rvert",
                "norm": r"\lVert {} \rVert",
                "global_norm": r"\lVert {} \rVert",
                "floor": r"\lfloor {} \rfloor",
                "where": r"\begin{{cases}} {1} & \text{{if }} {0} \\ {2} & \text{{otherwise}} \end{{cases}}",
            }
        ),
        **_comparisons("<", r"\le", ">", r"\ge", "=", r"\ne"),
    },
    number=lambda x: f"{x:g}".replace("inf", r"\infty"),
    brackets=r"\left({}\right)".format,
    functions={
        **{name: rf"\{name}" for name in ("exp", "log", "tanh", "cos", "sin")},
        "sign": r"\operatorname{sign}",
        "maximum": r"\max",
        "minimum": r"\min",
    },
    names=Naming(
        inputs={"t": "t", "p": r"\theta_{t-1}", "g": "g_t", "P": r"\Theta_{t-1}", "G": "G_t"},
        updated=r"\theta_t",
        before="_{t-1}",
        after="_{t}",
        indexed=_latex_name,
        hyperparameter="{0}".format,
        carrier=_braced,
    ),
    layout=_aligned_in_latex,
)


# -- Unicode -----------------------------------------------------------------------------------------


def unicode_symbol(symbol: str, name: str) -> str:
    """A LaTeX symbol in Unicode, such as β₁; the name where it is more than Unicode can say."""
    text = re.sub(r"\\mathrm\{([^{}]*)\}", r"\1", symbol).replace(r"\_", "_")
    text = re.sub(r"\\([a-z]+)", lambda found: _GREEK.get(found[1], found[0]), text)
    text = re.sub(r"_\{?(\d+)\}?", lambda found: found[1].translate(_SUBSCRIPT), text)
    return name if re.search(r"[\\{}^]", text) else text


def unicode_name(name: str, index: str) -> str:
    """A name of a rule's in Unicode: `m_hat` as m̂ with an index; other words stay as they are."""
    base, _, rest = name.partition("_")
    letter = _GREEK.get(base, base)
    if rest in _ACCENTS and len(letter) == 1:
        return unicodedata.normalize("NFC", letter + _ACCENTS[rest]) + index
    if rest == "inf":
        return f"{letter}∞"
    if rest.isdecimal():
        return f"{letter}{f'({rest})'.translate(_SUPERSCRIPT)}{index}"
    return f"{letter}{rest and '_'}{rest}{index}"


def _raised(base: str, exponent: str) -> str:
    inside = exponent[1:-1] if exponent.startswith("(") else exponent
    if {*map(ord, inside)} <= {*_SUPERSCRIPT}:
        return base + inside.translate(_SUPERSCRIPT)
    return f"{base}^{exponent}"


def width(text: str) -> int:
    """How many columns a terminal gives to a line: a hat takes none."""
    return sum(not unicodedata.combining(c) for c in text)


def _aligned(rows: Sequence[tuple[str, str]]) -> str:
    """Equals signs below each other."""
    widest = max(width(left) for left, _ in rows)
    return "\n".join(f"{' ' * (widest - width(left))}{left} = {right}" for left, right in rows)


UNICODE = Notation(
    {
        **_sums("−"),
        "mul": Operation("{}·{}".format, (PRODUCT, PRODUCT), PRODUCT),
        # A fraction on one line binds less than a product: a factor that is one stands in brackets.
        "div": Operation("{} / {}".format, (PRODUCT, POWER), FRACTION),
        "pow": Operation(_raised, (ATOM, ATOM), POWER),
        "sqrt": Operation("√{}".format, (ATOM,), POWER),
        **_enclosed(
            {
                "abs": "|{}|",
                "norm": "‖{}‖",
                "global_norm": "‖{}‖",
                "floor": "⌊{}⌋",
                "where": "{{{1} if {0}; {2} otherwise}}",
            }
        ),
        **_comparisons("<", "≤", ">", "≥", "=", "≠"),
    },
    number=lambda x: f"{x:g}".replace("-", "−").replace("inf", "∞"),
    functions={"maximum": "max", "minimum": "min"},
    names=Naming(
        inputs={"t": "t", "p": "θₜ₋₁", "g": "gₜ", "P": "Θₜ₋₁", "G": "Gₜ"},
        updated="θₜ",
        before="ₜ₋₁",
        after="ₜ",
        indexed=unicode_name,
        hyperparameter=unicode_symbol,
    ),
    layout=_aligned,
)


# -- ASCII -------------------------------------------------------------------------------------------

# Signs in the letters that any terminal has.
_ASCII = {
    **{"−": "-", "–": "-", "—": "-", "·": "*", "⋅": "*", "×": "x", "√": "sqrt ", "‖": "||", "∞": "inf"},
    **{"≤": "<=", "≥": ">=", "≠": "!=", "±": "+-", "●": "*", "○": "o", "⁄": "/", "⌊": "floor(", "⌋": ")"},
    **{"“": '"', "”": '"', "‘": "'", "’": "'", "′": "'", "″": "''"},
    **{"\u0302": "_hat", "\u0303": "_tilde", "ᵀ": "^T"},
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
