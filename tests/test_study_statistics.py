import math

import numpy as np
import pytest

from study_cases import BLOBS, GOOD, NEAR, WORSE, small, study_of
from thalweg.study.errors import StudyError
from thalweg.study.statistics import findings as statistics
from thalweg.study.study import Study


def find(**contestants):
    return statistics.find(study_of(contestants))


def test_contestants_are_ranked_and_told_apart_by_their_intervals():
    findings = find(sgd={"final": WORSE}, adam={"final": GOOD}, nadam={"final": NEAR})
    assert [s.name for s in findings.summaries] == ["adam", "nadam", "sgd"]
    assert findings.verdicts == {"adam": "best", "nadam": "tie", "sgd": "worse"}
    assert [s.name for s in findings.tied] == ["adam", "nadam"]
    assert [s.name for s in findings.behind] == ["sgd"]
    lag = findings.lag(findings.summaries[2])
    assert lag.estimate == pytest.approx(1.9, abs=0.1)
    assert lag.low > 1
    assert findings.beats(findings.summaries[0], findings.summaries[2]).estimate == 1


def test_losses_that_may_be_negative_are_compared_by_their_difference():
    findings = find(sgd={"final": [x - 1 for x in WORSE]}, adam={"final": [x - 1 for x in GOOD]})
    assert not findings.relative
    assert findings.lag(findings.summaries[1]).estimate == pytest.approx(0.115, abs=0.01)
    assert findings.verdicts == {"adam": "best", "sgd": "worse"}


@pytest.mark.parametrize(("values", "low", "high"), [((0.99, 0.95, 0.9), 0, 1), ((0.01, 0.05), 0, 1)])
def test_an_accuracy_stays_between_nothing_and_everything(values, low, high):
    study = study_of({"sgd": {"final": [0.1] * len(values)}})
    for run, value in zip(study.runs.values(), values, strict=True):
        run.end["test_accuracy"] = value
    interval = statistics.find(study).summaries[0].best.median("test_accuracy")
    assert interval.estimate == pytest.approx(np.median(values))
    assert low <= interval.low < min(values)
    assert max(values) < interval.high <= high


def test_who_failed_is_last_and_not_tied():
    findings = find(sgd={"search": {0.1: [math.inf], 1.0: [math.inf]}}, adam={"final": GOOD})
    assert findings.verdicts == {"adam": "best", "sgd": "failed"}
    assert [s.name for s in findings.failed] == ["sgd"]
    assert findings.summaries[1].best is None
    assert findings.summaries[1].failed == 2


def test_nothing_that_went_through_leaves_nobody():
    findings = find(sgd={"search": {0.1: [math.inf]}}, adam={"search": {0.1: [math.inf]}})
    assert findings.leader is None
    assert findings.tied == findings.behind == ()
    assert findings.seeds == 0


def test_without_finals_the_search_so_far_ranks_by_validation():
    search = {"sgd": {"search": {0.1: [0.5, 0.6], 1.0: [0.3, 0.3]}}, "adam": {"search": {0.1: [0.2, 0.2]}}}
    findings = statistics.find(study_of(search, complete=False, total=20))
    assert findings.ranked_by == "val_loss"
    assert [s.name for s in findings.summaries] == ["adam", "sgd"]
    assert findings.summaries[1].best.lr == 1.0


def test_the_best_of_the_search_counts_failures_as_worst():
    search = {0.1: [0.4, 0.4, 0.4], 0.2: [0.1, math.inf, math.inf], 0.3: [0.2, 0.2, math.inf]}
    (summary,) = find(sgd={"search": search}).summaries
    assert summary.best.lr == 0.3
    assert summary.failed == 3
    assert summary.on_edge


def test_the_sweep_is_of_the_learning_rate_alone_and_sorted():
    study = study_of({"sgd": {"search": {1.0: [0.5], 0.1: [0.3], 0.3: [0.31]}, "final": GOOD}})
    entries = [*study.entries]
    further = statistics.find(study).summaries[0]
    assert [s.lr for s in further.sweep] == [0.1, 0.3, 1.0]
    tuned = entries[0].__class__("more", "sgd", "search", {"lr": 0.2, "beta": 0.5}, 0, None)
    study.entries = (*entries, tuned)
    study.runs["more"] = study.runs[entries[0].id]
    (summary,) = statistics.find(study).summaries
    assert [s.lr for s in summary.sweep] == [0.1, 0.3, 1.0]
    assert len(summary.search) == 4
    assert summary.search[-1].hyperparameters == {"lr": 0.2, "beta": 0.5}


def test_a_rate_that_was_stopped_early_was_tried_too():
    study = study_of({"sgd": {"search": {0.1: [0.3], 1.0: [0.1]}, "final": GOOD, "lr": 1.0}})
    assert statistics.find(study).summaries[0].on_edge
    first = study.entries[0]
    study.entries = (*study.entries, first.__class__("stopped", "sgd", "search", {"lr": 10.0}, 0, 0.25))
    study.runs["stopped"] = study.runs[first.id]
    (summary,) = statistics.find(study).summaries
    assert not summary.on_edge
    assert summary.rates == [0.1, 1.0, 10.0]


def test_the_region_and_best_of_k_come_from_the_search():
    search = {0.01: [0.9, 0.8], 0.1: [0.30, 0.31], 1.0: [0.31, 0.32], 10.0: [math.inf] * 2}
    (summary,) = find(sgd={"search": search, "final": GOOD}).summaries
    assert (summary.region.best, summary.region.open_below) == (0.1, False)
    assert summary.region.high == 1.0, "beside a rate that fails, the region ends at the last good one"
    assert summary.best_of.estimate[-1] == pytest.approx(0.305)
    assert np.all(np.diff(summary.best_of.estimate[1:]) <= 0)
    assert find(sgd={"final": GOOD}).summaries[0].region is None


def test_the_gain_over_the_default_is_a_ratio_by_seed():
    given = {"search": {0.1: [0.1], 1.0: [0.2]}, "final": GOOD, "default": [2 * x for x in GOOD]}
    gain = find(sgd=given).summaries[0].gain
    assert (gain.estimate, gain.low, gain.high) == pytest.approx((2, 2, 2))
    assert find(sgd={"final": GOOD}).summaries[0].gain is None
    assert find(sgd={**given, "default": [math.inf, *GOOD[1:]]}).summaries[0].gain is None
    assert find(sgd={**given, "default": [-1.0, *GOOD[1:]]}).summaries[0].gain is None
    assert find(sgd={**given, "default": GOOD[:3]}).summaries[0].gain is None, "still running"


def test_a_curve_has_the_steps_that_all_runs_share():
    (summary,) = find(sgd={"final": [0.1, 0.3, 0.2]}).summaries
    curve = summary.best.curve("val_loss")
    assert curve.step.tolist() == [5, 10, 15]
    assert curve.epoch.tolist() == [0.5, 1, 1.5]
    assert (curve.median[-1], curve.low[-1], curve.high[-1]) == (0.2, 0.1, 0.3)
    short = statistics.find(study_of({"sgd": {"final": [0.1, math.inf, 0.2]}})).summaries[0]
    assert short.best.curve("val_loss").low.tolist() == [3, 2, 0.1], "runs that failed have no curve"
    assert short.best.curve("val_nothing") is None


def test_the_target_is_what_three_of_four_reach():
    findings = find(
        a={"final": [0.1] * 3}, b={"final": [0.2] * 3}, c={"final": [0.3] * 3}, d={"final": [0.9] * 3}
    )
    assert findings.target == pytest.approx(0.3)
    by_name = {s.name: s for s in findings.summaries}
    assert findings.to_target(by_name["a"]).estimate == 15
    assert findings.to_target(by_name["a"], "seconds").estimate == pytest.approx(0.03)
    assert findings.to_target(by_name["d"]).estimate == math.inf


def test_a_profile_is_across_tasks():
    studies = [study_of({"a": {"final": [0.1] * 3}, "b": {"final": [0.9] * 3}}) for _ in range(2)]
    names, profile = statistics.across(studies)
    assert names == ["a", "b"]
    assert profile.score.tolist() == [1, 1], "the worse of two sets the target"
    with pytest.raises(StudyError, match="two tasks or more"):
        statistics.across(studies[:1])
    with pytest.raises(StudyError, match="no contestant in common"):
        statistics.across([studies[0], study_of({"c": {"final": [0.1] * 3}})])


def test_a_study_that_ran_is_read_from_its_folder(tmp_path):
    study = Study.of(small(BLOBS, ("sgd", "adam"), (0.01, 0.1, 1e30)), tmp_path).resume()
    findings = statistics.find(Study.open(tmp_path))
    assert {s.name for s in findings.summaries} == {"sgd", "adam"}
    for summary in findings.summaries:
        assert summary.failed == summary.count("diverged") >= 1
        assert summary.best.lr == study.winners[summary.name]["lr"]
        assert summary.best.seconds_per_step.estimate > 0
        assert summary.best.median("test_accuracy").estimate <= 1
        assert len(summary.default.runs) == 2
    assert findings.ranked_by == "test_loss"


def test_runs_that_are_missing_leave_the_others_paired_by_seed():
    """Both have the same noise: at the same seeds one is worse throughout, out of step it is not."""
    noise = [1.0, 4.0, 1.0, 4.0, 1.0, 4.0, 1.0]
    study = study_of({"adam": {"final": noise}, "sgd": {"final": [1.1 * x for x in noise]}})
    whole = statistics.find(study)
    assert whole.verdicts["sgd"] == "worse"
    del study.runs["sgd final {'lr': 0.1} 0"]
    findings = statistics.find(study)
    assert findings.verdicts["sgd"] == "worse"
    assert findings.lag(findings.summaries[1]).estimate == pytest.approx(1.1)
    assert findings.seeds == 6


def test_the_region_is_over_seeds_that_all_rates_have():
    study = study_of(
        {"sgd": {"search": {0.01: [3.0, 9.0], 0.1: [1.0, 1.0], 1.0: [2.0, 2.0]}}}, complete=False
    )
    del study.runs["sgd search {'lr': 0.01} 1"]
    (summary,) = statistics.find(study).summaries
    assert [s.losses("val_loss").tolist() for s in summary.sweep] == [[3.0], [1.0], [2.0]]
    assert summary.region.best == 0.1
    del study.runs["sgd search {'lr': 0.1} 0"]
    (summary,) = statistics.find(study).summaries
    assert summary.region is None, "no seed is left that all have"
