"""What an update rule is.

A rule is a frozen dataclass whose `update` is written for one entry of one parameter, as the paper does.
`update` may ask, by parameter name, for

    t             number of the step, from 1
    g             gradient
    p             parameter
    norm          norm of the gradient of the tensor that the entry belongs to
    global_norm   norm of the gradient of the whole model

(the gradient as it reaches the rule, after what treatments did to it)

and every further parameter is a **state slot**, whose default is its initial value or the name of
the hyperparameter that holds it. It returns the step to subtract, then the new state in that order
(the step alone where there is no state).
"""

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, dataclass, fields
from functools import cached_property
from numbers import Real
from typing import Any, ClassVar, NoReturn, Self, TypeAlias, dataclass_transform, get_args

from thalweg import notebook, ops
from thalweg.errors import UnknownHyperparameterError
from thalweg.hyperparameters import Hyperparameter, describe
from thalweg.program.symbols import OPERATIONS, Value, unwrapped

# A hyperparameter's value: a number or a schedule; inside `update` a number or, while the rule is
# traced, a symbol. A rule that can do without one declares it `Scalar | None`.
Scalar: TypeAlias = Any

INPUTS = ("t", "g", "p", "norm", "global_norm")

# What takes the norm of a gradient.
Norm: TypeAlias = Callable[[Any], Any]

# What is said to who writes a rule as any other class.
_PLACES = (
    "hyperparameters are annotated attributes of the class, such as lr: Scalar = 0.01, and state is an "
    "argument of update with its initial value, such as m=0, whose next value update returns after the step"
)

_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _check_annotated(cls: type) -> None:
    """Raises TypeError for a number that stands in a class body without a type: no field, but a constant."""
    real = {f.name for f in fields(cls)}
    bases = cls.__mro__[1:]
    for name, value in vars(cls).items():
        if name.startswith("_") or not (value is None or isinstance(value, Real)):
            continue
        declared = cls.__dataclass_fields__.get(name)  # type: ignore[attr-defined]
        if declared is None:
            wrong = not any(name in vars(base) for base in bases)
        else:  # an inherited one, whose default this would not change
            of_bases = (getattr(base, "__dataclass_fields__", {}).get(name) for base in bases)
            wrong = name in real and any(field is declared for field in of_bases)
        if wrong:
            kind = "bool" if isinstance(value, bool) else "Scalar | None" if value is None else "Scalar"
            raise TypeError(
                f"{cls.__name__}: {name} = {value!r} has no type, so that nothing could set it; "
                f"write {name}: {kind} = {value!r} (ClassVar for a constant)"
            )


@dataclass_transform(frozen_default=True)
class Declared:
    """What is declared by annotated fields; every subclass is a frozen dataclass.

    Fields annotated `bool` are flags, which choose the form and are settled before tracing; every other
    field is a hyperparameter: a number, a schedule (any callable of `t`), or None where it is declared so.

    Raises:
        UnknownHyperparameterError: a keyword that is no field.
        TypeError: a value of the wrong type.
        ValueError: a value outside its admissible range.
    """

    def __init_subclass__(cls) -> None:
        """Make the class a frozen dataclass."""
        super().__init_subclass__()
        if "__init__" in vars(cls):
            raise TypeError(f"{cls.__name__} must have no __init__ of its own: {_PLACES}")
        dataclass(frozen=True)(cls)
        del cls.__setattr__  # the one below says more
        _check_annotated(cls)

    def __new__(cls, *args: Any, **values: Any) -> Self:
        """Name the nearest field where a keyword is none."""
        if unknown := values.keys() - {f.name for f in fields(cls)}:  # type: ignore[arg-type]
            raise UnknownHyperparameterError(cls.__name__, min(unknown), [f.name for f in fields(cls)])  # type: ignore[arg-type]
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        """Nothing is set after construction.

        Raises:
            FrozenInstanceError: says what to do instead.
        """
        kind = type(self).__name__
        if name in {*self.hyperparameters, *(f.name for f in fields(self))}:  # type: ignore[arg-type]
            raise FrozenInstanceError(f"{kind}: {name} cannot be set; make another one with the value wanted")
        raise FrozenInstanceError(f"{kind}: self.{name} cannot be set: {_PLACES}")

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            check(type(self), field, getattr(self, field.name))

    @cached_property
    def hyperparameters(self) -> dict[str, Hyperparameter]:
        """What each hyperparameter in use means, by name."""
        return {
            f.name: describe(f)
            for f in fields(self)  # type: ignore[arg-type]
            if not is_flag(f) and getattr(self, f.name) is not None
        }

    @cached_property
    def values(self) -> dict[str, Scalar]:
        """Each hyperparameter's number or schedule, by name."""
        return {name: getattr(self, name) for name in self.hyperparameters}

    @property
    def flags(self) -> dict[str, bool]:
        """The value of each flag, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if is_flag(f)}  # type: ignore[arg-type]

    @cached_property
    def form(self) -> tuple[Any, ...]:
        """What is settled before tracing."""
        return type(self), tuple(self.flags.items()), tuple(self.hyperparameters)

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """This with other values, symbols among them, unchecked."""
        other = copy.copy(self)
        vars(other).update({name: values[name] for name in self.values})
        for cached in ("values", "_scheduled"):
            vars(other).pop(cached, None)
        return other


class Rule(Declared):
    """An update rule. Subclass it, declare hyperparameters as fields, and write `update`.

    Rules of one form have one Program; see `Declared` for what a field may be.
    """

    _slots: ClassVar[dict[str, float | str]] = {}
    _inputs: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        """Make the class a frozen dataclass and read its `update`'s signature."""
        super().__init_subclass__()
        _, *parameters = inspect.signature(cls.update).parameters.values()
        cls._inputs = tuple(p.name for p in parameters if p.name in INPUTS)
        cls._slots = {p.name: p.default for p in parameters if p.name not in INPUTS and p.kind not in _MANY}
        names = [f.name for f in fields(cls)]
        for name in (*names, *cls._slots):
            if name.startswith("_") or name in OPERATIONS:
                why = "begins with an underscore" if name.startswith("_") else "is the name of an operation"
                raise TypeError(f"{cls.__name__}: {name!r} {why}; give the field or slot another name")
        for slot, initial in cls._slots.items():
            if not isinstance(initial, int | float) and initial not in names:
                raise TypeError(
                    f"{cls.__name__}.update: {slot!r} is none of {', '.join(INPUTS)}, so it is a state slot: "
                    "give it a default, its initial value or the name of the hyperparameter that holds it"
                )

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """One step of one entry: the step to subtract, then the new state."""
        raise NotImplementedError(f"{type(self).__name__} has no update")

    @property
    def name(self) -> str:
        """The name of its class, lower case, such as "adam"."""
        return type(self).__name__.lower()

    @property
    def slots(self) -> dict[str, float | str]:
        """Every slot of `update`: its initial value, or the hyperparameter that holds it."""
        return self._slots

    @property
    def guarded(self) -> bool:
        """Whether a step with a gradient that is not finite is skipped whole."""
        return False

    def values_at(self, t: int) -> dict[str, float]:
        """Each hyperparameter's number at step `t` (from 1).

        Raises:
            ValueError: a schedule gives a value outside the admissible range.
        """
        values = self.values
        if not self._scheduled:
            return values
        values = dict(values)
        for name in self._scheduled:
            value = values[name] = float(values[name](t))
            if not self.hyperparameters[name].admits(value):
                raise ValueError(
                    f"{self.name}: the schedule of {name} gives {value!r} at step {t}; "
                    f"{name} must lie in {self.hyperparameters[name].range}"
                )
        return values

    @cached_property
    def _scheduled(self) -> tuple[str, ...]:
        return tuple(name for name, value in self.values.items() if callable(value))

    def at(self, t: int) -> Self:
        """This rule with every schedule's number at step `t` (from 1)."""
        return self.with_values(self.values_at(t)) if self._scheduled else self

    def replaced(self, **values: Scalar) -> Self:
        """This rule with some hyperparameters changed, by name; checked.

        Raises:
            UnknownHyperparameterError: it has no such hyperparameter in use.
            TypeError: a value that is neither a number nor a schedule.
            ValueError: a value outside its admissible range.
        """
        for name, value in values.items():
            if name not in self.hyperparameters:
                raise UnknownHyperparameterError(self.name, name, self.hyperparameters)
            _check_number(f"{self.name}: {name}", self.hyperparameters[name], value)
        return self.with_values({**self.values, **values})

    def advance(
        self,
        t: Any,
        g: Any,
        p: Any,
        state: Mapping[str, Any],
        norm: Norm = ops.norm,
        global_norm: Norm = ops.norm,
    ) -> tuple[Any, dict[str, Any]]:
        """Take a step as the rule is written.

        Args:
            t: number of the step, from 1.
            g: gradient.
            p: parameter, of the gradient's shape.
            state: each slot's value.
            norm: what takes the norm of a tensor's gradient.
            global_norm: what takes the norm of the model's gradient from this tensor's part of it; where it
                is not given, the tensor is the whole model.

        Returns:
            the step to subtract from `p`, and the new state. Nothing is changed in place. Numbers follow
            IEEE 754, as entries of arrays do.
        """
        written = self.with_values({name: Value(value) for name, value in self.values.items()})
        slots = {slot: Value(x) for slot, x in state.items()}
        norms = _on_plain(norm), _on_plain(global_norm)
        step, new = written.compute(Value(t), Value(g), Value(p), slots, *norms)
        return unwrapped(step), {slot: unwrapped(x) for slot, x in new.items()}

    def compute(
        self, t: Any, g: Any, p: Any, state: Mapping[str, Any], norm: Norm, global_norm: Norm
    ) -> tuple[Any, dict[str, Any]]:
        """As `advance`, with what stands for numbers and arrays: symbols, or values that follow IEEE 754."""
        given = {"t": t, "g": g, "p": p}
        norms = {"norm": norm, "global_norm": global_norm}
        asked = {name: norms[name](g) if name in norms else given[name] for name in self._inputs}
        result = self.update(**asked, **state)
        if result is None:
            raise TypeError(
                f"{type(self).__name__}.update returned nothing: return the step to subtract, then the next "
                "value of each slot"
            )
        step, *new = result if isinstance(result, tuple) else (result,)
        if len(new) != len(self._slots):
            raise TypeError(
                f"{type(self).__name__}.update must return the step and its {len(self._slots)} slots "
                f"({', '.join(self._slots) or 'none'}); it returned {len(new)} beside the step"
            )
        return step, dict(zip(self._slots, new, strict=True))

    def _repr_html_(self) -> str | None:
        return notebook.html("rule", self)

    def initial_state(self) -> dict[str, float]:
        """Each slot's initial value."""
        return {
            slot: float(self.values_at(1)[value]) if isinstance(value, str) else float(value)
            for slot, value in self.slots.items()
        }


def _on_plain(norm: Norm) -> Norm:
    return lambda g: Value(norm(unwrapped(g)))


def is_flag(field: Any) -> bool:
    """Whether a field chooses the form; annotations may be strings (`from __future__ import annotations`)."""
    return field.type in (bool, "bool")


def may_be_none(field: Any) -> bool:
    """Whether a field is declared `Scalar | None`."""
    declared = field.type
    return "None" in declared if isinstance(declared, str) else type(None) in get_args(declared)


def check(owner: type, field: Any, value: Any) -> None:
    """Check one field's value.

    Raises:
        TypeError: it is neither a number nor a schedule (or, for a flag, neither True nor False).
        ValueError: it lies outside the admissible range.
    """
    where = f"{owner.__name__}: {field.name}"
    if is_flag(field):
        if not isinstance(value, bool):
            raise TypeError(f"{where} is True or False, got {value!r}")
    elif value is None:
        if not may_be_none(field):
            raise TypeError(f"{where} is a number or a schedule, got None")
    else:
        _check_number(where, describe(field), value)


def _check_number(where: str, about: Hyperparameter, value: Any) -> None:
    if isinstance(value, bool) or not (callable(value) or hasattr(value, "__float__")):
        raise TypeError(f"{where} is a number or a schedule (a function of t), got {value!r}")
    if not callable(value) and not about.admits(float(value)):
        raise ValueError(f"{where} must lie in {about.range}, got {value!r}")
