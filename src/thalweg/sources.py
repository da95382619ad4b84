"""Source of the generated kernels: what a Program says, spelled out for one set of dtypes.

The kernels' own variables begin with an underscore, which no name in a rule does.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

from thalweg.printing import Line, to_python, write_call
from thalweg.rule import Rule
from thalweg.symbols import walk

# Bytes that an entry takes.
DTYPES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
_FROM_MATH = ("cos", "exp", "log", "pow", "sin", "sqrt", "tanh")
_FROM_NUMPY = ("floor",)  # that of math gives an integer
_FROM_MEMORY = ("maximum", "minimum", "sign")


class Traced(Protocol):
    """What is printed of a Program; see there."""

    @property
    def rule(self) -> Rule:
        """The rule traced."""

    @property
    def kernel_scalars(self) -> tuple[str, ...]:
        """The scalars that tensor and element lines read."""

    @property
    def tensors(self) -> tuple[Line, ...]:
        """Lines done once a tensor."""

    @property
    def elements(self) -> tuple[Line, ...]:
        """Lines done once an entry."""

    @property
    def step(self) -> Any:
        """The step to subtract."""

    @property
    def slots(self) -> Mapping[str, Any]:
        """The next value of each slot."""

    @property
    def operations(self) -> Counter[str]:
        """Operations for each entry."""


def cpu_source(program: Traced, dtypes: tuple[str, ...]) -> str:
    """Source of a multi-tensor Numba kernel. It computes in float64 where the parameter is, else in float32.

    Args:
        program: what to compute.
        dtypes: of the parameter, the gradient and each slot, in this order.

    Raises:
        ValueError: a dtype without a kernel.
    """
    if unknown := [d for d in dtypes if d not in DTYPES]:
        raise ValueError(f"no CPU kernel for {unknown[0]}; there is one for {', '.join(DTYPES)}")
    real = "float64" if dtypes[0] == "float64" else "float32"
    streams = dict(zip(("p", "g", *program.slots), dtypes, strict=True))
    scalars = program.kernel_scalars
    roots = [
        *(ln.value for ln in (*program.tensors, *program.elements)),
        program.step,
        *program.slots.values(),
    ]
    used = {e.op for e in walk(*roots)}
    names = {e.name for e in walk(*roots) if e.op == "symbol"}

    def write(value: Any) -> str:
        return to_python(value, _call, lambda x: f"{real}({x!r})")

    moved = sum(DTYPES[d] * (1 if name == "g" else 2) for name, d in streams.items())
    lines = [
        f'"""{program.rule.name}: one step over chunks of many tensors, generated from the rule.',
        "",
        f"Parameters, gradients, state: {', '.join(dtypes)}; {moved} bytes an entry, "
        f"{program.operations.total()} operations.",
        '"""',
        "",
    ]
    if math := sorted(used & set(_FROM_MATH)):
        lines += [f"from math import {', '.join(math)}", ""]
    if numpy := sorted(used & set(_FROM_NUMPY)):
        lines += [f"from numpy import {', '.join(numpy)}", ""]
    needed = {real, "kernel", "stream", "flush_subnormals", "restore_subnormals"}
    imported = sorted(needed | (used & set(_FROM_MEMORY)))
    lines += [f"from thalweg.kernels.memory import {', '.join(imported)}", ""]
    for index, (name, dtype) in enumerate(streams.items()):
        lines.append(f'_load_{name}, _store_{name} = stream("{dtype}", {index})')

    lines += ["", "", "@kernel"]
    lines.append("def run(_first, _last, _chunks, _rows, _addresses, _tensors, _scalars, _norms):")
    lines += ["    _before = flush_subnormals()"]
    lines += ["    for _c in range(_first, _last):", "        _tensor = _chunks[3 * _c]"]
    if scalars:
        lines.append(f"        _row = {len(scalars)} * _rows[_tensor]")
    lines += [f"        {name} = {real}(_scalars[_row + {i}])" for i, name in enumerate(scalars)]
    if "norm" in names:
        lines.append(f"        norm = {real}(_norms[_tensor])")
    lines += [f"        {ln.name} = {write(ln.value)}" for ln in program.tensors]
    lines += [f"        _at_{name} = _addresses[{i} * _tensors + _tensor]" for i, name in enumerate(streams)]
    lines.append("        for _k in range(_chunks[3 * _c + 1], _chunks[3 * _c + 2]):")
    lines += [
        f"            {name} = _load_{name}(_at_{name}, _k)" for name in streams if name in {*names, "p"}
    ]
    lines += [f"            {ln.name} = {write(ln.value)}" for ln in program.elements]
    lines.append(f"            _store_p(_at_p, _k, p - {_operand(write(program.step))})")
    lines += [f"            _store_{n}(_at_{n}, _k, {write(v)})" for n, v in program.slots.items()]
    lines.append("    restore_subnormals(_before)")
    return "\n".join([*lines, ""])


def norm_source(dtype: str) -> str:
    """Source of the reduction pass: the sum of squares of each chunk of the gradients."""
    return f'''"""Sum of squares over chunks of many {dtype} gradients."""

from thalweg.kernels.memory import float64, flush_subnormals, reduction, restore_subnormals, stream

_load, _ = stream("{dtype}", 0)


@reduction
def run(_first, _last, _chunks, _addresses, _sums):
    _before = flush_subnormals()
    for _c in range(_first, _last):
        _at = _addresses[_chunks[3 * _c]]
        total = 0.0
        for _k in range(_chunks[3 * _c + 1], _chunks[3 * _c + 2]):
            g = float64(_load(_at, _k))
            total += g * g
        _sums[_c] = total
    restore_subnormals(_before)
'''


def _call(op: str, args: list[str]) -> str:
    if op == "where":
        condition, a, b = args
        return f"({a} if {condition} else {b})"
    return write_call(op, args)


def _operand(text: str) -> str:
    """`text` as the right side of a subtraction."""
    return text if text.isidentifier() else f"({text})"
