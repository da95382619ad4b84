"""What several test files need: the forms of all rules, gradients, and slow, obvious references."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch

import thalweg
import thalweg.torch
from thalweg import Rule, trace
from thalweg.eager import descend
from thalweg.registry import find
from thalweg.rule import is_flag, may_be_none

# Every rule's default form; every form that one flag or one optional hyperparameter makes; and every one
# that a flag makes together with a hyperparameter that is absent by default.
FORMS: dict[str, Rule] = {}
for _name in thalweg.rules():
    _kind = find(_name)
    FORMS[_name] = _kind()
    _flags = {f.name: not f.default for f in fields(_kind) if is_flag(f)}
    _absent = {f.name: 0.9 for f in fields(_kind) if f.default is None}
    _present = {f.name: None for f in fields(_kind) if may_be_none(f) and f.default is not None}
    for _changed, _value in {**_flags, **_absent, **_present}.items():
        FORMS[f"{_name}-{_changed}"] = _kind(**{_changed: _value})
    for _optional in _absent:
        for _flag, _value in _flags.items():
            FORMS[f"{_name}-{_optional}-{_flag}"] = _kind(**{_optional: 0.9, _flag: _value})

# torch.optim's optimizers in every form: the name of the class and the settings that make the form.
TORCH_FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {}),
    "SGD-momentum": ("SGD", {"momentum": 0.9}),
    "SGD-dampening": ("SGD", {"momentum": 0.8, "dampening": 0.3}),
    "SGD-nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "Adagrad": ("Adagrad", {}),
    "Adagrad-decay": ("Adagrad", {"lr_decay": 0.05, "initial_accumulator_value": 0.2}),
    "RMSprop": ("RMSprop", {}),
    "RMSprop-momentum": ("RMSprop", {"momentum": 0.7}),
    "RMSprop-centered": ("RMSprop", {"centered": True}),
    "RMSprop-both": ("RMSprop", {"centered": True, "momentum": 0.9}),
    "Adadelta": ("Adadelta", {}),
    "Adam": ("Adam", {}),
    "Adam-amsgrad": ("Adam", {"amsgrad": True}),
    "AdamW": ("AdamW", {}),
    "AdamW-amsgrad": ("AdamW", {"amsgrad": True}),
    "Adamax": ("Adamax", {}),
    "NAdam": ("NAdam", {}),
    "NAdam-decoupled": ("NAdam", {"decoupled_weight_decay": True, "weight_decay": 0.05}),
    "RAdam": ("RAdam", {}),
    "RAdam-decoupled": ("RAdam", {"decoupled_weight_decay": True, "weight_decay": 0.05}),
}

# Where torch's hyperparameters are drawn from; the logarithm of small ones uniformly.
_DRAWS: dict[str, Callable[[random.Random], Any]] = {
    "lr": lambda r: 10 ** r.uniform(-4, -1),
    "eps": lambda r: 10 ** r.uniform(-10, -4),
    "betas": lambda r: (r.uniform(0.5, 0.95), r.uniform(0.9, 0.9999)),
    "alpha": lambda r: r.uniform(0.5, 0.999),
    "rho": lambda r: r.uniform(0.5, 0.99),
    "momentum_decay": lambda r: 10 ** r.uniform(-3, 0),
}


def draw_settings(form: str, seed: int) -> dict[str, Any]:
    """Random hyperparameters for one of TORCH_FORMS; for odd seeds also its common switches."""
    kind, fixed = TORCH_FORMS[form]
    generator = random.Random(f"{form} {seed}")
    defaults = getattr(torch.optim, kind)([torch.zeros(1)]).defaults
    drawn = {name: draw(generator) for name, draw in _DRAWS.items() if name in defaults}
    if seed % 2:
        drawn |= {"weight_decay": 10 ** generator.uniform(-3, -1), "maximize": True}
    return drawn | fixed


def both(kind: str) -> tuple[type[torch.optim.Optimizer], type[thalweg.torch.Optimizer]]:
    """torch's optimizer of that name, and ours."""
    return getattr(torch.optim, kind), getattr(thalweg.torch, kind)


def difference(found: Any, wanted: Any) -> float:
    """The largest difference of two arrays, relative to the largest entry of the second."""
    found, wanted = (np.asarray(_plain(x), np.float64) for x in (found, wanted))
    assert found.shape == wanted.shape
    if not wanted.size:
        return 0.0
    return float(np.max(np.abs(found - wanted)) / max(np.max(np.abs(wanted)), 1e-300))


def _plain(x: Any) -> Any:
    return x.detach().double().numpy() if isinstance(x, torch.Tensor) else x


def largest_difference(found: Iterable[Any], wanted: Iterable[Any]) -> float:
    """The largest of the `difference`s of pairs of arrays; NaN if one is."""
    return float(np.max([difference(a, b) for a, b in zip(found, wanted, strict=True)]))


def parameters(
    *shapes: Sequence[int], dtype: torch.dtype = torch.float64, seed: int = 0
) -> list[torch.Tensor]:
    """Leaf tensors of those shapes."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes
    ]


def copies(params: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Leaf tensors of the same values."""
    return [p.detach().clone().requires_grad_() for p in params]


def gradients(params: Sequence[torch.Tensor], steps: int, seed: int = 1) -> list[list[torch.Tensor]]:
    """For each step a gradient for each parameter. They do not depend on where the parameters are, so
    that rounding errors are not amplified."""
    generator = torch.Generator().manual_seed(seed)
    return [
        [torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype) for p in params]
        for _ in range(steps)
    ]


def train(
    optimizer: torch.optim.Optimizer,
    params: Sequence[torch.Tensor],
    grads: Iterable[Sequence[torch.Tensor | None]],
) -> None:
    """Take a step with each of these gradients."""
    for step in grads:
        for p, g in zip(params, step, strict=True):
            p.grad = g if g is None else g.to(p.dtype, copy=True)
        optimizer.step()


def descend_torch(rule: Rule, p: torch.Tensor, grads: Iterable[torch.Tensor]) -> Any:
    """`descend` on NumPy arrays, in float64, from torch's tensors."""
    return descend(rule, p.detach().double().numpy(), [g.double().numpy() for g in grads])


def takes_signs(rule: Rule) -> bool:
    """Whether the rule has a sign function, under which rounding decides where two terms cancel."""
    return trace(rule).operations["sign"] > 0


def well_separated(params: Sequence[torch.Tensor], steps: int, seed: int = 1) -> list[list[torch.Tensor]]:
    """Gradients each of whose entries keeps its sign, so that no running mean of them comes near zero."""
    generator = torch.Generator().manual_seed(seed)
    signs = [torch.randint(0, 2, p.shape, generator=generator) * 2.0 - 1 for p in params]
    return [
        [
            (s * (0.5 + torch.rand(p.shape, generator=generator))).to(p.dtype)
            for s, p in zip(signs, params, strict=True)
        ]
        for _ in range(steps)
    ]


def fair_gradients(rule: Rule, params: Sequence[torch.Tensor], steps: int) -> list[list[torch.Tensor]]:
    """Gradients under which a rule in another precision stays near: no sign depends on rounding."""
    return (well_separated if takes_signs(rule) else gradients)(params, steps)


def python(source: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run Python source in a fresh process, in which warnings are printed."""
    return subprocess.run(
        [sys.executable, "-c", source, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def output(done: "subprocess.CompletedProcess[str]") -> str:
    """What a process printed; its error, as an assertion, where it failed."""
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def derivatives(function: Callable[[torch.Tensor], torch.Tensor], point: Any) -> tuple[Any, Any]:
    """Gradient (n,) and Hessian (n, n) of a function at a point (n,), by torch; NumPy arrays of float64."""
    at = torch.tensor(np.asarray(point, np.float64), requires_grad=True)
    (first,) = torch.autograd.grad(function(at), at, create_graph=True, materialize_grads=True)
    rows = [
        torch.autograd.grad(slope + 0 * at.sum(), at, retain_graph=True)[0] for slope in first
    ]  # + 0: a slope that is constant has a derivative too
    return first.detach().numpy(), torch.stack(rows).detach().numpy()


# Treatments in orders that matter, over a rule.
CLIPS: dict[str, list[thalweg.Treatment]] = {
    "l2, norm": [thalweg.L2(10), thalweg.ClipByNorm(1)],
    "l2, global": [thalweg.L2(10), thalweg.ClipByGlobalNorm(1)],
    "maximize, l2, norm": [thalweg.Maximize(), thalweg.L2(0.5), thalweg.ClipByNorm(1)],
    "maximize, global": [thalweg.Maximize(), thalweg.ClipByGlobalNorm(1)],
    "norm, global": [thalweg.ClipByNorm(1.5), thalweg.ClipByGlobalNorm(2)],
    "global, norm": [thalweg.ClipByGlobalNorm(2), thalweg.ClipByNorm(1)],
    "value, norm": [thalweg.ClipByValue(0.3), thalweg.ClipByNorm(0.8)],
    "norm, l2, global": [thalweg.ClipByNorm(1), thalweg.L2(0.5), thalweg.ClipByGlobalNorm(0.5)],
    "guard, norm, global": [thalweg.SkipNonFinite(), thalweg.ClipByNorm(1), thalweg.ClipByGlobalNorm(1)],
}


class Normed(Rule):
    """A rule that asks for norms itself: of the gradient that reaches it."""

    lr: Any = 0.1

    def update(self, g: Any, norm: Any, global_norm: Any, m: Any = 0.0) -> Any:
        """Each tensor's share of the model's norm weighs its gradient."""
        m = 0.5 * m + g * norm / global_norm
        return self.lr * m, m


def clipped_plainly(
    links: Iterable[thalweg.Treatment], ps: Sequence[Any], grads: Iterable[Sequence[Any]], lr: float
) -> list[Any]:
    """Where `chain(*links, Normed(lr))` leads the tensors of one model, in plain NumPy."""
    ps, ms = [np.asarray(p, np.float64) for p in ps], [0.0] * len(ps)

    def norm(g: Any) -> float:
        return float(np.sqrt(np.sum(g * g)))

    for step in grads:
        gs: list[Any] = [np.asarray(g, np.float64) for g in step]
        for link in links:
            whole = norm(np.array([norm(g) for g in gs]))
            match link:
                case thalweg.Maximize():
                    gs = [-g for g in gs]
                case thalweg.L2(l2=weight):
                    gs = [g + weight * p for g, p in zip(gs, ps, strict=True)]
                case thalweg.ClipByValue(clip_value=c):
                    gs = [np.clip(g, -c, c) for g in gs]
                case thalweg.ClipByNorm(clip_norm=c):
                    gs = [g * min(1, c / norm(g)) for g in gs]
                case thalweg.ClipByGlobalNorm(clip_global_norm=c):
                    gs = [g * min(1, c / whole) for g in gs]
        whole = norm(np.array([norm(g) for g in gs]))
        ms = [0.5 * m + g * norm(g) / whole for m, g in zip(ms, gs, strict=True)]
        ps = [p - lr * m for p, m in zip(ps, ms, strict=True)]
    return ps
