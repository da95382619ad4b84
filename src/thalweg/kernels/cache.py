"""The kernels of this computer: compiled once, kept on disk, linked by every later process.

In the cache folder a kernel is a source file, for reading only, and, for each kind of processor, the
machine code that Numba made of it. A later process links that code directly: it needs neither Numba nor
a compiler.

Machine code is run only from files that nobody else can have written: the folder and the file belong to
the user, others can neither write to them nor put others in their place, and a digest over code, source,
toolchain and processor tells a damaged file, which is made anew. Windows has no such owners and modes:
there, what protects the files is that the user's own folder is closed to others.
"""

import atexit
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
import threading
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from thalweg.kernels.linking import Kernel, link_object
from thalweg.kernels.source import cpu_source, norm_source
from thalweg.program.sweeps import NormSweep
from thalweg.program.tracing import Program
from thalweg.statefile import replaced

# Bytes; far above what any kernel takes.
_LARGEST = 1 << 24
_DIGEST = hashlib.sha256().digest_size

_lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # or a child would wait for a thread that it does not have
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


# -- a folder that only the user can write -----------------------------------------------------------


def default_cache_dir() -> Path:
    """Where kernels are kept: $THALWEG_CACHE_DIR, or `thalweg` in the user's cache folder."""
    if chosen := os.environ.get("THALWEG_CACHE_DIR"):
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return Path(base or Path.home() / ".cache").absolute() / "thalweg" / "kernels"


# Where this process has kept kernels: the last is in use, None stands for nowhere.
_places: list[Path | None] = []


def cache_dir() -> Path | None:
    """Where this process keeps kernels.

    That is the cache folder, made if need be. Where it cannot be written, or others could change what is
    in it, a private one that is removed at exit, with a warning; None where there is no room for that.
    """
    with _lock:
        if not _places:
            wanted = default_cache_dir()
            _places.append(wanted)
            try:
                for folder in (*reversed(wanted.parents), wanted):
                    folder.mkdir(0o700, exist_ok=True)
                _check_folder(wanted)
                with tempfile.TemporaryFile(dir=wanted):
                    pass
            except OSError as error:
                _give_up(error)
        return _places[-1]


def _give_up(error: OSError) -> None:
    """From here on keep kernels in a private folder, if anywhere."""
    if len(_places) > 1:
        return
    try:
        private = Path(tempfile.mkdtemp(prefix="thalweg-"))
    except OSError:
        _places.append(None)
    else:
        _places.append(private)
        atexit.register(_remove, private, os.getpid())
    warnings.warn(
        f"kernels cannot be kept in {_places[0]} ({error.strerror or error}): every process compiles its "
        "own. Set THALWEG_CACHE_DIR to a folder that you, and only you, can write.",
        RuntimeWarning,
        stacklevel=2,
    )


def _remove(folder: Path, maker: int) -> None:
    if os.getpid() == maker:  # a forked child ends before its parent
        shutil.rmtree(folder, ignore_errors=True)


def _check_folder(folder: Path) -> None:
    """Refuse a folder in which, or in whose place, others could put something.

    Raises:
        PermissionError: why.
    """
    if not hasattr(os, "geteuid"):
        return
    # Whoever owns the root folder, which a sandbox may show as nobody's, can replace everything anyway.
    trusted = {0, os.geteuid(), Path(folder.anchor).stat().st_uid}
    for above in _way(folder):
        found = above.stat()
        writable = found.st_mode & (0o002 if _is_private(found.st_gid) else 0o022)
        sticky = found.st_mode & stat.S_ISVTX  # as /tmp is: what is in it is its owner's to replace
        if found.st_uid not in trusted or (writable and not sticky):
            raise PermissionError(errno.EPERM, f"other users can replace what is in {above}")
    if not _is_ours(folder.stat()):
        raise PermissionError(errno.EPERM, "other users own it or can write to it; chmod go-w forbids that")


def _way(path: Path) -> Iterator[Path]:
    """The folders whose entries decide where a path leads, through links too."""
    for step in (*reversed(path.parents[:-1]), path):
        yield step.parent
        if step.is_symlink():
            yield from _way(step.parent / step.readlink())


@cache
def _is_private(group: int) -> bool:
    """Whether a group is this user's alone, as the one of the user's name is on many systems."""
    import grp
    import pwd

    try:
        user, of_group = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return user.pw_gid == group and of_group.gr_name == user.pw_name and {*of_group.gr_mem} <= {user.pw_name}


def _is_ours(found: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user, and no other may write to it."""
    return not hasattr(os, "geteuid") or (found.st_uid == os.geteuid() and not found.st_mode & 0o022)


# -- files -------------------------------------------------------------------------------------------


def _load(name: str, source: str, arguments: int) -> Kernel:
    """The kernel of that source, from the cache folder; compiled and put there first if need be."""
    source = f"{source}\n# compiled with {_toolchain()}\n"
    stem = f"{re.sub(r'[^a-z0-9_]', '', name)[:80]}_{hashlib.sha256(source.encode()).hexdigest()[:12]}"
    compiled = f"{stem}.{_processor()}.o"
    # What the code must have been made of and for.
    origin = hashlib.sha256(f"{source}\n# for {_processor()}\n".encode()).digest()
    content = _read(compiled)
    if content is None or content[:_DIGEST] != hashlib.sha256(origin + content[_DIGEST:]).digest():
        _keep(f"{stem}.py", source.encode())
        made = _compile(stem, source)
        content = hashlib.sha256(origin + made).digest() + made
        _keep(compiled, content)
    symbol, _, code = content[_DIGEST:].partition(b"\n")
    return link_object(symbol.decode(), code, arguments)


def _read(name: str) -> bytes | None:
    """A file in the cache folder, if it is there, and is this user's; else None."""
    folder = cache_dir()
    if folder is None:
        return None
    # What is judged is what has been opened; neither a link nor a pipe is.
    flags = sum(getattr(os, flag, 0) for flag in ("O_RDONLY", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    try:
        with open(folder / name, "rb", opener=lambda path, _: os.open(path, flags)) as file:
            found = os.fstat(file.fileno())
            if stat.S_ISREG(found.st_mode) and _is_ours(found) and found.st_size <= _LARGEST:
                return file.read(_LARGEST)
    except OSError:
        pass
    return None


def _keep(name: str, content: bytes) -> None:
    """Put a file into the cache folder; one that is full, or read-only by now, is given up."""
    folder = cache_dir()
    if folder is None:
        return
    try:
        with replaced(folder / name, 0o600) as file:
            file.write(content)
    except OSError as error:
        _give_up(error)


@cache
def _toolchain() -> str:
    """What a compiled kernel depends on besides its source."""
    memory = Path(__file__).with_name("memory.py").read_bytes()
    digest = hashlib.sha256(memory).hexdigest()[:12]
    return f"numba {version('numba')}, llvmlite {version('llvmlite')}, memory.py {digest}"


@cache
def _processor() -> str:
    """A short name for this kind of processor and system: its machine code runs on no lesser one."""
    import llvmlite.binding as llvm

    name = llvm.get_host_cpu_name()
    details = f"{llvm.get_process_triple()} {llvm.get_host_cpu_features().flatten()}"
    return f"{name}-{hashlib.sha256(details.encode()).hexdigest()[:8]}"


def _compile(stem: str, source: str) -> bytes:
    """Compile a kernel from memory; returns a line with its symbol, then its object file."""
    module = ModuleType(f"thalweg_kernel_{stem}")
    exec(compile(source, f"{stem}.py", "exec"), module.__dict__)
    from thalweg.kernels.memory import machine_code

    symbol, code = machine_code(module.run)
    return symbol.encode() + b"\n" + code


# -- kernels -----------------------------------------------------------------------------------------

_kernels: dict[Any, Kernel] = {}


def step_kernel(program: Program, dtypes: tuple[str, ...]) -> Kernel:
    """The compiled kernel of a program for these dtypes (of the parameter, the gradient, each slot)."""
    key = (id(program), dtypes)
    with _lock:
        if key not in _kernels:
            name = f"{program.name}_{'_'.join(sorted(set(dtypes)))}"
            _kernels[key] = _load(name, cpu_source(program, dtypes), 8)
    return _kernels[key]


def norm_kernel(norm: NormSweep, dtypes: tuple[str, ...]) -> Kernel:
    """The compiled reduction of a norm, for dtypes as of `step_kernel`; norms of one source share it."""
    key = (id(norm), dtypes)
    with _lock:
        if key not in _kernels:
            source = norm_source(norm, dtypes)
            if source not in _kernels:
                _kernels[source] = _load(f"norm_{dtypes[1]}", source, 9)
            _kernels[key] = _kernels[source]
    return _kernels[key]
