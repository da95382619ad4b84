"""A task: a model, data, a loss and metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.study.data.arrays import SPLIT, gather, is_sparse, standardised
from thalweg.study.errors import StudyError
from thalweg.study.fingerprint.files import files_read
from thalweg.study.fingerprint.hashing import Fingerprint, examine
from thalweg.study.learners.metrics import LOSS, Measure, Metric

if TYPE_CHECKING:
    from thalweg.study.contestant import Setting
    from thalweg.study.learners import Learner


@dataclass(frozen=True)
class Task:
    """A model, data, a loss and metrics, with a seed.

    Attributes:
        name: stands for the task in reports and in the default study folder.
        version: changes whenever the model, the data or their preparation do: trials of different
            versions are never mixed. See `fingerprint`.
        learner: `(setting, seed) -> Learner`: a model with fresh weights from the seed, and the
            optimizer of the setting.
        measures: what is recorded. The first is the loss, which training minimises and selection goes by.
        epochs, batch_size: the defaults for a study of the task.
        seed: the first trial seed; the others count up from it.
        optimum: the lowest possible training loss, where it is known.
        sources: where the data come from, by name, for the report.
        covers: what the version was computed from, where it is a fingerprint: model, loss, metrics, data,
            and the user's modules and files, each with a hash.
        frameworks: the modules that train the model; a trial records their versions.
    """

    name: str
    version: str
    learner: Callable[[Setting, int], Learner]
    measures: tuple[Measure, ...] = (LOSS,)
    epochs: int = 20
    batch_size: int = 32
    seed: int = 0
    optimum: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    covers: Mapping[str, str] = field(default_factory=dict)
    frameworks: tuple[str, ...] = ("torch",)

    def __post_init__(self) -> None:
        for name, value in (("epochs", self.epochs), ("batch_size", self.batch_size)):
            if not isinstance(value, int) or value < 1:
                raise StudyError(
                    f"task {self.name}: {name} must be a whole number of at least 1, not {value!r}"
                )

    @staticmethod
    def from_torch(
        name: str,
        model: Callable[[], Any],
        data: Any,
        loss: str | Callable[..., Any],
        metrics: Iterable[str | Metric] = (),
        *,
        split: Sequence[float] = SPLIT,
        split_seed: int = 0,
        **values: Any,
    ) -> Task:
        """A task from a PyTorch model.

        Args:
            name: as in `Task`.
            model: makes a `torch.nn.Module` with fresh weights from torch's global generator, which is
                seeded beforehand. Data is moved to the device of its parameters.
            data: arrays or tensors `(X, y)`, or a torch Dataset, to be split; three of them (a tuple, or
                a mapping of "train", "validation" and "test"); or `Loaders`. Real numbers
                become float32, integers int64. For a language model, X are tokens (examples,
                positions) and y the tokens that follow them.
            loss: "cross_entropy" of logits, "bce" of logits, "mse", "mae", "huber" (see
                `learners.torch_metrics`), or `(outputs, targets) -> scalar`, a mean over the batch.
            metrics: "accuracy", "error", "perplexity", "rmse", ... or `Metric`s.
            split: fractions for training, validation and test; stratified where there are classes.
            split_seed: of the shuffle before the split.
            **values: `epochs`, `batch_size`, `seed`, `optimum` and `sources` of the Task; `version`
                instead of the fingerprint.

        Raises:
            StudyError: something is wrong with the data, the loss or a metric. Whether they fit the model
                is checked when the first learner is made.
        """
        from thalweg.study.learners import batches, torch_metrics
        from thalweg.study.learners.torch import TorchTraining, random_states

        _check_factory(model)
        gathered = batches.gather(data, split, split_seed)
        chosen, loss = torch_metrics.metrics_of(metrics), torch_metrics.loss_of(loss)
        with random_states(0):
            version = _version(values, model, loss, chosen, lambda: (gathered, batches.sample(gathered)))
        size = values.setdefault("batch_size", 32)
        learner = TorchTraining(f"{name} {version.text}", model, gathered, loss, chosen, size)
        measures = LOSS, *(metric.measure for metric in chosen)
        return Task(name, version.text, learner, measures, covers=version.covers, **values)

    @staticmethod
    def from_keras(
        name: str,
        model: Callable[[], Any],
        data: Any,
        loss: Any,
        metrics: Iterable[str | Metric] = (),
        *,
        split: Sequence[float] = SPLIT,
        split_seed: int = 0,
        **values: Any,
    ) -> Task:
        """A task from a Keras model, on whichever back end Keras runs.

        Args:
            name: as in `Task`.
            model: makes a Keras model with fresh weights, compiled or not: optimizer, loss and metrics are
                the task's.
            data: arrays `(X, y)` to be split, or three such pairs (a tuple, or a mapping of "train",
                "validation" and "test").
            loss: as `model.compile` takes it.
            metrics: Keras's names, or `Metric`s whose function is a Keras metric or a function.
            split: as in `from_torch`.
            split_seed: as in `from_torch`.
            **values: as in `from_torch`.

        Raises:
            StudyError: as `from_torch`.
        """
        from thalweg.study.learners.keras import KerasTraining, loss_of, metrics_of, random_states

        _check_factory(model)
        gathered = gather(data, split, split_seed)
        chosen, loss = metrics_of(metrics), loss_of(loss)
        with random_states(0):
            version = _version(values, model, loss, chosen, lambda: gathered)
        learner = KerasTraining(f"{name} {version.text}", model, gathered, loss, chosen)
        measures = LOSS, *(metric.measure for metric in chosen)
        values |= {"covers": version.covers, "frameworks": ("keras",)}
        return Task(name, version.text, learner, measures, **values)

    @staticmethod
    def from_arrays(
        X: Any,
        y: Any,
        model: Callable[[int, int], Any] | None = None,
        kind: str | None = None,
        *,
        name: str = "arrays",
        split: Sequence[float] = SPLIT,
        split_seed: int = 0,
        **values: Any,
    ) -> Task:
        """A task from `(X, y)` as scikit-learn takes them.

        Columns of X are scaled to mean 0 and standard deviation 1 over the **training** set (a sparse X
        to largest absolute value 1); so are targets of a regression, whose loss is then 1 for a model that
        always predicts the mean.

        Args:
            X: numbers (examples, features): an array, a table or a scipy.sparse matrix.
            y: labels of any kind, or real numbers (examples,) or (examples, outputs).
            model: makes a `torch.nn.Module` from the numbers of features and outputs. None: two hidden
                layers of 64 with ReLU; for a sparse X a linear model.
            kind: "classification" (cross-entropy, accuracy) or "regression" (mean squared error). None:
                regression for a `y` of real numbers, else classification.
            name: as in `Task`.
            split: as in `from_torch`.
            split_seed: as in `from_torch`.
            **values: as in `from_torch`.

        Raises:
            StudyError: as `from_torch`; or integers in `y` that may be classes or counts.
        """
        from thalweg.study.learners.models import mlp

        y = np.asarray(y)
        kind = _kind(y, kind)
        if kind == "classification":
            classes, y = np.unique(y, return_inverse=True)
            outputs = len(classes)
            if outputs < 2:
                raise StudyError(f"y has a single class ({classes.tolist()}): there is nothing to learn")
        else:
            y = y.astype(np.float32)
            outputs = y.shape[1] if y.ndim > 1 else 1
        whole = gather((X, y), split, split_seed)
        if whole.train.inputs.ndim != 2:
            raise StudyError(f"X must have shape (examples, features), not {np.shape(X)}")
        scaled = standardised(whole, kind)
        hidden = () if is_sparse(scaled.train.inputs) else (64, 64)
        loss, metrics = ("mse", ["mae"]) if kind == "regression" else ("cross_entropy", ["accuracy"])
        features = scaled.train.inputs.shape[1]
        factory = partial(model, features, outputs) if model else partial(mlp, features, *hidden, outputs)
        return Task.from_torch(name, factory, scaled, loss, metrics, **values)


def _version(
    values: dict[str, Any], model: Callable[[], Any], loss: Any, metrics: Any, data: Callable[[], Any]
) -> Fingerprint:
    """The version among the values, which it leaves; without one, a fingerprint of all that is given."""
    if given := values.pop("version", None):
        return Fingerprint(given, {})
    with files_read() as files:
        gathered = data()
        with suppress(Exception):  # it may need a device that only trials have; they report what is wrong
            model()
    return examine({"model": model, "loss": loss, "metrics": metrics, "data": gathered}, files)


def _check_factory(model: Any) -> None:
    is_model = not isinstance(model, type) and any(
        hasattr(model, name) for name in ("parameters", "get_weights")
    )
    if is_model or not callable(model):
        raise StudyError(
            f"model must be a function that makes a model, not {type(model).__name__}: every trial "
            "starts from fresh weights"
        )


def _kind(y: np.ndarray[Any, Any], kind: str | None) -> str:
    if kind is not None:
        if kind not in ("classification", "regression"):
            raise StudyError(f"kind must be 'classification' or 'regression', not {kind!r}")
        return kind
    if y.dtype.kind == "f":
        return "regression"
    if y.dtype.kind in "iu" and len(np.unique(y)) > max(2.0, 2 * np.sqrt(len(y))):
        raise StudyError(
            f"y holds {len(np.unique(y))} different integers: say whether they are classes "
            '(kind="classification") or quantities (kind="regression")'
        )
    return "classification"
