"""Chains put together at random, over the tensors of one model, against plain NumPy."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np

import thalweg
from helpers import Normed, clipped_plainly, largest_difference
from thalweg import chain, ops, trace

FUNCTIONS: dict[str, Callable[..., Any]] = {name: getattr(ops, name) for name in ops.__all__}
FUNCTIONS["sum_of_squares"] = lambda x: np.sum(x * x)


def drawn(generator: random.Random) -> list[thalweg.Treatment]:
    """Treatments, each at most once, in any order."""
    size = 10 ** generator.uniform(-1, 1)
    known = [
        thalweg.Maximize(),
        thalweg.L2(size),
        thalweg.ClipByValue(size),
        thalweg.ClipByNorm(size),
        thalweg.ClipByGlobalNorm(size),
        thalweg.SkipNonFinite(),
    ]
    return generator.sample(known, generator.randint(0, len(known)))


def test_chains_take_norms_where_they_stand(rounds: int, generator: random.Random) -> None:
    for _ in range(rounds):
        links = drawn(generator)
        random_numbers = np.random.default_rng(generator.randrange(1 << 30))
        shapes = [
            (generator.randint(1, 4),) * generator.randint(0, 2) for _ in range(generator.randint(1, 4))
        ]
        ps = [random_numbers.standard_normal(shape) for shape in shapes]
        grads = [[random_numbers.standard_normal(shape) for shape in shapes] for _ in range(2)]
        rule = chain(*links, Normed(0.1))
        program = trace(rule)
        step, norms = program.array_function(FUNCTIONS), program.array_norms(FUNCTIONS)
        found, ms = list(ps), [0.0] * len(ps)
        for t, gs in enumerate(grads, 1):
            tensors = [
                {"t": t, "g": g, "p": p, "m": m, **rule.values} for g, p, m in zip(gs, found, ms, strict=True)
            ]
            whole = norms(tensors)
            made = [step(**{**tensor, **whole}) for tensor in tensors]
            found = [p - taken for p, (taken, _) in zip(found, made, strict=True)]
            ms = [m for _, m in made]
        wanted = clipped_plainly(links, ps, grads, 0.1)
        assert largest_difference(found, wanted) <= 1e-11, rule
