"""What a parameter group holds: settings, what torch keeps there, and keys of the user's own."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from thalweg.registry import meant_by

# Keys that torch itself and its learning-rate schedulers keep in a parameter group, and the name
# that many programs give to one.
SCHEDULER_KEYS = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr", "name")
# Settings that choose among implementations and leave the arithmetic as it is.
EXECUTION = ("foreach", "fused", "capturable", "differentiable")
NOT_SETTINGS = ("params", "param_names")


def check_keys(kind: str, keys: Iterable[Any], settings: Iterable[str]) -> None:
    """Tell a slip of the pen from a key of the user's own, which is kept.

    Args:
        kind: name of the optimizer.
        keys: of a parameter group.
        settings: what the optimizer has there.

    Raises:
        ValueError: a key is nearly a setting.
    """
    settings = list(settings)
    for key in keys:
        if key in settings or key in NOT_SETTINGS or key in SCHEDULER_KEYS:
            continue
        if near := meant_by(str(key), settings):
            raise ValueError(f"{kind}: unknown setting {key!r} in a parameter group; did you mean {near!r}?")


def check_tensors(kind: str, settings: Mapping[str, Any]) -> None:
    """Settings that are tensors, checked as torch checks them.

    Raises:
        ValueError: one has not one element, stands beside a number in one setting, or goes with
            `foreach=True`, where torch's Adam takes none.
    """
    tensors = {name: x for name, x in settings.items() if isinstance(x, Tensor)}
    for name, several in settings.items():
        if isinstance(several, tuple | list) and name not in NOT_SETTINGS:
            of_name = {f"{name}[{i}]": x for i, x in enumerate(several) if isinstance(x, Tensor)}
            if of_name and len(of_name) < len(several):
                raise ValueError(f"{kind}: {name} must be either all floats or all Tensors, got {several}")
            tensors |= of_name
    for name, x in tensors.items():
        if x.numel() != 1:
            raise ValueError(f"{kind}: Tensor {name} must be 1-element, got shape {tuple(x.shape)}")
        if kind in ("Adam", "AdamW") and settings.get("foreach") and not settings.get("capturable"):
            raise ValueError(
                f"{kind}: {name} as a Tensor is not supported for capturable=False and foreach=True"
            )
