"""What generated CPU kernels are written with: typed access to raw memory, and small functions.

A kernel walks several streams (the parameter, its gradient, its state slots) that never overlap.
`stream` says so to LLVM with alias scopes, so that loops vectorise without run-time checks however
many slots a rule has. It also converts the half types, which are stored in 16 bits and computed
with in 32.

A kernel takes subnormal numbers to be zero. A momentum whose gradient has died shrinks until it is
subnormal and stays so for ever, and a processor takes over a hundred cycles for each such number; the
difference is below 1.2e-38 in float32.
"""

import platform
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core.extending import intrinsic, register_jitable

# More than any kernel has.
STREAMS = 16

_pointer: Any = types.CPointer
_int64, _integers, _floats = types.int64, _pointer(types.int64), _pointer(types.float64)

# error_model="numpy": a check for division by zero in the loop would keep it from vectorising. Nothing
# but the function itself: no wrapper that needs Python, so that its machine code stands alone.
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}

# first, last, chunks, rows, addresses, tensors, scalars, norms: see `cpu.Batch`
_table: Any = (_int64, _int64, _integers, _integers, _integers, _int64, _floats, _floats)
kernel = numba.njit(types.void(*_table), fastmath={"contract"}, **_OPTIONS)
# The same, then sums. A sum vectorises only if its terms may be added in another order.
reduction = numba.njit(types.void(*_table, _floats), fastmath={"contract", "reassoc"}, **_OPTIONS)


def machine_code(function: Any) -> tuple[str, bytes]:
    """The symbol of a compiled kernel and the object file that holds it."""
    (compiled,) = function.overloads.values()
    _, _, (code, _) = compiled.library.serialize_using_object_code()
    return compiled.fndesc.llvm_func_name, code


float32 = numba.float32
float64 = numba.float64

Codegen = Callable[[Any, Any, Any, Any], Any]


@register_jitable
def maximum(a: Any, b: Any) -> Any:
    """The larger; NaN if either is."""
    return a if (a >= b) | (a != a) else b


@register_jitable
def minimum(a: Any, b: Any) -> Any:
    """The smaller; NaN if either is."""
    return a if (a <= b) | (a != a) else b


@register_jitable
def sign(x: Any) -> Any:
    """−1, 0 or 1; NaN stays."""
    one = type(x)(1)
    return one if x > 0 else (-one if x < 0 else x)


_x86 = platform.machine().lower() in ("x86_64", "amd64", "i686")
_arm = platform.machine().lower() in ("arm64", "aarch64")


@intrinsic
def flush_subnormals(context: Any) -> tuple[Any, Codegen]:
    """From here on this thread's arithmetic takes subnormal numbers to be zero; returns how it was."""

    def codegen(_: Any, builder: Any, __: Any, ___: Any) -> Any:
        before = _arithmetic(builder)
        # x86: flush to zero (bit 15) and denormals are zero (bit 6); ARM: flush to zero (bit 24)
        _set_arithmetic(builder, builder.or_(before, before.type(0x8040 if _x86 else 1 << 24)))
        return before

    return (types.int64 if _arm else types.int32)(), codegen


@intrinsic
def restore_subnormals(context: Any, before: Any) -> tuple[Any, Codegen]:
    """This thread's arithmetic as it was before `flush_subnormals`."""

    def codegen(_: Any, builder: Any, __: Any, args: Any) -> Any:
        _set_arithmetic(builder, args[0])

    return types.void(before), codegen


def _arithmetic(builder: Any) -> Any:
    """The register that says how this thread rounds; 0 on a processor whose register is not known here."""
    if _arm:
        return builder.call(_intrinsic(builder, "aarch64.get.fpcr", ir.IntType(64)), [])
    place = builder.alloca(ir.IntType(32))
    builder.store(ir.IntType(32)(0), place)
    if _x86:
        builder.call(_intrinsic(builder, "x86.sse.stmxcsr", ir.VoidType(), ir.PointerType()), [place])
    return builder.load(place, typ=ir.IntType(32))


def _set_arithmetic(builder: Any, value: Any) -> None:
    if _arm:
        set_register = _intrinsic(builder, "aarch64.set.fpcr", ir.VoidType(), ir.IntType(64))
        builder.call(set_register, [value])
    elif _x86:
        place = builder.alloca(ir.IntType(32))
        builder.store(value, place)
        builder.call(_intrinsic(builder, "x86.sse.ldmxcsr", ir.VoidType(), ir.PointerType()), [place])


def _intrinsic(builder: Any, name: str, returned: Any, *arguments: Any) -> Any:
    kind = ir.FunctionType(returned, arguments)
    return builder.module.declare_intrinsic(f"llvm.{name}", fnty=kind)


def _storage(dtype: str) -> Any:
    """The LLVM type of an entry in memory."""
    return {
        "float64": ir.DoubleType(),
        "float32": ir.FloatType(),
        "float16": ir.HalfType(),
        "bfloat16": ir.IntType(16),
    }[dtype]


def _widen(builder: Any, value: Any, dtype: str) -> Any:
    if dtype == "float16":
        return builder.fpext(value, ir.FloatType())
    if dtype == "bfloat16":  # the upper half of a float32
        bits = builder.shl(builder.zext(value, ir.IntType(32)), ir.IntType(32)(16))
        return builder.bitcast(bits, ir.FloatType())
    return value


def _narrow(builder: Any, value: Any, dtype: str) -> Any:
    if dtype == "float16":
        return builder.fptrunc(value, ir.HalfType())
    if dtype == "bfloat16":
        # To nearest, ties to even, by adding just under half a unit of the last place kept; a NaN is
        # set apart since the addition could carry it into an infinity.
        i32 = ir.IntType(32)
        bits = builder.bitcast(value, i32)
        odd = builder.and_(builder.lshr(bits, i32(16)), i32(1))
        rounded = builder.add(bits, builder.add(odd, i32(0x7FFF)))
        is_nan = builder.fcmp_unordered("uno", value, value)
        kept = builder.select(is_nan, builder.or_(bits, i32(0x400000)), rounded)
        return builder.trunc(builder.lshr(kept, i32(16)), ir.IntType(16))
    return value


def _declare_disjoint(builder: Any, instruction: Any, index: int) -> None:
    """Tell LLVM that this access touches no other stream's memory."""
    module = builder.module
    domain = module.add_metadata(["thalweg"])
    scopes = [module.add_metadata([f"stream {k}", domain]) for k in range(STREAMS)]
    others = [scope for k, scope in enumerate(scopes) if k != index]
    instruction.set_metadata("alias.scope", module.add_metadata([scopes[index]]))
    instruction.set_metadata("noalias", module.add_metadata(others))


def stream(dtype: str, index: int) -> tuple[Any, Any]:
    """`load(address, k)` and `store(address, k, value)` for one stream of a kernel.

    Args:
        dtype: how entries are stored: float64, float32, float16 or bfloat16.
        index: the stream's number in the kernel, from 0; each its own.
    """
    computed = types.float64 if dtype == "float64" else types.float32
    storage = _storage(dtype)

    def pointer(builder: Any, address: Any, k: Any) -> Any:
        base = builder.inttoptr(address, ir.PointerType())
        return builder.gep(base, [k], source_etype=storage)

    @intrinsic
    def load(context: Any, address: Any, k: Any) -> tuple[Any, Codegen]:
        def codegen(_: Any, builder: Any, __: Any, args: Any) -> Any:
            value = builder.load(pointer(builder, *args), typ=storage)
            _declare_disjoint(builder, value, index)
            return _widen(builder, value, dtype)

        return computed(types.int64, types.int64), codegen

    @intrinsic
    def store(context: Any, address: Any, k: Any, value: Any) -> tuple[Any, Codegen]:
        def codegen(_: Any, builder: Any, __: Any, args: Any) -> Any:
            narrowed = _narrow(builder, args[2], dtype)
            stored = builder.store(narrowed, pointer(builder, args[0], args[1]))
            _declare_disjoint(builder, stored, index)

        return types.void(types.int64, types.int64, computed), codegen

    return load, store
