"""A Keras model in training, on any of Keras's back ends, by Keras's own compiled steps."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from thalweg.errors import nearest
from thalweg.study.data.arrays import SETS, Data, is_sparse
from thalweg.study.errors import StudyError
from thalweg.study.learners import Diverged, Measurements, RandomStates, check_labels, seeds
from thalweg.study.learners.metrics import OF_ONES_OWN, Metric

if TYPE_CHECKING:
    from thalweg.study.contestant import Setting

# How many examples are evaluated at once: limits memory.
EVALUATION_BATCH = 250

# Parts of the names of metrics that are better when higher.
_HIGHER = ("accuracy", "auc", "precision", "recall", "f1", "score", "top", "iou", "similarity")


def loss_of(loss: Any) -> Any:
    """A loss as `model.compile` takes it.

    Raises:
        StudyError: Keras has no loss of that name.
    """
    if not isinstance(loss, str):
        return loss
    try:
        keras.losses.get(loss)
    except ValueError:
        known = [name for name in dir(keras.losses) if name.islower() and not name.startswith("_")]
        raise StudyError(f"Keras has no loss {loss!r}; {nearest(loss, known)}") from None
    return loss


def metrics_of(metrics: Iterable[str | Metric]) -> tuple[Metric, ...]:
    """Metrics with their directions.

    Raises:
        StudyError: Keras has no metric of that name, or two have it.
    """
    chosen = [_metric(metric) for metric in metrics]
    names = ["loss", *(metric.name for metric in chosen)]
    for name in names:
        if names.count(name) > 1:
            raise StudyError(f"two measures are named {name!r}")
    return tuple(chosen)


def _metric(metric: str | Metric) -> Metric:
    if isinstance(metric, Metric):
        return metric
    try:
        known = keras.metrics.get(metric)
    except (ValueError, TypeError):
        known = None
    if known is None and metric not in ("accuracy", "acc"):
        names = ["accuracy", *(name for name in dir(keras.metrics) if name.islower() and name[0] != "_")]
        raise StudyError(f"Keras has no metric {metric!r}, {OF_ONES_OWN}; {nearest(str(metric), names)}")
    higher = any(word in metric.lower() for word in (*_HIGHER, "acc"))
    return Metric(metric, _ByName(metric), "higher" if higher else "lower")


@dataclass(frozen=True)
class _ByName:
    """Keras's metric of a name; which one "accuracy" is depends on the model's loss."""

    name: str

    def __call__(self) -> Any:
        return self.name if self.name in ("accuracy", "acc") else keras.metrics.get(self.name)


def _needs_all(metric: Metric) -> bool:
    """Whether a metric is a function of all outputs at once; Keras's own metrics accumulate by themselves."""
    kinds = (_ByName, type, str, keras.metrics.Metric)
    return not metric.mean and not isinstance(metric.function, kinds)


def _compilable(metric: Metric) -> Any:
    """A new metric for `model.compile` that reports under its own name."""
    given: Any = metric.function
    given = given() if isinstance(given, _ByName) else given
    if isinstance(given, type):
        given = given()
    if isinstance(given, str):
        return given
    if isinstance(given, keras.metrics.Metric):
        return type(given).from_config({**given.get_config(), "name": metric.name})
    return keras.metrics.MeanMetricWrapper(given, name=metric.name)


@dataclass(frozen=True)
class KerasTraining:
    """Makes learners of a Keras model.

    Attributes:
        key: identifies model and data, which are checked once a process.
        model: makes a model with fresh weights.
        data: what to learn from.
        loss: as `model.compile` takes it.
        metrics: what else is measured.
    """

    key: str
    model: Callable[[], Any]
    data: Data
    loss: Any
    metrics: tuple[Metric, ...]

    def __call__(self, setting: Setting, seed: int) -> KerasLearner:
        """A model with fresh weights from the seed, checked the first time.

        Raises:
            StudyError: the data, the model and the loss do not fit each other.
        """
        weights, order = seeds(seed)
        states = random_states(weights)
        with states:
            model = self.model()
            if not isinstance(model, keras.Model):
                raise StudyError(f"the model must be a keras.Model, not {type(model).__name__}")
            first = _rows(self.data.train.inputs, np.arange(1))
            model(keras.ops.convert_to_tensor(first))  # a model without an Input has no weights before
            if not model.trainable_variables:
                raise StudyError(f"the model {model.name} has no parameters to train")
            metrics = [_compilable(metric) for metric in self.metrics if not _needs_all(metric)]
            model.compile(optimizer=setting.keras(), loss=self.loss, metrics=metrics)
        if self.key not in _checked:
            with states:
                _check(self, model, setting.batch_size)
            _checked.add(self.key)
        return KerasLearner(self, model, setting.batch_size, states, order)


_checked: set[str] = set()


class KerasLearner:
    """A compiled Keras model; see `Learner`."""

    def __init__(
        self, training: KerasTraining, model: Any, batch_size: int, states: RandomStates, order: int
    ) -> None:
        self._training, self._data, self._model = training, training.data, model
        self._set_metrics = [metric for metric in training.metrics if _needs_all(metric)]
        self._names = "loss", *(metric.name for metric in training.metrics if not _needs_all(metric))
        self._batch_size, self._states = batch_size, states
        self._shuffle = np.random.RandomState(order)
        self._order = np.empty(0, int)
        self._position = 0
        self.steps_per_epoch = math.ceil(len(self._data.train.targets) / batch_size)
        self.step = 0
        self._trained_on: list[Any] = []
        self._last: tuple[Any, list[Any]] | None = None
        self._update_norm = math.nan

    @property
    def state_bytes(self) -> int:
        """Memory of the optimizer's variables, but for the step number and the learning rate."""
        optimizer = self._model.optimizer
        rest = {id(optimizer.iterations), id(getattr(optimizer, "_learning_rate", None))}
        kept = (v for v in optimizer.variables if id(v) not in rest)
        return sum(math.prod(v.shape) * np.dtype(v.dtype).itemsize for v in kept)

    def train(self, steps: int) -> Measurements:
        """See `Learner.train`: `model.fit`, on examples that are shuffled already."""
        self._trained_on = []
        with self._states, _accumulating(self._model):
            while steps:
                if self._position == len(self._order):
                    self._order = self._shuffle.permutation(len(self._data.train.targets))
                    self._position = 0
                left = math.ceil((len(self._order) - self._position) / self._batch_size)
                several = min(steps, left)
                # The very last step runs by itself, so that the weights before it can be kept.
                several -= several == steps > 1
                if steps == 1:
                    before = self._weights()
                examples = self._order[self._position : self._position + several * self._batch_size]
                self._position += len(examples)
                self._trained_on.append(examples)
                measured = self._fit(examples, several)
                steps -= several
            after = self._weights()
            self._last = examples, before
            self._update_norm = _norm([a - b for a, b in zip(after, before, strict=True)])
        return measured

    def _fit(self, examples: Any, steps: int) -> Measurements:
        inputs = _rows(self._data.train.inputs, examples)
        targets = self._data.train.targets[examples]
        history = self._model.fit(inputs, targets, self._batch_size, shuffle=False, verbose=0).history
        self.step += steps
        measured = {name: float(history[name][-1]) for name in self._names}
        if not math.isfinite(measured["loss"]):
            epoch = math.ceil(self.step / self.steps_per_epoch)
            raise Diverged(f"the training loss was not finite by step {self.step}, in epoch {epoch}")
        return measured

    def evaluate(self, subset: str) -> Measurements:
        """See `Learner.evaluate`."""
        inputs, targets = getattr(self._data, subset)
        with self._states:
            inputs = _rows(inputs, np.arange(len(targets)))
            values = self._model.evaluate(
                inputs, targets, batch_size=EVALUATION_BATCH, verbose=0, return_dict=True
            )
        if not math.isfinite(values["loss"]):
            raise Diverged(f"the {subset} loss was not finite after step {self.step}")
        return {name: float(values[name]) for name in self._names} | self._over_all(inputs, targets)

    def _over_all(self, inputs: Any, targets: Any) -> Measurements:
        """The metrics that need all outputs at once."""
        if not self._set_metrics:
            return {}
        with self._states:
            outputs = self._model.predict(inputs, batch_size=EVALUATION_BATCH, verbose=0)
            outputs = keras.tree.map_structure(keras.ops.convert_to_tensor, outputs)
            targets = keras.ops.convert_to_tensor(targets)
            return {m.name: float(_numpy(m.function(targets, outputs)).mean()) for m in self._set_metrics}

    def diagnostics(self) -> Measurements:
        """See `Learner.diagnostics`: computed after training, without dropout.

        Metrics that need all outputs are those at the weights after the last step.
        """
        measured = self._norms()
        if self._set_metrics and self._trained_on:
            seen = np.unique(np.concatenate(self._trained_on))
            measured |= self._over_all(_rows(self._data.train.inputs, seen), self._data.train.targets[seen])
        return measured

    def _norms(self) -> Measurements:
        if self._last is None:
            return {"gradient_norm": math.nan, "update_norm": math.nan}
        examples, before = self._last
        after = self._weights()
        try:
            self._assign(before)
            inputs = _rows(self._data.train.inputs, examples)
            with self._states:
                slopes = gradients(
                    self._model, self._training.loss, inputs, self._data.train.targets[examples]
                )
        finally:
            self._assign(after)
        return {"gradient_norm": _norm(slopes), "update_norm": self._update_norm}

    def _weights(self) -> list[Any]:
        return [_numpy(v.value) for v in self._model.trainable_variables]

    def _assign(self, values: list[Any]) -> None:
        for variable, value in zip(self._model.trainable_variables, values, strict=True):
            variable.assign(value)


@contextmanager
def _accumulating(model: Any) -> Iterator[None]:
    """Within: a model's metrics accumulate from one `fit` to the next."""
    model.reset_metrics()
    model.reset_metrics = _nothing
    try:
        yield
    finally:
        del model.reset_metrics


def gradients(model: Any, loss: Any, inputs: Any, targets: Any) -> list[Any]:
    """Gradients of the loss by the trainable variables, as numpy arrays."""
    loss_of = keras.losses.get(loss)
    inputs, targets = keras.ops.convert_to_tensor(inputs), keras.ops.convert_to_tensor(targets)
    variables = model.trainable_variables
    slopes: Iterable[Any]
    if keras.backend.backend() == "jax":
        import jax

        rest = [v.value for v in model.non_trainable_variables]

        def value(weights: list[Any]) -> Any:
            return keras.ops.mean(loss_of(targets, model.stateless_call(weights, rest, inputs)[0]))

        slopes = jax.grad(value)([v.value for v in variables])
    elif keras.backend.backend() == "tensorflow":
        import tensorflow

        with tensorflow.GradientTape() as tape:
            mean = keras.ops.mean(loss_of(targets, model(inputs, training=False)))
        slopes = tape.gradient(mean, [v.value for v in variables])
        slopes = [
            g if g is None else tensorflow.convert_to_tensor(g) for g in slopes
        ]  # embeddings' are sparse
    else:
        import torch

        mean = keras.ops.mean(loss_of(targets, model(inputs, training=False)))
        slopes = torch.autograd.grad(mean, [v.value for v in variables], allow_unused=True)
    return [_numpy(g) for g in slopes if g is not None]


def _check(training: KerasTraining, model: Any, batch_size: int) -> None:
    """Tries one batch, and checks all labels, before any time is spent on training.

    Raises:
        StudyError: something does not fit; the message says what would.
    """
    train = training.data.train
    inputs, targets = _rows(train.inputs, np.arange(batch_size)), train.targets[:batch_size]
    outputs = model(keras.ops.convert_to_tensor(inputs), training=False)
    name = training.loss if isinstance(training.loss, str) else type(training.loss).__name__
    if name.lower().replace("_", "") == "sparsecategoricalcrossentropy":
        classes = outputs.shape[-1]
        for subset in SETS:
            labels = np.unique(getattr(training.data, subset).targets)
            check_labels(labels.tolist(), classes, subset)
    mean = keras.ops.mean(keras.losses.get(training.loss)(keras.ops.convert_to_tensor(targets), outputs))
    loss = float(_numpy(mean))
    if not np.isfinite(loss):
        raise StudyError(
            f"the loss is {loss} before the first step, at fresh weights: look for nan or infinity in the "
            "data, a logarithm or root of zero in the loss, and the scale of the inputs"
        )


def _rows(array: Any, examples: Any) -> Any:
    rows = array[examples[: array.shape[0]]]
    return rows.toarray() if is_sparse(rows) else rows


def _numpy(tensor: Any) -> Any:
    """A copy as a numpy array."""
    tensor = tensor.detach().cpu() if hasattr(tensor, "detach") else tensor
    return np.array(tensor.numpy() if hasattr(tensor, "numpy") else tensor)


def _norm(arrays: Iterable[Any]) -> float:
    return math.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in arrays))


def backend() -> str:
    """Keras's back end, by the name of its module."""
    return str(keras.backend.backend())


def random_states(seed: int) -> RandomStates:
    """Random states from a seed: Keras draws its seeds from Python's, its torch back end from torch's."""
    if "torch" not in sys.modules:
        return RandomStates(seed, (_nothing, lambda state: None), lambda seed: None)
    from thalweg.study.learners import torch

    return torch.random_states(seed)


def _nothing() -> None:
    return None
