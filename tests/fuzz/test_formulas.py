"""Formulas that people type, and that others type for them."""

import random

import numpy as np

from formula_cases import formula, nested, spoiled
from thalweg.errors import InvalidFormulaError
from thalweg.program.printing import to_ascii
from thalweg.program.symbols import walk
from thalweg.surfaces import calculus
from thalweg.surfaces.formulas import LIMITS, Formula, operations


def texts(generator: random.Random, rounds: int):
    for _ in range(rounds):
        text = formula(generator, 4) if generator.random() < 0.7 else nested(generator, 40)
        yield spoiled(generator, text) if generator.random() < 0.3 else text


def clear(message: str) -> bool:
    """Whether it is one line, which may repeat the formula."""
    assert message.count("\n") == 0, message
    assert 0 < len(message) < 2 * LIMITS["length"] + 400, message
    return True


def slopes(found: Formula, point: np.ndarray, h: float) -> np.ndarray:
    """The gradient by central differences."""
    return np.array([(found.value(point + h * e) - found.value(point - h * e)) / (2 * h) for e in np.eye(2)])


def test_a_formula_is_refused_clearly_or_has_the_slopes_that_its_values_show(rounds, generator):
    refused = compared = 0
    for text in texts(generator, rounds):
        try:
            found = Formula(text)
        except InvalidFormulaError as error:
            refused += clear(str(error))
            continue
        count = operations(found.expression)
        assert count <= LIMITS["operations"], text
        different = sum(1 for _ in walk(found.expression))
        for variable in found.symbols:
            derived = sum(1 for _ in walk(calculus.derivative(found.expression, variable)))
            assert derived <= 9 * different + 9, text
        assert len(found.unicode()) < 40 * LIMITS["operations"], text
        assert found.latex(), text
        assert to_ascii(found.unicode()).isascii(), text
        point = np.array([generator.uniform(0.2, 2), generator.uniform(0.2, 2)])
        with np.errstate(all="ignore"):
            value, gradient, hessian = found.value(point), found.gradient(point), found.hessian(point)
            assert value.shape == (), text
            assert gradient.shape == (2,), text
            np.testing.assert_array_equal(hessian, hessian.T, err_msg=text)
            coarse, fine = slopes(found, point, 2e-5), slopes(found, point, 1e-5)
        scale = 1 + np.abs(gradient).max()
        # Near a kink or a pole, and where digits are lost, differences disagree with each other too.
        if (
            np.isfinite(value)
            and abs(value) < 1e4 * scale
            and np.abs(coarse - fine).max() < 1e-5 * scale < 1e3
        ):
            np.testing.assert_allclose(fine, gradient, rtol=1e-3, atol=1e-3 * scale, err_msg=text)
            compared += 1
    assert refused >= rounds / 20
    assert compared >= rounds / 5


def test_how_deep_a_formula_may_nest_is_the_same_however_it_is_written(rounds, generator):
    """No text within the length takes Python's own limits: each is a formula, or refused as one."""
    for _ in range(rounds):
        bit = generator.choice(
            ["(", "-", "+", "x+", "x*", "x**", "x-", "sin(", "tan(", "max(x,", "√(", "2**", "x/", "1,"]
        )
        text = (bit * generator.randint(1, 200))[: LIMITS["length"] - 10] + "x"
        text += ")" * generator.choice([0, text.count("("), text.count("(")])
        try:
            found = Formula(text)
        except InvalidFormulaError:
            continue
        point = np.array([0.7, 0.3])
        with np.errstate(all="ignore"):
            assert found.value(point).shape == (), text
            assert found.gradient(point).shape == (2,), text
            assert found.hessian(point).shape == (2, 2), text
        assert found.unicode(), text
