"""Source of the generated kernels: what a sweep says, spelled out for one set of dtypes.

The kernels' own variables begin with an underscore, which no name in a rule does.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from thalweg.program.printing import ATOM, COMPARISON, PYTHON, Operation, float_literal
from thalweg.program.sweeps import DTYPES, NormSweep, StepSweep, Sweep
from thalweg.program.symbols import walk

_FROM_MATH = ("cos", "exp", "log", "pow", "sin", "sqrt", "tanh")
_FROM_NUMPY = ("floor",)  # that of math gives an integer
_FROM_MEMORY = ("maximum", "minimum", "sign")

# What a kernel calls besides operations: a variable that a rule calls so has another name there.
_CALLED = {name: f"_{name}" for name in ("float32", "float64", "flush_subnormals", "restore_subnormals")}

_CHOICE = Operation("({1} if {0} else {2})".format, (COMPARISON,) * 3, ATOM)
_NOTATION = replace(PYTHON, operations={**PYTHON.operations, "where": _CHOICE})

# An array that a kernel walks through: its name, its dtype, and its row in the table of addresses.
Stream = tuple[str, str, int]


def cpu_source(step: StepSweep, dtypes: tuple[str, ...] | str = "float32") -> str:
    """Source of a multi-tensor Numba kernel. It computes in float64 where the parameter is, else in float32.

    Args:
        step: what to compute, such as a Program.
        dtypes: of the parameter, the gradient and each slot, in this order, or one for all of them.

    Raises:
        ValueError: a dtype without a kernel.
    """
    if isinstance(dtypes, str):
        dtypes = (dtypes,) * (2 + len(step.slots))
    streams = _streams(step, dtypes)
    real = _real(dtypes)
    moved = sum(DTYPES[dtype] * (1 if name == "g" else 2) for name, dtype, _ in streams)
    title = (
        f"{step.name}: one step over chunks of many tensors, generated from the rule.\n\n"
        f"Parameters, gradients, state: {', '.join(dtypes)}; {moved} bytes an entry, "
        f"{step.operations.total()} operations.\n"
    )
    done = [f"_store_p(_at_p, _k, p - {_operand(_write(step.step, real))})"]
    done += [f"_store_{name}(_at_{name}, _k, {_write(value, real)})" for name, value in step.slots.items()]
    return _source("kernel", title, step, streams, real, done)


def norm_source(norm: NormSweep, dtypes: tuple[str, ...]) -> str:
    """Source of a multi-tensor reduction: for each chunk its sum of squares, in float64.

    Args:
        norm: what to take the squares of.
        dtypes: as for `cpu_source`.

    Raises:
        ValueError: a dtype without a kernel.
    """
    streams = [stream for stream in _streams(norm, dtypes) if stream[0] in norm.reads]
    real = _real(dtypes)
    done = [f"_x = float64({_write(norm.value, real)})", "_total += _x * _x"]
    return _source("reduction", "Sums of squares over chunks of many tensors.", norm, streams, real, done)


def _streams(sweep: Sweep, dtypes: tuple[str, ...]) -> list[Stream]:
    if unknown := [d for d in dtypes if d not in DTYPES]:
        raise ValueError(f"no CPU kernel for {unknown[0]}; there is one for {', '.join(DTYPES)}")
    names = ("p", "g", *(sweep.slots if isinstance(sweep, StepSweep) else ()))
    return [(name, dtype, row) for row, (name, dtype) in enumerate(zip(names, dtypes, strict=False))]


def _real(dtypes: tuple[str, ...]) -> str:
    """What a kernel computes in."""
    return "float64" if dtypes[0] == "float64" else "float32"


def _source(
    kind: str, title: str, sweep: Sweep, streams: list[Stream], real: str, done: Iterable[str]
) -> str:
    """Source of a kernel.

    Args:
        kind: of the kernel, in `thalweg.kernels.memory`: "kernel", or "reduction", which adds up a `_total`.
        title: what the kernel is, for its reader.
        sweep: what to compute.
        streams: the arrays that it walks through.
        real: the dtype that it computes in.
        done: what is done with an entry after its lines.
    """
    reads, scalars, sums = {*sweep.reads}, sweep.kernel_scalars, kind == "reduction"
    lines = [f'"""{title}"""', ""]
    used = {e.op for e in walk(*(ln.value for ln in (*sweep.tensors, *sweep.elements)), *sweep.results)}
    if math := sorted(used & set(_FROM_MATH)):
        lines += [f"from math import {', '.join(math)}", ""]
    if numpy := sorted(used & set(_FROM_NUMPY)):
        lines += [f"from numpy import {', '.join(numpy)}", ""]
    needed = {real, "float64" if sums else real, kind, "stream", "flush_subnormals", "restore_subnormals"}
    imported = sorted(needed | (used & set(_FROM_MEMORY)))
    lines += [f"from thalweg.kernels.memory import {', '.join(imported)}", ""]
    lines += [f'_load_{name}, _store_{name} = stream("{dtype}", {row})' for name, dtype, row in streams]

    lines += ["", "", f"@{kind}"]
    arguments = "_first, _last, _chunks, _rows, _addresses, _tensors, _scalars, _norms"
    lines.append(f"def run({arguments}{', _sums' if sums else ''}):")
    lines += ["    _before = flush_subnormals()"]
    lines += ["    for _c in range(_first, _last):", "        _tensor = _chunks[3 * _c]"]
    if scalars:
        lines.append(f"        _row = {len(scalars)} * _rows[_tensor]")
    lines += [f"        {_name(name)} = {real}(_scalars[_row + {i}])" for i, name in enumerate(scalars)]
    lines += [
        f"        {_name(name)} = {real}(_norms[{i} * _tensors + _tensor])"
        for i, name in enumerate(sweep.tensor_norms)
        if name in reads
    ]
    lines += [f"        {_name(ln.name)} = {_write(ln.value, real)}" for ln in sweep.tensors]
    lines += [f"        _at_{name} = _addresses[{row} * _tensors + _tensor]" for name, _, row in streams]
    lines += ["        _total = 0.0"] * sums
    lines.append("        for _k in range(_chunks[3 * _c + 1], _chunks[3 * _c + 2]):")
    lines += [
        f"            {_name(name)} = {_widened(f'_load_{name}(_at_{name}, _k)', dtype, real)}"
        for name, dtype, _ in streams
        if name in {*reads, "p"}
    ]
    lines += [f"            {_name(ln.name)} = {_write(ln.value, real)}" for ln in sweep.elements]
    lines += [f"            {line}" for line in done]
    lines += ["        _sums[_c] = _total"] * sums
    lines.append("    restore_subnormals(_before)")
    return "\n".join([*lines, ""])


def _write(value: Any, real: str) -> str:
    notation = replace(_NOTATION, number=lambda x: f"{real}({float_literal(x)})")
    return notation.write(value, _CALLED)


def _name(name: str) -> str:
    return _CALLED.get(name, name)


def _widened(loaded: str, dtype: str, real: str) -> str:
    """An entry as the kernel computes with it: a load gives float64, or else float32."""
    return f"float64({loaded})" if real == "float64" != dtype else loaded


def _operand(text: str) -> str:
    """`text` as the right side of a subtraction."""
    return text if text.isidentifier() else f"({text})"
