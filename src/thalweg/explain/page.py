"""A rule in words and numbers: `print(explain("adam"))`, of a rule's name or any rule object.

How far dialects part is measured on one **standard trajectory**, in float64: 200 steps down the
quadratic ½ Σ hᵢpᵢ² with hᵢ = 10⁰, 10⁻¹, … 10⁻⁶ from p = 1, whose gradients hᵢ(pᵢ + 0.3·zᵢ) have
normal noise z from a fixed seed; from step 101 on the learning rate is a tenth. The small
curvatures show where ε stands, the fall of the rate what a velocity holds.
"""

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.dialects import DIALECTS, SPELLINGS
from thalweg.eager import Driver
from thalweg.errors import UnknownDialectError
from thalweg.explain.guide import GUIDES, SWITCHES
from thalweg.hyperparameters import describe
from thalweg.program.printing import unicode_name, unicode_symbol, width
from thalweg.program.tracing import trace
from thalweg.registry import ALIASES, find, get, rules, standard_name
from thalweg.rule import Rule, is_flag
from thalweg.schedules import Step
from thalweg.statefile import apart

__all__ = ["dialects_of", "differences", "explain", "table_of_dialects"]

COLUMNS = 88
SHOWN = (1, 10, 100, 110, 200)  # the steps after which the dialects' paths are compared
_OWN = ("initial_accumulator", "psi", "epsilon_root")  # no settings that users carry between frameworks

_WORDS = {
    "add": "addition",
    "sub": "subtraction",
    "mul": "multiplication",
    "div": "division",
    "pow": "power",
    "neg": "change of sign",
    "sqrt": "square root",
    "abs": "absolute value",
    "sign": "sign",
    "where": "choice",
    "maximum": "maximum",
    "minimum": "minimum",
    **dict.fromkeys(("lt", "le", "gt", "ge", "eq", "ne"), "comparison"),
}

Floats = NDArray[np.float64]


def explain(rule: Rule | str, dialect: str = "paper", *, latex: bool = False) -> str:
    """What a rule does, its formula, hyperparameters, dialects, uses, source and cost.

    Args:
        rule: a rule, which may be one's own, or a name as `get` takes it.
        dialect: whose formula to show, where `rule` is a name.
        latex: the formula in LaTeX rather than Unicode.

    Raises:
        UnknownRuleError, UnknownDialectError: a name that is none.
        TypeError: `rule` is neither a rule nor a name.
    """
    if dialect not in DIALECTS:
        raise UnknownDialectError(dialect, DIALECTS)
    if isinstance(rule, str):
        kind: type[Rule] = find(rule)
        forms = {name: get(rule, dialect=name) for name in dialects_of(kind)}
        chosen = get(rule, dialect=dialect)
    elif isinstance(rule, Rule):
        kind, chosen = type(apart(rule)[1]), rule
        forms = {"yours": rule} | {
            name: get(kind, dialect=name) for name in dialects_of(kind) if standard_name(kind)
        }
    else:
        raise TypeError(f"explain takes a rule or a rule's name, such as 'adam'; got {rule!r}")
    guide = GUIDES.get(standard_name(kind))
    sections = {
        "": _wrapped(" ".join([_docstring(kind).partition("\n")[0], *([guide.how] if guide else [])])),
        "Formula": [*_formula(chosen, forms, latex)],
        "Hyperparameters": [*_hyperparameters(chosen, kind)],
        "Defaults": [*_defaults(forms, kind)],
        "Dialects": [*_dialects(forms, kind)],
        "Serves well": _wrapped(guide.well) if guide else [],
        "Serves badly": _wrapped(guide.badly) if guide else [],
        "Source": _source(kind),
        "Cost": [*_cost(chosen)],
    }
    parts = [_title(kind)]
    parts += [
        "\n".join([*([title] if title else []), *(f"  {line}".rstrip() for line in lines)])
        for title, lines in sections.items()
        if lines
    ]
    return "\n\n".join(parts)


def dialects_of(kind: type[Rule]) -> list[str]:
    """The dialects whose framework has the rule; the paper's first, which has every rule."""
    return ["paper", *(name for name, known in SPELLINGS.items() if standard_name(kind) in known)]


def differences(kind: type[Rule], dialect: str) -> str:
    """What a dialect sets otherwise than the paper, such as "lr=0.001, epsilon_in_root"."""
    values = DIALECTS[dialect].get(standard_name(kind), {})
    return ", ".join(
        ("" if value else "not ") + name if isinstance(value, bool) else f"{name}={_value(value)}"
        for name, value in values.items()
    )


def table_of_dialects(names: Sequence[str] | None = None) -> str:
    """Rules as every framework has them: how it spells them, and what differs from the paper.

    Args:
        names: of the rules to list; by default all that are registered.

    Raises:
        UnknownRuleError: a name that is none.
    """
    lines: list[str] = []
    for rule in names or rules():
        kind = find(rule)
        values = ", ".join(f"{name}={_value(value)}" for name, value in kind().values.items())
        lines += [_title(kind), *_hanging("  paper  ", values)]
        for dialect in dialects_of(kind)[1:]:
            lines.append(f"  {dialect:5}  {SPELLINGS[dialect][kind.__name__]}")
            lines += _hanging(" " * 9, differences(kind, dialect) or "as the paper")
        lines.append("")
    return "\n".join(lines[:-1])


def _title(kind: type[Rule]) -> str:
    also = [alias for alias, name in ALIASES.items() if name == standard_name(kind)]
    return kind.__name__ + (f" (also {', '.join(also)})" if also else "")


def _formula(chosen: Rule, forms: Mapping[str, Rule], latex: bool) -> Iterator[str]:
    """The chosen form's formula, then of every other form the lines that differ."""

    def lines(rule: Rule) -> list[str]:
        program = trace(rule)
        return (program.latex(rule) if latex else program.unicode(rule)).splitlines()

    own = lines(chosen)
    yield from own
    starts = [f"{unicode_name(slot, '₀')} = {value}" for slot, value in _starts(chosen)]
    program = trace(chosen)
    gone = [unicode_symbol(program.symbols[name], name) for name in program.left_out(chosen)]
    legend = ["θ: parameter, g: gradient, t: number of the step, from 1", ", ".join(starts)]
    legend += [f"left out, being 0: {', '.join(gone)}"] if gone else []
    yield from ("", *_wrapped(f"({'; '.join(filter(None, legend))})"))
    same_in = {name for name, rule in forms.items() if lines(rule) == own}
    others = [
        names
        for names in _grouped({n: "\n".join(lines(r)) for n, r in forms.items()})
        if not {*names} & same_in
    ]
    stripped = {line.strip() for line in own}
    for names in others:
        theirs = lines(forms[names[0]])
        yield from ("", f"In {', '.join(names)}{'' if latex else ' these lines differ'}:", "")
        yield from theirs if latex else (line for line in theirs if line.strip() not in stripped)


def _starts(chosen: Rule) -> Iterator[tuple[str, str]]:
    """Each slot of the form, and its initial value or the hyperparameter that holds it."""
    program = trace(chosen)
    for slot in (*program.slots, *program.scalar_slots):
        initial = chosen.slots[slot]
        yield slot, initial if isinstance(initial, str) else f"{initial:g}"


def _hyperparameters(chosen: Rule, kind: type[Rule]) -> Iterator[str]:
    """Each one's name, symbol, range and meaning; then what each switch does."""
    described = {f.name: describe(f) for f in fields(kind) if not is_flag(f)} | chosen.hyperparameters
    described = {name: described[name] for name in _in_order(chosen, kind) if name in described}
    symbols = {name: about.symbol for name, about in described.items()} | trace(chosen).symbols
    yield from _table(
        [[name, unicode_symbol(symbols[name], name), h.range, h.meaning] for name, h in described.items()],
        left=4,
    )
    switches = [f.name for f in fields(kind) if is_flag(f)]
    for name in switches:
        yield from _hanging(f"{name}: ", SWITCHES.get(name, "yes or no"))


def _defaults(forms: Mapping[str, Rule], kind: type[Rule]) -> Iterator[str]:
    """Each value in each dialect; in parentheses where the framework itself has no default."""
    first = next(iter(forms.values()))
    names = _in_order(first, kind)
    if not names:
        return
    rows = [["", *forms]]
    rows += [[name, *(_shown(form, rule, kind, name) for form, rule in forms.items())] for name in names]
    yield from _table(rows, left=1)
    if any("(" in cell for row in rows for cell in row):
        yield "(…): ours, where the framework has no default, or one that makes it another rule"


def _shown(form: str, rule: Rule, kind: type[Rule], name: str) -> str:
    inner = apart(rule)[1]
    if name not in rule.values and not hasattr(inner, name):
        return "–"
    text = _value(rule.values.get(name, getattr(inner, name, None)))
    spelling = SPELLINGS.get(form, {}).get(standard_name(kind), "")
    given = spelling.partition("(")[2].replace("learning_rate", "lr").rstrip(")").split(", ")
    return f"({text})" if {name, f"{name}="} & {*given} else text


def _dialects(forms: Mapping[str, Rule], kind: type[Rule]) -> Iterator[str]:
    """How each framework spells the rule, and how far the dialects' paths part."""
    yield from _table([[name, SPELLINGS[name][kind.__name__]] for name in forms if name in SPELLINGS], left=2)
    if "paper" not in forms:
        return
    lacking = [name for name in SPELLINGS if name not in forms]
    if lacking:
        yield f"not in {', '.join(lacking)}: asked for in such a dialect, it is the paper's"
    if len(forms) < 2:
        return
    paper = forms["paper"]
    same = {name: _with_settings_of(paper, rule) for name, rule in forms.items()}
    yield from ("", "Distance from the paper's path, relative to how far that has led, after step")
    rows = [["", *map(str, SHOWN)]]
    for title, compared in (("with the paper's settings:", same), ("with their own defaults:", dict(forms))):
        rows.append([title, *[""] * len(SHOWN)])
        rows += [
            [f"  {', '.join(names)}", *_deviations(compared[names[0]], paper)]
            for names in _grouped({name: f"{trace(rule)} {rule.values}" for name, rule in compared.items()})
        ]
    yield from _table(rows, left=1)
    kept = " and ".join(name for name in _OWN if name in (f.name for f in fields(kind)))
    keeps = f"; each dialect keeps its own {kept}" if kept else ""
    yield from _wrapped(
        f"(200 noisy steps down a quadratic of condition 10⁶, lr a tenth after step 100{keeps})"
    )


def _with_settings_of(paper: Rule, rule: Rule) -> Rule:
    shared = [name for name in rule.values if name in paper.values and name not in _OWN]
    return rule.replaced(**{name: paper.values[name] for name in shared})


def _deviations(rule: Rule, paper: Rule) -> list[str]:
    found, wanted = standard_path(rule), standard_path(paper)
    cells = []
    for t in SHOWN:
        with np.errstate(all="ignore"):
            distance = float(np.linalg.norm(found[t] - wanted[t]) / np.linalg.norm(wanted[t] - wanted[0]))
        cells.append("–" if not np.isfinite(distance) else "0" if distance < 1e-12 else f"{distance:.2g}")
    return cells


def standard_path(rule: Rule) -> Floats:
    """Where a rule leads along the standard trajectory: (201, 7), the start first."""
    steps, curvature = SHOWN[-1], 10.0 ** -np.arange(7)
    noise = 0.3 * np.random.RandomState(0).standard_normal((steps, 7))
    lr = rule.values.get("lr")
    if lr is not None and not callable(lr):
        rule = rule.replaced(lr=Step(lr, steps // 2))
    p = np.ones(7)
    path, driver = [p], Driver(rule)
    with np.errstate(all="ignore"):
        for drawn in noise:
            g = curvature * (p + drawn)
            p = p - driver.step(p, g)
            path.append(p)
    return np.array(path)


def _source(kind: type[Rule]) -> list[str]:
    """The rest of the docstring; what follows a reference begins a new line."""
    paragraphs = [""]
    for line in _docstring(kind).splitlines()[1:]:
        paragraphs[-1] += f" {line}"
        if not line or re.search(r"https?://\S+$", line):
            paragraphs.append("")
    return [line for paragraph in paragraphs for line in _wrapped(paragraph.strip())]


def _cost(chosen: Rule) -> Iterator[str]:
    program = trace(chosen)
    moved, count = program.bytes_per_entry(4), sum(program.operations.values())
    named: dict[str, int] = {}
    for op, times in program.operations.most_common():
        word = _WORDS.get(op, op)
        named[word] = named.get(word, 0) + times
    each = ", ".join(f"{n} {_plural(word, n)}" for word, n in named.items())
    yield f"bytes: {moved} moved for each entry and step in float32, {program.bytes_per_entry(8)} in float64"
    yield from _hanging("operations: ", f"{count} for each entry and step ({each})")
    arrays = len(program.slots)
    state = f"{arrays} {_plural('number', arrays)} for each parameter ({', '.join(program.slots)})"
    alone = ", ".join(program.scalar_slots)
    yield f"state: {state if arrays else 'none'}" + (f", one for the model ({alone})" if alone else "")


def _in_order(rule: Rule, kind: type[Rule]) -> list[str]:
    """Every hyperparameter and switch, in the order of declaration, those of treatments last."""
    own = [f.name for f in fields(kind)]
    return [*own, *(name for name in rule.values if name not in own)]


def _docstring(kind: type[Rule]) -> str:
    text = inspect.cleandoc(kind.__doc__ or "")
    return "" if text.startswith(f"{kind.__name__}(") else text  # a dataclass writes its signature there


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "schedule" if callable(value) else f"{float(value):g}"


def _plural(word: str, count: int) -> str:
    if count == 1:
        return word
    return {"maximum": "maxima", "minimum": "minima", "change of sign": "changes of sign"}.get(
        word, f"{word}s"
    )


def _grouped(keys: Mapping[str, str]) -> list[list[str]]:
    """Names of equal keys together."""
    groups: dict[str, list[str]] = {}
    for name, key in keys.items():
        groups.setdefault(key, []).append(name)
    return [*groups.values()]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, COLUMNS - 2, break_long_words=False, break_on_hyphens=False)


def _hanging(head: str, text: str) -> list[str]:
    """A paragraph whose further lines stand under its text."""
    return textwrap.wrap(
        text,
        COLUMNS - 2,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Columns two spaces apart: the first `left` flush left, the others flush right."""
    if not rows:
        return []
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell + " " * (w - width(cell)) if i < left else " " * (w - width(cell)) + cell
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
