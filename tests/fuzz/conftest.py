"""Hostile input, seeded and bounded: a few rounds in `make test`, many in `make fuzz`."""

import random

import pytest


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How many inputs a test tries."""
    return int(request.config.getoption("--rounds"))


@pytest.fixture
def generator(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers that are a test's own, and the same in every run."""
    return random.Random(f"{request.config.getoption('--seed')} {request.node.name}")
