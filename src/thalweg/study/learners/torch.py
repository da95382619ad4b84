"""A PyTorch model in training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from thalweg.study.data.arrays import Data
from thalweg.study.errors import StudyError
from thalweg.study.learners import Diverged, Measurements, RandomStates, batches, check_labels, seeds
from thalweg.study.learners.batches import Batch, BatchSource, Loaders
from thalweg.study.learners.torch_metrics import (
    Function,
    TorchMetric,
    clipped_cross_entropy,
    cross_entropy,
    means,
    over_all,
)

if TYPE_CHECKING:
    from thalweg.study.contestant import Setting

# Every so many steps the losses are checked and the metrics computed.
_CHECK_EVERY = 64

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class TorchTraining:
    """Makes learners of a PyTorch model.

    Attributes:
        key: identifies model and data; the process keeps the data for the next learner of the same key.
        model: makes a model with fresh weights from torch's global generator, which is seeded for it.
        data: what to learn from, or a function that loads it; its sets are `Examples` or torch Datasets.
        loss: `(outputs, targets) -> scalar`, a mean over the batch.
        metrics: what else is measured.
        batch_size: that of loaders which take none.
    """

    key: str
    model: Callable[[], nn.Module]
    data: Data | Loaders | Callable[[], Data | Loaders]
    loss: Function
    metrics: tuple[TorchMetric, ...]
    batch_size: int

    def __call__(self, setting: Setting, seed: int) -> TorchLearner:
        """A model with fresh weights from the seed, checked the first time.

        Raises:
            StudyError: the data, the model and the loss do not fit each other.
        """
        global _ready
        weights, order = seeds(seed)
        states = random_states(weights)
        with states:
            model = self.model()
        if _ready is None or _ready[0] != self.key:
            data = self.data() if callable(self.data) else self.data
            source = batches.source_of(data, self.batch_size)
            with random_states(0):
                _check(self, model, source, setting.batch_size)
            _ready = self.key, source
        return TorchLearner(self, model, setting, _ready[1], states, order)


# The source of the last learner, for the next one.
_ready: tuple[str, BatchSource] | None = None


class TorchLearner:
    """A PyTorch model and its optimizer; see `Learner`."""

    def __init__(
        self,
        training: TorchTraining,
        model: nn.Module,
        setting: Setting,
        source: BatchSource,
        states: RandomStates,
        order: int,
    ) -> None:
        self._model, self._loss = model, training.loss
        self._mean_metrics = [metric for metric in training.metrics if not metric.all_at_once]
        self._set_metrics = [metric for metric in training.metrics if metric.all_at_once]
        self._outputs: list[Batch] = []  # and targets of the last training, for `_set_metrics`
        self._source, self._states = source, states
        self._params = [p for p in model.parameters() if p.requires_grad]
        self._device = self._params[0].device
        self._optimizer = setting.torch(self._params)
        self._batches = source.epochs(setting.batch_size, order)
        self.steps_per_epoch = source.steps(setting.batch_size)
        self.step = 0
        self._update_norm = math.nan

    @property
    def state_bytes(self) -> int:
        """Memory of the tensors in the optimizer's state, but for step numbers."""
        states = self._optimizer.state.values()
        values = (value for state in states for name, value in state.items() if name != "step")
        return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))

    def train(self, steps: int) -> Measurements:
        """See `Learner.train`."""
        total, count = torch.zeros(1 + len(self._mean_metrics), dtype=torch.float64), 0
        self._outputs = []
        self._model.train()
        with self._states:
            taken = 0
            while taken < steps:
                several = min(_CHECK_EVERY, steps - taken)
                taken += several
                sums, examples = self._take_steps(several, last=taken == steps)
                total += sums
                count += examples
        return self._by_name(total, count)

    def _take_steps(self, steps: int, last: bool) -> tuple[Tensor, int]:
        """Takes steps, and returns sums of loss and metrics over their examples, and the number of these."""
        model, loss_of, params, step = self._model, self._loss, self._params, self._optimizer.step
        seen: list[tuple[Any, Any]] = []
        losses: list[Tensor] = []
        weights_before: list[Tensor] = []
        for index, batch in enumerate(islice(self._batches, steps), 1):
            if last and index == steps:
                weights_before = [p.detach().clone() for p in params]
            inputs, targets = batch if self._device.type == "cpu" else _moved(batch, self._device)
            outputs = _outputs(model, inputs)
            loss = loss_of(outputs, targets)
            for p in params:  # what optimizer.zero_grad() does, without its bookkeeping
                p.grad = None
            loss.backward()  # type: ignore[no-untyped-call]
            step()
            losses.append(loss.detach())
            seen.append((_detached(outputs), targets))
        losses_ = torch.stack(losses)
        finite = losses_.isfinite()
        if not finite.all():
            self.step += int(finite.int().argmin()) + 1
            epoch = math.ceil(self.step / self.steps_per_epoch)
            raise Diverged(f"the training loss was not finite at step {self.step}, in epoch {epoch}")
        self.step += steps
        if weights_before:
            pairs = zip(params, weights_before, strict=True)
            self._update_norm = _norm([p.detach() - old for p, old in pairs])
        sizes = torch.tensor([_count(targets) for _, targets in seen], dtype=torch.float64)
        sums = [losses_.double().cpu() @ sizes]
        if self._mean_metrics:
            sums += self._metric_sums(seen)
        if self._set_metrics:
            self._outputs += [_moved(pair, _CPU) for pair in seen]
        return torch.stack([torch.as_tensor(s) for s in sums]), int(sizes.sum())

    def _metric_sums(self, seen: Sequence[tuple[Any, Any]]) -> list[Tensor]:
        """The metrics' sums over examples, at once where outputs can be concatenated."""
        if len(seen) > 1 and all(isinstance(x, Tensor) and x.ndim for pair in seen for x in pair):
            shapes = {(outputs.shape[1:], targets.shape[1:]) for outputs, targets in seen}
            if len(shapes) == 1:
                outputs, targets = zip(*seen, strict=True)
                return self._metric_sums([(torch.cat(outputs), torch.cat(targets))])
        sums = [torch.zeros((), dtype=torch.float64) for _ in self._mean_metrics]
        for outputs, targets in seen:
            for total, mean in zip(sums, means(self._mean_metrics, outputs, targets), strict=True):
                total += mean.double().cpu() * _count(targets)
        return sums

    @torch.inference_mode()
    def evaluate(self, subset: str) -> Measurements:
        """See `Learner.evaluate`."""
        self._model.eval()
        total, count = torch.zeros(1 + len(self._mean_metrics), dtype=torch.float64), 0
        kept: list[Batch] = []
        with self._states:
            for batch in self._source.subset(subset):
                inputs, targets = batch if self._device.type == "cpu" else _moved(batch, self._device)
                outputs = _outputs(self._model, inputs)
                values = [self._loss(outputs, targets), *means(self._mean_metrics, outputs, targets)]
                total += torch.stack([value.double().cpu() for value in values]) * _count(targets)
                count += _count(targets)
                if self._set_metrics:
                    kept.append(_moved((outputs, targets), _CPU))
        if not total[0].isfinite():
            raise Diverged(f"the {subset} loss was not finite after step {self.step}")
        with self._states:
            return self._by_name(total, count) | over_all(self._set_metrics, kept)

    def _by_name(self, total: Tensor, count: int) -> Measurements:
        loss, *metrics = (total / count).tolist()
        pairs = zip(self._mean_metrics, metrics, strict=True)
        return {"loss": loss} | {metric.measure.name: metric.finish(value) for metric, value in pairs}

    def diagnostics(self) -> Measurements:
        """See `Learner.diagnostics`; where an optimizer changes gradients in place, of the changed ones."""
        gradients = [p.grad for p in self._params if p.grad is not None]
        with self._states:
            metrics = over_all(self._set_metrics, self._outputs)
        return metrics | {
            "gradient_norm": _norm(gradients) if self.step else math.nan,
            "update_norm": self._update_norm,
        }


def _check(training: TorchTraining, model: Any, source: BatchSource, batch_size: int) -> None:
    """Tries one batch, and checks all targets, before any time is spent on training.

    Raises:
        StudyError: something does not fit; the message says what would.
    """
    if not isinstance(model, nn.Module):
        raise StudyError(f"the model must be a torch.nn.Module, not {type(model).__name__}")
    params = [p for p in model.parameters() if p.requires_grad]
    if not params:
        raise StudyError(f"the model {type(model).__name__} has no parameters to train")
    move = partial(_moved, device=params[0].device)
    inputs, targets = move(batches.first(source.epochs(batch_size, 0), "train"))
    for subset in ("validation", "test"):
        batches.first(source.subset(subset), subset)
    model.eval()
    with torch.no_grad():
        outputs = _outputs(model, inputs)
    _check_labels(training.loss, outputs, targets, source)
    model.train()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    loss = training.loss(_outputs(model, inputs), targets)
    model.load_state_dict(kept)
    if not isinstance(loss, Tensor) or loss.ndim:
        shape = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise StudyError(f"the loss must be one number, not {shape}: take its mean over the batch")
    if not loss.isfinite():
        raise StudyError(
            f"the loss is {loss.item()} before the first step, at fresh weights: look for nan or infinity in "
            "the data, a logarithm or root of zero in the loss, and the scale of the inputs"
        )
    if not loss.requires_grad:
        raise StudyError("the loss does not depend on the model's parameters: there is nothing to train")
    outputs, targets = _moved((outputs, targets), _CPU)
    for metric, mean in zip(training.metrics, means(training.metrics, outputs, targets), strict=True):
        if mean.ndim:
            raise StudyError(
                f"the metric {metric.measure.name} must be one number, and has shape {tuple(mean.shape)}"
            )


def _check_labels(loss: Function, outputs: Any, targets: Any, source: BatchSource) -> None:
    """Refuses class numbers that the model has no output for."""
    if loss not in (cross_entropy, clipped_cross_entropy):
        return
    if targets.is_floating_point():
        if targets.shape == outputs.shape:
            return  # probabilities, which cross_entropy takes too
        raise StudyError(
            f"cross_entropy needs class numbers (integers), not {targets.dtype}: "
            'for real numbers take loss="mse"'
        )
    if outputs.ndim < 2:
        raise StudyError(
            f"cross_entropy needs an output for each class, not outputs of shape {tuple(outputs.shape)}: "
            'for a single logit take loss="bce"'
        )
    classes = outputs.shape[-1 if targets.shape == outputs.shape[:-1] else 1]
    for subset, set_targets in (source.targets() or {"train": targets}).items():
        check_labels(torch.unique(set_targets).tolist(), classes, subset)


def _outputs(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Tensor):
        return model(inputs)
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


def _count(targets: Any) -> int:
    return len(targets) if not isinstance(targets, Mapping) else len(next(iter(targets.values())))


def _mapped(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {key: _mapped(function, value) for key, value in tree.items()}
    return type(tree)(_mapped(function, value) for value in tree) if isinstance(tree, tuple | list) else tree


def _moved(batch: Batch, device: torch.device) -> Batch:
    return _mapped(lambda x: x.to(device), batch[0]), _mapped(lambda x: x.to(device), batch[1])


def _detached(outputs: Any) -> Any:
    return outputs.detach() if isinstance(outputs, Tensor) else _mapped(Tensor.detach, outputs)


def _norm(tensors: Sequence[Tensor]) -> float:
    values = (x.coalesce().values() if x.is_sparse else x for x in tensors)
    return math.sqrt(sum(float(x.norm()) ** 2 for x in values))


def random_states(seed: int) -> RandomStates:
    """Random states from a seed: Python's, NumPy's and torch's."""
    return RandomStates(seed, (_state, _set_state), torch.manual_seed)


def _state() -> tuple[Tensor, list[Tensor]]:
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return torch.get_rng_state(), devices


def _set_state(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
