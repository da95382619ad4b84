"""optax 0.2.8: how it spells the rules, and what it means by them.

Where Optax has a default and None stands here, there is one value, and others are refused (`only`).
"""

from typing import Any

from thalweg import rules
from thalweg.dialects.spelling import Framework, Spelling, parsed
from thalweg.rule import Rule
from thalweg.treatments import L2, DecoupledDecay

_WORDS = {
    "learning_rate": "lr",
    "b1": "beta_1",
    "b2": "beta_2",
    "b3": "beta_3",
    "eps": "epsilon",
    "eps_root": "epsilon_root",
}


def _optax(rule: type[Rule], call: str, *slots: dict[str, str], words: Any = None, **more: Any) -> Spelling:
    return Spelling(rule, *parsed(call), slots=slots, words={**_WORDS, **(words or {})}, **more)


def _adam(name: str, nesterov: bool, decay: bool = False) -> str:
    decays = ", weight_decay=1e-4, mask=None" if decay else ""
    return (
        f"{name}(learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=None, mu_dtype=None{decays}, *, "
        f"nesterov={nesterov})"
    )


_SGD = "sgd(learning_rate, momentum=None, nesterov=False, accumulator_dtype=None)"
_TRACE = {"b": "trace"}
_MOMENTS = {"": "count", "m": "mu", "v": "nu"}
_ADAMAX = {"": "count", "m": "mu", "u": "nu"}
_ROOT = {"eps_root": 0.0}
_PLAIN, _AHEAD = {"nesterov": False}, {"nesterov": True}
_CONSTANT = {"psi": None}

OPTAX = Framework(
    "optax",
    "optax",
    (
        _optax(rules.SGD, _SGD, choice={"momentum": None}),
        _optax(rules.Momentum, _SGD, _TRACE, choice={"momentum": ..., "nesterov": False}),
        _optax(rules.Nesterov, _SGD, _TRACE, choice={"momentum": ..., "nesterov": True}),
        _optax(
            rules.Adagrad,
            "adagrad(learning_rate, initial_accumulator_value=0.1, eps=1e-7)",
            {"s": "sum_of_squares"},
            words={"initial_accumulator_value": "initial_accumulator"},
            values={"epsilon_in_root": True},
        ),
        _optax(
            rules.RMSprop,
            "rmsprop(learning_rate, decay=0.9, eps=1e-8, initial_scale=0.0, eps_in_sqrt=True, "
            "centered=False, momentum=None, nesterov=False, bias_correction=False)",
            {"mean": "mu", "v": "nu"},
            {"b": "-trace"},
            words={
                "decay": "rho",
                "initial_scale": "initial_accumulator",
                "eps_in_sqrt": "epsilon_in_root",
            },
            values={"lr_in_velocity": True},
            only={"bias_correction": False},
        ),
        _optax(
            rules.Adadelta,
            "adadelta(learning_rate=None, rho=0.9, eps=1e-6, weight_decay=0.0, weight_decay_mask=None)",
            {"v": "e_g", "u": "e_x"},
            decay=L2,
        ),
        _optax(rules.Adam, _adam("adam", False), _MOMENTS, choice=_PLAIN, only=_ROOT),
        _optax(rules.AdamW, _adam("adamw", False, True), _MOMENTS, choice=_PLAIN, only=_ROOT),
        _optax(
            rules.AMSGrad,
            "amsgrad(learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=None, mu_dtype=None, "
            "bias_correction_mu=True, bias_correction_nu=True)",
            {**_MOMENTS, "v_max": "nu_max"},
            values={"corrected_maximum": True},
            only={**_ROOT, "bias_correction_mu": True, "bias_correction_nu": True},
        ),
        _optax(rules.AdaMax, "adamax(learning_rate, b1=0.9, b2=0.999, eps=1e-8)", _ADAMAX),
        _optax(
            rules.AdaMax,
            "adamaxw(learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-4, mask=None)",
            _ADAMAX,
            decay=DecoupledDecay,
        ),
        _optax(rules.Nadam, _adam("nadam", True), _MOMENTS, choice=_AHEAD, only=_ROOT, values=_CONSTANT),
        _optax(rules.Adam, _adam("nadam", True), _MOMENTS, choice=_PLAIN, only=_ROOT),
        _optax(
            rules.Nadam,
            _adam("nadamw", True, True),
            _MOMENTS,
            choice=_AHEAD,
            only=_ROOT,
            values=_CONSTANT,
            decay=DecoupledDecay,
        ),
        _optax(
            rules.Adam,
            _adam("nadamw", True, True),
            _MOMENTS,
            choice=_PLAIN,
            only=_ROOT,
            decay=DecoupledDecay,
        ),
        _optax(rules.Nadam, _adam("adam", False), _MOMENTS, choice=_AHEAD, only=_ROOT, values=_CONSTANT),
        _optax(
            rules.Nadam,
            _adam("adamw", False, True),
            _MOMENTS,
            choice=_AHEAD,
            only=_ROOT,
            values=_CONSTANT,
            decay=DecoupledDecay,
        ),
        _optax(
            rules.RAdam,
            "radam(learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=None, threshold=None, *, "
            "nesterov=False)",
            _MOMENTS,
            values={"epsilon_hat": False},
            only={**_ROOT, "threshold": 5.0, "nesterov": False},
        ),
        _optax(
            rules.AdaBelief,
            "adabelief(learning_rate, b1=0.9, b2=0.999, eps=None, eps_root=None, *, nesterov=False)",
            {"": "count", "m": "mu", "s": "nu"},
            words={"eps_root": "epsilon"},  # one number here
            only={"nesterov": False},
        ),
        _optax(
            rules.Adan,
            "adan(learning_rate, b1=0.98, b2=0.92, b3=0.99, eps=1e-8, eps_root=1e-8, weight_decay=0.0, "
            "mask=None)",
            {"m": "m", "v": "v", "n": "n", "g_last": "g", "": "t"},
            values={"inverse_change": True, "decoupled_decay": True},
        ),
        _optax(
            rules.Lion,
            "lion(learning_rate, b1=0.9, b2=0.99, mu_dtype=None, weight_decay=1e-3, mask=None)",
            {"": "count", "m": "mu"},
        ),
    ),
    words=_WORDS,
)
