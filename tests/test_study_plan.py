import dataclasses
import math
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import thalweg
from study_cases import BLOBS, changed, small
from thalweg.study.contestant import Contestant
from thalweg.study.errors import StudyError
from thalweg.study.planning import plan, proposers
from thalweg.study.planning.budget import Budget, Length
from thalweg.study.planning.specification import Trial
from thalweg.study.records import Run

TRIAL = Trial(BLOBS, Contestant("adam"), {"lr": 0.01}, Length("epochs", 3), 16, 0, "search")


def ended(val_loss, until=None, steps=100):
    status = "stopped" if until else "finished"
    step = steps if until is None else int(until * steps)
    if not math.isfinite(val_loss):
        return Run({}, (), {"status": "diverged", "step": 1})
    return Run({}, ({"val_loss": val_loss},), {"status": status, "step": step})


def played(asked, loss):
    """Runs a plan to its end on made-up losses: all trials by id, and how far the plan unfolded."""
    results, rounds = {}, []
    while missing := asked.next_trials(results):
        assert len({trial.id for trial in missing}) == len(missing)
        assert not results.keys() & {trial.id for trial in missing}, "nothing is run twice"
        assert len(results) + len(missing) <= asked.total
        rounds.append(missing)
        for trial in missing:
            results[trial.id] = ended(loss(trial), trial.until)
    return results, asked.unfold(results), rounds


def bowl(best, noise=0.0):
    """Validation loss whose lowest point is at a learning rate, a little different from seed to seed."""
    return lambda trial: (
        (math.log10(trial.setting(None).hyperparameters["lr"]) - math.log10(best)) ** 2 + noise * trial.seed
    )


def rates(known, name, stage="search"):
    return [
        t.hyperparameters["lr"]
        for t in known.trials
        if t.contestant.name == name and t.stage == stage and t.seed == known.trials[0].seed
    ]


def test_half_decades_lie_around_the_middle_of_the_search_range():
    adam = Contestant("adam").space["lr"]
    assert proposers.half_decades(adam, 5) == [0.001, 0.00316, 0.01, 0.0316, 0.1]
    assert proposers.half_decades(Contestant("sgd").space["lr"], 3) == [0.0316, 0.1, 0.316]
    assert proposers.half_decades(adam, 9)[::8] == [1e-4, 1.0]


def test_the_slow_have_their_turn_first_seed_by_seed():
    own = Contestant(torch.optim.Rprop, name="own", fixed={"lr": 0.1})
    asked = plan.make(BLOBS, ["sgd", own, "momentum", "adam"], lr=[0.1], seeds=2)
    turns = [(t.contestant.name, t.seed - plan.FRESH) for t in asked.next_trials({})]
    assert turns == [(name, seed) for seed in (0, 1) for name in ("own", "adam", "momentum", "sgd")]
    varied = plan.make(BLOBS, "sgd", vary={"batch_size": [64, 16, 32]}, lr=[0.1], seeds=1)
    assert [t.batch_size for t in varied.next_trials({})] == [16, 32, 64], "small batches take more steps"


def test_every_contestant_has_the_same_budget_and_its_winner_fresh_seeds():
    asked = plan.make(BLOBS)
    results, known, _ = played(asked, bowl(0.004, 1e-6))
    assert len(results) == asked.total == 8 * (12 * 2 + 5 + 5)
    for name in plan.CLASSICAL:
        of = {
            stage: [t for t in known.trials if t.contestant.name == name and t.stage == stage]
            for stage in ("search", "final", "default")
        }
        assert len({str(t.hyperparameters) for t in of["search"]}) == 12
        assert {t.seed for t in of["search"]} == {0, 1}
        for stage in ("final", "default"):
            assert [t.seed for t in of[stage]] == [1000, 1001, 1002, 1003, 1004]
        assert {str(t.hyperparameters) for t in of["default"]} == {"{}"}
        scores = {
            t.hyperparameters["lr"]: abs(math.log10(t.hyperparameters["lr"] / 0.004)) for t in of["search"]
        }
        assert {t.hyperparameters["lr"] for t in of["final"]} == {min(scores, key=scores.get)}
        assert known.winners[name] == {"lr": min(scores, key=scores.get)}


@pytest.mark.parametrize(("best", "first"), [(1e-5, 3.16e-4), (50.0, 0.316)])
def test_the_range_is_widened_while_the_best_is_on_its_edge(best, first):
    _, known, rounds = played(plan.make(BLOBS, ["adam"]), bowl(best))
    tried = rates(known, "adam")
    assert len(tried) == len(set(tried)) == 12
    assert min(tried) < best < max(tried)
    assert first in (min(tried[:7]), max(tried[:7])), "it began around the middle"
    outward = tried[7:9]
    assert outward == pytest.approx(
        [first * 10 ** (math.copysign(0.5, math.log(best / first)) * i) for i in (1, 2)], rel=0.01
    )
    assert len(rounds) > 2


def test_what_needs_no_widening_refines_by_quarter_decades():
    _, known, _ = played(plan.make(BLOBS, ["adam"]), bowl(0.0105))
    tried = rates(known, "adam")
    assert tried[:7] == [0.000316, 0.001, 0.00316, 0.01, 0.0316, 0.1, 0.316]
    assert sorted(tried[7:9]) == [0.00562, 0.0178]
    assert sorted(tried[9:11]) == [0.0075, 0.0133], "then around what is best by now"


def test_failed_settings_are_worst_and_a_range_that_fails_whole_is_left_downwards():
    _, known, _ = played(
        plan.make(BLOBS, ["adam"]), lambda t: math.inf if t.hyperparameters.get("lr", 1) > 2e-5 else 1.0
    )
    assert known.winners["adam"]["lr"] < 2e-5
    # One seed of a setting that fails is enough to lose against one that is poor but steady.
    loss = lambda t: math.inf if t.hyperparameters.get("lr") == 0.01 and t.seed == 1 else bowl(0.01)(t)  # noqa: E731
    _, known, _ = played(plan.make(BLOBS, ["adam"]), loss)
    assert known.winners["adam"]["lr"] != 0.01


def test_where_every_setting_fails_there_is_no_final():
    _, known, _ = played(
        plan.make(BLOBS, ["adam", "sgd"]), lambda t: math.inf if t.contestant.name == "sgd" else bowl(0.01)(t)
    )
    assert known.winners["sgd"] is None
    assert not [t for t in known.trials if t.contestant.name == "sgd" and t.stage == "final"]
    assert len([t for t in known.trials if t.contestant.name == "sgd" and t.stage == "default"]) == 5


def test_further_hyperparameters_are_spread_over_their_ranges_around_the_best_rate():
    asked = plan.make(BLOBS, ["adam", "sgd"], budget=40, tune=["beta_1", "beta_2"])
    _, known, _ = played(asked, bowl(0.0105))
    points = [
        t.hyperparameters
        for t in known.trials
        if t.contestant.name == "adam" and t.stage == "search" and t.seed == 0
    ]
    assert len(points) == 40
    spread = [point for point in points if "beta_1" in point]
    assert len(spread) == 31
    assert all(0.00316 <= point["lr"] <= 0.0316 for point in spread)
    assert all(point.keys() == {"lr", "beta_1", "beta_2"} for point in spread)
    for key, low, high in (("beta_1", 0.8, 0.999), ("beta_2", 0.9, 0.9999), ("lr", 0.00316, 0.0316)):
        shares = [
            math.log(point[key] / low) / math.log(high / low)
            if key == "lr"
            else math.log((1 - low) / (1 - point[key])) / math.log((1 - low) / (1 - high))
            for point in spread
        ]
        quarters = [sum(i / 4 <= share < (i + 1) / 4 for share in shares) for i in range(4)]
        assert min(quarters) >= 6, "evenly: a quarter of the points in each quarter of the range"
    assert {*known.winners["sgd"]} == {"lr"}
    assert sum(t.contestant.name == "sgd" and t.stage == "search" for t in known.trials) == 80, (
        "the same budget"
    )


def test_values_to_choose_from_are_never_left():
    one = Contestant("adam", space={"lr": [0.1, 0.01], "beta_1": [0.8, 0.9]})
    _, known, _ = played(plan.make(BLOBS, [one]), bowl(1e-9))
    points = {tuple(t.hyperparameters.values()) for t in known.trials if t.stage == "search"}
    assert points <= {(0.1,), (0.01,), *((lr, beta) for lr in (0.1, 0.01) for beta in (0.8, 0.9))}
    assert len(points) == 4, "as many as there are"


def test_given_rates_are_everyones_and_all_there_is():
    asked = plan.make(BLOBS, ["sgd", "lion"], lr=[0.3, 0.1, 0.3])
    _, known, _ = played(asked, bowl(0.1))
    for name in ("sgd", "lion"):
        assert rates(known, name) == [0.3, 0.1]
        assert known.winners[name] == {"lr": 0.1}
    assert asked.settings == 2


def test_one_setting_leaves_nothing_to_search():
    asked = plan.make(BLOBS, ["sgd", "adam"], lr=[0.1], seeds=3)
    _, known, rounds = played(asked, bowl(0.1))
    assert len(rounds) == 1
    assert [(t.stage, t.contestant.name, t.seed) for t in known.missing] == []
    assert sorted((t.stage, t.contestant.name, t.seed) for t in known.trials) == [
        ("final", name, seed) for name in ("adam", "sgd") for seed in (1000, 1001, 1002)
    ]
    assert known.winners == {"sgd": {"lr": 0.1}, "adam": {"lr": 0.1}}


def test_one_trial_each_is_the_default():
    _, known, _ = played(plan.make(BLOBS, ["sgd"], budget=1), bowl(0.1))
    assert {str(t.hyperparameters) for t in known.trials} == {"{}"}


def test_a_default_that_wins_is_run_once():
    asked = plan.make(BLOBS, ["adam"], seeds=3)
    results, known, _ = played(asked, bowl(0.001))
    assert known.winners["adam"] == {"lr": 0.001}, "the dialect's own"
    assert len([t for t in known.trials if t.stage == "final"]) == 3
    assert len(results) == asked.total - 3
    assert {t.id for t in known.trials if t.stage == "final"} == {
        t.id for t in known.trials if t.stage == "default"
    }


def test_the_untuned_can_be_left_out():
    _, known, _ = played(plan.make(BLOBS, ["adam"], defaults=False), bowl(0.1))
    assert {t.stage for t in known.trials} == {"search", "final"}


@given(st.integers(2, 30), st.integers(1, 3), st.floats(-7, 3), st.booleans(), st.booleans())
def test_budgets_are_equal_whatever_happens(budget, search_seeds, place, halving, tune):
    asked = plan.make(
        BLOBS,
        ["sgd", "adam", "adadelta+cosine"],
        budget=budget,
        search_seeds=search_seeds,
        seeds=2,
        halving=halving,
        tune=["beta_1", "rho"] if tune else (),
    )
    results, known, _ = played(asked, bowl(10**place))
    for name in ("sgd", "adam", "adadelta+cosine"):
        searched = [t for t in known.trials if t.contestant.name == name and t.stage == "search"]
        assert len({str(t.hyperparameters) for t in searched}) == budget
        assert len({(t.hyperparameters["lr"]) for t in searched if len(t.hyperparameters) == 1}) >= min(
            budget, 3
        ) - (budget == 2)
        assert sum(t.contestant.name == name and t.stage == "final" for t in known.trials) == 2
    assert len(results) <= asked.total


def test_a_plan_is_a_function_of_its_results():
    asked, again = (
        plan.make(BLOBS, ["adam", "sgd"], tune=["beta_1"]),
        plan.make(BLOBS, ["adam", "sgd"], tune=["beta_1"]),
    )
    results, known, _ = played(asked, bowl(0.02))
    assert [t.id for t in again.unfold(results).trials] == [t.id for t in known.trials]
    some = dict(list(results.items())[::2])
    assert {t.id for t in again.next_trials(some)} <= results.keys() - some.keys()


def test_halving_stops_two_thirds_alike_for_all_and_says_what_it_saved():
    asked = plan.make(BLOBS, ["adam", "sgd"], budget=9, halving=True)
    results, known, rounds = played(asked, bowl(0.1))
    assert {t.until for t in rounds[0] if t.stage == "search"} == {0.25}
    for name in ("adam", "sgd"):
        of = [t for t in known.trials if t.contestant.name == name and t.stage == "search" and t.seed == 0]
        early = {t.hyperparameters["lr"] for t in of if t.until}
        whole = {t.hyperparameters["lr"] for t in of if not t.until}
        assert len(early) == 9
        assert whole < early
        first = sorted(
            [t.hyperparameters["lr"] for t in of if t.until][:5], key=lambda lr: abs(math.log10(lr / 0.1))
        )
        assert set(first[:2]) <= whole, "the best of the first round go on"
        assert not set(first[2:]) & whole, "the others do not"
        assert known.winners[name]["lr"] in whole
    assert all(t.until is None for t in known.trials if t.stage != "search")
    spent = sum(results[t.id].end["step"] for t in known.trials if t.stage == "search")
    assert asked.saved(results) == pytest.approx(1 - spent / (100 * 9 * 2 * 2))
    assert asked.saved(results) > 0.1
    plain = plan.make(BLOBS, ["adam", "sgd"], budget=9)
    assert plain.saved(played(plain, bowl(0.1))[0]) == 0


def fake_optuna():
    """A library that proposes in order, counting what it is told."""
    told = []

    class Study:
        def __init__(self, seed):
            self.seed, self.asked = seed, 0

        def ask(self, distributions):
            self.asked += 1
            share = self.asked / 20
            return types.SimpleNamespace(
                number=self.asked, params={key: one(share) for key, one in distributions.items()}
            )

        def tell(self, trial, value):
            told.append((trial.number, value))

    kinds = types.SimpleNamespace(
        FloatDistribution=lambda low, high, log: (
            lambda s: low * (high / low) ** s if log else low + s * (high - low)
        ),
        CategoricalDistribution=lambda values: lambda s: values[int(s * len(values))],
    )
    return types.SimpleNamespace(
        told=told,
        logging=types.SimpleNamespace(set_verbosity=lambda level: None, WARNING=30),
        samplers=types.SimpleNamespace(TPESampler=lambda seed: seed),
        create_study=lambda sampler: Study(sampler),
        distributions=kinds,
    )


def test_optuna_proposes_where_asked(monkeypatch):
    library = fake_optuna()
    monkeypatch.setitem(sys.modules, "optuna", library)
    one = Contestant("adam", space={"beta_1": None, "beta_2": [0.9, 0.99]})
    asked = plan.make(BLOBS, [one, "sgd"], budget=10, proposer="optuna", search_seeds=1)
    _, known, rounds = played(asked, bowl(0.02))
    for name in ("adam", "sgd"):
        points = [
            t.hyperparameters for t in known.trials if t.contestant.name == name and t.stage == "search"
        ]
        assert len(points) == 10
        assert [point["lr"] for point in points] == sorted(point["lr"] for point in points), (
            "in the order proposed"
        )
    assert all(
        0.8 <= p["beta_1"] <= 0.999 and p["beta_2"] in (0.9, 0.99)
        for p in (
            t.hyperparameters for t in known.trials if t.contestant.name == "adam" and t.stage == "search"
        )
    )
    assert len(rounds) == 4, "four, four and two settings, then finals"
    whole = [value for number, value in library.told if number == 1]
    assert len(set(whole)) == 2, "one study a contestant, told the same again each time"


def test_optuna_itself(monkeypatch):
    pytest.importorskip("optuna", reason="optuna is not installed")
    _, known, _ = played(plan.make(BLOBS, ["adam"], budget=10, proposer="optuna"), bowl(0.02))
    assert known.winners["adam"]


def test_a_proposer_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(StudyError, match="pip install optuna"):
        plan.make(BLOBS, proposer="optuna")


def test_names_are_spelling_tolerant_and_count_once():
    found = plan.make(BLOBS, ["NAdam", "nadam", "Ada_Max"])
    assert [contestant.name for contestant in found.contestants] == ["nadam", "adamax"]


def test_two_of_one_name_are_refused():
    with pytest.raises(StudyError, match=r"are named adam: .*name= in Python or as \[optimizers\.NAME\] in"):
        plan.make(BLOBS, ["adam", thalweg.Adam()])


def test_the_dialect_is_keras_unless_asked():
    rule = plan.make(BLOBS, ["adagrad"]).contestants[0].rule
    assert (rule.initial_accumulator, rule.epsilon) == (0.1, 1e-7)
    assert plan.make(BLOBS, ["adagrad"], dialect="torch").contestants[0].rule.initial_accumulator == 0


def test_the_task_says_what_the_user_does_not():
    found = plan.make(changed(epochs=7, batch_size=5, seed=40), seeds=2)
    assert (found.length, found.batch_size) == (Length("epochs", 7), 5)
    assert (found.search_seeds, found.seeds) == ((40, 41), (1040, 1041))


@pytest.mark.parametrize("unit", ["epochs", "steps", "seconds"])
def test_a_trials_length_is_in_one_unit(unit):
    found = plan.make(BLOBS, ["adam"], budget=Budget(trials=3, **{unit: 4}))
    (trial, *_) = found.next_trials({})
    assert trial.specification[unit] == 4
    assert not {"epochs", "steps", "seconds"} - {unit} & trial.specification.keys()


@pytest.mark.parametrize(
    "other",
    [
        {"task": changed(name="balls")},
        {"task": changed(version="2")},
        {"contestant": Contestant("adam", fixed={"beta_1": 0.8})},
        {"contestant": Contestant("adam", fixed={"epsilon_hat": False})},
        {"contestant": Contestant("adam+cosine")},
        {"contestant": Contestant("amsgrad")},
        {
            "contestant": Contestant(
                thalweg.chain(thalweg.SkipNonFinite(), thalweg.get("adam", dialect="keras"))
            )
        },
        {"hyperparameters": {"lr": 0.02}},
        {"hyperparameters": {"lr": 0.01, "beta_2": 0.9}},
        {"length": Length("epochs", 4)},
        {"length": Length("steps", 3)},
        {"batch_size": 8},
        {"seed": 1},
        {"stage": "final"},
        {"every": 2},
        {"until": 0.25},
    ],
    ids="-".join,
)
def test_whatever_decides_the_outcome_is_in_the_hash(other):
    assert dataclasses.replace(TRIAL, **other).id != TRIAL.id


def test_what_it_is_called_decides_nothing():
    for other in (Contestant("adam", name="my adam"), Contestant(thalweg.get("adam", dialect="keras"))):
        assert dataclasses.replace(TRIAL, contestant=other).id == TRIAL.id
    assert dataclasses.replace(TRIAL, stage="final").id == dataclasses.replace(TRIAL, stage="default").id


def test_the_hash_is_the_same_in_every_process():
    code = "from study_cases import small; print(*(trial.id for trial in small().next_trials({})))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    assert found.stdout.split() == [trial.id for trial in small().next_trials({})]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"budget": Budget(trials=1, epochs=1), "halving": True}, "at least 2 epochs"),
        ({"batch_size": -1}, "batch size must be at least 1, got -1"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"search_seeds": 0}, "search seeds must be at least 1, got 0"),
        ({"search_seeds": 1001}, "at most 1000"),
        ({"every": 0}, "between evaluations must be at least 1"),
        ({"optimizers": []}, "optimizers must be at least 1"),
        ({"proposer": "optna"}, "did you mean 'optuna'"),
        ({"tune": ["beta1"]}, r"'beta1'; did you mean 'beta_1'"),
        ({"budget": 2, "lr": [0.1, 0.2, 0.3]}, "2 trials are too few for the 3 learning rates"),
        ({"budget": 2, "lr": [0.1, 0.2], "tune": ["beta_1"]}, "leave none for beta_1"),
        ({"optimizers": ["adam+cosine"], "budget": Budget(seconds=3)}, "seconds do not say"),
        ({"lr": [0.1, -0.1]}, "lr must lie in"),
        ({"lr": [0.1, float("nan")]}, "list of numbers"),
        ({"optimizers": ["admax"]}, "adamax"),
    ],
)
def test_what_cannot_be_planned_is_refused(values, message):
    with pytest.raises((StudyError, ValueError), match=message):
        plan.make(BLOBS, **{"optimizers": ["sgd", "adam"], **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trials": 0}, "trials must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"steps": 1.5}, "steps must be a whole number, got 1.5"),
        ({"seconds": 0}, "above 0"),
        ({"seconds": math.inf}, "above 0"),
        ({"epochs": 1, "steps": 1}, "given twice"),
    ],
)
def test_a_budget_makes_sense(values, message):
    with pytest.raises(StudyError, match=message):
        Budget(**values)
