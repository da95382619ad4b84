"""Where batches of PyTorch tensors come from: arrays in memory, torch Datasets, or the user's own loaders."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from thalweg.study.data import arrays
from thalweg.study.data.arrays import Data, Examples, is_sparse, parts, split
from thalweg.study.errors import StudyError

# How many examples are evaluated at once: bounds memory, and changes no figure.
EVALUATION_BATCH = 250
# How many examples are put in order at once: one copy for many steps, which still fits in a cache.
_BLOCK = 1024

Batch: TypeAlias = tuple[Any, Any]


@dataclass(frozen=True)
class Loaders:
    """Batches as the user's own loaders make them.

    Attributes:
        train: makes the loader of one trial, whose every pass is an epoch: `train(seed)` or
            `train(seed, batch_size)`. The same seed has to give the same order.
        validation, test: make loaders of the other parts.
    """

    train: Callable[..., Iterable[Batch]]
    validation: Callable[[], Iterable[Batch]]
    test: Callable[[], Iterable[Batch]]


class BatchSource(Protocol):
    """Where batches come from."""

    def steps(self, batch_size: int) -> int:
        """How many batches an epoch has."""
        ...

    def epochs(self, batch_size: int, seed: int) -> Iterator[Batch]:
        """Training batches without end, one epoch after the other, each in an order of its own."""
        ...

    def part(self, name: str) -> Iterator[Batch]:
        """All batches of a part, in the order that it has."""
        ...

    def targets(self) -> Mapping[str, Tensor]:
        """All targets of each part, where they are held in memory."""
        ...


class _InMemory:
    """Examples held in memory, dense or sparse."""

    def __init__(self, data: Data) -> None:
        self.parts = {
            name: Examples(_tensor(part.inputs), _tensor(part.targets))
            for name, part in (("train", data.train), ("validation", data.validation), ("test", data.test))
        }

    def steps(self, batch_size: int) -> int:
        return math.ceil(len(self.parts["train"].targets) / batch_size)

    def epochs(self, batch_size: int, seed: int) -> Iterator[Batch]:
        inputs, targets = self.parts["train"]
        order = torch.Generator().manual_seed(seed)
        block = batch_size * (1 if is_sparse(inputs) else max(1, _BLOCK // batch_size))
        while True:
            permuted = torch.randperm(len(targets), generator=order)
            for start in range(0, len(targets), block):
                examples = permuted[start : start + block]
                yield from zip(
                    torch.split(_rows(inputs, examples), batch_size),
                    torch.split(targets.index_select(0, examples), batch_size),
                    strict=True,
                )

    def part(self, name: str) -> Iterator[Batch]:
        inputs, targets = self.parts[name]
        for start in range(0, len(targets), EVALUATION_BATCH):
            examples = slice(start, start + EVALUATION_BATCH)
            yield _rows(inputs, examples), targets[examples]

    def targets(self) -> Mapping[str, Tensor]:
        return {name: part.targets for name, part in self.parts.items()}


class _Sets:
    """Examples that torch Datasets make one by one, perhaps not twice the same."""

    def __init__(self, data: Data) -> None:
        self.parts: dict[str, Any] = {"train": data.train, "validation": data.validation, "test": data.test}

    def steps(self, batch_size: int) -> int:
        return math.ceil(len(self.parts["train"]) / batch_size)

    def epochs(self, batch_size: int, seed: int) -> Iterator[Batch]:
        order = torch.Generator().manual_seed(seed)
        train = self.parts["train"]
        loader: Iterable[Any] = DataLoader(train, batch_size, shuffle=True, generator=order)
        while True:
            yield from loader

    def part(self, name: str) -> Iterator[Batch]:
        yield from DataLoader(self.parts[name], EVALUATION_BATCH)

    def targets(self) -> Mapping[str, Tensor]:
        return {}


class _Loaded:
    """Batches of the user's own loaders."""

    def __init__(self, loaders: Loaders, own: int) -> None:
        self.loaders, self.own = loaders, own

    def steps(self, batch_size: int) -> int:
        loader: Any = self._train(batch_size, 0)
        return len(loader) if hasattr(loader, "__len__") else sum(1 for _ in loader)

    def epochs(self, batch_size: int, seed: int) -> Iterator[Batch]:
        loader = self._train(batch_size, seed)
        while True:
            yield from loader

    def part(self, name: str) -> Iterator[Batch]:
        yield from self._train(self.own, 0) if name == "train" else getattr(self.loaders, name)()

    def targets(self) -> Mapping[str, Tensor]:
        return {}

    def _train(self, batch_size: int, seed: int) -> Iterable[Batch]:
        if _takes_batch_size(self.loaders.train):
            return self.loaders.train(seed, batch_size)
        if batch_size != self.own:
            raise StudyError(
                f"batches of {batch_size} were asked for, but the task's loader decides for itself: "
                "write it as train(seed, batch_size)"
            )
        return self.loaders.train(seed)


def of(data: Data | Loaders, own: int) -> BatchSource:
    """The batches of a task's data; `own` is the batch size of loaders that decide for themselves."""
    if isinstance(data, Loaders):
        return _Loaded(data, own)
    return _InMemory(data) if isinstance(data.train, Examples) else _Sets(data)


def gather(given: Any, fractions: Sequence[float], seed: int) -> Data | Loaders:
    """Data from what a user has: `Loaders`, torch Datasets, or as `arrays.gather` takes it.

    Raises:
        StudyError: it is none of these, or a part is empty.
    """
    if isinstance(given, Loaders):
        return given
    if isinstance(given, TensorDataset):
        given = given.tensors
    elif _is_set(given):
        rows = split(len(given), fractions, seed, _labels(given))
        given = tuple(Subset(given, part.tolist()) for part in rows)
    found = parts(given)
    if not found or not all(map(_is_set, found)):
        return arrays.gather(given, fractions, seed)
    if all(isinstance(part, TensorDataset) for part in found):
        return arrays.gather(tuple(part.tensors for part in found), fractions, seed)
    for name, part in zip(("training", "validation", "test"), found, strict=True):
        if not len(part):
            raise StudyError(f"the {name} part is empty: every part needs examples")
    return Data(*found)


def _labels(given: Any) -> Any:
    """The classes of a Dataset that has them beside its examples, as torchvision's do."""
    targets = getattr(given, "targets", None)
    try:
        return arrays.classes(targets) if len(targets) == len(given) else None  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _is_set(given: Any) -> bool:
    if isinstance(given, IterableDataset):
        raise StudyError("an IterableDataset has no length to split: give Loaders of it")
    return isinstance(given, Dataset)


def sample(found: Data | Loaders) -> list[Batch]:
    """A batch of every part of the user's loaders."""
    if not isinstance(found, Loaders):
        return []
    train = found.train(0, 32) if _takes_batch_size(found.train) else found.train(0)
    loaders = {"train": train, "validation": found.validation(), "test": found.test()}
    return [first(iter(loader), name) for name, loader in loaders.items()]


def _takes_batch_size(train: Callable[..., Any]) -> bool:
    """Whether a training loader's factory takes a batch size besides the seed."""
    try:
        inspect.signature(train).bind(0, 1)
    except TypeError:
        return False
    return True


def first(batches: Iterator[Batch], part: str) -> Batch:
    """The first batch of a part.

    Raises:
        StudyError: there is none, or it is no pair.
    """
    batch: Any = next(batches, None)
    if batch is None:
        raise StudyError(f"the {part} part is empty: every part needs examples")
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise StudyError(f"a batch of the {part} part is {type(batch).__name__}, not (inputs, targets)")
    return batch[0], batch[1]


def _tensor(array: Any) -> Any:
    """An array as a tensor; sparse ones stay, and are made dense a batch at a time."""
    if is_sparse(array):
        return array
    return array if isinstance(array, Tensor) else torch.from_numpy(np.require(array, requirements="W"))


def _rows(array: Any, examples: Tensor | slice) -> Tensor:
    if is_sparse(array):
        rows = examples if isinstance(examples, slice) else examples.numpy()
        return torch.from_numpy(array[rows].toarray())
    found: Tensor = array[examples] if isinstance(examples, slice) else array.index_select(0, examples)
    return found
