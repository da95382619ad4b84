"""What a task or an optimizer is made of, as a short text that changes when its code or data do."""

from __future__ import annotations

import dataclasses
import dis
import hashlib
import inspect
import sys
import sysconfig
import types
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.study import data as sources_of

_LIBRARIES = (sysconfig.get_path("stdlib"), str(Path(__file__).parents[1]))


def fingerprint(*things: Any) -> str:
    """What a task is made of, in 16 characters that change when it does.

    Of functions and classes the source text counts, and that of the functions, classes and plain values
    that they name, as far as they are the user's: what is from an installed library counts by name. Of
    arrays every byte counts; of a torch Dataset its class, its length and 16 of its examples; of loaders
    their source and the first batch of every part.
    """
    digest = hashlib.sha256()
    _add(digest, things, {})
    return digest.hexdigest()[:16]


def _add(digest: Any, thing: Any, seen: dict[int, Any]) -> None:
    """Adds one thing to a digest, with its kind, so that no two different ones look alike.

    Args:
        digest: takes bytes.
        thing: what to add.
        seen: objects that were added before, by id; held, so that no other takes the id.
    """

    def add(kind: str, *parts: Any) -> None:
        digest.update(f"{kind} {len(parts)};".encode())
        for part in parts:
            if isinstance(part, str | bytes):
                content = part.encode() if isinstance(part, str) else part
                digest.update(f"{type(part).__name__} {len(content)}:".encode() + content)
            else:
                _add(digest, part, seen)

    if thing is None or isinstance(thing, bool | int | float | complex | str | bytes | Path):
        add(type(thing).__name__, repr(thing))
    elif sources_of.is_sparse(thing):
        rows = thing.tocsr()
        add("sparse", str(rows.shape), rows.data, rows.indices, rows.indptr)
    elif hasattr(thing, "detach") or isinstance(thing, np.ndarray | np.generic):
        array = np.ascontiguousarray(thing.detach().cpu().numpy() if hasattr(thing, "detach") else thing)
        if array.dtype.hasobject:
            add("objects", repr(array.tolist()))
        else:
            add("array", str(array.dtype), str(array.shape))
            digest.update(array.data)
    elif isinstance(thing, Mapping):
        add("mapping", *(part for key in thing for part in (key, thing[key])))
    elif isinstance(thing, tuple | list):
        add("sequence", *thing)
    elif isinstance(thing, set | frozenset):
        add("set", *sorted(map(repr, thing)))
    elif isinstance(thing, partial):
        add("partial", thing.func, thing.args, thing.keywords)
    elif id(thing) in seen:
        add("again")
    else:
        seen[id(thing)] = thing
        _add_object(add, thing)


def _add_object(add: Callable[..., None], thing: Any) -> None:
    if isinstance(thing, types.ModuleType):
        add("module", thing.__name__)
    elif inspect.ismethod(thing):
        add("method", thing.__self__, thing.__func__)
    elif isinstance(thing, types.FunctionType | type):
        name = f"{thing.__module__}.{thing.__qualname__}"
        file = getattr(sys.modules.get(thing.__module__), "__file__", None)
        if is_library(file) and thing.__module__ != "__main__":  # which has no file in a notebook
            add("library", name)
        elif isinstance(thing, type):
            bases = [base for base in thing.__bases__ if base is not object]
            members = [m for m in vars(thing).values() if isinstance(m, types.FunctionType)]
            add("class", _source(thing, thing.__qualname__), bases, members)
        else:
            cells = [c.cell_contents for c in thing.__closure__ or () if _filled(c)]
            code = thing.__code__
            written: list[Any] = [_source(thing, code.co_code)]
            if thing.__name__ == "<lambda>":  # whose line may have another
                written += [code.co_code, code.co_names, [c for c in code.co_consts if not inspect.iscode(c)]]
            add("function", written, thing.__defaults__, cells, _named(thing))
    elif dataclasses.is_dataclass(thing):
        fields = [getattr(thing, f.name) for f in dataclasses.fields(thing)]
        add("record", type(thing), fields)
    elif hasattr(thing, "__getitem__") and hasattr(thing, "__len__"):
        places = sorted({len(thing) * i // 16 for i in range(16)}) if len(thing) else []
        add("examples", type(thing), len(thing), [thing[place] for place in places])
    elif isinstance(thing, types.BuiltinFunctionType | np.ufunc):
        add("library", f"{getattr(thing, '__module__', None)}.{thing.__name__}")
    elif hasattr(thing, "get_config"):
        add("configured", type(thing), repr(thing.get_config()))
    else:
        plain = (bool, int, float, str, tuple)
        held = {k: v for k, v in getattr(thing, "__dict__", {}).items() if isinstance(v, plain)}
        add("object", type(thing), held)


def is_library(file: str | None) -> bool:
    """Whether a module's file is an installed library's; built-in modules have none."""
    return file is None or file.startswith(_LIBRARIES) or "-packages" in file


def _source(thing: Any, otherwise: str | bytes) -> str | bytes:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return otherwise


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _named(function: types.FunctionType) -> dict[str, Any]:
    """What a function names of its module: functions, classes and plain values."""
    names: set[str] = set()
    codes = [function.__code__]
    for code in codes:
        names.update(i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL")
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
    known = function.__globals__
    kinds = (types.FunctionType, type, partial, bool, int, float, str, tuple, list, dict, np.ndarray)
    return {name: known[name] for name in sorted(names) if isinstance(known.get(name), kinds)}
