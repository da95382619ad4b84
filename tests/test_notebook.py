"""What a notebook shows."""

import re

import pytest

import thalweg
from helpers import output, python
from study_cases import study_of


@pytest.mark.parametrize("name", thalweg.rules())
def test_a_rule_shows_its_formula_and_every_hyperparameter(name):
    rule = thalweg.get(name)
    shown = rule._repr_html_()
    assert thalweg.trace(rule).latex(rule).split("\\\\")[0].replace("&", "&amp;") in shown
    for key, about in rule.hyperparameters.items():
        assert re.search(rf"<td>{key}</td><td>\${re.escape(about.symbol)}\$</td>", shown)
        assert about.meaning
    assert not re.search("<(?!/?(p|b|table|thead|tbody|tr|th|td)>)", shown)


def test_treatments_and_schedules_are_shown_too():
    rule = thalweg.chain(thalweg.ClipByValue(1.0), thalweg.SGD(thalweg.schedules.Cosine(0.1, 100)))
    assert "Cosine(" in rule._repr_html_()


def test_a_path_shows_its_picture_and_many_do_not():
    assert "<img" in thalweg.path("ravine", "sgd", steps=5)._repr_html_()
    assert thalweg.paths("ravine", "sgd", lr=[0.1, 0.2], steps=5)._repr_html_() is None


@pytest.mark.parametrize("first", ["thalweg", "thalweg.surfaces.paths", "thalweg.rules.adam", "thalweg.jax"])
def test_what_is_shown_does_not_depend_on_what_is_imported_first(first):
    source = (
        f"import {first}\nfrom thalweg.surfaces.paths import path\nfrom thalweg.rules import Adam\n"
        "print('<img' in path('ravine', 'sgd', steps=5)._repr_html_(), '<table' in Adam()._repr_html_())"
    )
    assert output(python(source)) == "True True"


def test_a_study_shows_its_answer_and_its_table():
    shown = study_of({"a": {"final": [0.1] * 6}, "<b>": {"final": [0.5] * 6}})._repr_html_()
    assert shown.startswith("<p>Best is a at learning rate 0.1")
    assert shown.count("<tr>") == 3
    assert "<th>&lt;b&gt;</th>" in shown
