"""A network moves as a whole from torch to Keras, and both go on alike."""

from collections.abc import Iterator
from typing import Any

import jax
import keras
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from convert_cases import KERAS_WARNS, all_in_float64  # noqa: F401
from thalweg import convert

pytestmark = KERAS_WARNS


@pytest.fixture
def layers_in_float64() -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("kind", ["SGD", "NAdam", "AdamW"])
@pytest.mark.usefixtures("layers_in_float64")
def test_a_network_trained_by_torch_goes_on_in_keras(kind: str) -> None:
    digits = load_digits()
    images, labels = digits.data / 16, digits.target
    batches = [np.arange(k * 32, k * 32 + 32) % len(labels) for k in range(80)]

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 24), torch.nn.ReLU(), torch.nn.Linear(24, 10))
    settings = {
        "SGD": {"lr": 0.2, "momentum": 0.9, "nesterov": True},
        "NAdam": {"lr": 0.01, "momentum_decay": 1.0},
        "AdamW": {"lr": 0.01, "betas": (0.9, 0.2), "eps": 1e-3, "weight_decay": 0.1},
    }[kind]
    params = list(model.named_parameters())
    optimizer = getattr(torch.optim, kind)(params, **settings)

    def in_torch(batch: np.ndarray) -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            model(torch.tensor(images[batch])), torch.tensor(labels[batch])
        )
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    losses = [in_torch(batch) for batch in batches[:30]]

    layers = keras.layers
    twin = keras.Sequential([layers.Input((64,)), layers.Dense(24, activation="relu"), layers.Dense(10)])
    variables = twin.trainable_variables
    names = convert.propose_names(
        {name: tuple(p.shape) for name, p in model.named_parameters()}, {v.path: v.shape for v in variables}
    )
    for variable, value in zip(variables, convert.arrays(model.state_dict(), names).values(), strict=True):
        variable.assign(value)
    moved = convert.state(
        optimizer,
        source="torch",
        target="keras",
        names=names,
        target_params=variables,
        step=30 if kind == "SGD" else None,
    )
    other = moved.optimizer(variables)

    @jax.jit
    def in_keras(weights: list[Any], state: list[Any], x: jax.Array, y: jax.Array) -> Any:
        def loss(weights: list[jax.Array]) -> jax.Array:
            scores, _ = twin.stateless_call(weights, [], x)
            return -jax.numpy.take_along_axis(jax.nn.log_softmax(scores), y[:, None], 1).mean()

        value, grads = jax.value_and_grad(loss)(weights)
        return value, *other.stateless_apply(state, grads, weights)

    weights, state = [v.value for v in variables], [v.value for v in other.variables]
    near = 1e-12  # which rounding in two frameworks' gradients widens
    for batch in batches[30:]:
        value, weights, state = in_keras(weights, state, images[batch], labels[batch])
        losses.append(in_torch(batch))
        assert float(value) == pytest.approx(losses[-1], rel=near)
        near = min(2 * near, 1e-7)
    assert losses[-1] < losses[0] / 2
    for found, wanted in zip(weights, convert.arrays(model.state_dict(), names).values(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)
