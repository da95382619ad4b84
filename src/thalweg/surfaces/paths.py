"""A rule or a solver followed down a surface: one path, or thousands at once.

    path("ravine", Momentum(lr=0.1))
    paths("beale", Adam(), lr=np.geomspace(1e-3, 1, 1000))

What runs is the Program that every front end runs, over arrays of paths.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg import notebook, registry, surfaces
from thalweg.eager import Driver, as_traced, numpy_functions
from thalweg.errors import UnknownHyperparameterError
from thalweg.program.symbols import NORMS
from thalweg.program.tracing import trace
from thalweg.rule import Rule
from thalweg.surfaces import solvers
from thalweg.surfaces.functions import Noise, Surface
from thalweg.surfaces.solvers import Solver

__all__ = ["FAR", "Path", "path", "paths"]

Array: TypeAlias = NDArray[np.float64]

# A point this many window diagonals away from the window's centre does not come back.
FAR = 1000.0

_FUNCTIONS = numpy_functions(axis=0)


@dataclass(frozen=True, eq=False)
class Path:
    """Where a rule or a solver went, step by step; one path or many, whose shape is `shape`, written … here.

    Attributes:
        surface: what it went down.
        method: the rule or solver that went.
        points: (steps + 1, …, n), the start first.
        gradients: (steps + 1, …, n), what the rule saw at each point: noise included.
        state: each slot before the first step and after each: (steps + 1, …, n), or (steps + 1, …) where it
            is one number for all entries. Empty for a solver.
        hyperparameters: those in which the paths differ: arrays of shape ….
        evaluations: how often "value", "gradient" and "hessian" had been asked for when each point was
            reached: (steps + 1,) each.
    """

    surface: Surface
    method: Rule | Solver
    points: Array
    gradients: Array
    state: Mapping[str, Array]
    hyperparameters: Mapping[str, Array]
    evaluations: Mapping[str, NDArray[np.int64]]

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return len(self.points) - 1

    @property
    def shape(self) -> tuple[int, ...]:
        """() for one path."""
        return self.points.shape[1:-1]

    @property
    def end(self) -> Array:
        """The last points (…, n)."""
        return np.asarray(self.points[-1])

    @cached_property
    def values(self) -> Array:
        """The surface's values (steps + 1, …), without noise."""
        return self.surface.value(self.points)

    @cached_property
    def gradient_norms(self) -> Array:
        """The lengths (steps + 1, …) of the gradients seen."""
        with np.errstate(all="ignore"):  # of a path that is lost
            return _norm(np.moveaxis(self.gradients, -1, 0))

    @cached_property
    def moves(self) -> Array:
        """From each point to the next: (steps, …, n)."""
        with np.errstate(all="ignore"):
            return np.diff(self.points, axis=0)

    @cached_property
    def step_sizes(self) -> Array:
        """The effective step size of each entry, |move| / |gradient seen|: (steps, …, n).

        For plain gradient descent, the learning rate. NaN or infinite where the gradient is zero.
        """
        with np.errstate(all="ignore"):
            return np.abs(self.moves) / np.abs(self.gradients[:-1])

    @cached_property
    def intermediates(self) -> dict[str, Array]:
        """What each line of the rule's formulas came to at each step, by the name it has in the rule.

        Of shape (steps, …, n), or (steps, …, 1) where it is one number for all entries. Empty for a solver.
        """
        if isinstance(self.method, Solver):
            return {}
        program, column = trace(self.method), (self.steps, *(1,) * (len(self.shape) + 1))
        t = range(1, self.steps + 1)
        values = [self.method.values_at(i) for i in t]
        known = {name: np.reshape([at[name] for at in values], column) for name in values[0]}
        known |= {name: value[..., None] for name, value in self.hyperparameters.items()}
        for slot, numbers in self.state.items():
            known[slot] = numbers[:-1] if slot in program.slots else numbers[:-1, ..., None]
        with np.errstate(all="ignore"):
            found = program.formula_function({**_FUNCTIONS, **dict.fromkeys(NORMS, _norms_of_paths)})(
                t=np.reshape(t, column).astype(float),
                g=self.gradients[:-1],
                p=self.points[:-1],
                **known,
            )
        every = (self.steps, *self.shape, 1)
        return {
            line.name: np.broadcast_to(value, np.broadcast_shapes(np.shape(value), every))
            for line, value in zip(program.formulas, found, strict=True)
        }

    @cached_property
    def diverged_at(self) -> NDArray[np.int64]:
        """After how many steps a path was lost (…), −1 where it was not.

        It is lost where its point or its gradient is not finite, or the point is `FAR` away.
        """
        lost = is_lost(self.surface, np.moveaxis(self.points, -1, 0), np.moveaxis(self.gradients, -1, 0))
        return np.where(lost.any(axis=0), lost.argmax(axis=0), -1)

    @property
    def diverged(self) -> NDArray[np.bool_]:
        """Whether a path was lost: (…)."""
        return np.asarray(self.diverged_at >= 0)

    def _repr_html_(self) -> str | None:
        """One path as a picture, in a notebook; None for many, or without matplotlib."""
        return None if self.shape else notebook.html("path", self)

    def __getitem__(self, index: Any) -> "Path":
        """One of many paths, or some: `many[3]`, `many[:, 0]`."""
        index = index if isinstance(index, tuple) else (index,)
        if len(index) > len(self.shape) or any(i is Ellipsis for i in index):
            raise IndexError(
                f"paths of shape {self.shape} take at most {len(self.shape)} indices, got {index}"
            )
        later = (slice(None), *index)
        return replace(
            self,
            points=self.points[later],
            gradients=self.gradients[later],
            state={slot: values[later] for slot, values in self.state.items()},
            hyperparameters={name: values[index] for name, values in self.hyperparameters.items()},
        )


def path(
    surface: Surface | str,
    method: Rule | Solver | str,
    start: ArrayLike | None = None,
    steps: int = 100,
    *,
    seed: int = 0,
    noise: Noise | float | None = None,
) -> Path:
    """Follow a rule or a solver down a surface.

    Args:
        surface: a surface, the name of one, or a formula such as "x**2/20 + y**2".
        method: a rule (within treatments or not, with schedules or not), a solver, or the name of one.
        start: where to begin, (n,); the surface's own start by default.
        steps: how many steps a rule takes, and at most how many iterations a solver.
        seed: of the noise.
        noise: of the gradients that a rule sees, or its deviation; the surface's own by default. Solvers see
            none.

    Raises:
        UnknownSurfaceError, UnknownRuleError: no surface, rule or solver has the name.
        ValueError: a start of another shape, or a number outside its range.
        ImportError: a solver without scipy.
    """
    surface, method = named_surface(surface), named_method(method)
    at = np.asarray(surface.start if start is None else start, np.float64)
    if at.shape != (surface.dimensions,):
        raise ValueError(f"start is one point of {surface.dimensions} entries, got shape {at.shape}")
    if isinstance(method, Rule):
        return paths(surface, method, starts=at, steps=steps, seed=seed, noise=noise)
    if noise:
        raise ValueError(f"{method.name} searches along lines: it needs exact gradients, without noise")
    points, evaluations = method.follow(surface, at, _checked_steps(steps))
    return Path(surface, method, points, surface.gradient(points), {}, {}, evaluations)


def paths(
    surface: Surface | str,
    rule: Rule | str,
    *,
    starts: ArrayLike | None = None,
    steps: int = 100,
    seed: ArrayLike = 0,
    noise: Noise | float | None = None,
    **hyperparameters: Any,
) -> Path:
    """Follow a rule down a surface along many paths at once.

    Starts, seeds and hyperparameters are broadcast against each other: `lr` of shape (50, 1) with `momentum`
    of shape (40,) makes 50 × 40 paths.

    Args:
        surface: a surface, the name of one, or a formula such as "x**2/20 + y**2".
        rule: a rule, or the name of one.
        starts: where to begin, (…, n); the surface's own start by default.
        steps: how many steps each takes.
        seed: of the noise: whole numbers of any shape. Paths of one seed meet the same noise.
        noise: as in `path`.
        hyperparameters: values of the rule's, by name: arrays of any shape, numbers or schedules.

    Raises:
        UnknownHyperparameterError: the rule has none of that name in use.
        ValueError: shapes that cannot be broadcast, or a number outside its range.
    """
    surface, followed = named_surface(surface), named_method(rule)
    if not isinstance(followed, Rule):
        raise TypeError(f"paths follows rules; {followed.name} is a solver, for path")
    walk = Walk(surface, followed, starts, steps, seed, noise, hyperparameters)
    n, length = surface.dimensions, walk.steps + 1
    points, gradients = (np.empty((length, n, *walk.shape)) for _ in range(2))
    program = trace(walk.rule)
    state = {slot: np.empty((length, n, *walk.shape)) for slot in program.slots}
    numbers = {slot: np.empty((length, *walk.shape)) for slot in program.scalar_slots}
    with np.errstate(all="ignore"):
        for t, (p, g, now) in enumerate(walk):
            points[t], gradients[t] = p, g
            for slot, history in (state | numbers).items():
                history[t] = now[slot]
    counts = np.arange(length)
    return Path(
        surface,
        walk.rule,
        np.moveaxis(points, 1, -1),
        np.moveaxis(gradients, 1, -1),
        {slot: np.moveaxis(values, 1, -1) for slot, values in state.items()} | numbers,
        {name: np.broadcast_to(value, walk.shape) for name, value in walk.arrays.items()},
        {"value": 0 * counts, "gradient": counts, "hessian": 0 * counts},
    )


class Walk:
    """The points of many paths one step after the other, none kept; see `paths`.

    Iterate over it within `np.errstate(all="ignore")`: a path that is lost overflows. Each item is the points
    (n, …), the gradients seen there (n, …), and the state by slot.
    """

    def __init__(
        self,
        surface: Surface,
        rule: Rule,
        starts: ArrayLike | None,
        steps: int,
        seed: ArrayLike,
        noise: Noise | float | None,
        hyperparameters: Mapping[str, Any],
    ) -> None:
        self.surface, self.steps = surface, _checked_steps(steps)
        self.rule, self.arrays = _settled(rule, hyperparameters)
        at = np.asarray(surface.start if starts is None else starts, np.float64)
        if at.ndim == 0 or at.shape[-1] != surface.dimensions:
            raise ValueError(
                f"starts on {surface.name} are arrays (…, {surface.dimensions}), got shape {at.shape}"
            )
        chosen = surface.noise if noise is None else noise
        self.noise = chosen if isinstance(chosen, Noise) else Noise(float(chosen))
        self.seeds = np.asarray(seed if self.noise else 0)
        if not np.issubdtype(self.seeds.dtype, np.integer) or (self.seeds < 0).any():
            raise ValueError(f"seeds are whole numbers from 0, got {seed!r}")
        shapes = {"starts": at.shape[:-1], "seed": self.seeds.shape}
        shapes |= {name: value.shape for name, value in self.arrays.items()}
        try:
            self.shape = np.broadcast_shapes(*shapes.values())
        except ValueError:
            listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise ValueError(f"these shapes cannot be broadcast against each other: {listed}") from None
        self.start = np.moveaxis(np.broadcast_to(at, (*self.shape, surface.dimensions)), -1, 0)

    def __iter__(self) -> Iterator[tuple[Array, Array, dict[str, Any]]]:
        # A point is the whole model and its only tensor. Where one path's step is skipped and another's is
        # not, the step is counted; but the same point has the same gradient: what is skipped once is skipped
        # for ever, and needs no number.
        driver = Driver(self.rule, values=self.arrays, step=as_traced(self.rule, _FUNCTIONS))
        p = np.array(self.start, order="C")
        # State in the order of p, not of the gradient, in which a number would become an array.
        state = driver.states[0]
        state |= {slot: np.zeros(p.shape) + state[slot] for slot in trace(self.rule).slots}
        seen = self._seen()
        for t in range(1, self.steps + 2):
            g = seen(t, self.surface.function.gradient(p))
            yield p, g, driver.states[0]
            if t <= self.steps:
                p = p - driver.step(p, g)

    def _seen(self) -> Any:
        """The gradient that the rule sees at step t, from the true one."""
        if not self.noise:
            return lambda t, g: g
        n = self.surface.dimensions
        draws = [self.noise.draw(int(s), self.steps + 1, n) for s in self.seeds.flat]
        factors, summands = (
            np.stack(parts, axis=-1).reshape(self.steps + 1, n, *self.seeds.shape)
            for parts in zip(*draws, strict=True)
        )
        # Aligned with … from the right, as in broadcasting.
        broadcast = (self.steps + 1, n, *(1,) * (len(self.shape) - self.seeds.ndim), *self.seeds.shape)
        factors, summands = factors.reshape(broadcast), summands.reshape(broadcast)
        return lambda t, g: g * factors[t - 1] + summands[t - 1]


def _settled(rule: Rule, hyperparameters: Mapping[str, Any]) -> tuple[Rule, dict[str, Array]]:
    """The rule with what is one value for all paths, and the arrays of what is not."""
    arrays: dict[str, Array] = {}
    for name, value in hyperparameters.items():
        if name not in rule.hyperparameters:
            raise UnknownHyperparameterError(rule.name, name, rule.hyperparameters)
        if callable(value) or np.ndim(value) == 0:
            rule = rule.replaced(**{name: value if callable(value) else float(value)})
            continue
        array = np.array(value, np.float64)
        described = rule.hyperparameters[name]
        if not array.size or not (described.admits(array.min()) and described.admits(array.max())):
            raise ValueError(f"{rule.name}: every {name} must lie in {described.range}, got {value!r}")
        arrays[name] = array
    return rule, arrays


def is_lost(surface: Surface, points: Array, gradients: Array) -> NDArray[np.bool_]:
    """Whether points (n, …) with gradients (n, …) are where no path comes back from."""
    low, high = np.asarray(surface.window).T.reshape(2, -1, *(1,) * (points.ndim - 1))
    with np.errstate(all="ignore"):
        near = _norm(points - (low + high) / 2) <= FAR * surface.diagonal  # NaN is not
    return np.asarray(~(near & np.isfinite(gradients).all(axis=0)))


def named_surface(surface: Surface | str) -> Surface:
    """A surface, given by itself, by name or by its formula."""
    found = surfaces.named(surface) if isinstance(surface, str) else surface
    if not isinstance(found, Surface):
        raise TypeError(f"expected a surface, such as surfaces.get('beale'); got {surface!r}")
    return found


def named_method(method: Rule | Solver | str) -> Rule | Solver:
    """A rule or a solver, given by itself or by name."""
    if isinstance(method, str):
        return solvers.get(method) if solvers.knows(method) else registry.get(method)
    if not isinstance(method, Rule | Solver):
        raise TypeError(f"expected a rule, such as Adam(), or a solver; got {method!r}")
    return method


def _checked_steps(steps: int) -> int:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps is a whole number from 1, got {steps!r}")
    return steps


def _norm(x: Array) -> Array:
    """The Euclidean norm over the first axis."""
    return np.asarray(np.sqrt(np.sum(x * x, axis=0)))


def _norms_of_paths(x: Array) -> Array:
    """The Euclidean norm of each of many points (…, n): (…, 1)."""
    return _norm(np.moveaxis(x, -1, 0))[..., None]
