"""A whole comparison beside the Keras script that one would write instead: wall time, from start to end.

    python benchmarks/compare.py [--epochs 20] [--optimizers sgd,adam] [--data DIR]

Eight optimizers on Fashion-MNIST (784-300-100-10, batch 32), one learning rate, one seed. All contenders have
the same two cores, the same examples and, every epoch, the same validation. Each runs in a process of its own
whose start counts too; they take turns, so that a busy machine disturbs all alike.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CORES = 2
RATE = 0.01
BACKENDS = ("jax", "torch")

# Keras's names for what `thalweg compare` calls by these.
KERAS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "adagrad": ("Adagrad", {}),
    "rmsprop": ("RMSprop", {}),
    "adam": ("Adam", {}),
    "adamax": ("Adamax", {}),
    "nadam": ("Nadam", {}),
}


def keras_script(epochs: int, optimizers: list[str], data: Path | None) -> None:
    """What one would write without `thalweg compare`; prints each optimizer's last validation loss."""
    import keras

    from thalweg.study.data.sets import FASHION_MNIST

    parts = FASHION_MNIST.load(data)
    for name in optimizers:
        keras.utils.set_random_seed(0)
        kind, further = KERAS[name]
        model = keras.Sequential(
            [
                keras.layers.Input((784,)),
                keras.layers.Dense(300, activation="relu"),
                keras.layers.Dense(100, activation="relu"),
                keras.layers.Dense(10, activation="softmax"),
            ]
        )
        model.compile(
            optimizer=getattr(keras.optimizers, kind)(learning_rate=RATE, **further),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        history = model.fit(
            *parts.train,
            batch_size=32,
            epochs=epochs,
            validation_data=tuple(parts.validation),
            verbose=0,
        )
        print(name, history.history["val_loss"][-1])


def run_keras(backend: str, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, *_options(arguments), "--script"]
    said = _run(command, os.environ | {"KERAS_BACKEND": backend})
    return {name: float(loss) for name, loss in (line.split() for line in said.splitlines())}


def run_ours(arguments: argparse.Namespace) -> tuple[dict[str, float], float]:
    """Each optimizer's last validation loss, and the seconds of training steps over all processes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "thalweg", "compare", "fashion-mnist", *_options(arguments)]
        _run([*command, "--lr", str(RATE), "--seeds", "1", "--jobs", str(CORES), "--out", folder], os.environ)
        losses, seconds = {}, 0.0
        for path in Path(folder).glob("trials/*.jsonl"):
            header, *_, last, end = map(json.loads, path.read_text().splitlines())
            losses[header["specification"]["contestant"]["name"]] = last["val_loss"]
            seconds += end["seconds"]
        return losses, seconds


def _run(command: list[str], environment: Any) -> str:
    # OpenMP would start a thread for every core that the machine has, were it not told.
    limits = {"OMP_NUM_THREADS": str(CORES)}
    done = subprocess.run(
        command, env={**environment, **limits}, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def _options(arguments: argparse.Namespace) -> list[str]:
    data = ["--data", str(arguments.data)] if arguments.data else []
    return ["--epochs", str(arguments.epochs), "--optimizers", arguments.optimizers, *data]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    found = call()
    return time.perf_counter() - begin, found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20, help="default: 20; fewer for a quick look")
    parser.add_argument("--optimizers", default=",".join(KERAS), help="default: all eight")
    parser.add_argument("--data", type=Path, help="folder of the data files (default: downloaded once)")
    parser.add_argument("--rounds", type=int, default=1, help="how often each runs (default: 1)")
    parser.add_argument("--script", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.optimizers.split(",")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    if arguments.script:
        keras_script(arguments.epochs, names, arguments.data)
        return
    ours: list[float] = []
    training: list[float] = []
    theirs: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
    losses: dict[str, dict[str, float]] = {}
    for _ in range(arguments.rounds):
        seconds, (losses["thalweg"], steps) = timed(lambda: run_ours(arguments))
        ours.append(seconds)
        training.append(steps)
        for backend in BACKENDS:
            seconds, losses[f"keras {backend}"] = timed(lambda b=backend: run_keras(b, arguments))  # type: ignore[misc]
            theirs[backend].append(seconds)
    print(f"fashion-mnist, {len(names)} optimizers, {arguments.epochs} epochs, batch 32, {CORES} cores\n")
    print(f"{'':24}{'seconds':>9}  times as long")
    print(f"{'thalweg compare':24}{statistics.median(ours):9.1f}")
    for backend, found in theirs.items():
        ratio = statistics.median(their / our for their, our in zip(found, ours, strict=True))
        print(f"{'keras on ' + backend:24}{statistics.median(found):9.1f}  {ratio:.2f}")
    over = statistics.median(our * CORES / steps - 1 for our, steps in zip(ours, training, strict=True))
    print(
        f"\nOf {CORES} cores' time in thalweg compare, {statistics.median(training):.1f} s were training "
        f"steps; all else (start, data, evaluation, waiting for the last run, report) is {over:.1%} on top."
    )
    print("\nlast validation loss     " + "".join(f"{name:>10}" for name in names))
    for contender, found_losses in losses.items():
        print(f"{contender:25}" + "".join(f"{found_losses[name]:10.3f}" for name in names))


if __name__ == "__main__":
    main()
