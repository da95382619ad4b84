"""Thalweg's rules on NumPy arrays, updated in place: the idiom of courses.

    from thalweg.numpy import Adam

    optimizer = Adam(lr=0.01)
    optimizer.update(params, grads)  # dictionaries, lists, nested or not, or single arrays
    optimizer.lr *= 0.95  # hyperparameters are attributes

Every registered rule is here, under its own name and as courses spell it (`AdaGrad`, `NAdam`); so are its
hyperparameters (`beta1`, `learning_rate`, `decay_rate`).
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from thalweg import statefile
from thalweg.errors import UnknownRuleError, nearest, no_attribute, no_rule
from thalweg.hyperparameters import spellings
from thalweg.kernels.arrays import ARRAYS
from thalweg.kernels.table import Table
from thalweg.kernels.threads import lock
from thalweg.program.sweeps import DTYPES
from thalweg.program.tracing import Program, trace
from thalweg.registry import find, known_as, meant_by, rules, spelled
from thalweg.rule import Rule, Scalar
from thalweg.statefile import State, apart
from thalweg.treatments import Treatment, chain

Array: TypeAlias = NDArray[Any]
# An array, or dictionaries and lists of arrays, one within another.
Arrays: TypeAlias = Mapping[Any, Any] | Sequence[Any] | Array
# A parameter's keys and indices, from the outermost container to the innermost.
Keys: TypeAlias = tuple[Any, ...]

# What other libraries call what is done here.
_ELSEWHERE = {
    **dict.fromkeys(("step", "apply", "apply_gradients", "minimize"), "update"),
    "state_dict": "state",
    "load_state_dict": "load",
}

# How long NumPy may look for a byte that two strided arrays share, in solutions that it tries.
_PATIENCE = 100_000


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
        named, gradients = _flat(params, grads)
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
            _check_apart(named)
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
            slot: {name: arrays[k] for k, name in _names(arrays).items()}
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
        state = statefile.checked(source) if isinstance(source, State) else statefile.read(Path(source))
        program = trace(self.rule)
        own = State.of(self.rule, 0, {}, {})
        if state.rule != own.rule:
            raise ValueError(f"the state was written by {state.rule!r}; this optimizer is {own.rule!r}")
        found, wanted = _form(state), _form(own)
        if found != wanted:
            more, less = ", ".join(_beside(found, wanted)), ", ".join(_beside(wanted, found))
            differs = [f"has {more}, which this optimizer has not"] if more else []
            differs += [f"lacks {less}, which this optimizer has"] if less else []
            raise ValueError(
                f"the state was written by another form of {state.rule}: it "
                f"{' and '.join(differs) or 'has its treatments in another order'}; thalweg.convert changes "
                "the form of a state"
            )
        pairs = ((state.slots, program.slots), (state.scalars, program.scalar_slots))
        if any(set(has) - set(needs) or (state.t and set(has) != set(needs)) for has, needs in pairs):
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

    def _check(self, params: dict[Keys, Array], grads: dict[Keys, Any]) -> None:
        for keys, p in params.items():
            what = _what(keys)
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
                by_name = {name: keys for keys, name in _names(params).items()}
                if arrays.keys() != by_name.keys():  # a loaded state knows parameters by name alone
                    changed = ", ".join(sorted({*map(_name, arrays)} ^ {*map(_name, params)}))
                    raise ValueError(f"the parameters are not those of the steps before: {changed}")
                arrays = self._slots[slot] = {by_name[name]: a for name, a in arrays.items()}
            for keys, a in arrays.items():
                if a.shape != params[keys].shape:
                    raise ValueError(f"{_what(keys)} has shape {params[keys].shape}, its state {a.shape}")


class _Named(Optimizer):
    """A rule under its own name: `thalweg.numpy.Adam(lr=0.01)`."""

    kind: ClassVar[type[Rule]]

    def __init__(self, *args: Scalar, threads: int | None = None, **hyperparameters: Scalar) -> None:
        super().__init__(self.kind(*args, **spelled(self.kind, hyperparameters)), threads=threads)


def _form(state: State) -> list[str]:
    """What is settled before the first step, in words."""
    flags = [f"{name}={value}" for name, value in state.flags.items()]
    return [*flags, *state.treatments, *sorted(state.hyperparameters)]


def _beside(some: list[str], others: list[str]) -> list[str]:
    return [x for x in some if x not in others]


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


def _flat(params: Arrays, grads: Arrays) -> tuple[dict[Keys, Array], dict[Keys, Any]]:
    """Each parameter and its gradient, by the parameter's keys.

    Raises:
        TypeError: what is no array stands where one should, or a gradient that is not real.
        ValueError: the keys of `params` and `grads` differ.
    """
    flat: dict[Keys, Array] = {}
    gradients: dict[Keys, Any] = {}
    for keys, p, g in _leaves(params, grads, ()):
        flat[keys] = np.asarray(_array(p, _what(keys)))
        gradients[keys] = _real(g, _what(keys))
    return flat, gradients


def _leaves(params: Any, grads: Any, keys: Keys) -> Iterator[tuple[Keys, Any, Any]]:
    """Walks through both at once: a gradient may be a list of numbers where the parameter is an array."""
    if not isinstance(params, Mapping | list | tuple):
        yield keys, params, grads
        return
    where = f" at {_name(keys)!r}" if keys else ""
    if not isinstance(grads, Mapping if isinstance(params, Mapping) else list | tuple):
        raise TypeError(
            f"params{where} is a {type(params).__name__}, grads{where} a {type(grads).__name__}; "
            "give the gradients in containers like the parameters'"
        )
    wanted, given = (dict.fromkeys(x if isinstance(x, Mapping) else range(len(x))) for x in (params, grads))
    if wanted.keys() != given.keys():
        missing = ", ".join(str(k) for k in wanted if k not in given)
        surplus = ", ".join(str(k) for k in given if k not in wanted)
        lacking = [f"no gradient for {missing}"] if missing else []
        lacking += [f"no parameter for {surplus}"] if surplus else []
        raise ValueError(f"params and grads differ{where}: {'; '.join(lacking)}")
    for key in wanted:
        yield from _leaves(params[key], grads[key], (*keys, key))


def _array(p: Any, what: str) -> Array:
    if not isinstance(p, np.ndarray):
        raise TypeError(f"{what} must be a NumPy array to be updated in place, got {type(p).__name__}")
    if isinstance(p, np.ma.MaskedArray):
        raise TypeError(f"{what} is a masked array, of which every entry would be updated; give its .data")
    return p


def _real(g: Any, what: str) -> Any:
    g = g if isinstance(g, np.ndarray) else np.asarray(g)
    if isinstance(g, np.ma.MaskedArray):
        raise TypeError(f"the gradient of {what} is a masked array; fill it, as with g.filled(0)")
    if not np.can_cast(g.dtype, np.float64, "same_kind"):
        raise TypeError(f"the gradient of {what} has entries of {g.dtype}, not real numbers")
    return g


def _what(keys: Keys) -> str:
    return f"parameter {_name(keys)!r}" if keys else "the parameter"


def _name(keys: Keys | str) -> str:
    """A parameter's name, for messages and files."""
    return keys if isinstance(keys, str) else "/".join(map(str, keys))


def _names(arrays: Iterable[Keys | str]) -> dict[Keys | str, str]:
    """Each parameter's name; checked to be another for each, and one that a file can keep."""
    found: dict[str, Keys | str] = {}
    for keys in arrays:
        name = _name(keys)
        if name in found:
            raise ValueError(
                f"two parameters are named {name!r}, by the keys {found[name]} and {keys}: rename one"
            )
        if not name.isprintable() or not all(map(_is_lasting, keys)):
            raise ValueError(
                f"parameter {name!r} has no name that a file can keep; its keys should be printable strings, "
                "numbers, or tuples of these"
            )
        found[name] = keys
    return {keys: name for name, keys in found.items()}


def _is_lasting(key: Any) -> bool:
    """Whether a key has the same words in another process."""
    return isinstance(key, str | bool | int | float | np.generic) or (
        isinstance(key, tuple) and all(map(_is_lasting, key))
    )


def _namer(params: Sequence[Keys], program: Program) -> Callable[[int, int], str]:
    """What to call the arrays of a table, of parameters in this order."""

    def name(row: int, place: int) -> str:
        of = ["", "the gradient of ", *(f"the slot {slot!r} of " for slot in program.slots)][row]
        return f"{of}{_what(params[place])}"

    return name


def _check_apart(params: Mapping[Keys, Array]) -> None:
    """Raises ValueError where two entries of the parameters are one in memory."""
    reaching: list[tuple[int, Keys]] = []  # the parameters met so far, by where they end
    for begin, end, keys in sorted(
        ((*ARRAYS.layout(p).extent, keys) for keys, p in params.items() if p.size),
        key=lambda found: found[:2],
    ):
        p = params[keys]
        reach = p.itemsize  # of the axes with shorter strides
        for stride, count in sorted((abs(s), n) for s, n in zip(p.strides, p.shape, strict=True) if n > 1):
            if stride < reach:
                raise ValueError(f"{_what(keys)} has one entry in several places; make it a copy")
            reach += stride * (count - 1)
        reaching = [(others_end, other) for others_end, other in reaching if others_end > begin]
        for _, other in reaching:
            if _share(p, params[other]):
                raise ValueError(
                    f"parameters {_name(other)!r} and {_name(keys)!r} share memory and would each take their "
                    "step there; give it once, with the sum of their gradients"
                )
        reaching.append((end, keys))


def _share(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(a, b, max_work=_PATIENCE)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:  # not even NumPy can tell: not to be relied on
        return True


_classes: dict[type[Rule], type[Optimizer]] = {}


def __getattr__(name: str) -> type[Optimizer]:
    try:
        rule = find(name)
    except UnknownRuleError:
        raise no_attribute(__name__, name, __dir__()) from None
    if rule not in _classes:
        members = {"kind": rule, "__doc__": rule.__doc__, "__module__": __name__}
        _classes[rule] = type(rule.__name__, (_Named,), members)
    return _classes[rule]


def __dir__() -> list[str]:
    return ["Optimizer", *(rule.__name__ for rule in map(find, rules()))]
