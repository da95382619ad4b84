"""Symbols: arithmetic that remembers itself."""

import gc
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given

from thalweg.program.printing import PYTHON
from thalweg.program.symbols import OPERATIONS, Expr, _known, apply, symbol, walk

x, y = symbol("x"), symbol("y")
numbers = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0])


def grow(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    binary = st.sampled_from(["add", "sub", "mul", "div", "pow", "maximum", "minimum"])
    unary = st.sampled_from(["neg", "abs", "sqrt", "sign", "tanh"])
    return st.builds(apply, binary, inner, inner) | st.builds(apply, unary, inner)


expressions = st.recursive(st.sampled_from([x, y]) | numbers, grow, max_leaves=12)


def value(e: Any, known: dict[str, float]) -> Any:
    if not isinstance(e, Expr):
        return e
    if e.op == "symbol":
        return known[e.name]
    return OPERATIONS[e.op](*(value(a, known) for a in e.args))


def test_equal_expressions_are_one_object() -> None:
    assert (x + y) * 2 is (x + y) * 2
    assert x + 1 is x + 1.0
    assert x + y is not y + x
    assert symbol("x") is x


def test_expressions_are_forgotten_with_their_last_user() -> None:
    gc.collect()
    before = len(_known)
    kept = [x * float(k) for k in range(2, 100)]
    assert len(_known) == before + 98
    del kept
    gc.collect()
    assert len(_known) == before


@pytest.mark.parametrize(
    ("made", "simply"),
    [
        (x + 0, x),
        (0 + x, x),
        (x - 0, x),
        (x * 1, x),
        (1 * x, x),
        (x / 1, x),
        (x**1, x),
        (apply("neg", -x), x),
        (0 - x, -x),
        (apply("where", True, x, y), x),
        (apply("where", False, x, y), y),
        (apply("where", x > 0, y, y), y),
    ],
)
def test_what_changes_nothing_is_dropped(made: Expr, simply: Expr) -> None:
    assert made is simply


def test_what_could_hide_a_nan_is_kept() -> None:
    assert isinstance(x * 0, Expr)
    assert isinstance(x - x, Expr)
    assert isinstance(x / x, Expr)


@pytest.mark.parametrize("op", ["lt", "le", "gt", "ge", "eq", "ne"])
def test_a_comparison_is_an_expression_without_a_truth(op: str) -> None:
    import operator

    made = getattr(operator, op)(x, y)
    assert made.op == op
    with pytest.raises(TypeError, match=r"write thalweg.ops.where\(condition, a, b\)"):
        bool(made)


@pytest.mark.parametrize("other", [None, "1", [1.0], 1j])
def test_only_numbers_join(other: Any) -> None:
    for attempt in (lambda: x + other, lambda: other * x, lambda: x / other):
        with pytest.raises(TypeError, match=r"update computes with t, g, p, .* and numbers, not with"):
            attempt()


def test_an_expression_shows_what_it_is() -> None:
    assert repr(abs(x + 2) * y) == "mul(abs(add(x, 2)), y)"


def test_walk_goes_from_the_leaves_up_and_once() -> None:
    shared = x * y
    order = list(walk(shared + 1, shared - 1))
    assert order[:3] == [x, y, shared] or [e.name for e in order[:2]] == ["x", "y"]
    assert len(order) == 5
    for i, e in enumerate(order):
        assert all(any(a is b for b in order[:i]) for a in e.args if isinstance(a, Expr))


def test_walk_is_no_recursion() -> None:
    deep = x
    for k in range(5000):
        deep = deep + float(k + 1)
    assert sum(1 for _ in walk(deep)) == 5001


@given(expressions, st.sampled_from([-1.5, 0.25, 2.0]), st.sampled_from([-0.5, 1.0, 3.0]))
def test_printed_source_means_the_expression(e: Any, x_value: float, y_value: float) -> None:
    known = {"x": x_value, "y": y_value}
    wanted = value(e, known)
    try:
        found = eval(PYTHON.write(e), {**OPERATIONS, **known})
    except (ZeroDivisionError, OverflowError):
        assume(False)
    assume(not isinstance(found, complex))
    assert found == pytest.approx(wanted, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("x_value", [-1.0, 2.0])
def test_a_comparison_of_comparisons_is_no_chain(x_value: float) -> None:
    same_sign = (x > 0) == (y > 0)
    assert eval(PYTHON.write(same_sign), {"x": x_value, "y": 1.0}) is (x_value > 0)
