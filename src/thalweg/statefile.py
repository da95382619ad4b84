"""Optimizer state in a file: .npz or .safetensors, never pickle."""

import errno
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from thalweg.errors import Argument, InvalidArgumentError, InvalidFileError, MissingPackageError
from thalweg.program.sweeps import DTYPES
from thalweg.registry import find, find_treatment, name_of
from thalweg.rule import Rule, check, is_flag
from thalweg.treatments import Chain, Treatment, chain
from thalweg.untrusted import blamed, bound, npz, opened

_FORMAT = "thalweg state 2"
_WHAT = "a state that thalweg wrote"
# Steps; up to here a float64 counts them one by one.
_MANY = 1 << 53

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")


@dataclass
class State:
    """An optimizer's state.

    Attributes:
        rule: the rule's name; "module:Name" of one that is not registered.
        t: number of steps taken.
        hyperparameters: those in use, by name; None where a schedule gives it.
        scalars: slots that are one number, by name.
        slots: slots that are arrays: for each, an array for each parameter, by name.
        flags: the form of the rule and of its treatments: the value of each flag.
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
            name_of(type(inner)),
            t,
            {name: None if callable(value) else float(value) for name, value in rule.values.items()},
            dict(scalars),
            {slot: {name: a.copy() for name, a in arrays.items()} for slot, arrays in slots.items()},
            rule.flags,
            [name_of(type(link)) for link in links],
        )

    def rebuilt(self, **schedules: Any) -> Rule:
        """The rule that wrote this state.

        Args:
            schedules: for each hyperparameter that a schedule gives, the schedule, or a number to go on with.

        Raises:
            ValueError: no rule or treatment that is imported has the name, or a schedule is not given.
        """
        values: dict[str, Any] = {**self.hyperparameters, **schedules}
        if absent := [name for name, value in values.items() if value is None]:
            raise InvalidArgumentError(
                f"{self.rule}: a schedule gives {', '.join(absent)}, and a state holds no schedules: give ",
                Argument(absent[0], hyperparameter=True),
            )
        links = [_made(find_treatment(name), values | self.flags) for name in self.treatments]
        return chain(*links, _made(find(self.rule, importing=False), values | self.flags))


def apart(rule: Rule) -> tuple[tuple[Treatment, ...], Rule]:
    """The treatments that a rule stands within, and the rule itself."""
    return (rule.treatments, rule.rule) if isinstance(rule, Chain) else ((), rule)


def _made(kind: type[T], values: Mapping[str, Any]) -> T:
    """A rule or a treatment with those of the values that are its own; other hyperparameters are None."""
    absent = {f.name: None for f in fields(kind) if not is_flag(f)}  # type: ignore[arg-type]
    return kind(**absent | {f.name: values[f.name] for f in fields(kind) if f.name in values})  # type: ignore[arg-type]


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
        ValueError: the file is not one that `write` made; the message says what is wrong with it.
        OSError: it cannot be read.
    """
    arrays, about = read_arrays(path)
    with blamed(path, _WHAT):
        return state_of(arrays, about)


def state_of(arrays: Arrays, about: Mapping[str, Any]) -> State:
    """The state in a file that `read_arrays` has read.

    Raises:
        ValueError: it is none.
    """
    if about.get("format") != _FORMAT:
        raise ValueError("it says nothing about an optimizer" if not about else "it is of another version")
    named = {f.name for f in fields(State)}
    if {*about} != {*named, "format"} or not _all(about["slots"], list, str):
        raise ValueError(f"it is to say {', '.join(sorted(named))}; it says {', '.join(sorted(about))}")
    slots: dict[str, Arrays] = {slot: {} for slot in about["slots"]}
    for key, a in arrays.items():
        slot, _, name = key.partition("/")
        if slot not in slots:
            raise ValueError(f"it names no slot {slot!r}")
        slots[slot][name] = a
    return checked(State(**{name: about[name] for name in named - {"slots"}}, slots=slots))


def checked(state: State) -> State:
    """A state, as it is, that some optimizer can have had.

    Raises:
        ValueError: none can; the message says what is wrong.
    """
    if not isinstance(state.rule, str):
        raise ValueError(f"the rule is a name, got {state.rule!r}")
    if not _is_number(state.t, Integral) or not 0 <= state.t < _MANY:
        raise ValueError(f"the number of steps is a whole number from 0 on, got {state.t!r}")
    for what in ("hyperparameters", "scalars"):
        values = getattr(state, what)
        if not isinstance(values, Mapping):
            raise ValueError(f"{what} are numbers by name, got {values!r}")
        for name, value in values.items():
            scheduled = value is None and what == "hyperparameters"
            if not scheduled and not (_is_number(value, Real) and math.isfinite(value)):
                raise ValueError(f"{name} is a finite number, got {value!r}")
    if not _all(state.flags, Mapping, bool):
        raise ValueError(f"flags are true or false by name, got {state.flags!r}")
    if not _all(state.treatments, list, str):
        raise ValueError(f"treatments are names, got {state.treatments!r}")
    _check_ranges(state)
    _check_slots(state.slots)
    return state


def _is_number(x: Any, kind: type) -> bool:
    return isinstance(x, kind) and not isinstance(x, bool)


def _all(x: Any, container: type, kind: type) -> bool:
    """Whether `x` is a list, or a mapping by name, of one kind of things."""
    items = x.values() if isinstance(x, Mapping) else x
    return isinstance(x, container) and all(isinstance(item, kind) for item in items)


def _check_ranges(state: State) -> None:
    """Refuse values that the rule or a treatment does not admit, as far as they are known here."""
    owners: list[type] = []
    for name in state.treatments:
        with suppress(ValueError):
            owners.append(find_treatment(name))
    with suppress(ValueError):
        owners.append(find(state.rule, importing=False))
    values = {**state.hyperparameters, **state.flags}
    for owner in owners:
        for f in fields(owner):
            if values.get(f.name) is not None:
                check(owner, f, values[f.name])


def _check_slots(slots: Mapping[str, Arrays]) -> None:
    """Refuse slots that are not of the same parameters."""
    first = next(iter(slots.values()), {})
    for slot, arrays in slots.items():
        if arrays.keys() != first.keys():
            raise ValueError(f"slot {slot!r} is of other parameters than the first")
        for name, a in arrays.items():
            if a.dtype.name not in DTYPES or not a.dtype.isnative:
                raise ValueError(f"slot {slot!r} of {name!r} is {a.dtype!r}; slots are {', '.join(DTYPES)}")
            if a.shape != first[name].shape:
                raise ValueError(f"slots of {name!r} have shapes {first[name].shape} and {a.shape}")


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
    """Read what `write_arrays` wrote: see `read`. What another program wrote says nothing of itself."""
    kind = _kind(path)
    with opened(path, _WHAT) as file:
        if kind == "npz":
            arrays = npz(file)
            text = str(arrays.pop("")) if "" in arrays else None
        else:
            content = file.read()
            arrays = _safetensors().load(content)
            bound(((a.shape, a.itemsize) for a in arrays.values()), len(content))
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            text = (header.get("__metadata__") or {}).get("thalweg")
        if text is None:
            return arrays, {}
        about = json.loads(text)
        if not isinstance(about, dict) or not _all(as_bits := about.pop("bfloat16", None), list, str):
            raise ValueError("it does not say what its arrays are")
        for key in as_bits:
            import ml_dtypes

            if key not in arrays or arrays[key].dtype != np.uint16:
                raise ValueError(f"{key!r} is not bfloat16")
            arrays[key] = arrays[key].view(ml_dtypes.bfloat16)
        return arrays, about


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
    if not path.parent.exists():
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {str(path.parent)!r}")
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


def _kind(path: Path) -> str:
    if path.suffix not in (".npz", ".safetensors"):
        raise InvalidFileError(f"a state is kept in a .npz or .safetensors file, not in {path.name!r}")
    return path.suffix[1:]


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingPackageError("a .safetensors file", "safetensors", "safetensors") from error
    return safetensors.numpy
