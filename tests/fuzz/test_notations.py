"""Random expressions: what each language prints means the expression, and so does what is left at a 0."""

import math
import random
import re
from collections.abc import Mapping
from typing import Any

import pytest

from thalweg.program.printing import LATEX, PYTHON, UNICODE
from thalweg.program.simplify import without
from thalweg.program.symbols import OPERATIONS, Expr, Line, apply, symbol, walk

NAMES = ("a", "b", "t", "z")
NUMBERS = (0.5, 1.0, 2.0, 3.0, -1.0, -2.5, 0.0)
BINARY = ("add", "sub", "mul", "div", "pow", "maximum", "minimum")
UNARY = ("neg", "sqrt", "exp", "tanh", "sign")


def expression(r: random.Random, depth: int, names: tuple[str, ...] = NAMES) -> Any:
    """An expression of some operations; now and then a number. Numbers alone are not computed with."""
    kind = r.random()
    if depth == 0 or kind < 0.1:
        return symbol(r.choice(names)) if r.random() < 0.8 else r.choice(NUMBERS)
    op = r.choice(UNARY) if kind < 0.3 else r.choice(BINARY) if kind < 0.95 else "where"
    args = [expression(r, depth - 1, names) for _ in range({"where": 4}.get(op, 1 if op in UNARY else 2))]
    if not any(isinstance(a, Expr) for a in args[:2]):
        return args[0]
    if op == "where":
        return apply("where", apply(r.choice(["lt", "ge"]), *args[:2]), *args[2:])
    return apply(op, *args)


def value(x: Any, known: Mapping[str, float]) -> float:
    """What an expression comes to; ValueError where a number in it is not finite, or is very large."""
    found: dict[Any, Any] = {}
    for e in walk(x):
        at = [found[a] if isinstance(a, Expr) else a for a in e.args]
        found[e] = known[e.name] if e.op == "symbol" else OPERATIONS[e.op](*at)
        if not all(abs(number) < 1e8 for number in (*at, found[e])):  # NaN is not below
            raise ValueError
    result = float(found[x] if isinstance(x, Expr) else x)
    if not math.isfinite(result):
        raise ValueError
    return result


def settings(r: random.Random) -> dict[str, float]:
    """Numbers for the symbols; z is 0, t the number of a step."""
    return {"a": r.uniform(0.3, 2), "b": r.uniform(-2, -0.3), "t": float(r.randint(1, 4)), "z": 0.0}


def python(text: str) -> str:
    return text


def latex(text: str) -> str:
    """LaTeX as Python: braces are parentheses, \\frac takes its arguments one by one."""
    cases = r"\\begin{cases} (.*?) & \\text{if } (.*?) \\\\ (.*?) & \\text{otherwise} \\end{cases}"
    while re.search(cases, text):  # the innermost is the last to begin
        at = text.rindex(r"\begin{cases}")
        text = text[:at] + re.sub(cases, r"(where(\2, \1, \3))", text[at:], count=1)
    for shown, meant in {
        r"\left(": "(", r"\right)": ")", r"\operatorname{sign}": "sign", r"\cdot": "*", r"\,": "*", "^": "**",
        r"\max": "maximum", r"\min": "minimum", r"\ge": ">=", "{": "(", "}": ")", "\\": "",
    }.items():  # fmt: skip
        text = text.replace(shown, meant)
    return text


class Root:
    """√ binds as closely as a power."""

    def __pow__(self, x: float) -> float:
        return math.sqrt(x)


def unicode(text: str) -> str:
    """What a terminal shows as Python."""
    text = text.replace("√", "root**")
    raised = "⁰¹²³⁴⁵⁶⁷⁸⁹ᵗ⁺⁻⁽⁾"
    plain = str.maketrans(raised, "0123456789t+-()")
    text = re.sub(f"[{raised}]+", lambda found: f"**({found[0].translate(plain)})", text)
    text = re.sub(r"\bmax\(", "maximum(", re.sub(r"\bmin\(", "minimum(", text))
    for shown, meant in {
        "·": "*", "−": "-", "^": "**", "≥": ">=", "{": "(", "}": ")", ";": " else ", "otherwise": "",
    }.items():  # fmt: skip
        text = text.replace(shown, meant)
    return text


LANGUAGES = {"python": (PYTHON, python), "latex": (LATEX, latex), "unicode": (UNICODE, unicode)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_printed_means_the_expression(language: str, rounds: int, generator: random.Random) -> None:
    notation, read = LANGUAGES[language]
    functions = {**OPERATIONS, "frac": lambda a: lambda b: a / b, "root": Root()}
    for _ in range(10 * rounds):
        x, known = expression(generator, 4), settings(generator)
        try:
            wanted = value(x, known)
        except ValueError:
            continue
        text = notation.write(x)
        found = eval(read(text), {**functions, **known})
        assert found == pytest.approx(wanted, rel=1e-6, abs=1e-9), (repr(x), text)


def test_formulas_without_what_does_nothing_compute_the_same(rounds: int, generator: random.Random) -> None:
    for _ in range(10 * rounds):
        names: tuple[str, ...] = NAMES
        lines: list[Line] = []
        for name in ("x", "m_new", "y"):
            made = expression(generator, 3, names)
            if isinstance(made, Expr):
                lines.append(Line(name, made))
                names = (*names, name)
        step, known = expression(generator, 3, names), settings(generator)
        try:
            wanted = computed(lines, step, known)
        except ValueError:
            continue
        left, step_left = without(["z"], lines, step, ["m_new"])
        assert {line.name for line in left} <= {*wanted}
        assert ("m_new" in wanted) == any(line.name == "m_new" for line in left), "state is shown"
        for name, number in computed(left, step_left, known).items():
            assert number == pytest.approx(wanted[name], rel=1e-9, abs=1e-12), (lines, step)
        shown = [*(line.value for line in left), step_left]
        assert not any(dead(e) for e in walk(*shown)), (lines, step, left, step_left)


def computed(lines: Any, step: Any, known: Mapping[str, float]) -> dict[str, float]:
    """What each line comes to, and the step."""
    found = dict(known)
    for line in lines:
        found[line.name] = value(line.value, found)
    return {line.name: found[line.name] for line in lines} | {"step": value(step, found)}


def dead(e: Expr) -> bool:
    """Whether an operation on a 0 or a 1 is left that does nothing."""
    numbers = [a for a in e.args if not isinstance(a, Expr)]
    nothing = {"add": [0], "sub": [0], "mul": [0, 1]}.get(e.op, [])
    return any(n in nothing for n in numbers)
