"""Chains put together at random, over the tensors of one model, against plain NumPy."""

import random

import numpy as np

import thalweg
from helpers import Normed, clipped_plainly, largest_difference
from thalweg import chain
from thalweg.eager import Driver, as_traced, as_written, numpy_functions


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
        wanted = clipped_plainly(links, ps, grads, 0.1)
        for step in (as_written(rule), as_traced(rule, numpy_functions())):
            driver, found = Driver(rule, len(ps), step=step), ps
            for gs in grads:
                found = [p - taken for p, taken in zip(found, driver.steps(found, gs), strict=True)]
            assert largest_difference(found, wanted) <= 1e-11, rule
