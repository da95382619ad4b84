"""CPU kernels at run time: one kernel over many tensors.

A kernel is serial and runs without the GIL. Small models call it directly; for large ones each thread
takes a share of the chunks.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.kernels.cache import norm_kernel, step_kernel
from thalweg.kernels.threads import epoch, prepared, worthwhile_from
from thalweg.program.sweeps import NormSweep
from thalweg.program.tracing import Program

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

# Entries that a thread takes at once: large enough to hide the loop's start, small enough to balance.
CHUNK = 32 * 1024


class Batch:
    """Tensors of one dtype that take one rule's step together.

    The caller fills in, in place, whenever they change (`scalars` by `set_scalars`):

    Attributes:
        addresses: (2 + slots, tensors) where each parameter, gradient and slot begins.
        rows: (tensors,) the row of `scalars` that each tensor uses.
        scalars: (rows, kernel scalars) float64.
        norms: (norms of tensors, tensors) as `measure` finds them.
    """

    def __init__(self, program: Program, dtypes: tuple[str, ...], lengths: Sequence[int]) -> None:
        self.kernel = step_kernel(program, dtypes)
        self.program, self.dtypes = program, dtypes
        count = len(lengths)
        self.addresses: Integers = np.zeros((2 + len(program.slots), count), np.int64)
        self.rows: Integers = np.zeros(count, np.int64)
        self.scalars: Floats = np.zeros((1, len(program.kernel_scalars)))
        self.norms: Floats = np.zeros((len(program.tensor_norms), count))
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
        self._steps: dict[tuple[int, int], Callable[[], None]] = {}

    def set_scalars(self, scalars: Sequence[Sequence[float]]) -> None:
        """Fill in `scalars`, row by row."""
        if len(scalars) != len(self.scalars):
            self.scalars = np.zeros((len(scalars), self.scalars.shape[1]))
            self._steps.clear()
        self.scalars[:] = scalars

    def step(self, threads: int) -> None:
        """Take the step, in place, with up to `threads` threads."""
        key = threads, epoch()
        step = self._steps.get(key)
        if step is None:
            step = prepared(self.kernel, self._shares(threads), self._table(self.scalars))
            self._steps[key] = step
        step()

    def measure(
        self,
        norm: NormSweep,
        rows: Sequence[Mapping[str, float]],
        model_norms: Mapping[str, float],
        threads: int,
    ) -> float:
        """Compute a norm of each tensor, keep it where it is read later, and return the sum of all squares.

        The order of the terms depends on the tensors' sizes alone: so does every bit of the result.

        Args:
            norm: one of the program's, whose turn it is.
            rows: for each row of `scalars` what it is computed from: `t`, scalar slots, hyperparameters.
            model_norms: the norms of the model that are known.
            threads: how many threads to use at most.
        """
        scalars = np.array([norm.scalar_function(**row, **model_norms)[0] for row in rows], np.float64)
        table = (*self._table(scalars), _address(self._sums))
        prepared(norm_kernel(norm, self.dtypes), self._shares(threads), table)()
        squares = np.bincount(self.chunks[:, 0], self._sums, len(self.rows))
        if norm.of_tensor:
            np.sqrt(squares, out=self.norms[len(norm.tensor_norms)])
        return float(squares.sum())

    def _table(self, scalars: Floats) -> tuple[int, ...]:
        chunks, rows, addresses, norms = self._places
        return chunks, rows, addresses, len(self.rows), _address(scalars), norms

    def _shares(self, threads: int) -> list[tuple[int, int]]:
        """Ranges of chunks with about as many entries each."""
        total = int(self._done[-1]) if len(self._done) else 0
        count = max(1, threads if total >= worthwhile_from() else 1)
        bounds = np.searchsorted(self._done, np.arange(1, count) * total / count)
        edges = [0, *(int(b) for b in bounds), len(self.chunks)]
        return list(itertools.pairwise(edges))


def _address(array: NDArray[Any]) -> int:
    return int(array.ctypes.data)
