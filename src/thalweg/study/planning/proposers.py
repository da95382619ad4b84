"""Proposers: which settings a contestant tries next, given the losses of those before.

Each is called with the contestant, the settings that it tried and their losses, how many settings are left of
its budget, and a seed; it returns at least one setting, and at most as many as are left.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from thalweg.errors import nearest
from thalweg.study.contestant import Contestant, Range, rounded
from thalweg.study.errors import StudyError

# Hyperparameters other than the defaults, by name; and a setting with its loss.
Point: TypeAlias = dict[str, float]
Tried: TypeAlias = tuple[Point, float]

Proposer: TypeAlias = Callable[[Contestant, Sequence[Tried], int, int], list[Point]]

HALF_DECADE = math.sqrt(10)

# In decades: steps of the learning rate below this are not halved, for seeds differ by more.
FINE = 0.2

# How many settings Optuna proposes at a time.
BATCH = 4


def get(name: str) -> Proposer:
    """A proposer: "grid" or "optuna".

    Raises:
        StudyError: there is none of that name, or Optuna is not installed.
    """
    if name not in PROPOSERS:
        raise StudyError(f"no proposer is named {name!r}; {nearest(name, PROPOSERS)}", argument="proposer")
    if name == "optuna":
        _library()
    return PROPOSERS[name]


def grid(contestant: Contestant, tried: Sequence[Tried], left: int, seed: int) -> list[Point]:
    """Half decades of the learning rate; wider while the best lies at an end; then finer around the best.

    Where further hyperparameters are searched, scrambled Sobol points replace the finer steps.
    """
    lr, further = contestant.space["lr"], [key for key in contestant.space if key != "lr"]
    if not tried:
        if lr.values:
            return [{"lr": rate} for rate in lr.values]
        full_grid = round(2 * math.log10(lr.high / lr.low)) + 1
        share = left // 2 if further else 2 * left // 3
        count = min(max(share, min(left, 3)), full_grid)
        return [{"lr": rate} for rate in half_decades(lr, count - (count % 2 == 0))]
    best, loss = min(tried, key=lambda one: one[1])
    rates = sorted({point["lr"] for point, _ in tried})
    if not lr.values:
        down = [rounded(rates[0] / HALF_DECADE**i) for i in (1, 2)]
        up = [rounded(rates[-1] * HALF_DECADE**i) for i in (1, 2)]
        if len(rates) == 1:
            return [{"lr": rate} for rate in (down[0], up[0])][:left]
        if not math.isfinite(loss) or best["lr"] == rates[0]:
            return [{"lr": rate} for rate in down][:left]
        if best["lr"] == rates[-1]:
            return [{"lr": rate} for rate in up][:left]
    if further:
        return _sobol(contestant, tried, left, best["lr"], seed)
    return [{"lr": rate} for rate in _between(rates, best["lr"])][:left]


def half_decades(lr: Range, count: int) -> list[float]:
    """Learning rates in half-decade steps around the middle of a range."""
    middle = math.sqrt(lr.low * lr.high)
    return [rounded(middle * HALF_DECADE ** (i - (count - 1) / 2)) for i in range(count)]


def _between(rates: Sequence[float], best: float) -> list[float]:
    """Two more rates, halving the steps beside the best while these are wide, then the widest nearby."""

    def priority(step: tuple[float, float]) -> tuple[bool, float, float]:
        width = round(math.log10(step[1] / step[0]), 2)
        beside = best in step and width > FINE
        return not beside, -width, abs(math.log10(step[0] * step[1] / best**2))

    steps = sorted(pairwise(rates), key=priority)
    return [rounded(math.sqrt(low * high)) for low, high in steps[:2]]


def _sobol(contestant: Contestant, tried: Sequence[Tried], left: int, rate: float, seed: int) -> list[Point]:
    """Settings spread evenly over the further hyperparameters, and half a decade around the best rate."""
    from scipy.stats import qmc

    around = Range(rate / HALF_DECADE, rate * HALF_DECADE)
    space = {key: around if key == "lr" and not one.values else one for key, one in contestant.space.items()}
    # More points than needed: lists of few values repeat, and what was tried is not tried again.
    points = qmc.Sobol(len(space), rng=np.random.default_rng(seed)).random_base2(
        math.ceil(math.log2(16 * left + 16))
    )
    seen = [dict(point) for point, _ in tried]
    chosen: list[Point] = []
    for shares in points:
        point = {key: one.at(float(u)) for (key, one), u in zip(space.items(), shares, strict=True)}
        if point not in seen and len(chosen) < left:
            seen.append(point)
            chosen.append(point)
    return chosen


def optuna(contestant: Contestant, tried: Sequence[Tried], left: int, seed: int) -> list[Point]:
    """The next settings by Optuna, whose study is repeated each time, with the losses so far."""
    library = _library()
    library.logging.set_verbosity(library.logging.WARNING)
    study = library.create_study(sampler=library.samplers.TPESampler(seed=seed))
    kinds = library.distributions
    space = {
        key: kinds.CategoricalDistribution(one.values)
        if one.values
        else kinds.FloatDistribution(*_ends(one), log=one.scale != "linear")
        for key, one in contestant.space.items()
    }
    losses = [loss for _, loss in tried]
    while True:
        trials = [study.ask(space) for _ in range(min(BATCH, left + len(losses)))]
        if not losses:
            return [
                {k: _decoded(contestant.space[k], v) for k, v in trial.params.items()} for trial in trials
            ]
        for trial, loss in zip(trials, losses, strict=False):
            study.tell(trial, loss)
        losses = losses[len(trials) :]


def _library() -> Any:
    try:
        import optuna as library
    except ImportError:
        raise StudyError("the proposer optuna is not installed: pip install optuna") from None
    return library


def _ends(one: Range) -> tuple[float, float]:
    return (1 - one.high, 1 - one.low) if one.scale == "complement" else (one.low, one.high)


def _decoded(one: Range, value: float) -> float:
    return 1 - rounded(value) if one.scale == "complement" else value if one.values else rounded(value)


PROPOSERS: dict[str, Proposer] = {"grid": grid, "optuna": optuna}
