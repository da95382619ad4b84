"""The functions rules are written with: on numbers, on arrays of every library, and folded."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import thalweg
import thalweg.numpy
from helpers import difference
from thalweg import ops
from thalweg.eager import descend
from thalweg.program.symbols import OPERATIONS, symbol

array_api_strict = pytest.importorskip("array_api_strict")

NUMBERS = [-math.inf, -2.5, -0.0, 0.0, 0.3, 1.0, 7.0, math.inf, math.nan]
ONE = ["sqrt", "exp", "log", "tanh", "cos", "sin", "abs", "floor", "sign"]
TWO = ["maximum", "minimum"]
FLOAT32 = {
    "numpy": lambda x: np.asarray(x, np.float32),
    "torch": lambda x: torch.tensor(x, dtype=torch.float32),
    "jax": lambda x: jnp.asarray(x, jnp.float32),
    "strict": lambda x: array_api_strict.asarray(x, dtype=array_api_strict.float32),
}
libraries = pytest.mark.parametrize("asarray", FLOAT32.values(), ids=FLOAT32)


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


@pytest.mark.parametrize("x", NUMBERS)
@pytest.mark.parametrize("name", ONE)
def test_of_one_number(name: str, x: float) -> None:
    with np.errstate(all="ignore"):
        wanted = float(getattr(np, name)(x))
    assert getattr(ops, name)(x) == pytest.approx(wanted, nan_ok=True, rel=1e-15)
    assert OPERATIONS[name](x) == pytest.approx(wanted, nan_ok=True, rel=1e-15)


@pytest.mark.parametrize("b", NUMBERS)
@pytest.mark.parametrize("a", NUMBERS)
@pytest.mark.parametrize("name", TWO)
def test_of_two_numbers(name: str, a: float, b: float) -> None:
    wanted = float(getattr(np, name)(a, b))
    assert same(getattr(ops, name)(a, b), wanted)
    assert same(OPERATIONS[name](a, b), wanted)


@pytest.mark.parametrize("b", NUMBERS)
@pytest.mark.parametrize("a", NUMBERS)
def test_folded_division_is_that_of_arrays(a: float, b: float) -> None:
    with np.errstate(all="ignore"):
        assert same(OPERATIONS["div"](a, b), float(np.float64(a) / np.float64(b)))


@pytest.mark.parametrize(("a", "b"), [(0.0, -1.0), (-8.0, 1 / 3), (10.0, 400.0), (-10.0, 401.0), (2.0, -3.0)])
def test_folded_powers_are_those_of_arrays(a: float, b: float) -> None:
    with np.errstate(all="ignore"):
        assert same(OPERATIONS["pow"](a, b), float(np.float64(a) ** np.float64(b)))


@libraries
@pytest.mark.parametrize("name", ONE)
def test_of_an_array_keeps_library_and_dtype(name: str, asarray: Callable[[Any], Any]) -> None:
    x = asarray([0.25, 1.0, 4.0])
    found = getattr(ops, name)(x)
    assert type(found) is type(x)
    assert found.dtype == x.dtype
    np.testing.assert_allclose(np.asarray(found), getattr(np, name)([0.25, 1.0, 4.0]), rtol=1e-6)


@libraries
@pytest.mark.parametrize("name", TWO)
def test_of_an_array_and_a_number(name: str, asarray: Callable[[Any], Any]) -> None:
    x = asarray([-1.0, 0.5, math.nan])
    for arguments in ((x, 0.1), (0.1, x)):
        found = getattr(ops, name)(*arguments)
        assert found.dtype == x.dtype
        np.testing.assert_allclose(
            np.asarray(found), getattr(np, name)([-1.0, 0.5, math.nan], 0.1), rtol=1e-6
        )


@libraries
def test_clip(asarray: Callable[[Any], Any]) -> None:
    found = ops.clip(asarray([-3.0, 0.5, 3.0, math.nan]), -1.0, 2.0)
    np.testing.assert_array_equal(np.asarray(found), np.float32([-1.0, 0.5, 2.0, math.nan]))
    assert ops.clip(5.0, -1.0, 2.0) == 2.0


@libraries
def test_where(asarray: Callable[[Any], Any]) -> None:
    x = asarray([-1.0, 2.0])
    for a, b, wanted in ((x, 0.0, [0, 2]), (0.0, x, [-1, 0]), (x, -x, [1, 2]), (5.0, 7.0, [7, 5])):
        np.testing.assert_array_equal(np.asarray(ops.where(x > 0, a, b)), np.float32(wanted))
    assert ops.where(x > 0, x, 0.0).dtype == x.dtype


@pytest.mark.parametrize("condition", [True, np.True_])
def test_where_of_a_settled_condition_takes_one_side(condition: Any) -> None:
    assert ops.where(condition, 1.0, "never looked at") == 1.0
    assert ops.where(not condition, "never looked at", 2.0) == 2.0


@pytest.mark.parametrize("name", [*ONE, *TWO, "where", "clip"])
def test_of_symbols_is_a_symbol(name: str) -> None:
    x, y = symbol("x"), symbol("y")
    arguments = {"where": (x > 0, y, 1.0), "clip": (x, -1.0, y)}.get(name, (x,) if name in ONE else (x, 2.0))
    made = getattr(ops, name)(*arguments)
    assert made is getattr(ops, name)(*arguments)
    assert made.op == {"clip": "minimum"}.get(name, name)


def test_waves_and_floor_have_a_kernel_and_a_formula() -> None:
    class Waves(thalweg.Rule):
        lr: thalweg.Scalar = 0.1

        def update(self, t: Any, g: Any, m: Any = 0) -> Any:
            m = ops.floor(g) * m + ops.cos(3 * g) + ops.sin(g)
            return self.lr * m, m

    rule = Waves()
    gradients = [np.array([-2.5, -0.3, 0.0, 0.7, 3.0]), np.array([1.5, -1.0, 2.2, -7.9, 0.1])]
    wanted = descend(rule, np.ones(5), gradients)
    for dtype, tolerance in ((np.float64, 1e-15), (np.float32, 1e-6)):
        p = np.ones(5, dtype)
        optimizer = thalweg.numpy.Optimizer(rule)
        for g in gradients:
            optimizer.update(p, g.astype(dtype))
        assert difference(p, wanted) <= tolerance
    formula = thalweg.trace(rule).latex()
    assert r"\lfloor g_t \rfloor" in formula
    assert r"\cos\left(3 \, g_t\right) + \sin\left(g_t\right)" in formula
