"""CPU kernels at run time: compiled once, cached on disk as readable source, run over many tensors.

A kernel is serial and releases the GIL. Small models call it directly; large ones give each thread
of a small pool a share of the chunks. (A parallel kernel would bring a second pool of OpenMP
threads, which slows the framework's own.)
"""

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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.kernels.source import cpu_source, norm_source
from thalweg.program import Program

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

# Entries that a thread takes at once: large enough to hide the loop's start, small enough to balance.
CHUNK = 32 * 1024
# Below this many entries one thread finishes before a second has woken up.
PARALLEL_FROM = 512 * 1024

_lock = threading.Lock()


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
    import llvmlite
    import numba

    memory = Path(__file__).with_name("memory.py").read_bytes()
    digest = hashlib.sha256(memory).hexdigest()[:12]
    return f"numba {numba.__version__}, llvmlite {llvmlite.__version__}, memory.py {digest}"


def _load(name: str, source: str) -> Callable[..., None]:
    """Import a kernel from its source file in the cache folder, writing it there first if need be."""
    source = f"{source}\n# compiled with {_toolchain()}\n"
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    path = cache_dir() / f"{name}_{digest}.py"
    if not path.exists():
        # Written beside and moved into place, so that another process never reads half a file.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
            file.write(source)
        Path(file.name).replace(path)
    spec = importlib.util.spec_from_file_location(f"thalweg_kernel_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Numba finds a cached function's module by name
    spec.loader.exec_module(module)
    return module.run  # type: ignore[no-any-return]


_kernels: dict[Any, Callable[..., None]] = {}


def step_kernel(program: Program, dtypes: tuple[str, ...]) -> Callable[..., None]:
    """The compiled kernel of a program for these dtypes (of the parameter, the gradient, each slot)."""
    key = (id(program), dtypes)
    with _lock:
        if key not in _kernels:
            _kernels[key] = _load(
                f"{program.rule.name}_{'_'.join(sorted(set(dtypes)))}", cpu_source(program, dtypes)
            )
    return _kernels[key]


def norm_kernel(dtype: str) -> Callable[..., None]:
    """The compiled reduction over gradients of one dtype."""
    with _lock:
        if dtype not in _kernels:
            _kernels[dtype] = _load(f"norm_{dtype}", norm_source(dtype))
    return _kernels[dtype]


class Batch:
    """Tensors of one dtype that take one rule's step together.

    The caller fills in, whenever they change:

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
        self._done = np.cumsum(self.chunks[:, 2] - self.chunks[:, 1])
        self._sums: Floats = np.zeros(len(self.chunks))
        self._shares: dict[int, list[tuple[int, int]]] = {}

    def step(self, threads: int) -> None:
        """Take the step, in place, with up to `threads` threads."""
        table = (self.chunks, self.rows, self.addresses, self.scalars, self.norms)
        self._in_shares(threads, lambda first, last: self.run(first, last, *table))

    def squared_norms(self, threads: int) -> Floats:
        """(tensors,) the sum of squares of each gradient, in float64."""
        run, gradients = norm_kernel(self.gradient_dtype), self.addresses[1]
        self._in_shares(threads, lambda first, last: run(first, last, self.chunks, gradients, self._sums))
        sums: Floats = np.bincount(self.chunks[:, 0], self._sums, len(self.norms)).astype(np.float64)
        return sums

    def _in_shares(self, threads: int, work: Callable[[int, int], None]) -> None:
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


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, "thalweg")


# A forked child has none of its parent's threads: it starts its own pool when it needs one.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
