"""Formulas in LaTeX and Unicode: as the papers have them."""

import re
import unicodedata

import matplotlib
import numpy as np
import pytest
from matplotlib import mathtext

import thalweg
from thalweg import ops
from thalweg.dialects import DIALECTS
from thalweg.program.printing import to_ascii, unicode_symbol, width

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
    class Odd(thalweg.Rule):
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


def test_a_hyperparameter_that_changes_with_t_has_an_index_and_a_velocity_downhill_is_added():
    corrected = thalweg.get("adam", dialect="keras")
    assert lines(corrected)[-2] == r"\epsilon_{t} &= \frac{\epsilon}{\sqrt{1 - {\beta_2}^{t}}}"
    assert lines(thalweg.get("momentum", dialect="keras"))[-1] == r"\theta_t &= \theta_{t-1} + b_{t}"

    class Falling(thalweg.Rule):
        beta_1: thalweg.Scalar = 0.9

        def update(self, t, g):
            beta_1 = self.beta_1 / t
            return -(beta_1 - g)

    assert lines(Falling()) == [
        r"{\beta_1}_{t} &= \frac{\beta_1}{t}",
        r"\theta_t &= \theta_{t-1} + {\beta_1}_{t} - g_t",
    ]
    assert thalweg.trace(Falling()).unicode() == "β₁ₜ = β₁ / t\n θₜ = θₜ₋₁ + β₁ₜ − gₜ"


def test_adam_reads_like_its_paper_in_a_terminal():
    assert thalweg.trace(thalweg.Adam()).unicode().splitlines() == [
        "mₜ = β₁·mₜ₋₁ + (1 − β₁)·gₜ",
        "m̂ₜ = mₜ / (1 − β₁ᵗ)",
        "vₜ = β₂·vₜ₋₁ + (1 − β₂)·gₜ²",
        "v̂ₜ = vₜ / (1 − β₂ᵗ)",
        "θₜ = θₜ₋₁ − η·m̂ₜ / (√v̂ₜ + ε)",
    ]


def test_parentheses_stand_where_a_reader_needs_them():
    """Also where arithmetic would come out the same without: no fraction is a bare factor or numerator."""

    class Brackets(thalweg.Rule):
        lr: thalweg.Scalar = 0.1

        def update(self, t, g, b=1.0):
            product = (g / b) * (b / g)
            fractions = g / b / (g / b) / (g * b)
            roots = ops.sqrt(g**2) + ops.sqrt(g) ** 2 + ops.sqrt(ops.sqrt(g)) / ops.sqrt(b * g)
            powers = (g**2) ** t + (g**self.lr) ** 2 + (g**t) ** self.lr
            return product + fractions - roots + powers, g - (b - 1) - (-b)

    assert thalweg.trace(Brackets()).unicode().splitlines() == [
        "  productₜ = (gₜ / bₜ₋₁)·(bₜ₋₁ / gₜ)",
        "fractionsₜ = ((gₜ / bₜ₋₁) / (gₜ / bₜ₋₁)) / (gₜ·bₜ₋₁)",
        "    rootsₜ = √(gₜ²) + (√gₜ)² + √(√gₜ) / √(bₜ₋₁·gₜ)",
        "   powersₜ = (gₜ²)ᵗ + (gₜ^η)² + (gₜᵗ)^η",
        "        bₜ = gₜ − (bₜ₋₁ − 1) − (−bₜ₋₁)",
        "        θₜ = θₜ₋₁ − (productₜ + fractionsₜ − rootsₜ + powersₜ)",
    ]


def test_where_a_fraction_is_rounded_down_it_stands_in_floor_brackets():
    class Floor(thalweg.Rule):
        def update(self, t, g):
            return ops.floor(g / 2)

    assert thalweg.trace(Floor()).unicode() == "θₜ = θₜ₋₁ − ⌊gₜ / 2⌋"


def test_a_treated_gradient_is_not_called_the_gradient():
    treated = thalweg.trace(thalweg.chain(thalweg.L2(0.1), thalweg.SGD()))
    assert treated.unicode() == "g̃ₜ = gₜ + λ·θₜ₋₁\nθₜ = θₜ₋₁ − η·g̃ₜ"
    assert r"\tilde{g}_{t} &= g_t + \lambda" in treated.latex()


class Odd(thalweg.Rule):
    """Every operation, in places where parentheses matter."""

    lr: thalweg.Scalar = 0.1
    beta_1: thalweg.Scalar = 0.9
    gamma_rate: thalweg.Scalar = thalweg.hyper(0.3, symbol=r"\gamma_{12}", meaning="none")
    odd: thalweg.Scalar = thalweg.hyper(0.7, symbol=r"\hat{o}", meaning="none")

    def update(self, t, g, p, norm, global_norm, b=0.5, sigma_1=0.25):
        b = (b / (g / self.lr)) / (b * g) - (g - (b - 1)) / 2 * b / (t + 1)
        quotient = (b + g) / (b * b / sigma_1)
        powers = (-2.0) ** (t + 1) + (b**2) ** (self.beta_1 * t) + ops.sqrt(b**2) ** 2 + (g * b) ** 2
        powers = (
            powers
            + ops.sqrt(b * b) * (g / b) ** -2
            + (ops.sqrt(ops.abs(b)) * ops.abs(g) ** 0.5) ** (t - self.odd)
        )
        chosen = ops.where(b >= self.gamma_rate, ops.maximum(b, -g), ops.minimum(p, 2 - g))
        chosen = chosen + ops.where(b + 1 != g, ops.exp(-b), ops.tanh(b)) * ops.sign(b - g)
        step = powers / norm - (-(quotient - chosen)) * ops.log(global_norm)
        return -(step + p), b, sigma_1 + b


TREATED = thalweg.chain(
    thalweg.ClipByGlobalNorm(1.0), thalweg.ClipByValue(0.5), thalweg.L2(0.1), thalweg.RMSprop(centered=True)
)
FORMS = {
    **{f"{n} {d}": thalweg.get(n, dialect=d) for n in thalweg.rules() for d in DIALECTS},
    "graves": thalweg.RMSprop(centered=True, momentum=0.8, nesterov=True, lr_in_velocity=True),
    "odd": Odd(),
    "treated": TREATED,
}


# Rules with each hyperparameter of their formula in turn at 0.
ZEROED = {
    f"{form}, {name} 0": (name, rule.replaced(**{name: 0.0}))
    for form, rule in FORMS.items()
    for name, about in rule.hyperparameters.items()
    if form.endswith(("paper", "optax", "graves")) and about.admits(0.0) and name != "initial_accumulator"
}


@pytest.mark.parametrize("t", [1, 2, 300])
@pytest.mark.parametrize("form", FORMS)
def test_what_a_terminal_shows_computes_the_step(form, t):
    """Read back as mathematics, line by line, the formulas give the rule's own parameter."""
    check_formulas(FORMS[form], thalweg.trace(FORMS[form]).unicode(), t)


@pytest.mark.parametrize("t", [1, 300])
@pytest.mark.parametrize("form", ZEROED)
def test_what_is_left_where_a_hyperparameter_is_0_computes_the_step(form, t):
    name, rule = ZEROED[form]
    program = thalweg.trace(rule)
    check_formulas(rule, program.unicode(rule), t)
    assert name in program.left_out(rule)


@pytest.mark.parametrize(
    ("rule", "shown"),
    [
        (thalweg.Momentum(), "bₜ = μ·bₜ₋₁ + gₜ\nθₜ = θₜ₋₁ − η·bₜ"),
        (
            thalweg.Momentum(dampening=0.5),
            "freshₜ = {1 if t = 1; 1 − τ otherwise}\n    bₜ = μ·bₜ₋₁ + freshₜ·gₜ\n    θₜ = θₜ₋₁ − η·bₜ",
        ),
        (thalweg.Momentum(momentum=0), "bₜ = gₜ\nθₜ = θₜ₋₁ − η·bₜ"),
        (thalweg.chain(thalweg.L2(0), thalweg.DecoupledDecay(0), thalweg.SGD()), "θₜ = θₜ₋₁ − η·gₜ"),
        (thalweg.chain(thalweg.L2(lambda t: 0), thalweg.SGD()), "g̃ₜ = gₜ + λ·θₜ₋₁\nθₜ = θₜ₋₁ − η·g̃ₜ"),
    ],
    ids=["plain", "damped", "no momentum", "treated", "schedule"],
)
def test_what_does_nothing_at_the_present_settings_is_left_out(rule, shown):
    assert thalweg.trace(rule).unicode(rule) == shown


def test_what_divides_by_0_stays_a_division():
    class Divides(thalweg.Rule):
        lr: thalweg.Scalar = 0.0

        def update(self, t, g):
            return g + 1 / self.lr

    assert thalweg.trace(Divides()).unicode(Divides()) == "θₜ = θₜ₋₁ − (gₜ + 1 / 0)"


def check_formulas(rule, shown, t):
    """That the formulas, as a terminal shows them, compute the rule's step."""
    program = thalweg.trace(rule)
    random = np.random.default_rng(t).uniform
    given = {"g": random(0.2, 0.4), "p": random(0.5, 1.0), "norm": 2.5, "global_norm": 3.5}
    state = {slot: random(0.25, 0.4) for slot in rule.slots}
    known = {
        "t": t,
        "gₜ": given["g"],
        "θₜ₋₁": given["p"],
        "‖gₜ‖": given["norm"],
        "‖Gₜ‖": given["global_norm"],
    }
    known |= {unicode_symbol(h.symbol, n): rule.values[n] for n, h in rule.hyperparameters.items()}
    known |= {n: rule.values[n] for n in rule.values if n.startswith("clip")}  # two of one symbol, c
    greek = {"mu": "μ", "sigma": "σ"}
    for slot, value in state.items():
        base, _, rest = slot.partition("_")
        name = {"sigma_1": "σ⁽¹⁾"}.get(slot, f"{greek.get(base, base)}{rest and '_'}{rest}")
        known[name + "ₜ₋₁"] = value
    lines = shown.splitlines()
    assert len({width(line.partition(" = ")[0]) for line in lines}) == 1, "the equals signs are aligned"
    for line in lines:
        name, _, value = line.strip().partition(" = ")
        known[name] = read(value, known)
    norms = {"norm": lambda _: given["norm"], "global_norm": lambda _: given["global_norm"]}
    step, new = rule.advance(t, given["g"], given["p"], state, **norms)
    assert known["θₜ"] == pytest.approx(given["p"] - step, rel=1e-12)
    for slot in program.slots:
        matches = [
            v for k, v in known.items() if k.endswith("ₜ") and v == pytest.approx(new[slot], rel=1e-12)
        ]
        assert matches, f"{slot} has no line"


NAME = "‖[gG]ₜ‖|[A-Za-zα-ω][A-Za-zα-ω0-9_\u0302\u0303]*(?:⁽[¹²³]+⁾)?[₀-₉ₜ₋∞]*"
CALLS = {"max", "min", "sign", "exp", "log", "tanh", "if", "otherwise", "abs", "sqrt"}
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹ᵗ⁺⁻", "0123456789t+-")


def read(text, known):
    """What a formula of a terminal amounts to: √ reaches over one name or parenthesis."""
    known = {unicodedata.normalize("NFD", k): v for k, v in known.items()}
    text = unicodedata.normalize("NFD", text.replace("≠", "!="))
    text = re.sub(r"√\|([^|]*)\|", r"sqrt(abs(\1))", text)
    text = re.sub(r"\|([^|]*)\|", r"abs(\1)", text)

    def name(found):
        return found[0] if found[0] in CALLS else f"K[{found[0]!r}]"

    def power(found):
        return f"**({found[0].translate(SUPERSCRIPTS)})".replace("t", "K['t']")

    text = re.sub(f"√({NAME})", r"√(\1)", text).replace("√(", "sqrt(")
    text = re.sub(NAME, name, text)
    text = "".join(
        part if part.startswith("K[") else re.sub("[⁰¹²³⁴-⁹ᵗ⁺⁻]+", power, part)
        for part in re.split(r"(K\[[^\]]*\])", text)
    )
    for shown, python in {
        "−": "-", "·": "*", "^": "**", "{": "(", "}": ")", ";": " else ", "otherwise": "",
        "≥": ">=", "≤": "<=", " = ": " == ",
    }.items():  # fmt: skip
        text = text.replace(shown, python)
    functions = {"max": ops.maximum, "min": ops.minimum, "abs": abs} | {
        n: getattr(ops, n) for n in ("sign", "exp", "log", "tanh", "sqrt")
    }
    return eval(text, functions | {"K": known})


@pytest.mark.parametrize(
    ("symbol", "shown"),
    [
        (r"\eta", "η"),
        (r"\beta_1", "β₁"),
        (r"\gamma_{12}", "γ₁₂"),
        ("s_0", "s₀"),
        (r"\mathrm{my\_rate}", "my_rate"),
        (r"\hat{\beta}", "name"),
        (r"x^2", "name"),
        (r"\Beth", "name"),
    ],
)
def test_a_symbol_is_shown_in_unicode_where_there_is_one(symbol, shown):
    assert unicode_symbol(symbol, "name") == shown


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("m̂ₜ = mₜ / (1 − β₁ᵗ)", "m_hat_t = m_t / (1 - beta_1^t)"),
        ("θₜ₋₁ − η·√v̂ₜ", "theta_{t-1} - eta*sqrt v_hat_t"),
        ("½ Σ λᵢpᵢ² ≥ ‖g‖, ∞", "1/2 Sigma lambda_ip_i^2 >= ||g||, inf"),
        ("Frisée … ● 字 \ud800", "Frisee ... * ? ?"),
    ],
)
def test_in_ascii_signs_are_spelled(text, spelled):
    assert to_ascii(text) == spelled


@pytest.mark.parametrize("name", thalweg.rules())
def test_every_formula_can_be_spelled(name):
    assert "?" not in to_ascii(thalweg.trace(thalweg.get(name)).unicode())
