"""Each dialect against the framework's own optimizer, in float64."""

from collections.abc import Iterator
from typing import Any

import jax
import keras
import numpy as np
import pytest
import torch

import thalweg
from helpers import difference, eager
from thalweg.dialects import DIALECTS
from thalweg.registry import find
from thalweg.schedules import Exponential

STEPS = 25

KERAS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "adagrad": ("Adagrad", {}),
    "adadelta": ("Adadelta", {}),
    "rmsprop": ("RMSprop", {}),
    "adam": ("Adam", {}),
    "amsgrad": ("Adam", {"amsgrad": True}),
    "adamw": ("AdamW", {}),
    "adamax": ("Adamax", {}),
    "nadam": ("Nadam", {}),
    "lion": ("Lion", {}),
}
KERAS_FORMS = [
    *((name, {}, *rest) for name, rest in KERAS.items()),
    ("rmsprop", {"momentum": 0.8}, "RMSprop", {"momentum": 0.8}),
    ("rmsprop", {"centered": True}, "RMSprop", {"centered": True}),
    ("rmsprop", {"centered": True, "momentum": 0.8}, "RMSprop", {"centered": True, "momentum": 0.8}),
]

TORCH: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "adagrad": ("Adagrad", {}),
    "adadelta": ("Adadelta", {}),
    "rmsprop": ("RMSprop", {}),
    "adam": ("Adam", {}),
    "amsgrad": ("Adam", {"amsgrad": True}),
    "adamw": ("AdamW", {}),
    "adamax": ("Adamax", {}),
    "nadam": ("NAdam", {}),
    "radam": ("RAdam", {}),
}


def problem(scale: float = 1.0) -> tuple[Any, list[Any]]:
    generator = np.random.default_rng(0)
    p, *grads = scale * generator.standard_normal((1 + STEPS, 5))
    return p, grads


@pytest.fixture(autouse=True)
def keras_float64() -> Iterator[None]:
    """Keras's learning rate and state in float64."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    with jax.enable_x64(True):
        yield
    keras.config.set_floatx(before)


def with_keras(optimizer: Any, p: Any, grads: list[Any], rates: list[float] | None = None) -> Any:
    variable = keras.Variable(p, dtype="float64")
    optimizer.build([variable])
    for k, g in enumerate(grads):
        if rates:
            optimizer.learning_rate = rates[k]
        optimizer.apply([keras.ops.convert_to_tensor(g)], [variable])
    return np.asarray(variable)


# Where ε stands matters with tiny gradients only.
@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize(("name", "values", "kind", "settings"), KERAS_FORMS)
def test_keras(name: str, values: dict[str, Any], kind: str, settings: dict[str, Any], scale: float) -> None:
    p, grads = problem(scale)
    wanted = with_keras(getattr(keras.optimizers, kind)(**settings), p, grads)
    found = eager(thalweg.get(name, dialect="keras", **values), p, grads)
    assert difference(found - p, wanted - p) <= 1e-10


# A velocity that holds steps keeps the old rate: only a schedule tells the forms apart.
@pytest.mark.parametrize(
    ("name", "values", "kind", "settings"), [form for form in KERAS_FORMS if "momentum" in form[3]]
)
def test_keras_under_a_schedule(
    name: str, values: dict[str, Any], kind: str, settings: dict[str, Any]
) -> None:
    p, grads = problem()
    rate = Exponential(0.1, 0.8)
    rates = [rate(t) for t in range(1, STEPS + 1)]
    wanted = with_keras(getattr(keras.optimizers, kind)(**settings), p, grads, rates)
    found = eager(thalweg.get(name, dialect="keras", lr=rate, **values), p, grads)
    assert difference(found - p, wanted - p) <= 1e-10


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize(("name", "kind", "settings"), [(name, *rest) for name, rest in TORCH.items()])
def test_torch(name: str, kind: str, settings: dict[str, Any], scale: float) -> None:
    p, grads = problem(scale)
    tensor = torch.tensor(p, requires_grad=True)
    optimizer = getattr(torch.optim, kind)([tensor], **settings)
    for g in grads:
        tensor.grad = torch.tensor(g)
        optimizer.step()
    found = eager(thalweg.get(name, dialect="torch"), p, grads)
    assert difference(found - p, tensor.detach().numpy() - p) <= 1e-10


@pytest.mark.parametrize(("kind", "wanted"), [("torch", -0.0909), ("keras", -0.0405)])
def test_where_epsilon_stands_decides_how_far_adam_goes(kind: str, wanted: float) -> None:
    rule = thalweg.get("adam", dialect=kind, lr=0.01, epsilon=1e-7)
    assert eager(rule, np.zeros(1), [np.full(1, 1e-6)] * 10)[0] == pytest.approx(wanted, abs=5e-5)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"dialect": "torch"}, -0.1733),
        ({"dialect": "keras"}, -0.1479),
        ({"initial_accumulator": 1.0, "epsilon_in_root": True}, -0.000135),
    ],
)
def test_where_rmsprop_starts_decides_how_far_it_goes(values: dict[str, Any], wanted: float) -> None:
    rule = thalweg.get("rmsprop", **values, lr=0.01, rho=0.9, epsilon=1e-7)
    assert eager(rule, np.zeros(1), [np.full(1, 1e-3)] * 10)[0] == pytest.approx(wanted, rel=5e-3)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_dialect_names_only_rules_and_fields_that_exist(dialect: str) -> None:
    for name, values in DIALECTS[dialect].items():
        kind = find(name)
        assert kind.__name__ == name
        assert kind(**values) != kind(), f"{dialect} says of {name} only what the rule says itself"


def test_a_value_given_wins_over_the_dialects() -> None:
    assert thalweg.get("adam", dialect="keras", epsilon=1e-3).values["epsilon"] == 1e-3
