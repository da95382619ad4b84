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
from thalweg.study.data.arrays import SETS, Data, Examples, is_sparse, split, three_sets
from thalweg.study.errors import StudyError

# How many examples are evaluated at once: limits memory, and changes no result.
EVALUATION_BATCH = 250
# How many examples are gathered at once: one copy for many steps, small enough for the CPU's cache.
_BLOCK = 1024

Batch: TypeAlias = tuple[Any, Any]


@dataclass(frozen=True)
class Loaders:
    """Batches from the user's own loaders.

    Attributes:
        train: makes the loader of one trial, one pass through which is an epoch: `train(seed)` or
            `train(seed, batch_size)`. The same seed must give the same order.
        validation, test: make loaders of the other sets.
    """

    train: Callable[..., Iterable[Batch]]
    validation: Callable[[], Iterable[Batch]]
    test: Callable[[], Iterable[Batch]]


class BatchSource(Protocol):
    """Where batches come from."""

    def steps(self, batch_size: int) -> int:
        """How many batches there are in an epoch."""
        ...

    def epochs(self, batch_size: int, seed: int) -> Iterator[Batch]:
        """Training batches without end, epoch after epoch, each shuffled anew."""
        ...

    def subset(self, name: str) -> Iterator[Batch]:
        """All batches of one set, in its own order."""
        ...

    def targets(self) -> Mapping[str, Tensor]:
        """All targets of each set, where they are in memory."""
        ...


class _ArraySource:
    """Examples held in memory, dense or sparse."""

    def __init__(self, data: Data) -> None:
        self.sets = {name: Examples(*map(_tensor, getattr(data, name))) for name in SETS}

    def steps(self, batch_size: int) -> int:
        return math.ceil(len(self.sets["train"].targets) / batch_size)

    def epochs(self, batch_size: int, seed: int) -> Iterator[Batch]:
        inputs, targets = self.sets["train"]
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

    def subset(self, name: str) -> Iterator[Batch]:
        inputs, targets = self.sets[name]
        for start in range(0, len(targets), EVALUATION_BATCH):
            examples = slice(start, start + EVALUATION_BATCH)
            yield _rows(inputs, examples), targets[examples]

    def targets(self) -> Mapping[str, Tensor]:
        return {name: examples.targets for name, examples in self.sets.items()}


class _DatasetSource:
    """Examples that torch Datasets make one by one, perhaps not twice the same."""

    def __init__(self, data: Data) -> None:
        self.sets: dict[str, Any] = {name: getattr(data, name) for name in SETS}

    def steps(self, batch_size: int) -> int:
        return math.ceil(len(self.sets["train"]) / batch_size)

    def epochs(self, batch_size: int, seed: int) -> Iterator[Batch]:
        order = torch.Generator().manual_seed(seed)
        train = self.sets["train"]
        loader: Iterable[Any] = DataLoader(train, batch_size, shuffle=True, generator=order)
        while True:
            yield from loader

    def subset(self, name: str) -> Iterator[Batch]:
        yield from DataLoader(self.sets[name], EVALUATION_BATCH)

    def targets(self) -> Mapping[str, Tensor]:
        return {}


class _LoaderSource:
    """Batches of the user's own loaders."""

    def __init__(self, loaders: Loaders, fixed_batch_size: int) -> None:
        self.loaders, self.fixed_batch_size = loaders, fixed_batch_size

    def steps(self, batch_size: int) -> int:
        loader: Any = self._train(batch_size, 0)
        return len(loader) if hasattr(loader, "__len__") else sum(1 for _ in loader)

    def epochs(self, batch_size: int, seed: int) -> Iterator[Batch]:
        loader = self._train(batch_size, seed)
        while True:
            yield from loader

    def subset(self, name: str) -> Iterator[Batch]:
        yield from self._train(self.fixed_batch_size, 0) if name == "train" else getattr(self.loaders, name)()

    def targets(self) -> Mapping[str, Tensor]:
        return {}

    def _train(self, batch_size: int, seed: int) -> Iterable[Batch]:
        if _takes_batch_size(self.loaders.train):
            return self.loaders.train(seed, batch_size)
        if batch_size != self.fixed_batch_size:
            raise StudyError(
                f"the batch size is to be {batch_size}, but the task's training loader takes none: "
                "write it as train(seed, batch_size)"
            )
        return self.loaders.train(seed)


def source_of(data: Data | Loaders, fixed_batch_size: int) -> BatchSource:
    """The batches of a task's data; loaders that take no batch size have the fixed one."""
    if isinstance(data, Loaders):
        return _LoaderSource(data, fixed_batch_size)
    return _ArraySource(data) if isinstance(data.train, Examples) else _DatasetSource(data)


def gather(given: Any, fractions: Sequence[float], seed: int) -> Data | Loaders:
    """Data from what a user has: `Loaders`, torch Datasets, or as `arrays.gather` takes it.

    Raises:
        StudyError: it is none of these, or a set is empty.
    """
    if isinstance(given, Loaders):
        return given
    if isinstance(given, TensorDataset):
        given = given.tensors
    elif _is_dataset(given):
        indices = split(len(given), fractions, seed, _labels(given))
        given = tuple(Subset(given, chosen.tolist()) for chosen in indices)
    sets = three_sets(given)
    if not sets or not all(map(_is_dataset, sets)):
        return arrays.gather(given, fractions, seed)
    if all(isinstance(dataset, TensorDataset) for dataset in sets):
        return arrays.gather(tuple(dataset.tensors for dataset in sets), fractions, seed)
    for name, dataset in zip(("training", "validation", "test"), sets, strict=True):
        if not len(dataset):
            raise StudyError(f"the {name} set is empty: every set needs examples")
    return Data(*sets)


def _labels(given: Any) -> Any:
    """The classes of a Dataset that has them beside its examples, as torchvision's do."""
    targets = getattr(given, "targets", None)
    try:
        return arrays.classes(targets) if len(targets) == len(given) else None  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _is_dataset(given: Any) -> bool:
    if isinstance(given, IterableDataset):
        raise StudyError("an IterableDataset has no length, so it cannot be split: wrap it in Loaders")
    return isinstance(given, Dataset)


def sample(data: Data | Loaders) -> list[Batch]:
    """A batch of every set of the user's loaders; none of other data."""
    if not isinstance(data, Loaders):
        return []
    train = data.train(0, 32) if _takes_batch_size(data.train) else data.train(0)
    loaders = {"train": train, "validation": data.validation(), "test": data.test()}
    return [first(iter(loader), name) for name, loader in loaders.items()]


def _takes_batch_size(train: Callable[..., Any]) -> bool:
    """Whether what makes the training loader takes a batch size besides the seed."""
    try:
        inspect.signature(train).bind(0, 1)
    except TypeError:
        return False
    return True


def first(batches: Iterator[Batch], subset: str) -> Batch:
    """The first batch of a set.

    Raises:
        StudyError: there is none, or it is not a pair.
    """
    batch: Any = next(batches, None)
    if batch is None:
        raise StudyError(f"the {subset} set is empty: every set needs examples")
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise StudyError(f"a batch of the {subset} set must be (inputs, targets), not {type(batch).__name__}")
    return batch[0], batch[1]


def _tensor(array: Any) -> Any:
    """An array as a tensor; a sparse one stays, and is made dense batch by batch."""
    if is_sparse(array):
        return array
    return array if isinstance(array, Tensor) else torch.from_numpy(np.require(array, requirements="W"))


def _rows(array: Any, examples: Tensor | slice) -> Tensor:
    if is_sparse(array):
        indices = examples if isinstance(examples, slice) else examples.numpy()
        return torch.from_numpy(array[indices].toarray())
    rows: Tensor = array[examples] if isinstance(examples, slice) else array.index_select(0, examples)
    return rows
