"""Images: digits and clothes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torch import Tensor

from thalweg.errors import Argument
from thalweg.study.data import sets
from thalweg.study.data.arrays import Data, Examples
from thalweg.study.data.sets import IdxSet
from thalweg.study.errors import StudyError
from thalweg.study.learners.metrics import LOSS, Measure
from thalweg.study.learners.models import mlp
from thalweg.study.learners.torch import TorchTraining
from thalweg.study.learners.torch_metrics import (
    TorchMetric,
    accuracy,
    bce,
    clipped_cross_entropy,
    cross_entropy,
)
from thalweg.study.task import Task
from thalweg.study.tasks import models

ACCURACY = TorchMetric(Measure("accuracy", lower_is_better=False), accuracy)
SOURCES = {
    "mnist": "http://yann.lecun.com/exdb/mnist",
    "fashion-mnist": "https://github.com/zalandoresearch/fashion-mnist (MIT)",
}


def digits(folder: Path | None = None) -> Task:
    """Scikit-learn's 8x8 digits, by a perceptron 64-64-10."""
    if folder:
        raise StudyError("digits are embedded in scikit-learn: leave out ", Argument("folder"))
    model = partial(mlp, 64, 64, 10)
    learner = TorchTraining("digits 1", model, sets.digits, cross_entropy, (ACCURACY,), 64)
    sources = {"digits": "https://archive.ics.uci.edu/dataset/80, from scikit-learn"}
    return Task("digits", "1", learner, (LOSS, ACCURACY.measure), batch_size=64, sources=sources)


def perceptron(files: IdxSet, folder: Path | None = None) -> Task:
    """28x28 pixels, by a perceptron 784-300-100-10, as in courses."""
    return _idx(files, folder, files.name, partial(mlp, 784, 300, 100, 10))


def convolutional(files: IdxSet, folder: Path | None = None) -> Task:
    """28x28 pixels, by a small convolutional network."""
    return _idx(files, folder, f"{files.name}-cnn", models.convolutional)


def _idx(files: IdxSet, folder: Path | None, name: str, model: models.Factory) -> Task:
    files.find(folder)
    version = f"1, data {files.digest}"
    load = partial(files.load, folder and folder.absolute())
    learner = TorchTraining(f"{name} {version}", model, load, clipped_cross_entropy, (ACCURACY,), 32)
    sources = {files.name: SOURCES[files.name]}
    return Task(name, version, learner, (LOSS, ACCURACY.measure), sources=sources)


def autoencoder(files: IdxSet, folder: Path | None = None) -> Task:
    """28x28 pixels through a code of 30 numbers, by 784-1000-500-250-30 logistic units and back.

    Hinton & Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks"; the loss is
    the cross-entropy of pixels, summed over a picture.
    """
    files.find(folder)
    version = f"1, data {files.digest}"
    load = partial(_as_targets, files, folder and folder.absolute())
    model = partial(models.autoencoder, 784, 1000, 500, 250, 30)
    name = f"{files.name}-autoencoder"
    learner = TorchTraining(f"{name} {version}", model, load, picture_bce, (SQUARES,), 100)
    sources = {files.name: SOURCES[files.name]}
    return Task(name, version, learner, (LOSS, SQUARES.measure), batch_size=100, sources=sources)


def picture_bce(outputs: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of pixels, summed over a picture, mean over pictures."""
    return bce(outputs, targets) * outputs.shape[-1]


def picture_squares(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error of pixels, summed over a picture, mean over pictures."""
    return (outputs.sigmoid() - targets).square().sum(-1).mean()


SQUARES = TorchMetric(Measure("squared_error", lower_is_better=True), picture_squares)


def _as_targets(files: IdxSet, folder: Path | None) -> Data:
    """The images, each its own target."""
    data = files.load(folder)
    return Data(*(Examples(images, images) for images, _ in (data.train, data.validation, data.test)))
