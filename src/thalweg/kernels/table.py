"""One table of tensors for every front end, and the one guard that proves it before each step.

A kernel is given addresses. Between two steps a user may move any storage, change any dtype, transpose,
shrink, share or free it; so before each step the table looks at every array anew, and either nothing that
it was built on has changed, or it is built again. An array that a kernel cannot read where it lies (with
gaps, in another order, with a sign bit of its framework, over other arrays) is stepped in a copy; one whose
memory does not hold its entries is refused by name.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from thalweg.kernels.cpu import Batch
from thalweg.program.sweeps import DTYPES, NormSweep
from thalweg.program.tracing import Program

Columns = Sequence[Sequence[Any]]

# How many sets of addresses to remember as disjoint: gradients come back to the same few places.
_PROVEN = 256
# The row of a table that is only read.
_GRADIENTS = 1


@dataclass(frozen=True)
class Layout:
    """Where an array's entries lie.

    Attributes:
        dtype: of an entry, as kernels name it.
        shape: of the array, as entries that a kernel knows.
        strides: from entry to entry along each axis, in entries.
        address: of the first entry.
        extent: (first byte, byte after the last) of all entries.
        memory: (first byte, byte after the last) of what belongs to the array.
        direct: whether memory holds the entries' own bits, aligned: a kernel may read them there.
    """

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    address: int
    extent: tuple[int, int]
    memory: tuple[int, int]
    direct: bool = True

    @property
    def length(self) -> int:
        """Number of entries."""
        length = 1
        for size in self.shape:
            length *= size
        return length

    @property
    def held(self) -> bool:
        """Whether all entries lie in the array's own memory."""
        return not self.length or (self.memory[0] <= self.extent[0] and self.extent[1] <= self.memory[1])

    @property
    def order(self) -> tuple[tuple[int, int], ...]:
        """The axes that make one order of entries differ from another: of more than one entry each."""
        return tuple(
            (size, stride) for size, stride in zip(self.shape, self.strides, strict=True) if size > 1
        )

    @property
    def apart(self) -> bool:
        """Whether no two entries share a place; axes like interlocking combs count as sharing some."""
        reach = 1
        for size, stride in sorted(self.order, key=lambda axis: abs(axis[1])):
            if abs(stride) < reach:
                return False
            reach += abs(stride) * (size - 1)
        return True

    @property
    def dense(self) -> bool:
        """Whether the entries fill one stretch of memory, in any order."""
        expected = 1
        for size, stride in sorted(self.order, key=lambda axis: axis[1]):
            if stride != expected:
                return False
            expected *= size
        return True


class Form(Protocol):
    """All that bears on where the entries of some arrays lie, beside the arrays' addresses."""

    def find(self, arrays: list[Any]) -> bytes | None:
        """The addresses of arrays, eight bytes each, where they are of this form; None where they are not.

        Raises:
            AttributeError, RuntimeError, TypeError: one of them has no address.
        """


class ArrayAdapter(Protocol):
    """What the table asks of a framework's arrays."""

    def form(self, arrays: list[Any]) -> Form:
        """The form of these arrays, as they are now."""

    def layout(self, array: Any) -> Layout:
        """Where an array's entries lie."""

    def empty(self, array: Any, like: Any) -> Any:
        """A new array of that shape and dtype, in the order of another (None: the usual order)."""

    def copy(self, target: Any, source: Any) -> None:
        """Fill an array with another's entries."""

    def changed(self, arrays: Sequence[Any]) -> None:
        """Tell the framework that arrays have been changed."""


class Group:
    """The members of a table that one kernel steps together.

    Attributes:
        places: which members of the table these are.
        batch: the kernel, and what it is called with.
    """

    def __init__(
        self, arrays: ArrayAdapter, program: Program, places: Sequence[int], layouts: Any, copied: Any
    ) -> None:
        self.places = places
        self._arrays = arrays
        # For each row of the table, by place: what stands in for an array that is not read where it lies.
        self._copies: list[tuple[int, int, Any]] = []
        dtypes = tuple(row[places[0]].dtype for row in layouts)
        lengths = [layouts[0][place].length for place in places]
        self.batch = Batch(program, dtypes, lengths)
        for row, place in itertools.product(range(len(layouts)), range(len(places))):
            if places[place] in copied[row]:
                self._copies.append((row, place, copied[row][places[place]]))
        self._fixed = {(row, place): arrays.layout(copy).address for row, place, copy in self._copies}

    def put(self, addresses: Any) -> None:
        """Note where the members' arrays are: (rows, members of the table)."""
        whole = len(self.places) == addresses.shape[1]  # in order
        self.batch.addresses[:] = addresses if whole else addresses[:, self.places]
        for (row, place), address in self._fixed.items():
            self.batch.addresses[row, place] = address

    def read(self, columns: Columns) -> None:
        """Fill the copies of gradients, before any parameter is written: they may share memory."""
        for row, place, copy in self._copies:
            if row == _GRADIENTS:
                self._arrays.copy(copy, columns[row][self.places[place]])

    def load(self, columns: Columns) -> None:
        """Fill the copies of parameters and state."""
        for row, place, copy in self._copies:
            if row != _GRADIENTS:
                self._arrays.copy(copy, columns[row][self.places[place]])

    def store(self, columns: Columns) -> None:
        """Bring the copies' new entries back: parameters, then state."""
        for row, place, copy in self._copies:
            if row != _GRADIENTS:
                self._arrays.copy(columns[row][self.places[place]], copy)


class Table:
    """Parameters that take one program's step, with their gradients and state.

    Args:
        arrays: what knows the framework's arrays.
        program: of their rule.
        columns: the parameters, their gradients, then each of the program's slots in order: lists of one
            length.
        name: what to call an array in an error, of its row and its place in it.

    Raises:
        ValueError: the memory of an array does not hold its entries, or holds one of them several times;
            shapes differ.
    """

    def __init__(
        self, arrays: ArrayAdapter, program: Program, columns: Columns, name: Callable[[int, int], str]
    ) -> None:
        self.program = program
        self.groups: list[Group] = []
        self.columns = columns
        self._arrays = arrays
        self._rows, self._width = len(columns), len(columns[0])
        self._form = arrays.form([*itertools.chain(*columns)])
        layouts = [[arrays.layout(x) for x in column] for column in columns]
        _check(layouts, name)
        at = np.array([x.address for row in layouts for x in row], np.int64)
        extents = np.array([[x.extent for x in row] for row in layouts], np.int64).reshape(-1, 2)
        self._begins, self._ends = extents[:, 0] - at, extents[:, 1] - at
        self._addresses = at.tobytes()
        # The bits of an address that are 0 where it is a multiple of the entry's size, a power of two.
        self._below_size = np.array([DTYPES[x.dtype] - 1 for row in layouts for x in row], np.int64)
        met = self._met(extents[:, 0], extents[:, 1])
        self._filled = np.flatnonzero(self._ends > self._begins)
        self._filled_begins, self._filled_ends = self._begins[self._filled], self._ends[self._filled]
        self._disjoint = not met
        self._proven = {self._addresses} if self._disjoint else set()
        copied = self._copied(layouts, met)
        for places in self._together(layouts, met):
            self.groups.append(Group(arrays, program, places, layouts, copied))
        self._put()

    def holds(self, columns: Columns) -> bool:
        """Whether the table holds for these arrays, now; it then knows where they are.

        Nothing may come between this and the step.
        """
        flat = [*itertools.chain(*columns)]
        try:
            addresses = self._form.find(flat)
        except (AttributeError, RuntimeError, TypeError):  # no array, or one without an address
            return False
        if addresses is None:
            return False
        if addresses != self._addresses:
            if not (self._disjoint and self._proves(addresses)):
                return False
            self._addresses = addresses
            self._put()
        self.columns = columns
        return True

    def release(self) -> None:
        """Let go of the arrays: gradients are not kept alive until the next step."""
        self.columns = ()

    def measure(
        self,
        row_of: Any,
        rows: Sequence[Mapping[str, float]],
        threads: int,
        norm: NormSweep,
        model_norms: Any,
    ) -> float:
        """Compute a norm of each tensor, keep it where the step needs it, and return the sum of all squares.

        Args:
            row_of: (members,) which of the rows each member takes.
            rows: see `Batch.measure`.
            threads: how many may be used.
            norm: one of the program's, whose turn it is: see `Program.measure`.
            model_norms: the norms of the model that are known.
        """
        total = 0.0
        for group in self.groups:
            self._point(group, row_of)
            group.read(self.columns)
            group.load(self.columns)
            total += group.batch.measure(norm, rows, model_norms, threads)
        return total

    def step(self, row_of: Any, scalars: Any, threads: int) -> None:
        """Take the step.

        Args:
            row_of: (members,) which row of `scalars` each member takes.
            scalars: (rows, kernel scalars) the values of the program's `kernel_scalars`.
            threads: how many may be used.
        """
        for group in self.groups:
            group.read(self.columns)
        for group in self.groups:
            batch = group.batch
            self._point(group, row_of)
            batch.set_scalars(scalars)
            group.load(self.columns)
            batch.step(threads)
            group.store(self.columns)
        self._arrays.changed(self.columns[0])

    def _point(self, group: Group, row_of: Any) -> None:
        group.batch.rows[:] = row_of if len(self.groups) == 1 else row_of[group.places]

    def _put(self) -> None:
        addresses = np.frombuffer(self._addresses, np.int64).reshape(self._rows, self._width)
        for group in self.groups:
            group.put(addresses)

    def _proves(self, addresses: bytes) -> bool:
        """Whether arrays of the table's form are aligned at these addresses, and apart from each other."""
        if addresses in self._proven:
            return True
        at = np.frombuffer(addresses, np.int64)
        if (at & self._below_size).any():
            return False
        # Sorted, spans are apart if each begins where the one before has ended; two that are only read may
        # share memory, which takes a closer look.
        filled = at[self._filled]
        begins, ends = filled + self._filled_begins, filled + self._filled_ends
        order = begins.argsort()
        apart = (begins[order[1:]] >= ends[order[:-1]]).all()
        if not apart and self._met(at + self._begins, at + self._ends):
            return False
        if len(self._proven) >= _PROVEN:
            self._proven.clear()
        self._proven.add(addresses)
        return True

    def _met(self, begins: Any, ends: Any) -> list[tuple[int, int]]:
        """The pairs of arrays that may share memory, by their numbers, unless both are only read."""
        order = np.argsort(begins, kind="stable")
        order = order[ends[order] > begins[order]]
        reach = np.maximum.accumulate(ends[order]) if len(order) else ends[order]
        if not np.any(begins[order][1:] < reach[:-1]):
            return []
        pairs: list[tuple[int, int]] = []
        open_now: list[int] = []
        for k in order.tolist():
            open_now = [o for o in open_now if ends[o] > begins[k]]
            pairs += [(o, k) for o in open_now if not (self._only_read(o) and self._only_read(k))]
            open_now.append(k)
        return pairs

    def _only_read(self, number: int) -> bool:
        return number // self._width == _GRADIENTS

    def _copied(self, layouts: list[list[Layout]], met: list[tuple[int, int]]) -> list[dict[int, Any]]:
        """For each row the copies of what is not read where it lies, by place."""
        shared = {number for pair in met for number in pair}
        copied: list[dict[int, Any]] = [{} for _ in layouts]
        for place in range(self._width):
            p = layouts[0][place]
            own = p.direct and p.dense and place not in shared
            order = p.order if own else _usual(p.shape)
            for row, of_row in enumerate(layouts):
                x = of_row[place]
                if not (x.direct and x.order == order and row * self._width + place not in shared):
                    like = self.columns[0][place] if own else None
                    copied[row][place] = self._arrays.empty(self.columns[row][place], like)
        return copied

    def _together(self, layouts: list[list[Layout]], met: list[tuple[int, int]]) -> list[list[int]]:
        """The members of each group: those of the same dtypes; one after the other where members overlap."""
        if any(a % self._width != b % self._width for a, b in met):
            return [[place] for place in range(self._width)]
        found: dict[tuple[str, ...], list[int]] = {}
        for place in range(self._width):
            found.setdefault(tuple(row[place].dtype for row in layouts), []).append(place)
        return list(found.values())


def _usual(shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """The axes of an array in the usual order; see `Layout.order`."""
    strides = [1]
    for size in shape[:0:-1]:
        strides.insert(0, strides[0] * size)
    return tuple((size, stride) for size, stride in zip(shape, strides, strict=False) if size > 1)


def _check(layouts: list[list[Layout]], name: Callable[[int, int], str]) -> None:
    for row, of_row in enumerate(layouts):
        for place, x in enumerate(of_row):
            if x.shape != layouts[0][place].shape:
                raise ValueError(
                    f"{name(row, place)} has shape {x.shape}, {name(0, place)} {layouts[0][place].shape}"
                )
            if not x.held:
                raise ValueError(
                    f"{name(row, place)} needs {x.extent[1] - x.extent[0]} bytes, its memory holds "
                    f"{max(0, x.memory[1] - x.extent[0])}: its storage has been emptied or made smaller"
                )
            if row != _GRADIENTS and x.length and not x.apart:
                raise ValueError(
                    f"{name(row, place)} holds one entry in several places (an expanded or overlapping "
                    "array), which cannot be updated; make it a copy of its own"
                )
