"""Thalweg's rules on NumPy arrays, updated in place: the idiom of courses.

    from thalweg.numpy import Adam

    optimizer = Adam(lr=0.01)
    optimizer.update(params, grads)  # dictionaries, lists, or single arrays

Every registered rule is here, under its own name and as courses spell it (`AdaGrad`, `NAdam`).
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from thalweg import statefile
from thalweg.errors import UnknownRuleError
from thalweg.kernels.cpu import Batch
from thalweg.program import Program, trace
from thalweg.registry import find, rules
from thalweg.rule import Rule, Scalar
from thalweg.sources import DTYPES
from thalweg.statefile import State

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = Mapping[Any, Array] | Sequence[Array] | Array


class Optimizer:
    """A rule on NumPy arrays.

    Args:
        rule: a rule, within treatments or not, with schedules or not.
        threads: how many threads large models are updated with; the usable processors by default.

    Raises:
        TypeError: `rule` is not a rule.

    Attributes:
        rule: the rule; replace it to change a hyperparameter between steps.
        t: number of steps taken.
    """

    def __init__(self, rule: Rule, *, threads: int | None = None) -> None:
        if not isinstance(rule, Rule):
            raise TypeError(f"Optimizer takes a rule, such as thalweg.get('adam'); got {rule!r}")
        self.rule = rule
        self.t = 0
        self.threads = threads or usable_processors()
        self._slots: dict[str, dict[str, Array]] = {}
        self._scalars: dict[str, float] = {}
        self._batches: dict[Any, tuple[list[Any], Batch]] = {}

    def update(self, params: Arrays, grads: Arrays) -> None:
        """Take one step, in place.

        Args:
            params: the parameters: a dictionary, a list or one array, of float64, float32, float16
                or bfloat16 (from ml_dtypes) entries, of any shape and strides.
            grads: their gradients: the same keys and shapes.

        Raises:
            TypeError: a parameter that cannot be updated in place, or that is not floating-point.
            ValueError: keys or shapes differ, or are not those of the steps before.
        """
        named, gradients = _named(params, "params"), _named(grads, "grads")
        self._check(named, gradients)
        program = trace(self.rule)
        for slot in program.slots:
            self._slots.setdefault(slot, {})
        initial = self.rule.initial_state()
        for name, p in named.items():
            for slot in program.slots:
                if name not in self._slots[slot]:
                    self._slots[slot][name] = np.full(p.shape, initial[slot], p.dtype)
        scalars = {slot: self._scalars.get(slot, initial[slot]) for slot in program.scalar_slots}

        stand_ins = {k: p if _is_plain(p) else p.copy(order="C") for k, p in named.items()}
        dense = {k: _gradient(g, named[k]) for k, g in gradients.items()}
        batches = [
            (keys, self._batch(program, dtype, keys, named)) for dtype, keys in _by_dtype(named).items()
        ]
        for keys, batch in batches:
            columns = [stand_ins, dense, *(self._slots[slot] for slot in program.slots)]
            for row, arrays in enumerate(columns):
                batch.addresses[row] = [_address(arrays[k]) for k in keys]

        global_norm = 0.0
        if self.rule.guarded or {"norm", "global_norm"} & {*self.rule.inputs}:
            squares = 0.0
            for _, batch in batches:
                of_tensors = batch.squared_norms(self.threads)
                batch.norms[:] = np.sqrt(of_tensors)
                squares += float(of_tensors.sum())
            if self.rule.guarded and not math.isfinite(squares):
                return
            global_norm = math.sqrt(squares)
        kernel, new = program.scalars_at(self.t + 1, self.rule, scalars, global_norm)
        for _, batch in batches:
            batch.scalars[0] = kernel
            batch.step(self.threads)
        for name, p in named.items():
            if stand_ins[name] is not p:
                p[...] = stand_ins[name]
        self._scalars = new
        self.t += 1

    def state(self) -> State:
        """All that a later run needs to go on from here; copies, nothing is shared."""
        return State.of(self.rule, self.t, self._scalars, self._slots)

    def load(self, source: State | str | os.PathLike[str]) -> None:
        """Go on from a state: hyperparameters (schedules stay), step number and slots.

        Args:
            source: what `state` returned, or a file that `save` wrote.

        Raises:
            ValueError: it was written by another rule or form, or the file is not what `save` writes.
            OSError: the file cannot be read.
        """
        state = source if isinstance(source, State) else statefile.read(Path(source))
        program = trace(self.rule)
        own = State.of(self.rule, 0, {}, {})
        if state.rule != own.rule:
            raise ValueError(f"the state was written by {state.rule!r}; this optimizer is {own.rule!r}")
        found, wanted = _form(state), _form(own)
        if found != wanted:
            raise ValueError(
                f"the state was written by {state.rule} with {_beside(found, wanted)}; this optimizer has "
                f"{_beside(wanted, found)} (thalweg.convert changes the form of a state)"
            )
        if state.t and (set(state.slots), set(state.scalars)) != (
            set(program.slots),
            set(program.scalar_slots),
        ):
            has = ", ".join((*state.slots, *state.scalars)) or "none"
            needs = ", ".join((*program.slots, *program.scalar_slots)) or "none"
            raise ValueError(f"the state has the slots {has}; this form of {self.rule.name} has {needs}")
        values = {k: v for k, v in state.hyperparameters.items() if v is not None}
        scheduled = [k for k, v in self.rule.values.items() if callable(v)]
        self.rule = self.rule.replaced(**{k: v for k, v in values.items() if k not in scheduled})
        self.t = state.t
        self._scalars = dict(state.scalars)
        self._slots = {slot: {k: a.copy() for k, a in arrays.items()} for slot, arrays in state.slots.items()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a .npz or .safetensors file; a file there is replaced whole or not at all.

        Raises:
            ValueError: another ending.
            ImportError: .safetensors without the safetensors package.
            OSError: the file cannot be written.
        """
        statefile.write(Path(path), self.state())

    def __repr__(self) -> str:
        return f"thalweg.numpy.Optimizer({self.rule!r}, t={self.t})"

    def _check(self, params: dict[str, Array], grads: dict[str, Array]) -> None:
        if params.keys() != grads.keys():
            missing, surplus = params.keys() - grads.keys(), grads.keys() - params.keys()
            raise ValueError(
                f"params and grads differ: no gradient for {', '.join(sorted(missing)) or 'none'}; "
                f"no parameter for {', '.join(sorted(surplus)) or 'none'}"
            )
        for name, p in params.items():
            what = f"parameter {name!r}" if name else "the parameter"
            if not isinstance(p, np.ndarray):
                raise TypeError(
                    f"{what} must be a NumPy array to be updated in place, got {type(p).__name__}"
                )
            if p.dtype.name not in DTYPES or not p.dtype.isnative:
                raise TypeError(f"{what} is {p.dtype!r}; parameters are {', '.join(DTYPES)}")
            if not p.flags.writeable:
                raise TypeError(f"{what} is read-only and cannot be updated in place")
            if np.shape(grads[name]) != p.shape:
                raise ValueError(f"{what} has shape {p.shape}, its gradient {np.shape(grads[name])}")
        for arrays in self._slots.values():
            if arrays and arrays.keys() != params.keys():
                changed = ", ".join(sorted(arrays.keys() ^ params.keys()))
                raise ValueError(f"the parameters are not those of the steps before: {changed}")
            for name, a in arrays.items():
                if a.shape != params[name].shape:
                    raise ValueError(
                        f"parameter {name!r} has shape {params[name].shape}, its state {a.shape}"
                    )

    def _batch(self, program: Program, dtype: str, keys: list[str], params: dict[str, Array]) -> Batch:
        """The kernel's table for the parameters of one dtype, kept while their sizes stay."""
        form = [(k, params[k].size, *(self._slots[s][k].dtype.name for s in program.slots)) for k in keys]
        found = self._batches.get((id(program), dtype))
        if found is None or found[0] != form:
            slots = tuple(self._slots[s][keys[0]].dtype.name for s in program.slots)
            found = form, Batch(program, (dtype, dtype, *slots), [params[k].size for k in keys])
            self._batches[id(program), dtype] = found
        return found[1]


class _Named(Optimizer):
    """A rule under its own name: `thalweg.numpy.Adam(lr=0.01)`."""

    kind: ClassVar[type[Rule]]

    def __init__(self, *args: Scalar, threads: int | None = None, **hyperparameters: Scalar) -> None:
        super().__init__(self.kind(*args, **hyperparameters), threads=threads)


def _form(state: State) -> list[str]:
    """What is settled before the first step, in words."""
    flags = [f"{name}={value}" for name, value in state.flags.items()]
    return [*flags, *state.treatments, *sorted(state.hyperparameters)]


def _beside(some: list[str], others: list[str]) -> str:
    return ", ".join(x for x in some if x not in others) or (
        "another order" if {*some} == {*others} else "less"
    )


def usable_processors() -> int:
    """How many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _named(arrays: Arrays, what: str) -> dict[str, Array]:
    if isinstance(arrays, Mapping):
        return {str(k): a for k, a in arrays.items()}
    if isinstance(arrays, list | tuple):
        return {str(i): a for i, a in enumerate(arrays)}
    if isinstance(arrays, np.ndarray | np.generic):
        return {"": arrays}
    raise TypeError(f"{what} is a dictionary, a list or an array, got {type(arrays).__name__}")


def _by_dtype(params: dict[str, Array]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, p in params.items():
        found.setdefault(p.dtype.name, []).append(name)
    return found


def _is_plain(a: Array) -> bool:
    return bool(a.flags.c_contiguous and a.flags.aligned)


def _gradient(gradient: Any, p: Array) -> Array:
    """The gradient as the kernel reads it; the same array where that is possible."""
    g: Array = np.asarray(gradient, p.dtype)
    return g if _is_plain(g) and not np.may_share_memory(g, p) else g.copy(order="C")


def _address(a: Array) -> int:
    return int(a.__array_interface__["data"][0])


_classes: dict[type[Rule], type[Optimizer]] = {}


def __getattr__(name: str) -> type[Optimizer]:
    try:
        rule = find(name)
    except UnknownRuleError as error:
        raise AttributeError(f"module 'thalweg.numpy': {error}") from None
    if rule not in _classes:
        members = {"kind": rule, "__doc__": rule.__doc__, "__module__": __name__}
        _classes[rule] = type(rule.__name__, (_Named,), members)
    return _classes[rule]


def __dir__() -> list[str]:
    return ["Optimizer", *(rule.__name__ for rule in map(find, rules()))]
