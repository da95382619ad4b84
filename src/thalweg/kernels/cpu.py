"""CPU kernels at run time: compiled once, kept on disk, run over many tensors.

In the cache folder a kernel is a readable source file and, for each kind of processor, the machine code
that Numba made of it. A later process links that code directly: it needs neither Numba nor a compiler.

A kernel is serial and runs without the GIL. Small models call it directly; large ones give each thread
of a small pool a share of the chunks. (A parallel kernel would bring a second pool of OpenMP threads,
which slows the framework's own.)
"""

import ctypes
import hashlib
import importlib.util
import itertools
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.kernels.source import cpu_source, norm_source
from thalweg.program import Program

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Kernel = Callable[..., int]

# Entries that a thread takes at once: large enough to hide the loop's start, small enough to balance.
CHUNK = 32 * 1024
# Below this many entries one thread finishes before a second has woken up.
PARALLEL_FROM = 512 * 1024

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


@cache
def _linker() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    return llvm.create_lljit_compiler(machine)


# What has been linked, which must live as long as its functions.
_linked: list[Any] = []
# Each attempt has a name of its own: one that failed, on a damaged file, keeps its.
_names = itertools.count()


def _link(symbol: str, code: bytes, pointers: int) -> Kernel:
    """The function `symbol` of an object file, as a function of `pointers` integers and addresses."""
    import llvmlite.binding as llvm

    builder = llvm.JITLibraryBuilder().add_object_img(code).export_symbol(symbol).add_current_process()
    library = builder.link(_linker(), f"thalweg {next(_names)} {symbol}")
    # Numba's convention: a place for the result and one for an exception come first; neither is used.
    unused = (ctypes.c_void_p * 2)()
    _linked.append((library, unused))
    place = ctypes.addressof(unused)
    types = [ctypes.c_void_p] * 2 + [ctypes.c_int64] * pointers
    function = ctypes.CFUNCTYPE(ctypes.c_int32, *types)(library[symbol])
    return lambda *args: function(place, place, *args)


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
            return _link(symbol.decode(), code, pointers)
        except (OSError, RuntimeError, UnicodeDecodeError):
            pass  # damaged: made anew
    _write(readable, source.encode())
    content = _compile(readable)
    _write(compiled, content)
    symbol, _, code = content.partition(b"\n")
    return _link(symbol.decode(), code, pointers)


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


class Batch:
    """Tensors of one dtype that take one rule's step together.

    The caller fills in, in place, whenever they change (`scalars` may be replaced):

    Attributes:
        addresses: (2 + slots, tensors) where each parameter, gradient and slot begins.
        rows: (tensors,) the row of `scalars` that each tensor uses.
        scalars: (rows, kernel scalars) float64.
        norms: (tensors,) norms of the gradients, where the program asks for them.
    """

    def __init__(self, program: Program, dtypes: tuple[str, ...], lengths: Sequence[int]) -> None:
        self.run = step_kernel(program, dtypes)
        self.gradient_dtype = dtypes[1]
        count = len(lengths)
        self.addresses: Integers = np.zeros((2 + len(program.slots), count), np.int64)
        self.rows: Integers = np.zeros(count, np.int64)
        self.scalars: Floats = np.zeros((1, len(program.kernel_scalars)))
        self.norms: Floats = np.zeros(count)
        self.chunks: Integers = np.array(
            [
                (tensor, start, min(start + CHUNK, length))
                for tensor, length in enumerate(lengths)
                for start in range(0, length, CHUNK)
            ],
            np.int64,
        ).reshape(-1, 3)
        self._places = tuple(_address(a) for a in (self.chunks, self.rows, self.addresses, self.norms))
        self._done = np.cumsum(self.chunks[:, 2] - self.chunks[:, 1])
        self._sums: Floats = np.zeros(len(self.chunks))
        self._shares: dict[int, list[tuple[int, int]]] = {}

    def step(self, threads: int) -> None:
        """Take the step, in place, with up to `threads` threads."""
        chunks, rows, addresses, norms = self._places
        scalars = _address(self.scalars)
        table = (chunks, rows, addresses, len(self.norms), scalars, norms)
        self._in_shares(threads, lambda first, last: self.run(first, last, *table))

    def squared_norms(self, threads: int) -> Floats:
        """(tensors,) the sum of squares of each gradient, in float64."""
        run = norm_kernel(self.gradient_dtype)
        table = (_address(self.chunks), _address(self.addresses[1]), _address(self._sums))
        self._in_shares(threads, lambda first, last: run(first, last, *table))
        sums: Floats = np.bincount(self.chunks[:, 0], self._sums, len(self.norms)).astype(np.float64)
        return sums

    def _in_shares(self, threads: int, work: Callable[[int, int], int]) -> None:
        shares = self._shares.get(threads) or self._split(threads)
        if len(shares) == 1:
            work(*shares[0])
            return
        others = [_pool(threads - 1).submit(work, *share) for share in shares[1:]]
        work(*shares[0])
        for other in others:
            other.result()

    def _split(self, threads: int) -> list[tuple[int, int]]:
        """Ranges of chunks with about as many entries each."""
        total = int(self._done[-1]) if len(self._done) else 0
        count = max(1, threads if total >= PARALLEL_FROM else 1)
        bounds = np.searchsorted(self._done, np.arange(1, count) * total / count)
        edges = [0, *(int(b) for b in bounds), len(self.chunks)]
        self._shares[threads] = list(itertools.pairwise(edges))
        return self._shares[threads]


def _address(array: NDArray[Any]) -> int:
    return int(array.ctypes.data)


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, "thalweg")


# A forked child has none of its parent's threads: it starts its own pool when it needs one.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
