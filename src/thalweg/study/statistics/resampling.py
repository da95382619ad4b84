"""Medians, differences and winners over a few seeds, each with an interval.

Lower is better throughout: negate what should be high, such as an accuracy. A run that failed, or never
reached its target, counts as +inf: the worst there is.

Nothing here is random. A percentile bootstrap of the median was rejected: its 95 % interval contains the true
median 75 times in 100 with 3 seeds, and 87 with 7. `benchmarks/intervals.py` measures how often the intervals
used here contain the true value; the docstrings quote it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

FloatArray = npt.NDArray[np.float64]

Verdict = Literal["better", "tie", "worse"]


@dataclass(frozen=True)
class Interval:
    """An estimate, and a confidence interval around it.

    Attributes:
        level: how often such an interval contains the true value. Lower than asked for where there are too
            few seeds; 0 with a single one.
    """

    estimate: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Standings:
    """Every contestant compared with the best.

    Attributes:
        leader: the index of the one with the lowest median.
        behind: by how much each is behind the leader; zero for the leader itself.
    """

    leader: int
    behind: tuple[Interval, ...]


def median(values: npt.ArrayLike, level: float = 0.95) -> Interval:
    """The median over the seeds.

    From 6 seeds on (at 95 %) the interval lies between ordered values, interpolated to the level
    (Hettmansperger & Sheather 1986). It contains the true median 94 to 96 times in 100 whatever the
    distribution, also with failed runs. Fewer cannot reach 95 % that way; for them it is Student's, on the
    logarithm where all values are positive: 95 in 100 if they are normal, lognormal or exponential. With a
    failed run among so few it is their range, at the level that this has: 75 % with 3 seeds, 94 % with 5.

    Args:
        values: one a seed.
        level: the level asked for.

    Raises:
        ValueError: no values, NaN or -inf among them, or a level outside (0, 1).
    """
    x = np.sort(checked("values", values, 1))
    n, estimate = len(x), _middle(x)
    levels = 1 - 2 * _coin_cdf(n)[: (n + 1) // 2]  # of the interval from x[k] to x[-1 - k], by k
    enough = int((levels >= fraction(level)).sum())
    if enough:
        low, high = _inwards(x, enough - 1, level), -_inwards(-x[::-1], enough - 1, level)
        return Interval(estimate, low, high, level)
    if n == 1 or math.isinf(x[-1]):
        return Interval(estimate, float(x[0]), float(x[-1]), float(levels[0]))
    if x[0] <= 0:
        return Interval(estimate, *student(x, level), level)
    low, high = student(np.log(x), level)
    return Interval(estimate, _exp(low), _exp(high), level)


def difference(a: npt.ArrayLike, b: npt.ArrayLike, level: float = 0.95) -> Interval:
    """How much higher `a` is than `b`, paired by seed: the median of all averages of two seeds' differences.

    The interval is that of Wilcoxon's signed ranks where there are seeds enough for the level (6 for 95 %),
    else Student's. A run that failed where its partner did not differs by infinity; where both did, by 0.
    Student's interval has the failed run at the worst value seen, and no bound beyond it. Equal contestants,
    of whatever distribution, are called different 2 to 6 times in 100; 7 where 30 % fail, with 3 seeds.

    Args:
        a: one value a seed.
        b: the other's, from the same seeds in the same order.
        level: the level asked for.

    Raises:
        ValueError: not as many values of the one as of the other, or as `median`.
    """
    return _paired(*_pair(a, b), fraction(level))


def ratio(a: npt.ArrayLike, b: npt.ArrayLike, level: float = 0.95) -> Interval:
    """The ratio of `a` to `b`, paired by seed: as `difference`, of the logarithms.

    Raises:
        ValueError: a value that is not positive, or as `difference`.
    """
    a, b = _pair(a, b)
    if min(a.min(), b.min()) <= 0:
        raise ValueError(f"a ratio is of positive values, got {min(a.min(), b.min()):g}: take the difference")
    interval = _paired(np.log(a), np.log(b), fraction(level))
    return Interval(_exp(interval.estimate), _exp(interval.low), _exp(interval.high), interval.level)


def beats(a: npt.ArrayLike, b: npt.ArrayLike, level: float = 0.95) -> Interval:
    """The probability that `a` is lower than `b` with the same seed; ties count half.

    The interval is that of Clopper & Pearson 1934, which contains the true value at least as often as its
    level says: after 10 wins of 10 it still begins at 69 %.

    Raises:
        ValueError: as `difference`.
    """
    a, b = _pair(a, b)
    n, wins = len(a), float((a < b).sum() + (a == b).sum() / 2)
    tail = (1 - fraction(level)) / 2
    low = float(special.betaincinv(wins, n - wins + 1, tail)) if wins else 0.0
    high = float(special.betaincinv(wins + 1, n - wins, 1 - tail)) if wins < n else 1.0
    return Interval(wins / n, low, high, level)


def verdict(interval: Interval, same: float = 0.0, worth: float = 0.0, level: float = 0.95) -> Verdict:
    """Whether `a` is better than `b`, worse, or tied, by the interval of their difference or ratio.

    Args:
        interval: of `difference`, `ratio` or `Standings.behind`.
        same: the value that means no difference: 1 for a ratio.
        worth: the smallest difference that matters; a smaller one is a tie.
        level: an interval of a lower level is a tie.

    Raises:
        ValueError: a negative `worth`.
    """
    if not worth >= 0:
        raise ValueError(f"the smallest difference that matters must be at least 0, got {worth:g}")
    if interval.level < level:
        return "tie"
    if interval.high < same - worth:
        return "better"
    return "worse" if interval.low > same + worth else "tie"


def against_best(values: npt.ArrayLike, level: float = 0.95, relative: bool = False) -> Standings:
    """How far behind the best each of several contestants is, all at once.

    The interval of each of the k - 1 differences is at level 1 - (1 - level) / (k - 1) (Bonferroni): though
    the leader was chosen after the fact, the truly best is called worse than it no more than 1 - `level` of
    the time. That any of k equal ones is called worse happens more often: 5 times in 100 with 2, 7 to 11
    with 8, 8 to 15 with 20. A contestant that failed with every seed is behind by infinity.

    Args:
        values: contestants x seeds, the same seeds for all.
        level: the level asked for, of all intervals together.
        relative: by ratios to the leader instead of differences.

    Raises:
        ValueError: values that are no table, or as `difference` or `ratio`.
    """
    table = checked("values", values, 2)
    each = 1 - (1 - fraction(level)) / max(1, len(table) - 1)
    failures = np.isinf(table).sum(axis=1)
    leader = int(np.lexsort((failures, medians(table)))[0])
    same = 1.0 if relative else 0.0
    behind = []
    for i, row in enumerate(table):
        if i == leader:
            behind.append(Interval(same, same, same, level))
        elif failures[i] == len(row) > failures[leader]:
            behind.append(Interval(math.inf, math.inf, math.inf, level))
        else:
            interval = (ratio if relative else difference)(row, table[leader], each)
            together = (
                max(0.0, 1 - (1 - interval.level) * (len(table) - 1)) if interval.level < each else level
            )
            behind.append(Interval(interval.estimate, interval.low, interval.high, together))
    return Standings(leader, tuple(behind))


def to_target(curves: Sequence[npt.ArrayLike], costs: Sequence[npt.ArrayLike], target: float) -> FloatArray:
    """The cost of each run, in steps or seconds, when it was first evaluated at or below a target.

    Args:
        curves: each run's measure at its evaluations; runs may differ in length, and NaN reaches nothing.
        costs: steps or seconds until each of these evaluations.
        target: the value to reach.

    Returns:
        One cost a run, inf where the target was never reached: give them to `median`.

    Raises:
        ValueError: a run has not as many costs as values, costs decrease, or the target is NaN.
    """
    if math.isnan(target):
        raise ValueError("the target is NaN")
    return np.array([_first(c, s, target) for c, s in zip(curves, costs, strict=True)], np.float64)


def checked(name: str, values: npt.ArrayLike, axes: int) -> FloatArray:
    """Values as an array with a number of axes: numbers, or +inf for what failed.

    Raises:
        ValueError: another number of axes, nothing in them, NaN or -inf.
    """
    x = np.asarray(values, np.float64)
    if x.ndim != axes or not x.size:
        shape = ("empty " if not x.size else "") + f"shape {x.shape}"
        raise ValueError(f"{name} must have {axes} {'axis' if axes == 1 else 'axes'}, not empty, got {shape}")
    if np.isnan(x).any() or x.min() == -math.inf:
        raise ValueError(f"{name} must be numbers, or +inf for what failed: found NaN or -inf")
    return x


def fraction(level: float) -> float:
    """A confidence level, if it is one.

    Raises:
        ValueError: it does not lie between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"a level must lie between 0 and 1, got {level:g}")
    return level


def medians(x: FloatArray) -> FloatArray:
    """Medians along the last axis; +inf may be among the values."""
    return np.asarray(np.median(x, axis=-1))


def percentiles(resampled: FloatArray, level: float, count: int | None = None) -> FloatArray:
    """Low and high ends of percentile bootstraps along the first axis: 2 x the other axes.

    Args:
        resampled: one statistic a resample.
        level: the level asked for.
        count: how many values a resample has, at least 2: the fewer, the further out are the percentiles, as
            Student's interval is beside the normal (Hesterberg 2015,
            https://doi.org/10.1080/00031305.2015.1089789). None: for statistics that need no such help.
    """
    tail = (1 - level) / 2
    if count is not None:
        tail = float(special.ndtr(special.stdtrit(count - 1, tail) * math.sqrt(count / (count - 1))))
    # A method that does no arithmetic: between a number and infinity there is nothing to interpolate.
    return np.asarray(np.quantile(resampled, [tail, 1 - tail], axis=0, method="inverted_cdf"))


def student(x: FloatArray, level: float) -> tuple[float, float]:
    """Student's interval for the mean."""
    half = float(special.stdtrit(len(x) - 1, (1 + level) / 2)) * x.std(ddof=1) / math.sqrt(len(x))
    return float(x.mean() - half), float(x.mean() + half)


def _first(curve: npt.ArrayLike, costs: npt.ArrayLike, target: float) -> float:
    values, spent = np.asarray(curve, np.float64), np.asarray(costs, np.float64)
    if values.ndim != 1 or values.shape != spent.shape:
        raise ValueError(f"a run has values of shape {values.shape} but costs of shape {spent.shape}")
    if not (np.diff(spent) >= 0).all():
        raise ValueError("the costs of a run must not decrease from one evaluation to the next")
    return float(min(spent[values <= target], default=math.inf))


def _pair(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    x, y = checked("values", a, 1), checked("values", b, 1)
    if len(x) != len(y):
        raise ValueError(f"values are paired by seed: got {len(x)} of the one and {len(y)} of the other")
    return x, y


def _paired(a: FloatArray, b: FloatArray, level: float) -> Interval:
    differences = _minus(a, b)
    n = len(differences)
    first, second = np.triu_indices(n)
    averages = np.sort(_minus(differences[first], -differences[second]) / 2)
    estimate = _middle(averages)
    # W, the sum of the ranks of the positive differences, says how many averages lie above 0.
    outside = int((_ranks_cdf(n) <= (1 - level) / 2).sum())
    if outside:
        return Interval(estimate, float(averages[outside - 1]), float(averages[-outside]), level)
    if (differences == differences[0]).all() and (n == 1 or differences[0]):
        # There is no spread. Equally good contestants whose runs fail independently differ in this way with
        # every seed with a probability of at most 2 / 4^n; where nothing fails, 2 / 2^n.
        chance = 2 / (4 if math.isinf(differences[0]) else 2) ** n
        only = float(differences[0])
        return Interval(estimate, only, only, min(level, 1 - chance))
    finite = np.concatenate([a, b])[np.isfinite(np.concatenate([a, b]))]
    worst = finite.max() if len(finite) else 0.0
    low, high = student(np.minimum(a, worst) - np.minimum(b, worst), level)
    return Interval(
        estimate,
        -math.inf if differences.min() == -math.inf else low,
        math.inf if differences.max() == math.inf else high,
        level,
    )


def _minus(a: FloatArray, b: FloatArray) -> FloatArray:
    """The difference, where infinity less infinity is 0."""
    with np.errstate(invalid="ignore"):
        return np.where(a == b, 0.0, a - b)


def _middle(x: FloatArray) -> float:
    """The median of sorted values, some of which may be infinite."""
    two = x[[(len(x) - 1) // 2, len(x) // 2]]
    return float(_minus(two[:1], -two[1:])[0] / 2)


def _inwards(x: FloatArray, k: int, level: float) -> float:
    """The bound between x[k] and x[k + 1] for a level between those of the two as lower ends."""
    n = len(x)
    levels = 1 - 2 * _coin_cdf(n)
    share = (levels[k] - level) / (levels[k] - levels[k + 1])
    weight = (n - k - 1) * share / (k + 1 + (n - 2 * k - 2) * share)
    # Nothing lies between a value and infinity.
    return float(x[k] + weight * (x[k + 1] - x[k])) if np.isfinite(x[k : k + 2]).all() else float(x[k])


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


@cache
def _coin_cdf(n: int) -> FloatArray:
    """P(no more than k heads of n), by k."""
    return np.cumsum([math.comb(n, k) / 2**n for k in range(n + 1)])


@cache
def _ranks_cdf(n: int) -> FloatArray:
    """P(W <= w), by w, of the sum W of those of the ranks 1 ... n whose coin shows heads."""
    chances = np.ones(1)
    for rank in range(1, n + 1):
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    return np.cumsum(chances)
