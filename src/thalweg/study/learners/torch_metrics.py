"""Losses and metrics by name, for models that PyTorch trains.

Each is a mean over examples, `(outputs, targets) -> scalar`, so that means of batches give the mean of a set.
Outputs of classifiers are logits; their classes are the last axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from thalweg.errors import nearest
from thalweg.study.errors import StudyError
from thalweg.study.learners.metrics import OF_ONES_OWN, Measure, Metric

Function: TypeAlias = Callable[[Any, Any], Tensor]


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean softmax cross-entropy of logits, in nats, over all positions of a sequence."""
    if outputs.ndim > 2 and targets.shape == outputs.shape[:-1]:
        outputs, targets = outputs.flatten(0, -2), targets.flatten()
    return functional.cross_entropy(outputs, targets)


def clipped_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy as Keras computes it: probabilities are clipped to [1e-7, 1 - 1e-7].

    No example costs more than 16.1 nats, and one beyond that has no gradient. That matters: without clipping,
    RMSprop's validation loss on Fashion-MNIST is a tenth higher, from three examples in a thousand.
    """
    return functional.cross_entropy(outputs, targets, reduction="none").clamp(1e-7, -math.log(1e-7)).mean()


def bce(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy of logits; targets in [0, 1]."""
    return functional.binary_cross_entropy_with_logits(outputs, _like(targets, outputs))


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error."""
    return functional.mse_loss(outputs, _like(targets, outputs))


def mae(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error."""
    return functional.l1_loss(outputs, _like(targets, outputs))


def huber(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean Huber loss, quadratic within 1."""
    return functional.huber_loss(outputs, _like(targets, outputs))


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of examples whose largest output, or the sign of whose single logit, gives their class."""
    if outputs.numel() == targets.numel():
        return ((outputs > 0) == (_like(targets, outputs) > 0.5)).float().mean()
    return (outputs.argmax(-1) == targets).float().mean()


def error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of examples classified wrongly."""
    return 1 - accuracy(outputs, targets)


def _like(targets: Tensor, outputs: Tensor) -> Tensor:
    """Targets in the outputs' shape: (n,) and (n, 1) would silently broadcast to (n, n)."""
    if targets.shape != outputs.shape:
        if targets.numel() != outputs.numel():
            raise StudyError(
                f"the model's outputs have shape {tuple(outputs.shape)}, the targets {tuple(targets.shape)}: "
                "this loss needs one output for each target"
            )
        targets = targets.view_as(outputs)
    return targets.to(outputs.dtype)


LOSSES: Mapping[str, Function] = {
    "cross_entropy": cross_entropy,
    "clipped_cross_entropy": clipped_cross_entropy,
    "bce": bce,
    "mse": mse,
    "mae": mae,
    "huber": huber,
}


@dataclass(frozen=True)
class TorchMetric:
    """How a metric is computed.

    Attributes:
        measure: its name and direction.
        function: `(outputs, targets) -> scalar`.
        finish: from the mean over the examples to the metric.
        all_at_once: whether the function needs all outputs of a set at once.
    """

    measure: Measure
    function: Function
    finish: Callable[[float], float] = float
    all_at_once: bool = False


def _exp(mean: float) -> float:
    return math.exp(min(mean, 700.0))  # the largest float is e**709


METRICS: Mapping[str, TorchMetric] = {
    metric.measure.name: metric
    for metric in (
        TorchMetric(Measure("accuracy", lower_is_better=False), accuracy),
        TorchMetric(Measure("error", lower_is_better=True), error),
        TorchMetric(Measure("perplexity", lower_is_better=True), cross_entropy, _exp),
        TorchMetric(Measure("cross_entropy", lower_is_better=True), cross_entropy),
        TorchMetric(Measure("bce", lower_is_better=True), bce),
        TorchMetric(Measure("mse", lower_is_better=True), mse),
        TorchMetric(Measure("rmse", lower_is_better=True), mse, math.sqrt),
        TorchMetric(Measure("mae", lower_is_better=True), mae),
    )
}


def loss_of(loss: str | Function) -> Function:
    """A loss by name, or a function as it is.

    Raises:
        StudyError: there is no loss of that name.
    """
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise StudyError(
            f"no loss is named {loss!r}, nor is it a function of your own; {nearest(str(loss), LOSSES)}"
        )
    return LOSSES[loss]


def metrics_of(metrics: Iterable[str | Metric]) -> tuple[TorchMetric, ...]:
    """Metrics by name, or as `Metric`s.

    Raises:
        StudyError: no metric has that name, two have it, or its direction contradicts the name.
    """
    chosen: list[TorchMetric] = []
    for metric in metrics:
        if isinstance(metric, Metric):
            known = METRICS.get(metric.name)
            measure = metric.measure
            if known and known.measure != measure:
                better = "lower" if known.measure.lower_is_better else "higher"
                raise StudyError(f"{metric.name} is better when it is {better}, not {metric.better}")
            chosen.append(TorchMetric(measure, metric.function, all_at_once=not metric.mean))
        elif isinstance(metric, str) and metric in METRICS:
            chosen.append(METRICS[metric])
        else:
            raise StudyError(f"no metric is named {metric!r}, {OF_ONES_OWN}; {nearest(str(metric), METRICS)}")
    names = ["loss", *(metric.measure.name for metric in chosen)]
    for name in names:
        if names.count(name) > 1:
            raise StudyError(f"two measures are named {name!r}")
    return tuple(chosen)


@torch.no_grad()
def means(metrics: Iterable[TorchMetric], outputs: Any, targets: Any) -> list[Tensor]:
    """Each metric over some examples."""
    return [torch.as_tensor(metric.function(outputs, targets)) for metric in metrics]


def over_all(metrics: Sequence[TorchMetric], batches: Sequence[tuple[Any, Any]]) -> dict[str, float]:
    """Each metric over the outputs of all batches at once, by name.

    Raises:
        StudyError: the batches cannot be concatenated.
    """
    if not metrics or not batches:
        return {}
    try:
        outputs, targets = (concatenated(values) for values in zip(*batches, strict=True))
    except (RuntimeError, KeyError, ValueError) as error:
        raise StudyError(
            f"the metric {metrics[0].measure.name} needs all outputs at once, but those of different batches "
            f"cannot be concatenated ({error}): if it is a mean over examples, say Metric(..., mean=True)"
        ) from None
    values = means(metrics, outputs, targets)
    return {m.measure.name: m.finish(float(value)) for m, value in zip(metrics, values, strict=True)}


def concatenated(values: Sequence[Any]) -> Any:
    """Outputs or targets of several batches as those of one; tensors may lie within tuples and mappings."""
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat([*values])
    if isinstance(first, Mapping):
        return {key: concatenated([value[key] for value in values]) for key in first}
    if isinstance(first, tuple | list) and first and isinstance(first[0], Tensor | Mapping | tuple | list):
        return type(first)(concatenated(inner) for inner in zip(*values, strict=True))
    return [example for batch in values for example in batch]
