"""The tables of the frameworks: whole, theirs, and read both ways."""

import inspect
import random
from dataclasses import fields, replace
from typing import Any

import keras
import optax
import pytest
import torch

from thalweg.dialects import FRAMEWORKS, Framework, Spelling
from thalweg.program.tracing import trace
from thalweg.registry import get
from thalweg.rule import Rule, is_flag
from thalweg.rules import RULES, Adam

MODULES = {"torch": torch.optim, "keras": keras.optimizers, "optax": optax}
ALL = [
    pytest.param(framework, one, id=f"{name} {one.name} {one.rule.__name__}")
    for name, framework in FRAMEWORKS.items()
    for one in framework.spellings
]

# What sets no field of a rule: how torch computes, in which dtype Optax keeps a slot, what is spared decay,
# and what is a treatment.
BESIDE = {"foreach", "fused", "capturable", "differentiable", "maximize", "weight_decay", "lr_decay"} | {
    *("decoupled_weight_decay", "mu_dtype", "accumulator_dtype", "mask", "weight_decay_mask")
}


def form_of(one: Spelling, framework: Framework, seed: int) -> Rule:
    """The rule with random numbers in what the framework's arguments set."""
    r = random.Random(seed)
    rule = one.rule(**one.dialect)
    drawn: dict[str, Any] = {}
    for f in fields(rule):
        if f.name in one.covered:
            flag = is_flag(f)
            drawn[f.name] = r.random() < 0.5 if flag else round(r.uniform(0.1, 0.9), 3)
    return replace(rule, **drawn)


@pytest.mark.parametrize(("framework", "one"), [p for p in ALL if p.values[0].name in MODULES])
def test_a_signature_is_the_frameworks_own(framework: Framework, one: Spelling) -> None:
    if not one.native:
        assert not hasattr(MODULES[framework.name], one.name)
        return
    theirs = inspect.signature(getattr(MODULES[framework.name], one.name)).parameters
    own = {name: p for name, p in theirs.items() if name in one.signature.parameters}
    assert [*own] == [*one.signature.parameters]
    for name, p in one.signature.parameters.items():
        assert p.kind == theirs[name].kind
        assert p.default == theirs[name].default or p.default is None, name
    if framework.name != "keras":  # whose options are in none of the table's signatures
        assert {*theirs} - {*own} == ({"params"} if framework.name == "torch" else set())


@pytest.mark.parametrize(("framework", "one"), ALL)
def test_every_argument_means_something(framework: Framework, one: Spelling) -> None:
    known = {f.name for f in fields(one.rule)}
    for argument in one.signature.parameters:
        siblings = framework.named(one.settings_of)
        by_another = any(argument in {**other.arguments, **other.choice} for other in siblings)
        assert by_another or argument in {*one.arguments, *one.choice, *one.only, *BESIDE}, argument
    assert {*one.values, *one.covered} <= known
    assert not {*one.values} & one.covered
    slots = {slot for group in one.slots for slot in group} - {""}
    assert slots <= {*one.rule._slots}
    if framework.name != "tf1":
        held = {*trace(one.rule(**one.dialect)).slots}
        assert held <= slots, "what the framework keeps has a name there"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("framework", "one"), ALL)
def test_rule_to_settings_and_back(framework: Framework, one: Spelling, seed: int) -> None:
    rule = form_of(one, framework, seed)
    settings = {**one.defaults, **one.fixed, **one.settings_for(rule)}
    assert not one.missing(rule)
    plain = {k: v for k, v in settings.items() if k in one.choice and k in one.defaults}
    assert all(isinstance(v, bool) == isinstance(one.defaults[k], bool) for k, v in plain.items()), (
        "0, not False"
    )
    if not one.of:
        assert framework.chosen(one.name, settings) is one
    assert get(one.rule, dialect=framework.name, **one.values_of(settings)) == rule


@pytest.mark.parametrize(("framework", "one"), [p for p in ALL if p.values[1].values])
def test_what_no_setting_can_say_is_told(framework: Framework, one: Spelling) -> None:
    paper = one.rule(**{k: v for k, v in one.dialect.items() if k not in one.values})
    assert one.missing(paper) == {k: v for k, v in one.unset.items() if getattr(paper, k) != v} != {}
    assert replace(paper, **one.missing(paper)) == one.rule(**one.dialect)


@pytest.mark.parametrize("framework", FRAMEWORKS.values(), ids=FRAMEWORKS)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_can_be_written_under_its_own_name(framework: Framework, rule: type[Rule]) -> None:
    one = framework.written(rule)
    wanted = get(rule, dialect=framework.name)
    assert one.covered == {f.name for f in fields(rule)}
    assert rule(**one.values_of(one.defaults)) == wanted
    assert one.values_of(one.settings_for(wanted)) == {f.name: getattr(wanted, f.name) for f in fields(rule)}


def test_a_rule_of_ones_own_in_the_words_of_each_framework() -> None:
    class Mine(Adam):
        gamma: float = 0.5

    found = {name: [*one.written(Mine).signature.parameters] for name, one in FRAMEWORKS.items()}
    assert found["torch"][:4] == ["lr", "betas", "eps", "epsilon_hat"]
    assert found["keras"] == ["learning_rate", "beta_1", "beta_2", "epsilon", "epsilon_hat", "gamma"]
    assert found["optax"] == ["learning_rate", "b1", "b2", "eps", "epsilon_hat", "gamma"]
