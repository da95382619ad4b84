"""Hyperparameters as functions of the step number."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import thalweg
import thalweg.torch
from helpers import copies, descend_torch, difference, gradients, parameters, train
from thalweg.program.printing import PYTHON
from thalweg.program.symbols import OPERATIONS, symbol
from thalweg.schedules import (
    Constant,
    Cosine,
    Exponential,
    InverseSqrt,
    Polynomial,
    Schedule,
    Step,
    TimeDecay,
    WarmUp,
    WarmUpStableDecay,
)

LATE = 10**6

VALUES: list[tuple[Schedule, dict[int, float]]] = [
    (Constant(0.3), {1: 0.3, LATE: 0.3}),
    (TimeDecay(0.3, 0.5), {1: 0.3, 2: 0.2, 3: 0.15}),
    (InverseSqrt(0.6), {1: 0.6, 4: 0.3, 9: 0.2}),
    (Step(0.8, 3, 0.5), {1: 0.8, 3: 0.8, 4: 0.4, 6: 0.4, 7: 0.2}),
    (Step(1.0, 1), {1: 1.0, 2: 0.1, 3: 0.01}),
    (Exponential(0.8, 0.5), {1: 0.8, 2: 0.4, 4: 0.1}),
    (Polynomial(1.0, 4), {1: 1.0, 2: 0.75, 4: 0.25, 5: 0.0, 6: 0.0, LATE: 0.0}),
    (Polynomial(1.0, 4, 0.2, 2.0), {1: 1.0, 2: 0.2 + 0.8 * 0.5625, 5: 0.2, LATE: 0.2}),
    (Cosine(1.0, 4), {1: 1.0, 2: (1 + math.sqrt(0.5)) / 2, 3: 0.5, 5: 0.0, 6: 0.0, LATE: 0.0}),
    (Cosine(1.0, 1, 0.1), {1: 1.0, 2: 0.1, 3: 0.1}),
    (WarmUp(4, 0.8), {1: 0.2, 2: 0.4, 4: 0.8, 5: 0.8, LATE: 0.8}),
    (WarmUp(2, Exponential(0.8, 0.5)), {1: 0.4, 2: 0.8, 3: 0.8, 4: 0.4, 5: 0.2}),
    (WarmUp(0, Exponential(0.8, 0.5)), {1: 0.8, 2: 0.4}),
    (WarmUp(2, WarmUp(2, 1.0)), {1: 0.25, 2: 0.5, 3: 0.5, 4: 1.0, 5: 1.0}),
    (
        WarmUpStableDecay(1.0, 2, 3, 4),
        {1: 0.5, 2: 1.0, 5: 1.0, 6: 1.0, 7: 0.75, 9: 0.25, 10: 0.0, LATE: 0.0},
    ),
    (WarmUpStableDecay(1.0, 0, 0, 2, 0.5), {1: 1.0, 2: 0.75, 3: 0.5, 4: 0.5}),
    (WarmUpStableDecay(1.0, 1, 1, 0, 0.5), {1: 1.0, 2: 1.0, 3: 0.5, 4: 0.5}),
]
all_values = pytest.mark.parametrize(
    ("schedule", "values"), VALUES, ids=lambda x: type(x).__name__ if callable(x) else ""
)


@all_values
def test_values(schedule: Schedule, values: dict[int, float]) -> None:
    found = {t: schedule(t) for t in values}
    assert found == pytest.approx(values, rel=1e-12, abs=1e-15)
    assert all(type(value) is float for value in found.values())


def of_jax(t: int) -> Any:
    return jnp.asarray(t, jnp.int64)


@all_values
@pytest.mark.parametrize("asarray", [np.int64, torch.tensor, of_jax], ids=["numpy", "torch", "jax"])
def test_values_of_arrays(schedule: Schedule, values: dict[int, float], asarray: Any) -> None:
    with jax.enable_x64(True):
        found = {t: float(schedule(asarray(t))) for t in values}
    rel, near_zero = (1e-6, 1e-7) if asarray is torch.tensor else (1e-12, 1e-15)  # torch divides in float32
    assert found == pytest.approx(values, rel=rel, abs=near_zero)


@all_values
def test_values_under_jit_and_vmap(schedule: Schedule, values: dict[int, float]) -> None:
    # In float32, which counts to 2^24.
    steps = jnp.array([*values], jnp.int32)
    for found in (jax.jit(jax.vmap(schedule))(steps), [jax.jit(schedule)(t) for t in steps]):
        assert [float(x) for x in found] == pytest.approx([*values.values()], rel=1e-5, abs=1e-6)


@all_values
def test_values_of_a_symbol(schedule: Schedule, values: dict[int, float]) -> None:
    made = schedule(symbol("t"))  # type: ignore[arg-type]
    source = PYTHON.calling("div", "pow").write(made)
    found = {t: eval(source, {**OPERATIONS, "t": t}) for t in values}
    assert found == pytest.approx(values, rel=1e-12, abs=1e-15)


def test_a_warm_up_asks_no_schedule_for_steps_before_its_first() -> None:
    asked = []

    def then(t: int) -> float:
        asked.append(t)
        return 1.0

    assert [WarmUp(2, then)(t) for t in range(1, 6)] == [0.5, 1.0, 1.0, 1.0, 1.0]
    assert asked == [1, 1, 1, 2, 3]


@pytest.mark.parametrize("length", [-1, 1.5, "3", None])
@pytest.mark.parametrize(
    "build",
    [
        lambda n: Step(0.1, n),
        lambda n: Polynomial(0.1, n),
        lambda n: Cosine(0.1, n),
        lambda n: WarmUp(n, 0.1),
        lambda n: WarmUpStableDecay(0.1, n, 1, 1),
        lambda n: WarmUpStableDecay(0.1, 1, n, 1),
        lambda n: WarmUpStableDecay(0.1, 1, 1, n),
    ],
)
def test_a_length_is_a_whole_number_of_steps(build: Callable[[Any], Any], length: Any) -> None:
    with pytest.raises(ValueError, match="is a number of steps, a whole number from"):
        build(length)


@pytest.mark.parametrize("kind", [Step, Polynomial, Cosine])
def test_a_length_that_is_divided_by_is_not_zero(kind: type) -> None:
    with pytest.raises(ValueError, match="a whole number from 1; got 0"):
        kind(0.1, 0)


def theirs(optimizer: torch.optim.Optimizer, name: str) -> Any:
    schedulers = torch.optim.lr_scheduler
    return {
        "step": lambda: schedulers.StepLR(optimizer, 4, 0.5),
        "exponential": lambda: schedulers.ExponentialLR(optimizer, 0.8),
        "polynomial": lambda: schedulers.PolynomialLR(optimizer, 6, 2.0),
        "linear": lambda: schedulers.LinearLR(optimizer, 1.0, 0.25, 6),
        "time": lambda: schedulers.LambdaLR(optimizer, lambda k: 1 / (1 + 0.3 * k)),
        "sqrt": lambda: schedulers.LambdaLR(optimizer, lambda k: 1 / math.sqrt(k + 1)),
        "warm": lambda: schedulers.LambdaLR(optimizer, lambda k: min((k + 1) / 5, 1)),
        "plain": lambda: schedulers.ConstantLR(optimizer, 1.0),
    }[name]()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("step", Step(0.1, 4, 0.5)),
        ("exponential", Exponential(0.1, 0.8)),
        ("polynomial", Polynomial(0.1, 6, 0.0, 2.0)),
        ("linear", Polynomial(0.1, 6, 0.025)),
        ("time", TimeDecay(0.1, 0.3)),
        ("sqrt", InverseSqrt(0.1)),
        ("warm", WarmUp(5, 0.1)),
        ("warm", WarmUpStableDecay(0.1, 5, 10, 1)),
        ("plain", Constant(0.1)),
    ],
)
def test_as_torchs_scheduler(name: str, schedule: Schedule) -> None:
    (p,) = parameters((6,))
    grads = gradients([p], 10)
    (wanted,), (found,) = copies([p]), copies([p])
    optimizer = torch.optim.AdamW([wanted], lr=0.1)
    scheduler = theirs(optimizer, name)
    for g in grads:
        train(optimizer, [wanted], [g])
        scheduler.step()
    train(thalweg.torch.Optimizer([found], thalweg.AdamW(schedule)), [found], grads)
    assert difference(found, wanted) <= 1e-12


@pytest.mark.usefixtures("float64")
def test_any_hyperparameter_may_be_scheduled(path: str) -> None:
    rule = thalweg.Adam(
        lr=Cosine(0.1, 7),
        beta_1=lambda t: 0.5 + 0.04 * t,
        beta_2=Polynomial(0.9, 10, 0.99),
        epsilon=Exponential(1.0, 0.1),
    )
    (p,) = parameters((6,))
    grads = gradients([p], 10)
    (found,) = copies([p])
    train(thalweg.torch.Optimizer([found], rule), [found], grads)
    assert difference(found, descend_torch(rule, p, [g[0] for g in grads])) <= 1e-12


@pytest.mark.usefixtures("float64")
def test_a_treatments_value_may_be_scheduled() -> None:
    rule = thalweg.chain(thalweg.ClipByValue(Exponential(1.0, 0.5)), thalweg.SGD(1.0))
    (p,) = parameters((3,))
    with torch.no_grad():
        p.zero_()
    train(thalweg.torch.Optimizer([p], rule), [p], [[torch.full((3,), 9.0)]] * 3)
    assert p.tolist() == [-1.75] * 3


@pytest.mark.usefixtures("float64")
def test_a_parameter_is_at_its_own_step() -> None:
    # A gradient that first appears later finds the schedule, like the bias correction, at its beginning.
    rule = thalweg.SGD(Exponential(1.0, 0.5))
    early, late = parameters((2,), (2,))
    with torch.no_grad():
        early.zero_()
        late.zero_()
    one = torch.ones(2)
    train(thalweg.torch.Optimizer([early, late], rule), [early, late], [[one, None], [one, one]])
    assert (early.tolist(), late.tolist()) == ([-1.5, -1.5], [-1.0, -1.0])


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_an_inadmissible_value_raises_before_anything_changes(bad: float, path: str) -> None:
    rule = thalweg.Adam(lr=lambda t: 0.1 if t < 3 else bad)
    params = parameters((3,), (2, 2))
    grads = gradients(params, 3)
    optimizer = thalweg.torch.Optimizer(params, rule)
    train(optimizer, params, grads[:2])
    before = [p.detach().clone() for p in params]
    state = [{k: x.clone() for k, x in optimizer.state[p].items()} for p in params]
    with pytest.raises(
        ValueError, match=r"adam: the schedule of lr gives .* at step 3; lr must lie in \[0, ∞\)"
    ):
        train(optimizer, params, grads[2:])
    for p, was, held in zip(params, before, state, strict=True):
        assert torch.equal(p, was)
        assert all(torch.equal(optimizer.state[p][k], x) for k, x in held.items())


def test_a_refused_group_keeps_the_other_groups_from_moving() -> None:
    # Of two dtypes, so that each has a kernel of its own.
    good, bad = *parameters((3,)), *parameters((3,), dtype=torch.float32)
    optimizer = thalweg.torch.Optimizer(
        [{"params": [good]}, {"params": [bad], "lr": lambda t: -1.0}], thalweg.Momentum(0.1)
    )
    before = good.detach().clone()
    with pytest.raises(ValueError, match=r"the schedule of lr gives -1\.0 at step 1"):
        train(optimizer, [good, bad], gradients([good, bad], 1))
    assert torch.equal(good, before)
    assert float(optimizer.state[good]["step"]) == 0.0
    assert not optimizer.state[good]["b"].any()


def test_values_at_gives_numbers() -> None:
    rule = thalweg.Adam(lr=Cosine(0.1, 4), beta_1=0.8)
    assert rule.values_at(3) == {"lr": pytest.approx(0.05), "beta_1": 0.8, "beta_2": 0.999, "epsilon": 1e-8}
    assert np.isscalar(rule.values_at(3)["lr"])
