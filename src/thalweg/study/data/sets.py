"""The data sets of the built-in tasks: digits, MNIST and Fashion-MNIST, Shakespeare, film reviews.

Images are float32 in [0, 1], one row of pixels each; labels are int64 class numbers.
"""

import io
import json
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thalweg.study.data.arrays import Array, Data, Examples
from thalweg.study.data.files import Files


class IdxSet(Files):
    """A data set in the four idx files of MNIST."""

    def load(self, folder: Path | None = None) -> Data:
        """The examples: the first 5,000 training images are the validation set.

        Raises:
            StudyError: as `read`.
        """
        images, labels = self._pair("train", folder)
        return Data(
            train=Examples(images[5000:], labels[5000:]),
            validation=Examples(images[:5000], labels[:5000]),
            test=Examples(*self._pair("t10k", folder)),
        )

    def _pair(self, prefix: str, folder: Path | None) -> tuple[Array, Array]:
        images = _array(self.read(f"{prefix}-images-idx3-ubyte", folder))
        labels = _array(self.read(f"{prefix}-labels-idx1-ubyte", folder))
        return images.reshape(len(images), -1).astype(np.float32) / np.float32(255), labels.astype(np.int64)


def _array(content: bytes) -> npt.NDArray[np.uint8]:
    """An idx file: two zeros, the type (8: bytes), the number of axes, the axes' lengths, the entries."""
    axes = content[3]
    shape = np.frombuffer(content, ">u4", axes, 4).tolist()
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def digits() -> Data:
    """Scikit-learn's 1,797 embedded 8x8 digits: 1,077 to train, 360 to validate, 360 to test."""
    from sklearn.datasets import load_digits

    inputs, targets = load_digits(return_X_y=True)
    inputs, targets = (inputs / 16).astype(np.float32), targets.astype(np.int64)
    # The set is ordered by writer. RandomState: its stream is frozen for all numpy versions.
    order = np.random.RandomState(0).permutation(len(inputs))
    return Data(*(Examples(inputs[rows], targets[rows]) for rows in np.split(order, [1077, 1437])))


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
    """Texts, and the label of each: 1 in favour, 0 against."""

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
    rows = [json.loads(line) for line in content.decode().split("\n") if line]
    rows.sort(key=lambda review: (review["label"], review["id"]))
    return Reviews([review["text"] for review in rows], [review["label"] for review in rows])


def _from_archive(content: bytes, subset: str) -> Reviews:
    """Files are named `aclImdb/train/neg/12_3.txt`: set, opinion, number, stars."""
    rows = []
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            folders = member.name.split("/")
            if folders[1:2] == [subset] and folders[2:3] in (["neg"], ["pos"]) and member.isfile():
                file = archive.extractfile(member)
                assert file is not None, "a regular file"
                number = int(folders[3].partition("_")[0])
                rows.append((int(folders[2] == "pos"), number, file.read().decode()))
    rows.sort(key=lambda review: review[:2])
    return Reviews([text for _, _, text in rows], [label for label, _, _ in rows])
