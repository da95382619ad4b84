"""The plainest model: what a task of arrays trains where the user gives none."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import nn


def mlp(*widths: int) -> nn.Sequential:
    """Fully connected layers with ReLU between them: Glorot-uniform weights, zero biases, as in Keras."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [glorot(nn.Linear(inputs, outputs)), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def glorot(layer: Any) -> Any:
    """A layer that starts as Keras starts it: Glorot-uniform weights, zero biases."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
