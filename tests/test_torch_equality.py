"""Our torch front end beside torch.optim: the same arithmetic, step for step."""

import pytest
import torch

import thalweg
import thalweg.torch
from helpers import (
    FORMS,
    TORCH_FORMS,
    both,
    copies,
    descend_torch,
    difference,
    draw_settings,
    gradients,
    largest_difference,
    parameters,
    train,
)
from thalweg.schedules import Cosine


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form", TORCH_FORMS)
def test_200_steps_equal_torch(form: str, seed: int) -> None:
    settings = draw_settings(form, seed)
    theirs, ours = both(TORCH_FORMS[form][0])
    params = parameters((5, 3), (7,), seed=seed)
    grads = gradients(params, 200, seed)
    wanted, found = copies(params), copies(params)
    optimizer = ours(found, **settings)
    train(theirs(wanted, **settings), wanted, grads)
    train(optimizer, found, grads)
    assert largest_difference(found, wanted) <= 1e-10

    rule = optimizer.rule_of(optimizer.param_groups[0])
    for i, p in enumerate(params):
        assert difference(descend_torch(rule, p, [g[i] for g in grads]), wanted[i]) <= 1e-10


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("form", TORCH_FORMS)
def test_the_path_without_a_kernel_equals_torch(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thalweg.torch.plan.has_kernel", lambda tensors: False)
    settings = draw_settings(form, 1)
    theirs, ours = both(TORCH_FORMS[form][0])
    params = parameters((5, 3), ())
    grads = gradients(params, 20)
    wanted, found = copies(params), copies(params)
    train(theirs(wanted, **settings), wanted, grads)
    train(ours(found, **settings), found, grads)
    assert largest_difference(found, wanted) <= 1e-12


@pytest.mark.parametrize(
    "kind", ["SGD", "Adagrad", "RMSprop", "Adadelta", "Adam", "AdamW", "Adamax", "NAdam", "RAdam"]
)
def test_signatures_and_defaults_are_torchs(kind: str) -> None:
    import inspect

    theirs, ours = both(kind)
    wanted, found = (inspect.signature(c).parameters for c in (theirs, ours))
    assert [(n, p.default, p.kind) for n, p in found.items()] == [
        *((n, p.default, p.kind) for n, p in wanted.items()),
        ("dialect", "torch", inspect.Parameter.KEYWORD_ONLY),
    ]
    (q,), (p,) = parameters((2,)), parameters((2,))
    assert ours([p]).defaults == theirs([q]).defaults


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("form", FORMS)
def test_any_rule_equals_itself_as_written(form: str, path: str) -> None:
    rule = FORMS[form]
    params = parameters((4, 3), (5,))
    grads = gradients(params, 30)
    found = copies(params)
    train(thalweg.torch.Optimizer(found, rule), found, grads)
    wanted = [descend_torch(rule, p, [g[i] for g in grads]) for i, p in enumerate(params)]
    assert largest_difference(found, wanted) <= 1e-12


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("kind", "name", "settings"),
    [
        ("Lion", "lion", {"lr": 3e-3, "beta_1": 0.8, "beta_2": 0.95, "weight_decay": 0.1}),
        ("AdaBelief", "adabelief", {"lr": 3e-3, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-7}),
        ("Adan", "adan", {"lr": 3e-3, "beta_1": 0.9, "beta_2": 0.8, "beta_3": 0.95, "weight_decay": 0.1}),
    ],
)
@pytest.mark.parametrize("maximize", [False, True])
def test_what_torch_lacks_is_spelt_its_way(
    kind: str, name: str, settings: dict[str, float], maximize: bool
) -> None:
    spelt = {k: v for k, v in settings.items() if not k.startswith("beta") and k != "epsilon"}
    spelt["betas"] = tuple(v for k, v in settings.items() if k.startswith("beta"))
    spelt |= {"eps": settings["epsilon"]} if "epsilon" in settings else {}
    rule = thalweg.get(name, **settings)
    (p,) = parameters((4, 3))
    grads = gradients([p], 20)
    (found,) = copies([p])
    train(getattr(thalweg.torch, kind)([found], **spelt, maximize=maximize), [found], grads)
    signed = [-g[0] if maximize else g[0] for g in grads]
    assert difference(found, descend_torch(rule, p, signed)) <= 1e-12


@pytest.mark.usefixtures("float64")
def test_adabelief_decays_weights_beside_the_rule_or_through_it() -> None:
    (p,) = parameters((6,))
    grads = gradients([p], 10)
    for decoupled, treatment in ((True, thalweg.DecoupledDecay(0.1)), (False, thalweg.L2(0.1))):
        (found,) = copies([p])
        optimizer = thalweg.torch.AdaBelief([found], weight_decay=0.1, decoupled_weight_decay=decoupled)
        train(optimizer, [found], grads)
        rule = thalweg.chain(treatment, thalweg.AdaBelief())
        assert difference(found, descend_torch(rule, p, [g[0] for g in grads])) <= 1e-12


@pytest.mark.usefixtures("float64")
def test_a_schedule_equals_torchs_scheduler() -> None:
    (p,) = parameters((6,))
    grads = gradients([p], 12)
    (wanted,), (found,) = copies([p]), copies([p])
    optimizer = torch.optim.Adam([wanted], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)
    for g in grads[:8]:
        train(optimizer, [wanted], [g])
        scheduler.step()
    train(thalweg.torch.Optimizer([found], thalweg.Adam(Cosine(0.1, 8))), [found], grads[:8])
    assert difference(found, wanted) <= 1e-12
