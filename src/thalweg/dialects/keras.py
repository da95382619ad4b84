"""keras.optimizers 3.15: how it spells the rules, and what it means by them.

What every optimizer of Keras takes besides (`clipnorm`, …) is no part of a rule: see `thalweg.keras.base`.
"""

from typing import Any

from thalweg import rules
from thalweg.dialects.spelling import Framework, Spelling, parsed
from thalweg.rule import Rule
from thalweg.treatments import DecoupledDecay

_WORDS = {"learning_rate": "lr", "initial_accumulator_value": "initial_accumulator"}


def _keras(rule: type[Rule], call: str, *slots: dict[str, str], words: Any = None, **more: Any) -> Spelling:
    return Spelling(rule, *parsed(call), slots=slots, words={**_WORDS, **(words or {})}, **more)


_SGD = "SGD(learning_rate=0.01, momentum=0.0, nesterov=False)"
_ADAM = "Adam(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7, amsgrad=False)"
_ADAMW = (
    "AdamW(learning_rate=0.001, weight_decay=0.004, beta_1=0.9, beta_2=0.999, epsilon=1e-7, amsgrad=False)"
)
_VELOCITY = {"b": "momentum"}
_MOMENTS = {"m": "momentum", "v": "velocity"}
_LARGEST = {"v_max": "velocity_hat"}
_INSIDE = {"lr_in_velocity": True}
_HAT = {"epsilon_hat": True}

KERAS = Framework(
    "keras",
    "keras.optimizers",
    (
        _keras(rules.SGD, _SGD, choice={"momentum": False}),
        _keras(rules.Momentum, _SGD, _VELOCITY, choice={"momentum": True, "nesterov": False}, values=_INSIDE),
        _keras(rules.Nesterov, _SGD, _VELOCITY, choice={"momentum": True, "nesterov": True}, values=_INSIDE),
        _keras(
            rules.Adagrad,
            "Adagrad(learning_rate=0.001, initial_accumulator_value=0.1, epsilon=1e-7)",
            {"s": "accumulator"},
            values={"epsilon_in_root": True},
        ),
        _keras(
            rules.RMSprop,
            "RMSprop(learning_rate=0.001, rho=0.9, momentum=0.0, epsilon=1e-7, centered=False)",
            {"v": "velocity"},
            {"b": "momentum"},
            {"mean": "average_gradient"},
            values={"epsilon_in_root": True, "lr_in_velocity": True},
        ),
        _keras(
            rules.Adadelta,
            "Adadelta(learning_rate=0.001, rho=0.95, epsilon=1e-7)",
            {"v": "accumulated_grad", "u": "accumulated_delta_var"},
        ),
        _keras(rules.Adam, _ADAM, _MOMENTS, choice={"amsgrad": False}, values=_HAT),
        _keras(rules.AdamW, _ADAMW, _MOMENTS, choice={"amsgrad": False}, values=_HAT),
        _keras(rules.AMSGrad, _ADAM, _MOMENTS, _LARGEST, choice={"amsgrad": True}, values=_HAT),
        _keras(rules.AMSGrad, _ADAMW, _MOMENTS, _LARGEST, choice={"amsgrad": True}, values=_HAT),
        _keras(
            rules.AdaMax,
            "Adamax(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7)",
            {"m": "momentum", "u": "norm"},
            values={"epsilon_in_divisor": True},
        ),
        _keras(
            rules.Nadam,
            "Nadam(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7)",
            _MOMENTS,
            values={"psi": 1.0},
        ),
        _keras(
            rules.Lion,
            "Lion(learning_rate=0.001, beta_1=0.9, beta_2=0.99)",
            {"m": "momentum"},
        ),
    ),
    words=_WORDS,
    decay=DecoupledDecay,
)
