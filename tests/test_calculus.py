"""Derivatives of expressions, beside torch's automatic ones."""

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import assume, given

from helpers import derivatives
from thalweg import ops
from thalweg.program.printing import PYTHON
from thalweg.program.symbols import Expr, apply, symbol
from thalweg.surfaces.calculus import derivative, gradient, hessian

x, y = symbol("x"), symbol("y")
TORCH = {name: getattr(torch, name) for name in ops.__all__}

CASES: dict[str, Any] = {
    "sum": x + 3 * y - (2 - x),
    "product": (x + y) * x * 4,
    "fraction": x / (1 + y**2) + 3 / x,
    "powers": x**3 + y**0.5 + x**-2 + 2.0**y + x**y,
    "sign": -(x * y) * -x,
    "sqrt": ops.sqrt(x**2 + y**2),
    "exp": ops.exp(-x * y),
    "log": ops.log(x + 2 * y),
    "waves": ops.sin(2 * x) * ops.cos(y * x),
    "tanh": ops.tanh(x - y) ** 2,
    "abs": ops.abs(x - 2 * y) * x,
    "maximum": ops.maximum(x * y, x + y),
    "minimum": ops.minimum(x * y, x + y),
    "where": ops.where(x > y, x**2, y**3),
    "steps": ops.floor(x) * ops.sign(y) * x * y,
}


def with_torch(e: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    source = compile(PYTHON.write(e), "<expression>", "eval")

    def function(point: torch.Tensor) -> torch.Tensor:
        # A sum with nought: what does not depend on the point still has a gradient.
        return eval(source, {**TORCH, "x": point[0], "y": point[1]}) + 0 * point.sum()

    return function


def number(e: Any, point: Any) -> Any:
    with np.errstate(all="ignore"):
        names = {name: getattr(np, name) for name in ops.__all__} | {"inf": np.inf, "nan": np.nan}
        return eval(PYTHON.write(e), {**names, "x": np.float64(point[0]), "y": np.float64(point[1])})


def check(e: Any, point: tuple[float, float], rel: float = 1e-12) -> bool:
    first, second = derivatives(with_torch(e), point)
    scale = 1 + np.abs(second).max() + np.abs(first).max()
    if not scale < 1e8:  # torch's derivatives of powers are NaN in places; such points prove nothing
        return False
    found = [number(s, point) for s in gradient(e, (x, y))]
    np.testing.assert_allclose(found, first, rtol=rel, atol=rel * scale)
    rows = [[number(s, point) for s in row] for row in hessian(e, (x, y))]
    np.testing.assert_allclose(rows, second, rtol=rel, atol=rel * scale)
    return True


@pytest.mark.parametrize("point", [(0.7, 1.3), (1.9, 0.4), (2.5, 3.5)])
@pytest.mark.parametrize("name", CASES)
def test_each_operation(name: str, point: tuple[float, float]) -> None:
    assert check(CASES[name], point)


def grow(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    binary = st.sampled_from(["add", "sub", "mul", "div"])
    unary = st.sampled_from(["neg", "tanh", "sin", "cos", "exp"])
    powers = st.builds(apply, st.just("pow"), inner, st.sampled_from([2.0, 3.0]))
    return st.builds(apply, binary, inner, inner) | st.builds(apply, unary, inner) | powers


smooth = st.recursive(st.sampled_from([x, y, 2.0, -0.5]), grow, max_leaves=8)


@given(smooth, st.sampled_from([(0.3, -0.8), (1.7, 0.6)]))
def test_whatever_is_composed_of_them(e: Any, point: tuple[float, float]) -> None:
    if isinstance(e, Expr):
        assume(np.isfinite(number(e, point)))
        check(e, point, 1e-9)


@pytest.mark.parametrize(
    ("made", "simply"),
    [
        (derivative(x**2 / 20 + y**2, x), "0.1 * x"),
        (derivative(x**2 / 20 + y**2, y), "2 * y"),
        (derivative(x**4 - 16 * x**2 + 5 * x, x), "4 * x**3 - 32 * x + 5"),
        (derivative(ops.exp(-x), x), "-exp(-x)"),
        (derivative(ops.sin(2 * x), x), "2 * cos(2 * x)"),
        (derivative((0 - -x) * 3, x), "3"),
        (derivative(x / 4, x), "0.25"),
        (derivative(x - x * 1.0, x), "0"),
        (derivative(7.0, x), "0"),
        (derivative(y, x), "0"),
        (derivative((x > 0) * 2.0, x), "0"),
    ],
)
def test_results_are_simple(made: Any, simply: str) -> None:
    assert PYTHON.write(made) == simply


def test_the_hessian_of_a_quadratic_is_numbers() -> None:
    booth = (x + 2 * y - 7) ** 2 + (2 * x + y - 5) ** 2
    assert hessian(booth, (x, y)) == [[10, 8], [8, 10]]


def test_at_a_kink_the_slope_is_one_between() -> None:
    assert number(derivative(ops.abs(x), x), (0, 0)) == 0
    assert number(derivative(ops.sqrt(x**2 + y**2), x), (0, 0)) == 0
    assert number(derivative(ops.maximum(x, 2 * x), x), (0, 0)) == 1


def test_a_truth_value_has_no_derivative() -> None:
    with pytest.raises(TypeError, match="true or false"):
        derivative(x > y, x)


def test_it_is_no_recursion() -> None:
    deep = x
    for k in range(3000):
        deep = ops.sin(deep) + float(k)
    assert isinstance(derivative(deep, x), Expr)
