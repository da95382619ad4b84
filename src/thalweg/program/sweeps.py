"""A sweep: one pass over the entries of all tensors, and what is to be known before it.

What depends only on hyperparameters and the step number are **scalar lines**, done once a step on the
host in float64; what depends also on a tensor's norm, **tensor lines**; everything else, **element lines**.
"""

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from thalweg.program.printing import PYTHON, Notation
from thalweg.program.symbols import OPERATIONS, Line, walk

# The dtypes of parameters, gradients and state, and the bytes that an entry takes.
DTYPES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}

# On the host, division and powers are calls that follow IEEE 754, as they do in an array: no exception.
_HOST = PYTHON.calling("div", "pow")


@dataclass(frozen=True, eq=False)
class Sweep:
    """What one pass computes.

    Attributes:
        scalars: lines done once a step.
        tensors: lines done once a tensor.
        elements: lines done once an entry.
        kernel_scalars: the scalars that tensor and element lines read, in the order in which kernels take
            them.
        tensor_norms: the norms of tensors that are known by now, in the order in which kernels take them.
    """

    scalars: tuple[Line, ...]
    tensors: tuple[Line, ...]
    elements: tuple[Line, ...]
    kernel_scalars: tuple[str, ...]
    tensor_norms: tuple[str, ...]

    @property
    def results(self) -> tuple[Any, ...]:
        """What the pass is for: expressions over its lines."""
        raise NotImplementedError

    @property
    def next_scalars(self) -> tuple[Any, ...]:
        """The next values of state that is one number for all entries."""
        return ()

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """What it reads and does not compute: inputs, slots, hyperparameters, norms."""
        lines = (*self.scalars, *self.tensors, *self.elements)
        return free_names(lines, (*self.results, *self.next_scalars))

    @cached_property
    def scalar_function(self) -> Callable[..., tuple[tuple[float, ...], tuple[float, ...]]]:
        """Compute the scalar lines in float64.

        Called by keyword with `t`, the norms of the model known by now, the scalar slots and every
        hyperparameter; returns the values of `kernel_scalars`, then those of `next_scalars`.
        """
        return _compiled("scalars", self.scalar_source, OPERATIONS)

    @cached_property
    def scalar_source(self) -> str:
        """Source of the function that computes the scalar lines."""
        made = {line.name for line in self.scalars}
        names = [name for name in self.kernel_scalars if name not in made]
        names += free_names(self.scalars, self.next_scalars)
        out = "".join(f"{name}, " for name in self.kernel_scalars)
        new = "".join(f"{_HOST.write(value)}, " for value in self.next_scalars)
        return _source("scalars", names, self.scalars, f"({out}), ({new})", _HOST)

    def array_function(self, namespace: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
        """The pass over whole arrays, for a library that compiles or differentiates on its own.

        Args:
            namespace: the library's functions by the names that `thalweg.ops` has; arithmetic is left to
                the operators of its arrays, but for what stands here ("mul"). What depends on numbers alone
                is computed as numbers.

        Returns:
            a function to be called by keyword with what the sweep `reads`, each an array or a number; more
            is let pass. It returns the `results`, then the `next_scalars`.
        """
        lines = (*self.scalars, *self.tensors, *self.elements)
        return function_on_arrays("sweep", lines, (*self.results, *self.next_scalars), namespace)


@dataclass(frozen=True, eq=False)
class NormSweep(Sweep):
    """A norm that later sweeps read: of each tensor, of the whole model, or both.

    Attributes:
        value: what it is the norm of: an expression over lines and inputs.
        of_tensor: how later lines call each tensor's; None where none asks for it.
        of_model: how later lines call the whole model's; None where none asks for it.
    """

    value: Any
    of_tensor: str | None
    of_model: str | None

    @property
    def results(self) -> tuple[Any, ...]:
        """What it is the norm of."""
        return (self.value,)


@dataclass(frozen=True, eq=False)
class StepSweep(Sweep):
    """The pass that writes the parameters and the state.

    Attributes:
        name: the rule's.
        step: the step to subtract: an expression over lines and inputs.
        slots: arrays of state: the name of each and the expression of its next value.
        scalar_slots: likewise for state that is one number for all entries.
    """

    name: str
    step: Any
    slots: Mapping[str, Any]
    scalar_slots: Mapping[str, Any]

    @property
    def results(self) -> tuple[Any, ...]:
        """The step to subtract, then the slots' next values."""
        return (self.step, *self.slots.values())

    @property
    def next_scalars(self) -> tuple[Any, ...]:
        """The scalar slots' next values."""
        return tuple(self.scalar_slots.values())

    @cached_property
    def operations(self) -> Counter[str]:
        """Arithmetic operations for each entry, by name; the subtraction from p included."""
        roots = [line.value for line in self.elements]
        counted = Counter(e.op for e in walk(*roots, *self.results) if e.op != "symbol")
        return counted + Counter(sub=1)


def free_names(lines: Iterable[Line], results: Iterable[Any]) -> tuple[str, ...]:
    """The names that lines and results over them read and none of the lines makes."""
    lines = tuple(lines)
    made = {line.name for line in lines}
    read = (e.name for e in walk(*(line.value for line in lines), *results) if e.op == "symbol")
    return tuple(dict.fromkeys(name for name in read if name not in made))


def function_on_arrays(
    name: str, lines: Iterable[Line], results: Iterable[Any], namespace: Mapping[str, Any]
) -> Callable[..., Any]:
    """Lines and results over them as a function on arrays; see `Sweep.array_function`."""
    lines, results = tuple(lines), tuple(results)
    notation = _HOST.calling(*namespace)
    out = "".join(f"{notation.write(value)}, " for value in results)
    source = _source(name, free_names(lines, results), lines, f"({out})", notation)
    operations = {op: _on_arrays(op, namespace.get(op)) for op in OPERATIONS}
    return _compiled(name, source, {**namespace, **operations})


def _source(
    name: str, arguments: Iterable[str], lines: Iterable[Line], returned: str, notation: Notation
) -> str:
    head = f"def {name}({', '.join((*dict.fromkeys(arguments), '**_'))}):"
    body = [f"    {line.name} = {notation.write(line.value)}" for line in lines]
    return "\n".join([head, *body, f"    return {returned}", ""])


def _compiled(name: str, source: str, functions: Mapping[str, Any]) -> Callable[..., Any]:
    namespace = dict(functions)
    exec(compile(source, f"<{name}>", "exec"), namespace)
    return namespace[name]  # type: ignore[no-any-return]


def _on_arrays(name: str, function: Callable[..., Any] | None) -> Callable[..., Any]:
    """An operation that is the library's for arrays, and for numbers the host's."""
    on_numbers = OPERATIONS[name]
    on_arrays = function or getattr(operator, {"div": "truediv"}.get(name, name), None)

    def operation(*args: Any) -> Any:
        if all(isinstance(a, int | float) for a in args):
            return on_numbers(*args)
        if on_arrays is None:
            raise TypeError(f"the library brings no {name}")
        return on_arrays(*args)

    return operation
