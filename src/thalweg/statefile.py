"""Optimizer state in a file: .npz or .safetensors, never pickle."""

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FORMAT = "thalweg state 1"


@dataclass
class State:
    """An optimizer's state.

    Attributes:
        rule: the rule's name.
        t: number of steps taken.
        hyperparameters: by name; None where a schedule gives it.
        scalars: slots that are one number, by name.
        slots: slots that are arrays: for each, an array for each parameter, by name.
    """

    rule: str
    t: int
    hyperparameters: dict[str, float | None]
    scalars: dict[str, float]
    slots: dict[str, dict[str, NDArray[Any]]]


def write(path: Path, state: State) -> None:
    """Write a state; a file there is replaced whole or not at all.

    Raises:
        ValueError: the path ends neither in .npz nor in .safetensors.
        ImportError: .safetensors without the safetensors package.
        OSError: the file cannot be written.
    """
    kind = _kind(path)
    arrays: dict[str, NDArray[Any]] = {}
    bfloat16 = []
    for slot, of_slot in state.slots.items():
        for name, a in of_slot.items():
            key = f"{slot}/{name}"
            if a.dtype.name == "bfloat16":  # neither format's NumPy reader knows it: stored as its bits
                bfloat16.append(key)
                a = a.view(np.uint16)
            arrays[key] = np.ascontiguousarray(a).reshape(a.shape)
    about = asdict(State(state.rule, state.t, state.hyperparameters, state.scalars, {}))
    about |= {"format": _FORMAT, "slots": list(state.slots), "bfloat16": bfloat16}
    text = json.dumps(about)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        try:
            if kind == "npz":
                np.savez(file, **{"": np.array(text), **arrays})  # type: ignore[arg-type]
            else:
                file.write(_safetensors().save(arrays, metadata={"thalweg": text}))
        except BaseException:
            Path(file.name).unlink()
            raise
    Path(file.name).replace(path)


def read(path: Path) -> State:
    """Read a state.

    Raises:
        ValueError: the file is not one that `write` made.
        OSError: it cannot be read.
    """
    kind = _kind(path)
    try:
        if kind == "npz":
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {k: file[k] for k in file.files}
            text = str(arrays.pop(""))
        else:
            content = path.read_bytes()
            arrays = _safetensors().load(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            text = header["__metadata__"]["thalweg"]
        about = json.loads(text)
        if about.pop("format") != _FORMAT:
            raise ValueError("of another version")
        as_bits = about.pop("bfloat16")
        slots: dict[str, dict[str, Any]] = {slot: {} for slot in about.pop("slots")}
        for key, a in arrays.items():
            slot, name = key.split("/", 1)
            slots[slot][name] = a.view("bfloat16") if key in as_bits else a
        return State(**about, slots=slots)
    except (OSError, ImportError):
        raise
    except Exception as error:  # whatever a broken archive raises, the user is told which file it is
        raise ValueError(f"{path} is not a state that thalweg wrote, or is damaged: {error}") from error


def _kind(path: Path) -> str:
    if path.suffix not in (".npz", ".safetensors"):
        raise ValueError(f"a state is kept in a .npz or .safetensors file, not in {path.name!r}")
    return path.suffix[1:]


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "a .safetensors file needs the package: pip install 'thalweg[safetensors]'"
        ) from error
    return safetensors.numpy
