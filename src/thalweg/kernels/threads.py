"""Threads for large models: those of the framework where it has some, a pool of our own elsewhere.

A framework's OpenMP threads spin for a while after each of its operations. A second pool would fight
them for the processors in every training step; so where GNU OpenMP is loaded, as it is with PyTorch on
Linux, the kernels run on its team.
"""

import ctypes
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np

from thalweg.kernels.linking import Kernel, link_ir

Share = tuple[int, int]

# Run by every thread of an OpenMP team: the shares that are its own, one in `threads` of them. `data`
# holds the kernel's address, the number of shares, their bounds, and the kernel's further arguments.
_TEAM = """
define void @team_{count}(ptr %data) {{
entry:
  %me32 = call i32 inttoptr (i64 {thread_num} to ptr)()
  %of32 = call i32 inttoptr (i64 {num_threads} to ptr)()
  %me = zext i32 %me32 to i64
  %of = zext i32 %of32 to i64
  %unused = alloca [2 x ptr]
  %kernel = load ptr, ptr %data
  %count.at = getelementptr i64, ptr %data, i64 1
  %count = load i64, ptr %count.at
  %bounds.at = getelementptr i64, ptr %data, i64 2
  %bounds = load ptr, ptr %bounds.at
{loads}
  br label %next
next:
  %share = phi i64 [ %me, %entry ], [ %after, %work ]
  %left = icmp slt i64 %share, %count
  br i1 %left, label %work, label %done
work:
  %first.at = getelementptr i64, ptr %bounds, i64 %share
  %first = load i64, ptr %first.at
  %last.at = getelementptr i64, ptr %first.at, i64 1
  %last = load i64, ptr %last.at
  %status = call i32 %kernel(ptr %unused, ptr %unused, i64 %first, i64 %last{arguments})
  %after = add i64 %share, %of
  br label %next
done:
  ret void
}}
"""


# From how many entries on threads are worth while: those of an OpenMP team are awake already; of our own
# pool, below this, one thread finishes before a second has woken up.
FROM_WITH_OPENMP = 32 * 1024
FROM_WITH_POOL = 512 * 1024


def worthwhile_from() -> int:
    """The number of entries from which on a step is shared among threads."""
    return FROM_WITH_POOL if _openmp() is None else FROM_WITH_OPENMP


def prepared(kernel: Kernel, shares: Sequence[Share], arguments: Sequence[int]) -> Callable[[], None]:
    """A call, to be made many times, of `kernel(first, last, *arguments)` for each share, a thread each.

    It returns when all are done. It is for this process and the threads that there are now: see `epoch`.

    Args:
        kernel: what to run.
        shares: ranges of chunks, each beginning where the one before ends.
        arguments: addresses and numbers.
    """
    if len(shares) == 1:
        return partial(kernel, *shares[0], *arguments)
    parallel = _openmp()
    if parallel is None:
        return partial(_in_pool, kernel, shares, arguments)
    bounds = np.array([shares[0][0], *(last for _, last in shares)], np.int64)
    data = np.array([kernel.address, len(shares), bounds.ctypes.data, *arguments], np.int64)
    team, place, count = _team(len(arguments)), data.ctypes.data, len(shares)

    def in_team(_: Any = (bounds, data)) -> None:  # which live as long as this
        parallel(team, place, count, 0)

    return in_team


def _in_pool(kernel: Kernel, shares: Sequence[Share], arguments: Sequence[int]) -> None:
    others = [_pool(len(shares) - 1).submit(kernel, *share, *arguments) for share in shares[1:]]
    kernel(*shares[0], *arguments)
    for other in others:
        other.result()


# Counts how often the threads have become others: what was prepared for those before is void.
_epoch = 0


def epoch() -> int:
    """The number of the set of threads that there is now."""
    return _epoch


def look_again() -> None:
    """Look anew for OpenMP threads: a framework that brings some has been imported."""
    global _epoch
    _epoch += 1
    for cached in (_openmp, _loaded_openmp):
        cached.cache_clear()


@cache
def _openmp() -> Any:
    """GNU OpenMP's way into a parallel region, of the copy that is loaded already; None without one."""
    library = _loaded_openmp()
    if library is None:
        return None
    parallel = library.GOMP_parallel
    parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    parallel.restype = None
    return parallel


@cache
def _loaded_openmp() -> ctypes.CDLL | None:
    maps = Path("/proc/self/maps")
    if _forked or not maps.exists():
        return None
    paths = {line.split()[-1] for line in maps.read_text().splitlines() if "libgomp" in line}
    # A process may hold several copies, each with threads of its own: the framework's is the one in use.
    for path in sorted(paths, key=lambda path: "torch" not in path):
        return ctypes.CDLL(path)
    return None


@cache
def _team(count: int) -> int:
    """Address of the function that a team runs for kernels of `count` arguments beside the share."""
    library = _loaded_openmp()
    assert library is not None
    loads = itertools.chain.from_iterable(
        (
            f"  %at.{i} = getelementptr i64, ptr %data, i64 {3 + i}",
            f"  %argument.{i} = load i64, ptr %at.{i}",
        )
        for i in range(count)
    )
    source = _TEAM.format(
        count=count,
        thread_num=ctypes.cast(library.omp_get_thread_num, ctypes.c_void_p).value,
        num_threads=ctypes.cast(library.omp_get_num_threads, ctypes.c_void_p).value,
        loads="\n".join(loads),
        arguments="".join(f", i64 %argument.{i}" for i in range(count)),
    )
    return link_ir(f"team_{count}", source)


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, "thalweg")


_locks: WeakSet[Any] = WeakSet()


def lock() -> Any:
    """A reentrant lock that is free in a forked child, where the thread that held it is not."""
    made = threading.RLock()
    _locks.add(made)
    return made


_forked = False


def _after_fork() -> None:
    """A forked child has none of its parent's threads, and GNU OpenMP does not notice: our own pool."""
    global _forked
    _forked = True
    look_again()
    _pool.cache_clear()
    for held in _locks:
        held._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
