"""Fair races: how learning rates are found, and what is said of it."""

import math

import numpy as np
import pytest

from thalweg import path, paths, surfaces
from thalweg.rules import SGD, Adagrad, Adam, Momentum
from thalweg.schedules import Cosine
from thalweg.surfaces.functions import Noise
from thalweg.surfaces.race import LEAP_OFF_SADDLE, Goal, compete, labelled, tune

RULES = ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adadelta", "adam", "nadam", "lion"]


def slow_arrival(values: np.ndarray, goal: float) -> int | None:
    """The first step from which on every value is low enough."""
    return next((t for t in range(len(values)) if (values[t:] <= goal).all()), None)


@pytest.mark.parametrize("rule", RULES)
def test_the_tuned_rule_arrives_as_soon_as_it_says(rule: str) -> None:
    found = tune("ravine", rule, steps=120)
    goal = 1e-3 * float(surfaces.get("ravine").value([-7, 2]))
    walked = path("ravine", found.rule, steps=120)
    assert slow_arrival(walked.values, goal) == found.steps_to_target
    assert found.rule.values["lr"] == found.lr


def test_no_learning_rate_of_the_grid_is_sooner() -> None:
    found = tune("ravine", SGD(), trials=31)
    rates = np.geomspace(1e-3, 10, 31)
    run = paths("ravine", SGD(), lr=rates, steps=100)
    goal = Goal.of("ravine").value
    arrived = [slow_arrival(run.values[:, i], goal) for i in range(31)]
    assert found.steps_to_target == min(t for t in arrived if t is not None)


def test_where_nothing_arrives_the_lowest_end_wins() -> None:
    found = tune("long_valley", "sgd", steps=50)
    assert found.steps_to_target is None
    near = [float(path("long_valley", SGD(lr=found.lr * f), steps=50).values[-1]) for f in (0.857, 1, 1.166)]
    assert near[1] == min(near)
    assert "lowest end" in found.how


def test_a_range_is_widened_where_the_best_lies_at_its_end() -> None:
    found = tune("ravine", Adagrad())
    assert found.lr > 1
    assert "61 learning rates from 0.0001 to 10" in found.how


def test_the_way_off_a_saddle_has_a_speed_limit_and_is_never_lost() -> None:
    saddle = surfaces.get("saddle")
    for rule in RULES:
        found = tune(saddle, rule)
        walked = path(saddle, found.rule)
        assert found.steps_to_target is not None, rule
        until = slice(None, found.steps_to_target)
        assert walked.values[found.steps_to_target] < 0
        assert (np.linalg.norm(walked.moves[until], axis=-1) <= LEAP_OFF_SADDLE * saddle.diagonal).all()
        assert (walked.values[until] <= walked.values[0] + 1e-6).all()


def test_with_noise_a_rate_is_judged_over_several_seeds() -> None:
    found = tune("noisy", SGD(), steps=300)
    assert found == tune("noisy", SGD(), steps=300)
    quiet = tune("noisy", SGD(), steps=300, noise=0.0)
    assert found.lr < quiet.lr
    assert found.lr > tune("noisy", SGD(), steps=300, noise=Noise(4.0)).lr


def test_a_formula_without_known_minima_has_its_windows_lowest() -> None:
    formula = surfaces.parse("(x - 1)**2/20 + y**2 + 3")
    assert Goal.of(formula).value == pytest.approx(
        3 + 1e-3 * float(formula.value(formula.start) - 3), rel=1e-2
    )
    assert tune(formula, "adam").steps_to_target is not None


def test_a_schedule_is_left_alone() -> None:
    rule = SGD(lr=Cosine(0.5, 100))
    found = tune("ravine", rule)
    assert found.rule is rule
    assert math.isnan(found.lr)
    assert found.steps_to_target == slow_arrival(path("ravine", rule).values, Goal.of("ravine").value)


def test_a_race_has_solvers_beside_rules_and_says_every_setting() -> None:
    race = compete("beale", ["sgd", Momentum(momentum=0.8), "l_bfgs"], steps=80)
    assert [*race.paths] == ["SGD", "Momentum", "L-BFGS"]
    for rule in (one.method for one in race.paths.values()):
        for name, value in getattr(rule, "values", {}).items():
            assert f"{name}={value:g}" in race.caption
    assert "(1, 1.5), 80 steps" in race.caption
    assert "best" in race.how or "tuned" in race.how
    assert race.arrivals["SGD"] == tune("beale", "sgd", steps=80).steps_to_target


def test_a_given_learning_rate_is_for_all_and_said() -> None:
    race = compete("ravine", [SGD(), Adam()], lr=0.25)
    assert {one.method.values["lr"] for one in race.paths.values()} == {0.25}  # type: ignore[union-attr]
    assert "0.25 for all" in race.caption


def test_noise_asked_for_is_said() -> None:
    assert "deviation 0.3" in compete("ravine", ["sgd"], noise=0.3, steps=20).caption


def test_one_rule_twice_is_told_apart() -> None:
    assert [*labelled([path("ravine", SGD(lr=lr), steps=2) for lr in (0.1, 0.2)])] == [
        "SGD, lr 0.1",
        "SGD, lr 0.2",
    ]
    assert len(compete("ravine", ["adam", "adam"], lr=0.1, steps=5).paths) == 2


def test_what_cannot_be_raced_is_refused() -> None:
    with pytest.raises(ValueError, match="one method or more"):
        compete("ravine", [])
    with pytest.raises(ValueError, match="three trials"):
        tune("ravine", "sgd", trials=2)
    with pytest.raises(TypeError, match="solver"):
        tune("ravine", "l_bfgs")
