import dataclasses
import gzip
import hashlib
import io
import json
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib import format as npy

from study_cases import SHARED
from thalweg import untrusted
from thalweg.study import tasks
from thalweg.study.data import arrays, files, sets
from thalweg.study.data.sets import IdxSet
from thalweg.study.errors import StudyError


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def contents():
    """Four files like MNIST's, of 5,002 and 3 images of 2x2 pixels."""
    rng = np.random.RandomState(0)
    return {
        f"{part}-{kind}": idx(rng.randint(256, size=(count, *shape)).astype(np.uint8))
        for part, count in (("train", 5002), ("t10k", 3))
        for kind, shape in (("images-idx3-ubyte", (2, 2)), ("labels-idx1-ubyte", ()))
    }


@pytest.fixture
def toy(contents):
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    return IdxSet("toy", ("https://one.invalid", "https://two.invalid"), checksums)


def write(folder, contents, level=9):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content, level))


@pytest.fixture
def mirrors(monkeypatch, tmp_path, contents):
    """Answers downloads from memory, into an empty cache; the first mirror is down. Lists what is asked."""
    asked = []

    def urlopen(url, timeout):
        asked.append(url)
        assert timeout > 0
        if "one" in url:
            raise OSError("no route")
        return io.BytesIO(gzip.compress(contents[url.rpartition("/")[2].removesuffix(".gz")]))

    monkeypatch.setattr(files.urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return asked


def test_digits_are_split_once_and_for_all():
    found, again = sets.digits(), sets.digits()
    assert [len(part.targets) for part in (found.train, found.validation, found.test)] == [1077, 360, 360]
    assert found.train.inputs.dtype == np.float32
    assert found.train.inputs.min() == 0
    assert found.train.inputs.max() == 1
    np.testing.assert_array_equal(found.test.inputs, again.test.inputs)
    counts = np.bincount(found.test.targets)
    assert counts.min() > 20, "every digit is in every part"


def test_every_part_has_its_share_of_every_class():
    """A class of one in fifty: by chance alone, most splits would leave a part without it."""
    labels = np.r_[np.zeros(900), np.ones(80), np.full(20, 2)].astype(int)
    labels = np.random.RandomState(1).permutation(labels)
    for seed in range(5):
        found = arrays.split(1000, (0.8, 0.1, 0.1), seed, labels)
        assert [len(rows) for rows in found] == [800, 100, 100]
        assert sorted(np.concatenate(found)) == list(range(1000))
        for rows, whole in zip(found, (800, 100, 100), strict=True):
            counts = np.bincount(labels[rows], minlength=3)
            assert abs(counts - np.array([0.9, 0.08, 0.02]) * whole).max() <= 1.5
        again = arrays.split(1000, (0.8, 0.1, 0.1), seed, labels)
        for rows, same in zip(found, again, strict=True):
            np.testing.assert_array_equal(rows, same)
    others = arrays.split(1000, (0.8, 0.1, 0.1), 7, labels)
    assert not np.array_equal(found[0], others[0])
    assert (np.diff(labels[found[1]]) < 0).any(), "examples of a part are in no order"


@given(st.lists(st.integers(0, 9), min_size=10, max_size=200), st.integers(0, 99))
def test_classes_of_any_size_are_split(labels, seed):
    """With classes of a single example too: nothing is lost, and parts are as large as they are without."""
    labels = np.array(labels)
    found = arrays.split(len(labels), (0.6, 0.2, 0.2), seed, labels)
    plain = arrays.split(len(labels), (0.6, 0.2, 0.2), seed)
    assert [len(rows) for rows in found] == [len(rows) for rows in plain]
    assert sorted(np.concatenate(found)) == list(range(len(labels)))
    for label in np.unique(labels):
        count = (labels == label).sum()
        for rows, share in zip(found, (0.6, 0.2, 0.2), strict=True):
            assert abs((labels[rows] == label).sum() - share * count) < 3


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([0, 1, 1, 0], [0, 1, 1, 0]),
        ([[0.0], [1.0], [1.0], [1.0]], [0, 1, 1, 1]),
        ([True, False] * 2, [1, 0] * 2),
        (np.eye(2)[[0, 1, 1, 0]], [0, 1, 1, 0]),
        ([0.5, 1.0, 0.0, 0.2], None),
        ([0, 1, 2, 3], None),
        ([[1, 0], [0, 1], [1, 0], [0, 1]], None),  # tokens
        (np.ones((4, 2)), None),
        (np.ones((4, 2, 2)), None),
    ],
)
def test_classes_are_told_from_other_targets(targets, expected):
    found = arrays.classes(targets)
    assert (found is None) == (expected is None)
    if expected is not None:
        np.testing.assert_array_equal(found, expected)


def test_arrays_of_classes_are_split_by_class_and_numbers_as_they_come():
    X, y = np.arange(200.0)[:, None], np.r_[np.zeros(180), np.ones(20)].astype(int)
    found = arrays.gather((X, y), seed=3)
    assert [int(part.targets.sum()) for part in (found.train, found.validation, found.test)] == [16, 2, 2]
    real = arrays.gather((X, y + 0.5), seed=3)
    order = np.random.RandomState(3).permutation(200)
    np.testing.assert_array_equal(real.train.inputs[:, 0], order[:160])


@pytest.mark.parametrize("sub", ["", "toy"])
def test_files_are_found_in_the_folder_or_in_one_named_after_the_task(tmp_path, toy, contents, sub):
    write(tmp_path / sub, contents)
    found = toy.load(tmp_path)
    assert [len(part.targets) for part in (found.train, found.validation, found.test)] == [2, 5000, 3]
    pixels = np.frombuffer(contents["train-images-idx3-ubyte"], np.uint8, offset=16).reshape(-1, 4)
    np.testing.assert_array_equal(found.validation.inputs, pixels[:5000] / np.float32(255))
    np.testing.assert_array_equal(found.train.inputs, pixels[5000:] / np.float32(255))
    labels = np.frombuffer(contents["t10k-labels-idx1-ubyte"], np.uint8, offset=8)
    np.testing.assert_array_equal(found.test.targets, labels)
    assert found.test.targets.dtype == np.int64


def test_repacked_files_are_as_good(tmp_path, toy, contents):
    write(tmp_path, contents, level=1)
    toy.find(tmp_path)


def test_a_missing_file_is_named(tmp_path, toy, contents):
    write(tmp_path, contents)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(StudyError, match=r"t10k-labels-idx1-ubyte\.gz is neither in .*folder="):
        toy.find(tmp_path)


@pytest.mark.parametrize("keep", [0, 3, 30, 100])
def test_a_truncated_file_is_named(tmp_path, toy, contents, keep):
    write(tmp_path, contents)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StudyError, match=r"train-labels-idx1-ubyte\.gz .*fetch it again"):
        toy.find(tmp_path)


@pytest.mark.parametrize("place", [0, 10, 2000])
def test_a_damaged_file_is_named(tmp_path, toy, contents, place):
    write(tmp_path, contents)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    damaged = bytearray(path.read_bytes())
    damaged[place : place + 9] = b"\xff" * 9
    path.write_bytes(damaged)
    with pytest.raises(StudyError, match=r"train-images-idx3-ubyte\.gz .*fetch it again"):
        toy.find(tmp_path)


def test_a_file_of_other_content_is_named(tmp_path, toy, contents):
    write(tmp_path, contents | {"t10k-images-idx3-ubyte": contents["train-images-idx3-ubyte"]})
    with pytest.raises(StudyError, match=r"t10k-images-idx3-ubyte\.gz .*wrong checksum"):
        toy.find(tmp_path)


def test_files_are_downloaded_once_from_the_first_mirror_that_answers(toy, mirrors):
    toy.find()
    assert len(mirrors) == 8, "each of four files from two mirrors"
    toy.load()
    assert len(mirrors) == 8
    assert sorted(path.name for path in (files.cache() / "toy").iterdir()) == sorted(
        f"{n}.gz" for n in toy.checksums
    )


def test_a_wrong_download_is_not_kept(toy, mirrors, contents):
    contents["train-images-idx3-ubyte"] = b"<html>Please log in</html>"
    with pytest.raises(
        StudyError, match=r"train-images-idx3-ubyte\.gz could not be downloaded .*no route.*checksum"
    ):
        toy.find()
    assert not list((files.cache() / "toy").iterdir())


def test_without_a_network_the_way_out_is_named(toy, monkeypatch, tmp_path):
    def urlopen(url, timeout):
        raise OSError("network is unreachable")

    monkeypatch.setattr(files.urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(StudyError, match=r"network is unreachable.*folder="):
        toy.find()


def test_a_cache_that_cannot_be_written_is_named(toy, mirrors, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(StudyError, match=r"cannot be written.*folder="):
        toy.find()


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_official_files_pass(name):
    if not (SHARED / name).exists():
        pytest.skip(f"no {name} files in {SHARED}")
    found = tasks.get(name, SHARED).learner.data()
    assert found.train.inputs.shape == (55000, 784)
    assert found.validation.inputs.shape == (5000, 784)
    assert found.test.inputs.shape == (10000, 784)
    assert np.bincount(found.test.targets).size == 10


# -- reviews and plain files ---------------------------------------------------------------------

REVIEWS = [  # part, opinion, number, stars, text
    ("train", "neg", 1, 2, "Bad\u2028film"),
    ("train", "neg", 0, 1, "No."),
    ("train", "pos", 10, 9, "Yes!"),
    ("train", "pos", 9, 10, "Good"),
    ("test", "neg", 0, 3, "Dull"),
    ("test", "pos", 0, 8, "Fine"),
]
FOUND = (
    sets.Reviews(["No.", "Bad\u2028film", "Good", "Yes!"], [0, 0, 1, 1]),
    sets.Reviews(["Dull", "Fine"], [0, 1]),
)


def packed():
    """The reviews as their authors publish them, among other files."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        files = {f"{part}/{mood}/{n}_{stars}.txt": text for part, mood, n, stars, text in REVIEWS}
        files |= {
            "README": "Large Movie Review Dataset",
            "train/unsup/0_0.txt": "?",
            "train/urls_pos.txt": "http",
        }
        for name, text in files.items():
            info = tarfile.TarInfo(f"aclImdb/{name}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return held.getvalue()


@pytest.fixture
def imdb(monkeypatch, tmp_path):
    """Both forms of the reviews, which count as the official ones, and an empty cache."""
    lines = {"train.jsonl": [], "test.jsonl": []}
    for part, mood, n, stars, text in REVIEWS:
        review = {"id": n, "label": int(mood == "pos"), "rating": stars, "text": text}
        lines[f"{part}.jsonl"].append(json.dumps(review, ensure_ascii=False))
    contents = {name: "\n".join(found).encode() for name, found in lines.items()}
    archive = {"aclImdb_v1.tar.gz": packed()}
    for name, held in (("IMDB", contents), ("IMDB_ARCHIVE", archive)):
        checksums = {file: hashlib.sha256(content).hexdigest() for file, content in held.items()}
        monkeypatch.setattr(sets, name, dataclasses.replace(getattr(sets, name), checksums=checksums))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return contents | archive


def test_reviews_are_the_same_from_lines_and_from_the_archive(imdb, tmp_path):
    (tmp_path / "lines" / "imdb").mkdir(parents=True)
    (tmp_path / "lines" / "imdb" / "train.jsonl.gz").write_bytes(gzip.compress(imdb["train.jsonl"]))
    (tmp_path / "lines" / "test.jsonl").write_bytes(imdb["test.jsonl"])
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "aclImdb_v1.tar.gz").write_bytes(imdb["aclImdb_v1.tar.gz"])
    assert sets.reviews(tmp_path / "lines") == sets.reviews(tmp_path / "archive") == FOUND
    with pytest.raises(StudyError, match=r"train\.jsonl\.gz is neither in .*folder="):
        sets.reviews(tmp_path)


def test_the_archive_is_downloaded_as_it_is(imdb, monkeypatch):
    asked = []

    def urlopen(url, timeout):
        asked.append(url)
        return io.BytesIO(imdb["aclImdb_v1.tar.gz"])

    monkeypatch.setattr(files.urllib.request, "urlopen", urlopen)
    assert sets.reviews() == FOUND == sets.reviews()
    assert asked == ["https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"]


@pytest.mark.parametrize("keep", [0, 100, 300])
def test_a_truncated_archive_is_named(imdb, tmp_path, keep):
    (tmp_path / "aclImdb_v1.tar.gz").write_bytes(imdb["aclImdb_v1.tar.gz"][:keep])
    with pytest.raises(StudyError, match=r"aclImdb_v1\.tar\.gz is not the official .*fetch it again"):
        sets.reviews(tmp_path)


# -- the user's own ------------------------------------------------------------------------------


@given(st.integers(30, 300), st.integers(0, 5), st.lists(st.integers(1, 8), min_size=3, max_size=3))
def test_a_split_is_a_partition_in_the_given_shares(count, seed, shares):
    fractions = [share / sum(shares) for share in shares]
    found = arrays.split(count, fractions, seed)
    assert sorted(np.concatenate(found)) == list(range(count))
    for part, fraction in zip(found, fractions, strict=True):
        assert abs(len(part) - fraction * count) <= 1
    again = arrays.split(count, fractions, seed)
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    assert not np.array_equal(found[0], arrays.split(count, fractions, seed + 1)[0])


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], np.int64),
        ([True, False], np.int64),
        (np.ones(2, np.uint8), np.int64),
        ([1.0, 2], np.float32),
        (np.ones(2), np.float32),
        (np.ones(2, np.float16), np.float32),
    ],
)
def test_numbers_become_what_models_take(values, dtype):
    found = arrays.numeric(values, "X")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.asarray(values))


def bomb():
    """An archive of an array of a gigabyte, in a megabyte."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 30,)}
    )
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as entry:
        entry.write(header.getvalue())
        for _ in range(1 << 10):
            entry.write(bytes(1 << 20))
    return content.getvalue()


def pickled():
    content = io.BytesIO()
    np.savez(content, a=np.array([{}, []], object))
    return content.getvalue()


@pytest.mark.parametrize("content", [bomb, pickled, bytes, lambda: b"PK\x03\x04"])
def test_prepared_arrays_that_cannot_be_right_are_made_anew(monkeypatch, tmp_path, content):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(npy, "read_array", lambda *_, **__: pytest.fail("memory was taken for it"))
    path = files.cache() / "prepared" / "one.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(content())
    assert files.cached("one", lambda: {"a": np.arange(3)})["a"].tolist() == [0, 1, 2]
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cached("one", lambda: pytest.fail("it was not kept"))["a"].tolist() == [0, 1, 2]


def test_a_file_packed_out_of_all_proportion_is_not_unpacked(tmp_path, toy, contents, monkeypatch):
    monkeypatch.setattr(untrusted, "FREE", 1 << 16)
    write(tmp_path, {**contents, "t10k-images-idx3-ubyte": bytes(1 << 24)})
    with pytest.raises(StudyError, match=r"t10k-images.*truncated or damaged: delete it and fetch it again"):
        toy.load(tmp_path)


def test_prepared_arrays_are_kept_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def prepare():
        calls.append(1)
        return {"a": np.arange(3), "b": np.ones((2, 2), np.uint8)}

    for name in ("one", "one", "two"):
        found = files.cached(name, prepare)
        assert found["a"].tolist() == [0, 1, 2]
        assert found["b"].dtype == np.uint8
    assert len(calls) == 2
    assert sorted(path.name for path in (files.cache() / "prepared").iterdir()) == ["one.npz", "two.npz"]
