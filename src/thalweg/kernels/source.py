"""Source of the generated kernels: what a Program says, spelled out for one set of dtypes."""

from typing import Any

from thalweg.program import Program, to_python, write_call
from thalweg.symbols import walk

DTYPES = ("float64", "float32", "float16", "bfloat16")
_FROM_MATH = ("exp", "log", "pow", "sqrt", "tanh")
_FROM_MEMORY = ("maximum", "minimum", "sign")


def compute_dtype(dtypes: tuple[str, ...]) -> str:
    """The dtype computed with: float64 where the parameter is, float32 otherwise."""
    return "float64" if dtypes[0] == "float64" else "float32"


def cpu_source(program: Program, dtypes: tuple[str, ...]) -> str:
    """Source of a multi-tensor Numba kernel.

    Args:
        program: what to compute.
        dtypes: of the parameter, the gradient and each slot, in this order.

    Raises:
        ValueError: a dtype without a kernel.
    """
    if unknown := [d for d in dtypes if d not in DTYPES]:
        raise ValueError(f"no CPU kernel for {unknown[0]}; there is one for {', '.join(DTYPES)}")
    real = compute_dtype(dtypes)
    streams = ("p", "g", *program.slots)
    roots = [
        *(ln.value for ln in (*program.tensors, *program.elements)),
        program.step,
        *program.slots.values(),
    ]
    used = {e.op for e in walk(*roots)}
    names = {e.name for e in walk(*roots) if e.op == "symbol"}

    def write(value: Any) -> str:
        return to_python(value, _call, lambda x: f"{real}({x!r})")

    moved = sum(
        {"float64": 8, "float32": 4}.get(d, 2) * (1 if s == "g" else 2)
        for s, d in zip(streams, dtypes, strict=True)
    )
    head = [
        f'"""{program.rule.name}: one step over chunks of many tensors, generated from the rule.',
        "",
        f"Parameters, gradients, state: {', '.join(dtypes)}; {moved} bytes an entry, "
        f"{program.operations.total()} operations.",
        '"""',
        "",
    ]
    if math := sorted(used & set(_FROM_MATH)):
        head += [f"from math import {', '.join(math)}", ""]
    imported = sorted({real, "kernel", "stream"} | (used & set(_FROM_MEMORY)))
    head += [f"from thalweg.kernels.memory import {', '.join(imported)}", ""]
    for index, (name, dtype) in enumerate(zip(streams, dtypes, strict=True)):
        store = f"store_{name}" if name != "g" else "_"
        head.append(f'load_{name}, {store} = stream("{dtype}", {index})')

    body = ["", "", "@kernel", "def run(first, last, chunks, rows, addresses, scalars, norms):"]
    body += ["    for c in range(first, last):", "        tensor = chunks[c, 0]"]
    if program.kernel_scalars:
        body.append("        row = rows[tensor]")
    body += [f"        {n} = {real}(scalars[row, {i}])" for i, n in enumerate(program.kernel_scalars)]
    if "norm" in names:
        body.append(f"        norm = {real}(norms[tensor])")
    body += [f"        {ln.name} = {write(ln.value)}" for ln in program.tensors]
    body += [f"        at_{name} = addresses[{i}, tensor]" for i, name in enumerate(streams)]
    body.append("        for k in range(chunks[c, 1], chunks[c, 2]):")
    reads = [name for name in streams if name in names or name == "p"]
    body += [f"            {name} = load_{name}(at_{name}, k)" for name in reads]
    body += [f"            {ln.name} = {write(ln.value)}" for ln in program.elements]
    body.append(f"            store_p(at_p, k, p - {_operand(write(program.step))})")
    body += [f"            store_{n}(at_{n}, k, {write(v)})" for n, v in program.slots.items()]
    return "\n".join([*head, *body, ""])


def norm_source(dtype: str) -> str:
    """Source of the reduction pass: the sum of squares of each chunk of the gradients."""
    return f'''"""Sum of squares over chunks of many {dtype} gradients."""

from thalweg.kernels.memory import float64, reduction, stream

load, _ = stream("{dtype}", 0)


@reduction
def run(first, last, chunks, addresses, sums):
    for c in range(first, last):
        at = addresses[chunks[c, 0]]
        total = 0.0
        for k in range(chunks[c, 1], chunks[c, 2]):
            g = float64(load(at, k))
            total += g * g
        sums[c] = total
'''


def _call(op: str, args: list[str]) -> str:
    if op == "where":
        condition, a, b = args
        return f"({a} if {condition} else {b})"
    return write_call(op, args)


def _operand(text: str) -> str:
    """`text` as the right side of a subtraction."""
    return text if text.isidentifier() else f"({text})"
