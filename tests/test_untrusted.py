"""Hostile files: none is followed elsewhere, runs code, or takes memory out of proportion to its size."""

import io
import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import thalweg
import thalweg.numpy
from helpers import output, python
from thalweg import convert, statefile
from thalweg.cli.main import main
from thalweg.convert.files import write
from thalweg.explain import recognise
from thalweg.statefile import State
from thalweg.untrusted import printable

HUGE = 10**11


# -- archives and arrays -----------------------------------------------------------------------------


def npy(shape: tuple[int, ...], descr: str = "<f8", data: bytes = b"") -> bytes:
    """A .npy file that declares what it may not hold."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + data


def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def huge_shape(path: Path) -> None:
    zipped(path, {"params.npy": npy((HUGE,)), "grads.npy": npy((HUGE,))})


def many_rows_of_nothing(path: Path) -> None:
    zipped(path, {"params.npy": npy((HUGE, 0)), "grads.npy": npy((HUGE, 0))})


def entries_of_nothing(path: Path) -> None:
    zipped(path, {"params.npy": npy((HUGE,), "|V0"), "grads.npy": npy((HUGE,), "|V0")})


def zeros_compressed(path: Path) -> None:
    entries = 200_000_000 // 8
    content = npy((entries,), data=bytes(8 * entries))
    zipped(path, {"params.npy": content, "grads.npy": content}, zipfile.ZIP_DEFLATED)


def pickled_array(path: Path) -> None:
    np.savez(path, params=np.array([{}], object), grads=np.ones(3))


def one_name_twice(path: Path) -> None:
    zipped(path, {name: npy((1,), data=bytes(8)) for name in ("params.npy", "PARAMS.npy")})


def hidden_member(path: Path) -> None:
    """One whose entry in the directory is taken for the comment of the entry before."""
    np.savez(path, params=np.ones(3), grads=np.ones(3))
    content = bytearray(path.read_bytes())
    first = content.find(b"PK\x01\x02")
    second = content.find(b"PK\x01\x02", first + 1)
    content[first + 32 : first + 34] = struct.pack("<H", content.find(b"PK\x05\x06") - second)
    path.write_bytes(content)


def nested_json(path: Path) -> None:
    np.savez(path, **{"": np.array("[" * 100_000)})  # type: ignore[arg-type]


def declared_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 1 << 40) + b"{}" + bytes(100))


def rows_in_a_header(path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [HUGE, 0], "data_offsets": [0, 0]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


# -- torch -------------------------------------------------------------------------------------------


def checkpoint(path: Path, pickled: bytes, storage: bytes = bytes(64), **changed: Any) -> None:
    members = {"a/data.pkl": pickled, "a/byteorder": b"little", "a/data/0": storage, "a/version": b"3\n"}
    zipped(path, members, **changed)


def tensor(shape: tuple[int, ...], stride: tuple[int, ...], entries: int) -> bytes:
    """A pickle of {"optimizer": tensor}, as torch would write it."""

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(pickle.dumps(v, 2)[2:-1] for v in values) + b"t"

    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    storage += pickle.dumps(entries, 2)[2:-1] + b"tQ"
    arguments = storage + b"K\x00" + numbers(shape) + numbers(stride) + b"\x89ccollections\nOrderedDict\n)R"
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"
    return b"\x80\x02}X\x09\x00\x00\x00optimizer" + rebuilt + b"s."


def filled_by_order(path: Path) -> None:
    checkpoint(path, b"\x80\x02c__builtin__\nbytearray\n" + pickle.dumps((HUGE,), 2)[2:-1] + b"R.")


def more_than_is_stored(path: Path) -> None:
    checkpoint(path, tensor((1 << 20,), (1,), 1 << 20))


def storage_that_grows(path: Path) -> None:
    checkpoint(path, tensor((HUGE,), (1,), 16))


def one_entry_repeated(path: Path) -> None:
    checkpoint(path, tensor((HUGE,), (0,), 16))


def laughs(path: Path) -> None:
    content: Any = [1]
    for _ in range(40):
        content = [content, content]
    checkpoint(path, pickle.dumps({"optimizer": {"state": {}, "param_groups": content}}, 2))


def compressed(path: Path) -> None:
    checkpoint(path, tensor((16,), (1,), 16), compression=zipfile.ZIP_DEFLATED)


def zeros_in_a_checkpoint(path: Path) -> None:
    pickled = tensor((10**8,), (1,), 10**8)
    checkpoint(path, pickled, bytes(4 * 10**8), compression=zipfile.ZIP_DEFLATED)


def before_zip(path: Path) -> None:
    torch.save({"optimizer": torch.ones(3)}, path, _use_new_zipfile_serialization=False)


class Command:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def command(path: Path) -> None:
    checkpoint(path, pickle.dumps({"optimizer": Command()}, 2))


def command_alone(path: Path) -> None:
    path.write_bytes(pickle.dumps(Command()))


# -- HDF5 and Keras ----------------------------------------------------------------------------------


def h5(build: Callable[[h5py.Group, Path], None]) -> Callable[[Path], None]:
    """A weights file: iteration and learning rate, then what is built."""

    def write(path: Path) -> None:
        other = path.with_name("other.h5")
        with h5py.File(other, "w") as file:
            file["vars/0"], file["vars/1"], file["secret"] = np.int64(1), np.float32(1), np.ones(3)
        with h5py.File(path, "w") as file:
            group = file.create_group("optimizer/vars")
            group["0"], group["1"] = np.int64(1), np.float32(0.1)
            build(group, other)

    write.__name__ = build.__name__
    return write


@h5
def external_link(group: h5py.Group, other: Path) -> None:
    group["2"] = h5py.ExternalLink(other.name, "secret")


@h5
def external_group(group: h5py.Group, other: Path) -> None:
    file = group.file
    del file["optimizer"]
    file["optimizer"] = h5py.ExternalLink(other.name, "/")


@h5
def soft_link(group: h5py.Group, other: Path) -> None:
    group["2"] = h5py.SoftLink("/elsewhere")


@h5
def external_storage(group: h5py.Group, other: Path) -> None:
    group.create_dataset("2", (16,), np.uint8, external=[(str(other), 0, 16)])


@h5
def virtual_dataset(group: h5py.Group, other: Path) -> None:
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(other.name, "secret", (3,))
    group.create_virtual_dataset("2", layout)


@h5
def never_written(group: h5py.Group, other: Path) -> None:
    group.create_dataset("2", (HUGE,), "f4")


@h5
def chunks_of_zeros(group: h5py.Group, other: Path) -> None:
    group.create_dataset("2", (HUGE,), "f4", chunks=(1 << 20,), compression="gzip")


@h5
def one_chunk_of_zeros(group: h5py.Group, other: Path) -> None:
    group.create_dataset("2", (1,), "f4", maxshape=(None,), chunks=(1 << 29,), compression="gzip")


@h5
def texts(group: h5py.Group, other: Path) -> None:
    group.create_dataset("2", (3,), h5py.string_dtype())


@h5
def folder(group: h5py.Group, other: Path) -> None:
    group.create_group("2")


def model(optimizer: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        weights = path.with_name("w.h5")
        h5(lambda group, other: None)(weights)
        config = {"compile_config": {"optimizer": optimizer}}
        zipped(path, {"config.json": json.dumps(config).encode(), "model.weights.h5": weights.read_bytes()})

    return write


def rate(**config: Any) -> dict[str, Any]:
    return {"class_name": "Adam", "module": "keras.optimizers", "config": {"learning_rate": config}}


def nested_config(path: Path) -> None:
    zipped(path, {"config.json": b"[" * 100_000, "model.weights.h5": b""})


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "huge.npz": (huge_shape, "shape (100000000000,) has 0 bytes"),
    "rows.npz": (many_rows_of_nothing, "would unpack to 1,600,000,000,000 bytes, from "),
    "entries.npz": (entries_of_nothing, "which is no number"),
    "zeros.npz": (zeros_compressed, "would unpack to 400,0"),
    "pickled.npz": (pickled_array, "an array is of object, which is no number"),
    "twice.npz": (one_name_twice, "two of its members have one name"),
    "hidden.npz": (hidden_member, "it does not list as many members as it counts"),
    "nested.npz": (nested_json, "RecursionError"),
    "header.safetensors": (declared_header, "header"),
    "rows.safetensors": (rows_in_a_header, "would unpack to"),
    "order.pt": (filled_by_order, "it holds bytes"),
    "more.pt": (more_than_is_stored, "not resizable"),
    "grows.pt": (storage_that_grows, "not resizable"),
    "repeated.pt": (one_entry_repeated, "would unpack to 400,000,000,000 bytes"),
    "laughs.pt": (laughs, "it contains itself over and over"),
    "compressed.pt": (compressed, "is compressed"),
    "zeros.pt": (zeros_in_a_checkpoint, "would unpack to 400,0"),
    "before.pt": (before_zip, "not a zip file"),
    "command.pt": (command, "what else it holds is not read"),
    "alone.pth": (command_alone, "not a zip file"),
    "link.weights.h5": (external_link, "'2' is a link to elsewhere"),
    "group.weights.h5": (external_group, "'optimizer' is a link to elsewhere"),
    "soft.weights.h5": (soft_link, "'2' is a link to elsewhere"),
    "storage.weights.h5": (external_storage, "is kept in another file"),
    "virtual.weights.h5": (virtual_dataset, "is kept in another file"),
    "never.weights.h5": (never_written, "is not stored whole"),
    "chunks.weights.h5": (chunks_of_zeros, "would unpack to 400,0"),
    "chunk.weights.h5": (one_chunk_of_zeros, "would unpack to 2,147,483,6"),
    "texts.weights.h5": (texts, "which is no number"),
    "folder.weights.h5": (folder, "a variable is missing, or no array"),
    "layer.keras": (
        model(rate(class_name="Lambda", module="keras.layers", config={}, registered_name=None)),
        "it names 'Lambda', which is no learning rate schedule",
    ),
    "module.keras": (
        model(rate(class_name="Popen", module="subprocess", config={"args": "touch ran"})),
        "it names 'Popen', which is no learning rate schedule",
    ),
    "list.keras": (model([1]), "has no optimizer"),
    "none.keras": (model({"class_name": "Adam"}), "config"),
    "nested.keras": (nested_config, "RecursionError"),
}


@pytest.fixture(params=HOSTILE)
def hostile(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / str(request.param)
    HOSTILE[path.name][0](path)
    return path


def read(path: Path, out: Path) -> None:
    convert.file(path, out, source="keras" if "h5" in path.name else None, rule="adam", step=1, lr=0.1)


def test_a_hostile_file_is_refused_by_name(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in hostile.parent.iterdir()}
    with pytest.raises(ValueError) as refusal:
        read(hostile, hostile.with_name("out.npz"))
    told = str(refusal.value)
    assert str(hostile) in told
    assert HOSTILE[hostile.name][1] in told
    assert "\n" not in told
    words = ["convert", hostile.name, "out.npz", "--rule", "adam", "--set", "lr=0.1", "--from", "keras"]
    assert main(words if "h5" in hostile.name else words[:-2]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert {path: path.read_bytes() for path in hostile.parent.iterdir()} == before


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.endswith("npz")])
def test_a_hostile_recording_is_refused_by_name(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    HOSTILE[name][0](tmp_path / name)
    with pytest.raises(ValueError, match=name):
        recognise.read(tmp_path / name)
    assert main(["dialects", str(tmp_path / name)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
def test_no_file_takes_memory_out_of_proportion(tmp_path: Path) -> None:
    for name, (build, _) in HOSTILE.items():
        build(tmp_path / name)
    source = """
import resource, sys
from pathlib import Path
import h5py, ml_dtypes, safetensors.numpy, torch
import thalweg.convert.jax, thalweg.convert.keras, thalweg.convert.numpy, thalweg.convert.torch
from thalweg import convert
from thalweg.explain import recognise
def read(path):
    options = dict(source="keras" if "h5" in path.name else None, rule="adam", step=1, lr=0.1)
    convert.file(path, path.with_name("out.npz"), **options)
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (300 << 20),) * 2)
for path in map(Path, sys.argv[1:]):
    for reader in (read, recognise.read) if path.suffix == ".npz" else (read,):
        try:
            reader(path)
        except ValueError as error:
            assert "MemoryError" not in str(error) and "allocate" not in str(error), error
            print(path.name)
"""
    done = output(python(source, *(str(tmp_path / name) for name in HOSTILE)))
    assert {*done.split()} == {*HOSTILE}


@pytest.mark.parametrize("name", ["group.weights.h5", "link.weights.h5"])
def test_nothing_is_written_through_a_link(name: str, tmp_path: Path) -> None:
    """`into` is copied, and its optimizer replaced: not what its optimizer leads to."""
    HOSTILE[name][0](tmp_path / name)
    optimizer = thalweg.numpy.Adam()
    optimizer.update({"w": np.ones(3, np.float32)}, {"w": np.ones(3)})
    optimizer.save(tmp_path / "state.npz")
    other = (tmp_path / "other.h5").read_bytes()
    moved = convert.state(optimizer, source="thalweg.numpy", target="thalweg.keras")
    out = tmp_path / "out.weights.h5"
    try:
        write(out, moved, tmp_path / name)
    except ValueError:
        assert name == "group.weights.h5"  # a link of the group's own is deleted with what it leads to unread
    else:
        with h5py.File(out) as file:
            assert isinstance(file.get("optimizer/vars/2", getlink=True), h5py.HardLink)
    assert (tmp_path / "other.h5").read_bytes() == other


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
@pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "a.pt", "a.keras", "a.weights.h5"])
def test_what_is_no_file_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} is not a file"):
        read(tmp_path / name, tmp_path / "out.npz")


def test_what_a_file_says_is_shown_as_one_plain_line(tmp_path: Path) -> None:
    assert printable("a\x1b[2Jb\nc") == "a\N{REPLACEMENT CHARACTER}[2Jb"
    assert len(printable("x" * 10**6)) < 1100
    np.savez(tmp_path / "a.npz", **{"\x1b[2J": np.ones(3)})  # type: ignore[arg-type]
    with pytest.raises(ValueError) as refusal:
        recognise.read(tmp_path / "a.npz")
    assert "\x1b" not in str(refusal.value)


# -- states of thalweg.numpy -------------------------------------------------------------------------


@pytest.fixture
def stepped() -> thalweg.numpy.Optimizer:
    optimizer = thalweg.numpy.Optimizer(thalweg.chain(thalweg.ClipByNorm(1.0), thalweg.get("nadam")))
    params = {"w": np.ones((4, 3)), "b": np.ones(4, np.float32)}
    optimizer.update(params, {k: np.ones_like(p) for k, p in params.items()})
    return optimizer


WRONG: list[tuple[dict[str, Any], str]] = [
    *(
        ({"t": t}, "the number of steps is a whole number from 0 on")
        for t in (-5, 1.5, True, "3", None, 2**60)
    ),
    *(({"rule": rule}, "the rule is a name") for rule in (None, 3, ["adam"])),
    *(
        ({"hyperparameters": {"lr": lr}}, "lr is a finite number")
        for lr in (True, "0.1", [0.1], float("nan"), float("inf"))
    ),
    ({"hyperparameters": {"lr": -1.0}}, r"lr must lie in \[0, ∞\)"),
    ({"hyperparameters": {"beta_1": 1.5}}, r"beta_1 must lie in \[0, 1\)"),
    ({"hyperparameters": {"clip_norm": -1.0}}, r"clip_norm must lie in \(0, ∞\)"),
    ({"hyperparameters": [1]}, "hyperparameters are numbers by name"),
    *(
        ({"scalars": {"mu_product": x}}, "mu_product is a finite number")
        for x in ("1", None, True, float("nan"))
    ),
    ({"flags": {"nesterov": 1}}, "flags are true or false"),
    ({"flags": [True]}, "flags are true or false"),
    ({"treatments": "ClipByNorm"}, "treatments are names"),
    ({"treatments": [1]}, "treatments are names"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG)
@pytest.mark.parametrize("ending", ["npz", "safetensors", None])
def test_a_state_that_no_optimizer_can_have_is_refused(
    changed: dict[str, Any], message: str, ending: str | None, stepped: Any, tmp_path: Path
) -> None:
    state = stepped.state()
    for name, value in changed.items():
        merged = {**getattr(state, name), **value} if isinstance(value, dict) else value
        setattr(state, name, merged)
    check_refused(state, message, ending, stepped, tmp_path)


def _half(state: State) -> None:
    state.slots["m"]["w"] = state.slots["m"]["w"][:2]


def _one_less(state: State) -> None:
    del state.slots["m"]["w"]


def _integers(state: State) -> None:
    state.slots["m"]["w"] = state.slots["m"]["w"].astype(np.int64)


def _complex(state: State) -> None:
    state.slots["m"]["w"] = state.slots["m"]["w"].astype(np.complex64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_half, "slots of 'w' have shapes"),
        (_one_less, "slot 'v' is of other parameters than the first"),
        (_integers, "slot 'm' of 'w' is dtype"),
        (_complex, "slot 'm' of 'w' is dtype"),
    ],
)
@pytest.mark.parametrize("ending", ["npz", None])
def test_slots_that_do_not_match_are_refused(
    change: Any, message: str, ending: str | None, stepped: Any, tmp_path: Path
) -> None:
    state = stepped.state()
    change(state)
    check_refused(state, message, ending, stepped, tmp_path)


def check_refused(state: State, message: str, ending: str | None, stepped: Any, tmp_path: Path) -> None:
    """A state, or a file that holds it, is not loaded, and leaves the optimizer as it was."""
    source: Any = state
    if ending:
        source = tmp_path / f"state.{ending}"
        statefile.write(source, state)
        message = rf"state\.{ending} is not a state that thalweg wrote, or is damaged: .*{message}"
    rule, before = stepped.rule, stepped.state()
    with pytest.raises(ValueError, match=message):
        stepped.load(source)
    after = stepped.state()
    assert (stepped.rule, stepped.t) == (rule, 1)
    for slot, arrays in before.slots.items():
        for name, a in arrays.items():
            np.testing.assert_array_equal(after.slots[slot][name], a)


def test_slots_of_a_state_without_steps_are_the_rules(stepped: Any) -> None:
    state = stepped.state()
    state.t, state.slots["other"] = 0, state.slots["m"]
    with pytest.raises(ValueError, match="the state has the slots m, v, other, mu_product; this form"):
        stepped.load(state)


def test_big_endian_arrays_are_read_as_they_are_meant(stepped: Any, tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    stepped.save(path)
    with np.load(path) as file:
        arrays = {
            k: a if a.dtype.kind == "U" else a.astype(a.dtype.newbyteorder(">")) for k, a in file.items()
        }
    np.savez(path, **arrays)
    found = statefile.read(path)
    for slot, of_slot in stepped.state().slots.items():
        for name, a in of_slot.items():
            assert found.slots[slot][name].dtype == a.dtype
            assert found.slots[slot][name].dtype.isnative
            np.testing.assert_array_equal(found.slots[slot][name], a)


# -- writing -----------------------------------------------------------------------------------------


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"before")
    for failure in (OSError("disk full"), KeyboardInterrupt()):
        with pytest.raises(type(failure)):
            fail(path, failure)
        assert path.read_bytes() == b"before"
        assert [found.name for found in tmp_path.iterdir()] == ["a.npz"]
    with statefile.replaced(path) as file:
        file.write(b"after")
    assert path.read_bytes() == b"after"
    assert [found.name for found in tmp_path.iterdir()] == ["a.npz"]


def fail(path: Path, failure: BaseException) -> None:
    with statefile.replaced(path) as file:
        file.write(b"half")
        raise failure


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    for target in ("target", "absent"):
        (tmp_path / "target").write_bytes(b"untouched")
        link = tmp_path / f"to {target}"
        link.symlink_to(target)
        with statefile.replaced(link) as file:
            file.write(b"new")
        assert not link.is_symlink()
        assert link.read_bytes() == b"new"
        assert (tmp_path / "target").read_bytes() == b"untouched"
    assert not (tmp_path / "absent").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="files have no mode there")
def test_a_new_file_may_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with statefile.replaced(tmp_path / "a"):
            pass
        with statefile.replaced(tmp_path / "b", 0o600):
            pass
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o640, 0o600]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_replaced(put: Any, tmp_path: Path) -> None:
    put(tmp_path / "a.npz")
    with pytest.raises(FileExistsError, match="what is there is not a file"):
        thalweg.numpy.Adam().save(tmp_path / "a.npz")
    assert [found.name for found in tmp_path.iterdir()] == ["a.npz"]


def test_an_archive_may_unpack_to_what_weights_do(tmp_path: Path) -> None:
    """Zeros compress a thousandfold: up to a size any file may hold them."""
    path, zeros = tmp_path / "zeros.npz", np.zeros((4, 100_000))
    np.savez_compressed(path, params=zeros, grads=zeros)
    with pytest.raises(ValueError, match="the parameters never change"):
        recognise.read(path)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, params=zeros)
    assert len(buffer.getvalue()) * 500 < zeros.nbytes
