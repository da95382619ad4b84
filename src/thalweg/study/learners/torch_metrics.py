"""Losses and metrics by name, for models that PyTorch trains.

Those of a name are means over examples, `(outputs, targets) -> scalar`: means of batches make means of parts.
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
    """Mean softmax cross-entropy of logits, in nats; the mean goes over all positions of a sequence."""
    if outputs.ndim > 2 and targets.shape == outputs.shape[:-1]:
        outputs, targets = outputs.flatten(0, -2), targets.flatten()
    return functional.cross_entropy(outputs, targets)


def cut_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy as Keras has it: probabilities are cut to [1e-7, 1 - 1e-7].

    No example costs more than 16.1 nats, and one beyond that teaches nothing. It shows: without the cut,
    RMSprop's validation loss on Fashion-MNIST is a tenth higher, from three examples in a thousand.
    """
    return functional.cross_entropy(outputs, targets, reduction="none").clamp(1e-7, -math.log(1e-7)).mean()


def bce(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy of logits; targets in [0, 1]."""
    return functional.binary_cross_entropy_with_logits(outputs, _alike(targets, outputs))


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error."""
    return functional.mse_loss(outputs, _alike(targets, outputs))


def mae(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error."""
    return functional.l1_loss(outputs, _alike(targets, outputs))


def huber(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean Huber loss, quadratic within 1."""
    return functional.huber_loss(outputs, _alike(targets, outputs))


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of examples whose largest output is their class; of a single logit, whose sign says it."""
    if outputs.numel() == targets.numel():
        return ((outputs > 0) == (_alike(targets, outputs) > 0.5)).float().mean()
    return (outputs.argmax(-1) == targets).float().mean()


def error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of examples classified wrongly."""
    return 1 - accuracy(outputs, targets)


def _alike(targets: Tensor, outputs: Tensor) -> Tensor:
    """Targets in the outputs' shape: (n,) beside (n, 1) would be broadcast to (n, n) without a word."""
    if targets.shape != outputs.shape:
        if targets.numel() != outputs.numel():
            raise StudyError(
                f"the model's outputs have shape {tuple(outputs.shape)}, the targets {tuple(targets.shape)}: "
                "this loss wants one output for each target"
            )
        targets = targets.view_as(outputs)
    return targets.to(outputs.dtype)


LOSSES: Mapping[str, Function] = {
    "cross_entropy": cross_entropy,
    "cut_cross_entropy": cut_cross_entropy,
    "bce": bce,
    "mse": mse,
    "mae": mae,
    "huber": huber,
}


@dataclass(frozen=True)
class Figure:
    """A metric as it is computed: `finish` of a mean over the examples; `whole`: of all of them at once."""

    measure: Measure
    function: Function
    finish: Callable[[float], float] = float
    whole: bool = False


def _exp(mean: float) -> float:
    return math.exp(min(mean, 700.0))  # the largest float is e**709


METRICS: Mapping[str, Figure] = {
    figure.measure.name: figure
    for figure in (
        Figure(Measure("accuracy", lower_is_better=False), accuracy),
        Figure(Measure("error", lower_is_better=True), error),
        Figure(Measure("perplexity", lower_is_better=True), cross_entropy, _exp),
        Figure(Measure("cross_entropy", lower_is_better=True), cross_entropy),
        Figure(Measure("bce", lower_is_better=True), bce),
        Figure(Measure("mse", lower_is_better=True), mse),
        Figure(Measure("rmse", lower_is_better=True), mse, math.sqrt),
        Figure(Measure("mae", lower_is_better=True), mae),
    )
}


def loss_of(loss: str | Function) -> Function:
    """A loss by name or as it is.

    Raises:
        StudyError: no loss has the name.
    """
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise StudyError(
            f"no loss is named {loss!r}, nor is it a function of your own; {nearest(str(loss), LOSSES)}"
        )
    return LOSSES[loss]


def figures_of(metrics: Iterable[str | Metric]) -> tuple[Figure, ...]:
    """Metrics by name or as `Metric`s.

    Raises:
        StudyError: no metric has the name, two have, or a direction contradicts the name.
    """
    found: list[Figure] = []
    for metric in metrics:
        if isinstance(metric, Metric):
            known = METRICS.get(metric.name)
            measure = metric.measure
            if known and known.measure != measure:
                better = "lower" if known.measure.lower_is_better else "higher"
                raise StudyError(f"{metric.name} is better when it is {better}, not {metric.better}")
            found.append(Figure(measure, metric.function, whole=not metric.mean))
        elif isinstance(metric, str) and metric in METRICS:
            found.append(METRICS[metric])
        else:
            raise StudyError(f"no metric is named {metric!r}, {OF_ONES_OWN}; {nearest(str(metric), METRICS)}")
    names = ["loss", *(figure.measure.name for figure in found)]
    for name in names:
        if names.count(name) > 1:
            raise StudyError(f"two measures are named {name!r}")
    return tuple(found)


@torch.no_grad()
def means(figures: Iterable[Figure], outputs: Any, targets: Any) -> list[Tensor]:
    """Each figure over some examples."""
    return [torch.as_tensor(figure.function(outputs, targets)) for figure in figures]


def wholes(figures: Sequence[Figure], batches: Sequence[tuple[Any, Any]]) -> dict[str, float]:
    """Each figure of what all batches gave, by name.

    Raises:
        StudyError: they cannot be laid end to end.
    """
    if not figures or not batches:
        return {}
    try:
        outputs, targets = (joined(several) for several in zip(*batches, strict=True))
    except (RuntimeError, KeyError, ValueError) as error:
        raise StudyError(
            f"the metric {figures[0].measure.name} wants all outputs at once, but those of different batches "
            f"cannot be laid end to end ({error}): if it is a mean over examples, say Metric(..., mean=True)"
        ) from None
    values = means(figures, outputs, targets)
    return {f.measure.name: f.finish(float(value)) for f, value in zip(figures, values, strict=True)}


def joined(several: Sequence[Any]) -> Any:
    """Outputs or targets of several batches as those of one; tensors may lie within tuples and mappings."""
    first = several[0]
    if isinstance(first, Tensor):
        return torch.cat([*several])
    if isinstance(first, Mapping):
        return {key: joined([one[key] for one in several]) for key in first}
    if isinstance(first, tuple | list) and first and isinstance(first[0], Tensor | Mapping | tuple | list):
        return type(first)(joined(parts) for parts in zip(*several, strict=True))
    return [example for one in several for example in one]
