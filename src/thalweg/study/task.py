"""What is learned: a model, data, a loss and metrics."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from thalweg.errors import nearest
from thalweg.study import data
from thalweg.study.data import Data
from thalweg.study.errors import StudyError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Task:
    """A model, data, a loss and metrics, with a seed.

    Attributes:
        name: names the task in reports and in the default study folder.
        version: changes whenever the model, the data or their preparation do: trials of different
            versions are never mixed.
        load: makes the data.
        model: makes a model with fresh weights from torch's global generator, which is seeded for it.
        loss: `(outputs, targets) -> scalar`, a mean over the batch.
        metrics: further figures by name, each like `loss`.
        epochs, batch_size: what to train with where the user does not say.
        seed: the first trial seed; the others count up from it.
    """

    name: str
    version: str
    load: Callable[[], Data]
    model: Callable[[], torch.nn.Module]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    metrics: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = field(default_factory=dict)
    epochs: int = 20
    batch_size: int = 32
    seed: int = 0


def perceptron(*widths: int) -> torch.nn.Module:
    """Fully connected layers with ReLU between them: Glorot-uniform weights, zero biases, as in Keras."""
    from torch import nn

    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean softmax cross-entropy of logits, in nats."""
    from torch.nn import functional

    return functional.cross_entropy(outputs, targets)


def cut_cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy as Keras has it: probabilities are cut to [1e-7, 1 - 1e-7].

    No example costs more than 16.1 nats, and one beyond that teaches nothing. It shows: without the cut,
    RMSprop's validation loss on Fashion-MNIST is a tenth higher, from three examples in a thousand.
    """
    from torch.nn import functional

    return functional.cross_entropy(outputs, targets, reduction="none").clamp(1e-7, -math.log(1e-7)).mean()


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Share of examples whose largest output is their class."""
    return (outputs.argmax(-1) == targets).float().mean()


def _digits(folder: Path | None) -> Task:
    if folder:
        raise StudyError("digits are embedded in scikit-learn: leave --data out")
    model = partial(perceptron, 64, 64, 10)
    return Task("digits", "1", data.digits, model, cross_entropy, {"accuracy": accuracy}, batch_size=64)


def _idx(files: data.IdxSet, folder: Path | None) -> Task:
    files.find(folder)
    content = hashlib.sha256(json.dumps(files.checksums).encode()).hexdigest()[:12]
    load = partial(files.load, folder and folder.absolute())
    model = partial(perceptron, 784, 300, 100, 10)
    return Task(files.name, f"1, data {content}", load, model, cut_cross_entropy, {"accuracy": accuracy})


TASKS: dict[str, Callable[[Path | None], Task]] = {
    "digits": _digits,
    "fashion-mnist": partial(_idx, data.FASHION_MNIST),
    "mnist": partial(_idx, data.MNIST),
}


def get(name: str, folder: Path | None = None) -> Task:
    """A built-in task by name, its data found and checked.

    Args:
        name: "digits", "mnist" or "fashion-mnist"; capitals and underscores make no difference.
        folder: where the data files are, for a task that has some. None: the cache, else a download.

    Raises:
        StudyError: no task has the name, or its data is not to be had.
    """
    known = {key.replace("-", ""): make for key, make in TASKS.items()}
    make = known.get(name.lower().replace("-", "").replace("_", "").replace(" ", ""))
    if make is None:
        raise StudyError(f"no task is named {name!r}; {nearest(name, TASKS)}")
    return make(folder)
