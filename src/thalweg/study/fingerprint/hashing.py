"""A hash of what a task or an optimizer is made of: it changes when the code or the data do.

The user's own code is followed. Of a function or a class, the source and everything that it names is hashed:
functions, classes, values and objects, and of the user's modules the attributes that are used. A module that
is passed as a value, or imported within a function, is hashed whole. In doubt, more is hashed than decides
the outcome: then trials run again that need not have, and never the other way round.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import importlib.util
import inspect
import os
import random
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.study.errors import StudyError
from thalweg.study.fingerprint.files import files_read, hashes
from thalweg.study.fingerprint.libraries import is_library, label, of_library


@dataclass(frozen=True)
class Fingerprint:
    """A hash of something, and what went into it.

    Attributes:
        text: 16 characters that change when it does.
        covers: what was hashed, and the hash of each: the parts by name, and the user's modules and files.
    """

    text: str
    covers: Mapping[str, str]


def fingerprint(*things: Any) -> str:
    """A hash of any things, in 16 characters; see `examine`."""
    return examine({"things": things}).text


def examine(parts: Mapping[str, Any], files: set[str] | None = None) -> Fingerprint:
    """The fingerprint of something, part by part.

    Of the user's functions and classes the source text is hashed, and what they name; of an installed
    library's the name. Of arrays every byte; of a torch Dataset its class, its attributes, its length and 16
    of its examples; of loaders their source and the first batch of every set.

    Args:
        parts: what it consists of, by name.
        files: paths of files that were read while it was made, as `files_read` collects them; those that are
            read here, for a Dataset's examples, are added.

    Raises:
        StudyError: an object is nested too deeply.
    """
    covers: dict[str, str] = {}
    sources: dict[str, Any] = {}
    with files_read() as read:
        for name, thing in parts.items():
            hasher = _Hasher(sources)
            try:
                hasher.add(thing)
            except RecursionError:
                raise StudyError(
                    f"the {name} is nested too deeply for a fingerprint: give the task a version= of your own"
                ) from None
            covers[name] = hasher.digest.hexdigest()[:16]
    for name, content in hashes(read | (files or set())):
        _source(sources, name).update(content.encode())
    covers |= {name: sources[name].hexdigest()[:16] for name in sorted(sources)}
    return Fingerprint(hashlib.sha256(repr(covers).encode()).hexdigest()[:16], covers)


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The parts, modules and files in which two versions differ."""
    return [name for name in {**then, **now} if then.get(name) != now.get(name)]


def _source(sources: dict[str, Any], name: str) -> Any:
    return sources.setdefault(name, hashlib.sha256())


# State of the whole process is hashed by name: its environment, its modules, and its random generators, which
# a trial seeds.
_DRAW: tuple[Any, ...] = (random.random, np.random.get_state)
_PROCESS_STATE = os.environ, sys.modules, *(function.__self__ for function in _DRAW)

_CONSTANT = bool | int | float | complex | str | bytes | Path

# Attributes by which a module says where it lies, and an object what made it.
_PLACES = {"__file__", "__name__", "__package__", "__path__", "__spec__", "__loader__", "__builtins__"}


@dataclass
class _Hasher:
    """Adds things to a digest, each with its kind, so that no two different ones have the same bytes.

    Attributes:
        sources: digests of the user's modules, by the names of their files.
        seen: objects that were added before, by id; they are referenced here, so that no other gets the id.
        within: containers that are being added.
    """

    sources: dict[str, Any]
    digest: Any = field(default_factory=hashlib.sha256)
    seen: dict[int, tuple[int, Any]] = field(default_factory=dict)
    within: set[int] = field(default_factory=set)

    def put(self, kind: str, *parts: Any) -> None:
        """Adds a kind and its parts: text and bytes as they are, anything else by `add`."""
        self.digest.update(f"{kind} {len(parts)};".encode())
        for part in parts:
            if isinstance(part, str | bytes):
                content = part.encode(errors="surrogatepass") if isinstance(part, str) else part
                self.digest.update(f"{type(part).__name__} {len(content)}:".encode() + content)
            else:
                self.add(part)

    def add(self, thing: Any) -> None:
        """Adds anything."""
        if thing is None or isinstance(thing, _CONSTANT):
            self.put(type(thing).__name__, repr(thing))
        elif hasattr(type(thing), "tocsr"):
            rows = thing.tocsr()
            self.put("sparse", str(rows.shape), rows.data, rows.indices, rows.indptr)
        elif hasattr(type(thing), "detach"):  # a tensor; the module torch has one too
            self._array(_numpy(thing))
        elif isinstance(thing, np.ndarray | np.generic):
            self._array(np.ascontiguousarray(thing))
        elif any(thing is state for state in _PROCESS_STATE):
            self.put("world", type(thing).__name__)
        elif isinstance(thing, Mapping | tuple | list | set | frozenset):
            self._container(thing)
        elif isinstance(thing, partial):
            self.put("partial", thing.func, thing.args, thing.keywords)
        elif id(thing) in self.seen:
            self.put("again", str(self.seen[id(thing)][0]))
        else:
            self.seen[id(thing)] = len(self.seen), thing
            self._object(thing)

    def _array(self, array: Any) -> None:
        if array.dtype.hasobject:
            self.put("objects", str(array.shape), array.ravel().tolist())
        else:
            self.put("array", str(array.dtype), str(array.shape))
            if array.nbytes:
                self.digest.update(array.reshape(-1).view(np.uint8).data)

    def _container(self, thing: Any) -> None:
        if id(thing) in self.within:
            self.put("itself")
            return
        self.within.add(id(thing))
        if isinstance(thing, Mapping):
            self.put("mapping", *([key, thing[key]] for key in thing))
        elif isinstance(thing, tuple | list):
            self.put("sequence", *thing)
        else:
            self.put("set", *sorted(map(self._hash_of_member, thing)))
        self.within.discard(id(thing))

    def _hash_of_member(self, thing: Any) -> str:
        """The hash of a member of a set, whose members have no order."""
        hasher = _Hasher(self.sources, seen=dict(self.seen), within=set(self.within))
        hasher.add(thing)
        return str(hasher.digest.hexdigest())

    def _object(self, thing: Any) -> None:
        if isinstance(thing, types.ModuleType):
            self._module(thing)
        elif inspect.ismethod(thing):
            self.put("method", thing.__self__, thing.__func__)
        elif isinstance(thing, types.FunctionType):
            self._function(thing)
        elif isinstance(thing, type):
            self._class(thing)
        elif inner := _wrapped(thing):
            self.put("wrapped", type(thing), inner)
        elif inspect.isroutine(thing) or isinstance(thing, np.ufunc):
            held = getattr(thing, "__self__", None)  # of a random generator's method, the generator
            owner = None if isinstance(held, types.ModuleType | type) else held
            self.put("library", f"{getattr(thing, '__module__', None)}.{thing.__name__}", owner)
        elif (array := _as_array(thing)) is not None:
            self._array(array)
        elif dataclasses.is_dataclass(thing):
            fields = [getattr(thing, f.name, None) for f in dataclasses.fields(thing)]
            self.put("record", type(thing), fields)
        elif hasattr(thing, "get_config"):
            weights = thing.get_weights() if hasattr(thing, "get_weights") else None
            self.put("configured", type(thing), repr(thing.get_config()), weights)
        else:
            self.put("object", type(thing), _state(thing), _examples(thing))

    # -- code ------------------------------------------------------------------------------------

    def _module(self, module: types.ModuleType) -> None:
        """Adds a library by its name, a module of the user's with all that it has."""
        if of_library(module.__name__):
            self.put("module", module.__name__)
            return
        file = getattr(module, "__file__", None)
        source = Path(file).read_bytes() if file and Path(file).suffix == ".py" else b""
        self._cover(module.__name__, source)
        names = sorted(name for name in vars(module) if not (name.startswith("__") and name.endswith("__")))
        self.put("module", source, {name: vars(module)[name] for name in names})

    def _function(self, function: types.FunctionType) -> None:
        code = function.__code__
        cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
        if is_library(code.co_filename):
            # A library's wrapper of the user's function has it in a cell or in `__wrapped__`. Caches in its
            # cells are left out.
            held = [cell for cell in cells if not isinstance(cell, dict)]
            inner = getattr(function, "__wrapped__", None)
            self.put("library", f"{function.__module__}.{function.__qualname__}", held, inner)
            return
        try:
            source = inspect.getsource(code)
        except Exception:  # there is no file, or it has changed since
            source = repr(_bytecode(code))
        self._cover(function.__module__, source.encode(errors="surrogatepass"))
        written: list[Any] = [source]
        if function.__name__ == "<lambda>":  # its line may hold another
            written.append(repr(_bytecode(code)))
        defaults = function.__defaults__, function.__kwdefaults__
        self.put("function", written, defaults, cells, vars(function), self._named(function))

    def _named(self, function: types.FunctionType) -> dict[str, Any]:
        """What a function's code refers to outside itself, by name."""
        known = function.__globals__
        named: dict[str, Any] = {}
        for code in _codes(function.__code__):
            steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
            for place, step in enumerate(steps):
                if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval in known:
                    if step.argval not in _PLACES:
                        names = step.argval, *_attributes_after(steps[place + 1 :])
                        named |= self._attribute(function.__module__, names, known[step.argval])
                elif step.opname == "IMPORT_NAME":
                    level, names = (before.argval for before in steps[place - 2 : place])
                    named |= self._imports(step.argval, names, level, known.get("__package__"))
            if {"import_module", "__import__"} & {*code.co_names}:
                for name in code.co_consts:
                    if isinstance(name, str) and name.replace(".", "").isidentifier():
                        named |= self._imports(name, None, 0, None)
        return {name: named[name] for name in sorted(named)}

    def _attribute(self, module: str | None, names: Sequence[str], value: Any) -> dict[str, Any]:
        """What a chain of attributes such as `models.nets.Net` leads to, through modules of the user's."""
        name, *attributes = names
        for attribute in attributes:
            ours = isinstance(value, types.ModuleType) and not of_library(value.__name__)
            if not ours or not hasattr(value, attribute):
                break
            module = value.__name__
            self._cover(module, attribute.encode())
            name, value = f"{name}.{attribute}", getattr(value, attribute)
        self._constant(module, value)
        return {name: value}

    def _imports(
        self, name: str, names: Iterable[str] | None, level: int, package: str | None
    ) -> dict[str, Any]:
        """What an import statement within a function imports from modules of the user's."""
        try:
            module = _imported(name, level, package)
        except Exception:  # the function will raise it when it is called
            return {}
        if module is None:
            return {}
        self._cover(module.__name__, b"")
        if names:
            imported = {f"{module.__name__}.{each}": getattr(module, each, None) for each in names}
            for value in imported.values():
                self._constant(module.__name__, value)
            return imported
        return {each: sys.modules[each] for each in (module.__name__, module.__name__.partition(".")[0])}

    def _class(self, thing: type) -> None:
        if of_library(thing.__module__):
            self.put("library", f"{thing.__module__}.{thing.__qualname__}")
            return
        try:
            source = inspect.getsource(thing)
        except Exception:
            source = thing.__qualname__
        self._cover(thing.__module__, source.encode(errors="surrogatepass"))
        bases = [base for base in (type(thing), *thing.__bases__) if base not in (object, type)]
        members = [
            [name, member]
            for name, member in vars(thing).items()
            if isinstance(member, types.FunctionType) or not (name.startswith("_") and name.endswith("_"))
        ]
        for _, member in members:
            self._constant(thing.__module__, member)
        self.put("class", source, bases, members)

    def _constant(self, module: str | None, value: Any) -> None:
        """Adds a constant to its module's hash, so that a change is reported by the module's name."""
        if isinstance(value, _CONSTANT):
            self._cover(module, repr(value).encode())

    def _cover(self, module: str | None, source: bytes) -> None:
        _source(self.sources, label(module or "__main__")).update(source)


def _attributes_after(steps: Iterable[dis.Instruction]) -> Iterator[str]:
    """The attributes that the next instructions load, one from the other."""
    for step in steps:
        if step.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
            return
        yield step.argval


def _bytecode(code: types.CodeType) -> tuple[Any, ...]:
    """What a function does, where its source is not available."""
    consts = [_bytecode(c) if isinstance(c, types.CodeType) else c for c in code.co_consts]
    return code.co_code, code.co_names, consts


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code, and that of the functions and classes within it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _codes(const)


def _imported(name: str, level: int, package: str | None) -> types.ModuleType | None:
    """The module of the user's that an import statement names; None where it is a library."""
    whole = importlib.util.resolve_name("." * level + name, package) if level else name
    if whole not in sys.modules:
        top = importlib.util.find_spec(whole.partition(".")[0])
        places = [top.origin, *(top.submodule_search_locations or ())] if top else []
        if is_library(next(filter(None, places), None)):
            return None
    return None if of_library(whole) else importlib.import_module(whole)


# -- objects --------------------------------------------------------------------------------------


def _wrapped(thing: Any) -> Any:
    """What a library's descriptor or decorator wraps; None where it wraps nothing."""
    if isinstance(thing, property):
        return [thing.fget, thing.fset, thing.fdel]
    if isinstance(thing, functools.cached_property):
        return thing.func
    decorates = isinstance(thing, staticmethod | classmethod) or callable(thing)
    return getattr(thing, "__wrapped__", None) if decorates and of_library(type(thing).__module__) else None


def _as_array(thing: Any) -> Any:
    """Another library's array as NumPy's; None where it is not an array, or not computed yet."""
    try:
        named = all(hasattr(thing, name) for name in ("__array__", "dtype", "shape"))
        return np.ascontiguousarray(thing) if named else None
    except Exception:
        return None


def _state(thing: Any) -> Any:
    """An object's state: the attributes of the user's, what pickling would keep of a library's."""
    own = not of_library(type(thing).__module__)
    slots = [name for kind in type(thing).__mro__ for name in _slots(kind) if hasattr(thing, name)]
    held = {**getattr(thing, "__dict__", {}), **{name: getattr(thing, name) for name in slots}}
    if own and held:
        return held
    try:
        if hasattr(thing, "get_state"):  # torch's random generators
            return thing.get_state()
        reduced = thing.__reduce_ex__(4)
    except Exception:  # a lock, a file, a connection: what cannot be pickled has no state to hash
        return held if own else {k: v for k, v in held.items() if isinstance(v, bool | int | float | str)}
    parts = reduced if isinstance(reduced, tuple) else (reduced,)
    return [list(part) if isinstance(part, Iterator) else part for part in parts if part is not thing]


def _slots(kind: type) -> Iterable[str]:
    slots = vars(kind).get("__slots__", ())
    return [slots] if isinstance(slots, str) else [n for n in slots if n not in ("__dict__", "__weakref__")]


def _examples(thing: Any) -> list[Any]:
    """16 of the examples of a torch Dataset or the like, which may make them on demand."""
    if not (hasattr(thing, "__getitem__") and hasattr(thing, "__len__")):
        return []
    try:
        count = len(thing)
        indices = sorted({count * i // 16 for i in range(16)}) if count else []
        examples = [thing[index] for index in indices]
    except Exception:  # a table, indexed by its columns: its state has everything
        return []
    return (
        [] if any(type(one) is type(thing) for one in examples) else [count, *examples]
    )  # slices have slices


def _numpy(tensor: Any) -> Any:
    """A tensor as a NumPy array, whatever its layout and dtype."""
    tensor = tensor.detach().cpu()
    tensor = tensor.to_dense() if tensor.is_sparse or str(tensor.layout) != "torch.strided" else tensor
    tensor = tensor.resolve_conj().resolve_neg()
    try:
        return np.ascontiguousarray(tensor.numpy())
    except TypeError:  # bfloat16 and such
        return np.ascontiguousarray(tensor.float().numpy())


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
