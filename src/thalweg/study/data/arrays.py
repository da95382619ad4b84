"""Examples as arrays: what a user has, checked, split into three sets and scaled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from thalweg.study.errors import StudyError

Array: TypeAlias = npt.NDArray[Any]

SPLIT = (0.8, 0.1, 0.1)  # training, validation, test


class Examples(NamedTuple):
    """Examples: `inputs` and `targets`, arrays or tensors whose first axis counts examples."""

    inputs: Any
    targets: Any


@dataclass(frozen=True, eq=False)
class Data:
    """A data set's three parts: to learn from, to choose by, and to report on."""

    train: Examples
    validation: Examples
    test: Examples


def is_sparse(array: Any) -> bool:
    """Whether it is a scipy.sparse matrix or array."""
    return hasattr(array, "tocsr")


def dense(values: Any, what: str) -> Any:
    """Values as a numpy array that tensors can be made of, or as a sparse matrix of float32 rows.

    Real numbers become float32, truth values and whole numbers int64.

    Args:
        values: a numpy array, a tensor of any library, a table, a list, or a scipy.sparse matrix.
        what: names them in errors.

    Raises:
        StudyError: they are not numbers, or not finite.
    """
    if is_sparse(values):
        array = values.tocsr().astype(np.float32)
        finite = np.isfinite(array.data).all()
    else:
        values = values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
        if values.dtype.kind not in "fbiu" or not values.ndim:
            raise StudyError(f"{what} holds {values.dtype} of shape {values.shape}, where numbers are wanted")
        array = values.astype(np.float32 if values.dtype.kind == "f" else np.int64, copy=False)
        finite = array.dtype.kind == "i" or np.isfinite(array).all()
    if not finite:
        raise StudyError(f"{what} holds nan or infinity: drop those examples, or fill them in")
    return array


def examples(inputs: Any, targets: Any, what: str) -> Examples:
    """Inputs and targets of one part, as `dense` makes them.

    Raises:
        StudyError: they are empty or of different lengths; or as `dense`.
    """
    inputs, targets = dense(inputs, f"X of {what}"), dense(targets, f"y of {what}")
    if inputs.shape[0] != len(targets):
        raise StudyError(f"X of {what} has {inputs.shape[0]} examples, y has {len(targets)}")
    if not len(targets):
        raise StudyError(f"{what} is empty: every part needs examples")
    return Examples(inputs, targets)


def split(
    count: int, fractions: Sequence[float] = SPLIT, seed: int = 0, labels: Array | None = None
) -> list[Array]:
    """Which examples are to train, to validate and to test: three sets of places without overlap.

    Args:
        count: how many examples there are.
        fractions: of training, validation and test examples; they sum to 1.
        seed: shuffles.
        labels: the class of each; then every part has its share of every class, give or take one or two.

    Raises:
        StudyError: not three positive fractions with sum 1, or a part would be empty.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise StudyError(
            f"split is three positive fractions with sum 1 (train, validation, test), not {tuple(fractions)}"
        )
    ends = [round(count * fractions[0]), round(count * (fractions[0] + fractions[1]))]
    random = np.random.RandomState(seed)
    order = random.permutation(count)
    parts = np.split(order, ends) if labels is None else _stratified(order, labels, ends, random)
    for name, found in zip(("training", "validation", "test"), parts, strict=True):
        if not len(found):
            raise StudyError(f"the {name} part is empty: {count} examples, split {tuple(fractions)}")
    return parts


def _stratified(order: Array, labels: Array, ends: Sequence[int], random: Any) -> list[Array]:
    """Examples class by class, dealt out evenly: a class of a single example is in one part, by chance."""
    part = np.zeros(len(order), int)
    rest = np.argsort(labels[order], kind="stable")
    for number, end in enumerate(ends, 1):  # who is not to train; of these, who is not to validate
        left = len(order) - end
        dealt = (np.arange(len(rest) + 1) * left + random.randint(max(1, len(rest)))) // max(1, len(rest))
        rest = rest[np.diff(dealt) > 0]
        part[rest] = number
    return [order[part == number] for number in range(3)]


def classes(targets: Any) -> Array | None:
    """The class of each example: of whole numbers, of zeros and ones, and of one-hot rows; else None."""
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


def parts(given: Any) -> tuple[Any, Any, Any] | None:
    """Three parts where three were given: as `Data`, as a mapping by name, or one after the other.

    Raises:
        StudyError: a mapping that has not just these three.
    """
    names = ("train", "validation", "test")
    if isinstance(given, Data):
        return given.train, given.validation, given.test
    if isinstance(given, Mapping):
        if set(given) != set(names):
            raise StudyError(f"data has the parts {', '.join(map(str, given))}; wanted: {', '.join(names)}")
        return tuple(given[name] for name in names)
    return given if isinstance(given, tuple | list) and len(given) == 3 else None  # type: ignore[return-value]


def gather(given: Any, fractions: Sequence[float] = SPLIT, seed: int = 0) -> Data:
    """Data from what a user has.

    Args:
        given: `(X, y)`, which is split; or three such pairs, as `parts` takes them.
        fractions: as in `split`.
        seed: as in `split`.

    Raises:
        StudyError: none of these; or as `examples` and `split`, or two parts are the same examples.
    """
    found = parts(given)
    if found is None:
        inputs, targets = examples(*_pair(given, "data"), "data")
        rows = split(len(targets), fractions, seed, classes(targets))
        return Data(*(Examples(inputs[some], targets[some]) for some in rows))
    names = ("the training part", "the validation part", "the test part")
    pairs = zip(found, names, strict=True)
    data = Data(*(examples(*_pair(pair, name), name) for pair, name in pairs))
    for (a, one), (b, other) in combinations(
        zip(names, (data.train, data.validation, data.test), strict=True), 2
    ):
        if one.inputs.shape == other.inputs.shape and _equal(one.inputs, other.inputs):
            raise StudyError(f"{a} and {b} are the same examples: figures would flatter")
    return data


def _pair(given: Any, what: str) -> tuple[Any, Any]:
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise StudyError(f"{what} is {type(given).__name__}, where (X, y) or three parts of such are wanted")
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
    middle, spread = _moments(data.train.targets) if kind == "regression" else (0, 1)

    def part(given: Examples) -> Examples:
        X = given.inputs.multiply(1 / scale).tocsr() if sparse else (given.inputs - mean) / scale
        y = given.targets if kind == "classification" else (given.targets - middle) / spread
        return Examples(X.astype(np.float32), y.astype(given.targets.dtype))

    return Data(part(data.train), part(data.validation), part(data.test))


def _largest(array: Any) -> Any:
    """Largest absolute value of a sparse matrix's columns; 1 for an empty one."""
    found = abs(array).max(axis=0).toarray().ravel()
    return np.where(found > 0, found, 1)


def _moments(array: Any) -> tuple[Any, Any]:
    """Mean and standard deviation of columns; 1 for a constant one."""
    deviation = array.std(axis=0, dtype=np.float64)
    return array.mean(axis=0, dtype=np.float64), np.where(deviation > 0, deviation, 1)
