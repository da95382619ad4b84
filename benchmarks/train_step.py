"""Whole training steps (forward, backward, step) in a loop, beside torch's default and fused optimizers.

    python benchmarks/train_step.py [--seconds 4]

The framework's threads and the kernel's can slow each other although the step alone is fast, so only
the whole step counts for a user. Prints milliseconds and how many times faster a step with Thalweg is:
median and quartiles over rounds in which all take turns; then which required ratios hold, each with
the most that it could be, if the step took no time at all.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import thalweg.torch
from timing import machine, take_turns


def dense(width: int, batch: int) -> tuple[nn.Module, torch.Tensor]:
    """784-width-width-10 and a batch."""
    layers = [nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)]
    return nn.Sequential(*layers), torch.randn(batch, 784)


def small() -> tuple[nn.Module, torch.Tensor]:
    """784-300-100-10, batch 32."""
    layers = [nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)]
    return nn.Sequential(*layers), torch.randn(32, 784)


def convolutional() -> tuple[nn.Module, torch.Tensor]:
    """Two convolutions and two dense layers on 28 × 28 images, batch 32."""
    layers = [
        nn.Conv2d(1, 16, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(800, 64), nn.ReLU(), nn.Linear(64, 10)
    ), torch.randn(32, 1, 28, 28)


MODELS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "784-300-100-10, batch 32": small,
    "1000 wide, batch 64": lambda: dense(1000, 64),
    "convolutional, batch 32": convolutional,
}


def training_step(
    model: Callable[[], tuple[nn.Module, torch.Tensor]], optimizer: Callable[[Any], torch.optim.Optimizer]
) -> Callable[[], None]:
    torch.manual_seed(0)
    network, inputs = model()
    labels = torch.randint(0, 10, (len(inputs),))
    loss = nn.CrossEntropyLoss()
    made = optimizer(network.parameters())

    def step() -> None:
        made.zero_grad()
        loss(network(inputs), labels).backward()
        made.step()

    return step


def no_step(params: Any) -> torch.optim.Optimizer:
    """Forward and backward alone: no optimizer, however fast, makes a training step shorter than this."""
    optimizer = torch.optim.SGD(params)
    optimizer.step = lambda: None  # type: ignore[method-assign, assignment, misc]
    return optimizer


CONTENDERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "thalweg Adam": lambda p: thalweg.torch.Adam(p, lr=1e-4),
    "torch Adam, fused": lambda p: torch.optim.Adam(p, lr=1e-4, fused=True),
    "torch Adam, default": lambda p: torch.optim.Adam(p, lr=1e-4),
    "thalweg NAdam": lambda p: thalweg.torch.NAdam(p, lr=1e-4),
    "torch NAdam, default": lambda p: torch.optim.NAdam(p, lr=1e-4),
    "no step at all": no_step,
}
# Slow, fast, required times faster.
REQUIRED = [
    ("torch Adam, fused", "thalweg Adam", 0.97),
    ("torch Adam, default", "thalweg Adam", 1.25),
    ("torch NAdam, default", "thalweg NAdam", 1.5),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each contender (4)")
    options = parser.parse_args()
    print(machine())
    verdicts = []
    for name, model in MODELS.items():
        times = take_turns({k: training_step(model, o) for k, o in CONTENDERS.items()}, options.seconds, 21)
        print(f"\n{name}: ms a training step")
        for contender in CONTENDERS:
            print(f"  {contender:22} {times.median(contender) * 1e3:8.3f}")
        for slow, fast, least in REQUIRED:
            holds = times.quartiles(slow, fast)[1] >= least
            bound = times.quartiles(slow, "no step at all")[1]
            what = f"{name}: {fast} ≥ {least} × {slow}: {times.ratio(slow, fast)}, at most {bound:.2f}"
            verdicts.append((holds, what))
    print("\nrequired")
    for holds, what in verdicts:
        print("yes" if holds else "NO ", what)


if __name__ == "__main__":
    main()
