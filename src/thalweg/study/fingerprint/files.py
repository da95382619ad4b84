"""Which of the user's files are read while something runs: the result depends on them too."""

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

# A file of up to so many bytes is hashed whole; of a larger one its length, its age and its two ends.
WHOLE, END = 2**28, 2**20

# Code is followed by what is used of it, not as a file; compiled code comes from it, or from a library.
_CODE = (".py", ".pyi", ".pyc", ".so", ".pyd", ".dll", ".dylib", ".nbi", ".nbc")
# Files of the system, and folders in which programs keep what they need.
_SYSTEM = ("/dev/", "/etc/", "/proc/", "/sys/", "/usr/")
_TOOL_FOLDERS = {"__pycache__", ".cache", ".config", ".git", ".keras", ".matplotlib", ".pytest_cache"}

_read: ContextVar[set[str] | None] = ContextVar("read", default=None)


@contextmanager
def files_read() -> Iterator[set[str]]:
    """Within: collects the paths of files that this thread opens for reading through Python's `open`."""
    _install_hook()
    outer, paths = _read.get(), set[str]()
    token = _read.set(paths)
    try:
        yield paths
    finally:
        _read.reset(token)
        if outer is not None:
            outer |= paths


@functools.cache
def _install_hook() -> None:
    """Once a process: an audit hook cannot be removed."""
    sys.addaudithook(_on_open)


def _on_open(event: str, details: tuple[Any, ...]) -> None:
    if event != "open" or (paths := _read.get()) is None:
        return
    path, mode, flags = (*details, None, None)[:3]
    writes = set(mode) & set("wxa") if isinstance(mode, str) else (flags or 0) & os.O_WRONLY
    if isinstance(path, str | bytes) and not writes:
        with suppress(OSError, ValueError):  # an exception here would reach the caller of `open`
            paths.add(str(Path(os.fsdecode(path)).absolute()))


def hashes(paths: set[str]) -> list[tuple[str, str]]:
    """Name and content hash of each file that is the user's data and still exists, in a fixed order."""
    files = (Path(path) for path in paths if _is_data(Path(path)))
    return sorted((path.name, _hash(path)) for path in files)


def _is_data(path: Path) -> bool:
    text = str(path)
    ignored = (
        path.suffix in _CODE
        or not _TOOL_FOLDERS.isdisjoint(path.parts)
        or path.is_relative_to(cache().parent)
    )
    installed = is_library(text) or text.startswith((*_SYSTEM, sys.prefix + os.sep, sys.base_prefix + os.sep))
    return not ignored and not installed and os.access(path, os.R_OK) and path.is_file()


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
