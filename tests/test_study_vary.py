import math
from functools import partial

import pytest
import torch

import thalweg
from study_cases import BLOBS, small
from thalweg.study.contestant import Contestant
from thalweg.study.errors import StudyError
from thalweg.study.planning import plan, vary
from thalweg.study.planning.vary import variants
from thalweg.study.study import Study, compare


def test_batch_sizes_make_a_contestant_each_that_is_tuned_by_itself():
    found = variants("adam", "batch_size", [16, 64.0, 16], dialect="torch")
    assert [c.name for c in found] == ["adam, batch size 16", "adam, batch size 64"]
    assert [c.batch_size for c in found] == [16, 64]
    assert {c.dialect for c in found} == {"torch"}
    assert all(c.space["lr"].values == () and c.defaults["epsilon"] == 1e-8 for c in found)


def test_learning_rates_are_as_given_and_nothing_is_searched():
    asked = small(optimizers="adam@torch", lr=None, vary={"lr": [1e-4, 0.01, 1]})
    assert [c.name for c in asked.contestants] == [f"adam@torch, lr {lr}" for lr in ("0.0001", "0.01", "1")]
    assert not asked.searching
    assert {t.stage for t in asked.next_trials({})} == {"final"}
    assert {t.setting(None).hyperparameters["lr"] for t in asked.next_trials({})} == {1e-4, 0.01, 1}


@pytest.mark.parametrize(
    ("optimizer", "name", "value"),
    [
        ("adam", "beta_1", 0.5),
        ("adamw+cosine", "weight_decay", 0.0),
        ("rmsprop", "momentum", 0.5),  # None unless it is given
        (thalweg.Lion(), "beta_2", 0.9),
        (thalweg.chain(thalweg.ClipByNorm(1.0), thalweg.SGD(lr=0.1)), "clip_norm", 3.0),
        (torch.optim.SGD, "momentum", 0.5),
        (partial(torch.optim.SGD, lr=0.1), "weight_decay", 0.5),
    ],
)
def test_any_hyperparameter_may_be_varied(optimizer, name, value):
    (found,) = variants(optimizer, name, [value])
    plain = Contestant(optimizer)
    assert found.name == f"{plain.name}, {name} {value:g}"
    assert found.setting({}, None, 16).hyperparameters[name] == value
    assert found.defaults == plain.defaults | {name: value}
    assert list(found.space) == ["lr"]
    assert found.schedule == plain.schedule


def test_a_contestant_keeps_what_it_was_made_with():
    given = {"dialect": "torch", "schedule": "cosine", "fixed": {"epsilon": 1e-6}}
    base = Contestant("adam", name="mine", space={"lr": [0.1, 0.2], "beta_1": None}, **given)
    (found,) = variants(base, "beta_1", [0.5], lr=[1.0])
    assert (found.name, found.dialect, found.schedule) == ("mine, beta_1 0.5", "torch", "cosine")
    assert found.space == {"lr": base.space["lr"]}, "what is varied is not searched"
    assert (found.defaults["beta_1"], found.defaults["epsilon"]) == (0.5, 1e-6)
    (found,) = variants(Contestant("adam", space=["beta_1"]), "lr", [0.5])
    assert found.space["lr"].values == (0.5,)
    assert "beta_1" in found.space


def test_no_two_values_have_one_name():
    found = variants("adam", "beta_2", [0.9999999, 0.99999999])
    assert [c.name for c in found] == ["adam, beta_2 0.9999999", "adam, beta_2 0.99999999"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"vary": {"batch-sise": [1]}},
            "adam has no setting 'batch_sise' to vary; did you mean 'batch_size'?",
        ),
        ({"vary": {"bta_1": [0.5]}}, "did you mean 'beta_1'?"),
        ({"vary": {"beta_1": [1.0]}}, r"beta_1 must lie in \[0, 1\), got 1"),
        ({"vary": {"lr": [-1]}}, r"lr must lie in \[0, ∞\), got -1"),
        ({"vary": {"lr": [math.nan]}}, "lr must be a finite number, got nan"),
        ({"vary": {"batch_size": [0]}}, "a batch size must be a whole number of at least 1, got 0"),
        ({"vary": {"batch_size": [16.5]}}, "a whole number of at least 1, got 16.5"),
        ({"vary": {"batch_size": [math.inf]}}, "a whole number of at least 1, got inf"),
        ({"vary": {"batch_size": []}}, "give the values of batch_size"),
        ({"vary": {"lr": [1], "beta_1": [0.5]}}, "one setting is varied at a time, not both lr and beta_1"),
        ({"vary": {"lr": [1]}, "lr": [0.1]}, "lr is varied: it cannot be given"),
        ({"vary": {"beta_1": [0.5]}, "tune": ["beta_1"]}, "beta_1 is varied: it cannot be given"),
        ({"vary": {"batch_size": [8]}, "batch_size": 8}, "the batch size is varied"),
        ({"vary": {"lr": [1]}, "optimizers": ["adam", "sgd"]}, "one optimizer is varied at a time, not 2"),
        ({"vary": {"lr": [1]}, "optimizers": plan.CLASSICAL}, "not 8: say which with optimizers="),
    ],
)
def test_what_cannot_be_varied_is_said(options, message):
    with pytest.raises((StudyError, ValueError), match=message):
        plan.make(BLOBS, **{"optimizers": ["adam"], **options})


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({"vary": {"lr": [0.01, 0.1]}}, "Each learning rate was used as given"),
        ({"vary": {"batch-size": [8, 16]}}, "was tuned for each batch size separately"),
        (
            {"vary": {"beta_1": [0.5, 0.9]}, "lr": [0.1]},
            "one learning rate, which may suit one beta_1 better",
        ),
    ],
)
def test_the_study_says_what_was_varied_and_how_the_rate_was_found(tmp_path, options, note):
    facts = Study.of(plan.make(BLOBS, "adam", **options), tmp_path).facts
    ((name, values),) = options["vary"].items()
    assert facts["varied"]["name"] == name.replace("-", "_")
    assert list(facts["varied"]["values"].values()) == values
    assert list(facts["varied"]["values"]) == [c["name"] for c in facts["contestants"]]
    assert len(facts["notes"]) == 1
    assert note in facts["notes"][0]
    assert Study.open(tmp_path).facts == facts


def test_an_ordinary_study_varies_nothing_and_shares_its_trials(tmp_path):
    ordinary = small(optimizers="adam", lr=[0.1])
    facts = Study.of(ordinary, tmp_path).facts
    assert (facts["varied"], facts["notes"]) == (None, [])
    varied = small(optimizers="adam", lr=None, vary={"lr": [0.1]})
    assert [t.id for t in varied.next_trials({})] == [t.id for t in ordinary.next_trials({})]


def test_batch_sizes_compared_from_python(tmp_path):
    options = {"lr": [0.1], "seeds": 2, "out": tmp_path, "jobs": 1}
    study = compare(BLOBS, "sgd", vary={"batch_size": [7, 35]}, **options)
    steps = {row["contestant"]: (row["batch_size"], row["step"]) for row in study.rows()}
    assert steps == {"sgd, batch size 7": (7, 30), "sgd, batch size 35": (35, 6)}
    assert vary.Varied.of(study.plan.contestants, "batch_size") == study.plan.varied
