import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study_cases import interval_cases
from thalweg.study.statistics.resampling import median
from thalweg.study.statistics.tuning import best_of, good_region

CASES = interval_cases()

inf = math.inf

# Few different values, so that many are tied; inf for failed trials.
trials = st.integers(1, 6).flatmap(
    lambda n: st.lists(
        st.tuples(st.sampled_from([0.25, 0.5, 1.0, 2.0, inf]), st.integers(1, 99)), min_size=n, max_size=n
    )
)


def drawn(validation, figures, k):
    """What is shown of the best of every k trials, each as often as it should be."""
    found = []
    for draw in itertools.combinations(range(len(validation)), k):
        least = min(validation[i] for i in draw)
        tied = [i for i in draw if validation[i] == least]
        found += [figures[i] for i in tied for _ in range(math.lcm(*range(1, k + 1)) // len(tied))]
    return found


@given(trials)
def test_best_of_k_goes_through_all_draws(rows):
    validation, test = (np.array(column, float) for column in zip(*rows, strict=True))
    best, shown = best_of(validation), best_of(validation, test, resamples=2)
    for k in range(1, len(rows) + 1):
        values, tests = drawn(validation, validation, k), drawn(validation, test, k)
        assert best.estimate[k - 1] == np.median(values)
        assert shown.estimate[k - 1] == np.median(tests)


def test_best_of_k_between_ordered_values():
    # Of 8 trials, k = 1: the median's interval is [x1, x8] or, the level allowing, [x2, x7]; and below
    # the lower end is the truth no more than half the rest of the time.
    values = np.arange(8) + 1.0
    assert (best_of(values).low[0], best_of(values).high[0]) == (1, 8)
    assert (best_of(values, level=0.9).low[0], best_of(values, level=0.9).high[0]) == (2, 7)
    assert best_of(values).level[0] == 0.95
    # k = 8: half of all searches find better than each of 8 trials would; one in 0.5^(1/8) does not.
    worse = 1 - 0.5 ** (1 / 8)
    last = best_of(values)
    assert last.low[-1] == 1
    high = int(last.high[-1])
    missed = sum(math.comb(8, i) * worse**i * (1 - worse) ** (8 - i) for i in range(high, 9))
    one_less = sum(math.comb(8, i) * worse**i * (1 - worse) ** (8 - i) for i in range(high - 1, 9))
    assert missed <= 0.025 < one_less
    assert last.level[-1] == pytest.approx(0.5 - missed)


@given(trials, st.randoms())
def test_best_of_k_does_not_depend_on_the_order_of_trials(rows, random):
    shuffled = random.sample(rows, len(rows))
    for column in (None, 1):
        one, other = (
            best_of([row[0] for row in some], column and [row[column] for row in some], resamples=2)
            for some in (rows, shuffled)
        )
        assert one.estimate.tolist() == other.estimate.tolist()


@given(trials)
def test_more_trials_never_find_worse_and_any_rising_function_keeps_their_order(rows):
    found, risen = (best_of([f(row[0]) for row in rows]) for f in (float, lambda x: 4 * x + 1))
    for name in ("estimate", "low", "high"):
        curve = getattr(found, name)
        assert (curve[1:] <= curve[:-1]).all()
        assert (4 * curve + 1).tolist() == getattr(risen, name).tolist()
    assert (found.low <= found.estimate).all()
    assert (found.level <= 0.95).all()


def test_of_failed_trials_the_median_is_infinite_until_one_that_is_not_is_likely():
    values = [inf, inf, inf, 2.0, 1.0]
    assert best_of(values).estimate.tolist() == [inf, 2, 1, 1, 1]
    assert best_of([inf, inf]).estimate.tolist() == [inf, inf]


def test_the_bootstrap_is_decided_by_its_seed():
    validation, test = np.random.default_rng(0).normal(size=(2, 12))
    one, same, other = (best_of(validation, test, seed=seed, resamples=50) for seed in (0, 0, 1))
    assert (one.low.tolist(), one.high.tolist()) == (same.low.tolist(), same.high.tolist())
    assert (one.low.tolist(), one.high.tolist()) != (other.low.tolist(), other.high.tolist())
    # The validation-best is the same trial in both: in 12 draws of 12, one of the best half is there.
    assert best_of(validation, validation).high[-1] <= np.sort(validation)[6]
    assert (one.low <= one.estimate).all()
    assert (one.estimate <= one.high).all()
    wide, narrow = (best_of(validation, test, level=level) for level in (0.95, 0.5))
    assert (wide.high - wide.low).sum() > 1.5 * (narrow.high - narrow.low).sum()


# The region of good learning rates.

RATES = [0.001, 0.01, 0.1, 1.0]


def test_the_region_ends_where_the_interpolated_loss_is_no_longer_good():
    found = good_region(RATES, [[3.0], [1.0], [1.5], [9.0]], tolerance=1)
    assert found.best == 0.01
    # Down by half of the way to 3; up by (2 - 1.5) / 7.5 of the way to 9.
    assert found.low == pytest.approx(10**-2.5)
    assert found.high == pytest.approx(10 ** (-1 + 0.5 / 7.5))
    assert found.decades.estimate == pytest.approx(0.5 + 1 + 0.5 / 7.5)
    assert (found.decades.low, found.decades.high, found.decades.level) == (*[found.decades.estimate] * 2, 0)
    assert not found.open_below
    assert not found.open_above


def test_the_region_is_the_piece_around_the_best():
    losses = [[1.2], [9.0], [1.0], [9.0], [1.1]]
    found = good_region([1, 10, 100, 1000, 10000], losses, tolerance=0.5)
    assert found.best == 100
    assert found.decades.estimate == pytest.approx(2 * 0.5 / 8)


def test_beside_failed_rates_the_region_ends_at_the_last_that_did_not():
    found = good_region(RATES, [[inf, 1], [1, 1], [1.2, 1.2], [inf, inf]], tolerance=0.3)
    assert (found.low, found.high) == (pytest.approx(0.01), pytest.approx(0.1))
    assert good_region(RATES, [[inf]] * 4, 0.1).decades.estimate == 0
    assert math.isnan(good_region(RATES, [[inf]] * 4, 0).best)


def test_a_region_that_reaches_an_end_of_the_rates_is_open_there():
    assert good_region(RATES, [[1.0], [1.1], [3.0], [3.0]], 0.2).open_below
    assert good_region(RATES, [[9.0], [3.0], [1.1], [1.0]], 0.2).open_above
    found = good_region(RATES, [[1.0], [1.0], [1.0], [1.0]], 0)
    assert (found.open_below, found.open_above, found.decades.estimate) == (True, True, 3)
    assert good_region([0.1], [[1.0]], 0).decades.estimate == 0


def test_without_a_tolerance_good_is_within_the_noise_of_the_best():
    losses = np.array([[2.0, 2, 2], [1, 1.1, 1.2], [1.5, 1.5, 1.5], [2, 2, 2]])
    noise = median(losses[1]).high - 1.1
    found = good_region(RATES, losses)
    same = good_region(RATES, losses, tolerance=noise / 1.1)
    assert found.high == pytest.approx(same.high)
    assert found.low == pytest.approx(same.low)
    # A failed run at the best rate: no bound on its noise, and every rate at which most runs end is good.
    assert good_region(RATES, [[3, 3, 3], [1, 1, inf], [2, 2, 2], [inf, inf, 0]]).high == pytest.approx(0.1)


@pytest.mark.parametrize("seeds", [3, 5, 6, 8])
def test_the_intervals_of_the_width_know_noise_from_none(seeds):
    centre = np.array([[3.0], [1.0], [1.5], [9.0]])
    noise = np.random.default_rng(0).normal(size=(4, seeds))
    exact = good_region(RATES, np.repeat(centre, seeds, axis=1), tolerance=1).decades
    assert exact.low == pytest.approx(exact.high)
    little, much = (good_region(RATES, centre * np.exp(s * noise), 1).decades for s in (0.01, 0.1))
    for found in (little, much):
        assert found.low < found.estimate < found.high
        assert found.level == 0.95
    assert 5 < (much.high - much.low) / (little.high - little.low) < 20
    again, other = (
        good_region(RATES, centre * np.exp(0.1 * noise), 1, seed=s, resamples=50).decades for s in (0, 1)
    )
    assert again == good_region(RATES, centre * np.exp(0.1 * noise), 1, seed=0, resamples=50).decades
    assert (again == other) == (seeds < 6), "few seeds need no bootstrap"


def test_one_failed_run_of_many_does_not_end_the_region():
    losses = np.repeat([[3.0], [1.0], [1.5], [9.0]], 9, axis=1)
    exact = good_region(RATES, losses, tolerance=1).decades
    losses[2, 4] = inf
    # Of 9 draws, 5 or more are of that run one time in 600.
    assert good_region(RATES, losses, tolerance=1).decades == exact
    # With 5 seeds: the mean is infinite there, and the interval reaches from its region to the median's.
    losses[2, 3] = inf
    found = good_region(RATES, losses[:, :5], tolerance=1).decades
    assert (found.low, found.estimate, found.high) == (0.5, exact.estimate, exact.estimate)


@pytest.mark.parametrize("seeds", [2, 4, 5])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_region_may_have_losses_of_any_sign_and_failed_runs(seeds, sign):
    losses = 10 * sign + np.random.default_rng(0).normal(size=(4, seeds)) + np.array([[1], [0], [0.5], [5]])
    losses[3, 0] = inf
    found = good_region(RATES, losses, 0.1).decades
    assert 0 <= found.low <= found.estimate <= found.high <= 5


table = st.integers(2, 6).flatmap(
    lambda rates: st.integers(1, 6).flatmap(
        lambda seeds: st.lists(
            st.lists(st.one_of(st.integers(1, 40), st.just(inf)), min_size=seeds, max_size=seeds),
            min_size=rates,
            max_size=rates,
        )
    )
)


@given(table, st.sampled_from([0, 0.1, 1]), st.randoms())
def test_the_region_depends_on_neither_order_nor_unit(losses, tolerance, random):
    rates = 10.0 ** np.arange(len(losses))
    found = good_region(rates, losses, tolerance, resamples=20)
    order = random.sample(range(len(losses)), len(losses))
    shuffled = good_region(rates[order], [losses[i] for i in order], tolerance, resamples=20)
    scaled = good_region(2 * rates, 4 * np.array(losses, float), tolerance, resamples=20)
    assert repr(shuffled) == repr(found)
    assert scaled.decades.estimate == pytest.approx(found.decades.estimate)
    assert scaled.decades.high == pytest.approx(found.decades.high)
    assert scaled.low == pytest.approx(2 * found.low, nan_ok=True)
    assert found.decades.low <= found.decades.estimate <= found.decades.high
    middles = np.median(losses, axis=1)
    if not math.isinf(middles.min()):
        assert found.low <= found.best <= found.high
        within = middles[(rates >= found.low * 1.001) & (rates <= found.high * 0.999)]
        assert (within <= middles.min() * (1 + tolerance) * (1 + 1e-9)).all()


@pytest.mark.parametrize("case", [c for c in CASES if c.kind == "good region"], ids=lambda c: c.world)
@pytest.mark.parametrize(("seeds", "repetitions"), [(3, 2000), (8, 300)])
def test_the_interval_of_the_width_holds_the_truth(case, seeds, repetitions):
    assert case.measure(seeds, repetitions)[0] >= 0.9


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.kind.startswith("best of k")], ids=lambda c: f"{c.kind}, {c.world}"
)
def test_the_interval_of_the_best_holds_the_truth_as_often_as_it_says(case):
    held, told = case.measure(10, 400)
    assert held >= told - 0.035


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: best_of([]), "validation must have 1 axis, not empty"),
        (lambda: best_of([1, math.nan]), "validation must be numbers.*found NaN"),
        (lambda: best_of([1, 2], [1]), "2 trials, but reported values of 1"),
        (lambda: best_of([1, 2], [1, -inf]), "reported must be numbers"),
        (lambda: best_of([1, 2], level=2), "level must lie between 0 and 1, got 2"),
        (lambda: good_region([1, 2], [[1]]), r"2 rates, but losses of shape \(1, 1\)"),
        (lambda: good_region([[1, 2]], [[1]]), r"rates x seeds"),
        (lambda: good_region([1, 0], [[1], [2]], 0), "must be positive and all different"),
        (lambda: good_region([1, inf], [[1], [2]], 0), "must be positive and all different"),
        (lambda: good_region([1, 1], [[1], [2]], 0), "must be positive and all different"),
        (lambda: good_region([1], [1]), r"losses must have 2 axes, not empty, got shape \(1,\)"),
        (lambda: good_region([1], [[1]]), "with one seed there is no noise to go by: give a tolerance"),
        (lambda: good_region([1], [[1, 2]], -0.1), "tolerance must be at least 0, got -0.1"),
        (lambda: good_region([1], [[1, 2]], 0.1, level=0), "level must lie"),
        (lambda: good_region([1], [[1] * 9], 0.1, level=0), "level must lie"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
