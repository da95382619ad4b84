"""Where examples come from: embedded, given and split, in a folder, in the cache, or downloaded.

Images are float32 in [0, 1], one row of pixels each; labels are int64 class numbers.
"""

import gzip
import hashlib
import http.client
import io
import json
import os
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from thalweg.study.errors import StudyError
from thalweg.untrusted import gunzip, npz, opened

Array: TypeAlias = npt.NDArray[Any]

SPLIT = (0.8, 0.1, 0.1)  # training, validation, test

TIMEOUT = 30  # seconds without an answer before the next mirror is tried


class Part(NamedTuple):
    """Examples: `inputs` and `targets`, arrays or tensors whose first axis counts examples."""

    inputs: Any
    targets: Any


@dataclass(frozen=True, eq=False)
class Data:
    """A data set's three parts: to learn from, to choose by, and to report on."""

    train: Part
    validation: Part
    test: Part


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


def examples(inputs: Any, targets: Any, what: str) -> Part:
    """Inputs and targets of one part, as `dense` makes them.

    Raises:
        StudyError: they are empty or of different lengths; or as `dense`.
    """
    inputs, targets = dense(inputs, f"X of {what}"), dense(targets, f"y of {what}")
    if inputs.shape[0] != len(targets):
        raise StudyError(f"X of {what} has {inputs.shape[0]} examples, y has {len(targets)}")
    if not len(targets):
        raise StudyError(f"{what} is empty: every part needs examples")
    return Part(inputs, targets)


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
        return Data(*(Part(inputs[some], targets[some]) for some in rows))
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


def digits() -> Data:
    """Scikit-learn's 1,797 embedded 8x8 digits: 1,077 to train, 360 to validate, 360 to test."""
    from sklearn.datasets import load_digits

    inputs, targets = load_digits(return_X_y=True)
    inputs, targets = (inputs / 16).astype(np.float32), targets.astype(np.int64)
    # The set is ordered by writer. RandomState: its stream is frozen for all numpy versions.
    order = np.random.RandomState(0).permutation(len(inputs))
    return Data(*(Part(inputs[part], targets[part]) for part in np.split(order, [1077, 1437])))


@dataclass(frozen=True)
class Files:
    """Files of known content: in a folder, in the cache, or downloaded into it.

    Attributes:
        name: the data set's own name, and that of its folder.
        mirrors: addresses of folders that hold the files, in the order to try them.
        checksums: sha256 of each file's **decompressed** bytes, by file name without ".gz": repacked
            files of the same content are as good.
        packed: what the mirrors add to the names.
    """

    name: str
    mirrors: tuple[str, ...]
    checksums: dict[str, str]
    packed: str = ".gz"

    @property
    def digest(self) -> str:
        """Names the content: goes into a task's version."""
        return hashlib.sha256(json.dumps(self.checksums).encode()).hexdigest()[:12]

    def find(self, folder: Path | None = None) -> None:
        """Checks that all files are there and right, downloading them where `read` would.

        Raises:
            StudyError: as `read`.
        """
        for name in self.checksums:
            self.read(name, folder)

    def read(self, name: str, folder: Path | None = None) -> bytes:
        """One file's decompressed content.

        Args:
            name: without ".gz".
            folder: holds the files, or a folder `self.name` that does, packed or not. None: the cache,
                into which a missing file is downloaded.

        Raises:
            StudyError: the file is missing, damaged or of other content, or cannot be downloaded.
        """
        if folder is None:
            path = cache() / self.name / (name + self.packed)
            if not path.exists():
                self._download(path, name)
            return self._checked(path, name)
        for path in self._places(name, folder):
            if path.exists():
                return self._checked(path, name)
        raise StudyError(
            f"{name}{self.packed} is neither in {folder} nor in {folder / self.name}: give --data a folder "
            f"that holds the {self.name} files ({', '.join(n + self.packed for n in self.checksums)}), or "
            "leave --data out to download them"
        )

    def exist(self, folder: Path) -> bool:
        """Whether a folder has any of the files."""
        return any(path.exists() for name in self.checksums for path in self._places(name, folder))

    def _places(self, name: str, folder: Path) -> Iterator[Path]:
        return (base / file for base in (folder, folder / self.name) for file in (f"{name}.gz", name))

    def _checked(self, path: Path, name: str) -> bytes:
        try:
            content = path.read_bytes()
            if path.name != name:
                content = gunzip(content)
        except (EOFError, ValueError, zlib.error, gzip.BadGzipFile):
            raise StudyError(f"{path} is truncated or damaged: delete it and fetch it again") from None
        except OSError as error:
            raise StudyError(f"{path} cannot be read: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != self.checksums[name]:
            raise StudyError(
                f"{path} is not the official {self.name} file (wrong checksum): delete it and fetch it again"
            )
        return content

    def _download(self, path: Path, name: str) -> None:
        failures = []
        with _fresh(path) as fresh:
            for mirror in self.mirrors:
                try:
                    with urllib.request.urlopen(f"{mirror}/{path.name}", timeout=TIMEOUT) as answer:
                        fresh.write_bytes(answer.read())
                    self._checked(fresh, name)
                except (OSError, http.client.HTTPException, StudyError) as error:
                    failures.append(f"{mirror}: {error}")
                    fresh.unlink(missing_ok=True)
                else:
                    return
        raise StudyError(
            f"{path.name} could not be downloaded ({'; '.join(failures)}): fetch the {self.name} files "
            f"({', '.join(n + self.packed for n in self.checksums)}) by other means and give their folder "
            "with --data"
        )


@contextmanager
def _fresh(path: Path) -> Iterator[Path]:
    """Where to write what becomes `path` once it is whole and right: another process may look."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=path.parent)
    except OSError as error:
        raise StudyError(f"{path.parent} cannot be written: {error.strerror}; give --data DIR") from None
    with folder:
        fresh = Path(folder.name) / path.name
        yield fresh
        if fresh.exists():
            fresh.replace(path)


def kept(name: str, prepare: Callable[[], Mapping[str, Array]]) -> dict[str, Array]:
    """Arrays that take time to prepare: from the cache, else prepared and put there.

    Args:
        name: of the file, without ".npz"; says all that decides the content.
        prepare: makes the arrays.
    """
    path = cache() / "prepared" / f"{name}.npz"
    try:
        with opened(path, "a file of arrays") as file:
            return npz(file)
    except (OSError, ValueError):  # not there, or damaged: made anew
        arrays = dict(prepare())
        # Where the cache cannot be written they are made every time.
        with suppress(StudyError, OSError), _fresh(path) as fresh:
            np.savez(fresh, **arrays)  # type: ignore[arg-type]
        return arrays


class IdxSet(Files):
    """A data set in the four idx files of MNIST."""

    def load(self, folder: Path | None = None) -> Data:
        """The examples: the first 5,000 training images are the validation part.

        Raises:
            StudyError: as `read`.
        """
        images, labels = self._pair("train", folder)
        return Data(
            train=Part(images[5000:], labels[5000:]),
            validation=Part(images[:5000], labels[:5000]),
            test=Part(*self._pair("t10k", folder)),
        )

    def _pair(self, part: str, folder: Path | None) -> tuple[Array, Array]:
        images = _array(self.read(f"{part}-images-idx3-ubyte", folder))
        labels = _array(self.read(f"{part}-labels-idx1-ubyte", folder))
        return images.reshape(len(images), -1).astype(np.float32) / np.float32(255), labels.astype(np.int64)


def cache() -> Path:
    """The folder that downloads are kept in."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base) / "thalweg" / "data"


def _array(content: bytes) -> npt.NDArray[np.uint8]:
    """An idx file: two zeros, the type (8: bytes), the number of axes, the axes' lengths, the entries."""
    axes = content[3]
    shape = np.frombuffer(content, ">u4", axes, 4).tolist()
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


MNIST = IdxSet(
    "mnist",
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist",
    ),
    {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)

FASHION_MNIST = IdxSet(
    "fashion-mnist",
    (
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
    ),
    {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
)

SHAKESPEARE = Files(
    "tinyshakespeare",
    ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare",),
    {"input.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
    packed="",
)

# The reviews as JSON lines, and as their authors publish them.
IMDB = Files(
    "imdb",
    (),
    {
        "train.jsonl": "22c931623e67f3bdcd9935d0f5b568164a104a1bae7e7451e870d4257788cc66",
        "test.jsonl": "bde59eb478b67f8646a76a95df08894faacb9eafa38ab43300f53ff33baae0a5",
    },
)
IMDB_ARCHIVE = Files(
    "imdb",
    ("https://ai.stanford.edu/~amaas/data/sentiment",),
    {"aclImdb_v1.tar.gz": "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe"},
    packed="",
)


class Reviews(NamedTuple):
    """Texts and whether each is in favour (1) or not (0)."""

    texts: list[str]
    labels: list[int]


def reviews(folder: Path | None = None) -> tuple[Reviews, Reviews]:
    """The 25,000 training and 25,000 test reviews of IMDB, those against before those in favour.

    Args:
        folder: holds train.jsonl.gz and test.jsonl.gz, or the authors' aclImdb_v1.tar.gz. None: the
            archive in the cache, downloaded if need be.

    Raises:
        StudyError: as `Files.read`.
    """
    if folder is None or IMDB_ARCHIVE.exist(folder):
        archive = IMDB_ARCHIVE.read("aclImdb_v1.tar.gz", folder)
        return _from_archive(archive, "train"), _from_archive(archive, "test")
    train, test = (_from_lines(IMDB.read(name, folder)) for name in ("train.jsonl", "test.jsonl"))
    return train, test


def _from_lines(content: bytes) -> Reviews:
    found = [json.loads(line) for line in content.decode().split("\n") if line]
    found.sort(key=lambda review: (review["label"], review["id"]))
    return Reviews([review["text"] for review in found], [review["label"] for review in found])


def _from_archive(content: bytes, part: str) -> Reviews:
    """Files are named `aclImdb/train/neg/12_3.txt`: part, opinion, number, stars."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            folders = member.name.split("/")
            if folders[1:2] == [part] and folders[2:3] in (["neg"], ["pos"]) and member.isfile():
                file = archive.extractfile(member)
                assert file is not None, "a regular file"
                number = int(folders[3].partition("_")[0])
                found.append((int(folders[2] == "pos"), number, file.read().decode()))
    found.sort(key=lambda review: review[:2])
    return Reviews([text for _, _, text in found], [label for label, _, _ in found])
