"""How a step reaches the kernel: parameters that take one kernel together form a lane.

Pointers are looked up as little as is safe. Between steps only gradients move, so a lane keeps its
table and, at each step, reads the gradients' addresses and makes sure that nothing else has moved.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, is_, itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thalweg.kernels import threads
from thalweg.kernels.cpu import Batch, Integers
from thalweg.program import Program
from thalweg.rule import Rule
from thalweg.sources import DTYPES

_DTYPES = {getattr(torch, name): name for name in DTYPES}
threads.look_again()  # torch, imported above, brings OpenMP threads

_nbytes = attrgetter("nbytes")
State = dict[str, Any]


class StaleError(Exception):
    """What a lane was built on has changed: build it anew."""


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

    def slots(self, keys: Iterable[str]) -> list[Tensor]:
        """Its arrays of state."""
        return [self.state[key] for key in keys]


def has_kernel(tensors: Iterable[Tensor]) -> bool:
    """Whether a CPU kernel reads these: plain, strided, on the CPU, of a known dtype."""
    return all(
        x.device.type == "cpu"
        and x.layout == torch.strided
        and x.dtype in _DTYPES
        and type(x) in (Tensor, torch.nn.Parameter)
        for x in tensors
    )


def is_dense(x: Tensor) -> bool:
    """Whether the entries fill one stretch of memory, in any order."""
    if x.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True


class KernelLane:
    """Parameters of one form and one set of dtypes, stepped by one kernel call.

    Args:
        program: of the rule.
        members: the parameters.
        keys: names in their state, of the program's slots in order.
        dtypes: of the parameter, the gradient and each slot.
    """

    def __init__(
        self,
        program: Program,
        members: Sequence[Member],
        keys: Sequence[str],
        dtypes: tuple[torch.dtype, ...],
    ) -> None:
        self.params = [m.param for m in members]
        self.batch = Batch(program, tuple(_DTYPES[d] for d in dtypes), [p.numel() for p in self.params])
        # A parameter with gaps between its entries, and a gradient laid out unlike its parameter,
        # are copied to and from a stand-in of the parameter's shape, kept from step to step.
        self.stand_ins = {
            i: torch.empty_like(p, memory_format=torch.contiguous_format)
            for i, p in enumerate(self.params)
            if not is_dense(p)
        }
        self.layouts = [self.stand_ins.get(i, p).stride() for i, p in enumerate(self.params)]
        self.strides = [p.stride() for p in self.params]
        self.all_contiguous = all(p.is_contiguous() for p in self.params)
        self.param_addresses = [p.data_ptr() for p in self.params]
        self.gradient_bytes = [p.numel() * dtypes[1].itemsize for p in self.params]
        self.gradient_copies: dict[int, Tensor] = {}
        self.gradient_dtype = dtypes[1]
        table = self.batch.addresses
        table[0] = [self.stand_ins.get(i, p).data_ptr() for i, p in enumerate(self.params)]
        self._states = [m.state for m in members]
        self._slots: list[tuple[str, list[Tensor]]] = []
        for row, key in enumerate(keys, 2):
            tensors = [s[key] for s in self._states]
            self._slots.append((key, tensors))
            table[row] = [x.data_ptr() for x in tensors]

    def take(self, grads: Sequence[Tensor]) -> None:
        """Note where this step's gradients are.

        Raises:
            StaleError: a parameter or a slot is no longer the tensor it was, or a gradient is of
                another size.
        """
        for slot, tensors in self._slots:
            if not all(map(is_, map(itemgetter(slot), self._states), tensors)):
                raise StaleError
        if list(map(Tensor.data_ptr, self.params)) != self.param_addresses:
            raise StaleError
        if self.all_contiguous:
            if not all(map(Tensor.is_contiguous, self.params)):
                raise StaleError
        elif list(map(Tensor.stride, self.params)) != self.strides:
            raise StaleError
        if list(map(_nbytes, grads)) != self.gradient_bytes:  # of another dtype or shape than before
            raise StaleError
        if not (self.all_contiguous and all(map(Tensor.is_contiguous, grads))):
            grads = [g if self._fits(i, g) else self._copied(i, g) for i, g in enumerate(grads)]
        self.batch.addresses[1] = list(map(Tensor.data_ptr, grads))

    def _fits(self, i: int, grad: Tensor) -> bool:
        return grad.stride() == self.layouts[i]

    def _copied(self, i: int, grad: Tensor) -> Tensor:
        if i not in self.gradient_copies:
            like = self.stand_ins.get(i, self.params[i])
            self.gradient_copies[i] = torch.empty_like(like, dtype=self.gradient_dtype)
        return self.gradient_copies[i].copy_(grad)

    def norms(self, threads: int) -> float:
        """Compute each gradient's norm; return the sum of their squares."""
        squares = self.batch.squared_norms(threads)
        self.batch.norms[:] = squares**0.5
        return float(squares.sum())

    def step(self, rows: "Sequence[Row]", row_of: Integers, global_norm: float, threads: int) -> None:
        """Take the step: the member `i` at `rows[row_of[i]]`."""
        if len(self.batch.scalars) != len(rows):
            self.batch.scalars = np.empty((len(rows), len(rows[0].kernel)))
        for r, row in enumerate(rows):
            self.batch.scalars[r] = row.kernel
        self.batch.rows[:] = row_of
        for i, stand_in in self.stand_ins.items():
            stand_in.copy_(self.params[i])
        self.batch.step(threads)
        for i, stand_in in self.stand_ins.items():
            self.params[i].copy_(stand_in)
        # Autograd learns that parameters changed, as from any in-place operation.
        torch.autograd.graph.increment_version(self.params)


class EagerLane:
    """Parameters without a kernel: the rule as written runs on torch's own operations.

    The half types compute in float32, as in the kernels.
    """

    def __init__(self, program: Program, members: Sequence[Member], keys: Sequence[str]) -> None:
        self.members = members
        self.params = [m.param for m in members]
        self.keys = dict(zip(program.slots, keys, strict=True))
        self.grads: Sequence[Tensor] = ()
        self._norms: list[Tensor] = []

    def take(self, grads: Sequence[Tensor]) -> None:
        """Note this step's gradients.

        Raises:
            StaleError: one of them is sparse.
        """
        if any(g.layout != torch.strided for g in grads):
            raise StaleError
        self.grads = grads

    def norms(self, threads: int) -> float:
        """Compute each gradient's norm; return the sum of their squares."""
        self._norms = [torch.linalg.vector_norm(_wide(g)) for g in self.grads]
        return float(sum(float(n) ** 2 for n in self._norms))

    def step(self, rows: "Sequence[Row]", row_of: Integers, global_norm: float, threads: int) -> None:
        """Take the step: the member `i` at `rows[row_of[i]]`."""
        for i, (member, grad) in enumerate(zip(self.members, self.grads, strict=True)):
            row = rows[row_of[i]]
            state: dict[str, Any] = dict.fromkeys(row.rule.slots, 0.0) | row.scalars
            state |= {slot: _wide(member.state[key]) for slot, key in self.keys.items()}
            norm = self._norms[i] if self._norms else None
            param = _wide(member.param)
            step, new = row.rule.at(row.t).advance(row.t, _wide(grad), param, state, norm, global_norm)
            member.param.copy_(param - step)
            for slot, key in self.keys.items():
                member.state[key].copy_(new[slot])


@dataclass
class Row:
    """What parameters at one step number share.

    Attributes:
        rule: with its hyperparameters.
        t: number of the step being taken, from 1.
        scalars: the scalar slots before it.
        kernel: what the kernel is told.
        new: the scalar slots after it.
    """

    rule: Rule
    t: int
    scalars: dict[str, float]
    kernel: tuple[float, ...]
    new: dict[str, float]


class Lane:
    """Parameters stepped together, and the numbers kept for each: step number and scalar slots.

    Those numbers stand side by side in one tensor a key, which `state` holds views of, so that
    counting a step is one addition. They are read again when someone has changed them.

    Args:
        inner: what takes the step.
        program: of the rule.
        members: the parameters.
        numbers: for "step" and each scalar slot, that tensor and its views, by key.
        keys: names in `numbers`, of "step" and of the program's scalar slots in order.
    """

    def __init__(
        self,
        inner: KernelLane | EagerLane,
        program: Program,
        members: Sequence[Member],
        numbers: dict[str, "Numbers"],
        keys: Sequence[str],
    ) -> None:
        self.inner = inner
        self._program = program
        self._members = members
        self._index = np.array([m.index for m in members])
        self._numbers = [numbers[key] for key in keys]
        self._views = [(key, [numbers[key].views[m.index] for m in members]) for key in keys]
        self._states = [m.state for m in members]
        self._seen: list[bytes] = []
        self._at: list[tuple[int, int, dict[str, float]]] = []
        self._row_of: Integers = np.zeros(len(members), np.int64)
        self._rows: list[Row] = []

    def take(self, grads: Sequence[Tensor]) -> None:
        """Note this step's gradients.

        Raises:
            StaleError: something that the lane was built on has moved.
        """
        for key, views in self._views:
            if not all(map(is_, map(itemgetter(key), self._states), views)):
                raise StaleError
        self.inner.take(grads)

    def prepare(self, rules: Sequence[Rule], global_norm: float) -> None:
        """Compute what the step needs; nothing is changed yet, and a schedule may still refuse."""
        if self._snapshot() != self._seen:
            self._read()
        self._rows = []
        for group, t, scalars in self._at:
            kernel, new = self._program.scalars_at(t + 1, rules[group], scalars, global_norm)
            self._rows.append(Row(rules[group], t + 1, scalars, kernel, new))
        self._global_norm = global_norm

    def step(self, threads: int) -> None:
        """Take the step that was prepared."""
        self.inner.step(self._rows, self._row_of, self._global_norm, threads)
        steps, *slots = self._numbers
        steps.array[self._index] += 1
        for numbers, name in zip(slots, self._program.scalar_slots, strict=True):
            numbers.array[self._index] = np.array([row.new[name] for row in self._rows])[self._row_of]
        self._at = [(group, row.t, row.new) for (group, _, _), row in zip(self._at, self._rows, strict=True)]
        self._seen = self._snapshot()

    def _snapshot(self) -> list[bytes]:
        return [numbers.array[self._index].tobytes() for numbers in self._numbers]

    def _read(self) -> None:
        """Sort the members by group, step number and scalar slots."""
        rows: dict[tuple[float, ...], int] = {}
        columns = [numbers.array[self._index].tolist() for numbers in self._numbers]
        for i, (member, *values) in enumerate(zip(self._members, *columns, strict=True)):
            self._row_of[i] = rows.setdefault((member.group, *values), len(rows))
        names = tuple(self._program.scalar_slots)
        self._at = [
            (int(group), int(t), dict(zip(names, scalars, strict=True))) for group, t, *scalars in rows
        ]


class States(defaultdict[Tensor, State]):
    """`optimizer.state`, which counts how often someone has put another dictionary into it."""

    def __init__(self, states: Mapping[Tensor, State]) -> None:
        super().__init__(dict, states)
        self.changes = 0

    def __setitem__(self, p: Tensor, state: State) -> None:
        self.changes += 1
        super().__setitem__(p, state)

    def __reduce__(self) -> Any:
        return States, (dict(self),)


class Numbers:
    """One number for each parameter, side by side in a tensor; `views[i]` is the i-th."""

    def __init__(self, count: int, dtype: torch.dtype) -> None:
        tensor = torch.zeros(count, dtype=dtype)
        self.array = tensor.numpy()
        self.views = list(tensor.unbind())


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
