"""The models of the built-in tasks. Those known from Keras start their weights as Keras does."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from thalweg.study.learners.models import glorot, mlp

Factory: TypeAlias = Callable[[], nn.Module]


def convolutional() -> nn.Sequential:
    """For 28x28 pixels: two convolutions of 3x3 with 16 and 32 channels, pooled each, then 64 units."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        glorot(nn.Conv2d(1, 16, 3)),
        nn.ReLU(),
        nn.MaxPool2d(2),
        glorot(nn.Conv2d(16, 32, 3)),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        mlp(800, 64, 10),
    )


class TextConvolution(nn.Module):
    """Words to one logit: embedding 50, convolution of 3 words, largest responses, 250 units."""

    def __init__(self, words: int = 5000, units: int = 250) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, 50)
        nn.init.uniform_(self.embedding.weight, -0.05, 0.05)
        self.convolution = glorot(nn.Conv1d(50, units, 3))
        self.hidden = glorot(nn.Linear(units, units))
        self.output = glorot(nn.Linear(units, 1))
        self.dropout = nn.Dropout(0.2)

    def forward(self, words: Tensor) -> Tensor:
        """Logits (n, 1) of word numbers (n, length)."""
        x = self.dropout(self.embedding(words)).transpose(1, 2)
        x = functional.relu(self.convolution(x)).amax(-1)
        output: Tensor = self.output(functional.relu(self.dropout(self.hidden(x))))
        return output


class Recurrent(nn.Module):
    """Characters to logits of the next one: embedding 32, an LSTM of 128 units."""

    def __init__(self, characters: int = 65, units: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, 32)
        self.recurrence = nn.LSTM(32, units, batch_first=True)
        self.output = nn.Linear(units, characters)

    def forward(self, characters: Tensor) -> Tensor:
        """Logits (n, length, characters) of character numbers (n, length)."""
        output: Tensor = self.output(self.recurrence(self.embedding(characters))[0])
        return output


class Transformer(nn.Module):
    """Characters to logits of the next one: two pre-norm blocks of width 64 with four heads."""

    def __init__(self, characters: int = 65, length: int = 64, width: int = 64, blocks: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, width)
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, characters)

    def forward(self, characters: Tensor) -> Tensor:
        """Logits (n, length, characters) of character numbers (n, length)."""
        x = self.embedding(characters) + self.position[: characters.shape[1]]
        output: Tensor = self.output(self.norm(self.blocks(x)))
        return output


class _Block(nn.Module):
    """Attention to what came before, then two layers for each place by itself, each added to its input."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attend = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.expand = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """A sequence (n, length, width) from another."""
        split = self.attend(self.norms[0](x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.mix(mixed.transpose(1, 2).flatten(-2))
        output: Tensor = x + self.expand(self.norms[1](x))
        return output


def autoencoder(*widths: int) -> nn.Sequential:
    """Logistic units down to a linear code of the last width, and the same way back to logits."""
    layers: list[nn.Module] = []
    all_widths = [*widths, *widths[-2::-1]]
    for number, (inputs, outputs) in enumerate(pairwise(all_widths), 1):
        layers.append(glorot(nn.Linear(inputs, outputs)))
        if number not in (len(widths) - 1, len(all_widths) - 1):
            layers.append(nn.Sigmoid())
    return nn.Sequential(*layers)
