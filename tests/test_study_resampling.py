import itertools
import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from study_cases import interval_cases
from thalweg.study.statistics.resampling import (
    Interval,
    against_best,
    beats,
    difference,
    median,
    medians,
    percentiles,
    ratio,
    to_target,
    verdict,
)

CASES = interval_cases()

inf = math.inf

# Multiples of 1/64, so that sums, differences and averages of two are exact.
figure = st.integers(1, 640).map(lambda i: i / 64)
outcome = st.one_of(figure, st.just(inf))


def lists(values, low, high=12):
    return st.integers(low, high).flatmap(lambda n: st.lists(values, min_size=n, max_size=n))


def pairs(values, low, high=12):
    return lists(st.tuples(values, values), low, high).map(lambda rows: tuple(zip(*rows, strict=True)))


def ends(interval):
    return interval.low, interval.high


# The median.


def test_the_median_interval_is_interpolated_between_ordered_values():
    # Of 10: [x1, x8] holds the median 97.85 times in 100, [x2, x7] 89.06; the share that lies between is
    # 0.3244, and the weight (10 - 2) 0.3244 / (2 + (10 - 4) 0.3244).
    found = median(range(10))
    assert found.estimate == 4.5
    assert ends(found) == pytest.approx((1.657658, 7.342342), abs=1e-6)
    assert found.level == 0.95


def test_at_a_level_that_ordered_values_have_nothing_is_interpolated():
    assert ends(median([3, 1, 4, 2, 6, 9], 1 - 2 / 64)) == (1, 9)
    assert ends(median([3, 1, 4, 2, 6, 9], 1 - 14 / 64)) == (2, 6)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.parametrize("sign", [1, -1])
def test_few_values_have_students_interval_on_the_logarithm_of_positive_ones(n, sign):
    values = sign * np.array([0.31, 0.35, 0.3, 0.42, 0.33])[:n]
    scale, back = (np.log, np.exp) if sign > 0 else (np.asarray, np.asarray)
    expected = [float(back(end)) for end in stats.ttest_1samp(scale(values), 0).confidence_interval()]
    assert astuple(median(values)) == pytest.approx((np.median(values), *expected, 0.95))


def test_a_failed_run_among_few_leaves_their_range_and_its_level():
    assert median([1, inf, 3]) == Interval(3, 1, inf, 0.75)
    assert median([2, 1, inf, 3, 4]) == Interval(3, 1, inf, 1 - 2 / 32)
    assert median([inf, inf]) == Interval(inf, inf, inf, 0.5)
    assert median([7]) == Interval(7, 7, 7, 0)


def test_among_many_failed_runs_leave_the_interval_open_above():
    found = median([1, 2, 3, 4, 5, inf, inf, inf])
    assert (found.estimate, found.high, found.level) == (4.5, inf, 0.95)
    assert 1 < found.low < 2
    # Between a value and infinity lies nothing: the lower end stays at the last value.
    assert ends(median([1, *[inf] * 5])) == (1, inf)


def test_a_spread_beyond_all_floats_is_infinite():
    assert median([1e-300, 1e300, 1]).high == inf


@given(lists(outcome, 1), st.randoms())
def test_the_median_does_not_depend_on_the_order_of_seeds(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    assert median(values) == median(shuffled)


@given(lists(outcome, 1), st.sampled_from([0.25, 2, 8]))
def test_the_median_scales(values, factor):
    found, scaled = median(values), median([factor * x for x in values])
    assert np.multiply(astuple(found)[:3], factor) == pytest.approx(astuple(scaled)[:3])


@given(lists(outcome, 6))
def test_the_range_of_ordered_values_goes_through_any_rising_function(values):
    level = 1 - 2 / 2 ** len(values)
    found, after = median(values, level), median([x**3 for x in values], level)
    assert [x**3 for x in ends(found)] == list(ends(after))


@given(lists(outcome, 1))
def test_the_median_lies_in_its_interval(values):
    found = median(values)
    assert found.low <= found.estimate <= found.high
    assert found.estimate == np.median(values)
    assert found.level <= 0.95


# Two contestants.


@pytest.mark.parametrize("n", [6, 9, 15, 30])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_difference_holds_what_the_signed_rank_test_does_not_reject(n, level):
    random = np.random.default_rng(n)
    a, b = random.normal(size=(2, n))
    found = difference(a, b, level)
    averages = [(x + y) / 2 for x, y in itertools.combinations_with_replacement(a - b, 2)]
    assert found.estimate == pytest.approx(np.median(averages))
    for end, inwards in ((found.low, 1e-9), (found.high, -1e-9)):
        for beyond in (inwards, -inwards):
            p = stats.wilcoxon(a - b - end - beyond, mode="exact").pvalue
            assert (p > 1 - level) == (beyond == inwards)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_pairs_have_students_interval(n):
    a, b = np.random.default_rng(n).normal(size=(2, n))
    expected = stats.ttest_rel(a, b).confidence_interval()
    assert ends(difference(a, b)) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        # All of the one fail and none of the other: not by chance, from 3 seeds on.
        ([inf] * 3, [1, 2, 3], Interval(inf, inf, inf, 0.95)),
        ([inf] * 2, [1, 2], Interval(inf, inf, inf, 1 - 2 / 16)),
        ([1, 2, 3, 4], [inf] * 4, Interval(-inf, -inf, -inf, 0.95)),
        ([1] * 6, [inf] * 6, Interval(-inf, -inf, -inf, 0.95)),
        # Both fail: no difference.
        ([inf] * 3, [inf] * 3, Interval(0, 0, 0, 0.95)),
        ([inf] * 8, [inf] * 8, Interval(0, 0, 0, 0.95)),
        # The same difference at every seed leaves no spread to go by.
        ([2, 3, 4], [1, 2, 3], Interval(1, 1, 1, 0.75)),
        ([2, 3, 4], [2, 3, 4], Interval(0, 0, 0, 0.95)),
        ([2], [1], Interval(1, 1, 1, 0)),
        ([1], [1], Interval(0, 0, 0, 0)),
    ],
)
def test_differences_at_their_extremes(a, b, expected):
    assert difference(a, b) == expected


def test_a_failed_run_counts_as_the_worst_seen_and_leaves_no_bound_beyond():
    found = difference([1, 1.1, 1.2], [5, inf, 5.3])
    at_worst = difference([1, 1.1, 1.2], [5, 5.3, 5.3])
    assert (found.low, found.high) == (-inf, at_worst.high)
    assert difference([5, inf, 5.3], [1, 1.1, 1.2]).high == inf
    both = difference([1, inf, 1.2], [1, 1.1, inf])
    assert ends(both) == (-inf, inf)


@given(pairs(outcome, 1))
def test_swapping_contestants_turns_the_difference_round(pair):
    a, b = pair
    there, back = difference(a, b), difference(b, a)
    assert (back.estimate, back.low, back.high) == pytest.approx((-there.estimate, -there.high, -there.low))
    assert there.level == back.level
    assert there.low <= there.estimate <= there.high
    inverse = ratio(b, a)
    assert (1 / inverse.high if inverse.high else inf) == pytest.approx(ratio(a, b).low)


@given(pairs(outcome, 1), st.randoms())
def test_the_difference_does_not_depend_on_the_order_of_seeds(pair, random):
    rows = list(zip(*pair, strict=True))
    random.shuffle(rows)
    assert astuple(difference(*zip(*rows, strict=True))) == pytest.approx(astuple(difference(*pair)))


@given(pairs(figure, 2), figure)
def test_the_difference_moves_and_the_ratio_scales_with_the_values(pair, by):
    a, b = np.array(pair)
    moved, scaled = difference(a + by, b), ratio(a * by, b)
    if moved.level == 0.95 == difference(a, b).level:
        assert np.add(ends(difference(a, b)), by) == pytest.approx(ends(moved))
    if scaled.level == 0.95 == ratio(a, b).level:
        assert np.multiply(ends(ratio(a, b)), by) == pytest.approx(ends(scaled))


@given(pairs(outcome, 6), st.data())
def test_with_seeds_enough_a_worse_run_never_helps(pair, data):
    a, b = pair
    worse = list(a)
    i = data.draw(st.integers(0, len(a) - 1))
    worse[i] += data.draw(outcome)
    before, after = difference(a, b), difference(worse, b)
    assert after.low >= before.low
    assert after.high >= before.high


@pytest.mark.parametrize("n", [1, 3, 10])
def test_who_beats_whom_is_a_share_with_its_exact_interval(n):
    for wins in range(n + 1):
        a, b = np.zeros(n), np.where(np.arange(n) < wins, 1, -1)
        low, high = stats.binomtest(wins, n).proportion_ci(method="exact")
        assert astuple(beats(a, b)) == pytest.approx((wins / n, low, high, 0.95))


def test_ties_and_common_failures_count_half():
    assert beats([1, 2, inf, inf], [1, 3, inf, 4]).estimate == pytest.approx((0.5 + 1 + 0.5 + 0) / 4)


@given(pairs(outcome, 1))
def test_chances_of_the_two_add_up_to_one_and_any_rising_function_keeps_them(pair):
    there, back = beats(*pair), beats(*reversed(pair))
    assert (back.low, back.high) == pytest.approx((1 - there.high, 1 - there.low))
    assert there == beats(*(np.log(side) for side in pair))


# Verdicts.


@pytest.mark.parametrize(
    ("low", "high", "options", "expected"),
    [
        (-2, -1, {}, "better"),
        (1, 2, {}, "worse"),
        (-1, 1, {}, "tie"),
        (0, 1, {}, "tie"),
        (-1, 0, {}, "tie"),
        (-2, -1, {"worth": 1}, "tie"),
        (-2, -1.1, {"worth": 1}, "better"),
        (1.1, 2, {"worth": 1}, "worse"),
        (1.1, 2, {"same": 1}, "worse"),
        (0.8, 0.9, {"same": 1}, "better"),
        (0.8, 1.1, {"same": 1}, "tie"),
        (0.96, 0.98, {"same": 1, "worth": 0.05}, "tie"),
        (1, 2, {"level": 0.96}, "tie"),
        (inf, inf, {}, "worse"),
    ],
)
def test_a_verdict_is_what_the_interval_says(low, high, options, expected):
    assert verdict(Interval(0, low, high, 0.95), **options) == expected


def test_the_best_and_how_far_the_others_are_behind():
    good = 1 + 0.01 * np.arange(8)
    close, far = good[::-1] + 0.001, good**2 + 1
    found = against_best([far, good, close, [inf] * 8])
    assert found.leader == 1
    assert found.behind[1] == Interval(0, 0, 0, 0.95)
    assert [verdict(b) for b in found.behind] == ["worse", "tie", "tie", "worse"]
    assert verdict(found.behind[0], worth=1.5) == "tie"
    assert ends(found.behind[0]) == ends(difference(far, good, 1 - 0.05 / 3))
    assert found.behind[0].level == 0.95
    relative = against_best([far, good, close], relative=True)
    assert ends(relative.behind[0]) == ends(ratio(far, good, 1 - 0.05 / 2))
    assert relative.behind[1] == Interval(1, 1, 1, 0.95)


def test_two_contestants_are_not_corrected_and_one_is_best():
    a, b = np.random.default_rng(0).normal(size=(2, 7))
    assert against_best([a, a + 1 + b]).behind[1] == difference(a + 1 + b, a)
    assert against_best([[1, 2]]).behind == (Interval(0, 0, 0, 0.95),)


def test_who_failed_everywhere_is_worse_and_where_all_did_nobody_is():
    assert [verdict(b) for b in against_best([[inf], [1]]).behind] == ["worse", "tie"]
    assert [verdict(b) for b in against_best([[inf] * 3, [inf, inf, 1]]).behind] == ["worse", "tie"]
    assert [verdict(b) for b in against_best([[inf] * 3, [inf] * 3]).behind] == ["tie", "tie"]
    assert [verdict(b) for b in against_best([[inf] * 8, [inf] * 8]).behind] == ["tie", "tie"]


def test_of_equal_medians_the_one_that_failed_less_leads():
    assert against_best([[1, 1, inf], [1, 1, 1]]).leader == 1


def test_too_few_seeds_for_all_differences_at_once_say_so():
    # Of three differences that nothing varies in, each at 75 %: together 25 %.
    found = against_best([[1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 6]])
    assert [b.level for b in found.behind] == [0.95, 0.25, 0.25, 0.25]
    assert {verdict(b) for b in found.behind} == {"tie"}
    assert against_best([[1, 2], [2, 3], [3, 4], [4, 5]]).behind[1].level == 0


@given(st.integers(0, 99), st.randoms())
def test_the_best_does_not_depend_on_the_order_of_contestants(seed, random):
    values = np.random.default_rng(seed).exponential(size=(5, 6))
    order = random.sample(range(5), 5)
    found, shuffled = against_best(values), against_best(values[order])
    assert order[shuffled.leader] == found.leader
    assert [found.behind[i] for i in order] == list(shuffled.behind)


# What a target costs.


def test_a_target_is_reached_at_the_first_evaluation_that_is_low_enough():
    curves = [[3, 2, 1, 2], [3, 2.5], [1], [math.nan, 2], [3, math.nan, 1.5, 0]]
    steps = [[0, 10, 20, 30], [0, 10], [5], [0, 10], [0, 10, 20, 30]]
    found = to_target(curves, steps, 2)
    assert found.tolist() == [10, inf, 5, 10, 20]
    assert median(found).estimate == 10
    assert to_target(curves, steps, 0).tolist() == [inf, inf, inf, inf, 30]
    assert to_target([], [], 1).shape == (0,)


@given(lists(figure, 1), figure, figure)
def test_a_harder_target_never_costs_less(curve, one, other):
    costs = [range(len(curve))]
    easy, hard = (to_target([curve], costs, t)[0] for t in (max(one, other), min(one, other)))
    assert easy <= hard
    assert (easy == inf) == (min(curve) > max(one, other))


@pytest.mark.parametrize("case", [c for c in CASES if c.cost == 1], ids=lambda c: f"{c.kind}: {c.world}")
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_hold_the_truth_as_often_as_they_say(case, seeds):
    held, told = case.measure(seeds, 400)
    assert held >= told - 0.035  # three standard errors of 400 repetitions


# Parts that the neighbours use.


def test_percentiles_are_values_that_were_drawn():
    drawn = np.array([[1.0, inf], [2, 1], [3, inf], [4, inf]])
    assert percentiles(drawn, 0.5).tolist() == [[1, 1], [3, inf]]
    # Of 1 ... 1000, and samples of 5: Student's 2.776 for the normal's 1.96, and sqrt(5 / 4).
    tail = stats.norm.cdf(-2.776445 * math.sqrt(5 / 4))
    ends = percentiles(np.arange(1, 100001.0), 0.95, 5)
    assert ends == pytest.approx([100000 * tail, 100000 * (1 - tail)], abs=1)
    assert medians(drawn.T).tolist() == [2.5, inf]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: median([]), "values must have 1 axis, not empty"),
        (lambda: median([[1, 2]]), r"values must have 1 axis, not empty, got shape \(1, 2\)"),
        (lambda: median([1, math.nan]), "found NaN"),
        (lambda: median([1, -inf]), "found NaN or -inf"),
        (lambda: median([1, 2], 95), "level must lie between 0 and 1, got 95"),
        (lambda: difference([1, 2], [1]), "paired by seed: got 2 of the one and 1 of the other"),
        (lambda: ratio([1, 0], [1, 2]), "positive values, got 0: take the difference"),
        (lambda: beats([1], [1], 0), "level must lie"),
        (lambda: difference([1], [1], 1), "level must lie"),
        (lambda: against_best([1, 2]), r"values must have 2 axes, not empty, got shape \(2,\)"),
        (lambda: against_best([[1], [2]], 1), "level must lie"),
        (lambda: verdict(Interval(0, 0, 0, 0.95), worth=-1), "that matters must be at least 0, got -1"),
        (lambda: to_target([[1, 2]], [[1]], 0), r"values of shape \(2,\) but costs of shape \(1,\)"),
        (lambda: to_target([[1, 2]], [[2, 1]], 0), "must not decrease"),
        (lambda: to_target([[1, 2]], [[1, 2]], math.nan), "target is NaN"),
        (lambda: to_target([[1, 2]], [], 1), "shorter"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
