"""What may be asked of the playground: JSON, checked.

A question is JSON:

    {"surface": "ravine",                  or {"formula": "x²/20 + y²", "window": [[-8, 8], [-4, 4]]}
     "start": [-7, 2], "steps": 30, "seed": 0,
     "noise": 0.5, "batch": 4,             of one example's gradient, and how many are averaged
     "optimizers": [{"method": "adam", "dialect": "keras", "values": {"lr": 0.3}}]}
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from thalweg import registry, surfaces
from thalweg.errors import ThalwegError, nearest, pieces
from thalweg.program.symbols import walk
from thalweg.program.tracing import trace
from thalweg.rule import Rule
from thalweg.surfaces import calculus, solvers
from thalweg.surfaces.formulas import Formula
from thalweg.surfaces.functions import Noise, Surface
from thalweg.surfaces.paths import Path, path
from thalweg.surfaces.solvers import Solver

__all__ = ["LIMITS", "BadRequestError", "Entrant", "Question", "drawable", "read", "surface_of"]

# Operations are those of one entry, about a microsecond each; a search for learning rates counts eightfold,
# for it goes many paths at once.
LIMITS = {"optimizers": 10, "steps": 5000, "steps_tuning": 1000, "batch": 10_000, "operations": 8_000_000}
_TUNING = 8


class BadRequestError(ThalwegError, ValueError):
    """What was asked cannot be answered; `argument` is the field that it is about."""


@dataclass(frozen=True)
class Entrant:
    """One optimizer of a question.

    Attributes:
        label: its name in the picture; no two are the same.
        method: what goes down the surface.
        code: the Python expression that makes it.
    """

    label: str
    method: Rule | Solver
    code: str


@dataclass(frozen=True)
class Question:
    """What is to be followed, checked."""

    surface: Surface
    start: tuple[float, ...]
    steps: int
    seed: int
    noise: Noise
    entrants: tuple[Entrant, ...]

    def follow(self, entrant: Entrant) -> Path:
        """The path of one optimizer; solvers see no noise."""
        noise = self.noise if isinstance(entrant.method, Rule) else None
        return path(self.surface, entrant.method, self.start, self.steps, seed=self.seed, noise=noise)


@lru_cache(maxsize=1)
def drawable() -> tuple[str, ...]:
    """The surfaces that can be drawn."""
    return tuple(name for name in surfaces.names() if surfaces.get(name).dimensions <= 2)


def read(document: Any, *, tuning: bool = False) -> Question:
    """A question, from what JSON said.

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
        raise BadRequestError(f"optimizers is a list of 1 to {LIMITS['optimizers']}", argument="optimizers")
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
    return Question(surface, start, steps, seed, Noise(deviation, seen), tuple(entrants))


def surface_of(asked: Any) -> Surface:
    """A surface, by name or from a formula.

    Raises:
        BadRequestError: no surface, or none that can be drawn.
    """
    if isinstance(asked, str):
        if asked not in drawable():
            raise BadRequestError(
                f"no surface is named {asked!r}; {nearest(asked, drawable())}", argument="surface"
            )
        return surfaces.get(asked)
    given = _Fields(asked, "surface")
    formula, window = given.get("formula"), given.get("window")
    given.all_known()
    if not isinstance(formula, str):
        raise BadRequestError("surface is a name, or {formula, window}", argument="surface")
    if window is not None:
        if not isinstance(window, list) or len(window) not in (1, 2):
            raise BadRequestError("window is a pair [low, high] for each variable", argument="window")
        window = [_pair(pair) for pair in window]
    return _parsed(formula, None if window is None else tuple(window))


def _pair(asked: Any) -> tuple[float, float]:
    if not isinstance(asked, list) or len(asked) != 2:
        raise BadRequestError(f"window has pairs [low, high], got {asked!r}", argument="window")
    low, high = (_number("an end of the window", x, -1e6, 1e6) for x in asked)
    if not high - low > 1e-6 * max(1.0, abs(low), abs(high)):
        raise BadRequestError(f"a window's low end is below its high end, got {asked!r}", argument="window")
    return low, high


@lru_cache(maxsize=64)
def _parsed(formula: str, window: tuple[tuple[float, float], ...] | None) -> Surface:
    try:
        found = surfaces.parse(formula)
        # The page shows two sides whatever the formula is in.
        return found if window is None else surfaces.parse(formula, window=window[: found.dimensions])
    except ValueError as error:
        raise BadRequestError(*pieces(error), argument="formula") from None


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
            raise BadRequestError(f"{key} is a number, or true or false; got {_short(value)}", argument=key)
    try:
        rule = registry.get(name, dialect=dialect, **values)
    except (TypeError, ValueError) as error:
        raise BadRequestError(*pieces(error), argument=getattr(error, "argument", "")) from None
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
            raise BadRequestError(f"{name} is a list of {count} numbers, got {_short(values)}", argument=name)
        return [_number(name, x, -1e9, 1e9) for x in values]

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise BadRequestError(
                f"{name} is a whole number from {low} to {high}, got {_short(value)}", argument=name
            )
        return value

    def all_known(self) -> None:
        if unknown := self.document.keys() - {*self.taken}:
            word = min(unknown)
            raise BadRequestError(
                f"{self.what} has no field {_short(word)}; {nearest(word, self.taken)}", argument=word
            )


def _number(name: str, value: Any, low: float, high: float) -> float:
    # A whole number of a thousand digits is no float: it is compared before it is made one.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise BadRequestError(
            f"{name} is a number between {low:g} and {high:g}, got {_short(value)}", argument=name
        )
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
