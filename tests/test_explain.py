"""What `explain` says: complete, true to the rule, and fit for a terminal."""

import re
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

import thalweg
from thalweg.dialects import DIALECTS, SPELLINGS
from thalweg.eager import Driver
from thalweg.explain.guide import GUIDES, SWITCHES
from thalweg.explain.page import SHOWN, dialects_of, differences, explain, standard_path, table_of_dialects
from thalweg.ops import where
from thalweg.program.printing import width
from thalweg.registry import find
from thalweg.rule import is_flag
from thalweg.rules import RULES
from thalweg.schedules import Cosine

SHIPPED = {kind.__name__: kind for kind in RULES}
SECTIONS = [
    "Formula",
    "Hyperparameters",
    "Defaults",
    "Dialects",
    "Serves well",
    "Serves badly",
    "Source",
    "Cost",
]


class Own(thalweg.Rule):
    """Down, but slowly.

    Nobody 2020, https://example.org
    A second line.
    """

    lr: thalweg.Scalar = 0.1
    kappa: thalweg.Scalar = thalweg.hyper(0.5, symbol=r"\kappa", meaning="how slowly", low=0)
    brake: bool = False

    def update(self, t, g, b=0.25):
        b = self.kappa * b + g
        return (self.lr if self.brake else 2 * self.lr) * b, b


class Bare(thalweg.Rule):
    def update(self, t, g):
        return g


def section(text: str, title: str) -> str:
    """What stands under a title."""
    return re.split(r"\n\n(?=\S)|\n(?=\S)", text.split(f"\n{title}\n", 1)[1], maxsplit=1)[0]


@pytest.mark.parametrize("name", thalweg.rules())
def test_every_rule_has_its_prose(name: str) -> None:
    guide = GUIDES[find(name).__name__]
    for text in (guide.how, guide.well, guide.badly):
        assert text.endswith(".")
        assert len(text) > 30
    assert guide.how.count(". ") == 0, "one sentence"


def test_no_prose_is_left_over() -> None:
    assert {*GUIDES} == {*SHIPPED}
    assert {*SWITCHES} == {f.name for kind in SHIPPED.values() for f in fields(kind) if is_flag(f)}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", thalweg.rules())
def test_every_section_is_there_and_fits_a_terminal(name: str) -> None:
    text = explain(name)
    assert re.findall(r"(?m)^\S.*$", text)[1:] == SECTIONS
    assert text.startswith(find(name).__name__)
    assert all(width(line) <= 88 for line in text.splitlines())
    assert "\n\n\n" not in text
    assert not re.search(r"(?m) $", text)


@pytest.mark.parametrize("name", thalweg.rules())
def test_every_hyperparameter_and_default_is_shown(name: str) -> None:
    kind = find(name)
    text = explain(name)
    header, *rows = (line.split() for line in section(text, "Defaults").splitlines())
    assert header == dialects_of(kind)
    shown = {row[0]: row[1:] for row in rows if not row[0].startswith("(")}
    assert [*shown] == [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for column, dialect in enumerate(header):
        rule = thalweg.get(name, dialect=dialect)
        for field, cells in shown.items():
            value, cell = getattr(rule, field), cells[column].strip("()")
            if value is None or isinstance(value, bool):
                assert cell == {None: "none", True: "yes", False: "no"}[value]
            else:
                assert float(cell) == value
    described = section(text, "Hyperparameters")
    for field, about in thalweg.get(name).hyperparameters.items():
        assert re.search(
            rf"(?m)^  {field} .*{re.escape(about.range)}  {re.escape(about.meaning)}$", described
        )
    for f in fields(kind):  # type: ignore[arg-type]
        assert re.search(rf"(?m)^  {f.name}\b", described)


def test_a_value_without_a_default_of_the_frameworks_stands_in_parentheses() -> None:
    rows = {
        line.split()[0]: line.split()[1:] for line in section(explain("momentum"), "Defaults").splitlines()
    }
    assert rows["lr"] == ["0.01", "0.001", "0.01", "(0.01)", "(0.01)"]
    assert rows["momentum"] == ["0.9", "(0.9)", "(0.9)", "(0.9)", "(0.9)"]
    assert rows["dampening"] == ["0"] * 5
    assert "(…):" in rows
    assert "(…)" not in section(explain(Own()), "Defaults")


def test_the_summary_is_two_sentences_and_the_source_keeps_its_address_whole() -> None:
    text = " ".join(explain("lion").split())
    assert text.startswith(
        "Lion The sign of an interpolated momentum; half of Adam's state. Every entry moves by exactly lr"
    )
    assert (
        section(explain("lion"), "Source")
        == "  Chen et al. 2023, Program 1, https://arxiv.org/abs/2302.06675"
    )
    first, second = section(explain(Own()), "Source").splitlines()
    assert (first, second) == ("  Nobody 2020, https://example.org", "  A second line.")


def test_a_dialects_formula_comes_first_and_the_others_lines_that_differ_after_it() -> None:
    paper, keras = (section(explain("adam", d), "Formula") for d in ("paper", "keras"))
    assert paper.splitlines()[4] == "  θₜ = θₜ₋₁ − η·m̂ₜ / (√v̂ₜ + ε)"
    assert (
        "  In keras, tf1 these lines differ:\n\n  εₜ = ε / √(1 − β₂ᵗ)\n  θₜ = θₜ₋₁ − η·m̂ₜ / (√v̂ₜ + εₜ)"
        in paper
    )
    assert keras.splitlines()[5] == "  θₜ = θₜ₋₁ − η·m̂ₜ / (√v̂ₜ + εₜ)"
    assert keras.endswith("  In paper, torch, optax these lines differ:\n\n  θₜ = θₜ₋₁ − η·m̂ₜ / (√v̂ₜ + ε)")
    assert "t: number of the step, from 1; m₀ = 0, v₀ = 0)" in paper
    assert "differ" not in section(explain("adadelta"), "Formula")


def test_a_slot_that_a_hyperparameter_starts_names_it() -> None:
    assert "; s₀ = initial_accumulator)" in section(explain("adagrad"), "Formula")
    assert "; b₀ = 0.25)" in section(explain(Own()), "Formula")
    assert "from 1)" in section(explain("sgd"), "Formula")


@pytest.mark.parametrize("name", thalweg.rules())
def test_latex_is_the_programs_own(name: str) -> None:
    text = explain(name, latex=True)
    shown = re.sub(r"(?m)^  ", "", text)
    forms = [thalweg.get(name, dialect=dialect) for dialect in dialects_of(find(name))]
    formulas = {thalweg.trace(rule).latex(rule) for rule in forms}
    assert all(formula in shown for formula in formulas)
    assert text.count(r"\begin{aligned}") == len(formulas)


def test_a_term_that_does_nothing_is_left_out_and_said_to_be() -> None:
    formula = " ".join(section(explain("momentum"), "Formula").split())
    assert formula.startswith("bₜ = μ·bₜ₋₁ + gₜ θₜ = θₜ₋₁ − η·bₜ")
    assert "left out, being 0: τ)" in formula
    damped = section(explain(thalweg.Momentum(dampening=0.5)), "Formula")
    assert "1 − τ" in damped
    assert "left out" not in damped


def deviations(text: str) -> dict[str, dict[str, list[float]]]:
    """The table of distances: for each comparison, each dialect's row."""
    found: dict[str, dict[str, list[float]]] = {}
    for line in section(text, "Dialects").splitlines():
        if line.startswith("  with "):
            rows = found[line.strip(" :")] = {}
        elif found and line.startswith("    "):
            names = [*re.findall(r"[a-z]\w*(?=,| )", line)]
            values = [float(x) for x in line.split()[len(names) :]]
            rows.update(dict.fromkeys(names, values))
    return found


@pytest.mark.parametrize("name", thalweg.rules())
def test_how_far_dialects_part_is_what_their_rules_do(name: str) -> None:
    """The standard trajectory as its description has it, followed by other means."""
    kind, paper = find(name), thalweg.get(name)
    curvature = 10.0 ** -np.arange(7)
    noise = np.random.RandomState(0).standard_normal((200, 7))

    def path(rule: thalweg.Rule) -> list[Any]:
        lr = rule.values["lr"]
        rule = rule.replaced(lr=lambda t: lr if t <= 100 else lr * 0.1)
        way, driver = [np.ones(7)], Driver(rule)
        for z in noise:
            way.append(way[-1] - driver.step(way[-1], curvature * (way[-1] + 0.3 * z)))
        return way

    wanted = path(paper)
    np.testing.assert_allclose(standard_path(paper), wanted, rtol=1e-9)
    rows = deviations(explain(name))
    for dialect in dialects_of(kind):
        own = thalweg.get(name, dialect=dialect)
        kept = ("initial_accumulator", "psi", "epsilon_root")
        same = own.replaced(**{k: v for k, v in paper.values.items() if k in own.values and k not in kept})
        for title, rule in (("with the paper's settings", same), ("with their own defaults", own)):
            way = path(rule)
            for t, shown in zip(SHOWN, rows[title][dialect], strict=True):
                distance = np.linalg.norm(way[t] - wanted[t]) / np.linalg.norm(wanted[t] - wanted[0])
                assert shown == pytest.approx(distance, rel=0.06, abs=1e-12)


def test_what_is_known_of_the_dialects_shows() -> None:
    adam = deviations(explain("adam"))["with the paper's settings"]
    assert adam["torch"] == [0] * 5
    assert adam["keras"][0] > adam["keras"][-1] > 1e-3, "ε-hat: larger at first"
    momentum = deviations(explain("momentum"))["with the paper's settings"]["keras"]
    assert momentum[:3] == [0, 0, 0], "equal at a constant rate"
    assert momentum[3] > 0.01, "different once the rate has fallen"


def test_where_a_framework_has_no_such_rule_it_is_said() -> None:
    text = section(explain("lion"), "Dialects")
    assert "not in torch, tf1: asked for in such a dialect, it is the paper's" in text
    assert "not in" not in section(explain("adam"), "Dialects")


def test_the_cost_is_the_programs() -> None:
    cost = section(explain("nadam"), "Cost")
    program = thalweg.trace(thalweg.Nadam())
    assert "  bytes: 28 moved for each entry and step in float32, 56 in float64\n" in cost
    assert f"operations: {sum(program.operations.values())} for each entry and step (" in cost
    assert sum(
        map(int, re.findall(r"[ (](\d+) [a-z]", cost.split("(", 1)[1].split(")")[0].join("( ")))
    ) == sum(program.operations.values())
    assert cost.endswith("  state: 2 numbers for each parameter (m, v), one for the model (mu_product)")
    assert section(explain("sgd"), "Cost").endswith("  state: none")
    assert section(explain("lion"), "Cost").endswith("  state: 1 number for each parameter (m)")


def test_a_rule_of_ones_own() -> None:
    text = explain(Own(kappa=0.75))
    assert re.findall(r"(?m)^\S.*$", text) == [
        "Own", "Formula", "Hyperparameters", "Defaults", "Source", "Cost"
    ]  # fmt: skip
    assert "  Down, but slowly.\n" in text
    assert section(text, "Formula").startswith("  bₜ = κ·bₜ₋₁ + gₜ\n  θₜ = θₜ₋₁ − 2·η·bₜ\n")
    assert "  kappa  κ  [0, ∞)  how slowly" in text
    assert "  brake: yes or no" in text
    assert re.search(r"(?m)^  kappa +0\.75$", text)
    assert re.search(r"(?m)^  brake +no$", text)


def test_a_rule_that_says_nothing_of_itself() -> None:
    assert re.findall(r"(?m)^\S.*$", explain(Bare())) == ["Bare", "Formula", "Cost"]
    assert "Bare(" not in explain(Bare()), "what a dataclass writes in place of a docstring is no explanation"


def test_a_rule_of_ones_own_that_borrows_a_name_borrows_nothing_else() -> None:
    borrowed = type("Adam", (Own,), {"__doc__": "Not Adam."})
    text = explain(borrowed())
    assert "Serves well" not in text
    assert "keras" not in text


def test_operations_of_one_name_are_counted_together() -> None:
    class Choosy(thalweg.Rule):
        def update(self, t, g):
            return where(g > 1, 1, where(g <= -1, -1, where(g == 0.5, 0, g)))

    assert "(3 choices, 3 comparisons, 1 subtraction)" in section(explain(Choosy()), "Cost")


def test_a_rule_with_values_of_ones_own_stands_beside_the_dialects() -> None:
    treated = thalweg.chain(
        thalweg.ClipByNorm(1.0), thalweg.L2(0.1), thalweg.RMSprop(lr=Cosine(0.1, 9), momentum=0.5)
    )
    text = explain(treated)
    header, *rows = (line.split() for line in section(text, "Defaults").splitlines())
    assert header == ["yours", "paper", "torch", "keras", "tf1", "optax"]
    values = {row[0]: row[1:] for row in rows}
    assert values["lr"][:2] == ["schedule", "0.01"]
    assert values["momentum"][:2] == ["0.5", "none"]
    assert values["clip_norm"] == ["1"] + ["–"] * 5
    assert "g̃ₜ = gₜ·(c / max(‖gₜ‖, c)) + λ·θₜ₋₁" in section(text, "Formula")
    assert "In paper, torch these lines differ:" in text
    assert deviations(text)["with their own defaults"]["yours"][0] > 1


def test_a_path_that_leaves_the_numbers_is_no_distance() -> None:
    text = section(explain(thalweg.Nesterov(lr=1e200)), "Dialects")
    assert re.search(r"(?m)^    yours  .* –$", text.split("own defaults")[1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("adm",), thalweg.UnknownRuleError, "did you mean 'adam'"),
        (("adam", "kears"), thalweg.UnknownDialectError, "did you mean 'keras'"),
        ((thalweg.Adam,), TypeError, "takes a rule or a rule's name"),
    ],
)
def test_what_cannot_be_explained(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        explain(*arguments)


def test_differences_are_those_of_the_data() -> None:
    assert differences(thalweg.Adam, "keras") == "epsilon=1e-07, epsilon_hat"
    assert differences(thalweg.RAdam, "optax") == "not epsilon_hat"
    assert differences(thalweg.Nadam, "optax") == "psi=none"
    assert differences(thalweg.SGD, "keras") == ""


def test_the_table_of_dialects_has_every_rule_and_every_difference() -> None:
    table = table_of_dialects()
    blocks = {block.split()[0]: block for block in table.split("\n\n")}
    assert [*blocks][: len(SHIPPED)] == [*SHIPPED]
    for dialect in DIALECTS.keys() - {"paper"}:
        for name, spelling in SPELLINGS[dialect].items():
            wanted = differences(SHIPPED[name], dialect) or "as the paper"
            lines = [line.strip() for line in blocks[name].splitlines()]
            assert lines[lines.index(f"{dialect:5}  {spelling}") + 1] == wanted
    assert all(width(line) <= 88 for line in table.splitlines())
    assert table_of_dialects(["adam"]) == blocks["Adam"]
