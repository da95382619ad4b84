"""Thalweg's rules as `torch.optim` optimizers, on fused kernels.

Replace `torch.optim` by `thalweg.torch`: names, signatures, defaults, parameter groups, arithmetic
and `state_dict` are torch's. `Optimizer(params, rule)` runs any rule, treatments and schedules
included.

    import thalweg.torch

    optimizer = thalweg.torch.NAdam(model.parameters(), lr=2e-3)
"""

try:
    import torch as _  # noqa: F401
except ImportError as error:
    raise ImportError("thalweg.torch needs PyTorch: pip install 'thalweg[torch]'") from error

from thalweg.torch.base import Optimizer
from thalweg.torch.optimizers import (
    SGD,
    AdaBelief,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Adan,
    Lion,
    NAdam,
    RAdam,
    RMSprop,
)

__all__ = [
    "SGD",
    "AdaBelief",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "Lion",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
]
