"""A small network, its data, and two ends compared."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import thalweg.torch

# Rounding can then be told from a mistake. Here, since spawned processes import this too.
torch.set_default_dtype(torch.float64)

STEPS = 6


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def data(rows: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(-1, 1, rows * 4).reshape(rows, 4)
    return x, torch.stack([x.sum(1).sin(), x.prod(1)], 1)


def loss(model: Callable[[torch.Tensor], torch.Tensor], rows: slice = slice(None)) -> torch.Tensor:
    x, y = (a[rows] for a in data())
    return (model(x) - y).square().mean()


def fit(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = STEPS) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()


def ends(model: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def beside_torch(act: Callable[[Any], list[torch.Tensor]]) -> None:
    """Whether `act` leads to the same tensors with torch.optim as with thalweg.torch."""
    wanted, found = act(torch.optim), act(thalweg.torch)
    assert wanted, "nothing was compared"
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9)
