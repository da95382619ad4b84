"""Keras's callbacks and KerasTuner, on its torch back end, where kernels take the steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest

import thalweg.keras

keras.config.set_floatx("float64")  # rounding can then be told from a mistake

X = np.linspace(-1, 1, 64).reshape(16, 4)
Y = np.sin(X.sum(1, keepdims=True))
KINDS = ["SGD", "AdamW", "Nadam"]


def network() -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])


def compiled(module: Any, kind: str = "AdamW", rate: Any = 0.05) -> Any:
    model = network()
    model.compile(getattr(module, kind)(learning_rate=rate), "mse")
    return model


def fit(model: Any, epochs: int, callbacks: list[Any] | None = None, **settings: Any) -> Any:
    return model.fit(
        X, Y, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks, **settings
    ).history


def beside_keras(act: Callable[[Any], list[Any]]) -> None:
    """Whether `act` leads to the same arrays with keras.optimizers as with thalweg.keras."""
    wanted, found = act(keras.optimizers), act(thalweg.keras)
    assert wanted, "nothing was compared"
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rate_reduced_on_a_plateau(kind: str) -> None:
    def act(module: Any) -> list[Any]:
        model = compiled(module, kind)
        callback = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=0, min_delta=10.0)
        history = fit(model, 4, [callback])
        assert history["learning_rate"][-1] < history["learning_rate"][0]
        return [*model.get_weights(), history["learning_rate"]]

    beside_keras(act)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rate_scheduled_each_epoch(kind: str) -> None:
    def act(module: Any) -> list[Any]:
        model = compiled(module, kind)
        callback = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.7)
        history = fit(model, 4, [callback])
        return [*model.get_weights(), history["learning_rate"]]

    beside_keras(act)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_model_kept_and_resumed(kind: str, tmp_path: Path) -> None:
    def act(module: Any) -> list[Any]:
        file = tmp_path / f"{module.__name__}.keras"
        model = compiled(module, kind)
        fit(model, 2, [keras.callbacks.ModelCheckpoint(file)])
        resumed = keras.models.load_model(file)
        assert type(resumed.optimizer) is type(model.optimizer)
        for m in (model, resumed):
            fit(m, 2)
        for a, b in zip(model.get_weights(), resumed.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        return list(resumed.get_weights())

    beside_keras(act)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_kept_and_loaded(kind: str, tmp_path: Path) -> None:
    def act(module: Any) -> list[Any]:
        file = tmp_path / f"{module.__name__}.weights.h5"
        callback = keras.callbacks.ModelCheckpoint(file, save_weights_only=True)
        model = compiled(module, kind)
        fit(model, 3, [callback])
        fresh = compiled(module, kind)  # its optimizer has no variables yet: Keras warns and goes on
        fresh.load_weights(file)
        for a, b in zip(model.get_weights(), fresh.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        fit(fresh, 2)
        return list(fresh.get_weights())

    beside_keras(act)


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_after_an_interruption(kind: str, tmp_path: Path) -> None:
    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    def act(module: Any) -> list[Any]:
        folder = tmp_path / module.__name__
        model = compiled(module, kind)
        with pytest.raises(KeyboardInterrupt):
            fit(model, 4, [keras.callbacks.BackupAndRestore(folder), Stop()])
        resumed = compiled(module, kind)
        assert len(fit(resumed, 4, [keras.callbacks.BackupAndRestore(folder)])["loss"]) == 2
        whole = compiled(module, kind)
        fit(whole, 4)
        for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
        return list(resumed.get_weights())

    beside_keras(act)


def test_averages_of_weights_swapped_in(tmp_path: Path) -> None:
    def act(module: Any) -> list[Any]:
        model = network()
        model.compile(module.Adam(0.05, use_ema=True, ema_momentum=0.8), "mse")
        swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
        fit(model, 3, [swap], validation_data=(X, Y))
        return list(model.get_weights())

    beside_keras(act)


def test_early_stopping_and_a_schedule() -> None:
    def act(module: Any) -> list[Any]:
        model = compiled(module, rate=keras.optimizers.schedules.CosineDecay(0.05, 20))
        stop = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=0.05, restore_best_weights=True)
        history = fit(model, 8, [stop])
        return [*model.get_weights(), history["loss"]]

    beside_keras(act)


def test_keras_tuner(tmp_path: Path) -> None:
    def act(module: Any) -> list[Any]:
        def build(choices: Any) -> Any:
            return compiled(module, rate=choices.Choice("rate", [0.01, 0.05, 0.2]))

        tuner = keras_tuner.GridSearch(
            build, objective="val_loss", directory=tmp_path, project_name=module.__name__
        )
        tuner.search(X, Y, batch_size=4, epochs=2, shuffle=False, validation_data=(X, Y), verbose=0)
        best, *_ = tuner.get_best_models(1)
        fit(best, 1)
        return [tuner.get_best_hyperparameters()[0].get("rate"), *best.get_weights()]

    beside_keras(act)
