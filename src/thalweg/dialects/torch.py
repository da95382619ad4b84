"""torch.optim 2.13: how it spells the rules, and what it means by them.

AdaBelief, Adan and Lion, which it lacks, are spelt as it would, with the slots of their authors' code.
"""

from typing import Any

from thalweg import rules
from thalweg.dialects.spelling import Framework, Meant, Spelling, parsed
from thalweg.rule import Rule
from thalweg.treatments import L2

_WORDS: dict[str, Meant] = {"betas": ("beta_1", "beta_2", "beta_3"), "eps": "epsilon"}


def _torch(rule: type[Rule], call: str, slots: dict[str, str], words: Any = None, **more: Any) -> Spelling:
    return Spelling(rule, *parsed(call), slots=(slots,), words={**_WORDS, **(words or {})}, **more)


_SGD = (
    "SGD(lr=1e-3, momentum=0, dampening=0, weight_decay=0, nesterov=False, *, maximize=False, foreach=None, "
    "differentiable=False, fused=None)"
)
_ADAM = (
    "Adam(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, amsgrad=False, *, foreach=None, "
    "maximize=False, capturable=False, differentiable=False, fused=None, decoupled_weight_decay=False)"
)
_BUFFER = {"b": "momentum_buffer"}
_MOMENTS = {"": "step", "m": "exp_avg", "v": "exp_avg_sq"}

TORCH = Framework(
    "torch",
    "torch.optim",
    (
        _torch(rules.SGD, _SGD, {}, choice={"momentum": False}),
        _torch(rules.Momentum, _SGD, _BUFFER, choice={"momentum": True, "nesterov": False}),
        _torch(rules.Nesterov, _SGD, _BUFFER, choice={"momentum": True, "nesterov": True}),
        _torch(
            rules.Adagrad,
            "Adagrad(lr=1e-2, lr_decay=0, weight_decay=0, initial_accumulator_value=0, eps=1e-10, "
            "foreach=None, *, maximize=False, differentiable=False, fused=None)",
            {"": "step", "s": "sum"},
            {"initial_accumulator_value": "initial_accumulator"},
        ),
        _torch(
            rules.RMSprop,
            "RMSprop(lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0, centered=False, "
            "capturable=False, foreach=None, maximize=False, differentiable=False)",
            {"": "step", "v": "square_avg", "mean": "grad_avg", "b": "momentum_buffer"},
            {"alpha": "rho"},
        ),
        _torch(
            rules.Adadelta,
            "Adadelta(lr=1.0, rho=0.9, eps=1e-6, weight_decay=0, foreach=None, *, capturable=False, "
            "maximize=False, differentiable=False)",
            {"": "step", "v": "square_avg", "u": "acc_delta"},
        ),
        _torch(rules.Adam, _ADAM, _MOMENTS, choice={"amsgrad": False}),
        _torch(
            rules.AdamW,
            "AdamW(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, amsgrad=False, *, "
            "maximize=False, foreach=None, capturable=False, differentiable=False, fused=None)",
            _MOMENTS,
            of="Adam",
            fixed={"decoupled_weight_decay": True},
        ),
        _torch(rules.AMSGrad, _ADAM, {**_MOMENTS, "v_max": "max_exp_avg_sq"}, choice={"amsgrad": True}),
        _torch(
            rules.AdaMax,
            "Adamax(lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, foreach=None, *, maximize=False, "
            "differentiable=False, capturable=False)",
            {"": "step", "m": "exp_avg", "u": "exp_inf"},
        ),
        _torch(
            rules.Nadam,
            "NAdam(lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, momentum_decay=4e-3, "
            "decoupled_weight_decay=False, *, foreach=None, maximize=False, capturable=False, "
            "differentiable=False)",
            {**_MOMENTS, "mu_product": "mu_product"},
            {"momentum_decay": "psi"},
        ),
        _torch(
            rules.RAdam,
            "RAdam(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, decoupled_weight_decay=False, *, "
            "foreach=None, maximize=False, capturable=False, differentiable=False)",
            _MOMENTS,
        ),
        _torch(
            rules.AdaBelief,
            "AdaBelief(lr=1e-3, betas=(0.9, 0.999), eps=1e-16, weight_decay=0, decoupled_weight_decay=True, "
            "*, maximize=False)",
            {"": "step", "m": "exp_avg", "s": "exp_avg_var"},
            native=False,
        ),
        _torch(
            rules.Adan,
            "Adan(lr=1e-3, betas=(0.98, 0.92, 0.99), eps=1e-8, weight_decay=0, *, maximize=False)",
            {"": "step", "m": "exp_avg", "v": "exp_avg_diff", "n": "exp_avg_sq", "g_last": "previous_grad"},
            native=False,
        ),
        _torch(
            rules.Lion,
            "Lion(lr=1e-4, betas=(0.9, 0.99), weight_decay=0, *, maximize=False)",
            {"": "step", "m": "exp_avg"},
            native=False,
        ),
    ),
    words=_WORDS,
    decay=L2,
    tail="weight_decay=0, decoupled_weight_decay=False, *, maximize=False",
)
