"""What is kept from step to step, for one pattern of present gradients: where tensors are, and numbers."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg import ops
from thalweg.kernels.table import Table
from thalweg.kernels.torch_tensors import TENSORS, has_kernel, has_memory, is_dense
from thalweg.program.sweeps import NormSweep
from thalweg.program.tracing import Program, SumOfSquares
from thalweg.rule import Rule

State = dict[str, Any]
Columns = Sequence[Sequence[Tensor]]
_FUNCTIONS = {name: getattr(ops, name) for name in ops.__all__}


class Numbers:
    """One number for each parameter, such as its step number, side by side: counting is one addition.

    `state` holds views of them. A tensor that other processes share, or that is only lent, stays what it
    is, and is read and written at each step.

    Attributes:
        array: (parameters,) the numbers.
    """

    def __init__(self, count: int, dtype: torch.dtype) -> None:
        # The memory is NumPy's: whatever becomes of the storage of a view, it stays.
        self.array: NDArray[Any] = np.zeros(count, str(dtype).removeprefix("torch."))
        self._views = list(torch.from_numpy(self.array).unbind())
        self._places = list(map(Tensor.data_ptr, self._views))
        self._dtype = dtype
        self._shared: dict[int, Tensor] = {}

    def hold(self, index: int, held: Any, number: float, lent: bool) -> Tensor:
        """The tensor that is to hold a parameter's number, which `held` has held so far (None: nothing)."""
        self._shared.pop(index, None)
        self.array[index] = number
        if isinstance(held, Tensor) and (lent or (held.is_cpu and held.is_shared())):  # type: ignore[no-untyped-call]
            self._shared[index] = held
        view = self._views[index]
        if view.data_ptr() != self._places[index] or view.dtype != self._dtype or view.dim():
            view = self._views[index] = torch.from_numpy(self.array)[index]
        return self._shared.get(index, view)

    def are_at(self, held: Any, index: int) -> bool:
        """Whether a tensor lies where the number of another parameter than `index` is kept."""
        if held is self._views[index] or not (isinstance(held, Tensor) and has_kernel([held])):
            return False
        return held.data_ptr() in self._places

    def read(self) -> None:
        """Take note of what other processes wrote."""
        for index, held in self._shared.items():
            self.array[index] = float(held)

    def write(self) -> None:
        """Let other processes see."""
        for index, held in self._shared.items():
            held.fill_(self.array[index])


@dataclass
class Member:
    """One parameter with a gradient.

    Attributes:
        param: the parameter.
        state: its state, as `optimizer.state` holds it.
        group: index of its parameter group.
        index: its place among all of the optimizer's parameters.
    """

    param: Tensor
    state: State
    group: int
    index: int


@dataclass
class Row:
    """What parameters at one step number share.

    Attributes:
        t: number of the step being taken, from 1.
        given: what it is computed from: `t`, the scalar slots before it, the hyperparameters.
        kernel: the kernel's scalars.
        new: the scalar slots after it.
    """

    t: int
    given: dict[str, float]
    kernel: tuple[float, ...] = ()
    new: dict[str, float] = field(default_factory=dict)


class Eager:
    """Parameters without a kernel: the program runs on torch's own operations.

    The half types compute in float32, and complex numbers as pairs of reals, as in the kernels.
    """

    def __init__(self, program: Program, columns: Columns, name: Callable[[int, int], str]) -> None:
        check_memory(columns, name)
        self.slots = tuple(program.slots)
        self._columns = columns
        self._kinds = [*map(_kind, chain.from_iterable(columns))]
        self._step = program.array_function(_FUNCTIONS)
        self._of_norm = {norm: norm.array_function(_FUNCTIONS) for norm in program.norms}
        self._norms: list[dict[str, Tensor]] = [{} for _ in columns[0]]

    def holds(self, columns: Columns) -> bool:
        """Whether these can be stepped so; notes where they are."""
        self._columns = columns
        if [*map(_kind, chain.from_iterable(columns))] != self._kinds:
            return False
        return all(
            x.shape == p.shape and has_memory(x)
            for column in columns
            for p, x in zip(columns[0], column, strict=True)
        )

    def release(self) -> None:
        """Let go of the tensors."""
        self._columns = ()

    @torch.no_grad()
    def measure(
        self, row_of: Sequence[int], rows: Sequence[Mapping[str, float]], norm: NormSweep, whole: Any
    ) -> float:
        """See `Table.measure`."""
        total = 0.0
        for i, norms in enumerate(self._norms):
            value = self._of_norm[norm](**self._given(i, rows[row_of[i]], whole))[0]
            found = torch.linalg.vector_norm(value)
            if norm.of_tensor:
                norms[norm.of_tensor] = found
            total += float(found) ** 2
        return total

    @torch.no_grad()
    def step(self, row_of: Sequence[int], rows: Sequence[Mapping[str, float]], whole: Any) -> None:
        """Take the step: the member `i` at `rows[row_of[i]]`."""
        for i, (p, _, *slots) in enumerate(zip(*self._columns, strict=True)):
            step, *new = self._step(**self._given(i, rows[row_of[i]], whole))
            _real(p).copy_(_wide(p, p) - step)
            for x, value in zip(slots, new, strict=False):  # after these, the scalar slots
                _real(x).copy_(value)

    def _given(self, i: int, row: Mapping[str, float], whole: Any) -> dict[str, Any]:
        arrays = [_wide(column[i], self._columns[0][i]) for column in self._columns]
        return {**dict(zip(("p", "g", *self.slots), arrays, strict=True)), **row, **whole, **self._norms[i]}


class Members:
    """Parameters that take one program's step, and the numbers kept for each: step number, scalar slots.

    Args:
        program: of their rule.
        members: the parameters.
        grads: a gradient for each.
        numbers: for the step number and each scalar slot, its key in `state` (None: it is not kept there)
            and the numbers of all parameters.
        keys: names in `state`, of the program's slots in order.
        name: what to call an array of a member, of its row (0: the parameter, 1: its gradient, then the
            slots) and the member's index.

    Raises:
        ValueError: a tensor does not fit, or its memory does not hold its entries.
    """

    def __init__(
        self,
        program: Program,
        members: Sequence[Member],
        grads: Sequence[Tensor],
        numbers: Sequence[tuple[str | None, Numbers]],
        keys: Sequence[str],
        name: Callable[[int, int], str],
    ) -> None:
        self._program, self._members, self._keys, self._name = program, members, keys, name
        self._params = [m.param for m in members]
        self._numbers = [held for _, held in numbers]
        self._index = np.array([m.index for m in members])
        self._states = [m.state for m in members]
        self._kept = [key for key, _ in numbers if key is not None]
        views = self._held()
        self._views = TENSORS.form(views)
        self._places = self._views.find(views)
        self._seen: list[bytes] = []
        self._at: list[tuple[int, int, dict[str, float]]] = []
        self._row_of = np.zeros(len(members), np.int64)
        self._rows: list[Row] = []
        self._whole: dict[str, Any] = {}

        columns = [self._params, grads, *map(self._column, keys)]
        check_kinds(columns, lambda row, i: name(row, members[i].index))
        if program.norms and (nowhere := [m for m in members if m.param.is_meta]):
            raise TypeError(f"{name(0, nowhere[0].index)} is on the device meta, where no norm can be taken")
        kernel = [has_kernel(of_member) for of_member in zip(*columns, strict=True)]
        self._in_table = [i for i, has in enumerate(kernel) if has]
        self._others = [i for i, has in enumerate(kernel) if not has]
        self._table = self._eager = None
        if self._in_table:
            placed = [members[i] for i in self._in_table]
            tensors = self._some(columns, self._in_table)
            self._table = Table(TENSORS, program, tensors, lambda row, i: name(row, placed[i].index))
        if self._others:
            other = [members[i] for i in self._others]
            self._eager = Eager(
                program, self._some(columns, self._others), lambda row, i: name(row, other[i].index)
            )

    def take(self, grads: Sequence[Tensor]) -> bool:
        """Whether all that was prepared still holds with these gradients; where they are is then known."""
        try:
            if self._views.find(self._held()) != self._places:
                return False
            columns = [self._params, grads, *map(self._column, self._keys)]
        except (AttributeError, KeyError, RuntimeError, TypeError):  # not there, or no tensor with an address
            return False
        return (self._table is None or self._table.holds(self._some(columns, self._in_table))) and (
            self._eager is None or self._eager.holds(self._some(columns, self._others))
        )

    def prepare(self, rules: Sequence[Rule], threads: int) -> bool:
        """Compute what the step needs; nothing is changed yet, and a schedule may still refuse.

        Returns:
            whether the step is to be taken: False where a guard forbids it.

        Raises:
            ValueError: a step number that is none.
        """
        for numbers in self._numbers:
            numbers.read()
        if self._snapshot() != self._seen:
            self._read()
        self._rows = [
            Row(t + 1, {"t": t + 1, **scalars, **rules[group].values_at(t + 1)})
            for group, t, scalars in self._at
        ]
        self._whole = self._program.measure(self._sums(threads)) if self._program.norms else {}
        guard = self._program.guard
        if guard and not math.isfinite(self._whole[guard]):
            return False
        for row in self._rows:
            row.kernel, new = self._program.scalar_function(**row.given, **self._whole)
            row.new = dict(zip(self._program.scalar_slots, new, strict=True))
        return True

    def _sums(self, threads: int) -> list[SumOfSquares]:
        """What takes norms of the members."""
        given = [row.given for row in self._rows]
        sums: list[SumOfSquares] = []
        if self._table:
            sums.append(partial(self._table.measure, self._row_of[self._in_table], given, threads))
        if self._eager:
            sums.append(partial(self._eager.measure, self._row_of[self._others].tolist(), given))
        return sums

    def step(self, threads: int) -> None:
        """Take the step that was prepared."""
        if self._table:
            row_of = self._row_of if self._eager is None else self._row_of[self._in_table]
            self._table.step(row_of, [row.kernel for row in self._rows], threads)
        if self._eager:
            given = [row.given for row in self._rows]
            self._eager.step(self._row_of[self._others].tolist(), given, self._whole)
        steps, *slots = self._numbers
        steps.array[self._index] += 1
        for numbers, slot in zip(slots, self._program.scalar_slots, strict=True):
            kept = np.array([row.new[slot] for row in self._rows], numbers.array.dtype)
            numbers.array[self._index] = kept[self._row_of]
            for row, value in zip(self._rows, kept.tolist(), strict=True):
                row.new[slot] = value  # as a state that is saved and loaded has it
        for numbers in self._numbers:
            numbers.write()
        self._at = [(group, row.t, row.new) for (group, _, _), row in zip(self._at, self._rows, strict=True)]
        self._seen = self._snapshot()

    def release(self) -> None:
        """Let go of tensors: gradients are not kept alive until the next step."""
        for part in (self._table, self._eager):
            if part:
                part.release()

    def _held(self) -> list[Any]:
        """What holds the members' numbers in their states."""
        return [*chain.from_iterable(map(self._column, self._kept))]

    def _column(self, key: str) -> list[Any]:
        return list(map(itemgetter(key), self._states))

    def _some(self, columns: Columns, places: Sequence[int]) -> Columns:
        if len(places) == len(self._members):
            return columns
        return [[column[i] for i in places] for column in columns]

    def _snapshot(self) -> list[bytes]:
        return [numbers.array[self._index].tobytes() for numbers in self._numbers]

    def _read(self) -> None:
        """Sort the members by group, step number and scalar slots."""
        rows: dict[tuple[float, ...], int] = {}
        columns = [numbers.array[self._index].tolist() for numbers in self._numbers]
        for i, (member, *values) in enumerate(zip(self._members, *columns, strict=True)):
            check_step(values[0], partial(self._name, 0, member.index))
            self._row_of[i] = rows.setdefault((member.group, *values), len(rows))
        names = tuple(self._program.scalar_slots)
        self._at = [
            (int(group), int(t), dict(zip(names, scalars, strict=True))) for group, t, *scalars in rows
        ]


class Plan:
    """The members of each program, for one pattern of present gradients.

    Args:
        turns: what is stepped together, turn by turn: lists of members, each with the gradients' places
            among those of all parameters. A parameter that is listed twice is stepped in two turns.
    """

    def __init__(self, turns: Iterable[list[tuple[list[int], Members]]]) -> None:
        self._turns = [*turns]

    def take(self, grads: Sequence[Tensor | None]) -> bool:
        """Whether all that was prepared still holds with these gradients; where they are is then known."""
        for places, members in chain.from_iterable(self._turns):
            if not members.take(grads if len(places) == len(grads) else [grads[i] for i in places]):  # type: ignore[arg-type, misc]
                return False
        return True

    def step(self, rules: Sequence[Rule]) -> None:
        """Take the step, or none where a guard forbids it; then let go of the gradients."""
        try:
            threads = torch.get_num_threads()
            for turn in self._turns:
                if not all(members.prepare(rules, threads) for _, members in turn):
                    return
                for _, members in turn:
                    members.step(threads)
        finally:
            for _, members in chain.from_iterable(self._turns):
                members.release()


# -- what tensors must be: checked before anything is written -----------------------------------------

# What a step computes with; float8 and the like have no arithmetic.
NUMBERS = "float64, float32, float16, bfloat16 or complex numbers"


def check_kinds(columns: Columns, name: Callable[[int, int], str]) -> None:
    """Refuse what no step computes with.

    Args:
        columns: parameters, gradients, then slots.
        name: what to call one of them, of its column and its place there.

    Raises:
        TypeError: no tensor; none that is dense and of `NUMBERS`; a complex one beside real ones.
        ValueError: a tensor on another device than its parameter.
    """
    for row, column in enumerate(columns):
        for i, (p, x) in enumerate(zip(columns[0], column, strict=True)):
            if not isinstance(x, Tensor):
                raise TypeError(f"{name(row, i)} is a tensor, got {x!r}")
            if not is_dense(x):
                raise TypeError(f"{name(row, i)} is a dense tensor of {NUMBERS}, got {described(x)}")
            if x.is_complex() != p.is_complex():
                raise TypeError(f"{name(row, i)} is of {x.dtype}, its parameter of {p.dtype}")
            if x.device != p.device:
                raise ValueError(f"{name(row, i)} is on the device {x.device}, its parameter on {p.device}")


def check_memory(columns: Columns, name: Callable[[int, int], str]) -> None:
    """Refuse shapes that differ, and storage that does not hold a tensor's entries.

    Args:
        columns: as in `check_kinds`.
        name: likewise.

    Raises:
        ValueError: which it is.
    """
    for row, column in enumerate(columns):
        for i, (p, x) in enumerate(zip(columns[0], column, strict=True)):
            if x.shape != p.shape:
                raise ValueError(f"{name(row, i)} has shape {tuple(x.shape)}, its parameter {tuple(p.shape)}")
            if not has_memory(x):
                raise ValueError(
                    f"{name(row, i)} has too little memory: its storage has been emptied or made smaller"
                )


def check_step(number: float, name: Callable[[], str]) -> None:
    """Refuse what counts no steps.

    Raises:
        ValueError: it is negative, or no whole number.
    """
    if not (number >= 0 and number.is_integer()):
        raise ValueError(f"{name()} is at step {number}, which is no whole number from 0")


def one_number(held: Any) -> float:
    """What a tensor of one number, or a number, says.

    Raises:
        ValueError: it is something else.
    """
    with suppress(OverflowError, RuntimeError, TypeError, ValueError):
        if not isinstance(held, Tensor) or (held.layout == torch.strided and has_memory(held)):
            return float(held)
    raise ValueError(f"is one number, got {described(held)}")


def described(x: Any) -> str:
    """A tensor, or what stands in its place, in an error."""
    if not isinstance(x, Tensor):
        return repr(x)
    what = "a nested tensor" if x.is_nested else f"a tensor of shape {tuple(x.shape)}"
    return f"{what}, {x.dtype}, {x.layout}, on {x.device}"


_kind = attrgetter("dtype", "layout", "device", "is_nested")


# -- arithmetic --------------------------------------------------------------------------------------


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x) if x.is_complex() else x


def _wide(x: Tensor, p: Tensor) -> Tensor:
    """A tensor as the rule computes with it: of float64 where its parameter is, else of float32."""
    x = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    real = torch.float64 if p.dtype in (torch.float64, torch.complex128) else torch.float32
    return x.to(torch.promote_types(x.dtype, real))
