"""A task small enough to train in milliseconds, and plans of it, for the tests of the study."""

import dataclasses

import numpy as np

from thalweg.study import plan
from thalweg.study.data import Data, Part
from thalweg.study.plan import Plan
from thalweg.study.task import Task, accuracy, cross_entropy, perceptron


def load():
    """Three clouds of points in four dimensions; the number to train on is no multiple of the batch size."""
    rng = np.random.RandomState(0)
    centres = rng.normal(size=(3, 4)) * 2

    def part(count):
        targets = rng.randint(3, size=count)
        return Part(
            (centres[targets] + rng.normal(size=(count, 4))).astype(np.float32), targets.astype(np.int64)
        )

    return Data(part(70), part(20), part(20))


def model():
    return perceptron(4, 8, 3)


BLOBS = Task("blobs", "1", load, model, cross_entropy, {"accuracy": accuracy}, epochs=3, batch_size=16)


def small(task=BLOBS, optimizers=("sgd", "adam"), lr=(0.01, 0.1), seeds=2, **values) -> Plan:
    return plan.make(task, optimizers, lr=lr, seeds=seeds, **values)


def changed(**values) -> Task:
    """The blobs with something else instead."""
    return dataclasses.replace(BLOBS, **values)
