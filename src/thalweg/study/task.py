"""What is learned: a model, data, a loss and metrics."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thalweg.errors import nearest
from thalweg.study import data as sources_of
from thalweg.study.data import SPLIT, Data, Part
from thalweg.study.errors import StudyError
from thalweg.study.measure import LOSS, Measure, Metric
from thalweg.study.running import opened
from thalweg.study.running.fingerprint import Fingerprint, examine, other
from thalweg.study.running.libraries import is_library

if TYPE_CHECKING:
    from thalweg.study.contestant import Setting
    from thalweg.study.learners import Learner


@dataclass(frozen=True)
class Task:
    """A model, data, a loss and metrics, with a seed.

    Attributes:
        name: names the task in reports and in the default study folder.
        version: changes whenever the model, the data or their preparation do: trials of different
            versions are never mixed. See `fingerprint`.
        learner: `(setting, seed) -> Learner`: a model with fresh weights from the seed, and the
            optimizer of the setting.
        measures: what is recorded. The first is the loss, which is minimised, and selected by.
        epochs, batch_size: what to train with where the user does not say.
        seed: the first trial seed; the others count up from it.
        optimum: the lowest training loss there is, where it is known.
        sources: where the data come from, by name, for the report.
        covers: what the version says, where it is a fingerprint: each part, and each module and file of the
            user's, with a hash of it.
        frameworks: what trains the model: modules whose versions a trial notes; of Keras its back end's too.
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
                raise StudyError(f"task {self.name}: {name} is a whole number from 1, not {value!r}")

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
                seeded for it. Data is moved to where its parameters are.
            data: arrays or tensors `(X, y)`, or a torch Dataset, to be split; three of them (a tuple, or
                a mapping of "train", "validation" and "test"); or `Loaders`. Real numbers
                become float32, whole numbers int64. For a language model, X are tokens (examples,
                positions) and y the tokens that follow them.
            loss: "cross_entropy" of logits, "bce" of logits, "mse", "mae", "huber" (see
                `learners.measures`), or `(outputs, targets) -> scalar`, a mean over the batch.
            metrics: "accuracy", "error", "perplexity", "rmse", ... or `Metric`s.
            split: fractions to train, validate and test on; of classes, each in its share.
            split_seed: shuffles the examples before they are split.
            **values: `epochs`, `batch_size`, `seed`, `optimum` and `sources` of the Task; `version`
                instead of the fingerprint.

        Raises:
            StudyError: what is wrong with the data, the loss or a metric. Whether they fit the model is
                checked when the first learner is made.
        """
        from thalweg.study.learners import measures
        from thalweg.study.learners.batches import gather, sample
        from thalweg.study.learners.torch import TorchTraining, streams

        _check_factory(model)
        found = gather(data, split, split_seed)
        figures, loss = measures.figures_of(metrics), measures.loss_of(loss)
        with streams(0):
            made = _fingerprint(values, model, loss, figures, lambda: (found, sample(found)))
        size = values.setdefault("batch_size", 32)
        learner = TorchTraining(f"{name} {made.text}", model, found, loss, figures, size)
        all_ = LOSS, *(figure.measure for figure in figures)
        return Task(name, made.text, learner, all_, covers=made.covers, **values)

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
        from thalweg.study.learners.keras import KerasTraining, loss_of, metrics_of, streams

        _check_factory(model)
        found = sources_of.gather(data, split, split_seed)
        loss, wanted = loss_of(loss), metrics_of(metrics)
        with streams(0):
            made = _fingerprint(values, model, loss, wanted, lambda: found)
        learner = KerasTraining(f"{name} {made.text}", model, found, loss, wanted)
        all_ = LOSS, *(metric.measure for metric in wanted)
        return Task(name, made.text, learner, all_, covers=made.covers, frameworks=("keras",), **values)

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

        Columns of X are scaled to mean 0 and standard deviation 1 over the **training** part (a sparse X
        to largest absolute value 1); so are targets of a regression, whose loss is then 1 for a model that
        always says the mean.

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
            StudyError: as `from_torch`; or whole numbers in `y` that may be classes or counts.
        """
        y = np.asarray(y)
        kind = _kind(y, kind)
        if kind == "classification":
            classes, y = np.unique(y, return_inverse=True)
            outputs = len(classes)
            if outputs < 2:
                raise StudyError(f"y has one class alone ({classes.tolist()}): there is nothing to learn")
        else:
            y = y.astype(np.float32)
            outputs = y.shape[1] if y.ndim > 1 else 1
        whole = sources_of.gather((X, y), split, split_seed)
        if whole.train.inputs.ndim != 2:
            raise StudyError(f"X has shape {np.shape(X)}, where (examples, features) is wanted")
        found = _standardised(whole, kind)
        make = model or (_linear if sources_of.is_sparse(found.train.inputs) else _hidden)
        loss, metrics = ("mse", ["mae"]) if kind == "regression" else ("cross_entropy", ["accuracy"])
        factory = partial(make, found.train.inputs.shape[1], outputs)
        return Task.from_torch(name, factory, found, loss, metrics, **values)


def _fingerprint(
    values: dict[str, Any], model: Callable[[], Any], loss: Any, metrics: Any, data: Callable[[], Any]
) -> Fingerprint:
    """The version that the user gives, taken from the values; else that of all parts and what they read."""
    if given := values.pop("version", None):
        return Fingerprint(given, {})
    with opened.watched() as files:
        found = data()
        with suppress(Exception):  # it may want a device that trials alone have; they will say what is wrong
            model()
    return examine({"model": model, "loss": loss, "metrics": metrics, "data": found}, files)


def _check_factory(model: Any) -> None:
    made = not isinstance(model, type) and any(hasattr(model, name) for name in ("parameters", "get_weights"))
    if made or not callable(model):
        raise StudyError(
            f"model is {type(model).__name__}, where a function is wanted that makes one: every trial starts "
            "from fresh weights"
        )


def _kind(y: np.ndarray[Any, Any], kind: str | None) -> str:
    if kind is not None:
        if kind not in ("classification", "regression"):
            raise StudyError(f"kind is 'classification' or 'regression', not {kind!r}")
        return kind
    if y.dtype.kind == "f":
        return "regression"
    if y.dtype.kind in "iu" and len(np.unique(y)) > max(2.0, 2 * np.sqrt(len(y))):
        raise StudyError(
            f"y holds {len(np.unique(y))} different whole numbers: say whether they are classes "
            '(kind="classification") or quantities (kind="regression")'
        )
    return "classification"


def _standardised(data: Data, kind: str) -> Data:
    inputs = data.train.inputs
    sparse = sources_of.is_sparse(inputs)
    mean, scale = (0.0, _largest(inputs)) if sparse else _moments(inputs)
    middle, spread = _moments(data.train.targets) if kind == "regression" else (0, 1)

    def part(given: Part) -> Part:
        X = given.inputs.multiply(1 / scale).tocsr() if sparse else (given.inputs - mean) / scale
        y = given.targets if kind == "classification" else (given.targets - middle) / spread
        return Part(X.astype(np.float32), y.astype(given.targets.dtype))

    return Data(part(data.train), part(data.validation), part(data.test))


def _largest(array: Any) -> Any:
    """Largest absolute value of a sparse matrix's columns; 1 for an empty one."""
    found = abs(array).max(axis=0).toarray().ravel()
    return np.where(found > 0, found, 1)


def _moments(array: Any) -> tuple[Any, Any]:
    """Mean and standard deviation of columns; 1 for a constant one."""
    deviation = array.std(axis=0, dtype=np.float64)
    return array.mean(axis=0, dtype=np.float64), np.where(deviation > 0, deviation, 1)


def _hidden(features: int, outputs: int) -> Any:
    from thalweg.study.tasks.models import perceptron

    return perceptron(features, 64, 64, outputs)


def _linear(features: int, outputs: int) -> Any:
    from thalweg.study.tasks.models import perceptron

    return perceptron(features, outputs)


def load(reference: str) -> Task:
    """A task from the user's file.

    Other processes run the file again, by its path: what it makes need not be picklable.

    Args:
        reference: "my_task.py:task", a file and the name in it of a Task, or of a function that
            returns one; ":task" may be left out.

    Raises:
        StudyError: there is no such file or name, the file fails, or what it has is no Task.
    """
    file, colon, attribute = reference.rpartition(":")
    if not colon or attribute.endswith(".py"):
        file, attribute = reference, "task"
    path = Path(file).expanduser().absolute()
    if not path.is_file():
        raise StudyError(f"there is no file {path}")
    changed = path.stat().st_mtime_ns
    found = _task_of(path, attribute, changed)
    return dataclasses.replace(
        found, learner=_FromFile(path, attribute, found.version, found.covers, changed)
    )


@dataclass(frozen=True)
class _FromFile:
    """Makes learners of a task in a file, in any process."""

    path: Path
    attribute: str
    version: str
    covers: Mapping[str, str]
    changed: int  # when the file was, as for `run_file`

    def __call__(self, setting: Setting, seed: int) -> Learner:
        if not self.path.is_file():
            raise StudyError(f"{self.path} is gone; on a cluster, every machine needs it at the same place")
        changed = self.path.stat().st_mtime_ns
        task = _task_of(self.path, self.attribute, changed)
        if task.version != self.version:
            raise StudyError(f"{self.path}: {self._why_another(task, changed)}")
        return task.learner(setting, seed)

    def _why_another(self, task: Task, changed: int) -> str:
        names = other(self.covers, task.covers)
        parts = " and ".join(name for name in names if "." not in name)
        edited = changed != self.changed or any("." in name for name in names if name != self.path.name)
        if edited or not parts:
            return "the task has changed while the study ran: start the study again"
        return (
            f"its {parts} differ from one making of the task to the next, though the file has not changed: "
            "seed what is random there, as with numpy.random.default_rng(0)"
        )


@functools.lru_cache(maxsize=1)
def _task_of(path: Path, attribute: str, changed: int) -> Task:
    """The task in a file, made once as long as the file is unchanged."""
    with opened.watched() as files:
        module, read = run_file(path, changed)
        found = _made(module, path, attribute)
    content = opened.contents(files | read) if found.covers else []
    if not content:
        return found
    # What was read on the way may have gone into anything.
    digest = hashlib.sha256(repr((found.version, content)).encode()).hexdigest()[:16]
    covers = {**found.covers, **{name: hash_[:16] for name, hash_ in content}}
    return dataclasses.replace(found, version=digest, covers=covers)


def _made(module: types.ModuleType, path: Path, attribute: str) -> Task:
    found = getattr(module, attribute, None)
    if found is None:
        known = [name for name, value in vars(module).items() if isinstance(value, Task) or callable(value)]
        raise StudyError(f"{path.name} has no {attribute!r}; {nearest(attribute, known)}")
    if callable(found):
        try:
            found = found()
        except StudyError:
            raise
        except Exception as error:
            raise StudyError(f"{attribute}() of {path.name} failed: {_told(error)}") from error
    if not isinstance(found, Task):
        raise StudyError(f"{attribute} of {path.name} is {type(found).__name__}, where a Task is wanted")
    return found


@functools.lru_cache(maxsize=1)
def run_file(path: Path, changed: int) -> tuple[types.ModuleType, set[str]]:
    """A Python file as a module, run once as long as it is unchanged, and the files that it read.

    Args:
        path: absolute.
        changed: when it was, in nanoseconds, as `path.stat().st_mtime_ns` has it.

    Raises:
        StudyError: the file fails; the message has the error and its line.
    """
    name = f"thalweg_task_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise StudyError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # as `python my_task.py` would: it may import its neighbours
    try:
        with opened.watched() as files:
            spec.loader.exec_module(module)
    except StudyError:
        raise
    except Exception as error:
        raise StudyError(f"{path.name} failed: {_told(error)}") from error
    return module, files


def _told(error: Exception) -> str:
    """An exception with the line of the user's file that it comes from."""
    trace, line = error.__traceback__, None
    while trace:
        if Path(trace.tb_frame.f_code.co_filename).suffix == ".py" and not is_library(
            trace.tb_frame.f_code.co_filename
        ):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{type(error).__name__}: {error}" + (f" (line {line})" if line else "")
