import math
import re

import pytest

from study_cases import FAILS, GOOD, NEAR, WORSE, study_of
from thalweg.study.reporting import wording
from thalweg.study.statistics import findings as statistics
from thalweg.study.statistics.resampling import Interval


def answer(contestants, **facts):
    return wording.answer(statistics.find(study_of(contestants, **facts)))


@pytest.mark.parametrize(
    ("contestants", "said"),
    [
        (
            {"a": {"final": GOOD}, "b": {"final": WORSE}},
            r"Best is a at learning rate 0\.1: test loss 0\.125 \(0\.10.*\), test accuracy 0\.800\. All",
        ),
        (
            {"a": {"final": GOOD}, "b": {"final": NEAR}},
            "No optimizer can be distinguished from another: a and b lie",
        ),
        (
            {"a": {"final": GOOD}, "b": {"final": NEAR}, "c": {"final": WORSE}},
            "a and b are within the noise of 6 seeds; c is behind by more. Lowest median test loss: a at",
        ),
        ({"a": {"final": GOOD}, "b": {"final": NEAR}, "c": FAILS}, "^a and b lie within"),
        ({"a": {"final": GOOD}}, r"^a at learning rate 0\.1: test loss .*0\.800\.$"),
        ({"a": {"final": [0.1]}, "b": {"final": [0.2]}}, "With one seed the noise is unknown"),
        ({"a": FAILS, "b": FAILS}, "Every run failed"),
        ({"a": {"search": {0.1: [0.1]}, "final": [math.inf] * 3}}, "Most runs failed"),
        ({f"a{i}": {"final": GOOD} for i in range(12)}, "a0, a1, .*a8 and 3 others lie within"),
        ({"a": {"final": GOOD}, "b": FAILS}, r"Best is a .*800\.$"),
    ],
)
def test_the_answer_says_how_sure_it_is(contestants, said):

    assert re.search(said, answer(contestants))


def test_an_incomplete_study_says_so():
    said = answer({"a": {"search": {0.1: [0.5, 0.5]}}}, complete=False, total=9)
    assert said.startswith(
        "Not complete: 2 of 9 runs. Lowest so far: a at learning rate 0.1: validation loss"
    )
    assert answer({"a": {}}, complete=False, total=9) == "No run has ended yet."


def notes(contestants, **facts):
    return "\n".join(wording.notes(statistics.find(study_of(contestants, **facts))))


def test_notes_say_what_to_know():
    on_edge = {"search": {0.1: [0.1], 1.0: [0.2]}, "final": GOOD}
    said = notes({"a": on_edge, "b": {"final": WORSE} | FAILS}, halving=True, saved=0.4)
    assert "paired by seed, lies above 1 with" in said
    assert "The best learning rate of a lies at an end" in said
    assert "saved 40% of the search" in said
    assert "1 of 15 runs diverged: b 1." in said


def test_untuned_and_crashed_runs_are_named():
    crash = {"final": [0.1] * 3, "status": "crashed", "reason": "ValueError: of mine"}
    said = notes({"a": crash, "b": {"final": GOOD}})
    assert "None was tuned: how they compare when tuned is another question (more --trials)." in said
    given = {"space": {"lr": {"low": 0.1, "high": 0.1, "scale": "list", "values": [0.1]}}}
    said = notes({name: {"final": GOOD, "facts": given} for name in "ab"})
    assert "is another question (leave --lr out, or give several)." in said
    said = notes({"a": crash, "b": {"final": GOOD}})
    assert "None was tuned" not in notes(
        {"a": crash, "b": {"final": GOOD}}, varied={"name": "lr", "values": {}}
    )
    assert "3 of 9 runs crashed: a 3." in said
    assert "Reason for a crash: ValueError: of mine." in said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.123456, "0.123"),
        (12.3456, "12.3"),
        (123456.0, "123456"),
        (100.0, "100"),
        (1.2e-7, "1.20e-07"),
        (0, "0"),
        (math.inf, "∞"),
        (math.nan, "–"),
    ],
)
def test_numbers_have_three_figures(value, said):
    assert wording.number(value) == said


def test_an_interval_of_one_seed_is_a_number():
    assert wording.interval(Interval(1.0, 0.5, 2.0, 0.95)) == "1.00 (0.500–2.00)"
    assert wording.interval(Interval(1.0, 1.0, 1.0, 0.0)) == "1.00"
    assert wording.interval(None) == "–"


@pytest.mark.parametrize(("count", "said"), [(16, "16 B"), (2128000, "2.13 MB"), (5e12, "5e+03 GB")])
def test_memory_has_its_unit(count, said):
    assert wording.bytes_(count) == said
