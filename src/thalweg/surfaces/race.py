"""A fair race: each rule with the learning rate that suits it, found with an equal budget.

tune("beale", Adam()).rule
compete("beale", ["sgd", "adam", "l_bfgs"]).paths
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.rule import Rule, is_flag
from thalweg.surfaces.functions import Noise, Surface
from thalweg.surfaces.paths import Path, is_lost, named_method, named_surface, path, paths
from thalweg.surfaces.solvers import Solver

__all__ = ["Goal", "Race", "Tuned", "compete", "described", "labelled", "tune"]

Array: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

# How much of the way down may be left on arrival.
SHARE = 1e-3

# A step longer than this share of the window's diagonal leaps: where it lands is chance, not descent. From a
# saddle the fall has no end, and the longest step would always win: there the speed is limited for all.
LEAP, LEAP_OFF_SADDLE = 0.25, 0.05

# Of the noise, for each learning rate that is tried.
SEEDS = 9

# A best learning rate at the end of its range widens it by a decade, at most so often.
_WIDENED = 3


@dataclass(frozen=True)
class Goal:
    """What counts as having arrived on a surface.

    Attributes:
        value: to come down to it is to have arrived.
        stays: whether to be above it again is not to have arrived.
        leap: the longest step, as a share of the window's diagonal.
        sentence: it in words, such as "to be within 0.1 % of the way down".
    """

    value: float
    stays: bool
    leap: float
    sentence: str

    @classmethod
    def of(cls, surface: Surface | str, start: ArrayLike | None = None) -> "Goal":
        """That of a descent from a start: near the lowest value known, or below a saddle.

        A surface with neither minima nor saddles known has the lowest value of its window.
        """
        surface = named_surface(surface)
        high = float(surface.value(surface.start if start is None else start))
        if not surface.minima and surface.saddles:
            level = float(surface.value(surface.saddles).min())
            fall = (
                f"to fall below the saddle, none longer than {LEAP_OFF_SADDLE:.0%} of the window's diagonal"
            )
            return cls(level - SHARE * abs(high - level), False, LEAP_OFF_SADDLE, fall)
        lowest = surface.lowest if surface.minima else _lowest_seen(surface)
        near = f"to stay within {SHARE:.1%} of the way down"
        return cls(lowest + SHARE * (high - lowest), True, LEAP, near)

    def steps(self, values: Array, spoiled: Mask) -> NDArray[np.int64]:
        """After how many steps paths arrived (…), −1 where they did not or were spoiled before.

        Args:
            values: (steps + 1, …).
            spoiled: whether a path does at that point what disqualifies it: likewise.
        """
        there = values <= self.value  # NaN is not
        if self.stays:
            there = np.logical_and.accumulate(there[::-1])[::-1]
        arrived, early = (np.where(x.any(axis=0), x.argmax(axis=0), len(x)) for x in (there, spoiled))
        return np.where(arrived < early, arrived, -1)


@dataclass(frozen=True)
class Tuned:
    """A rule with the learning rate found for it.

    Attributes:
        rule: with that learning rate.
        lr: the learning rate; NaN where a schedule gives it.
        steps_to_target: after how many steps it arrived, the median over the noise; None: it did not.
        how: a sentence on how it was found.
    """

    rule: Rule
    lr: float
    steps_to_target: int | None
    how: str


def tune(
    surface: Surface | str,
    rule: Rule | str,
    *,
    start: ArrayLike | None = None,
    steps: int = 100,
    trials: int = 61,
    seed: int = 0,
    noise: Noise | float | None = None,
) -> Tuned:
    """Find the learning rate with which a rule arrives soonest, or else gets lowest.

    As many values are tried for every rule, evenly by logarithm over the search range of its `lr`; where the
    best lies at an end, as many over a range wider by a decade. A path that leaps or is lost is never
    the best.

    Args:
        surface: a surface, the name of one, or a formula such as "x**2/20 + y**2".
        rule: a rule, or the name of one. One whose learning rate follows a schedule is left as it is.
        start: where to begin, (n,); the surface's own start by default.
        steps: how many steps each trial has.
        trials: how many learning rates are tried.
        seed: the first of the noise's, where there is noise.
        noise: as in `path`.

    Raises:
        UnknownSurfaceError, UnknownRuleError: no surface or rule has the name.
        ValueError: fewer than three trials, or what `path` refuses.
    """
    surface, chosen = named_surface(surface), named_method(rule)
    if not isinstance(chosen, Rule):
        raise TypeError(f"{chosen.name} is a solver: it finds the length of its steps by itself")
    if trials < 3:
        raise ValueError(f"a search takes three trials or more, got {trials!r}")
    goal = Goal.of(surface, start)
    seeds = np.arange(seed, seed + SEEDS) if _noisy(surface, noise) else np.array([seed])

    def race(lr: Any) -> tuple[NDArray[np.int64], Array]:
        return _results(surface, chosen, goal, lr, starts=start, steps=steps, seed=seeds, noise=noise)

    if callable(chosen.values.get("lr", race)):
        arrived, _ = race(np.empty(0))
        return Tuned(chosen, float("nan"), _count(arrived[0]), "its learning rate is as given")
    searched, (rates, arrived, best) = _search(chosen, trials, race)
    lr = float(rates[best])
    how = (
        f"the best of {trials} learning rates from {searched[0]:g} to {searched[1]:g}: the fewest steps "
        f"{goal.sentence}" + ("" if arrived[best] >= 0 else ", or, as none does, the lowest end")
    )
    return Tuned(chosen.replaced(lr=lr), lr, _count(arrived[best]), how)


def _search(
    rule: Rule, trials: int, race: Callable[[Array], tuple[NDArray[np.int64], Array]]
) -> tuple[tuple[float, float], tuple[Array, NDArray[np.int64], int]]:
    """The range searched; the learning rates, when each arrived, and the index of the best."""
    low, high = rule.hyperparameters["lr"].search or (1e-4, 1.0)
    for _ in range(_WIDENED + 1):
        # Three digits: what is printed is what was used.
        rates = np.array([float(f"{lr:.3g}") for lr in np.geomspace(low, high, trials)])
        arrived, ends = race(rates)
        when = np.where(arrived < 0, np.iinfo(np.int64).max, arrived)
        best = int(np.lexsort((ends, when))[0])
        searched = low, high
        if best == 0:
            low /= 10
        elif best == trials - 1:
            high *= 10
        else:
            break
    return searched, (rates, arrived, best)


def _results(
    surface: Surface, rule: Rule, goal: Goal, lr: Array, **options: Any
) -> tuple[NDArray[np.int64], Array]:
    """For each learning rate, or for the rule as it is: when it arrived, and the value at the end."""
    given: Any = {"lr": lr[:, None]} if lr.size else {}
    run = paths(surface, rule, **options, **given)
    lost = is_lost(surface, np.moveaxis(run.points, -1, 0), np.moveaxis(run.gradients, -1, 0))
    with np.errstate(all="ignore"):
        lost[1:] |= np.linalg.norm(run.moves, axis=-1) > goal.leap * surface.diagonal
    shape = (run.steps + 1, max(1, lr.size), -1)
    values, spoiled = run.values.reshape(shape), np.asarray(lost.reshape(shape).any(axis=-1))
    with np.errstate(all="ignore"):
        middle = np.median(values, axis=-1)
        # Noise makes the last value one of chance: the last tenth's mean is less so.
        tail = len(middle) // 10 if values.shape[-1] > 1 else 1
        ends = middle[-max(1, tail) :].mean(axis=0)
    if not goal.stays:
        spoiled |= middle > middle[0] + 1e-9 * np.abs(middle[0])
    return goal.steps(middle, spoiled), np.where(spoiled.any(axis=0) | np.isnan(ends), np.inf, ends)


@dataclass(frozen=True)
class Race:
    """Several methods gone down one surface from one start.

    Attributes:
        paths: by label.
        how: how the learning rates were chosen, a sentence.
    """

    paths: Mapping[str, Path]
    how: str

    @property
    def surface(self) -> Surface:
        """What they went down."""
        return next(iter(self.paths.values())).surface

    @property
    def goal(self) -> Goal:
        """What counts as having arrived."""
        return Goal.of(self.surface, next(iter(self.paths.values())).points[0])

    @property
    def arrivals(self) -> Mapping[str, int | None]:
        """After how many steps each arrived, as `Goal` has it; None: it did not."""
        found: dict[str, int | None] = {}
        for label, one in self.paths.items():
            lost = is_lost(self.surface, np.moveaxis(one.points, -1, 0), np.moveaxis(one.gradients, -1, 0))
            found[label] = _count(self.goal.steps(one.values[:, None], lost[:, None])[0])
        return found

    @property
    def caption(self) -> str:
        """The surface, the start, the settings, and how these were chosen."""
        return described(self.paths, self.how)


def compete(
    surface: Surface | str,
    methods: Sequence[Rule | Solver | str],
    *,
    lr: float | None = None,
    start: ArrayLike | None = None,
    steps: int = 100,
    trials: int = 61,
    seed: int = 0,
    noise: Noise | float | None = None,
) -> Race:
    """Let rules and solvers go down a surface from one start, each rule with a learning rate tuned there.

    Args:
        surface: a surface, the name of one, or a formula such as "x**2/20 + y**2".
        methods: rules and solvers, or their names.
        lr: the learning rate of every rule, instead of a tuned one.
        start: as in `path`, like `steps`, `seed` and `noise`.
        steps: how many steps a rule takes, and at most how many iterations a solver.
        trials: how many learning rates are tried for each rule.
        seed: of the noise.
        noise: of the gradients that rules see.

    Raises:
        UnknownSurfaceError, UnknownRuleError: no surface, rule or solver has the name.
        ValueError: no method, or what `path` and `tune` refuse.
    """
    surface, chosen = named_surface(surface), [named_method(method) for method in methods]
    if not chosen:
        raise ValueError("a race takes one method or more")
    if noise is not None:  # kept with the surface, so that paths know of it
        surface = replace(surface, noise=noise if isinstance(noise, Noise) else Noise(float(noise)))
    options: dict[str, Any] = {"start": start, "steps": steps, "seed": seed}
    run: list[Path] = []
    for method in chosen:
        if isinstance(method, Solver):
            run.append(path(surface, method, start, steps))
            continue
        scheduled = callable(method.values.get("lr"))
        if lr is not None and not scheduled:
            method = method.replaced(lr=lr)
        elif not scheduled:
            method = tune(surface, method, trials=trials, **options).rule
        run.append(path(surface, method, **options))
    if lr is not None:
        how = f"The learning rate is {lr:g} for all, as asked for."
    else:
        how = (
            f"Each learning rate is tuned: of {trials} values, evenly by logarithm over its search range, "
            f"the one with the fewest steps {Goal.of(surface, start).sentence}, or else with the lowest end."
        )
    return Race(labelled(run), how)


def labelled(run: Sequence[Path]) -> dict[str, Path]:
    """Paths by the name of what went, with the learning rate or a number where one name comes twice."""
    names = [p.method.title if isinstance(p.method, Solver) else _title(p.method) for p in run]
    often = Counter(names)
    found: dict[str, Path] = {}
    for name, one in zip(names, run, strict=True):
        label = name
        if often[name] > 1 and isinstance(one.method, Rule) and "lr" in one.method.values:
            label = f"{name}, lr {written(one.method.values['lr'])}"
        n = 2
        while label in found:
            label, n = f"{name} ({n})", n + 1
        found[label] = one
    return found


def described(run: Mapping[str, Path], how: str = "") -> str:
    """The surface, the start and the settings of paths, in sentences."""
    first = next(iter(run.values()))
    surface, steps = first.surface, sorted({p.steps for p in run.values() if isinstance(p.method, Rule)})
    starts = list(dict.fromkeys(point(p.points[0]) for p in run.values()))
    name = surface.title if surface.name == "parsed" else f"{surface.title}: {surface.unicode()}"
    settings = "; ".join(dict.fromkeys(code(p.method) for p in run.values()))
    noise = f" Noise of deviation {surface.noise.deviation:g}." if surface.noise.deviation else ""
    taken = f", {' and '.join(map(str, steps))} step{'s' * (steps != [1])}" if steps else ""
    return f"{name}, from {' and '.join(starts)}{taken}.{noise} {settings}. {how}".strip()


def code(method: Rule | Solver) -> str:
    """A method as one would write it, with every setting: Adam(lr=0.1, beta_1=0.9, …)."""
    if isinstance(method, Solver):
        return method.title
    flags = [f.name for f in fields(method) if is_flag(f) and getattr(method, f.name)]
    settings = [f"{name}={written(value)}" for name, value in method.values.items()]
    return f"{_title(method)}({', '.join([*settings, *(f'{flag}=True' for flag in flags)])})"


def written(value: Any) -> str:
    """A hyperparameter's value in a caption."""
    return repr(value) if callable(value) else f"{float(value):g}"


def point(at: ArrayLike) -> str:
    """A point in a caption."""
    entries = [f"{x:g}".replace("-", "−") for x in np.atleast_1d(at)]
    return f"({', '.join(entries if len(entries) <= 4 else [*entries[:3], '…'])})"


def _title(rule: Rule) -> str:
    return type(rule).__name__


def _noisy(surface: Surface, noise: Noise | float | None) -> bool:
    return bool(surface.noise if noise is None else noise)


def _lowest_seen(surface: Surface) -> float:
    """The lowest value in the window, on a grid as fine as its dimensions allow."""
    count = max(3, int(40_000 ** (1 / surface.dimensions))) | 1  # odd: the centre is a point of it
    if count**surface.dimensions > 10**6:
        return float("-inf")
    values = surface.value(surface.grid(count))
    return float(np.min(values, initial=np.inf, where=~np.isnan(values)))


def _count(arrived: Any) -> int | None:
    return int(arrived) if arrived >= 0 else None
