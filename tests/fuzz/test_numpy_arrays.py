"""Parameters and gradients anywhere in the same memory: the rule's step, or a refusal by name."""

import random
from typing import Any

import numpy as np

import thalweg
from thalweg.eager import descend
from thalweg.numpy import Optimizer

RULES = [
    thalweg.Adam(0.1),
    thalweg.Nesterov(0.1),
    thalweg.AdamW(0.1),
    thalweg.chain(thalweg.L2(0.1), thalweg.SGD()),
]


def view(memory: Any, generator: random.Random) -> Any:
    """A part of an array, some of the time transposed, reversed, with gaps, reshaped or repeated."""
    for _ in range(generator.randint(1, 4)):
        axis = generator.randrange(max(memory.ndim, 1))
        match generator.randrange(6) if memory.ndim else 9:
            case 0:
                memory = memory.T
            case 1 | 2:
                begin = generator.randint(0, memory.shape[axis])
                kept = slice(begin, begin + generator.randint(0, 5), generator.choice([1, 1, 2, 3]))
                memory = memory[(slice(None),) * axis + (kept,)]
            case 3:
                memory = np.flip(memory, axis)
            case 4 if memory.ndim > 1 and memory.shape[axis]:
                memory = memory.take(0, axis) if generator.random() < 0.1 else np.moveaxis(memory, axis, 0)[0]
            case 5 if generator.random() < 0.1:
                shape, strides = (2, *memory.shape), (0, *memory.strides)
                memory = np.lib.stride_tricks.as_strided(memory, shape, strides)
    return memory


def places(p: Any) -> list[int]:
    """The address of each entry."""
    index = np.indices(p.shape).reshape(p.ndim, -1)
    first = int(p.__array_interface__["data"][0])
    return [int(a) for a in first + np.array(p.strides, np.int64).reshape(-1) @ index] if p.size else []


def test_steps_on_views_of_shared_memory(rounds: int, generator: random.Random) -> None:
    for _ in range(10 * rounds):
        blocks = [np.linspace(-1, 1, 60).reshape(4, 5, 3), np.linspace(1, 2, 24).reshape(6, 4)]
        params = [view(generator.choice(blocks), generator) for _ in range(generator.randint(1, 3))]
        grads = []
        for p in params:
            g = view(generator.choice(blocks), generator)
            grads.append(g if g.shape == p.shape else np.resize(g if g.size else 1.0, p.shape))
        rule = generator.choice(RULES)
        taken = [place for p in params for place in places(p)]
        optimizer, before = Optimizer(rule), [b.copy() for b in blocks]
        wanted = [descend(rule, p.copy(), [g.copy()]) for p, g in zip(params, grads, strict=True)]
        if len(set(taken)) < len(taken):
            try:
                optimizer.update(params, grads)
            except ValueError as error:
                assert "memory" in str(error) or "several places" in str(error)  # noqa: PT017
                for block, was in zip(blocks, before, strict=True):
                    np.testing.assert_array_equal(block, was)
                continue
            raise AssertionError("parameters that share entries were updated")
        optimizer.update(params, grads)
        for p, w in zip(params, wanted, strict=True):
            np.testing.assert_allclose(p, w, rtol=1e-12)
        written = {*taken}
        for block, was in zip(blocks, before, strict=True):
            for place, new, old in zip(places(block), block.ravel(), was.ravel(), strict=True):
                assert place in written or new == old
