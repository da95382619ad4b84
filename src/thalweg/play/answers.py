"""What the playground answers: from a checked question to plain data.

Series of numbers are float32, little-endian, in base64: a tenth of the time that digits take.
"""

import base64
import csv
import io
from pathlib import Path as File
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.play import facts
from thalweg.play.question import Question, drawable
from thalweg.program.printing import UNICODE, parameter_after, unicode_name
from thalweg.program.tracing import Program, trace
from thalweg.rule import Rule
from thalweg.surfaces.formulas import Formula
from thalweg.surfaces.functions import Surface
from thalweg.surfaces.paths import Path
from thalweg.surfaces.race import tune
from thalweg.surfaces.solvers import Solver

__all__ = ["animation", "code", "grid", "paths", "table", "tuned"]

Array: TypeAlias = NDArray[np.float64]

# Points along each side of a picture, and along a curve.
_SIDE, _CURVE = 121, 401


def packed(numbers: ArrayLike) -> str:
    """Numbers as the page takes them."""
    with np.errstate(all="ignore"):
        return base64.b64encode(np.asarray(numbers, "<f4").tobytes()).decode()


def paths(question: Question) -> dict[str, Any]:
    """Each optimizer's path: its points, values and state, and what its formulas come to at each step."""
    return {
        "surface": facts.of_surface(question.surface),
        "start": question.start,
        "paths": [{"label": e.label, **_described(question.follow(e))} for e in question.entrants],
    }


def _described(found: Path) -> dict[str, Any]:
    formulas, series = _formulas(found)
    diverged = int(found.diverged_at)
    return {
        "steps": found.steps,
        "diverged": None if diverged < 0 else diverged,
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
    came = found.intermediates
    lines, step = program.formulas_of(found.method)
    texts, places = program.unicode(found.method).splitlines(), _places(program, found.method)
    formulas: list[dict[str, str]] = []
    for line, text in zip(lines, texts, strict=False):
        name = line.name.removesuffix("_new")
        rows = _later(came[line.name])
        if name in found.state:
            rows[0] = _as_rows(found.state[name])[0]
        series[name] = (text.partition("=")[0].strip().replace("ₜ", ""), rows)
        formulas.append({"text": text.strip(), "numbers": UNICODE.write(line.value, places), "series": name})
    for name, numbers in found.state.items():  # a slot whose next value is another slot's
        series.setdefault(name, (unicode_name(name, ""), _as_rows(numbers)))
    moved = UNICODE.write(parameter_after(step), places)
    formulas.append({"text": texts[-1].strip(), "numbers": moved, "series": "points"})
    return formulas, {**series, "effective": ("|Δθ|/|g|", effective)}


def _places(program: Program, rule: Rule) -> dict[str, str]:
    """What stands for each symbol of a formula: a number, or ⟦series|row⟧, row 1 being the step's own."""
    places = {"t": "⟦t⟧", "g": "⟦gradient|0⟧", "p": "⟦points|0⟧"}
    places |= {slot: f"⟦{slot}|0⟧" for slot in (*program.slots, *program.scalar_slots)}
    places |= {name: f"{value:.4g}".replace("-", "−") for name, value in rule.values.items()}
    return places | {line.name: f"⟦{line.name.removesuffix('_new')}|1⟧" for line in program.formulas}


def _as_rows(numbers: Array) -> Array:
    return numbers if numbers.ndim == 2 else numbers[:, None]


def _later(numbers: Array) -> Array:
    """One row more, before the first: nothing has happened yet."""
    return np.concatenate([np.full((1, numbers.shape[1]), np.nan), numbers])


def grid(surface: Surface) -> dict[str, Any]:
    """The surface's values over its window: rows are y, columns x."""
    side = _CURVE if surface.dimensions == 1 else _SIDE
    return {**facts.of_surface(surface), "side": side, "values": packed(surface.value(surface.grid(side)))}


def tuned(question: Question) -> list[dict[str, Any]]:
    """For each optimizer the learning rate that suits it, all searched with one budget."""
    answers: list[dict[str, Any]] = []
    for entrant in question.entrants:
        rule = entrant.method
        if isinstance(rule, Solver) or "lr" not in rule.values:
            answers.append({"label": entrant.label, "lr": None, "steps": None, "how": ""})
            continue
        found = tune(
            question.surface,
            rule,
            start=question.start,
            steps=question.steps,
            seed=question.seed,
            noise=question.noise,
        )
        answers.append(
            {"label": entrant.label, "lr": found.lr, "steps": found.steps_to_target, "how": found.how}
        )
    return answers


def code(question: Question) -> str:
    """Python that takes the same paths and draws them."""
    surface = question.surface
    formula = surface.function
    named = surface.name in drawable()
    made = f"surfaces.get({surface.name!r})"
    if not named and isinstance(formula, Formula):
        made = f"surfaces.parse({formula.text!r}, window={surface.window!r})"
    rules = any(isinstance(e.method, Rule) for e in question.entrants)
    noisy = bool(question.noise) and rules
    lines = ["import thalweg"] if rules else []
    lines += ["from thalweg import plot, surfaces", "from thalweg.surfaces.paths import path"]
    lines += ["from thalweg.surfaces import Noise"] if noisy else []
    lines += ["", f"surface = {made}", f"start, steps = {question.start!r}, {question.steps}"]
    if noisy:
        arguments = f"deviation={question.noise.deviation!r}"
        arguments += f", frequencies={question.noise.frequencies!r}" if question.noise.frequencies else ""
        lines.append(f"noise, seed = Noise({arguments}), {question.seed}")
    lines.append("paths = {")
    for e in question.entrants:
        more = ", seed=seed, noise=noise" if noisy and isinstance(e.method, Rule) else ""
        lines.append(f"    {e.label!r}: path(surface, {e.code}, start, steps{more}),")
    return "\n".join([*lines, *_DRAWN]) + "\n"


_DRAWN = (
    "}",
    "for label, found in paths.items():",
    '    print(f"{label}: {found.values[-1]:.6g} after {found.steps} steps")',
    'plot.save(plot.race(paths), "paths.png")',
)


def animation(question: Question) -> bytes:
    """The paths as a GIF.

    Raises:
        ImportError: matplotlib is not there.
    """
    from thalweg import plot

    with TemporaryDirectory() as folder:
        file = File(folder, "paths.gif")
        plot.animate({e.label: question.follow(e) for e in question.entrants}, file, dpi=80)
        return file.read_bytes()


def table(question: Question) -> str:
    """Every step of every optimizer as CSV; empty where an optimizer has no such state."""
    ways = [(e.label, question.follow(e)) for e in question.entrants]
    variables = ("x", "y")[: question.surface.dimensions]
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
