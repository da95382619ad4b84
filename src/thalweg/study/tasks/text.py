"""Text: the sentiment of film reviews, and the next character of Shakespeare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from thalweg.study.data import files, sets
from thalweg.study.data.arrays import Array, Data, Examples
from thalweg.study.data.sets import IMDB, SHAKESPEARE
from thalweg.study.learners.metrics import LOSS
from thalweg.study.learners.models import mlp
from thalweg.study.learners.torch import TorchTraining
from thalweg.study.learners.torch_metrics import METRICS, bce, cross_entropy
from thalweg.study.task import Task
from thalweg.study.tasks import models

# Words are separated by white space and all punctuation but the apostrophe, as in Keras.
_PUNCTUATION = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~', " "))
_RARE = 65535  # stands for all words beyond the most frequent ones
# Keras's special numbers, below those of words: padding, start of a review, a word beyond the most frequent.
_PADDING, _START, _UNKNOWN, _FIRST = 0, 1, 2, 4
LENGTH = 64  # of a sequence of characters of Shakespeare


# -- reviews -------------------------------------------------------------------------------------


def review_convolution(folder: Path | None = None) -> Task:
    """Sentiment of IMDB reviews by a convolution over words, as in Keras's well-known example.

    The 5,000 most frequent words, the last 400 of a review, 250 units.
    """
    load = partial(_sequences, folder and folder.absolute(), words=5000, length=400)
    return _reviews("imdb-cnn", models.TextConvolution, load, folder, epochs=5)


def review_words(folder: Path | None = None) -> Task:
    """Sentiment of IMDB reviews by logistic regression on which of 10,000 words occur: sparse data."""
    load = partial(_bags, folder and folder.absolute(), words=10000)
    return _reviews("imdb-bow", partial(mlp, 10000, 1), load, folder, epochs=10)


def _reviews(
    name: str, model: models.Factory, load: Callable[[], Data], folder: Path | None, epochs: int
) -> Task:
    reviews(folder and folder.absolute())
    version = f"1, data {IMDB.digest}"
    accuracy = METRICS["accuracy"]
    learner = TorchTraining(f"{name} {version}", model, load, bce, (accuracy,), 32)
    sources = {"imdb": "https://ai.stanford.edu/~amaas/data/sentiment (Maas et al. 2011)"}
    return Task(name, version, learner, (LOSS, accuracy.measure), epochs, sources=sources)


def reviews(folder: Path | None = None) -> dict[str, Array]:
    """The reviews as numbers of words, the most frequent word of the training reviews being 0.

    Returns:
        for "train" and "test" each: "words_*" of all reviews on end, "ends_*" of each review, "labels_*".

    Raises:
        StudyError: the files are not available.
    """
    # The name has the hash of the files, so that others never get these numbers.
    return files.cached(f"imdb-words-1-{IMDB.digest}", partial(_numbered, folder))


def _numbered(folder: Path | None) -> dict[str, Array]:
    by_set = dict(zip(("train", "test"), sets.reviews(folder), strict=True))
    words = {name: [_words(text) for text in reviews_.texts] for name, reviews_ in by_set.items()}
    counts = Counter(word for words in words["train"] for word in words)
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[:_RARE]
    numbers = {word: number for number, word in enumerate(frequent)}
    arrays = {}
    for name, texts in words.items():
        flat = (numbers.get(word, _RARE) for words in texts for word in words)
        arrays[f"words_{name}"] = np.fromiter(flat, np.uint16)
        arrays[f"ends_{name}"] = np.cumsum([len(words) for words in texts])
        arrays[f"labels_{name}"] = np.array(by_set[name].labels, np.uint8)
    return arrays


def _words(text: str) -> list[str]:
    return text.lower().translate(_PUNCTUATION).split()


def _sequences(folder: Path | None, words: int, length: int) -> Data:
    """Each review's last words by number, after padding; as `keras.datasets.imdb` numbers them."""
    arrays = reviews(folder)

    def examples(name: str) -> Examples:
        flat, ends = arrays[f"words_{name}"].astype(np.int32) + _FIRST, arrays[f"ends_{name}"]
        flat[flat >= words] = _UNKNOWN
        inputs = np.full((len(ends), length), _PADDING, np.int32)
        for row, review in zip(inputs, np.split(flat, ends[:-1]), strict=True):
            last = np.concatenate([[_START], review])[-length:]
            row[length - len(last) :] = last
        return Examples(inputs, _labels(arrays, name))

    return _held_out(examples("train"), examples("test"))


def _bags(folder: Path | None, words: int) -> Data:
    """Which of the most frequent words occur in each review, as sparse rows of zeros and ones."""
    from scipy.sparse import csr_array

    arrays = reviews(folder)

    def examples(name: str) -> Examples:
        flat, ends = arrays[f"words_{name}"], arrays[f"ends_{name}"]
        review = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
        known = flat < words
        entries = np.ones(known.sum(), np.float32), (review[known], flat[known].astype(np.int64))
        bags = csr_array(entries, shape=(len(ends), words))
        bags.sum_duplicates()
        bags.data[:] = 1
        return Examples(bags, _labels(arrays, name))

    return _held_out(examples("train"), examples("test"))


def _labels(arrays: dict[str, Array], name: str) -> Array:
    return arrays[f"labels_{name}"].astype(np.float32)[:, None]


def _held_out(train: Examples, test: Examples) -> Data:
    """Holds out a random fifth of the training reviews for validation: they are ordered by label."""
    order = np.random.RandomState(0).permutation(len(train.targets))
    ours, held_out = np.split(order, [len(order) * 4 // 5])
    first, second = (Examples(train.inputs[rows], train.targets[rows]) for rows in (ours, held_out))
    return Data(first, second, test)


# -- Shakespeare ---------------------------------------------------------------------------------


def shakespeare_recurrent(folder: Path | None = None) -> Task:
    """The next character of Shakespeare's plays, by an LSTM."""
    return _shakespeare("shakespeare-rnn", models.Recurrent, folder)


def shakespeare_transformer(folder: Path | None = None) -> Task:
    """The next character of Shakespeare's plays, by a small transformer."""
    return _shakespeare("shakespeare-transformer", models.Transformer, folder)


def _shakespeare(name: str, model: models.Factory, folder: Path | None) -> Task:
    SHAKESPEARE.find(folder)
    version = f"1, data {SHAKESPEARE.digest}"
    load = partial(_windows, folder and folder.absolute())
    metrics = METRICS["perplexity"], METRICS["accuracy"]
    learner = TorchTraining(f"{name} {version}", model, load, cross_entropy, metrics, 32)
    sources = {"tinyshakespeare": "https://github.com/karpathy/char-rnn"}
    return Task(
        name, version, learner, (LOSS, *(metric.measure for metric in metrics)), epochs=10, sources=sources
    )


def _windows(folder: Path | None) -> Data:
    """Sequences of 64 characters, and those one position on: 90 % of the text, 5 %, and the last 5 %."""
    text = np.frombuffer(SHAKESPEARE.read("input.txt", folder), np.uint8)
    characters, numbers = np.unique(text, return_inverse=True)
    assert len(characters) <= 65
    texts = np.split(numbers.astype(np.int64), [len(text) * 90 // 100, len(text) * 95 // 100])
    return Data(*map(_window, texts))


def _window(numbers: Array) -> Examples:
    count = (len(numbers) - 1) // LENGTH
    return Examples(
        numbers[: count * LENGTH].reshape(count, LENGTH),
        numbers[1 : count * LENGTH + 1].reshape(count, LENGTH),
    )
