"""Formulas in LaTeX: as the papers have them."""

import matplotlib
import pytest
from matplotlib import mathtext

import thalweg

matplotlib.use("Agg")


def lines(rule):
    return (
        thalweg.trace(rule)
        .latex()
        .removeprefix("\\begin{aligned}\n")
        .removesuffix("\n\\end{aligned}")
        .split(" \\\\\n")
    )


def test_adam_reads_like_its_paper():
    assert lines(thalweg.Adam()) == [
        r"m_{t} &= \beta_1 \, m_{t-1} + \left(1 - \beta_1\right) \, g_t",
        r"\hat{m}_{t} &= \frac{m_{t}}{1 - {\beta_1}^{t}}",
        r"v_{t} &= \beta_2 \, v_{t-1} + \left(1 - \beta_2\right) \, {g_t}^{2}",
        r"\hat{v}_{t} &= \frac{v_{t}}{1 - {\beta_2}^{t}}",
        r"\theta_t &= \theta_{t-1} - \frac{\eta \, \hat{m}_{t}}{\sqrt{\hat{v}_{t}} + \epsilon}",
    ]


def test_a_sum_is_put_in_parentheses_and_numbers_are_kept_apart():
    class Odd(thalweg.Rule, register=False):
        lr: thalweg.Scalar = 0.1

        def update(self, t, g, b=0):
            b = 0.5 * 2.0**t * b - (g - b)
            return self.lr * b + g, b

    assert lines(Odd()) == [
        r"b_{t} &= 0.5 \cdot 2^{t} \, b_{t-1} - \left(g_t - b_{t-1}\right)",
        r"\theta_t &= \theta_{t-1} - \left(\eta \, b_{t} + g_t\right)",
    ]


@pytest.mark.parametrize("name", thalweg.rules())
def test_every_formula_is_valid_tex(name):
    """Parsed by matplotlib's TeX, which lacks `cases`, `text` and `lvert`: those are spelled otherwise."""
    parser = mathtext.MathTextParser("path")
    for line in lines(thalweg.get(name)):
        plain = line.replace("&", "").replace(r"\begin{cases}", "").replace(r"\end{cases}", "")
        plain = (
            plain.replace(r"\lvert", "|")
            .replace(r"\rvert", "|")
            .replace(r"\text{if }", r"\mathrm{if}")
            .replace(r"\text{otherwise}", r"\mathrm{else}")
        )
        parser.parse(f"${plain.replace(chr(92) * 2, '')}$")


def test_conditions_and_treatments_are_shown():
    text = thalweg.trace(thalweg.RAdam()).latex()
    assert r"\begin{cases}" in text
    assert r"\text{if } \rho_{t} > 5" in text
    clipped = thalweg.trace(thalweg.chain(thalweg.ClipByNorm(1.0), thalweg.SGD())).latex()
    assert r"\max\left(\lVert g_t \rVert, c\right)" in clipped
