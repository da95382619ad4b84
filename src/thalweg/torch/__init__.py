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
from thalweg.registry import front_end
from thalweg.torch.base import Optimizer
from thalweg.torch.optimizers import class_of

__all__ = ["Optimizer"]
__all__ += dict.fromkeys(one.name for one in TORCH.spellings)

__getattr__, __dir__ = front_end(__name__, __all__, class_of)
