"""`dialect=` on the torch front end: another framework's arithmetic and defaults, step by step."""

from typing import Any

import pytest
import torch

import thalweg
import thalweg.torch
from helpers import copies, descend_torch, difference, gradients, parameters, train
from thalweg import Rule
from thalweg.dialects import DIALECTS
from thalweg.schedules import Step

# Class, settings, and the rule that they mean, by name and hyperparameters.
FORMS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "SGD": ("SGD", {}, "sgd", {}),
    "momentum": ("SGD", {"momentum": 0.8}, "momentum", {"momentum": 0.8}),
    "nesterov": ("SGD", {"momentum": 0.8, "nesterov": True}, "nesterov", {"momentum": 0.8}),
    "Adagrad": ("Adagrad", {}, "adagrad", {}),
    "RMSprop": ("RMSprop", {}, "rmsprop", {}),
    "RMSprop-momentum": ("RMSprop", {"momentum": 0.7}, "rmsprop", {"momentum": 0.7}),
    "RMSprop-centered": ("RMSprop", {"centered": True}, "rmsprop", {"centered": True}),
    "Adadelta": ("Adadelta", {}, "adadelta", {}),
    "Adam": ("Adam", {}, "adam", {}),
    "AMSGrad": ("Adam", {"amsgrad": True}, "amsgrad", {}),
    "Adamax": ("Adamax", {}, "adamax", {}),
    "NAdam": ("NAdam", {}, "nadam", {}),
    "RAdam": ("RAdam", {}, "radam", {}),
    "AdaBelief": ("AdaBelief", {}, "adabelief", {}),
    "Adan": ("Adan", {}, "adan", {}),
    "Lion": ("Lion", {}, "lion", {}),
}


def wanted(rule: Rule, params: list[torch.Tensor], grads: list[list[torch.Tensor]]) -> list[Any]:
    return [descend_torch(rule, p, [step[i] for step in grads]) for i, p in enumerate(params)]


@pytest.mark.pairwise
@pytest.mark.usefixtures("float64")  # torch's NAdam keeps its product of momenta in the default dtype
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("form", FORMS)
def test_a_dialect_brings_its_arithmetic_and_its_defaults(form: str, dialect: str, path: str) -> None:
    kind, settings, name, values = FORMS[form]
    params = parameters((3, 2), (4,))
    grads = gradients(params, 30)
    expected = wanted(thalweg.get(name, dialect=dialect, **values), params, grads)
    train(getattr(thalweg.torch, kind)(params, **settings, dialect=dialect), params, grads)
    assert max(difference(p, w) for p, w in zip(params, expected, strict=True)) <= 1e-12


@pytest.mark.parametrize("dialect", DIALECTS)
def test_adamw_is_the_dialects_adam_with_a_decoupled_decay(dialect: str, path: str) -> None:
    params = parameters((3, 2), (4,))
    grads = gradients(params, 30)
    decay = thalweg.get("adamw", dialect=dialect).values["weight_decay"]
    rule = thalweg.chain(thalweg.DecoupledDecay(decay), thalweg.get("adam", dialect=dialect))
    expected = wanted(rule, params, grads)
    train(thalweg.torch.AdamW(params, dialect=dialect), params, grads)
    assert max(difference(p, w) for p, w in zip(params, expected, strict=True)) <= 1e-12


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_given_wins_even_where_it_is_torchs_default(dialect: str) -> None:
    optimizer = thalweg.torch.RMSprop(parameters((2,)), lr=1e-2, alpha=0.99, eps=1e-8, dialect=dialect)
    values = optimizer.rule_of(optimizer.param_groups[0]).values
    assert (values["lr"], values["rho"], values["epsilon"]) == (1e-2, 0.99, 1e-8)


def test_a_parameter_group_may_have_its_own_settings() -> None:
    params = parameters((3,), (4,))
    groups = [{"params": params[:1]}, {"params": params[1:], "lr": 0.3}]
    grads = gradients(params, 20)
    expected = [
        descend_torch(thalweg.get("adagrad", dialect="keras", **own), p, [step[i] for step in grads])
        for i, (p, own) in enumerate(zip(params, ({}, {"lr": 0.3}), strict=True))
    ]
    train(thalweg.torch.Adagrad(groups, dialect="keras"), params, grads)
    assert max(difference(p, w) for p, w in zip(params, expected, strict=True)) <= 1e-12


def test_keras_decouples_weight_decay() -> None:
    params = parameters((5,))
    grads = gradients(params, 20)
    rule = thalweg.chain(thalweg.DecoupledDecay(0.1), thalweg.get("adam", dialect="keras"))
    expected = wanted(rule, params, grads)
    train(thalweg.torch.Adam(params, weight_decay=0.1, dialect="keras"), params, grads)
    assert difference(params[0], expected[0]) <= 1e-12


def test_a_velocity_of_kerass_keeps_the_old_rate() -> None:
    """Under a schedule the dialects part: the optimizer follows Keras's path, not torch's."""
    params = parameters((5,))
    grads = gradients(params, 12)
    rule = thalweg.get("momentum", dialect="keras", lr=Step(0.1, 5, 0.1))
    expected = wanted(rule, params, grads)
    optimizer = thalweg.torch.SGD(params, lr=0.1, momentum=0.9, dialect="keras")
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    for step in grads:
        train(optimizer, params, [step])
        scheduler.step()
    assert difference(params[0], expected[0]) <= 1e-12


def test_torchs_own_dialect_leaves_no_trace_in_the_state_dict() -> None:
    assert "dialect" not in thalweg.torch.Adam(parameters((2,))).state_dict()["param_groups"][0]


def test_a_state_resumes_in_its_own_dialect_only() -> None:
    params = parameters((4,))
    grads = gradients(params, 20)
    first = thalweg.torch.NAdam(params, dialect="keras")
    train(first, params, grads[:10])
    others = copies(params)
    second = thalweg.torch.NAdam(others, dialect="keras")
    second.load_state_dict(first.state_dict())
    train(first, params, grads[10:])
    train(second, others, grads[10:])
    assert torch.equal(params[0], others[0])
    for dialect in ("torch", "paper"):
        with pytest.raises(ValueError, match=f"'keras', this optimizer '{dialect}'"):
            thalweg.torch.NAdam(others, dialect=dialect).load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="'torch', this optimizer 'keras'"):
        second.load_state_dict(torch.optim.NAdam(others).state_dict())


def test_an_unknown_dialect_is_named() -> None:
    with pytest.raises(thalweg.UnknownDialectError, match=r"'kears'.*keras"):
        thalweg.torch.SGD(parameters((2,)), dialect="kears")
