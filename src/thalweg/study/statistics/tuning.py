"""What tuning gains: best-of-k curves, and how wide the region of good learning rates is.

Lower is better throughout; failed trials count as +inf. Bootstraps are decided by a seed.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from thalweg.study.statistics.resampling import (
    FloatArray,
    Interval,
    checked,
    fraction,
    median,
    medians,
    percentiles,
    student,
)

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BestOf:
    """What tuning with k = 1 ... n trials finds; every array has one entry for each k.

    Attributes:
        level: how often the interval holds the true value; it falls as k nears n, for n trials say little of
            what other n would find.
    """

    estimate: FloatArray
    low: FloatArray
    high: FloatArray
    level: FloatArray


@dataclass(frozen=True)
class GoodRegion:
    """The learning rates around the best at which the loss is about as low.

    Attributes:
        best: the rate with the lowest median loss; NaN, like the ends, where every median is infinite.
        low: the region's lower end.
        high: the region's upper end.
        decades: log10(high / low), with its interval; 0 where every median is infinite.
        open_below: the region reaches the lowest rate tried, and may go on: it is at least as wide.
        open_above: likewise the highest.
    """

    best: float
    low: float
    high: float
    decades: Interval
    open_below: bool
    open_above: bool


def best_of(
    validation: npt.ArrayLike,
    reported: npt.ArrayLike | None = None,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 1000,
) -> BestOf:
    """What the best of k trials drawn from the n that were run is like, for every k.

    The estimate goes through all draws without repetition, exactly. The interval is for new trials from the
    same search space; it says nothing of a fixed grid. That of the best validation value lies between ordered
    values and holds the truth at least as often as its level says; that of other values is a percentile
    bootstrap over trials, and does so 93 to 98 times in 100 from 5 trials on while k is no more than n / 5.
    No interval goes below the best seen, so that from there on levels fall: at k = n, every other search
    finds better.

    Args:
        validation: one value a trial, by which the best is chosen; tied trials are as likely to be it.
        reported: what is reported of the chosen trial, such as its test value. None: the validation value.
        level: the level asked for.
        seed: of the bootstrap.
        resamples: how many resamples it draws.

    Raises:
        ValueError: no trials, NaN among them, not as many reported values, or a level outside (0, 1).
    """
    chosen = checked("validation", validation, 1)
    values = chosen if reported is None else checked("reported", reported, 1)
    if values.shape != chosen.shape:
        raise ValueError(f"{len(chosen)} trials, but reported values of {len(values)}")
    n = len(chosen)
    below, above, reached = _quantile_ends(n, fraction(level))
    estimate = _of_best(chosen[None], values[None], _shared(chosen))[0]
    if reported is None:
        ordered = np.sort(chosen)
        return BestOf(estimate, ordered[below], ordered[above], reached)
    draws = np.random.default_rng(seed).integers(n, size=(resamples, n))
    resampled = _of_best(chosen[draws], values[draws], _chances(n))
    low, high = percentiles(resampled, level, max(2, n))
    return BestOf(estimate, low, high, reached)


def good_region(
    rates: npt.ArrayLike,
    losses: npt.ArrayLike,
    tolerance: float | None = None,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 1000,
) -> GoodRegion:
    """How far the learning rate may be from the best before the median loss is worse.

    Between rates the median loss is interpolated along log(rate); beside a rate at which the median is
    infinite, the region ends at the last that is not. It is the piece around the best rate.

    The width's interval is a percentile bootstrap over seeds, the same at all rates. Below 6 seeds that would
    be too narrow (with 3, no bootstrap of medians reaches 80 %); there it is Student's over the jackknife of
    the mean (log) losses. Given a tolerance, they hold the true width 92 to 99 times in 100.

    Args:
        rates: positive, all different.
        losses: rates x seeds, inf for a failed run.
        tolerance: good is a median loss up to (1 + tolerance) times the lowest. None: up to the upper end
            of the lowest median's own interval, the seeds' noise.
        level: the level asked for.
        seed: of the bootstrap.
        resamples: how many resamples it draws.

    Raises:
        ValueError: rates that are not positive or repeat, losses of another shape or NaN, a negative
            tolerance, or none with a single seed.
    """
    lr, table = np.asarray(rates, np.float64), checked("losses", losses, 2)
    if lr.shape != table.shape[:1]:
        raise ValueError(f"losses must be rates x seeds: {lr.size} rates, but losses of shape {table.shape}")
    if not (np.isfinite(lr) & (lr > 0)).all() or len(set(lr.tolist())) < len(lr):
        raise ValueError(f"learning rates must be positive and all different, got {lr.tolist()}")
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"the tolerance must be at least 0, got {tolerance:g}")
    if tolerance is None and table.shape[1] == 1:
        raise ValueError("with one seed there is no noise to go by: give a tolerance")
    order = np.argsort(lr)
    lr, table = lr[order], table[order]
    decades = np.log10(lr)
    middles = medians(table)
    lowest = int(middles.argmin())
    if math.isinf(middles[lowest]):
        nothing = Interval(0.0, 0.0, 0.0, level)
        return GoodRegion(math.nan, math.nan, math.nan, nothing, False, False)
    noise = 0.0
    if tolerance is None:
        of_lowest = median(table[lowest], level)
        noise = of_lowest.high - of_lowest.estimate
    ends = _ends(decades, middles, tolerance or 0.0, noise)
    return GoodRegion(
        float(lr[lowest]),
        float(10**ends.low),
        float(10**ends.high),
        _width_interval(decades, table, (tolerance or 0.0, noise), fraction(level), seed, resamples),
        bool(ends.low == decades[0]),
        bool(ends.high == decades[-1]),
    )


def _width_interval(
    decades: FloatArray,
    table: FloatArray,
    limit: tuple[float, float],
    level: float,
    seed: int,
    resamples: int,
) -> Interval:
    """The width of the good region and its interval; `limit` is the tolerance and the noise."""
    width = float(_ends(decades, medians(table), *limit).width)
    seeds = table.shape[1]
    if seeds == 1:
        return Interval(width, width, width, 0.0)
    if seeds < 6:
        low, high = _jackknife(decades, table, *limit, level)
    else:
        draws = np.random.default_rng(seed).integers(seeds, size=(resamples, seeds))
        drawn = medians(np.moveaxis(table[:, draws], 0, 1))
        low, high = percentiles(_ends(decades, drawn, *limit).width, level, seeds).tolist()
    return Interval(width, min(low, width), max(high, width), level)


def _chances(n: int) -> FloatArray:
    """How probable it is that the best of k of n trials has a rank: k x ranks, from 1 and from 0 on."""
    k, left = np.arange(1, n + 1)[:, None], n - np.arange(n)
    drawn = np.minimum(1.0, k / left)  # this rank, if none before it was
    before = np.cumprod(1 - drawn[:, :-1], axis=1)
    return np.asarray(drawn * np.concatenate([np.ones((n, 1)), before], axis=1))


def _shared(chosen: FloatArray) -> FloatArray:
    """`_chances`, where equal values share theirs."""
    chances = _chances(len(chosen))
    _, group = np.unique(np.sort(chosen), return_inverse=True)
    member = group[:, None] == group
    return np.asarray(chances @ (member / member.sum(axis=0)))


def _of_best(chosen: FloatArray, reported: FloatArray, chances: FloatArray) -> FloatArray:
    """The median of what is reported of the best of k, for samples of n trials each: samples x k."""
    ranked = np.take_along_axis(reported, np.argsort(chosen, axis=1), axis=1)
    order = np.argsort(ranked, axis=1)
    ordered = np.take_along_axis(ranked, order, axis=1)
    return np.stack([_weighted_medians(ordered, weights[order]) for weights in chances], axis=1)


def _weighted_medians(ordered: FloatArray, weights: FloatArray) -> FloatArray:
    """The medians of ordered rows whose weights add up to 1."""
    reached = np.cumsum(weights, axis=1)
    two = [(reached > half).argmax(axis=1)[:, None] for half in (0.5 - 1e-9, 0.5 + 1e-9)]
    low, high = (np.take_along_axis(ordered, i, axis=1)[:, 0] for i in two)
    return np.asarray((low + high) / 2)


def _quantile_ends(n: int, level: float) -> tuple[IntArray, IntArray, FloatArray]:
    """Between which ordered values the median best of k lies, and how surely, for k = 1 ... n."""
    # The best of k is below q half of the time where one trial is with chance 1 - 0.5^(1/k).
    chance = 1 - 0.5 ** (1 / np.arange(1, n + 1)[:, None])
    cdf = special.bdtr(np.arange(n), n, chance)  # P(x[i] > q), by k and i
    tail = (1 - level) / 2
    low = np.maximum((cdf <= tail).sum(axis=1) - 1, 0)
    high = np.minimum((cdf < 1 - tail).sum(axis=1), n - 1)
    k = np.arange(n)
    return low, high, np.minimum(level, cdf[k, high] - cdf[k, low])


class _Ends(NamedTuple):
    """Where good regions end, in decades; arrays of any one shape."""

    low: FloatArray
    high: FloatArray

    @property
    def width(self) -> FloatArray:
        return self.high - self.low


def _ends(decades: FloatArray, middles: FloatArray, tolerance: float, noise: float) -> _Ends:
    """The good regions of curves over the same rates, the last axis. Where all is infinite: of no width."""
    lowest = middles.argmin(axis=-1)[..., None]
    least = np.take_along_axis(middles, lowest, axis=-1)
    with np.errstate(invalid="ignore"):  # 0 times infinity: there, nothing is below the limit
        limit = least + tolerance * abs(least) + noise
    low = -_upper_end(-decades[::-1], middles[..., ::-1], len(decades) - 1 - lowest, limit)
    return _Ends(low, _upper_end(decades, middles, lowest, limit))


def _upper_end(decades: FloatArray, middles: FloatArray, lowest: IntArray, limit: FloatArray) -> FloatArray:
    """Where curves first rise above a limit beyond their lowest points."""
    at = np.arange(len(decades))
    bad = (at > lowest) & ~((middles <= limit) & np.isfinite(middles))
    ends = bad.any(axis=-1, keepdims=True)
    after = np.where(ends, bad.argmax(axis=-1)[..., None], len(decades) - 1)
    last = np.where(ends, after - 1, after)
    here, there = (np.take_along_axis(middles, i, axis=-1) for i in (last, after))
    rises = ends & np.isfinite(there)
    with np.errstate(invalid="ignore"):
        part = np.where(rises, (limit - here) / np.where(rises, there - here, 1), 0)
    return np.asarray(decades[last] + part * (decades[after] - decades[last]))[..., 0]


def _jackknife(
    decades: FloatArray, table: FloatArray, tolerance: float, noise: float, level: float
) -> tuple[float, float]:
    """Student's interval for the width of the mean curve's region, from the curves without one seed each."""
    seeds = table.shape[1]
    curves = np.log(table) if table.min() > 0 else table
    without = [curves, *(np.delete(curves, i, axis=1) for i in range(seeds))]
    means = np.stack([some.mean(axis=1) for some in without])
    width, *others = _ends(
        decades, np.exp(means) if table.min() > 0 else means, tolerance, noise
    ).width.tolist()
    low, high = student(seeds * width - (seeds - 1) * np.array(others), level)
    half = (high - low) / 2
    return max(0.0, width - half), width + half
