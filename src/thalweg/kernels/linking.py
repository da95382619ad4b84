"""Machine code into this process: object files and small pieces of LLVM's language, as functions."""

import ctypes
import itertools
from functools import cache
from typing import Any

# What has been linked must live as long as its functions.
_linked: list[Any] = []
# What is linked has a name of its own, whatever its symbol.
_names = itertools.count()


class Kernel:
    """A function of integers and addresses in machine code; calling it lets other threads run.

    Attributes:
        address: where it is.
    """

    def __init__(self, address: int, arguments: int) -> None:
        self.address = address
        # Numba's convention: a place for the result and one for an exception come first; neither is used.
        self._unused = (ctypes.c_void_p * 2)()
        self._place = ctypes.addressof(self._unused)
        types = [ctypes.c_void_p] * 2 + [ctypes.c_int64] * arguments
        self._function = ctypes.CFUNCTYPE(ctypes.c_int32, *types)(address)

    def __call__(self, *arguments: int) -> None:
        """Run it."""
        self._function(self._place, self._place, *arguments)


def link_object(symbol: str, code: bytes, arguments: int) -> Kernel:
    """The function `symbol` of an object file.

    Raises:
        RuntimeError: it is no object file for this processor, or lacks the symbol.
    """
    import llvmlite.binding as llvm

    builder = llvm.JITLibraryBuilder().add_object_img(code)
    return Kernel(_link(builder, symbol), arguments)


def link_ir(symbol: str, source: str) -> int:
    """The address of the function `symbol` of a module in LLVM's language."""
    import llvmlite.binding as llvm

    _jit()
    return _link(llvm.JITLibraryBuilder().add_ir(source), symbol)


def _link(builder: Any, symbol: str) -> int:
    linked = (
        builder.export_symbol(symbol).add_current_process().link(_jit(), f"thalweg {next(_names)} {symbol}")
    )
    _linked.append(linked)
    return int(linked[symbol])


@cache
def _jit() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    return llvm.create_lljit_compiler(machine)
