"""Maps: which start ends in which minimum, which learning rate arrives how soon; and what theory says.

basins("himmelblau", "adam", steps=500)
rate_map("ravine", "momentum", lr=np.linspace(0.01, 2, 100), momentum=np.linspace(0, 0.99, 100))
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.rule import Rule
from thalweg.rules import SGD, Momentum, Nesterov
from thalweg.surfaces.functions import Noise, Surface
from thalweg.surfaces.paths import Walk, is_lost, named_method, named_surface
from thalweg.surfaces.solvers import Solver

__all__ = ["Basins", "RateMap", "Theory", "basins", "rate_map"]

Array: TypeAlias = NDArray[np.float64]
Counts: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]

# Minima gathered from the ends of paths, where a surface knows none.
_MOST = 200


@dataclass(frozen=True, eq=False)
class Basins:
    """Which start ends in which minimum; for starts of shape ….

    Attributes:
        surface: what was gone down.
        method: the rule or solver.
        starts: (…, n).
        ends: (…, n).
        minima: (m, n): those that the surface knows, else those found, lowest first.
        labels: (…): the minimum's index; −1 where the path ended elsewhere.
        diverged: (…): whether the path was lost.
    """

    surface: Surface
    method: Rule | Solver
    starts: Array
    ends: Array
    minima: Array
    labels: Counts
    diverged: Mask

    @property
    def shares(self) -> Array:
        """The share of starts that ended in each minimum: (m,)."""
        return np.array([np.mean(self.labels == i) for i in range(len(self.minima))])


def basins(
    surface: Surface | str,
    method: Rule | Solver | str,
    grid: int | ArrayLike = 100,
    steps: int = 1000,
    *,
    tolerance: float = 0.01,
    seed: int = 0,
    noise: Noise | float | None = None,
) -> Basins:
    """Follow a rule or a solver from many starts, and tell which minimum each ends in.

    Args:
        surface: a surface, the name of one, or a formula such as "x**2/20 + y**2".
        method: a rule, a solver, or the name of one. A solver goes from one start at a time.
        grid: how many starts along each side of the window, or starts (…, n).
        steps: how many steps a rule takes, and at most how many iterations a solver.
        tolerance: how near to a minimum is there, as a share of the window's diagonal.
        seed: of the noise.
        noise: as in `path`.

    Raises:
        ValueError, UnknownSurfaceError, UnknownRuleError: as in `path`.
    """
    surface, method = named_surface(surface), named_method(method)
    starts = surface.grid(grid) if isinstance(grid, int) else np.asarray(grid, np.float64)
    if isinstance(method, Rule):
        ends, lost = _ends(Walk(surface, method, starts, steps, seed, noise, {}))
    else:
        flat = [method.follow(surface, start, steps)[0][-1] for start in starts.reshape(-1, starts.shape[-1])]
        ends = np.array(flat).reshape(starts.shape)
        by_entry = np.moveaxis(ends, -1, 0)
        lost = is_lost(surface, by_entry, np.moveaxis(surface.gradient(ends), -1, 0))
    radius = tolerance * surface.diagonal
    if surface.minima:
        minima = np.array(surface.minima)
    else:
        minima = _gathered(surface, ends[~lost], starts.reshape(-1, starts.shape[-1]), radius)
    labels = np.full(lost.shape, -1)
    if len(minima):
        away = np.linalg.norm(ends[..., None, :] - minima, axis=-1)
        away[np.isnan(away)] = np.inf
        labels = np.where(away.min(axis=-1) <= radius, away.argmin(axis=-1), -1)
    return Basins(surface, method, starts, ends, minima, labels, lost)


def _ends(walk: Walk) -> tuple[Array, Mask]:
    """The last points (…, n), and whether each path was ever lost."""
    lost: Mask = np.zeros(walk.shape, np.bool_)
    with np.errstate(all="ignore"):
        for p, g, _ in walk:
            lost |= is_lost(walk.surface, p, g)
    return np.moveaxis(p, 0, -1), lost


def _gathered(surface: Surface, ends: Array, starts: Array, radius: float) -> Array:
    """The minima (m, n) among ends (k, n): where the gradient is small beside the starts', lowest first."""
    usual = np.nanmedian(np.linalg.norm(surface.gradient(starts), axis=-1))
    still = np.linalg.norm(surface.gradient(ends), axis=-1) <= 1e-3 * usual
    upward = np.linalg.eigvalsh(surface.hessian(ends[still]))[:, 0] > 0
    left = ends[still][upward]
    left = left[np.argsort(surface.value(left), kind="stable")]
    minima: list[Array] = []
    while len(left) and len(minima) < _MOST:
        minima.append(left[0])
        left = left[np.linalg.norm(left - left[0], axis=-1) > radius]
    return np.array(minima).reshape(-1, surface.dimensions)


@dataclass(frozen=True)
class Theory:
    """What is known of descents on a quadratic whose curvatures lie between two numbers.

    Polyak 1964, https://doi.org/10.1016/0041-5553(64)90137-5; Nesterov 2004, Introductory Lectures on Convex
    Optimization, sections 2.1.5 and 2.2.1. A rate is the factor by which the distance to the minimum shrinks
    in a step, in the long run.

    Attributes:
        lowest: λ_min > 0.
        highest: λ_max.
    """

    lowest: float
    highest: float

    def __post_init__(self) -> None:
        if not 0 < self.lowest <= self.highest < float("inf"):
            raise ValueError(
                f"curvatures are positive, the lowest first; got {self.lowest!r} and {self.highest!r}"
            )

    @classmethod
    def of(cls, surface: Surface | str) -> "Theory":
        """That of a quadratic surface.

        Raises:
            ValueError: it is no quadratic, or one without a minimum.
        """
        surface = named_surface(surface)
        curvatures = surface.eigenvalues
        if curvatures is None or curvatures[0] <= 0:
            raise ValueError(f"{surface.name} is no quadratic with a minimum")
        return cls(float(curvatures[0]), float(curvatures[-1]))

    @property
    def condition(self) -> float:
        """κ = λ_max / λ_min."""
        return self.highest / self.lowest

    def limit(self, momentum: ArrayLike = 0.0) -> Array:
        """The learning rate from which the heavy ball diverges, 2(1 + β)/λ_max; plain descent, 2/λ_max."""
        return np.asarray(2 * (1 + np.asarray(momentum, np.float64)) / self.highest)

    def nesterov_limit(self, momentum: ArrayLike = 0.0) -> Array:
        """The learning rate from which Nesterov's momentum diverges, 2(1 + β)/((1 + 2β) λ_max)."""
        return np.asarray(self.limit(momentum) / (1 + 2 * np.asarray(momentum, np.float64)))

    @property
    def best_lr(self) -> float:
        """The best learning rate without momentum, 2/(λ_min + λ_max)."""
        return 2 / (self.lowest + self.highest)

    @property
    def polyak(self) -> tuple[float, float]:
        """The heavy ball's best learning rate, (2/(√λ_max + √λ_min))², and momentum, ((√κ − 1)/(√κ + 1))²."""
        root = self.condition**0.5
        return (2 / (self.highest**0.5 + self.lowest**0.5)) ** 2, ((root - 1) / (root + 1)) ** 2

    @property
    def nesterov(self) -> tuple[float, float]:
        """The usual learning rate and momentum of Nesterov's method, 1/λ_max and (√κ − 1)/(√κ + 1)."""
        root = self.condition**0.5
        return 1 / self.highest, (root - 1) / (root + 1)

    def rate(self, lr: ArrayLike, momentum: ArrayLike = 0.0) -> Array:
        """The rate of the heavy ball: the larger root of z² − (1 + β − ηλ) z + β, at the worse curvature.

        Above 1 it diverges. Of all curvatures between the two, one of the two is the worst.
        """
        lr, momentum = np.asarray(lr, np.float64), np.asarray(momentum, np.float64)
        rates = []
        for curvature in (self.lowest, self.highest):
            b = np.abs(1 + momentum - lr * curvature)
            real = np.sqrt(np.maximum(b * b - 4 * momentum, 0.0))
            rates.append(np.maximum((b + real) / 2, np.sqrt(momentum)))
        return np.asarray(np.maximum(*rates))


@dataclass(frozen=True, eq=False)
class RateMap:
    """How soon a rule arrives, over one or two hyperparameters.

    Attributes:
        surface: what was gone down.
        rule: the rule.
        axes: the hyperparameters by name, 1-D each; the shape … below is (len of first, len of second).
        steps: (…): after how many steps the value stays within the target; −1 where it does not.
        diverged: (…): whether the path was lost, or ended higher than it began.
        theory: that of a quadratic with a minimum, else None.
    """

    surface: Surface
    rule: Rule
    axes: Mapping[str, Array]
    steps: Counts
    diverged: Mask
    theory: Theory | None

    @property
    def best(self) -> dict[str, float]:
        """The hyperparameters that arrive soonest; empty where none arrives."""
        if (self.steps < 0).all():
            return {}
        first = np.unravel_index(
            np.where(self.steps < 0, np.iinfo(np.int64).max, self.steps).argmin(), self.steps.shape
        )
        return {name: float(axis[i]) for (name, axis), i in zip(self.axes.items(), first, strict=True)}

    @property
    def boundary(self) -> Array:
        """The lowest learning rate that diverged, for each value of the other axis; ∞ where none did.

        Raises:
            ValueError: the learning rate is no axis.
        """
        rates, diverged = self._along_lr()
        return np.asarray(
            np.where(diverged, rates.reshape(-1, *(1,) * (diverged.ndim - 1)), np.inf).min(axis=0)
        )

    @cached_property
    def limit(self) -> Array | None:
        """What theory has for `boundary`: for SGD, Momentum and Nesterov on a quadratic, else None."""
        kind, values = type(self.rule), {**self.rule.values, **self.axes}
        others = {name: axis for name, axis in self.axes.items() if name != "lr"}
        if (
            self.theory is None
            or kind not in (SGD, Momentum, Nesterov)
            or any(map(callable, values.values()))
        ):
            return None
        shape = np.broadcast_shapes(*(axis.shape for axis in others.values()))
        momentum, dampening = values.get("momentum", 0.0), values.get("dampening", 0.0)
        found = self.theory.nesterov_limit if kind is Nesterov else self.theory.limit
        with np.errstate(divide="ignore"):
            return np.broadcast_to(found(momentum) / (1 - np.asarray(dampening)), shape)

    def _along_lr(self) -> tuple[Array, Mask]:
        if "lr" not in self.axes:
            raise ValueError(f"this map is over {', '.join(self.axes)}, not over lr")
        return self.axes["lr"], np.moveaxis(self.diverged, list(self.axes).index("lr"), 0)


def rate_map(
    surface: Surface | str,
    rule: Rule | str,
    *,
    steps: int = 500,
    start: ArrayLike | None = None,
    target: float = 1e-3,
    seed: int = 0,
    noise: Noise | float | None = None,
    **axes: ArrayLike,
) -> RateMap:
    """Count the steps that a rule needs, over one or two hyperparameters.

    Args:
        surface: a surface with a known minimum, or the name of one.
        rule: a rule, or the name of one.
        steps: how many steps are taken.
        start: where to begin, (n,); the surface's own start by default.
        target: how much of the way down is left on arrival: of f(start) less the lowest value known.
        seed: of the noise.
        noise: as in `path`.
        axes: one or two of the rule's hyperparameters by name, 1-D arrays: `lr=…, momentum=…`.

    Raises:
        UnknownHyperparameterError: the rule has none of that name in use.
        ValueError: no minimum is known, an axis is not 1-D, or a number lies outside its range.
    """
    surface, followed = named_surface(surface), named_method(rule)
    if not isinstance(followed, Rule):
        raise TypeError(f"rate_map follows rules; {followed.name} is a solver")
    grids = {name: np.atleast_1d(np.asarray(axis, np.float64)) for name, axis in axes.items()}
    if not 1 <= len(grids) <= 2 or any(grid.ndim != 1 for grid in grids.values()):
        raise ValueError("rate_map takes one or two hyperparameters, 1-D arrays: lr=…, momentum=…")
    shaped = dict(zip(grids, np.ix_(*grids.values()), strict=True))
    walk = Walk(surface, followed, start, steps, seed, noise, shaped)
    if walk.shape != tuple(map(len, grids.values())):
        raise ValueError(f"rate_map takes one start and one seed, got paths of shape {walk.shape}")
    lowest = surface.lowest
    high = np.max(surface.value(surface.start if start is None else start))
    within = lowest + target * (high - lowest)
    arrived: Counts = np.zeros(walk.shape, np.int64)
    lost: Mask = np.zeros(walk.shape, np.bool_)
    with np.errstate(all="ignore"):
        for t, (p, g, _) in enumerate(walk):
            value = surface.function.value(p)
            arrived[~(value <= within)] = t + 1  # NaN is not
            lost |= is_lost(surface, p, g)
    lost |= ~(value <= high)
    arrived[(arrived > steps) | lost] = -1
    curvatures = surface.eigenvalues
    theory = Theory.of(surface) if curvatures is not None and curvatures[0] > 0 else None
    return RateMap(surface, walk.rule, grids, arrived, lost, theory)
