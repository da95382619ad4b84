"""Your own PyTorch model: which optimizer suits it, and how sure is that?

python examples/torch_model.py
thalweg compare examples/torch_model.py:task
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import thalweg
from thalweg import Metric, Task


class Network(nn.Module):
    """Digits of 8x8 pixels to ten logits."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(1, 8, 3)
        self.decide = nn.Linear(8 * 3 * 3, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, 10) of pixels (n, 64)."""
        x = nn.functional.max_pool2d(self.look(x.view(-1, 1, 8, 8)).relu(), 2)
        return self.decide(x.flatten(1))


def top_2(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Share of digits that are among the two largest outputs."""
    return (outputs.topk(2).indices == targets[:, None]).any(-1).float().mean()


def task(examples: int | None = None) -> Task:
    """Digits, of which 70 % are to learn from, 15 % to choose by, and 15 % to report on."""
    X, y = load_digits(return_X_y=True)
    return Task.from_torch(
        "my-digits",
        Network,
        (X[:examples] / 16, y[:examples]),
        loss="cross_entropy",
        metrics=["accuracy", Metric("top_2", top_2, "higher")],
        split=(0.7, 0.15, 0.15),
        epochs=10,
        batch_size=32,
    )


if __name__ == "__main__":
    study = thalweg.compare(task(), optimizers=["sgd", "momentum", "adam"], budget=5)
    print(study.advice())
