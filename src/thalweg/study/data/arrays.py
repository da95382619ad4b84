"""Examples as arrays: what a user has, checked, split into three sets and scaled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from thalweg.study.errors import StudyError

Array: TypeAlias = npt.NDArray[Any]

# The three sets of examples, and the share of all examples that each gets.
SETS = ("train", "validation", "test")
SPLIT = (0.8, 0.1, 0.1)


class Examples(NamedTuple):
    """Inputs and targets, arrays or tensors whose first axis counts examples."""

    inputs: Any
    targets: Any


@dataclass(frozen=True, eq=False)
class Data:
    """The three sets of a data set: to train on, to choose settings by, and to report on."""

    train: Examples
    validation: Examples
    test: Examples


def is_sparse(array: Any) -> bool:
    """Whether an array is a scipy.sparse matrix or array."""
    return hasattr(array, "tocsr")


def numeric(values: Any, what: str) -> Any:
    """Values as a NumPy array that tensors can be made of, or as a sparse matrix of float32 rows.

    Real numbers become float32, booleans and integers int64.

    Args:
        values: a NumPy array, a tensor of any library, a table, a list, or a scipy.sparse matrix.
        what: what to call them in an error message.

    Raises:
        StudyError: they are not numbers, or not finite.
    """
    if is_sparse(values):
        array = values.tocsr().astype(np.float32)
        finite = np.isfinite(array.data).all()
    else:
        values = values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
        if values.dtype.kind not in "fbiu" or not values.ndim:
            raise StudyError(f"{what} must hold numbers, and holds {values.dtype} of shape {values.shape}")
        array = values.astype(np.float32 if values.dtype.kind == "f" else np.int64, copy=False)
        finite = array.dtype.kind == "i" or np.isfinite(array).all()
    if not finite:
        raise StudyError(f"{what} holds nan or infinity: drop those examples, or replace the values")
    return array


def checked(inputs: Any, targets: Any, what: str) -> Examples:
    """Inputs and targets of one set, as `numeric` makes them.

    Raises:
        StudyError: they are empty or of different lengths; or as `numeric`.
    """
    inputs, targets = numeric(inputs, f"X of {what}"), numeric(targets, f"y of {what}")
    if inputs.shape[0] != len(targets):
        raise StudyError(f"X of {what} has {inputs.shape[0]} examples, y has {len(targets)}")
    if not len(targets):
        raise StudyError(f"{what} is empty: every set needs examples")
    return Examples(inputs, targets)


def split(
    count: int, fractions: Sequence[float] = SPLIT, seed: int = 0, labels: Array | None = None
) -> list[Array]:
    """Which examples are for training, validation and test: three arrays of indices without overlap.

    Args:
        count: how many examples there are.
        fractions: of training, validation and test examples; they sum to 1.
        seed: of the shuffle before the split.
        labels: the class of each example; then the split is stratified: each set has its share of every
            class, give or take one or two.

    Raises:
        StudyError: not three positive fractions with sum 1, or a set would be empty.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise StudyError(
            f"split is three positive fractions with sum 1 (train, validation, test), not {tuple(fractions)}"
        )
    ends = [round(count * fractions[0]), round(count * (fractions[0] + fractions[1]))]
    random = np.random.RandomState(seed)
    order = random.permutation(count)
    indices = np.split(order, ends) if labels is None else _stratified(order, labels, ends, random)
    for name, chosen in zip(("training", "validation", "test"), indices, strict=True):
        if not len(chosen):
            raise StudyError(f"the {name} set is empty: {count} examples, split {tuple(fractions)}")
    return indices


def _stratified(order: Array, labels: Array, ends: Sequence[int], random: Any) -> list[Array]:
    """Examples dealt out evenly, class by class: a class of a single example is in one set, by chance."""
    assigned = np.zeros(len(order), int)  # 0: training, 1: validation, 2: test
    rest = np.argsort(labels[order], kind="stable")
    for number, end in enumerate(ends, 1):  # what is not for training; of this, what is not for validation
        left = len(order) - end
        dealt = (np.arange(len(rest) + 1) * left + random.randint(max(1, len(rest)))) // max(1, len(rest))
        rest = rest[np.diff(dealt) > 0]
        assigned[rest] = number
    return [order[assigned == number] for number in range(3)]


def classes(targets: Any) -> Array | None:
    """The class of each example: of integers, of zeros and ones, and of one-hot rows; else None."""
    array = np.asarray(targets)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind == "f":
        if array.ndim > 2 or not np.isin(array, (0, 1)).all():
            return None
        if array.ndim == 2 and (array.sum(axis=1) == 1).all():
            array = array.argmax(axis=1)
    several = array.ndim == 1 and 2 * len(np.unique(array)) <= len(array)
    return array if several else None


def three_sets(given: Any) -> tuple[Any, Any, Any] | None:
    """The three sets where three were given: as `Data`, as a mapping by name, or one after the other.

    Raises:
        StudyError: a mapping of other names.
    """
    if isinstance(given, Data):
        return given.train, given.validation, given.test
    if isinstance(given, Mapping):
        if set(given) != set(SETS):
            raise StudyError(
                f"the sets of data must be named {', '.join(SETS)}; got {', '.join(map(str, given))}"
            )
        return tuple(given[name] for name in SETS)
    return given if isinstance(given, tuple | list) and len(given) == 3 else None  # type: ignore[return-value]


def gather(given: Any, fractions: Sequence[float] = SPLIT, seed: int = 0) -> Data:
    """Data from what a user has.

    Args:
        given: `(X, y)`, which is split; or three such pairs, as `three_sets` takes them.
        fractions: as in `split`.
        seed: as in `split`.

    Raises:
        StudyError: none of these; as `checked` and `split`; or two sets have the same examples.
    """
    sets = three_sets(given)
    if sets is None:
        inputs, targets = checked(*_pair(given, "data"), "data")
        indices = split(len(targets), fractions, seed, classes(targets))
        return Data(*(Examples(inputs[chosen], targets[chosen]) for chosen in indices))
    names = ("the training set", "the validation set", "the test set")
    pairs = zip(sets, names, strict=True)
    data = Data(*(checked(*_pair(pair, name), name) for pair, name in pairs))
    for (a, one), (b, other) in combinations(
        zip(names, (data.train, data.validation, data.test), strict=True), 2
    ):
        if one.inputs.shape == other.inputs.shape and _equal(one.inputs, other.inputs):
            raise StudyError(
                f"{a} and {b} have the same examples: the results would look better than they are"
            )
    return data


def _pair(given: Any, what: str) -> tuple[Any, Any]:
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise StudyError(f"{what} is {type(given).__name__}, where (X, y) or three such pairs are wanted")
    return given[0], given[1]


def _equal(a: Any, b: Any) -> bool:
    return not (a != b).nnz if is_sparse(a) and is_sparse(b) else bool(np.array_equal(a, b))


def standardised(data: Data, kind: str) -> Data:
    """Columns scaled by the training set's moments, or a sparse matrix's by its largest absolute values.

    Args:
        data: what to scale.
        kind: "regression" scales the targets too.
    """
    inputs = data.train.inputs
    sparse = is_sparse(inputs)
    mean, scale = (0.0, _largest(inputs)) if sparse else _moments(inputs)
    target_mean, target_scale = _moments(data.train.targets) if kind == "regression" else (0, 1)

    def scaled(examples: Examples) -> Examples:
        X, y = examples
        X = X.multiply(1 / scale).tocsr() if sparse else (X - mean) / scale
        dtype, y = y.dtype, y if kind == "classification" else (y - target_mean) / target_scale
        return Examples(X.astype(np.float32), y.astype(dtype))

    return Data(scaled(data.train), scaled(data.validation), scaled(data.test))


def _largest(columns: Any) -> Any:
    """Largest absolute value of a sparse matrix's columns; 1 for an empty one."""
    largest = abs(columns).max(axis=0).toarray().ravel()
    return np.where(largest > 0, largest, 1)


def _moments(columns: Any) -> tuple[Any, Any]:
    """Mean and standard deviation of columns; 1 for a constant one."""
    deviation = columns.std(axis=0, dtype=np.float64)
    return columns.mean(axis=0, dtype=np.float64), np.where(deviation > 0, deviation, 1)
