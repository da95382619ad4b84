"""Convex tasks, whose lowest loss is known."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from thalweg.errors import Argument
from thalweg.study.data.arrays import Array, Data, Examples
from thalweg.study.errors import StudyError
from thalweg.study.learners.metrics import LOSS, Measure
from thalweg.study.learners.torch import TorchTraining
from thalweg.study.learners.torch_metrics import TorchMetric, bce
from thalweg.study.task import Task

_L2 = 1e-2


def quadratic(
    folder: Path | None = None, *, dimensions: int = 100, condition: float = 1000.0, noise: float = 0.0
) -> Task:
    """The quadratic x'Hx / 2, whose minimum is 0 at 0, from a random start of norm about sqrt(dimensions).

    Args:
        folder: None: there is no data.
        dimensions: how many entries x has.
        condition: the condition number of H, whose eigenvalues are spread evenly on a logarithmic scale
            from 1 / condition to 1, along random directions.
        noise: standard deviation of what is added to each entry of a step's gradient. It sums to 0
            over an epoch of 100 steps, and is left out in validation and test.

    Raises:
        StudyError: a folder, or a value out of range.
    """
    if folder:
        raise StudyError("the quadratic has no data: leave out ", Argument("folder"))
    if dimensions < 1 or not condition >= 1 or not noise >= 0:
        raise StudyError("dimensions and condition are at least 1, noise at least 0")
    name = "quadratic"
    version = f"1, dimensions {dimensions}, condition {condition:g}, noise {noise:g}"
    model = partial(Quadratic, dimensions, condition)
    load = partial(_noise, dimensions, noise)
    learner = TorchTraining(f"{name} {version}", model, load, mean_output, (), 1)
    return Task(name, version, learner, (LOSS,), epochs=20, batch_size=1, optimum=0.0)


class Quadratic(nn.Module):
    """A point; its outputs are losses, (n,), with slopes (n, dimensions) added to its gradient."""

    def __init__(self, dimensions: int, condition: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.randn(dimensions))
        # RandomState: all seeds have the same H, and starts of their own.
        basis, _ = np.linalg.qr(np.random.RandomState(0).normal(size=(dimensions, dimensions)))
        eigenvalues = np.logspace(0, -np.log10(condition), dimensions) if dimensions > 1 else np.ones(1)
        self.hessian: Tensor
        self.register_buffer("hessian", torch.tensor((basis * eigenvalues) @ basis.T, dtype=torch.float32))

    def forward(self, slopes: Tensor) -> Tensor:
        """Losses (n,)."""
        return self.x @ (self.hessian @ self.x) / 2 + slopes @ self.x


def mean_output(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean of outputs that are losses themselves."""
    return outputs.mean()


def _noise(dimensions: int, noise: float) -> Data:
    slopes = noise * np.random.RandomState(1).normal(size=(100, dimensions))
    slopes -= slopes.mean(axis=0)
    no_noise = Examples(np.zeros((1, dimensions), np.float32), np.zeros(1, np.float32))
    return Data(Examples(slopes.astype(np.float32), np.zeros(100, np.float32)), no_noise, no_noise)


def logistic(folder: Path | None = None) -> Task:
    """Benign or malignant, by logistic regression with an l2 penalty on 30 standardised measurements.

    The loss is the mean cross-entropy plus 0.005 |w|^2, convex; its lowest value over the training set
    was found by Newton's method and is `Task.optimum`.
    """
    if folder:
        raise StudyError("the data of logistic is embedded in scikit-learn: leave out ", Argument("folder"))
    metrics = (TorchMetric(Measure("accuracy", lower_is_better=False), first_accuracy),)
    learner = TorchTraining("logistic 1", Penalised, _measurements, penalised_bce, metrics, 32)
    sources = {"breast cancer": "https://archive.ics.uci.edu/dataset/17, from scikit-learn"}
    train = _measurements().train
    optimum = lowest(train.inputs.astype(float), train.targets.astype(float))
    return Task("logistic", "1", learner, (LOSS, metrics[0].measure), optimum=optimum, sources=sources)


class Penalised(nn.Module):
    """Logistic regression; its outputs are logits and penalties, (n, 2)."""

    def __init__(self, features: int = 30) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(features))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits and penalties (n, 2) of inputs (n, features)."""
        logits = inputs @ self.weight + self.bias
        penalty = _L2 / 2 * self.weight.square().sum()
        return torch.stack([logits, penalty.expand_as(logits)], -1)


def penalised_bce(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy of the logits plus the penalty."""
    return bce(outputs[..., 0], targets) + outputs[..., 1].mean()


def first_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of examples whose logit has the right sign."""
    return ((outputs[..., 0] > 0) == (targets > 0.5)).float().mean()


def _measurements() -> Data:
    """569 examples: 369 to train, 100 to validate, 100 to test; scaled by the training set's moments."""
    from sklearn.datasets import load_breast_cancer

    inputs, targets = load_breast_cancer(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(inputs))
    train, *others = np.split(order, [369, 469])
    mean, deviation = inputs[train].mean(axis=0), inputs[train].std(axis=0)
    inputs = ((inputs - mean) / deviation).astype(np.float32)
    return Data(*(Examples(inputs[rows], targets[rows].astype(np.float32)) for rows in (train, *others)))


def lowest(inputs: Array, targets: Array) -> float:
    """The lowest penalised loss, to 1e-10 and better: Newton's method from 0, in float64."""
    design = np.hstack([inputs, np.ones((len(inputs), 1))])
    penalties = np.append(np.full(inputs.shape[1], _L2), 0.0)
    w = np.zeros(design.shape[1])

    def loss(w: Array) -> float:
        logits = design @ w
        return float(np.mean(np.logaddexp(0, logits) - targets * logits) + penalties @ w**2 / 2)

    while True:
        p = 1 / (1 + np.exp(-design @ w))
        gradient = design.T @ (p - targets) / len(targets) + penalties * w
        hessian = (design.T * (p * (1 - p))) @ design / len(targets) + np.diag(penalties)
        step = np.linalg.solve(hessian, gradient)
        if gradient @ step / 2 < 1e-14:  # about how much the loss can still fall
            return loss(w)
        size = 1.0
        while loss(w - size * step) > loss(w) - 1e-4 * size * (gradient @ step):
            size /= 2
        w -= size * step
