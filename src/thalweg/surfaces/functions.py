"""Surfaces to watch a rule on: each with its formula, derivatives, known minima, a window and a start.

    surface = surfaces.get("beale")
    surface.value([3, 0.5]), surface.gradient([0, 0]), surface.hessian([0, 0])

    surfaces.parse("x²/20 + y²")  # one of your own

A surface is written once, as its formula; gradient and Hessian follow from it.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.errors import UnknownSurfaceError
from thalweg.hyperparameters import fold
from thalweg.program.symbols import walk
from thalweg.surfaces.formulas import Formula, read

__all__ = ["Noise", "QuadraticForm", "Surface", "get", "ill_conditioned", "names", "parse", "quadratic"]

Array: TypeAlias = NDArray[np.float64]
Point: TypeAlias = tuple[float, ...]
Window: TypeAlias = tuple[tuple[float, float], ...]


class Function(Protocol):
    """A function of n variables with its derivatives; points are arrays (n, …), entry by entry."""

    @property
    def dimensions(self) -> int:
        """n."""

    @property
    def constant_hessian(self) -> Array | None:
        """The Hessian (n, n) of a quadratic, else None."""

    def latex(self) -> str:
        """The formula in LaTeX."""

    def unicode(self) -> str:
        """The formula on one line of text."""

    def value(self, x: Array) -> Array:
        """Values (…)."""

    def gradient(self, x: Array) -> Array:
        """Gradients (n, …)."""

    def hessian(self, x: Array) -> Array:
        """Hessians (n, n, …)."""


@dataclass(frozen=True, eq=False)
class QuadraticForm:
    """½ (x − c)ᵀ A (x − c) in any number of dimensions.

    Attributes:
        matrix: A, symmetric, (n, n).
        centre: c, (n,).
    """

    matrix: Array
    centre: Array

    def __post_init__(self) -> None:
        a, c = self.matrix, self.centre
        if c.ndim != 1 or not c.size or a.shape != (c.size, c.size):
            raise ValueError(
                f"a quadratic takes a matrix (n, n) and a centre (n,), got {a.shape} and {c.shape}"
            )
        if not (np.isfinite(a).all() and np.isfinite(c).all() and np.array_equal(a, a.T)):
            raise ValueError("the matrix of a quadratic is symmetric, and its entries are finite")

    @property
    def dimensions(self) -> int:
        """n."""
        return self.centre.size

    @property
    def constant_hessian(self) -> Array:
        """A."""
        return self.matrix

    def latex(self) -> str:
        """The formula in LaTeX."""
        d = r"(x - c)" if self.centre.any() else "x"
        return rf"f(x) = \frac{{1}}{{2}} \, {d}^{{\top}} A \, {d}"

    def unicode(self) -> str:
        """The formula on one line of text."""
        d = "(x − c)" if self.centre.any() else "x"
        return f"f(x) = ½ {d}ᵀ A {d}"

    def value(self, x: Array) -> Array:
        """Values (…)."""
        d = self._from_centre(x)
        return np.asarray(0.5 * np.sum(d * np.tensordot(self.matrix, d, 1), axis=0))

    def gradient(self, x: Array) -> Array:
        """Gradients (n, …)."""
        return np.tensordot(self.matrix, self._from_centre(x), 1)

    def hessian(self, x: Array) -> Array:
        """Hessians (n, n, …)."""
        n = self.dimensions
        whole = (n, *x.shape)
        return np.broadcast_to(self.matrix.reshape(n, n, *(1,) * (x.ndim - 1)), whole).copy()

    def _from_centre(self, x: Array) -> Array:
        return x - self.centre.reshape(-1, *(1,) * (x.ndim - 1))


@dataclass(frozen=True)
class Noise:
    """What stands between a surface's gradient g and the one that a rule sees: g·b/f + σ·z.

    Its mean is g. Each step draws anew, for each entry.

    Attributes:
        deviation: σ; z is normal with mean 0 and deviation 1.
        frequencies: f in (0, 1], one an entry: b is 1 with that probability, else 0, as the gradient of a
            weight is whose feature a batch may lack. Empty: always seen.
    """

    deviation: float = 0.0
    frequencies: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.deviation < float("inf"):
            raise ValueError(f"the deviation of noise lies in [0, ∞), got {self.deviation!r}")
        if not all(0 < f <= 1 for f in self.frequencies):
            raise ValueError(f"frequencies lie in (0, 1], got {self.frequencies!r}")

    def __bool__(self) -> bool:
        return self.deviation > 0 or any(f < 1 for f in self.frequencies)

    def draw(self, seed: int, steps: int, dimensions: int) -> tuple[Array, Array]:
        """Factors b/f and summands σ·z: arrays (steps, n) each. A longer draw begins like a shorter one."""
        seen, normal = (np.random.default_rng([seed, i]) for i in range(2))
        shape = steps, dimensions
        factors = np.ones(shape)
        if self.frequencies:
            often = np.broadcast_to(np.asarray(self.frequencies), dimensions)
            factors = (seen.random(shape) < often) / often
        summands = self.deviation * normal.standard_normal(shape) if self.deviation else np.zeros(shape)
        return factors, summands


@dataclass(frozen=True, eq=False)
class Surface:
    """A function to descend, and what to know of it. Points are arrays (…, n).

    Attributes:
        name: as `get` takes it.
        function: the function with its derivatives.
        window: what a picture shows: (low, high) of each variable.
        start: a point from which a descent shows what the surface is for.
        title: its name in words.
        minima: known local minima within the window.
        saddles: known saddle points within the window.
        source: where it comes from.
        noise: of the gradients that a rule sees.
    """

    name: str
    function: Function
    window: Window
    start: Point
    title: str = ""
    minima: tuple[Point, ...] = ()
    saddles: tuple[Point, ...] = ()
    source: str = ""
    noise: Noise = Noise()

    def __post_init__(self) -> None:
        n = self.dimensions
        if len(self.window) != n or any(not low < high for low, high in self.window):
            raise ValueError(f"the window of {self.name} is {n} pairs low < high, got {self.window!r}")
        for what, points in (("start", [self.start]), ("minima", self.minima), ("saddles", self.saddles)):
            if any(len(p) != n for p in points):
                raise ValueError(f"{self.name} has {n} dimensions; {what} is {points!r}")
        if len(self.noise.frequencies) not in (0, n):
            raise ValueError(f"the noise of {self.name} has {n} frequencies, got {self.noise.frequencies!r}")

    @property
    def dimensions(self) -> int:
        """n."""
        return self.function.dimensions

    def value(self, x: ArrayLike) -> Array:
        """The values at points (…, n): an array (…). NaN where the formula has none."""
        with np.errstate(all="ignore"):
            return self.function.value(self._by_entry(x))

    def gradient(self, x: ArrayLike) -> Array:
        """The gradients at points (…, n): an array (…, n); exact, without noise."""
        with np.errstate(all="ignore"):
            return np.moveaxis(self.function.gradient(self._by_entry(x)), 0, -1)

    def hessian(self, x: ArrayLike) -> Array:
        """The Hessians at points (…, n): an array (…, n, n)."""
        with np.errstate(all="ignore"):
            return np.moveaxis(self.function.hessian(self._by_entry(x)), (0, 1), (-2, -1))

    @property
    def lowest(self) -> float:
        """The smallest value at a known minimum.

        Raises:
            ValueError: no minimum is known.
        """
        if not self.minima:
            raise ValueError(f"no minimum of {self.name} is known")
        return float(self.value(self.minima).min())

    @cached_property
    def eigenvalues(self) -> Array | None:
        """The curvatures of a quadratic, smallest first; None where the Hessian changes."""
        matrix = self.function.constant_hessian
        return None if matrix is None else np.asarray(np.linalg.eigvalsh(matrix), np.float64)

    @property
    def diagonal(self) -> float:
        """The length of the window's diagonal."""
        return float(np.linalg.norm(np.ptp(np.asarray(self.window), axis=1)))

    def grid(self, count: int) -> Array:
        """Points over the window, `count` along each variable: an array (count, …, count, n).

        The first axis is the last variable's, as pictures have it: rows are y, columns x.
        """
        axes = [np.linspace(low, high, count) for low, high in self.window]
        return np.stack([a.T for a in np.meshgrid(*axes, indexing="ij")], axis=-1)

    def latex(self) -> str:
        """The formula in LaTeX."""
        return self.function.latex()

    def unicode(self) -> str:
        """The formula on one line of text."""
        return self.function.unicode()

    def _by_entry(self, x: ArrayLike) -> Array:
        points = np.asarray(x, np.float64)
        if points.ndim == 0 or points.shape[-1] != self.dimensions:
            raise ValueError(
                f"points on {self.name} are arrays (…, {self.dimensions}), got shape {points.shape}"
            )
        return np.moveaxis(points, -1, 0)

    def _repr_latex_(self) -> str:
        return f"$${self.latex()}$$"


def names() -> list[str]:
    """The names that `get` takes."""
    return list(_MADE)


def get(name: str) -> Surface:
    """A surface by name; capitals, underscores, hyphens and spaces make no difference.

    Raises:
        UnknownSurfaceError: no surface has the name; the message names the nearest.
    """
    folded = {fold(known): known for known in _MADE}
    if fold(name) not in folded:
        raise UnknownSurfaceError(name, _MADE)
    return _MADE[folded[fold(name)]]()


def named(
    text: str, *, window: Sequence[Sequence[float]] | None = None, start: Sequence[float] | None = None
) -> Surface:
    """A surface by name, or by its formula where that has any sign that names have not.

    Args:
        text: as for `get`, or as for `parse`.
        window: of a formula, as for `parse`.
        start: likewise; a named surface has one of its own.

    Raises:
        UnknownSurfaceError: no surface has the name.
        InvalidFormulaError, ValueError: as `parse`; or a window for a named surface.
    """
    try:
        known = get(text)
    except UnknownSurfaceError:
        if text.replace("_", "").replace("-", "").replace(" ", "").isalpha():
            raise
        return parse(text, window=window, start=start)
    if window:
        raise ValueError(f"{known.name} has a window of its own; another is for formulas")
    return known


def parse(
    text: str, *, window: Sequence[Sequence[float]] | None = None, start: Sequence[float] | None = None
) -> Surface:
    """A surface from a formula that someone typed; see `thalweg.surfaces.formulas.read`.

    Args:
        text: a formula in x, or in x and y: "x**2/20 + y**2", "x⁴ − 4·x²".
        window: (low, high) of each variable; −4 to 4 by default.
        start: a point; an eighth of the way into the window by default.

    Raises:
        InvalidFormulaError: naming what is not allowed and where.
        ValueError: window or start do not fit the formula.
    """
    used = {e.name for e in walk(read(text))}
    variables = ("x", "y") if "y" in used else ("x",)
    shown = tuple((float(a), float(b)) for a, b in window or [(-4, 4)] * len(variables))
    at = tuple(map(float, start)) if start is not None else tuple(a + (b - a) / 8 for a, b in shown)
    return Surface("parsed", Formula(text, variables), shown, at, title=text)


def quadratic(matrix: ArrayLike, centre: ArrayLike | None = None, *, name: str = "quadratic") -> Surface:
    """½ (x − c)ᵀ A (x − c) in any number of dimensions.

    Args:
        matrix: A, symmetric, (n, n); or its diagonal, (n,).
        centre: c, (n,); the origin by default.
        name: the surface's name.

    Raises:
        ValueError: shapes that do not fit, or a matrix that is not symmetric.
    """
    given = np.array(matrix, np.float64)
    a = np.diag(given) if given.ndim == 1 else given
    c = np.zeros(a.shape[:1]) if centre is None else np.array(centre, np.float64)
    form = QuadraticForm(a, c)
    definite = bool(np.linalg.eigvalsh(a)[0] > 0)
    at = tuple(map(float, c))
    return Surface(
        name,
        form,
        window=tuple((x - 2, x + 2) for x in at),
        start=tuple(x + 1.5 for x in at),
        title=f"Quadratic in {c.size} dimension{'s' if c.size > 1 else ''}",
        minima=(at,) if definite else (),
    )


def ill_conditioned(dimensions: int = 10, condition: float = 100.0, seed: int = 0) -> Surface:
    """A quadratic whose curvatures go from 1/condition to 1 in equal ratios, its axes at random angles.

    Args:
        dimensions: n ≥ 2.
        condition: the largest curvature over the smallest, ≥ 1.
        seed: of the axes.

    Raises:
        ValueError: a number outside its range.
    """
    if dimensions < 2 or not 1 <= condition < float("inf"):
        raise ValueError(f"dimensions ≥ 2 and condition ≥ 1, got {dimensions!r} and {condition!r}")
    curvatures = np.geomspace(1 / condition, 1, dimensions)
    normal = np.random.default_rng(seed).standard_normal((dimensions, dimensions))
    axes, triangle = np.linalg.qr(normal)
    axes = axes * np.sign(np.diag(triangle))  # so that every direction is as likely
    a = axes @ np.diag(curvatures) @ axes.T
    title = f"Ill-conditioned quadratic, {dimensions} dimensions, condition number {condition:g}"
    return replace(quadratic((a + a.T) / 2, name="ill_conditioned"), title=title)


_MADE: dict[str, Callable[[], Surface]] = {}


def _surface(name: str, formula: str, window: Window, start: Point, **known: Any) -> None:
    surface = Surface(name, Formula(formula, ("x", "y")[: len(start)]), window, start, **known)
    _MADE[name] = lambda: surface


_JAMIL = "Jamil & Yang 2013, https://arxiv.org/abs/1308.4008"


def _square(half_width: float) -> Window:
    return ((-half_width, half_width), (-half_width, half_width))


_surface(
    "ravine",
    "x**2/20 + y**2",
    window=((-8, 8), (-4, 4)),
    start=(-7.0, 2.0),
    title="Ravine",
    minima=((0.0, 0.0),),
    source="Saito 2016, Deep Learning from Scratch, section 6.1",
)
_surface(
    "long_valley",
    "x**2/500 + y**2",
    window=((-10, 10), (-2, 2)),
    start=(-9.0, 1.0),
    title="Long valley",
    minima=((0.0, 0.0),),
    source="after Radford's animations of 2014, whose formula was not given",
)
_surface(
    "saddle",
    "x**2 - y**2",
    window=_square(2),
    start=(-1.5, 0.001),  # beside the ridge: slow until the fall is found
    title="Saddle",
    saddles=((0.0, 0.0),),
)
_surface(
    "monkey_saddle",
    "x**3 - 3*x*y**2",
    window=_square(2),
    start=(1.5, 0.001),
    title="Monkey saddle",
    saddles=((0.0, 0.0),),
    source="Hilbert & Cohn-Vossen 1932, section 29: two legs and a tail",
)
_surface(
    "beale",
    "(1.5 - x + x*y)**2 + (2.25 - x + x*y**2)**2 + (2.625 - x + x*y**3)**2",
    window=_square(4.5),
    start=(1.0, 1.5),
    title="Beale",
    minima=((3.0, 0.5),),
    saddles=((0.0, 1.0),),
    source="Beale 1958, On an iterative method for finding a local minimum",
)
_surface(
    "rosenbrock",
    "(1 - x)**2 + 100*(y - x**2)**2",
    window=((-2, 2), (-1, 3)),
    start=(-1.2, 1.0),
    title="Rosenbrock's banana",
    minima=((1.0, 1.0),),
    source="Rosenbrock 1960, https://doi.org/10.1093/comjnl/3.3.175",
)
_surface(
    "himmelblau",
    "(x**2 + y - 11)**2 + (x + y**2 - 7)**2",
    window=_square(5),
    start=(0.0, 0.0),
    title="Himmelblau",
    minima=(
        (3.0, 2.0),
        (-2.805118086952745, 3.131312518250573),
        (-3.779310253377747, -3.2831859912861696),
        (3.5844283403304917, -1.8481265269644034),
    ),
    saddles=(
        (0.08667750455539634, 2.884254701174776),
        (3.385154183607021, 0.07385187983774928),
        (-0.12796134673068005, -1.9537149802445766),
        (-3.0730257507643897, -0.08135304428796751),
    ),
    source="Himmelblau 1972, Applied Nonlinear Programming",
)
_surface(
    "booth",
    "(x + 2*y - 7)**2 + (2*x + y - 5)**2",
    window=_square(10),
    start=(-8.0, -5.0),
    title="Booth",
    minima=((1.0, 3.0),),
    source=_JAMIL,
)

# Where x² − 10 cos 2πx has its minima.
_DIMPLES = (
    0.0,
    0.9949586376523348,
    1.9899122337085495,
    2.984855701039481,
    3.979783860300754,
    4.974691390895051,
)
_surface(
    "rastrigin",
    "20 + x**2 - 10*cos(2*pi*x) + y**2 - 10*cos(2*pi*y)",
    window=_square(5.12),
    start=(4.4, -3.4),
    title="Rastrigin",
    minima=tuple(itertools.product(sorted({s * x for x in _DIMPLES for s in (-1, 1)}), repeat=2)),
    source="Rastrigin 1974, Systems of Extremal Control",
)
_surface(
    "ackley",
    "20 + e - 20*exp(-0.2*sqrt((x**2 + y**2)/2)) - exp((cos(2*pi*x) + cos(2*pi*y))/2)",
    window=_square(5),
    start=(3.4, 2.4),
    title="Ackley",
    minima=((0.0, 0.0),),  # a cone's tip; its many dimples are not listed
    source="Ackley 1987, A Connectionist Machine for Genetic Hillclimbing",
)

# Where x⁴ − 16x² + 5x has its minima, and its maximum between.
_WELLS, _RIDGE = (-2.903534027771177, 2.7468027709908367), 0.1567312567803401
_surface(
    "styblinski_tang",
    "(x**4 - 16*x**2 + 5*x + y**4 - 16*y**2 + 5*y)/2",
    window=_square(5),
    start=(0.0, 0.4),
    title="Styblinski–Tang",
    minima=tuple(itertools.product(_WELLS, repeat=2)),
    saddles=tuple(point for x in _WELLS for point in ((x, _RIDGE), (_RIDGE, x))),
    source="Styblinski & Tang 1990, https://doi.org/10.1016/0893-6080(90)90029-K",
)
_surface(
    "plateau",
    "1 - exp(-(x**2 + y**2)/8)",
    window=_square(8),
    start=(-5.0, 3.5),  # where the gradient is a hundredth of what it is nearer
    title="Plateau",
    minima=((0.0, 0.0),),
)
_surface(
    "double_well",
    "x**4 - 2*x**2 + x/2",
    window=((-1.75, 1.75),),
    start=(1.6,),  # above the shallower well
    title="Double well",
    minima=((-1.057453770738378,), (0.9304029265558517,)),
)
_surface(
    "noisy",
    "x**2/20 + y**2/2",
    window=((-6, 6), (-4, 4)),
    start=(-5.0, 3.0),
    title="Noisy quadratic",
    minima=((0.0, 0.0),),
    source="after Schaul, Zhang & LeCun 2013, https://arxiv.org/abs/1206.1106",
    noise=Noise(deviation=0.5),
)
_surface(
    "sparse",
    "(x - 2)**2/2 + (y - 2)**2/40",
    window=((-3, 4), (-3, 4)),
    start=(-2.0, -2.0),
    title="Sparse feature: y's gradient is seen once in twenty steps",
    minima=((2.0, 2.0),),
    source="after Duchi, Hazan & Singer 2011, section 1.3, https://jmlr.org/papers/v12/duchi11a.html",
    noise=Noise(frequencies=(1.0, 0.05)),
)
_MADE["ill_conditioned"] = ill_conditioned
