"""Which rule, in which dialect, a recorded trajectory follows.

A recording is an .npz file that holds, step by step, a parameter and the gradient it was updated with:

    params   (steps + 1, …): before each step, and after the last; without the last, (steps, …)
    grads    (steps, …): what each step was taken with
    lr       the learning rate, where it is known: a number, or (steps,)

or, for several parameters, `params/NAME` and `grads/NAME` for each. The first step must be the
optimizer's first, and no step may be missing.

Each candidate predicts every step from the recorded parameters and gradients before it, so errors do
not add up. A learning rate that is neither given nor recorded is fitted to each by least squares: at
once where steps are proportional to it, by repetition where not (Adan with weight decay).
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.eager import Driver, as_traced, numpy_functions
from thalweg.errors import UnknownHyperparameterError, nearest
from thalweg.explain.page import dialects_of
from thalweg.hyperparameters import SYNONYMS, fold
from thalweg.program.tracing import trace
from thalweg.registry import find, get
from thalweg.registry import rules as registered
from thalweg.rule import Rule
from thalweg.untrusted import blamed, npz, opened

__all__ = ["Candidate", "Recording", "candidates", "conclusion", "from_arrays", "read", "table"]

Floats = NDArray[np.float64]

LEAST = 3  # steps: in fewer, too many rules look alike
_GIVEN = "yours"  # stands for a dialect where a rule object was given


@dataclass(frozen=True)
class Recording:
    """Parameters and gradients step by step, in float64.

    Attributes:
        params: each parameter: (steps + 1, entries).
        grads: each gradient: (steps, entries).
        lr: the learning rate of each step, (steps,); None where it is not known.
        dtype: the precision that the numbers had when they were recorded.
    """

    params: dict[str, Floats]
    grads: dict[str, Floats]
    lr: Floats | None
    dtype: str

    @property
    def steps(self) -> int:
        """How many steps can be checked."""
        return len(next(iter(self.grads.values())))

    @property
    def rounding(self) -> float:
        """The distance of 1 from the next larger number of the dtype."""
        return float(np.finfo(self.dtype).eps)


@dataclass(frozen=True)
class Candidate:
    """A rule held against a recording.

    Attributes:
        rule: the rule, with the learning rate that was given or found.
        dialects: the dialects that mean it.
        deviation: the largest over the steps of the distance between the predicted and the recorded
            step, beyond what storing the parameter rounds away, relative to the longer of the two.
        step: where that was, from 1.
        follows: whether rounding in the recorded dtype accounts for the deviation at every step.
    """

    rule: Rule
    dialects: tuple[str, ...]
    deviation: float
    step: int
    follows: bool

    def __str__(self) -> str:
        return f"{self.rule.name} ({', '.join(self.dialects)})"


def read(path: str | os.PathLike[str]) -> Recording:
    """The recording in an .npz file.

    Raises:
        ValueError: the file is no recording; the message says what is missing or wrong.
        OSError: it cannot be read.
    """
    path = Path(path)
    with opened(path, "an .npz file of numbers, such as np.savez writes") as file:
        arrays = npz(file)
    with blamed(path):
        return from_arrays(arrays)


def from_arrays(arrays: Mapping[str, Any]) -> Recording:
    """A recording from arrays by the names that a file has: `from_arrays({"params": …, "grads": …})`.

    Raises:
        ValueError: an array is missing, or of the wrong shape or type, or not finite; or there are
            fewer than three steps.
    """
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    found = {what: _named(arrays, what) for what in ("params", "grads")}
    if not found["params"] or found["params"].keys() != found["grads"].keys():
        lacking = found["params"].keys() ^ found["grads"].keys()
        missing = [_key(w, n) for n in sorted(lacking) for w in found if n not in found[w]] or [
            "params",
            "grads",
        ]
        raise ValueError(
            f"a recording has params and grads, or params/NAME and grads/NAME for each parameter; "
            f"{' and '.join(missing)} missing, found: {', '.join(sorted(arrays)) or 'nothing'}"
        )
    length = {len(g) if g.ndim else 0 for g in found["grads"].values()}
    for name, p in found["params"].items():
        _check(name, p, found["grads"][name], length)
    recorded = [a for kind in found.values() for a in kind.values()]
    steps = min(len(p) - 1 for p in found["params"].values())
    if steps < LEAST:
        raise ValueError(f"{max(steps, 0)} steps can be checked; it takes {LEAST} at least")
    lr = _rates(arrays["lr"], length.pop())[:steps] if "lr" in arrays else None
    params = {n: p[: steps + 1].astype(np.float64).reshape(steps + 1, -1) for n, p in found["params"].items()}
    if all((p == p[0]).all() for p in params.values()):
        raise ValueError("the parameters never change, so there is nothing to recognise")
    grads = {n: g[:steps].astype(np.float64).reshape(steps, -1) for n, g in found["grads"].items()}
    return Recording(params, grads, lr, max(map(_precision, recorded), key=lambda name: np.finfo(name).eps))


def candidates(
    recording: Recording, rules: Iterable[str | Rule] | None = None, **values: Any
) -> list[Candidate]:
    """Every rule and dialect held against a recording, best first; equal forms are one candidate.

    Args:
        recording: from `read` or `from_arrays`.
        rules: names of rules, by default all that are registered; or rules, which are held as they are.
        values: hyperparameters that are known; rules that have none of such a name are left out. The
            others are the dialect's defaults, the learning rate as above.

    Raises:
        UnknownRuleError: a name that is none.
        TypeError, ValueError: a value of the wrong type or outside its range, or of a name that no rule has.
    """
    recorded = recording.lr
    free = not any(SYNONYMS.get(fold(name), name) == "lr" for name in values)
    if free and recorded is not None:
        values["lr"], free = lambda t: float(recorded[t - 1]), False
    equal: dict[Any, tuple[Rule, bool, list[str]]] = {}
    for dialect, rule in _forms(registered() if rules is None else rules, values):
        fitted = free and dialect != _GIVEN and "lr" in rule.values
        form = rule.replaced(lr=1.0) if fitted else rule
        equal.setdefault((f"{trace(form)} {form.values}", fitted), (form, fitted, []))[2].append(dialect)
    found = [_hold(rule, fitted, dialects, recording) for rule, fitted, dialects in equal.values()]
    return sorted(found, key=lambda candidate: (not candidate.follows, candidate.deviation))


def table(found: Sequence[Candidate]) -> str:
    """The candidates as lines of text, best first."""
    rows = [("rule", "dialects", "lr", "deviation", "at step")]
    for c in found:
        lr = c.rule.values.get("lr")
        rows.append(
            (
                c.rule.name,
                ", ".join(c.dialects),
                "–" if lr is None else "recorded" if callable(lr) else f"{lr:.6g}",
                "–" if np.isinf(c.deviation) else f"{c.deviation:.1e}" if c.deviation else "0",
                str(c.step),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def conclusion(found: Sequence[Candidate], recording: Recording) -> str:
    """One careful sentence: what the recording follows, if anything that was tried."""
    following = [c for c in found if c.follows]
    if not following:
        best = found[0]
        return (
            f"None of these is followed: the nearest, {best}, deviates by {best.deviation:.1e} at step "
            f"{best.step}. Other hyperparameters, a learning rate that changes, clipped gradients, weight "
            "decay, or a recording that begins later than the optimizer would look so too."
        )
    if len(following) > 1:
        names = "; ".join(map(str, following))
        return f"Several are indistinguishable here, all within the rounding of {recording.dtype}: {names}."
    (only,) = following
    values = ", ".join(
        f"{name} = {'as recorded' if callable(value) else f'{value:.6g}'}"
        for name, value in only.rule.values.items()
    )
    return f"It follows {only} with {values}: what remains is within the rounding of {recording.dtype}."


def _named(arrays: Mapping[str, NDArray[Any]], what: str) -> dict[str, NDArray[Any]]:
    return {
        key.removeprefix(what).removeprefix("/"): array
        for key, array in arrays.items()
        if key == what or key.startswith(f"{what}/")
    }


def _key(what: str, name: str) -> str:
    return f"{what}/{name}" if name else what


def _check(name: str, p: NDArray[Any], g: NDArray[Any], lengths: set[int]) -> None:
    params, grads = _key("params", name), _key("grads", name)
    for key, array in ((params, p), (grads, g)):
        if array.dtype.name not in ("float16", "float32", "float64"):
            raise ValueError(f"{key} is {array.dtype}; a recording is float16, float32 or float64")
        if not array.ndim:
            raise ValueError(f"{key} is one number; its first axis must count the steps")
        bad = ~np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
        if bad.any():
            raise ValueError(f"{key} is NaN or infinite at step {int(bad.argmax()) + 1}")
    if p.shape[1:] != g.shape[1:]:
        raise ValueError(f"a row of {params} has shape {p.shape[1:]}, one of {grads} {g.shape[1:]}")
    if len(lengths) > 1:
        raise ValueError(f"the gradients have different numbers of steps: {sorted(lengths)}")
    if len(p) - len(g) not in (0, 1):
        raise ValueError(
            f"{params} has {len(p)} rows and {grads} {len(g)}: a recording of {len(g)} steps has "
            f"{len(g) + 1} parameters, before each step and after the last (or {len(g)}, without the last)"
        )


def _rates(lr: NDArray[Any], steps: int) -> Floats:
    if lr.shape not in ((), (steps,)):
        raise ValueError(f"lr has shape {lr.shape}; it is one number or one for each of the {steps} steps")
    if lr.dtype.kind not in "fiu" or not np.isfinite(lr).all():
        raise ValueError("lr must be numbers, and finite")
    return np.broadcast_to(lr.astype(np.float64), (steps,))


def _precision(array: NDArray[Any]) -> str:
    """The dtype; float32 where float64 only holds what was float32."""
    with np.errstate(over="ignore"):
        single = array.dtype == np.float64 and bool((array.astype(np.float32) == array).all())
    return "float32" if single else array.dtype.name


def _forms(rules: Iterable[str | Rule], values: Mapping[str, Any]) -> list[tuple[str, Rule]]:
    """Every rule to try, under the name of its dialect."""
    forms: list[tuple[str, Rule]] = []
    refused: list[UnknownHyperparameterError] = []
    for rule in rules:
        if isinstance(rule, Rule):
            forms.append((_GIVEN, rule))
            continue
        try:
            forms += [(name, get(rule, dialect=name, **values)) for name in dialects_of(find(rule))]
        except UnknownHyperparameterError as error:
            refused.append(error)
    if not forms:
        raise (
            refused[0]
            if len(refused) == 1
            else ValueError(_why_none(values) if refused else "no rule is named")
        )
    return forms


def _why_none(values: Mapping[str, Any]) -> str:
    known = sorted({field.name for name in registered() for field in fields(find(name))})
    for name in values:
        if fold(name) not in {*map(fold, known), *SYNONYMS}:
            return f"no rule has a hyperparameter {name!r}; {nearest(name, known)}"
    return f"no rule has all of {', '.join(values)}; `thalweg explain RULE` shows what a rule has"


def _hold(rule: Rule, fitted: bool, dialects: Sequence[str], recording: Recording) -> Candidate:
    """The candidate that a rule is, at the learning rate that fits best or its own."""
    rounding = recording.rounding
    moved = _flat({name: p[:-1] - p[1:] for name, p in recording.params.items()})
    largest = _flat({n: np.maximum(np.abs(p[:-1]), np.abs(p[1:])) for n, p in recording.params.items()})
    with np.errstate(all="ignore"):
        rule, steps = _fitted(rule, recording, moved) if fitted else (rule, _steps(rule, recording))
        size = np.maximum(np.linalg.norm(moved, axis=1), np.linalg.norm(steps, axis=1))
        beyond = np.linalg.norm(np.maximum(np.abs(moved - steps) - rounding * largest, 0), axis=1)
        deviation = np.where(beyond == 0, 0, beyond / size)
        # How far the fitted rate may be off, as parameters are known to a rounding only.
        doubt = rounding * np.sqrt(np.sum((largest * steps) ** 2)) / np.sum(steps**2) if fitted else 0
    # Some frameworks compute 1 − βᵗ in the recorded dtype, from a β that is rounded to it.
    t = np.arange(1, recording.steps + 1)
    tolerance = np.full(recording.steps, 100 * rounding + 2 * doubt)
    for name, beta in rule.values_at(1).items():
        if rule.hyperparameters[name].complement and 0 < beta < 1:
            off = abs(float(np.dtype(recording.dtype).type(beta)) - beta)
            tolerance += (t * beta ** (t - 1) * off + rounding) / (1 - beta**t)
    tolerance = np.minimum(tolerance, 0.05)
    deviation = np.where(np.isnan(deviation), np.inf, deviation)
    worst = int(np.argmax(deviation))
    follows = bool((deviation <= tolerance).all())
    return Candidate(rule, tuple(dialects), float(deviation[worst]), worst + 1, follows)


def _fitted(rule: Rule, recording: Recording, moved: Floats) -> tuple[Rule, Floats]:
    """The rule at the learning rate that fits best, and its steps."""
    steps = _steps(rule, recording)
    for _ in range(20):  # one is enough where the step is proportional to lr
        ratio = float(np.vdot(moved, steps) / np.vdot(steps, steps))
        lr = ratio * rule.values["lr"]
        if not (np.isfinite(lr) and lr >= 0):  # uphill, or not a number: no step is the best it can do
            lr = 0.0
        rule = rule.replaced(lr=lr)
        steps = _steps(rule, recording)
        if lr == 0 or abs(ratio - 1) < 1e-14:
            break
    return rule, steps


def _steps(rule: Rule, recording: Recording) -> Floats:
    """Each step that the rule would have taken, had it been where the recording was: (steps, entries)."""
    driver = Driver(rule, len(recording.params), step=as_traced(rule, numpy_functions()))
    steps = {name: np.empty_like(g) for name, g in recording.grads.items()}
    for t in range(recording.steps):
        params, grads = ([x[t] for x in kind.values()] for kind in (recording.params, recording.grads))
        for taken, step in zip(steps.values(), driver.steps(params, grads), strict=True):
            taken[t] = step
    return _flat(steps)


def _flat(arrays: Mapping[str, Floats]) -> Floats:
    return np.concatenate([*arrays.values()], axis=1)
