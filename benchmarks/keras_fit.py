"""Whole `model.fit` time for a step, beside Keras's own optimizers, in one run and taking turns.

    python benchmarks/keras_fit.py [--backends torch jax] [--seconds 6] [--rounds 11]

A 784-300-100-10 network in batches of 32: real Fashion-MNIST where ../shared/data has it, random images
elsewhere. Each back end has a process of its own. Prints milliseconds a step and how many times faster
`fit` is with Thalweg's optimizer than with Keras's of the same name: median and quartiles over rounds in
which all take turns. `at most` is the ratio that an optimizer which costs nothing would reach, gradients
still computed: forward and backward passes and Keras's own loop are the same for all.
"""

import argparse
import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("SGD", "Adam", "Nadam", "RMSprop")
# Required times faster, by back end and optimizer.
REQUIRED = {
    "torch": {"SGD": 1.0, "Adam": 1.5, "Nadam": 2.5, "RMSprop": 1.0},
    "jax": dict.fromkeys(NAMES, 1.0),
}
STEPS = 100


def images() -> tuple[str, Any, Any]:
    """What they are, images as rows of 784 numbers, and their classes: enough for one call of `fit`."""
    folder = Path(__file__).parents[1] / ".." / "shared" / "data" / "fashion-mnist"
    found = [folder / f"train-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1")]
    count = 32 * STEPS
    if not all(path.exists() for path in found):
        generator = np.random.default_rng(0)
        return "random images", generator.random((count, 784), np.float32), generator.integers(0, 10, count)
    pixels, labels = (gzip.decompress(path.read_bytes()) for path in found)
    x = np.frombuffer(pixels, np.uint8, count * 784, 16).reshape(-1, 784) / np.float32(255)
    return "Fashion-MNIST", x.astype(np.float32), np.frombuffer(labels, np.uint8, count, 8).astype(np.int32)


def contender(optimizer: Any, x: Any, y: Any) -> Callable[[], object]:
    """One call of `fit`, on a model of its own."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    stack = [layers.Dense(300, "relu"), layers.Dense(100, "relu"), layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((784,)), *stack])
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy")
    return lambda: model.fit(x, y, batch_size=32, verbose=0)


def no_step() -> Any:
    """An optimizer that costs nothing."""
    import keras

    class Nothing(keras.optimizers.Optimizer):  # type: ignore[misc]
        def apply(self, grads: Any, trainable_variables: Any = None) -> None:
            if not self.built:
                self.build(trainable_variables)
            if keras.backend.backend() == "jax":  # where what nobody asks for is not computed
                import jax

                values = [v.value for v in self._trainable_variables]
                for v, value in zip(
                    self._trainable_variables, jax.lax.optimization_barrier((values, grads))[0], strict=True
                ):
                    v.assign(value)

    return Nothing(0.1)


def measure(backend: str, seconds: float, rounds: int) -> None:
    """Measure on this process's back end."""
    import keras

    import thalweg.keras
    from timing import machine, take_turns

    what, x, y = images()
    print(f"{machine()}, Keras {keras.__version__} on {backend}; {what}\n")
    made = {f"{n}, Keras": getattr(keras.optimizers, n)(1e-3) for n in NAMES}
    made |= {f"{n}, Thalweg": getattr(thalweg.keras, n)(1e-3) for n in NAMES}
    contenders = {name: contender(optimizer, x, y) for name, optimizer in made.items()}
    times = take_turns({**contenders, "no step": contender(no_step(), x, y)}, seconds, rounds)
    print(f"{'ms a step of fit':18} {'Keras':>8} {'Thalweg':>8}   times faster         at most    required")
    for name in NAMES:
        slow, fast = f"{name}, Keras", f"{name}, Thalweg"
        in_ms = [f"{times.median(which) / STEPS * 1e3:8.3f}" for which in (slow, fast)]
        required = REQUIRED.get(backend, {}).get(name, 1.0)
        holds = times.quartiles(slow, fast)[1] >= required
        bound = f"{times.quartiles(slow, 'no step')[1]:5.2f}"
        verdict = f"{required:.1f} {'yes' if holds else 'NO'}"
        print(f"{name:18} {' '.join(in_ms)}   {times.ratio(slow, fast)}   {bound}      {verdict}")
    print(f"{'no step':18} {'':8} {times.median('no step') / STEPS * 1e3:8.3f}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=["torch", "jax"], help="Keras's (torch jax)")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each contender (6)")
    parser.add_argument("--rounds", type=int, default=11, help="in which all take turns (11)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        measure(options.backends[0], options.seconds, options.rounds)
        return
    for backend in options.backends:
        subprocess.run(
            [sys.executable, *sys.argv, "--here", "--backends", backend],
            env={**os.environ, "KERAS_BACKEND": backend},
            check=True,
        )


if __name__ == "__main__":
    main()
