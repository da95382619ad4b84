"""Which of the user's files are read while something runs: what comes of it depends on them too."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from thalweg.study.data.files import cache
from thalweg.study.fingerprint.libraries import is_library

# A file is read whole up to so many bytes; of a larger one count its length, its age and its two ends.
WHOLE, END = 2**28, 2**20

# Code counts by what is used of it, not as a file; what is compiled is made from it, or a library's.
_CODE = (".py", ".pyi", ".pyc", ".so", ".pyd", ".dll", ".dylib", ".nbi", ".nbc")
# The system's own, and what programs keep for themselves.
_SYSTEM = ("/dev/", "/etc/", "/proc/", "/sys/", "/usr/")
_KEPT = {"__pycache__", ".cache", ".config", ".git", ".keras", ".matplotlib", ".pytest_cache"}

_read: ContextVar[set[str] | None] = ContextVar("read", default=None)


@contextmanager
def watched() -> Iterator[set[str]]:
    """Notes the paths of files that this thread opens to read, as Python's own `open` is told them."""
    _listen()
    outer, found = _read.get(), set[str]()
    token = _read.set(found)
    try:
        yield found
    finally:
        _read.reset(token)
        if outer is not None:
            outer |= found


@functools.cache
def _listen() -> None:
    """Once a process: such a hook stays for its life."""
    sys.addaudithook(_heard)


def _heard(event: str, details: tuple[Any, ...]) -> None:
    if event != "open" or (found := _read.get()) is None:
        return
    path, mode, flags = (*details, None, None)[:3]
    writes = set(mode) & set("wxa") if isinstance(mode, str) else (flags or 0) & os.O_WRONLY
    if isinstance(path, str | bytes) and not writes:
        with suppress(OSError, ValueError):  # whatever is raised here would reach who opens
            found.add(str(Path(os.fsdecode(path)).absolute()))


def contents(paths: set[str]) -> list[tuple[str, str]]:
    """Name and hash of the content of each that is the user's data and still there, in a fixed order."""
    files = (Path(path) for path in paths if _is_data(Path(path)))
    return sorted((path.name, _hash(path)) for path in files)


def _is_data(path: Path) -> bool:
    text = str(path)
    kept = path.suffix in _CODE or not _KEPT.isdisjoint(path.parts) or path.is_relative_to(cache().parent)
    installed = is_library(text) or text.startswith((*_SYSTEM, sys.prefix + os.sep, sys.base_prefix + os.sep))
    return not kept and not installed and os.access(path, os.R_OK) and path.is_file()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= WHOLE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256(f"{size} {os.fstat(file.fileno()).st_mtime_ns}".encode())
        digest.update(file.read(END))
        file.seek(-END, os.SEEK_END)
        digest.update(file.read(END))
        return digest.hexdigest()
