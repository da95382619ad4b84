"""Gradients through steps: the derivative of an unrolled loop, beside torch.optim's."""

from typing import Any

import pytest
import torch

import thalweg.torch
from helpers import TORCH_FORMS, both, difference, draw_settings, largest_difference

# torch's SGD cuts the first velocity off from its gradient; both are given one here.
_VELOCITY = {"SGD-momentum", "SGD-dampening", "SGD-nesterov"}


def loss(p: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (weight * p.sin()).square().sum() + (p[0] * p[1] - weight.sum()) ** 2


def slope(p: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    now = p.clone()  # which the step does not write over
    (gradient,) = torch.autograd.grad(loss(now, weight), now, create_graph=True)
    return gradient


def unrolled(kind: Any, form: str, settings: dict[str, Any], steps: int, fresh: bool) -> list[torch.Tensor]:
    """The derivatives of a loss after a few steps, with respect to where they started and to a weight.

    Where `fresh`, state is copied after each step: torch.optim writes over what its derivatives need.
    """
    start = torch.linspace(-1, 1.2, 5, dtype=torch.float64).requires_grad_()
    weight = torch.linspace(1, 2, 5, dtype=torch.float64).requires_grad_()
    p = start.clone()
    optimizer = kind([p], differentiable=True, **settings)
    if form in _VELOCITY:
        optimizer.state[p]["momentum_buffer"] = 0.1 * start.cos()
    for _ in range(steps):
        p.grad = slope(p, weight)
        optimizer.step()
        for key, x in optimizer.state[p].items():
            if fresh and x.dim():
                optimizer.state[p][key] = x.clone()
    leaves = [x for x in (start, weight, settings.get("lr"), *settings.get("betas", ())) if is_leaf(x)]
    end = loss(p, weight)
    return [p, *torch.autograd.grad(end, leaves, allow_unused=True)]


def is_leaf(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.requires_grad


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("form", TORCH_FORMS)
def test_gradients_flow_through_steps_as_in_torch(form: str, seed: int) -> None:
    theirs, ours = both(TORCH_FORMS[form][0])
    settings = draw_settings(form, seed) | ({"lr": 0.01} if "lr" in draw_settings(form, seed) else {})
    wanted, found = (unrolled(kind, form, settings, 7, fresh=True) for kind in (theirs, ours))
    assert largest_difference(found, wanted) <= 1e-9
    assert largest_difference(unrolled(ours, form, settings, 7, fresh=False), wanted) <= 1e-9


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_gradients_flow_to_settings_that_are_tensors(kind: str) -> None:
    ends = []
    for of in both(kind):
        rate = torch.tensor(0.05).requires_grad_()
        decay = torch.tensor(0.1).requires_grad_()
        p = torch.linspace(-1, 1.2, 5)
        p.requires_grad_()
        q = p.clone()
        optimizer = of([q], lr=rate, weight_decay=decay, differentiable=True)
        for _ in range(4):
            q.grad = slope(q, torch.ones(5))
            optimizer.step()
        ends.append([q, *torch.autograd.grad(loss(q, torch.ones(5)), [p, rate, decay])])
    assert largest_difference(ends[1], ends[0]) <= 1e-9


@pytest.mark.usefixtures("float64")
def test_gradients_flow_to_betas_and_under_a_decaying_rate() -> None:
    beta, rate = torch.tensor(0.8).requires_grad_(), torch.tensor(0.05).requires_grad_()

    def end(b: torch.Tensor, lr: torch.Tensor) -> torch.Tensor:
        p = torch.linspace(-1, 1.2, 5).requires_grad_().clone()
        adam = thalweg.torch.Adam([p], lr=0.05, betas=(b, torch.tensor(0.9)), differentiable=True)
        adagrad = thalweg.torch.Adagrad([p], lr=lr, lr_decay=0.5, differentiable=True)
        for optimizer in (adam, adagrad) * 3:
            p.grad = slope(p, torch.ones(5))
            optimizer.step()
        return loss(p, torch.ones(5))

    assert torch.autograd.gradcheck(end, (beta, rate))


def test_the_first_velocity_passes_gradients_on() -> None:
    def end(start: torch.Tensor) -> torch.Tensor:
        p = start.clone()
        optimizer = thalweg.torch.SGD([p], lr=0.1, momentum=0.9, differentiable=True)
        for _ in range(2):
            p.grad = slope(p, torch.ones_like(p))
            optimizer.step()
        return loss(p, torch.ones_like(p))

    start = torch.linspace(-1, 1.2, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(end, (start,))


def test_steps_are_those_without_it(path: str) -> None:
    p, q = (torch.linspace(-1, 1.2, 5).clone() for _ in range(2))
    ours = thalweg.torch.NAdam([p], lr=0.1, differentiable=True), thalweg.torch.NAdam([q], lr=0.1)
    for k in range(4):
        for x, optimizer in zip((p, q), ours, strict=True):
            x.grad = torch.linspace(-1, 2 + k, 5)
            optimizer.step()
    assert difference(p, q) <= 1e-6
    assert float(ours[0].state[p]["step"]) == 4.0
    assert not p.requires_grad


def test_a_leaf_cannot_be_changed_within_the_graph() -> None:
    for kind in both("Adam"):
        p = torch.ones(3).requires_grad_()
        optimizer = kind([p], differentiable=True)
        p.grad = torch.ones(3)
        with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
            optimizer.step()


@pytest.mark.parametrize("number", [-5.0, 1.5, float("nan"), float("inf")])
def test_a_step_number_that_is_none_is_refused_before_anything_is_written(number: float) -> None:
    params = [torch.ones(3, requires_grad=True).clone() for _ in range(2)]
    optimizer = thalweg.torch.Adam(params, lr=0.1, differentiable=True)
    for p in params:
        p.retain_grad()
        p.grad = torch.ones(3)
    optimizer.step()
    optimizer.state[params[1]]["step"] = torch.tensor(number)
    before = [p.tolist() for p in params]
    with pytest.raises(
        ValueError, match=f"Adam: parameter 1 is at step {number}, which is no whole number from 0"
    ):
        optimizer.step()
    assert [p.tolist() for p in params] == before
    assert optimizer.state[params[0]]["step"] == 1


def test_state_of_another_shape_is_refused() -> None:
    p = torch.ones(3, requires_grad=True).clone()
    optimizer = thalweg.torch.Adam([p], lr=0.1, differentiable=True)
    p.grad = torch.ones(3)
    optimizer.step()
    optimizer.state[p]["exp_avg"] = torch.ones(1)  # which would be stretched
    with pytest.raises(ValueError, match=r"'exp_avg' in the state of parameter 0 has shape \(1,\)"):
        optimizer.step()
