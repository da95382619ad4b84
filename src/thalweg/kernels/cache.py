"""The kernels of this computer: compiled once, kept on disk, linked by every later process.

In the cache folder a kernel is a readable source file and, for each kind of processor, the machine code
that Numba made of it. A later process links that code directly: it needs neither Numba nor a compiler.
"""

import hashlib
import importlib.util
import os
import sys
import tempfile
import threading
import warnings
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from thalweg.kernels.linking import Kernel, link_object
from thalweg.program import Program
from thalweg.sources import cpu_source, norm_source

_lock = threading.RLock()


def default_cache_dir() -> Path:
    """Where kernels are kept: $THALWEG_CACHE_DIR, or `thalweg` in the user's cache folder."""
    if chosen := os.environ.get("THALWEG_CACHE_DIR"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return Path(base or Path.home() / ".cache") / "thalweg" / "kernels"


@cache
def cache_dir() -> Path:
    """The cache folder, made if need be; a temporary one, with a warning, where it cannot be written."""
    wanted = default_cache_dir()
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            return wanted
    except OSError as error:
        warnings.warn(
            f"kernels cannot be kept in {wanted} ({error.strerror}): every process compiles its own. "
            "Set THALWEG_CACHE_DIR to a folder that can be written.",
            RuntimeWarning,
            stacklevel=2,
        )
        return Path(tempfile.mkdtemp(prefix="thalweg-"))


@cache
def _toolchain() -> str:
    """What a compiled kernel depends on besides its source."""
    memory = Path(__file__).with_name("memory.py").read_bytes()
    digest = hashlib.sha256(memory).hexdigest()[:12]
    return f"numba {version('numba')}, llvmlite {version('llvmlite')}, memory.py {digest}"


@cache
def _processor() -> str:
    """A short name for this kind of processor: its machine code runs on no lesser one."""
    import llvmlite.binding as llvm

    name = llvm.get_host_cpu_name()
    features = llvm.get_host_cpu_features().flatten()
    return f"{name}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"


def _write(path: Path, content: bytes) -> None:
    """Write beside and move into place, so that another process never reads half a file."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        file.write(content)
    Path(file.name).replace(path)


def _compile(path: Path) -> bytes:
    """Compile a kernel's source; returns a line with its symbol, then its object file."""
    spec = importlib.util.spec_from_file_location(f"thalweg_kernel_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    from thalweg.kernels.memory import machine_code

    symbol, code = machine_code(module.run)
    return symbol.encode() + b"\n" + code


def _load(name: str, source: str, pointers: int) -> Kernel:
    """The kernel of that source, from the cache folder; compiled and put there first if need be."""
    source = f"{source}\n# compiled with {_toolchain()}\n"
    stem = f"{name}_{hashlib.sha256(source.encode()).hexdigest()[:12]}"
    readable, compiled = cache_dir() / f"{stem}.py", cache_dir() / f"{stem}.{_processor()}.o"
    if compiled.exists():
        try:
            symbol, _, code = compiled.read_bytes().partition(b"\n")
            return link_object(symbol.decode(), code, pointers)
        except (OSError, RuntimeError, UnicodeDecodeError):
            pass  # damaged: made anew
    _write(readable, source.encode())
    content = _compile(readable)
    _write(compiled, content)
    symbol, _, code = content.partition(b"\n")
    return link_object(symbol.decode(), code, pointers)


_kernels: dict[Any, Kernel] = {}


def step_kernel(program: Program, dtypes: tuple[str, ...]) -> Kernel:
    """The compiled kernel of a program for these dtypes (of the parameter, the gradient, each slot)."""
    key = (id(program), dtypes)
    with _lock:
        if key not in _kernels:
            name = f"{program.rule.name}_{'_'.join(sorted(set(dtypes)))}"
            _kernels[key] = _load(name, cpu_source(program, dtypes), 8)
    return _kernels[key]


def norm_kernel(dtype: str) -> Kernel:
    """The compiled reduction over gradients of one dtype."""
    with _lock:
        if dtype not in _kernels:
            _kernels[dtype] = _load(f"norm_{dtype}", norm_source(dtype), 5)
    return _kernels[dtype]
