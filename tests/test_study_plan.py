import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import thalweg
from study_cases import BLOBS, changed, small
from thalweg.study import plan
from thalweg.study.errors import StudyError


def test_every_contestant_has_the_same_budget():
    trials = plan.make(BLOBS).trials
    assert len({trial.id for trial in trials}) == len(trials) == 8 * 9 * 3
    for seed in range(3):
        for name in plan.CLASSICAL:
            assert sum(t.contestant == name and t.seed == seed for t in trials) == 9


def test_rates_are_half_decades_through_the_search_range():
    assert plan.grid(thalweg.get("adam"), 9) == (1e-4, 3.2e-4, 1e-3, 3.2e-3, 0.01, 0.032, 0.1, 0.32, 1.0)


def test_given_rates_are_everyones():
    found = plan.make(BLOBS, ["sgd", "lion"], lr=[0.3, 0.1, 0.3])
    assert {contestant.rates for contestant in found.contestants} == {(0.3, 0.1)}
    assert {trial.rule.lr for trial in found.trials} == {0.3, 0.1}


def test_names_are_spelling_tolerant_and_count_once():
    found = plan.make(BLOBS, ["NAdam", "nadam", "Ada_Max"])
    assert [contestant.name for contestant in found.contestants] == ["nadam", "adamax"]


def test_the_dialect_is_keras_unless_asked():
    rule = plan.make(BLOBS, ["adagrad"]).contestants[0].rule
    assert (rule.initial_accumulator, rule.epsilon) == (0.1, 1e-7)
    assert plan.make(BLOBS, ["adagrad"], dialect="torch").contestants[0].rule.initial_accumulator == 0


def test_the_task_says_what_the_user_does_not():
    found = plan.make(changed(epochs=7, batch_size=5, seed=40), seeds=2)
    assert (found.epochs, found.batch_size, found.seeds) == (7, 5, (40, 41))


@pytest.mark.parametrize(
    "other",
    [
        {"task": changed(name="balls")},
        {"task": changed(version="2")},
        {"rule": thalweg.get("adam", lr=0.02)},
        {"rule": thalweg.get("adam", lr=0.01, beta_1=0.8)},
        {"rule": thalweg.get("adam", lr=0.01, epsilon_hat=True)},
        {"rule": thalweg.get("adam", lr=thalweg.schedules.Cosine(0.01, 100))},
        {"rule": thalweg.get("amsgrad", lr=0.01)},
        {"dialect": "torch"},
        {"epochs": 4},
        {"batch_size": 8},
        {"seed": 1},
    ],
    ids=lambda other: next(iter(other)),
)
def test_whatever_decides_the_outcome_is_in_the_hash(other):
    trial = plan.Trial(BLOBS, "adam", "paper", thalweg.get("adam", lr=0.01), 3, 16, 0)
    assert dataclasses.replace(trial, **other).id != trial.id
    assert dataclasses.replace(trial, contestant="my adam").id == trial.id, (
        "what it is called decides nothing"
    )


def test_the_hash_is_the_same_in_every_process():
    code = "from study_cases import small; print(*(trial.id for trial in small().trials))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    assert found.stdout.split() == [trial.id for trial in small().trials]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": -1}, "batch size must be at least 1, got -1"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"optimizers": []}, "optimizers must be at least 1"),
    ],
)
def test_nothing_to_run_is_refused(values, message):
    with pytest.raises(StudyError, match=message):
        small(**values)


@pytest.mark.parametrize("lr", [-0.1, float("nan"), float("inf")])
def test_an_inadmissible_rate_is_refused(lr):
    with pytest.raises(ValueError, match="lr must lie in"):
        small(lr=[0.1, lr])


def test_an_unknown_rule_is_answered_with_the_nearest():
    with pytest.raises(thalweg.UnknownRuleError, match="adamax"):
        small(optimizers=["admax"])
