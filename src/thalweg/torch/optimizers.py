"""The optimizers of `torch.optim`, in its own spelling, simplest first.

Each constructor takes what torch's takes, and `dialect`: whose arithmetic, and whose default for every
setting that is not given. `foreach` and `fused` choose among torch's implementations and have no effect
here: there is one, and it is fused. `differentiable=True` takes the rule as written, on torch's operations;
`capturable=True` is refused.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from thalweg.dialects import DIALECTS
from thalweg.errors import UnknownDialectError
from thalweg.registry import get, rules
from thalweg.rule import Rule
from thalweg.schedules import TimeDecay
from thalweg.torch.base import BaseOptimizer
from thalweg.treatments import L2, DecoupledDecay, Maximize, Treatment, chain

Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
Group = Mapping[str, Any]


class Default(float):
    """A default of torch's; where the user gives nothing, another dialect has its own."""


# torch's settings that a dialect may have other defaults for, as a rule's hyperparameters.
_FIELDS = {
    "lr": "lr",
    "eps": "epsilon",
    "alpha": "rho",
    "rho": "rho",
    "momentum_decay": "psi",
    "initial_accumulator_value": "initial_accumulator",
    "weight_decay": "weight_decay",
}


def _settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """A constructor's arguments as a parameter group's defaults."""
    settings = {k: v for k, v in arguments.items() if k not in ("self", "params", "__class__")}
    if settings.get("fused") and settings.get("differentiable"):
        raise RuntimeError("`fused` does not support `differentiable`")
    if settings.get("fused") and settings.get("foreach"):
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
    missing = [k for k, v in settings.items() if isinstance(v, Default)]
    named = next(k for k in type(arguments["self"]).__mro__ if k.__module__ == __name__)
    spoken = get(named.__name__, dialect=settings["dialect"])
    return settings | {k: getattr(spoken, _FIELDS[k]) for k in missing}


def _around(rule: Rule, group: Group) -> Rule:
    """The rule in the group's dialect, within what torch's common settings ask for.

    Keras decouples the weight decay of every rule.
    """
    dialect = group.get("dialect", "torch")
    if dialect not in DIALECTS:
        raise UnknownDialectError(dialect, DIALECTS)
    spoken = DIALECTS[dialect].get(type(rule).__name__, {})
    set_here = {_FIELDS[k] for k in group if k in _FIELDS}
    rule = replace(rule, **{k: v for k, v in spoken.items() if k not in set_here})
    links: list[Treatment] = [Maximize()] if group.get("maximize") else []
    if group.get("weight_decay") and "weight_decay" not in rule.values:
        decay = _number(group["weight_decay"])
        decoupled = group.get("decoupled_weight_decay") or dialect == "keras"
        links.append(DecoupledDecay(decay) if decoupled else L2(decay))
    return chain(*links, rule)


def _number(value: float | Tensor) -> float:
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"a setting that is one number is {value!r}") from None


def _adam_values(group: Group) -> tuple[float, float, float, float]:
    beta_1, beta_2 = group["betas"]
    return _number(group["lr"]), _number(beta_1), _number(beta_2), _number(group["eps"])


class SGD(BaseOptimizer):
    """Gradient descent, with momentum and Nesterov's look-ahead. See `torch.optim.SGD`."""

    slot_names = {"b": "momentum_buffer"}
    keeps_step = False
    takes_sparse = True

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = Default(1e-3),
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        dialect: str = "torch",
    ) -> None:
        super().__init__(params, _settings(locals()))

    def rule_of(self, group: Group) -> Rule:
        """SGD, Momentum or Nesterov, as the settings ask."""
        lr, momentum, dampening = _number(group["lr"]), group["momentum"], group["dampening"]
        if group["nesterov"] and (not momentum or dampening):
            raise ValueError("SGD: nesterov needs a momentum above 0 and no dampening")
        if not momentum:
            return _around(rules.SGD(lr), group)
        rule = rules.Nesterov(lr, momentum) if group["nesterov"] else rules.Momentum(lr, momentum, dampening)
        return _around(rule, group)


class Adagrad(BaseOptimizer):
    """A rate that falls with the sum of squared gradients. See `torch.optim.Adagrad`."""

    slot_names = {"s": "sum"}
    takes_sparse = True
    starts_at_once = True

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = Default(1e-2),
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = Default(0),
        eps: float = Default(1e-10),
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        dialect: str = "torch",
    ) -> None:
        super().__init__(params, _settings(locals()))

    def rule_of(self, group: Group) -> Rule:
        """Adagrad; `lr_decay` is a time decay of its rate."""
        lr = _number(group["lr"])
        if group["lr_decay"] < 0:
            raise ValueError(f"Adagrad: lr_decay must lie in [0, ∞), got {group['lr_decay']!r}")
        rate = TimeDecay(lr, group["lr_decay"]) if group["lr_decay"] else lr
        rule = rules.Adagrad(rate, group["eps"], initial_accumulator=group["initial_accumulator_value"])
        return _around(rule, group)


class RMSprop(BaseOptimizer):
    """A rate from the running mean of squares. See `torch.optim.RMSprop`."""

    slot_names = {"v": "square_avg", "mean": "grad_avg", "b": "momentum_buffer"}

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = Default(1e-2),
        alpha: float = Default(0.99),
        eps: float = Default(1e-8),
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        dialect: str = "torch",
    ) -> None:
        super().__init__(params, _settings(locals()))

    def rule_of(self, group: Group) -> Rule:
        """RMSprop, plain, centered or with momentum."""
        rule = rules.RMSprop(
            _number(group["lr"]),
            group["alpha"],
            group["eps"],
            momentum=group["momentum"] or None,
            centered=group["centered"],
        )
        return _around(rule, group)


class Adadelta(BaseOptimizer):
    """A rate from the running size of its own steps. See `torch.optim.Adadelta`."""

    slot_names = {"v": "square_avg", "u": "acc_delta"}

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = Default(1.0),
        rho: float = Default(0.9),
        eps: float = Default(1e-6),
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        dialect: str = "torch",
    ) -> None:
        super().__init__(params, _settings(locals()))

    def rule_of(self, group: Group) -> Rule:
        """Adadelta."""
        return _around(rules.Adadelta(_number(group["lr"]), group["rho"], group["eps"]), group)


class Adam(BaseOptimizer):
    """Momentum over a running RMS, both bias-corrected. See `torch.optim.Adam`."""

    slot_names = {"m": "exp_avg", "v": "exp_avg_sq", "v_max": "max_exp_avg_sq"}

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = Default(1e-3),
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = Default(1e-8),
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        dialect: str = "torch",
    ) -> None:
        super().__init__(params, _settings(locals()))

    def rule_of(self, group: Group) -> Rule:
        """Adam or AMSGrad."""
        kind = rules.AMSGrad if group["amsgrad"] else rules.Adam
        return _around(kind(*_adam_values(group)), group)


class AdamW(Adam):
    """Adam with decoupled weight decay. See `torch.optim.AdamW`."""

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = Default(1e-3),
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = Default(1e-8),
        weight_decay: float = Default(1e-2),
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        dialect: str = "torch",
    ) -> None:
        super().__init__(**_settings(locals()), params=params, decoupled_weight_decay=True)


class Adamax(BaseOptimizer):
    """Adam with the largest recent gradient as divisor. See `torch.optim.Adamax`."""

    slot_names = {"m": "exp_avg", "u": "exp_inf"}

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = Default(2e-3),
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = Default(1e-8),
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        dialect: str = "torch",
    ) -> None:
        super().__init__(params, _settings(locals()))

    def rule_of(self, group: Group) -> Rule:
        """AdaMax."""
        return _around(rules.AdaMax(*_adam_values(group)), group)


class NAdam(BaseOptimizer):
    """Adam that looks ahead. See `torch.optim.NAdam`."""

    slot_names = {"m": "exp_avg", "v": "exp_avg_sq", "mu_product": "mu_product"}

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = Default(2e-3),
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = Default(1e-8),
        weight_decay: float = 0,
        momentum_decay: float = Default(4e-3),
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        dialect: str = "torch",
    ) -> None:
        super().__init__(params, _settings(locals()))

    def rule_of(self, group: Group) -> Rule:
        """Nadam."""
        return _around(rules.Nadam(*_adam_values(group), psi=group["momentum_decay"]), group)


class RAdam(BaseOptimizer):
    """Adam that trusts its divisor only once it can. See `torch.optim.RAdam`."""

    slot_names = {"m": "exp_avg", "v": "exp_avg_sq"}

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = Default(1e-3),
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = Default(1e-8),
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        dialect: str = "torch",
    ) -> None:
        super().__init__(params, _settings(locals()))

    def rule_of(self, group: Group) -> Rule:
        """RAdam."""
        return _around(rules.RAdam(*_adam_values(group)), group)


class AdaBelief(BaseOptimizer):
    """Adam that takes large steps where gradients come as expected; weight decay is decoupled."""

    slot_names = {"m": "exp_avg", "s": "exp_avg_var"}

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = Default(1e-3),
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = Default(1e-16),
        weight_decay: float = 0,
        decoupled_weight_decay: bool = True,
        *,
        maximize: bool = False,
        dialect: str = "torch",
    ) -> None:
        super().__init__(params, _settings(locals()))

    def rule_of(self, group: Group) -> Rule:
        """AdaBelief."""
        return _around(rules.AdaBelief(*_adam_values(group)), group)


class Adan(BaseOptimizer):
    """Adam with Nesterov's look-ahead taken from the change of the gradient; proximal decay."""

    slot_names = {"m": "exp_avg", "v": "exp_avg_diff", "n": "exp_avg_sq", "g_last": "previous_grad"}

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = Default(1e-3),
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = Default(1e-8),
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        dialect: str = "torch",
    ) -> None:
        super().__init__(params, _settings(locals()))

    def rule_of(self, group: Group) -> Rule:
        """Adan, whose weight decay is its own."""
        rule = rules.Adan(_number(group["lr"]), *group["betas"], group["eps"], group["weight_decay"])
        return _around(rule, group)


class Lion(BaseOptimizer):
    """The sign of an interpolated momentum; weight decay is decoupled."""

    slot_names = {"m": "exp_avg"}

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = Default(1e-4),
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = Default(0),
        *,
        maximize: bool = False,
        dialect: str = "torch",
    ) -> None:
        super().__init__(params, _settings(locals()))

    def rule_of(self, group: Group) -> Rule:
        """Lion, whose weight decay is its own."""
        return _around(rules.Lion(_number(group["lr"]), *group["betas"], group["weight_decay"]), group)
