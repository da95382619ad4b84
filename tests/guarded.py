"""Memory between two pages that nobody may touch, and gone as soon as nobody holds it.

A kernel that reads or writes one byte beside an array, or through an address that it should have forgotten,
ends the process.
"""

import ctypes
import mmap
import weakref
from typing import Any

import torch

_PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_READ_WRITE, _PRIVATE_ANONYMOUS, _FAILED = 3, 0x22, ctypes.c_void_p(-1).value


def guarded(size: int, at_end: bool) -> Any:
    """A buffer of `size` bytes that ends where a forbidden page begins, or begins where one ends."""
    pages = -(-size // _PAGE) * _PAGE
    whole = pages + 2 * _PAGE
    begin = _libc.mmap(None, whole, 0, _PRIVATE_ANONYMOUS, -1, 0)
    assert begin != _FAILED
    assert _libc.mprotect(begin + _PAGE, pages, _READ_WRITE) == 0
    buffer = (ctypes.c_char * size).from_address(begin + _PAGE + (pages - size if at_end else 0))
    weakref.finalize(buffer, _libc.munmap, begin, whole)
    return buffer


def guarded_tensor(like: torch.Tensor, at_end: bool = True) -> torch.Tensor:
    """A copy of a tensor, in the usual order, in such memory."""
    if not like.numel():
        return like.clone()
    buffer = guarded(like.numel() * like.element_size(), at_end)
    return torch.frombuffer(buffer, dtype=like.dtype).view(like.shape).copy_(like)
