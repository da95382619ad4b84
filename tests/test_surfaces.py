"""Surfaces: what the registry knows of them holds, and what users type is read or refused."""

import pickle
import string
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from matplotlib import mathtext

from helpers import derivatives
from thalweg import surfaces
from thalweg.errors import InvalidFormulaError, UnknownSurfaceError
from thalweg.program.printing import PYTHON
from thalweg.program.symbols import Expr
from thalweg.surfaces.formulas import Formula, read
from thalweg.surfaces.functions import Noise, Surface
from thalweg.surfaces.paths import path

pi, e = torch.pi, torch.e
# Each once more, as its source has it.
AGAIN: dict[str, Callable[..., torch.Tensor]] = {
    "ravine": lambda x, y: x.square() / 20 + y.square(),
    "long_valley": lambda x, y: x.square() / 500 + y.square(),
    "saddle": lambda x, y: (x + y) * (x - y),
    "monkey_saddle": lambda x, y: x * (x.square() - 3 * y.square()),
    "beale": lambda x, y: sum((c - x * (1 - y**k)) ** 2 for k, c in [(1, 1.5), (2, 2.25), (3, 2.625)]),
    "rosenbrock": lambda x, y: 100 * (y - x * x) ** 2 + (x - 1) ** 2,
    "himmelblau": lambda x, y: (x * x + y - 11) ** 2 + (x + y * y - 7) ** 2,
    "booth": lambda x, y: (x + 2 * y - 7) ** 2 + (2 * x + y - 5) ** 2,
    "rastrigin": lambda x, y: sum(z * z - 10 * torch.cos(2 * pi * z) + 10 for z in (x, y)),
    "ackley": lambda x, y: (
        -20 * torch.exp(-0.2 * torch.sqrt(0.5 * (x * x + y * y)))
        - torch.exp(0.5 * (torch.cos(2 * pi * x) + torch.cos(2 * pi * y)))
        + e
        + 20
    ),
    "styblinski_tang": lambda x, y: sum(z**4 - 16 * z * z + 5 * z for z in (x, y)) / 2,
    "plateau": lambda x, y: -torch.expm1(-(x * x + y * y) / 8),
    "double_well": lambda x: x**4 - 2 * x * x + 0.5 * x,
    "noisy": lambda x, y: 0.05 * x * x + 0.5 * y * y,
    "sparse": lambda x, y: 0.5 * (x - 2) ** 2 + 0.025 * (y - 2) ** 2,
    "ill_conditioned": lambda *x: (
        torch.stack(x)
        @ torch.tensor(surfaces.ill_conditioned().function.constant_hessian)
        @ torch.stack(x)
        / 2
    ),
}
every = pytest.mark.parametrize("name", surfaces.names())


def test_every_surface_is_written_twice() -> None:
    assert surfaces.names() == list(AGAIN)


def inside(surface: Surface, count: int, seed: int = 0) -> Any:
    low, high = np.array(surface.window).T
    return low + (high - low) * np.random.default_rng(seed).random((count, surface.dimensions))


@every
def test_value_gradient_and_hessian_are_exact(name: str) -> None:
    surface = surfaces.get(name)
    points = np.vstack([inside(surface, 5), surface.start])
    for point in points:
        wanted = AGAIN[name](*torch.tensor(point)).item()
        first, second = derivatives(lambda at: AGAIN[name](*at), point)
        scale = 1e-3 + np.abs(second).max()  # far out on the plateau all is cancellation
        assert surface.value(point) == pytest.approx(wanted, rel=1e-12, abs=1e-12 * scale)
        np.testing.assert_allclose(surface.gradient(point), first, rtol=1e-12, atol=1e-12 * scale)
        np.testing.assert_allclose(surface.hessian(point), second, rtol=1e-12, atol=1e-12 * scale)


@every
def test_known_minima_are_minima(name: str) -> None:
    surface = surfaces.get(name)
    for minimum in surface.minima:
        curvatures = np.linalg.eigvalsh(surface.hessian(minimum))
        assert curvatures[0] > 0
        assert np.abs(surface.gradient(minimum)).max() <= 1e-14 * curvatures[-1]
        around = np.array(minimum) + 1e-3 * np.random.default_rng(1).standard_normal((50, surface.dimensions))
        assert (surface.value(around) > surface.value(minimum)).all()


@pytest.mark.parametrize(
    ("name", "lowest", "count"),
    [
        ("beale", 0, 1),
        ("himmelblau", 0, 4),
        ("rastrigin", 0, 121),
        ("ackley", 0, 1),
        ("styblinski_tang", -78.33233140754282, 4),
        ("double_well", -1.5147536412757057, 2),
    ],
)
def test_lowest_values(name: str, lowest: float, count: int) -> None:
    surface = surfaces.get(name)
    assert surface.lowest == pytest.approx(lowest, abs=1e-14, rel=1e-15)
    assert len({*surface.minima}) == count


@every
def test_known_saddles_go_up_and_down(name: str) -> None:
    surface = surfaces.get(name)
    for saddle in surface.saddles:
        assert np.abs(surface.gradient(saddle)).max() <= 2e-14
        ring = np.array(saddle) + 1e-2 * np.exp(1j * np.linspace(0, 6, 40))[:, None].view(float)
        above = surface.value(ring) > surface.value(saddle)
        assert above.any()
        assert not above.all()


@every
def test_start_and_minima_are_in_the_picture(name: str) -> None:
    surface = surfaces.get(name)
    low, high = np.array(surface.window).T
    for point in (surface.start, *surface.minima, *surface.saddles):
        assert (low <= point).all()
        assert (point <= high).all()
    assert np.abs(surface.gradient(surface.start)).max() > 1e-3  # there is a way to go


@every
def test_many_points_at_once(name: str) -> None:
    surface = surfaces.get(name)
    n = surface.dimensions
    points = inside(surface, 6).reshape(3, 2, n)
    assert surface.value(points).shape == (3, 2)
    assert surface.gradient(points).shape == (3, 2, n)
    assert surface.hessian(points).shape == (3, 2, n, n)
    for function in (surface.value, surface.gradient, surface.hessian):
        np.testing.assert_allclose(function(points)[1, 1], function(points[1, 1]), rtol=1e-13, atol=1e-13)
    with pytest.raises(ValueError, match=rf"arrays \(…, {n}\)"):
        surface.value(np.zeros(n + 1))


@every
def test_formulas_are_written_out(name: str) -> None:
    surface = surfaces.get(name)
    assert surface.title
    assert surface.unicode().startswith("f(x")
    plain = surface.latex().replace(r"\lvert", "|").replace(r"\rvert", "|")
    mathtext.MathTextParser("path").parse(f"${plain}$".replace(r"\top", "T"))
    assert surface._repr_latex_() == f"$${surface.latex()}$$"


def test_formulas_read_well() -> None:
    assert surfaces.get("ravine").unicode() == "f(x, y) = x² / 20 + y²"
    assert surfaces.get("ravine").latex() == r"f(x, y) = \frac{x^{2}}{20} + y^{2}"
    assert surfaces.get("plateau").unicode() == "f(x, y) = 1 − exp(−(x² + y²) / 8)"
    assert surfaces.get("rastrigin").unicode() == "f(x, y) = 20 + x² − 10·cos(2·π·x) + y² − 10·cos(2·π·y)"
    assert surfaces.parse("-2*x**3").unicode() == "f(x) = −2·x³"
    assert surfaces.quadratic([1, 2], [3, 0]).unicode() == "f(x) = ½ (x − c)ᵀ A (x − c)"


@every
def test_a_surface_travels_to_other_processes(name: str) -> None:
    surface = surfaces.get(name)
    surface.hessian(surface.start)
    again = pickle.loads(pickle.dumps(surface))
    assert again.value(surface.start) == surface.value(surface.start)


@pytest.mark.parametrize("spelling", ["Styblinski–Tang", "styblinski tang", "StyblinskiTang"])
def test_names_in_any_spelling(spelling: str) -> None:
    assert surfaces.get(spelling).name == "styblinski_tang"


def test_an_unknown_name_meets_the_nearest() -> None:
    with pytest.raises(UnknownSurfaceError, match=r"'rosenbroc'; did you mean 'rosenbrock'\?"):
        surfaces.get("rosenbroc")


def test_a_formula_is_taken_wherever_a_name_is() -> None:
    parsed = surfaces.parse("x**2 + y**2/9")
    np.testing.assert_array_equal(
        path("x**2 + y**2/9", "adam", (1, 1)).points, path(parsed, "adam", (1, 1)).points
    )
    with pytest.raises(UnknownSurfaceError, match=r"'rosenbroc'; did you mean 'rosenbrock'\?"):
        path("rosenbroc", "adam")
    with pytest.raises(InvalidFormulaError, match="z"):
        path("x + z", "adam")


def test_only_quadratics_have_curvatures() -> None:
    np.testing.assert_allclose(surfaces.get("ravine").eigenvalues, [0.1, 2])
    np.testing.assert_allclose(surfaces.get("saddle").eigenvalues, [-2, 2])
    np.testing.assert_allclose(surfaces.get("booth").eigenvalues, [2, 18])
    np.testing.assert_allclose(surfaces.parse("pi*x**2").eigenvalues, [2 * np.pi])
    assert surfaces.get("beale").eigenvalues is None


def test_a_surface_without_a_known_minimum_says_so() -> None:
    with pytest.raises(ValueError, match="no minimum of saddle is known"):
        _ = surfaces.get("saddle").lowest


@pytest.mark.parametrize(("dimensions", "condition"), [(2, 10.0), (30, 1e4)])
def test_ill_conditioned_quadratics(dimensions: int, condition: float) -> None:
    surface = surfaces.ill_conditioned(dimensions, condition, seed=3)
    assert surface.eigenvalues is not None
    np.testing.assert_allclose(surface.eigenvalues, np.geomspace(1 / condition, 1, dimensions), rtol=1e-9)
    other = surfaces.ill_conditioned(dimensions, condition, seed=4)
    assert not np.allclose(surface.hessian(surface.start), other.hessian(surface.start))


def test_quadratics_with_any_matrix() -> None:
    surface = surfaces.quadratic([[2, 1], [1, 3]], [1, -1])
    assert surface.minima == ((1, -1),)
    assert surface.value([2, 0]) == pytest.approx(3.5)
    assert surfaces.quadratic([1, -1]).minima == ()
    for matrix, centre in (([[1, 2], [0, 1]], None), ([[1, 2]], None), ([1, 1], [0]), ([np.nan], None)):
        with pytest.raises(ValueError, match="quadratic"):
            surfaces.quadratic(matrix, centre)
    for wrong in ({"dimensions": 1}, {"condition": 0.5}):
        with pytest.raises(ValueError, match="condition ≥ 1"):
            surfaces.ill_conditioned(**wrong)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"start": (1.0,)}, "has 2 dimensions; start"),
        ({"minima": ((1.0, 2.0, 3.0),)}, "has 2 dimensions; minima"),
        ({"window": ((0.0, 1.0),)}, "2 pairs"),
        ({"window": ((0.0, 1.0), (1.0, 1.0))}, "low < high"),
        ({"noise": Noise(frequencies=(0.5,))}, "2 frequencies"),
    ],
)
def test_a_surface_must_fit_together(changed: dict[str, Any], message: str) -> None:
    given = {"window": ((0.0, 1.0), (0.0, 1.0)), "start": (0.0, 0.0), **changed}
    with pytest.raises(ValueError, match=message):
        Surface("mine", Formula("x + y"), **given)


def test_a_grid_has_a_row_for_each_y() -> None:
    grid = surfaces.get("ravine").grid(5)
    assert grid.shape == (5, 5, 2)
    assert grid[0, -1].tolist() == [8, -4]
    assert surfaces.get("double_well").grid(7).shape == (7, 1)


# -- noise ---------------------------------------------------------------------------------------


def test_noise_has_the_gradient_as_its_mean() -> None:
    factors, summands = Noise(0.5, (1.0, 0.2)).draw(0, 20_000, 2)
    np.testing.assert_allclose(factors.mean(axis=0), 1, atol=0.05)
    np.testing.assert_allclose((factors > 0).mean(axis=0), [1, 0.2], atol=0.01)
    np.testing.assert_allclose(summands.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(summands.std(axis=0), 0.5, atol=0.01)


def test_noise_is_its_seed_s_and_longer_draws_begin_alike() -> None:
    noise = Noise(1.0, (0.5, 0.5))
    short, long, other = noise.draw(1, 5, 2), noise.draw(1, 9, 2), noise.draw(2, 5, 2)
    for a, b, c in zip(short, long, other, strict=True):
        np.testing.assert_array_equal(a, b[:5])
        assert (a != c).any()


@pytest.mark.parametrize("wrong", [{"deviation": -1.0}, {"deviation": np.inf}, {"frequencies": (0.0, 1.0)}])
def test_noise_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\[0, ∞\)|\(0, 1\]"):
        Noise(**wrong)


# -- formulas that users type --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x**2/20 + y**2", 0.45 + 0.25),
        ("x²/20 + y²", 0.45 + 0.25),
        ("x^2·y", 4.5),
        ("2·x − 3×y", 4.5),
        ("-x^2 + y - +x", -11.5),
        ("2^-y^2", 2**-0.25),
        ("x¹⁰ + y⁻²", 59049 + 4),
        (" √(x + 1)  ", 2.0),
        ("sin(x)*cos(y) + tan(y)", np.sin(3) * np.cos(0.5) + np.tan(0.5)),
        ("sinh(y) + cosh(y) - tanh(x)", np.exp(0.5) - np.tanh(3)),
        ("exp(y)*ln(x) - log(e*x)", np.exp(0.5) * np.log(3) - 1 - np.log(3)),
        ("max(x, y) - min(x, y) + abs(-x)", 5.5),
        ("cos(π*x) + pi/pi", 0.0),
        ("1e-3*x + .5", 0.503),
        ("7", 7.0),
    ],
)
def test_formulas(text: str, value: float) -> None:
    surface = surfaces.parse(text)
    assert surface.value([3, 0.5][: surface.dimensions]) == pytest.approx(value, rel=1e-14, abs=1e-15)
    assert surface.gradient(surface.start).shape == (surface.dimensions,)


def test_towers_of_powers_are_written_once() -> None:
    assert Formula("x^" * 50 + "y").unicode() == f"f(x, y) = {'x^(' * 49}x^y{')' * 49}"


def test_constants_divide_as_arrays_do() -> None:
    with np.errstate(all="ignore"):
        assert Formula("x + 1/(pi - pi)").value(np.array([1.0, 2.0])) == np.inf


def test_a_formula_s_surface() -> None:
    assert surfaces.parse("x**4").dimensions == 1
    assert surfaces.parse("y").dimensions == 2
    surface = surfaces.parse("x + y", window=[(0, 8), (-8, 0)])
    assert surface.start == (1, -7)
    assert surfaces.parse("x + y", start=[1, 2]).start == (1, 2)
    with pytest.raises(ValueError, match="2 pairs"):
        surfaces.parse("x + y", window=[(0, 1)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the formula is empty"),
        ("   ", "the formula is empty"),
        ("x + foo(y)", r"no function is named 'foo'; known: .* \(character 5 of"),
        ("x + sine(y)", r"did you mean 'sin'\?"),
        ("x + z", r"'z' is no variable; known: x, y, pi, e \(character 5"),
        ("sin + x", r"'sin' is a function: write sin\(…\) \(character 1"),
        ("sin(x, y)", "sin takes 1 argument, got 2"),
        ("max(x)", "max takes 2 arguments, got 1"),
        ("2x", r"a product is written 2\*x \(character 1"),
        ("x²  + q", r"'q' is no variable.* \(character 7 of 'x²  \+ q'"),
        ("x y", r"this is no formula: invalid syntax .*\(character 3"),
        ("x +", "this is no formula"),
        ("x + é", r"the character 'é' has no meaning here \(character 5"),
        ("__import__('os')", 'the character "\'" has no meaning'),
        ("__import__(x)", "no function is named '__import__'"),
        ("x.real", r"'x\.real' is not allowed"),
        ("x if y else 2", "is not allowed; a formula has numbers, x, y, pi, e"),
        ("x and y", "'x and y' is not allowed"),
        ("x // y", "'x // y' is not allowed"),
        ("sin(*x)", r"'\*x' is not allowed"),
        ("(x, y)", r"'\(x, y\)' is not allowed"),
        ("lambda", "this is no formula"),
        ("x < y", "the character '<'"),
        ("(x := 2)", "the character ':'"),
        ("x # y", "the character '#'"),
        ("1j*x", "'1j' is not allowed"),
        ("True", "'True' is not allowed"),
        ("1if x else y", "is not allowed"),
        ("log(0) + x", "no finite number"),
        ("sqrt(-1)", "no finite number"),
        ("x/0 + 1/0", r"no finite number \(character 7"),
        ("1e999", "no finite number"),
        ("9**9**9", "exponents lie within ±64; this one is 3.8742e"),
        ("x**65", "exponents lie within ±64"),
        ("+".join("x" * 66), "nest deeper than 64"),
        ("-" * 300 + "x", "nest deeper than 64"),
        ("(" * 300, "this is no formula"),
        *(
            (f"{name}(" * 50 + "x" + ")" * 50, "written out, this formula has more than 1000 operations")
            for name in ("tan", "sinh", "cosh")
        ),
        ("x" * 401, "at most 400 characters; this one has 401"),
    ],
)
def test_what_is_no_formula_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidFormulaError, match=message):
        surfaces.parse(text)


def test_a_formula_is_a_text() -> None:
    with pytest.raises(TypeError, match="a formula is a text"):
        read(3)  # type: ignore[arg-type]


PIECES = st.sampled_from(
    [
        *"xy0123456789+-*/^().,_ ",
        "**",
        "sin(",
        "max(",
        "pi",
        "e",
        "²",
        "exp(-",
        "1e",
        "lambda ",
        " if ",
        "__class__",
    ]
)


@given(
    st.lists(PIECES, max_size=30).map("".join) | st.text(string.printable, max_size=20) | st.text(max_size=20)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        made = read(text)
    except InvalidFormulaError:
        return
    assert isinstance(made, Expr | float)
    Formula(text).hessian(np.array([0.5, 1.5]))


def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.sampled_from(["+", "-", "*", "/"])
    unary = st.sampled_from(["sin", "cos", "tanh", "abs", "sqrt", "-"])
    return (
        st.builds("({}) {} ({})".format, inner, binary, inner)
        | st.builds("{}({})".format, unary, inner)
        | st.builds("({})**{}".format, inner, st.sampled_from(["2", "3", "0.5"]))
    )


@given(st.recursive(st.sampled_from(["x", "y", "2", "0.5", "pi"]), grow, max_leaves=10))
def test_a_formula_means_what_python_means_by_it(text: str) -> None:
    names = {"x": np.float64(0.7), "y": np.float64(-1.3), "pi": np.pi}
    names |= {name: getattr(np, name) for name in ("sin", "cos", "tanh", "abs", "sqrt")}
    with np.errstate(all="ignore"):
        try:
            wanted = eval(text, dict(names))
            found = Formula(text).value(np.array([0.7, -1.3]))
        except (InvalidFormulaError, ZeroDivisionError):  # a part is a number without a value
            return
    if not isinstance(wanted, complex):
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-10)
    # What is printed is read as the same.
    again = Formula(PYTHON.write(Formula(text).expression))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(again.value(np.array([0.7, -1.3])), found)
