"""One optimizer for every rule, on NumPy arrays that are updated in place."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from thalweg import statefile
from thalweg.errors import nearest, no_rule
from thalweg.hyperparameters import spellings
from thalweg.kernels.numpy_arrays import ARRAYS
from thalweg.kernels.table import Table
from thalweg.kernels.threads import lock
from thalweg.numpy import loading
from thalweg.numpy.trees import Array, Arrays, Keys, check_apart, flat, name_of, names_of, what_of
from thalweg.program.sweeps import DTYPES
from thalweg.program.tracing import Program, trace
from thalweg.registry import known_as, meant_by
from thalweg.rule import Rule
from thalweg.statefile import State, apart
from thalweg.treatments import Treatment, chain

# What other libraries call what is done here.
_ELSEWHERE = {
    **dict.fromkeys(("step", "apply", "apply_gradients", "minimize"), "update"),
    "state_dict": "state",
    "load_state_dict": "load",
}


class Optimizer:
    """A rule on NumPy arrays.

    Args:
        rule: a rule, within treatments or not, with schedules or not.
        threads: how many threads large models are updated with; the usable processors by default.

    Raises:
        TypeError: `rule` is not a rule.

    Every hyperparameter of the rule and of its treatments is an attribute, by its name or a synonym of it:
    `optimizer.lr = 0.01` acts from the next step on, and is checked as the rule checks it. An optimizer may
    be copied and pickled; a copy shares nothing.

    Attributes:
        rule: the rule. After the first step another one must be of its form, within any treatments.
        t: number of steps taken.
        threads: see above.
    """

    def __init__(self, rule: Rule, *, threads: int | None = None) -> None:
        self._lock = lock()
        self.t = 0
        self.rule = rule
        self.threads = threads or usable_processors()
        self._slots: dict[str, dict[Any, Array]] = {}  # for each parameter: its keys; its name once loaded
        self._scalars: dict[str, float] = {}
        self._table: Table | None = None

    @property
    def rule(self) -> Rule:
        """The rule; see above."""
        return self._rule

    @rule.setter
    def rule(self, rule: Rule) -> None:
        if not isinstance(rule, Rule):
            raise no_rule("Optimizer", rule)
        (_, new), (_, old) = apart(rule), apart(self._rule) if self.t else apart(rule)
        if new.form != old.form:
            raise ValueError(
                f"after {self.t} steps the state is that of {old!r}, and {new!r} has another: "
                "make a new Optimizer, or let thalweg.convert change the state"
            )
        self._rule: Rule = rule

    def __getattr__(self, name: str) -> Any:
        """A hyperparameter of the rule or of a treatment."""
        if name.startswith("_"):
            raise AttributeError(f"Optimizer has no attribute {name!r}")
        owners = _owners(self._rule)
        field = known_as(name, owners)
        if field is None:
            known = [*(known for known in dir(type(self)) if not known.startswith("_")), *owners]
            near = nearest(name, known, _ELSEWHERE | spellings(owners))
            raise AttributeError(f"the optimizer has no attribute {name!r}; {near}")
        return getattr(owners[field], field)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a hyperparameter, from the next step on; or what else is kept here.

        Raises:
            AttributeError: `name` is nearly a hyperparameter's.
            TypeError, ValueError: a value of the wrong type, outside its range or of another form.
        """
        if name.startswith("_") or name in ("rule", "t", "threads"):
            if name in ("t", "threads"):
                _check_count(name, value)
            super().__setattr__(name, value)
            return
        owners = _owners(self._rule)
        if field := known_as(name, owners):
            links, inner = apart(self._rule)
            parts: list[Any] = [*links, inner]
            place = parts.index(owners[field])
            parts[place] = replace(parts[place], **{field: value})
            self.rule = chain(*parts)
        elif near := meant_by(name, owners):
            raise AttributeError(f"{self._rule.name} has no hyperparameter {name!r}; did you mean {near!r}?")
        else:
            super().__setattr__(name, value)

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *_owners(self._rule)]

    def __getstate__(self) -> dict[str, Any]:
        slots = {slot: {k: a.copy() for k, a in arrays.items()} for slot, arrays in self._slots.items()}
        kept = {k: v for k, v in vars(self).items() if k != "_lock"}
        return {**kept, "_slots": slots, "_table": None}  # it is built again

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=lock())

    def update(self, params: Arrays, grads: Arrays) -> None:
        """Take one step, in place.

        Args:
            params: the parameters: one array, or dictionaries and lists of arrays, nested or not, of
                float64, float32, float16 or bfloat16 (from ml_dtypes) entries, of any shape and strides.
            grads: their gradients: the same keys and shapes.

        Raises:
            TypeError: a parameter that cannot be updated in place, or that is not floating-point; a
                gradient that is not real.
            ValueError: keys or shapes differ, or are not those of the steps before; parameters share memory.
        """
        with self._lock:  # what is prepared for one step is not for another thread's
            self._update(params, grads)

    def _update(self, params: Arrays, grads: Arrays) -> None:
        named, gradients = flat(params, grads)
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

        columns: list[list[Array]] = [
            list(named.values()),
            [np.asarray(gradients[k], p.dtype) for k, p in named.items()],
            *([self._slots[slot][k] for k in named] for slot in program.slots),
        ]
        if self._table is None or self._table.program is not program or not self._table.holds(columns):
            check_apart(named)
            self._table = Table(ARRAYS, program, columns, _namer([*named], program))
        try:
            given = {"t": self.t + 1, **scalars, **self.rule.values_at(self.t + 1)}
            row_of = np.zeros(len(named), np.int64)
            whole = program.measure([partial(self._table.measure, row_of, [given], self.threads)])
            if program.guard and not math.isfinite(whole[program.guard]):
                return
            kernel, new = program.scalar_function(**given, **whole)
            self._table.step(row_of, [kernel], self.threads)
        finally:
            self._table.release()
        self._scalars = dict(zip(program.scalar_slots, new, strict=True))
        self.t += 1

    def state(self) -> State:
        """All that a later run needs to go on from here; copies, nothing is shared.

        A nested parameter is named by its keys with slashes between, as "layer1/W".

        Raises:
            ValueError: two parameters have one name, or a key has none.
        """
        slots = {
            slot: {name: arrays[k] for k, name in names_of(arrays).items()}
            for slot, arrays in self._slots.items()
        }
        return State.of(self.rule, self.t, self._scalars, slots)

    def load(self, source: State | str | os.PathLike[str]) -> None:
        """Go on from a state: hyperparameters (schedules stay), step number and slots.

        Args:
            source: what `state` returned, or a file that `save` wrote.

        Raises:
            ValueError: it was written by another rule or form, or the file is not what `save` writes.
            OSError: the file cannot be read.
        """
        loading.load(self, source)

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

    def _check(self, params: dict[Keys, Array], grads: dict[Keys, Any]) -> None:
        for keys, p in params.items():
            what = what_of(keys)
            if p.dtype.name not in DTYPES or not p.dtype.isnative:
                raise TypeError(
                    f"{what} has entries of {p.dtype}; parameters have {', '.join(DTYPES)}, in this "
                    "machine's byte order"
                )
            if not p.flags.writeable:
                raise TypeError(f"{what} is read-only and cannot be updated in place; make it a copy")
            if np.shape(grads[keys]) != p.shape:
                raise ValueError(f"{what} has shape {p.shape}, its gradient {np.shape(grads[keys])}")
        for slot, arrays in self._slots.items():
            if arrays and arrays.keys() != params.keys():
                by_name = {name: keys for keys, name in names_of(params).items()}
                if arrays.keys() != by_name.keys():  # a loaded state knows parameters by name alone
                    changed = ", ".join(sorted({*map(name_of, arrays)} ^ {*map(name_of, params)}))
                    raise ValueError(f"the parameters are not those of the steps before: {changed}")
                arrays = self._slots[slot] = {by_name[name]: a for name, a in arrays.items()}
            for keys, a in arrays.items():
                if a.shape != params[keys].shape:
                    raise ValueError(f"{what_of(keys)} has shape {params[keys].shape}, its state {a.shape}")


def _check_count(name: str, value: Any) -> None:
    """Raises ValueError where a step number or a number of threads is none."""
    least = 0 if name == "t" else 1
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} is a whole number from {least}, got {value!r}")


def usable_processors() -> int:
    """How many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _owners(rule: Rule) -> dict[str, Rule | Treatment]:
    """Whose each hyperparameter and flag is, by its name: the rule's or a treatment's."""
    links, inner = apart(rule)
    return {f.name: owner for owner in (*links, inner) for f in fields(owner)}  # type: ignore[arg-type,misc]


def _namer(params: Sequence[Keys], program: Program) -> Callable[[int, int], str]:
    """What to call the arrays of a table, of parameters in this order."""

    def name(row: int, place: int) -> str:
        of = ["", "the gradient of ", *(f"the slot {slot!r} of " for slot in program.slots)][row]
        return f"{of}{what_of(params[place])}"

    return name
