"""What the page asks and what it is told: from a checked request to plain data.

A request is JSON:

    {"surface": "ravine",                  or {"formula": "x²/20 + y²", "window": [[-8, 8], [-4, 4]]}
     "start": [-7, 2], "steps": 30, "seed": 0,
     "noise": 0.5, "batch": 4,             of one example's gradient, and how many are averaged
     "optimizers": [{"method": "adam", "dialect": "keras", "values": {"lr": 0.3}}]}

Series of numbers are answered as float32, little-endian, in base64: a tenth of the time that digits take.
"""

import base64
import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path as File
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg import calculus, palette, registry, solvers, surfaces
from thalweg.dialects import DIALECTS
from thalweg.errors import nearest
from thalweg.following import Path, path
from thalweg.formulas import Formula
from thalweg.guide import SWITCHES
from thalweg.hyperparameters import describe
from thalweg.printing import plain_name, plain_symbol, to_unicode
from thalweg.program import Program, trace
from thalweg.race import tune
from thalweg.rule import Rule, is_flag
from thalweg.solvers import Solver
from thalweg.surfaces import Noise, Surface
from thalweg.symbols import Expr, apply, symbol, walk

__all__ = [
    "LIMITS",
    "BadRequestError",
    "Entrant",
    "Request",
    "animation",
    "catalogue",
    "code",
    "grid",
    "read",
    "surface_of",
]

Array: TypeAlias = NDArray[np.float64]

# Operations are those of one entry, about a microsecond each; a search for learning rates counts eightfold,
# for it goes many paths at once.
LIMITS = {"optimizers": 10, "steps": 5000, "steps_tuning": 1000, "batch": 10_000, "operations": 8_000_000}
_TUNING = 8

# Points along each side of a picture, and along a curve.
_SIDE, _CURVE = 121, 401

# Colours for white and dark paper, and dashes in the width of a line.
LOOKS: dict[str, Any] = {
    "light": palette.LIGHT,
    "dark": palette.DARK,
    "dashes": [[2 * length for length in dashes] for dashes in palette.DASHES],
}


class BadRequestError(ValueError):
    """What was asked cannot be answered; the message says why."""


@dataclass(frozen=True)
class Entrant:
    """One optimizer of a request.

    Attributes:
        label: its name in the picture; no two are the same.
        method: what goes down the surface.
        code: the Python expression that makes it.
    """

    label: str
    method: Rule | Solver
    code: str


@dataclass(frozen=True)
class Request:
    """What is to be followed, checked."""

    surface: Surface
    start: tuple[float, ...]
    steps: int
    seed: int
    noise: Noise
    entrants: tuple[Entrant, ...]

    def follow(self, entrant: Entrant) -> Path:
        """The way of one optimizer; solvers see no noise."""
        noise = self.noise if isinstance(entrant.method, Rule) else None
        return path(self.surface, entrant.method, self.start, self.steps, seed=self.seed, noise=noise)


# -- reading --------------------------------------------------------------------------------------


def read(document: Any, *, tuning: bool = False) -> Request:
    """A request, from what JSON said.

    Args:
        document: see the module.
        tuning: whether learning rates are to be searched.

    Raises:
        BadRequestError: naming what is wrong.
    """
    asked = _Fields(document, "the request")
    surface = surface_of(asked.get("surface"))
    count = LIMITS["steps_tuning" if tuning else "steps"]
    steps = asked.whole("steps", 100, 1, count)
    start = tuple(asked.numbers("start", surface.start, surface.dimensions))
    batch = asked.whole("batch", 1, 1, LIMITS["batch"])
    deviation = asked.number("noise", surface.noise.deviation, 0, 1e6) / math.sqrt(batch)
    # A batch shows a feature where any of its examples does.
    seen = tuple(1 - (1 - f) ** batch for f in surface.noise.frequencies)
    listed = asked.get("optimizers", [])
    if not isinstance(listed, list) or not 1 <= len(listed) <= LIMITS["optimizers"]:
        raise BadRequestError(f"optimizers is a list of 1 to {LIMITS['optimizers']}")
    entrants: list[Entrant] = []
    for one in listed:
        entrants.append(_entrant(_Fields(one, "an optimizer"), [e.label for e in entrants]))
    seed = asked.whole("seed", 0, 0, 2**31)
    asked.all_known()
    work = steps * sum(_operations(surface, e.method) for e in entrants) * (_TUNING if tuning else 1)
    if work > LIMITS["operations"]:
        raise BadRequestError(
            f"this takes {work / LIMITS['operations']:.1f} times the work that the playground does at once: "
            "ask for fewer steps, fewer optimizers or a shorter formula"
        )
    return Request(surface, start, steps, seed, Noise(deviation, seen), tuple(entrants))


def surface_of(asked: Any) -> Surface:
    """A surface, by name or from a formula.

    Raises:
        BadRequestError: no surface, or none that can be drawn.
    """
    if isinstance(asked, str):
        if asked not in _shown():
            raise BadRequestError(f"no surface is named {asked!r}; {nearest(asked, _shown())}")
        return surfaces.get(asked)
    given = _Fields(asked, "surface")
    formula, window = given.get("formula"), given.get("window")
    given.all_known()
    if not isinstance(formula, str):
        raise BadRequestError("surface is a name, or {formula, window}")
    if window is not None:
        if not isinstance(window, list) or len(window) not in (1, 2):
            raise BadRequestError("window is a pair [low, high] for each variable")
        window = [_pair(pair) for pair in window]
    return _parsed(formula, None if window is None else tuple(window))


def _pair(asked: Any) -> tuple[float, float]:
    if not isinstance(asked, list) or len(asked) != 2:
        raise BadRequestError(f"window has pairs [low, high], got {asked!r}")
    low, high = (_number("an end of the window", x, -1e6, 1e6) for x in asked)
    if not high - low > 1e-6 * max(1.0, abs(low), abs(high)):
        raise BadRequestError(f"a window's low end is below its high end, got {asked!r}")
    return low, high


@lru_cache(maxsize=64)
def _parsed(formula: str, window: tuple[tuple[float, float], ...] | None) -> Surface:
    try:
        found = surfaces.parse(formula)
        # The page shows two sides whatever the formula is in.
        return found if window is None else surfaces.parse(formula, window=window[: found.dimensions])
    except ValueError as error:
        raise BadRequestError(str(error)) from None


def _entrant(asked: "_Fields", taken: Sequence[str]) -> Entrant:
    name, dialect, values = asked.get("method"), asked.get("dialect", "paper"), asked.get("values", {})
    asked.all_known()
    if not isinstance(name, str) or not isinstance(dialect, str) or not isinstance(values, dict):
        raise BadRequestError('an optimizer is {"method": name, "dialect": name, "values": {name: number}}')
    if solvers.knows(name):
        solver = solvers.get(name)
        if values:
            raise BadRequestError(f"{solver.title} has no hyperparameters")
        return Entrant(_unlike(solver.title, taken), solver, repr(solver.name))
    for key, value in values.items():
        if isinstance(value, bool):
            continue
        if not isinstance(value, int | float) or not abs(value) < 1e300:
            raise BadRequestError(f"{key} is a number, or true or false; got {_short(value)}")
    try:
        rule = registry.get(name, dialect=dialect, **values)
    except (TypeError, ValueError) as error:
        raise BadRequestError(str(error)) from None
    title = type(rule).__name__
    given = "".join(f", {key}={value!r}" for key, value in values.items())
    spoken = f", dialect={dialect!r}" if dialect != "paper" else ""
    label = title if dialect == "paper" else f"{title} ({dialect})"
    return Entrant(_unlike(label, taken), rule, f"thalweg.get({rule.name!r}{spoken}{given})")


def _unlike(label: str, taken: Sequence[str]) -> str:
    """The label, numbered where it is taken."""
    numbered = (label if i == 1 else f"{label} {i}" for i in range(1, len(taken) + 2))
    return next(one for one in numbered if one not in taken)


class _Fields:
    """The fields of a JSON object, each checked as it is taken."""

    def __init__(self, document: Any, what: str) -> None:
        if not isinstance(document, dict):
            raise BadRequestError(f"{what} is a JSON object, got {_short(document)}")
        self.document, self.what = document, what
        self.taken: list[str] = []

    def get(self, name: str, default: Any = None) -> Any:
        self.taken.append(name)
        return self.document.get(name, default)

    def number(self, name: str, default: float, low: float, high: float) -> float:
        return _number(name, self.get(name, default), low, high)

    def numbers(self, name: str, default: Sequence[float], count: int) -> list[float]:
        values = self.get(name)
        values = list(default) if values is None else values
        if not isinstance(values, list) or len(values) != count:
            raise BadRequestError(f"{name} is a list of {count} numbers, got {_short(values)}")
        return [_number(name, x, -1e9, 1e9) for x in values]

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise BadRequestError(f"{name} is a whole number from {low} to {high}, got {_short(value)}")
        return value

    def all_known(self) -> None:
        if unknown := self.document.keys() - {*self.taken}:
            word = min(unknown)
            raise BadRequestError(f"{self.what} has no field {_short(word)}; {nearest(word, self.taken)}")


def _number(name: str, value: Any, low: float, high: float) -> float:
    # A whole number of a thousand digits is no float: it is compared before it is made one.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise BadRequestError(f"{name} is a number between {low:g} and {high:g}, got {_short(value)}")
    return float(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _operations(surface: Surface, method: Rule | Solver) -> int:
    """About how many operations a step takes; a search along a line, a few evaluations."""
    if isinstance(method, Solver):
        return 8 * (10 + _operations_of(surface, hessian=method.needs == "hessian"))
    return 15 + sum(trace(method).operations.values()) + _operations_of(surface)


@lru_cache(maxsize=128)
def _operations_of(surface: Surface, *, hessian: bool = False) -> int:
    formula = surface.function
    assert isinstance(formula, Formula)  # no other surface is shown
    roots = calculus.gradient(formula.expression, formula.symbols)
    if hessian:
        roots += [entry for row in calculus.hessian(formula.expression, formula.symbols) for entry in row]
    return sum(1 for _ in walk(*roots))


# -- answers --------------------------------------------------------------------------------------


def packed(numbers: ArrayLike) -> str:
    """Numbers as the page takes them."""
    with np.errstate(all="ignore"):
        return base64.b64encode(np.asarray(numbers, "<f4").tobytes()).decode()


def paths(request: Request) -> dict[str, Any]:
    """Each optimizer's way: its points, values and state, and what its formulas come to at each step."""
    return {
        "surface": facts_of(request.surface),
        "start": request.start,
        "paths": [{"label": e.label, **_told(request.follow(e))} for e in request.entrants],
    }


def _told(found: Path) -> dict[str, Any]:
    formulas, series = _formulas(found)
    lost = int(found.diverged_at)
    return {
        "steps": found.steps,
        "lost": None if lost < 0 else lost,
        "evaluations": {what: int(count[-1]) for what, count in found.evaluations.items() if count[-1]},
        "points": packed(found.points),
        "values": packed(found.values),
        "formulas": formulas,
        "series": {
            name: {"symbol": sign, "entries": numbers.shape[1], "numbers": packed(numbers)}
            for name, (sign, numbers) in series.items()
        },
    }


def _formulas(found: Path) -> tuple[list[dict[str, str]], dict[str, tuple[str, Array]]]:
    """A rule's formulas, each with the name of the series that it computes; and every series (steps + 1, …).

    Row t belongs to step t; row 0 is the state at the start, NaN where there is none.
    A formula's "numbers" are what it is computed from, to be filled in: see `_places`.
    """
    series = {"gradient": ("g", found.gradients)}
    effective = _later(found.step_sizes)
    if isinstance(found.method, Solver):
        return [], {**series, "effective": ("|Δθ|/|g|", effective)}
    program = trace(found.method)
    known = _lines(program, found)
    texts, places = program.unicode().splitlines(), _places(program, found.method)
    formulas: list[dict[str, str]] = []
    for line, text in zip(program.formulas, texts, strict=False):
        name = line.name.removesuffix("_new")
        rows = _later(known[line.name])
        if name in found.state:
            rows[0] = _as_rows(found.state[name])[0]
        series[name] = (text.partition("=")[0].strip().replace("ₜ", ""), rows)
        formulas.append({"text": text.strip(), "numbers": to_unicode(line.value, places), "series": name})
    for name, numbers in found.state.items():  # a slot whose next value is another slot's
        series.setdefault(name, (plain_name(name, ""), _as_rows(numbers)))
    moved = to_unicode(apply("sub", symbol("p"), program.formulas_step), places)
    formulas.append({"text": texts[-1].strip(), "numbers": moved, "series": "points"})
    return formulas, {**series, "effective": ("|Δθ|/|g|", effective)}


def _places(program: Program, rule: Rule) -> dict[str, str]:
    """What stands for each symbol of a formula: a number, or ⟦series|row⟧, row 1 being the step's own."""
    places = {"t": "⟦t⟧", "g": "⟦gradient|0⟧", "p": "⟦points|0⟧", "norm": "‖g‖", "global_norm": "‖g‖"}
    places |= {slot: f"⟦{slot}|0⟧" for slot in (*program.slots, *program.scalar_slots)}
    places |= {name: f"{value:.4g}".replace("-", "−") for name, value in rule.values.items()}
    return places | {line.name: f"⟦{line.name.removesuffix('_new')}|1⟧" for line in program.formulas}


def _lines(program: Program, found: Path) -> dict[str, Array]:
    """What each line of a rule came to at each step: (steps, entries or 1)."""
    rule = found.method
    assert isinstance(rule, Rule)
    with np.errstate(all="ignore"):  # of a path that is lost
        norm = np.asarray(found.gradient_norms)[:-1, None]
    known: dict[str, Any] = {
        "t": np.arange(1.0, found.steps + 1)[:, None],
        "g": found.gradients[:-1],
        "p": found.points[:-1],
        "norm": norm,
        "global_norm": norm,
        **{name: _as_rows(numbers)[:-1] for name, numbers in found.state.items()},
        **rule.values_at(1),
    }
    with np.errstate(all="ignore"):
        for line in program.formulas:
            known[line.name] = _value(line.value, known)
    return {
        line.name: np.broadcast_to(known[line.name], (found.steps, np.shape(known[line.name])[-1]))
        if np.ndim(known[line.name])
        else np.full((found.steps, 1), known[line.name])
        for line in program.formulas
    }


_OPERATIONS = {"add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "pow": "power"} | {
    "neg": "negative",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "eq": "equal",
    "ne": "not_equal",
}


def _value(expression: Any, known: Mapping[str, Any]) -> Any:
    """An expression's value, from its symbols'."""
    if not isinstance(expression, Expr):
        return expression
    if expression.op == "symbol":
        return known[expression.name]
    function = getattr(np, _OPERATIONS.get(expression.op, expression.op))
    return function(*(np.asarray(_value(a, known), np.float64) for a in expression.args))


def _as_rows(numbers: Array) -> Array:
    return numbers if numbers.ndim == 2 else numbers[:, None]


def _later(numbers: Array) -> Array:
    """One row more, before the first: nothing has happened yet."""
    return np.concatenate([np.full((1, numbers.shape[1]), np.nan), numbers])


def facts_of(surface: Surface) -> dict[str, Any]:
    """What to know of a surface."""
    return {
        "name": surface.name,
        "title": surface.title,
        "formula": surface.unicode(),
        "window": surface.window,
        "start": surface.start,
        "minima": surface.minima,
        "saddles": surface.saddles,
        "lowest": surface.lowest if surface.minima else None,
        "noise": surface.noise.deviation,
        "sparse": bool(surface.noise.frequencies),
        "source": surface.source,
    }


def grid(surface: Surface) -> dict[str, Any]:
    """The surface's values over its window: rows are y, columns x."""
    side = _CURVE if surface.dimensions == 1 else _SIDE
    return {**facts_of(surface), "side": side, "values": packed(surface.value(surface.grid(side)))}


def tuned(request: Request) -> list[dict[str, Any]]:
    """For each optimizer the learning rate that suits it, all searched with one budget."""
    answers: list[dict[str, Any]] = []
    for entrant in request.entrants:
        rule = entrant.method
        if isinstance(rule, Solver) or "lr" not in rule.values:
            answers.append({"label": entrant.label, "lr": None, "steps": None, "how": ""})
            continue
        found = tune(
            request.surface,
            rule,
            start=request.start,
            steps=request.steps,
            seed=request.seed,
            noise=request.noise,
        )
        answers.append(
            {"label": entrant.label, "lr": found.lr, "steps": found.steps_to_target, "how": found.how}
        )
    return answers


def code(request: Request) -> str:
    """Python that goes the same ways and draws them."""
    surface = request.surface
    formula = surface.function
    named = surface.name in _shown()
    made = f"surfaces.get({surface.name!r})"
    if not named and isinstance(formula, Formula):
        made = f"surfaces.parse({formula.text!r}, window={surface.window!r})"
    rules = any(isinstance(e.method, Rule) for e in request.entrants)
    noisy = bool(request.noise) and rules
    lines = ["import thalweg"] if rules else []
    lines += ["from thalweg import plot, surfaces", "from thalweg.following import path"]
    lines += ["from thalweg.surfaces import Noise"] if noisy else []
    lines += ["", f"surface = {made}", f"start, steps = {request.start!r}, {request.steps}"]
    if noisy:
        told = f"deviation={request.noise.deviation!r}"
        told += f", frequencies={request.noise.frequencies!r}" if request.noise.frequencies else ""
        lines.append(f"noise, seed = Noise({told}), {request.seed}")
    lines.append("paths = {")
    for e in request.entrants:
        more = ", seed=seed, noise=noise" if noisy and isinstance(e.method, Rule) else ""
        lines.append(f"    {e.label!r}: path(surface, {e.code}, start, steps{more}),")
    return "\n".join([*lines, *_DRAWN]) + "\n"


_DRAWN = (
    "}",
    "for label, found in paths.items():",
    '    print(f"{label}: {found.values[-1]:.6g} after {found.steps} steps")',
    'plot.save(plot.race(paths), "paths.png")',
)


def animation(request: Request) -> bytes:
    """The paths as a GIF.

    Raises:
        ImportError: matplotlib is not there.
    """
    from thalweg import plot

    with TemporaryDirectory() as folder:
        file = File(folder, "paths.gif")
        plot.animate({e.label: request.follow(e) for e in request.entrants}, file, dpi=80)
        return file.read_bytes()


def table(request: Request) -> str:
    """Every step of every optimizer as CSV; empty where an optimizer has no such state."""
    ways = [(e.label, request.follow(e)) for e in request.entrants]
    variables = ("x", "y")[: request.surface.dimensions]
    columns = [*variables, "value", *(f"gradient_{v}" for v in variables)]
    for _, found in ways:
        for slot, numbers in found.state.items():
            columns += [f"{slot}_{v}" for v in variables] if numbers.ndim == 2 else [slot]
    columns = list(dict.fromkeys(columns))
    out = io.StringIO()
    writer = csv.DictWriter(out, ["optimizer", "step", *columns], lineterminator="\n")
    writer.writeheader()
    for label, found in ways:
        cells = {"value": found.values}
        for name, numbers in {"": found.points, "gradient_": found.gradients}.items():
            cells |= {f"{name}{v}": numbers[:, i] for i, v in enumerate(variables)}
        for slot, numbers in found.state.items():
            split = {f"{slot}_{v}": numbers[..., i] for i, v in enumerate(variables)}
            cells |= split if numbers.ndim == 2 else {slot: numbers}
        rows = zip(*(column.tolist() for column in cells.values()), strict=True)
        for step, row in enumerate(rows):
            writer.writerow({"optimizer": label, "step": step, **dict(zip(cells, row, strict=True))})
    return out.getvalue()


# -- what there is --------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _shown() -> tuple[str, ...]:
    """The surfaces that can be drawn."""
    return tuple(name for name in surfaces.names() if surfaces.get(name).dimensions <= 2)


@lru_cache(maxsize=1)
def catalogue() -> dict[str, Any]:
    """Everything that the page offers."""
    from thalweg.explain import dialects_of

    rules = []
    for name in registry.rules():
        kind = registry.find(name)
        forms = {dialect: _form(registry.get(name, dialect=dialect)) for dialect in dialects_of(kind)}
        summary = (kind.__doc__ or "").partition("\n")[0]
        rules.append({"name": name, "title": kind.__name__, "summary": summary, "dialects": forms})
    return {
        "surfaces": [facts_of(surfaces.get(name)) for name in _shown()],
        "rules": rules,
        "solvers": [{"name": s, "title": solvers.get(s).title} for s in solvers.names()],
        "limits": LIMITS,
        "looks": LOOKS,
    }


def _form(rule: Rule) -> dict[str, Any]:
    """A rule's numbers and switches in one dialect."""
    numbers = {}
    symbols = trace(rule).symbols
    for name, about in rule.hyperparameters.items():
        numbers[name] = {
            "symbol": plain_symbol(symbols[name], name),
            "meaning": about.meaning,
            "range": about.range,
            "low": about.low if math.isfinite(about.low) else None,
            "high": about.high if math.isfinite(about.high) else None,
            "search": about.search,
            "complement": about.complement,
            "value": rule.values[name],
        }
    switches = {
        f.name: {"meaning": SWITCHES.get(f.name, ""), "value": getattr(rule, f.name)}
        for f in fields(rule)  # type: ignore[arg-type]
        if is_flag(f)
    }
    return {"numbers": numbers, "switches": switches}


def rule_facts(name: str) -> dict[str, Any]:
    """Everything on a rule's page.

    Raises:
        UnknownRuleError: no rule has the name.
    """
    from thalweg.dialects import SPELLINGS
    from thalweg.explain import dialects_of, differences
    from thalweg.guide import GUIDES
    from thalweg.rule import ALIASES

    kind = registry.find(name)
    guide = GUIDES.get(kind.__name__)
    summary, _, source = (kind.__doc__ or "").partition("\n")
    forms = {dialect: registry.get(name, dialect=dialect) for dialect in dialects_of(kind)}
    formulas: dict[str, list[str]] = {}
    for dialect, rule in forms.items():
        formulas.setdefault(trace(rule).unicode(), []).append(dialect)
    every = {f.name: describe(f) for f in fields(kind) if not is_flag(f)}  # type: ignore[arg-type]
    symbols = Counter(about.symbol for about in every.values())
    return {
        "name": kind.__name__.lower(),
        "title": kind.__name__,
        "aliases": [alias for alias, of in ALIASES.items() if of == kind.__name__],
        "summary": summary,
        "source": " ".join(source.split()),
        "formulas": [
            {"dialects": used, "text": "\n".join(line.strip() for line in text.splitlines())}
            for text, used in formulas.items()
        ],
        "hyperparameters": [
            {
                "name": key,
                "symbol": plain_symbol(about.symbol, key) if symbols[about.symbol] == 1 else key,
                "meaning": about.meaning,
                "range": about.range,
                "values": {d: rule.values.get(key) for d, rule in forms.items()},
            }
            for key, about in every.items()
        ],
        "switches": [
            {
                "name": f.name,
                "meaning": SWITCHES.get(f.name, ""),
                "values": {d: getattr(rule, f.name) for d, rule in forms.items()},
            }
            for f in fields(kind)  # type: ignore[arg-type]
            if is_flag(f)
        ],
        "dialects": [
            {
                "name": dialect,
                "spelling": SPELLINGS.get(dialect, {}).get(kind.__name__, ""),
                "differs": differences(kind, dialect) if dialect in DIALECTS else "",
            }
            for dialect in forms
        ],
        "guide": {"how": guide.how, "well": guide.well, "badly": guide.badly} if guide else None,
    }
