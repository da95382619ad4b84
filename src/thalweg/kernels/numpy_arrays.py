"""NumPy's arrays, as the table of tensors sees them."""

from array import array
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.kernels.table import Layout

Array = NDArray[Any]

_form = attrgetter("dtype", "shape", "strides")


class NumpyForm:
    """What `thalweg.kernels.table.Form` says, of NumPy's arrays."""

    def __init__(self, arrays: list[Array]) -> None:
        self._seen = list(map(_form, arrays))

    def find(self, arrays: list[Array]) -> bytes | None:
        """See `Form`."""
        if list(map(_form, arrays)) != self._seen:
            return None
        return array("q", map(_address, arrays)).tobytes()


class NumpyArrays:
    """Arrays of the dtypes that kernels know, in any byte order."""

    form = NumpyForm

    def layout(self, array: Array) -> Layout:
        """Where an array's entries lie; an axis may go backwards."""
        address, size = _address(array), array.itemsize
        reaches = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
        begin = address + sum(r for r in reaches if r < 0)
        end = address + sum(r for r in reaches if r > 0) + size
        extent = (begin, end) if array.size else (address, address)
        whole = all(step % size == 0 for step in (address, *array.strides))
        return Layout(
            array.dtype.name,
            array.shape,
            tuple(stride // size for stride in array.strides),
            address,
            extent,
            memory=extent,  # NumPy's own promise
            direct=whole and array.dtype.isnative,
        )

    def empty(self, array: Array, like: Array | None) -> Array:
        """A new array of that dtype, laid out like another, or in the usual order."""
        dtype = array.dtype.newbyteorder("=")
        if like is not None:
            return np.empty_like(like, dtype, order="K", subok=False)
        return np.empty(array.shape, dtype)

    def copy(self, target: Array, source: Array) -> None:
        """Fill an array with another's entries."""
        target[...] = source

    def changed(self, arrays: Sequence[Array]) -> None:
        """NumPy does not keep count."""


ARRAYS = NumpyArrays()


def _address(a: Array) -> int:
    return int(a.__array_interface__["data"][0])
