import functools
import itertools
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study_cases import interval_cases
from thalweg.study.statistics.profiles import algoperf, area, of_chosen_trials, profile, ratios, shares

CASES = interval_cases()

inf = math.inf
ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data" / "algoperf"

cost = st.one_of(st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 7.0]), st.just(inf))


def tables(*axes):
    return st.tuples(*(st.integers(1, n) for n in axes)).flatmap(
        lambda shape: st.lists(cost, min_size=math.prod(shape), max_size=math.prod(shape)).map(
            lambda values: np.reshape(values, shape)
        )
    )


def test_ratios_are_to_the_best_of_each_task():
    found = ratios([[1, 4, inf, inf], [2, 2, 3, inf]])
    assert found.tolist() == [[1, 2, inf, inf], [2, 1, 1, inf]]


def test_shares_and_areas_of_a_small_case_by_hand():
    # Two tasks; within 1, 2, 3, 4 times the best: the first 1/2, 1, 1, 1; the second 1/2, 1/2, 1/2, 1/2.
    costs = [[[1.0], [4.0]], [[9.0], [2.0]]]
    found = profile(costs, points=4, resamples=2)
    assert found.factors.tolist() == [1, 2, 3, 4]
    assert found.share.tolist() == [[0.5, 1, 1, 1], [0.5, 0.5, 0.5, 0.5]]
    assert found.score.tolist() == pytest.approx([(0.75 + 1 + 1) / 3, 0.5])
    # One repeat has nothing to draw from.
    assert found.share_low.tolist() == found.share_high.tolist() == found.share.tolist()


@given(tables(4, 5))
def test_a_share_is_how_many_tasks_are_within_the_factor(costs):
    factors = np.linspace(1, 4, 7)
    found = shares(ratios(costs), factors)
    for contestant, (row, share) in enumerate(zip(costs, found, strict=True)):
        for factor, value in zip(factors, share, strict=True):
            within = [
                row[task] <= factor * min(costs[:, task])
                for task in range(len(row))
                if not math.isinf(row[task])
            ]
            assert value == pytest.approx(sum(within) / len(row)), contestant
    assert (np.diff(found) >= 0).all()
    steps = (found[:, 1:] + found[:, :-1]) / 2
    assert area(found, factors) == pytest.approx(steps.mean(axis=1))


@given(tables(3, 3, 4), st.randoms())
def test_profiles_depend_on_no_order_and_on_no_unit(costs, random):
    found = profile(costs, resamples=2)
    contestants = random.sample(range(costs.shape[0]), costs.shape[0])
    moved = profile(costs[contestants], resamples=2)
    assert moved.share.tolist() == found.share[contestants].tolist()
    assert moved.score_high.tolist() == found.score_high[contestants].tolist()
    tasks = random.sample(range(costs.shape[1]), costs.shape[1])
    repeats = random.sample(range(costs.shape[2]), costs.shape[2])
    unit = 4.0 ** np.arange(costs.shape[1])[:, None]
    again = profile((costs * unit)[:, tasks][..., repeats], resamples=2)
    assert again.share == pytest.approx(found.share)
    assert ((found.score >= 0) & (found.score <= 1)).all()


def test_whoever_is_best_everywhere_scores_one_and_whoever_failed_everywhere_zero():
    costs = np.array([[1.0, 2, 3], [1.1, 2.2, 3.3], [inf, inf, inf]])[..., None]
    assert profile(costs).score[[0, 2]].tolist() == [1, 0]
    assert profile(np.full((2, 2, 1), inf)).score.tolist() == [0, 0]


def test_the_bootstrap_goes_over_repeats_by_the_laws_of_chance():
    # Of 3 repeats, drawn thrice, the median is the failed one with chance 7/27 (2 of 3 or 3 of 3 draws).
    costs = np.array([[[1.0, 1, 1]], [[2.0, 2, inf]]])
    for tail, low in ((0.25, 0), (0.27, profile(costs).score[1])):
        assert profile(costs, level=1 - 2 * tail, resamples=20000).score_low[1] == low
    assert profile(costs).score_high[1] == profile(costs).score[1] > 0


def test_repeats_are_drawn_together_for_all_contestants():
    # The second costs twice the first from every seed, whatever the seed does.
    seeds = np.exp(np.random.default_rng(0).normal(size=(1, 4, 7)) * 3)
    found = profile(np.concatenate([seeds, 2 * seeds]))
    assert found.score_low.tolist() == found.score_high.tolist()
    apart = np.exp(np.random.default_rng(0).normal(size=(2, 4, 7)) * 3)
    assert (profile(apart).score_low < profile(apart).score_high).all()


def test_drawing_tasks_too_is_wider_and_needs_no_repeats():
    costs = np.array([[1.0, 1, 1, 4], [2.0, 2, 2, 1]])[..., None]
    fixed, drawn = (profile(costs, tasks_too=too) for too in (False, True))
    assert fixed.score_low.tolist() == fixed.score_high.tolist()
    assert (drawn.score_low < drawn.score).all()
    assert (drawn.score < drawn.score_high).all()
    # All four are tasks of the first kind with chance (3/4)^4 = 0.32.
    assert drawn.score_high[0] == 1
    assert profile(costs, tasks_too=True, level=0.3).score_high[0] < 1


def test_the_bootstrap_is_decided_by_its_seed():
    costs = np.exp(np.random.default_rng(0).normal(size=(3, 4, 5)))
    one, same, other = (profile(costs, seed=seed, resamples=50) for seed in (0, 0, 1))
    assert one.score_low.tolist() == same.score_low.tolist() != other.score_low.tolist()
    assert (one.share_low <= one.share_high).all()


# The rules of AlgoPerf.


def test_a_study_counts_by_the_trial_that_got_there_first():
    seconds = [[30, 20, inf], [inf, inf, inf], [5, 7, 9]]
    evaluations = [[3, 4, inf], [inf, inf, inf], [2, 1, 1]]
    assert of_chosen_trials(seconds).tolist() == [20, inf, 5]
    assert of_chosen_trials(seconds, evaluations).tolist() == [30, inf, 7]
    # An index says nothing of a trial that never got there.
    assert of_chosen_trials([inf, 3], [0, 1]) == 3


@given(tables(2, 3, 4))
def test_by_least_time_the_choice_is_the_least(costs):
    assert of_chosen_trials(costs).tolist() == costs.min(axis=-1).tolist()


def test_a_cost_beyond_four_times_the_best_is_a_miss():
    assert algoperf([[1, 1], [4, 4.1]], {}).tolist() == [[1, 1], [4, inf]]
    assert algoperf([[1], [4]], {}, cap=3).tolist() == [[1], [inf]]


def test_a_missed_variant_is_a_missed_task_and_only_tasks_are_left():
    costs = np.array([[1, 2, 3, 1, 1], [1, 2, 3, inf, 1], [1, 2, 3, 1, 5]])
    found = algoperf(costs, {3: 1, 4: 2})
    assert found.tolist() == [[1, 2, 3], [1, inf, 3], [1, 2, inf]]
    assert costs[2, 4] == 5, "the costs given stay as they are"
    # A variant may stand before its task.
    assert algoperf([[inf, 1]], {0: 1}).tolist() == [[inf]]


@given(tables(3, 3, 3))
def test_resamples_are_treated_one_by_one(costs):
    variants = {costs.shape[-1] - 1: 0} if costs.shape[-1] > 1 else {}
    rules = functools.partial(algoperf, variants=variants)
    assert rules(costs).tolist() == [rules(part).tolist() for part in costs]
    assert ratios(costs).tolist() == [ratios(part).tolist() for part in costs]


def test_the_rules_are_applied_to_the_medians():
    costs = np.array([[[1.0, 1, 9], [1, 1, 1]], [[1, 1, 1], [inf, inf, 1]]])
    found = profile(costs, rules=functools.partial(algoperf, variants={1: 0}))
    assert found.score.tolist() == [1, 0]


@pytest.fixture(scope="module")
def competition():
    if not SHARED.exists():
        pytest.skip(f"no AlgoPerf data in {SHARED}")
    module = runpy.run_path(str(ROOT / "benchmarks" / "algoperf.py"))
    found = module["read"](SHARED)
    module["main"].__globals__["read"] = lambda folder: found  # once is enough
    return module["PUBLISHED"], found, module["main"]


def scores(found, evaluations):
    rules = functools.partial(algoperf, variants=found.variants)
    result = profile(of_chosen_trials(found.seconds, evaluations), rules=rules, resamples=200)
    assert ((result.score_low <= result.score) & (result.score <= result.score_high)).all()
    return {name: round(float(s), 4) for name, s in zip(found.submissions, result.score, strict=True)}


def test_all_published_scores_follow_by_the_published_choice(competition):
    published, found, _ = competition
    assert len(published) == 11
    assert scores(found, found.evaluations) == published


def test_by_the_written_choice_one_score_is_another(competition):
    published, found, _ = competition
    assert scores(found, None) == published | {"lawa_ema": 0.3434}


def test_each_rule_is_needed_for_the_published_scores(competition):
    published, found, _ = competition
    costs = of_chosen_trials(found.seconds, found.evaluations)
    for changed in (
        functools.partial(algoperf, variants=found.variants, cap=inf),
        lambda table: algoperf(table, {})[..., :8],
        functools.partial(algoperf, variants={}),
    ):
        ours = dict(zip(found.submissions, profile(costs, rules=changed, resamples=1).score, strict=True))
        assert any(abs(ours[name] - published[name]) > 1e-3 for name in published)


def test_the_script_prints_every_score(competition, capsys):
    published, _, main = competition
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "all published scores reproduced"
    for line, (name, score) in itertools.zip_longest(lines[1:-1], published.items()):
        assert line.split()[:3] == [name, f"{score:.4f}", f"{score:.4f}"]


@pytest.mark.parametrize("case", [c for c in CASES if c.kind == "profile score"], ids=lambda c: c.world)
def test_the_interval_of_a_score_holds_the_truth(case):
    assert case.measure(10, 400)[0] >= 0.9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: profile([[1, 2]]), r"costs must have 3 axes, not empty, got shape \(1, 2\)"),
        (lambda: profile([[[1, math.nan]]]), "found NaN"),
        (lambda: profile([[[1, 0]]]), "costs must be positive, got 0"),
        (lambda: profile([[[1]]], largest=1), "factors go from 1 to more at 2 points or more, got 1 and 100"),
        (lambda: profile([[[1]]], points=1), "got 4 and 1"),
        (lambda: profile([[[1]]], level=95), "level must lie between 0 and 1, got 95"),
        (lambda: of_chosen_trials([[1, 2]], [1, 2]), r"costs of shape \(1, 2\), but evaluations"),
        (lambda: algoperf([[1, 2]], {1: 1}), "task 1 cannot be a variant of task 1: of 2 tasks"),
        (lambda: algoperf([[1, 2]], {2: 1}), "task 2 cannot be a variant"),
        (lambda: algoperf([[1, 2]], {-1: 1}), "task -1 cannot be a variant"),
        (lambda: algoperf([[1, 2]], {1: 2}), "task 1 cannot be a variant of task 2"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
