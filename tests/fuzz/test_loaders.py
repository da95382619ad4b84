"""Damaged files of every kind that is read: they load, or one line says what is wrong."""

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import safetensors.numpy
import torch

import thalweg
import thalweg.numpy
from convert_cases import KERAS_WARNS
from thalweg import convert
from thalweg.explain import recognise

pytestmark = KERAS_WARNS

# What each file needs to be told to be converted.
ASKED: dict[str, dict[str, Any]] = {
    "state.npz": {},
    "state.safetensors": {},
    "tree.npz": {},
    "leaves.npz": {"source": "optax", "rule": "adam", "lr": 0.1},
    "run.pt": {},
    "model.keras": {},
    "model.weights.h5": {"rule": "adam"},
}
# Formats that carry a checksum of all that they hold.
SUMMED = (".npz", ".pt", ".keras")
VALUES = [None, -5, 1.5, True, "x", "", [], {}, [[]], float("nan"), float("inf"), -1.0, 1e300, 10**400, 2**63]
NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**62, 2**63]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good file of each kind."""
    folder = tmp_path_factory.mktemp("files")
    optimizer = thalweg.numpy.Optimizer(thalweg.chain(thalweg.ClipByNorm(1.0), thalweg.get("nadam")))
    params = {"w": np.ones((4, 3)), "b": np.ones(4, np.float32)}
    for _ in range(3):
        optimizer.update(params, {k: np.ones_like(p) for k, p in params.items()})
    optimizer.save(folder / "state.npz")
    optimizer.save(folder / "state.safetensors")
    convert.file(folder / "state.npz", folder / "tree.npz", target="thalweg.jax")
    leaves = {"0/count": np.int32(7), "0/mu/w": np.ones(3), "0/nu/w": np.ones(3)}
    np.savez(folder / "leaves.npz", **leaves)  # type: ignore[arg-type]
    weights = [torch.ones(4, 3, requires_grad=True), torch.ones(4, requires_grad=True)]
    adam = torch.optim.AdamW(weights, lr=0.02)
    for _ in range(3):
        for p in weights:
            p.grad = torch.ones_like(p)
        adam.step()
    torch.save({"optimizer": adam.state_dict(), "epoch": 3}, folder / "run.pt")
    made = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4)])
    made.compile("adam", "mse")
    made.fit(np.ones((4, 3)), np.ones((4, 4)), verbose=0)
    made.save(folder / "model.keras")
    made.save_weights(folder / "model.weights.h5")
    steps = np.arange(12.0).reshape(4, 3) ** 2
    np.savez(folder / "recording.npz", params=-np.cumsum(steps, 0), grads=steps[1:], lr=1.0)
    return folder


# -- damage ------------------------------------------------------------------------------------------


def flipped(r: random.Random, good: bytes, _: bytes) -> bytes:
    found = bytearray(good)
    for _bit in range(r.choice((1, 1, 2, 20))):
        found[r.randrange(len(found))] ^= 1 << r.randrange(8)
    return bytes(found)


def cut(r: random.Random, good: bytes, _: bytes) -> bytes:
    return good[: r.randrange(len(good))]


def spliced(r: random.Random, good: bytes, other: bytes) -> bytes:
    a, b = r.randrange(len(good)), r.randrange(len(other))
    return good[:a] + other[b : b + r.randrange(1, 400)] + good[a + r.randrange(400) :]


def zeroed(r: random.Random, good: bytes, _: bytes) -> bytes:
    a = r.randrange(len(good))
    length = min(r.choice((1, 8, 64, 4096)), len(good) - a)
    return good[:a] + bytes(length) + good[a + length :]


def renumbered(r: random.Random, good: bytes, _: bytes) -> bytes:
    """A length, a count or an offset of another size; in text, another digit."""
    found = bytearray(good)
    if digits := [i for i, c in enumerate(good) if chr(c).isdigit()] if r.random() < 0.3 else []:
        place = r.choice(digits)
        found[place : place + 1] = r.choice((b"9", b"-1", b"999999999999", b"1e9"))
    else:
        length = r.choice((1, 2, 4, 8))
        place = r.randrange(max(1, len(good) - length))
        found[place : place + length] = (r.choice(NUMBERS) % 256**length).to_bytes(length, "little")
    return bytes(found)


DAMAGE: list[Callable[[random.Random, bytes, bytes], bytes]] = [flipped, cut, spliced, zeroed, renumbered]


def repacked(r: random.Random, good: bytes, other: bytes) -> bytes:
    """An archive that is whole, with a member that is not."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as archive, zipfile.ZipFile(packed, "w") as new:
        members = archive.infolist()
        chosen = r.choice(members)
        for member in members:
            content = archive.read(member)
            if member is chosen:
                content = r.choice((changed, r.choice(DAMAGE)))(r, content, other) if content else b"?"
            new.writestr(member, content)
    return packed.getvalue()


def changed(r: random.Random, good: bytes, other: bytes) -> bytes:
    """JSON with a value of another kind; else any damage."""
    try:
        told = json.loads(good)
    except ValueError:
        return r.choice(DAMAGE)(r, good, other)
    return json.dumps(altered(r, told)).encode()


def altered(r: random.Random, told: Any) -> Any:
    """A value of another kind somewhere, or nothing there, or something more."""
    if not isinstance(told, dict | list) or not told or r.random() < 0.15:
        return r.choice(VALUES)
    keys = list(told) if isinstance(told, dict) else list(range(len(told)))
    key = r.choice(keys)
    if r.random() < 0.1:
        del told[key]
    elif r.random() < 0.1 and isinstance(told, dict):
        told[r.choice(("x", "lr", "t", "slots", "/"))] = r.choice(VALUES)
    else:
        told[key] = altered(r, told[key])
    return told


def retold(r: random.Random, good: bytes, ending: str) -> bytes:
    """What a file says of its arrays, with a value of another kind."""
    if ending == ".npz":
        with np.load(io.BytesIO(good)) as file:
            arrays = {k: file[k] for k in file.files}
        if "" in arrays:
            arrays[""] = np.array(json.dumps(altered(r, json.loads(str(arrays[""])))))
        changing = r.choice([k for k in arrays if k])
        if r.random() < 0.3:
            arrays[changing] = strange(r, arrays[changing])
        packed = io.BytesIO()
        np.savez(packed, **arrays)  # type: ignore[arg-type]
        return packed.getvalue()
    size = int.from_bytes(good[:8], "little")
    told = json.loads(good[8 : 8 + size])["__metadata__"]["thalweg"]
    arrays = safetensors.numpy.load(good)
    changing = r.choice(list(arrays))
    if r.random() < 0.3:
        arrays[changing] = r.choice((arrays[changing][:1], arrays[changing].astype(np.int8)))
    text = json.dumps(altered(r, json.loads(told)))
    return safetensors.numpy.save(arrays, {"thalweg": text})


def strange(r: random.Random, a: np.ndarray) -> np.ndarray:
    return r.choice(
        (
            lambda: a.astype(a.dtype.newbyteorder()),
            lambda: a.astype(np.float16),
            lambda: a.astype("U4"),
            lambda: a.astype(np.complex64),
            lambda: np.zeros(a.shape, [("x", "f4")]),
            lambda: a.reshape(-1)[:1],
            lambda: np.zeros((*a.shape, 0)),
            lambda: a.astype(bool),
        )
    )()


def within(r: random.Random, good: bytes, other: bytes, ending: str) -> bytes:
    """Damage to what a file holds, as deep as its format allows."""
    if ending in (".npz", ".safetensors") and r.random() < 0.5:
        return retold(r, good, ending)
    if ending in SUMMED:
        return repacked(r, good, other)
    return r.choice(DAMAGE)(r, good, other)


# -- what must hold ----------------------------------------------------------------------------------


def result(path: Path, out: Path) -> dict[str, np.ndarray]:
    """The arrays of what a file is converted to."""
    moved = convert.file(path, out, **ASKED[path.name])
    assert out.exists()
    out.unlink()
    return {f"{s}/{n}": a for s, arrays in moved.state.slots.items() for n, a in arrays.items()}


@pytest.mark.parametrize("name", ASKED)
def test_a_damaged_file_is_read_as_it_was_or_named_in_one_line(
    name: str, files: Path, tmp_path: Path, rounds: int, generator: random.Random
) -> None:
    good = (files / name).read_bytes()
    others = [(files / other).read_bytes() for other in ASKED]
    out, path = tmp_path / "out.npz", tmp_path / name
    path.write_bytes(good)
    wanted = result(path, out)
    for _ in range(rounds):
        r = random.Random(seed := generator.random())
        # Half of them are damaged as bytes, half in what the bytes hold.
        outside, other = r.random() < 0.5, r.choice(others)
        path.write_bytes(r.choice(DAMAGE)(r, good, other) if outside else within(r, good, other, path.suffix))
        found = result_or_line(lambda: result(path, out), path, seed)
        if found is not None and outside and path.suffix in SUMMED:
            assert found.keys() == wanted.keys(), seed
            for key, a in found.items():
                np.testing.assert_array_equal(a, wanted[key])
        assert [file.name for file in tmp_path.iterdir()] == [name], seed


def test_a_damaged_recording_is_named_in_one_line(
    files: Path, tmp_path: Path, rounds: int, generator: random.Random
) -> None:
    good = (files / "recording.npz").read_bytes()
    path = tmp_path / "recording.npz"
    for _ in range(rounds):
        r = random.Random(seed := generator.random())
        path.write_bytes(within(r, good, good, path.suffix))
        recording = result_or_line(lambda: recognise.read(path), path, seed)
        if recording is not None:
            recognise.candidates(recording, ["sgd"])


def result_or_line(call: Callable[[], Any], path: Path, seed: float) -> Any:
    """What a call returns; None where it raises one line that names the file, or says what it cannot do."""
    try:
        return call()
    except ValueError as error:
        told, refused = str(error), isinstance(error, convert.Refused)
    assert "\n" not in told, seed
    assert refused or str(path) in told, (seed, told)
    return None
