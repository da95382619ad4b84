"""How often the study's intervals hold the truth, by simulation.

    python benchmarks/intervals.py [REPETITIONS]

REPETITIONS (default 2000) is how many studies are made up for each figure; where each takes long, fewer. All
intervals are asked for 95 %. A figure in brackets is the level that the intervals themselves tell on
average, where that is less. Takes some minutes. (Not called coverage.py: numba would import it as the
package of that name.)
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats

from thalweg.study.statistics import profiles, resampling, tuning
from thalweg.study.statistics.resampling import FloatArray, Interval

SEEDS = (3, 4, 5, 6, 7, 10, 20, 30)

# Whether the truth was held (of several truths, the share), and the level told.
Outcome = tuple[float, float]


@dataclass(frozen=True)
class Case:
    """One kind of interval in one world.

    Attributes:
        kind: of interval.
        world: what the values are drawn from.
        draw: makes up a study of so many seeds (or trials) and looks whether its interval holds the truth.
        cost: how many times fewer repetitions it gets.
    """

    kind: str
    world: str
    draw: Callable[[np.random.Generator, int], Outcome]
    cost: int = 1

    def measure(self, seeds: int, repetitions: int) -> tuple[float, float]:
        """The share of studies whose interval holds the truth, and the mean level told."""
        random = np.random.default_rng(seeds)
        outcomes = [self.draw(random, seeds) for _ in range(max(1, repetitions // self.cost))]
        held, told = np.mean(outcomes, axis=0)
        return float(held), float(told)


def _outcome(found: Interval, truth: float) -> Outcome:
    return found.low <= truth <= found.high, found.level


# What one contestant's seeds give, and the true median.
def _normal(random: np.random.Generator, shape: int | tuple[int, ...]) -> FloatArray:
    return 1 + 0.05 * random.normal(size=shape)


def _lognormal(random: np.random.Generator, shape: int | tuple[int, ...]) -> FloatArray:
    return np.exp(random.normal(size=shape))


def _exponential(random: np.random.Generator, shape: int | tuple[int, ...]) -> FloatArray:
    return random.exponential(size=shape)


def _failing(share: float) -> Callable[[np.random.Generator, int | tuple[int, ...]], FloatArray]:
    def draw(random: np.random.Generator, shape: int | tuple[int, ...]) -> FloatArray:
        return np.where(random.random(shape) < share, np.inf, _lognormal(random, shape))

    return draw


WORLDS = {
    "normal": (_normal, 1.0),
    "lognormal": (_lognormal, 1.0),
    "exponential": (_exponential, float(np.log(2))),
    "10 % fail": (_failing(0.1), float(np.exp(stats.norm.ppf(0.5 / 0.9)))),
    "30 % fail": (_failing(0.3), float(np.exp(stats.norm.ppf(0.5 / 0.7)))),
}


def _percentile_bootstrap(values: FloatArray) -> Interval:
    """What `resampling.median` is better than."""
    draws = np.random.default_rng(0).integers(len(values), size=(500, len(values)))
    low, high = np.quantile(np.median(values[draws], axis=1), [0.025, 0.975], method="inverted_cdf")
    return Interval(float(np.median(values)), low, high, 0.95)


def _medians() -> Iterator[Case]:
    for world, (sample, truth) in WORLDS.items():
        yield Case("median", world, lambda r, n, s=sample, t=truth: _outcome(resampling.median(s(r, n)), t))
    for world, (sample, truth) in WORLDS.items():
        yield Case(
            "median, percentile bootstrap",
            world,
            lambda r, n, s=sample, t=truth: _outcome(_percentile_bootstrap(s(r, n)), t),
            2,
        )


def _comparisons() -> Iterator[Case]:
    for world, (sample, _) in WORLDS.items():
        yield Case(
            "difference", world, lambda r, n, s=sample: _outcome(resampling.difference(s(r, n), s(r, n)), 0)
        )

    def shifted(random: np.random.Generator, n: int) -> Outcome:
        seed, a, b = random.normal(size=(3, n))
        return _outcome(resampling.difference(a + seed + 1, 3 * b + seed), 1)

    def scaled(random: np.random.Generator, n: int) -> Outcome:
        a, b = np.exp(random.normal(size=(2, n)))
        return _outcome(resampling.ratio(3 * a, b), 3)

    def rounded(random: np.random.Generator, n: int) -> Outcome:
        a, b = np.round(0.9 + 0.01 * random.normal(size=(2, n)), 2)
        return _outcome(resampling.difference(a, b), 0)

    yield Case("difference", "shifted, uneven noise", shifted)
    yield Case("difference", "two digits", rounded)
    yield Case("ratio", "lognormal", scaled)

    def beats(random: np.random.Generator, n: int, margin: float, share: float) -> Outcome:
        a, b = random.normal(size=(2, n))
        b, both = b + margin, random.random(n) < share
        chance = (1 - share) * stats.norm.cdf(margin / np.sqrt(2)) + share / 2
        return _outcome(resampling.beats(np.where(both, np.inf, a), np.where(both, np.inf, b)), float(chance))

    yield Case("beats", "even", lambda r, n: beats(r, n, 0, 0))
    yield Case("beats", "mostly wins", lambda r, n: beats(r, n, 2, 0))
    yield Case("beats", "mostly wins, 30 % ties", lambda r, n: beats(r, n, 2, 0.3))


def _contests() -> Iterator[Case]:
    def verdicts(values: FloatArray) -> list[str]:
        found = resampling.against_best(values, relative=True)
        return [resampling.verdict(interval, same=1) for interval in found.behind]

    def best(random: np.random.Generator, n: int, count: int) -> Outcome:
        noise = np.where(np.arange(count) % 4 == 0, 0.3, 0.1)[:, None]
        values = np.exp(noise * random.normal(size=(count, n)))
        values[1:] *= 1.05
        return verdicts(values)[0] != "worse", 0.95

    def level(random: np.random.Generator, n: int, count: int, share: float) -> Outcome:
        values = _failing(share)(random, (count, n))
        return "worse" not in verdicts(values), 0.95

    for count in (2, 8, 20):
        uneven = f"{count}, uneven noise"
        yield Case("true best never 'worse'", uneven, lambda r, n, c=count: best(r, n, c), 1 + count // 8)
    for count in (2, 8, 20):
        equal = f"{count}, lognormal"
        yield Case("equals: none 'worse'", equal, lambda r, n, c=count: level(r, n, c, 0), 1 + count // 8)
    yield Case("equals: none 'worse'", "8, 10 % fail", lambda r, n: level(r, n, 8, 0.1), 4)


@cache
def _typical_test(k: int) -> float:
    """The median test value of the validation-best of k, by brute force."""
    random = np.random.default_rng(0)
    validation = random.exponential(size=(100_000, k))
    chosen = validation.min(axis=1)
    return float(np.median(chosen + 0.3 * random.normal(size=len(chosen))))


def _tuning() -> Iterator[Case]:
    def best_of(random: np.random.Generator, n: int, part: float, what: str) -> Outcome:
        k = max(1, int(part * n))
        validation = random.exponential(size=n)
        if what == "validation":
            found, truth = tuning.best_of(validation), -np.log(0.5) / k
        else:
            test = validation + 0.3 * random.normal(size=n)
            found, truth = tuning.best_of(validation, test, resamples=300), _typical_test(k)
        return found.low[k - 1] <= truth <= found.high[k - 1], found.level[k - 1]

    for what, cost in (("validation", 1), ("test", 4)):
        for part, name in ((0, "1"), (0.2, "0.2 n"), (0.5, "0.5 n"), (1, "n")):
            yield Case(
                f"best of k: {what}", f"k = {name}", lambda r, n, p=part, w=what: best_of(r, n, p, w), cost
            )

    decades = np.arange(-4, 0.5, 0.5)
    curve = 0.3 + 0.15 * (decades + 2.2) ** 2

    def width(random: np.random.Generator, n: int, noise: float, tolerance: float) -> Outcome:
        truth = tuning.good_region(10**decades, curve[:, None], tolerance).decades.estimate
        own = random.normal(size=(len(decades), n)) + random.normal(size=n)  # half of it is the seed's
        losses = curve[:, None] * np.exp(noise * own / np.sqrt(2))
        return _outcome(tuning.good_region(10**decades, losses, tolerance, resamples=500).decades, truth)

    for noise in (0.005, 0.03, 0.1):
        for tolerance in (0.05, 0.2):
            yield Case(
                "good region",
                f"noise {noise:.1%}, tolerance {tolerance:.0%}",
                lambda r, n, e=noise, t=tolerance: width(r, n, e, t),
                4,
            )


def _profiles() -> Iterator[Case]:
    centres = np.exp(np.random.default_rng(0).normal(size=(6, 8)) * 0.5)

    def score(random: np.random.Generator, n: int, noise: float) -> Outcome:
        costs = centres[..., None] * np.exp(noise * random.normal(size=(*centres.shape, n)))
        found = profiles.profile(costs, resamples=300)
        truth = profiles.profile(centres[..., None], resamples=1).score
        return float(np.mean((found.score_low <= truth) & (truth <= found.score_high))), 0.95

    for noise in (0.05, 0.2):
        yield Case("profile score", f"noise {noise:.0%}", lambda r, n, e=noise: score(r, n, e), 8)

    def tasks(random: np.random.Generator, n: int) -> FloatArray:
        offsets = np.linspace(0, 0.5, 6)[:, None, None]
        return np.exp(offsets + 0.5 * random.normal(size=(6, n, 1)) + 0.1 * random.normal(size=(6, n, 5)))

    @cache
    def on_all_tasks() -> FloatArray:
        return profiles.profile(tasks(np.random.default_rng(0), 20_000), resamples=1).score

    def other_tasks(random: np.random.Generator, n: int) -> Outcome:
        found, truth = profiles.profile(tasks(random, n), tasks_too=True, resamples=300), on_all_tasks()
        return float(np.mean((found.score_low <= truth) & (truth <= found.score_high))), 0.95

    yield Case("profile score, other tasks", "as many tasks, 5 seeds", other_tasks, 8)


CASES = [*_medians(), *_comparisons(), *_contests(), *_tuning(), *_profiles()]


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print(f"{'interval':28} {'world':29}" + "".join(f"{n:>7}       " for n in SEEDS) + "  seeds or trials")
    for case in CASES:
        cells = []
        for n in SEEDS:
            held, told = case.measure(n, repetitions)
            cells.append(f"{held:.3f}" + (f" [{told:.2f}]" if told < 0.9495 else " " * 7))
        print(
            f"{case.kind:28} {case.world:29}" + "".join(f"{cell:14}" for cell in cells).rstrip(), flush=True
        )


if __name__ == "__main__":
    main()
