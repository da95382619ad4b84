import math
import re

import pytest

from study_cases import GOOD, NEAR, WORSE, study_of
from thalweg.study.errors import StudyError
from thalweg.study.reporting import advice
from thalweg.study.reporting import rules_of_thumb as thumb
from thalweg.study.statistics import findings as statistics

SEARCH = {0.01: [0.3], 0.1: [0.1], 1.0: [0.3]}
RATES = {0.001: [0.3], 0.1: [0.1], 0.3: [0.1], 1.0: [0.3]}


def told(contestants, about, default=None, **facts):
    """Texts and evidence of what is said about something."""
    given = advice.advise(statistics.find(study_of(contestants, **facts)), default)
    return [f"{s.text} [{s.evidence}]" for s in given.sentences if s.about == about]


def test_of_a_tie_the_cheapest_is_advised():
    contestants = {
        "adam": {"final": GOOD, "state_bytes": 16000, "search": SEARCH},
        "sgd": {"final": NEAR, "state_bytes": 16, "search": SEARCH},
        "slow": {"final": WORSE, "state_bytes": 0, "search": SEARCH},
    }
    given = advice.advise(statistics.find(study_of(contestants)))
    assert (given.optimizer, given.hyperparameters) == ("sgd", {"lr": 0.1, "beta": 0.9})
    assert re.search("of 2 that cannot be distinguished", given.sentences[0].text)
    assert "state of 16 B" in given.sentences[0].evidence
    (tie,) = told(contestants, "tie")
    assert re.match(r"It is a tie: adam and sgd .* 6 seeds\. \[.*times: sgd 1\.0", tie)


def test_of_equal_state_the_wider_region_is_advised():
    contestants = {
        "narrow": {"final": GOOD, "search": SEARCH},
        "wide": {"final": NEAR, "search": RATES},
    }
    given = advice.advise(statistics.find(study_of(contestants)))
    assert given.optimizer == "wide"
    (robust,) = told(contestants, "robustness")
    assert re.match(r"wide does about as well at learning rates from 0\.0\d+ to 0\.3", robust)


def test_a_winner_is_advised_for_being_better():
    contestants = {"adam": {"final": GOOD}, "sgd": {"final": WORSE}}
    (choice,) = told(contestants, "choice")
    assert "Use adam with lr=0.1, beta=0.9: its loss is lower than every other's" in choice
    assert not told(contestants, "tie")
    assert "it was the only one" in told({"adam": {"final": GOOD}}, "choice")[0]


def defaults(loss):
    return {
        "adam": {"search": SEARCH, "final": GOOD, "default": [loss * x for x in GOOD]},
        "sgd": {"search": SEARCH, "final": WORSE, "default": WORSE},
    }


def test_the_gain_is_over_the_users_default():
    (gain,) = told(defaults(3), "gain")
    assert "lowers the test loss 3.00 times compared with adam at its default learning rate 0.001" in gain
    over, own = told(defaults(3), "gain", default="sgd")
    assert re.search(r"compared with sgd .*over that of adam: 1\.\d+ \(", over)
    assert "Tuning sgd alone makes no difference" in own
    assert "lowers the test loss by 10% at most compared with adam" in told(defaults(1), "gain")[0]
    assert "no need to change" in told(defaults(1), "gain")[0]
    assert "is better still: keep it" in told(defaults(0.5), "gain")[0]


@pytest.mark.parametrize(("seeds", "said"), [(2, "2 seeds do not"), (1, "1 seed does not")])
def test_few_seeds_are_no_reason_to_stay(seeds, said):
    few = {"search": SEARCH, "final": GOOD[:seeds], "default": NEAR[:seeds]}
    (gain,) = told({"adam": few}, "gain")
    assert gain.startswith(
        f"{said} distinguish it from adam at its default learning rate 0.001, which does not show"
    )
    assert "no need" not in gain


def test_a_default_that_fails_is_named():
    contestants = {"adam": {"search": SEARCH, "final": GOOD, "default": [0.1, math.inf] * 3}}
    assert "failed in 3 of 6 runs" in told(contestants, "gain")[0]


def test_an_unknown_default_is_refused():
    with pytest.raises(StudyError, match="no contestant is named 'adm'; did you mean 'adam'"):
        told(defaults(1), "gain", default="adm")


def test_divergence_is_counted():
    contestants = {"adam": {"search": {**SEARCH, 9.0: [math.inf]}, "final": GOOD}, "sgd": {"final": WORSE}}
    (failures,) = told(contestants, "failures")
    assert "most with adam" in failures
    assert "adam 1 of 10" in failures


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"search": {0.1: [0.1], 1.0: [0.2]}}, r"smaller learning rates, such as 0\.032\. .* smallest of 2"),
        ({"search": {0.01: [0.2], 0.1: [0.1]}}, r"larger learning rates, such as 0\.32"),
        ({"curve": (3, 2, 1, 0.5, 0.2)}, "Train longer.*still fell by"),
        ({"curve": (3, 2, 0.05, 0.06, 0.08)}, r"Stop a near epoch 1\.5"),
        ({}, r"a\+cosine"),
        ({"search": SEARCH}, "Tune beta of a too"),
        (
            {"search": {0.01: [0.3], 0.1: [0.1], 0.2: [0.1], 0.3: [0.3], 1.0: [0.3]}},
            r"next time: 2 of 5.*best of 2 .* 0\.100, that of all 5 0\.100",
        ),
    ],
)
def test_what_to_try_next_follows_from_what_was_seen(given, said):
    assert any(re.search(said, text) for text in told({"a": {"final": GOOD, "lr": 0.1} | given}, "next"))


def test_more_seeds_are_advised_where_they_would_tell():
    apart = [x * f for x, f in zip(GOOD, (1.3, 1.2, 0.9, 1.3, 1.0, 1.2), strict=True)]
    said = told({"a": {"final": GOOD}, "b": {"final": apart}}, "next")
    assert any(re.search(r"To distinguish b from a, take about \d\d seeds", text) for text in said)


def test_a_study_without_a_run_that_went_through_says_why():
    given = advice.advise(statistics.find(study_of({"a": {"search": {0.1: [math.inf]}}})))
    assert given.optimizer is None
    assert "a: by hand" in given.sentences[0].evidence
    finals = {"a": {"search": {0.1: [0.1]}, "final": [math.inf] * 3}}
    assert advice.advise(statistics.find(study_of(finals))).optimizer is None


def test_an_incomplete_study_is_to_be_ended():
    (first, *_) = told({"a": {"search": SEARCH}}, "next", complete=False, total=9)
    assert "Let the study finish. [3 of 9 runs" in first


def test_rules_of_thumb_have_their_sources():
    assert thumb.FEATURES.keys() == thumb.BY_FEATURE.keys()
    for feature in thumb.FEATURES:
        given = advice.rules_of_thumb([feature])
        assert len(given.sentences) > len(thumb.ALWAYS)
        assert all(
            s.about == "rule of thumb" and re.search(r"\b(19|20)\d\d\b", s.evidence) for s in given.sentences
        )
    with pytest.raises(StudyError, match="did you mean 'sparse'"):
        advice.rules_of_thumb(["sparce"])
