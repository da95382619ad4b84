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
from thalweg.study.learners import Diverged, Figures, Streams, batches, seeds
from thalweg.study.learners.batches import Batch, BatchSource, Loaders
from thalweg.study.learners.torch_metrics import (
    Figure,
    Function,
    cross_entropy,
    cut_cross_entropy,
    means,
    wholes,
)

if TYPE_CHECKING:
    from thalweg.study.contestant import Setting

# How many steps are taken between two looks at what they gave.
_LOOK = 64

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class TorchTraining:
    """Makes learners of a PyTorch model.

    Attributes:
        key: names model and data; the data is kept in the process for the next learner of the same key.
        model: makes a model with fresh weights from torch's global generator, which is seeded for it.
        data: what to learn from, or what makes it; parts are `Examples` or torch Datasets.
        loss: `(outputs, targets) -> scalar`, a mean over the batch.
        figures: what else is measured.
        batch_size: the one that loaders have where theirs is fixed.
    """

    key: str
    model: Callable[[], nn.Module]
    data: Data | Loaders | Callable[[], Data | Loaders]
    loss: Function
    figures: tuple[Figure, ...]
    batch_size: int

    def __call__(self, setting: Setting, seed: int) -> TorchLearner:
        """A model with fresh weights from the seed, checked the first time.

        Raises:
            StudyError: the data, the model and the loss do not fit each other.
        """
        global _ready
        weights, order = seeds(seed)
        own = streams(weights)
        with own:
            model = self.model()
        if _ready is None or _ready[0] != self.key:
            data = self.data() if callable(self.data) else self.data
            source = batches.of(data, self.batch_size)
            with streams(0):
                _check(self, model, source, setting.batch_size)
            _ready = self.key, source
        return TorchLearner(self, model, setting, _ready[1], own, order)


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
        streams: Streams,
        order: int,
    ) -> None:
        self._model, self._loss = model, training.loss
        self._means = [figure for figure in training.figures if not figure.whole]
        self._wholes = [figure for figure in training.figures if figure.whole]
        self._kept: list[Batch] = []  # what the last training gave, for `_wholes`
        self._source, self._streams = source, streams
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

    def train(self, steps: int) -> Figures:
        """See `Learner.train`."""
        total, count = torch.zeros(1 + len(self._means), dtype=torch.float64), 0
        self._kept = []
        self._model.train()
        with self._streams:
            done = 0
            while done < steps:
                now = min(_LOOK, steps - done)
                done += now
                sums, examples = self._some(now, last=done == steps)
                total += sums
                count += examples
        return self._named(total, count)

    def _some(self, steps: int, last: bool) -> tuple[Tensor, int]:
        """Takes steps: sums of the figures over their examples, and how many examples these are."""
        model, loss_of, params, step = self._model, self._loss, self._params, self._optimizer.step
        seen: list[tuple[Any, Any]] = []
        losses: list[Tensor] = []
        before: list[Tensor] = []
        for index, batch in enumerate(islice(self._batches, steps), 1):
            if last and index == steps:
                before = [p.detach().clone() for p in params]
            inputs, targets = batch if self._device.type == "cpu" else _moved(batch, self._device)
            outputs = _outputs(model, inputs)
            loss = loss_of(outputs, targets)
            for p in params:  # what optimizer.zero_grad() does, without its bookkeeping
                p.grad = None
            loss.backward()  # type: ignore[no-untyped-call]
            step()
            losses.append(loss.detach())
            seen.append((_detached(outputs), targets))
        each = torch.stack(losses)
        finite = each.isfinite()
        if not finite.all():
            self.step += int(finite.int().argmin()) + 1
            epoch = math.ceil(self.step / self.steps_per_epoch)
            raise Diverged(f"the training loss was not finite at step {self.step}, in epoch {epoch}")
        self.step += steps
        if before:
            pairs = zip(params, before, strict=True)
            self._update_norm = _norm([p.detach() - old for p, old in pairs])
        sizes = torch.tensor([_count(targets) for _, targets in seen], dtype=torch.float64)
        sums = [each.double().cpu() @ sizes]
        if self._means:
            sums += self._sums(seen)
        if self._wholes:
            self._kept += [_moved(pair, _CPU) for pair in seen]
        return torch.stack([torch.as_tensor(s) for s in sums]), int(sizes.sum())

    def _sums(self, seen: Sequence[tuple[Any, Any]]) -> list[Tensor]:
        """The metrics' sums over examples: at once where outputs can be laid side by side."""
        if len(seen) > 1 and all(isinstance(x, Tensor) and x.ndim for pair in seen for x in pair):
            shapes = {(outputs.shape[1:], targets.shape[1:]) for outputs, targets in seen}
            if len(shapes) == 1:
                outputs, targets = zip(*seen, strict=True)
                return self._sums([(torch.cat(outputs), torch.cat(targets))])
        sums = [torch.zeros((), dtype=torch.float64) for _ in self._means]
        for outputs, targets in seen:
            for total, mean in zip(sums, means(self._means, outputs, targets), strict=True):
                total += mean.double().cpu() * _count(targets)
        return sums

    @torch.inference_mode()
    def evaluate(self, part: str) -> Figures:
        """See `Learner.evaluate`."""
        self._model.eval()
        total, count = torch.zeros(1 + len(self._means), dtype=torch.float64), 0
        kept: list[Batch] = []
        with self._streams:
            for batch in self._source.part(part):
                inputs, targets = batch if self._device.type == "cpu" else _moved(batch, self._device)
                outputs = _outputs(self._model, inputs)
                found = [self._loss(outputs, targets), *means(self._means, outputs, targets)]
                total += torch.stack([f.double().cpu() for f in found]) * _count(targets)
                count += _count(targets)
                if self._wholes:
                    kept.append(_moved((outputs, targets), _CPU))
        if not total[0].isfinite():
            raise Diverged(f"the {part} loss was not finite after step {self.step}")
        with self._streams:
            return self._named(total, count) | wholes(self._wholes, kept)

    def _named(self, total: Tensor, count: int) -> Figures:
        loss, *metrics = (total / count).tolist()
        named = zip(self._means, metrics, strict=True)
        return {"loss": loss} | {figure.measure.name: figure.finish(value) for figure, value in named}

    def afterwards(self) -> Figures:
        """See `Learner.afterwards`; an optimizer that changes gradients in place shows the changed ones."""
        gradients = [p.grad for p in self._params if p.grad is not None]
        with self._streams:
            found = wholes(self._wholes, self._kept)
        return found | {
            "gradient_norm": _norm(gradients) if self.step else math.nan,
            "update_norm": self._update_norm,
        }


def _check(training: TorchTraining, model: Any, source: BatchSource, batch_size: int) -> None:
    """One batch tried, and all targets looked at, before any time is spent.

    Raises:
        StudyError: something does not fit; the message says what would.
    """
    if not isinstance(model, nn.Module):
        raise StudyError(f"the model is {type(model).__name__}, where a torch.nn.Module is wanted")
    params = [p for p in model.parameters() if p.requires_grad]
    if not params:
        raise StudyError(f"the model {type(model).__name__} has no parameters to train")
    move = partial(_moved, device=params[0].device)
    inputs, targets = move(batches.first(source.epochs(batch_size, 0), "train"))
    for part in ("validation", "test"):
        batches.first(source.part(part), part)
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
        raise StudyError(f"the loss is {shape}, where one number is wanted: take its mean over the batch")
    if not loss.isfinite():
        raise StudyError(
            f"the loss is {loss.item()} before the first step, at fresh weights: look for nan or infinity in "
            "the data, a logarithm or root of zero in the loss, and the scale of the inputs"
        )
    if not loss.requires_grad:
        raise StudyError("the loss does not depend on the model's parameters: there is nothing to train")
    outputs, targets = _moved((outputs, targets), _CPU)
    for figure, mean in zip(training.figures, means(training.figures, outputs, targets), strict=True):
        if mean.ndim:
            raise StudyError(
                f"the metric {figure.measure.name} has shape {tuple(mean.shape)}, where one number is wanted"
            )


def _check_labels(loss: Function, outputs: Any, targets: Any, source: BatchSource) -> None:
    """Class numbers that the model has no output for."""
    if loss not in (cross_entropy, cut_cross_entropy):
        return
    if targets.is_floating_point():
        if targets.shape == outputs.shape:
            return  # probabilities, which cross_entropy takes too
        raise StudyError(
            f"cross_entropy wants class numbers (integers), not {targets.dtype}: "
            'for real numbers take loss="mse"'
        )
    if outputs.ndim < 2:
        raise StudyError(
            f"cross_entropy wants an output for each class, not outputs of shape {tuple(outputs.shape)}: "
            'for a single logit take loss="bce"'
        )
    classes = outputs.shape[-1 if targets.shape == outputs.shape[:-1] else 1]
    for name, all_ in (source.targets() or {"train": targets}).items():
        labels = torch.unique(all_)
        wrong = labels[(labels < 0) | (labels >= classes)].tolist()
        if wrong:
            shown = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
            raise StudyError(
                f"the model has {classes} outputs, so labels are 0 to {classes - 1}; "
                f"the {name} part has {shown} too"
            )


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


def streams(seed: int) -> Streams:
    """Random streams from a seed, torch's among them."""
    return Streams(seed, (_state, _set_state), torch.manual_seed)


def _state() -> tuple[Tensor, list[Tensor]]:
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return torch.get_rng_state(), devices


def _set_state(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
