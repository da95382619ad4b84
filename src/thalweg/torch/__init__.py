"""Thalweg's rules as `torch.optim` optimizers, on fused kernels.

Replace `torch.optim` by `thalweg.torch`: names, signatures, defaults, parameter groups, arithmetic
and `state_dict` are torch's. Every registered rule is here too, under its own name (`AMSGrad`, `Momentum`,
one of yours), and `Optimizer(params, rule)` runs any rule, treatments and schedules included.

    import thalweg.torch

    optimizer = thalweg.torch.NAdam(model.parameters(), lr=2e-3)
"""

try:
    import torch as _  # noqa: F401
except ImportError as error:
    raise ImportError("thalweg.torch needs PyTorch: pip install 'thalweg[torch]'") from error

from thalweg.dialects.torch import TORCH
from thalweg.errors import UnknownRuleError, no_attribute
from thalweg.registry import find, rules
from thalweg.torch.base import Optimizer
from thalweg.torch.optimizers import Named, class_of

__all__ = ["Optimizer"]
__all__ += dict.fromkeys(one.name for one in TORCH.spellings)


def __getattr__(name: str) -> type[Named]:
    try:
        return class_of(find(name))
    except UnknownRuleError:
        raise no_attribute(__name__, name, __dir__()) from None


def __dir__() -> list[str]:
    return [*__all__, *(class_of(find(name)).__name__ for name in rules())]
