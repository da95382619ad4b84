"""Your own Keras model, on whichever back end Keras runs.

KERAS_BACKEND=jax python examples/keras_model.py
KERAS_BACKEND=jax thalweg compare examples/keras_model.py:task
"""

import keras
from sklearn.datasets import load_digits

import thalweg
from thalweg import Task


def model() -> keras.Model:
    """Digits of 8x8 pixels to ten probabilities."""
    return keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def task(examples: int | None = None) -> Task:
    """Digits, of which 80 % are to learn from, 10 % to choose by, and 10 % to report on."""
    X, y = load_digits(return_X_y=True)
    return Task.from_keras(
        "my-keras-digits",
        model,
        (X[:examples] / 16, y[:examples]),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        epochs=10,
        batch_size=32,
    )


if __name__ == "__main__":
    study = thalweg.compare(task(), optimizers=["sgd", "rmsprop", "adam"], budget=5)
    print(study.advice())
