"""Where examples come from: embedded, in a folder, in the cache, or downloaded.

Images are float32 in [0, 1], one row of pixels each; labels are int64 class numbers.
"""

import gzip
import hashlib
import http.client
import os
import tempfile
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from thalweg.study.errors import StudyError

TIMEOUT = 30  # seconds without an answer before the next mirror is tried


class Part(NamedTuple):
    """Examples: `inputs` and `targets`, arrays or tensors whose first axis counts examples."""

    inputs: Any
    targets: Any


@dataclass(frozen=True)
class Data:
    """A data set's three parts: to learn from, to choose by, and to report on."""

    train: Part
    validation: Part
    test: Part


def digits() -> Data:
    """Scikit-learn's 1,797 embedded 8x8 digits: 1,077 to train, 360 to validate, 360 to test."""
    from sklearn.datasets import load_digits

    inputs, targets = load_digits(return_X_y=True)
    inputs, targets = (inputs / 16).astype(np.float32), targets.astype(np.int64)
    # The set is ordered by writer. RandomState: its stream is frozen for all numpy versions.
    order = np.random.RandomState(0).permutation(len(inputs))
    return Data(*(Part(inputs[part], targets[part]) for part in np.split(order, [1077, 1437])))


@dataclass(frozen=True)
class IdxSet:
    """A data set in the four idx files of MNIST.

    Attributes:
        name: its own name, and that of its folder.
        mirrors: addresses of folders that hold the files, in the order to try them.
        checksums: sha256 of each file's **decompressed** bytes, by file name without ".gz": repacked
            files with the same pixels are as good.
    """

    name: str
    mirrors: tuple[str, ...]
    checksums: dict[str, str]

    def load(self, folder: Path | None = None) -> Data:
        """The examples: the first 5,000 training images are the validation part.

        Args:
            folder: holds the four files, or a folder `name` that does. None: the cache, into which
                missing files are downloaded.

        Raises:
            StudyError: a file is missing, damaged or of other content, or cannot be downloaded.
        """
        images, labels = self._pair("train", folder)
        return Data(
            train=Part(images[5000:], labels[5000:]),
            validation=Part(images[:5000], labels[:5000]),
            test=Part(*self._pair("t10k", folder)),
        )

    def find(self, folder: Path | None = None) -> None:
        """Checks that all four files are there and right, downloading them where `load` would.

        Raises:
            StudyError: as `load`.
        """
        for name in self.checksums:
            self._read(name, folder)

    def _pair(self, part: str, folder: Path | None) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        images = _array(self._read(f"{part}-images-idx3-ubyte", folder))
        labels = _array(self._read(f"{part}-labels-idx1-ubyte", folder))
        return images.reshape(len(images), -1).astype(np.float32) / np.float32(255), labels.astype(np.int64)

    def _read(self, name: str, folder: Path | None) -> bytes:
        """One file's decompressed content."""
        if folder is None:
            path = cache() / self.name / f"{name}.gz"
            if not path.exists():
                self._download(path, name)
            return self._checked(path, name)
        for path in (folder / f"{name}.gz", folder / self.name / f"{name}.gz"):
            if path.exists():
                return self._checked(path, name)
        raise StudyError(
            f"{name}.gz is neither in {folder} nor in {folder / self.name}: give --data a folder that "
            f"holds the four {self.name} files, or leave --data out to download them"
        )

    def _checked(self, path: Path, name: str) -> bytes:
        try:
            content = gzip.decompress(path.read_bytes())
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise StudyError(f"{path} is truncated or damaged: delete it and fetch it again") from None
        except OSError as error:
            raise StudyError(f"{path} cannot be read: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != self.checksums[name]:
            raise StudyError(
                f"{path} is not the official {self.name} file (wrong checksum): delete it and fetch it again"
            )
        return content

    def _download(self, path: Path, name: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Under another name until it is whole and right: another process may look.
            folder = tempfile.TemporaryDirectory(dir=path.parent)
        except OSError as error:
            raise StudyError(f"{path.parent} cannot be written: {error.strerror}; give --data DIR") from None
        failures = []
        with folder:
            fresh = Path(folder.name) / path.name
            for mirror in self.mirrors:
                try:
                    with urllib.request.urlopen(f"{mirror}/{name}.gz", timeout=TIMEOUT) as answer:
                        fresh.write_bytes(answer.read())
                    self._checked(fresh, name)
                except (OSError, http.client.HTTPException, StudyError) as error:
                    failures.append(f"{mirror}: {error}")
                else:
                    fresh.replace(path)
                    return
        raise StudyError(
            f"{name}.gz could not be downloaded ({'; '.join(failures)}): fetch the four {self.name} files "
            "by other means and give their folder with --data"
        )


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
