"""Optimizer state in a file: .npz or .safetensors, never pickle."""

import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from thalweg.registry import find
from thalweg.rule import Rule, is_flag
from thalweg.treatments import Chain, Treatment, chain

_FORMAT = "thalweg state 2"

Arrays = dict[str, NDArray[Any]]


@dataclass
class State:
    """An optimizer's state.

    Attributes:
        rule: the rule's name.
        t: number of steps taken.
        hyperparameters: those in use, by name; None where a schedule gives it.
        scalars: slots that are one number, by name.
        slots: slots that are arrays: for each, an array for each parameter, by name.
        flags: the rule's form: the value of each of its flags.
        treatments: names of what the rule stands within, in order.
    """

    rule: str
    t: int
    hyperparameters: dict[str, float | None]
    scalars: dict[str, float]
    slots: dict[str, Arrays]
    flags: dict[str, bool] = field(default_factory=dict)
    treatments: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, rule: Rule, t: int, scalars: Mapping[str, float], slots: Mapping[str, Arrays]) -> "State":
        """The state of a rule after `t` steps; arrays are copied."""
        links, inner = apart(rule)
        return cls(
            rule.name,
            t,
            {name: None if callable(value) else float(value) for name, value in rule.values.items()},
            dict(scalars),
            {slot: {name: a.copy() for name, a in arrays.items()} for slot, arrays in slots.items()},
            {f.name: getattr(inner, f.name) for f in fields(inner) if is_flag(f)},  # type: ignore[arg-type]
            [type(link).__name__ for link in links],
        )

    def rebuilt(self, **schedules: Any) -> Rule:
        """The rule that wrote this state.

        Args:
            schedules: for each hyperparameter that a schedule gives, the schedule, or a number to go on with.

        Raises:
            ValueError: no rule or treatment has the name, or a schedule is not given.
        """
        values: dict[str, Any] = {**self.hyperparameters, **schedules}
        if absent := [name for name, value in values.items() if value is None]:
            raise ValueError(
                f"{self.rule}: a schedule gives {', '.join(absent)}, and a state holds no schedules: "
                f"give {absent[0]}="
            )
        kinds = {kind.__name__: kind for kind in _treatments()}
        if unknown := [name for name in self.treatments if name not in kinds]:
            raise ValueError(f"no treatment is named {unknown[0]!r}; import the module that defines it")
        links = [kinds[name](**_pick(kinds[name], values)) for name in self.treatments]
        inner = find(self.rule)
        own = dict.fromkeys(f.name for f in fields(inner) if not is_flag(f))  # type: ignore[arg-type]
        return chain(*links, inner(**{**own, **_pick(inner, values), **self.flags}))


def apart(rule: Rule) -> tuple[tuple[Treatment, ...], Rule]:
    """The treatments that a rule stands within, and the rule itself."""
    return (rule.treatments, rule.rule) if isinstance(rule, Chain) else ((), rule)


def _pick(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f.name: values[f.name] for f in fields(kind) if f.name in values}


def _treatments() -> Iterator[type[Treatment]]:
    pending = Treatment.__subclasses__()
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        yield kind


def write(path: Path, state: State) -> None:
    """Write a state; a file there is replaced whole or not at all.

    Raises:
        ValueError: the path ends neither in .npz nor in .safetensors.
        ImportError: .safetensors without the safetensors package.
        OSError: the file cannot be written.
    """
    arrays = {f"{slot}/{name}": a for slot, of_slot in state.slots.items() for name, a in of_slot.items()}
    about = {f.name: getattr(state, f.name) for f in fields(state) if f.name != "slots"}
    write_arrays(path, arrays, {**about, "slots": list(state.slots), "format": _FORMAT})


def read(path: Path) -> State:
    """Read a state.

    Raises:
        ValueError: the file is not one that `write` made.
        OSError: it cannot be read.
    """
    arrays, about = read_arrays(path)
    with _whole(path):
        if about.pop("format") != _FORMAT:
            raise ValueError("of another version")
        slots: dict[str, Arrays] = {slot: {} for slot in about.pop("slots")}
        for key, a in arrays.items():
            slot, name = key.split("/", 1)
            slots[slot][name] = a
        return State(**about, slots=slots)


def write_arrays(path: Path, arrays: Arrays, about: Mapping[str, Any]) -> None:
    """Write arrays by name, and what is to be known about them: see `write`."""
    kind = _kind(path)
    stored: Arrays = {}
    bfloat16 = []
    for key, a in arrays.items():
        if a.dtype.name == "bfloat16":  # neither format's NumPy reader knows it: stored as its bits
            bfloat16.append(key)
            a = a.view(np.uint16)
        stored[key] = np.ascontiguousarray(a).reshape(a.shape)
    text = json.dumps({**about, "bfloat16": bfloat16})
    with replaced(path) as file:
        if kind == "npz":
            np.savez(file, **{"": np.array(text), **stored})  # type: ignore[arg-type]
        else:
            file.write(_safetensors().save(stored, metadata={"thalweg": text}))


def read_arrays(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Read what `write_arrays` wrote: see `read`."""
    kind = _kind(path)
    with _whole(path):
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
        as_bits = about.pop("bfloat16")
        return {k: a.view("bfloat16") if k in as_bits else a for k, a in arrays.items()}, about


@contextmanager
def replaced(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of the one at `path` once it is whole.

    Nothing is left of it otherwise. A link at `path` is replaced; what it leads to stays as it was.

    Args:
        path: the file.
        mode: who may read and write it, less the umask.

    Raises:
        OSError: it cannot be written, or what is there is no file.
    """
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "what is there is not a file", str(path))
    beside = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(beside, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Whatever a broken archive raises, the user is told which file it is."""
    try:
        yield
    except (OSError, ImportError):
        raise
    except Exception as error:
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
