"""A language model fed by your own DataLoaders: the next character of a text.

python examples/language_model.py
thalweg compare examples/language_model.py:task --config examples/study.toml
"""

from itertools import pairwise

import torch
from sklearn import datasets
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import thalweg
from thalweg import Loaders, Task

LENGTH = 32
TEXT = "".join(
    load().DESCR
    for load in (datasets.load_iris, datasets.load_digits, datasets.load_wine, datasets.load_breast_cancer)
)
CHARACTERS = sorted(set(TEXT))


class Network(nn.Module):
    """Logits (n, positions, characters) of each next character, by a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(CHARACTERS), 32)
        self.remember = nn.GRU(32, 64, batch_first=True)
        self.decide = nn.Linear(64, len(CHARACTERS))

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        """Logits of characters (n, positions)."""
        return self.decide(self.remember(self.embed(characters))[0])


def windows(examples: int | None = None) -> list[TensorDataset]:
    """Windows of the text and what is one further on: 80, 10 and 10 % of them."""
    place = {character: i for i, character in enumerate(CHARACTERS)}
    numbers = torch.tensor([place[character] for character in TEXT])
    count = (len(numbers) - 1) // LENGTH
    inputs, targets = (numbers[i : i + count * LENGTH].view(count, LENGTH)[:examples] for i in (0, 1))
    ends = [0, len(inputs) * 8 // 10, len(inputs) * 9 // 10, len(inputs)]
    return [TensorDataset(inputs[a:b], targets[a:b]) for a, b in pairwise(ends)]


def task(examples: int | None = None) -> Task:
    """Each trial makes its loader anew, from its seed: all optimizers see the same batches."""
    train, validation, test = windows(examples)

    def loader(seed: int, batch_size: int) -> DataLoader[tuple[torch.Tensor, ...]]:
        order = torch.Generator().manual_seed(seed)
        return DataLoader(train, batch_size, shuffle=True, generator=order)

    return Task.from_torch(
        "characters",
        Network,
        Loaders(loader, lambda: DataLoader(validation, 64), lambda: DataLoader(test, 64)),
        loss="cross_entropy",
        metrics=["perplexity", "accuracy"],
        epochs=10,
        batch_size=16,
    )


if __name__ == "__main__":
    study = thalweg.compare(task(), optimizers=["sgd", "rmsprop", "adam+cosine"], budget=5)
    print(study.advice())
