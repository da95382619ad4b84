"""PyTorch's tensors, as the table of tensors sees them."""

from array import array
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from thalweg.kernels import threads
from thalweg.kernels.table import Layout
from thalweg.kernels.torch_glance import Glance, glance
from thalweg.program.sweeps import DTYPES

_DTYPES = {getattr(torch, name): name for name in DTYPES}
_DTYPES |= {torch.complex64: "float32", torch.complex128: "float64"}  # pairs of reals
threads.look_again()  # torch, imported above, brings OpenMP threads

_dtype, _shape, _device = attrgetter("dtype"), attrgetter("shape"), attrgetter("device")


def has_kernel(tensors: Iterable[Any]) -> bool:
    """Whether a CPU kernel steps these: plain, strided, on the CPU, of a known dtype."""
    return all(_is_plain(x) and x.dtype in _DTYPES for x in tensors)


def is_dense(x: Tensor) -> bool:
    """Whether a tensor, of any class and on any device, has an entry at each place, to compute with."""
    computed = x.dtype in _DTYPES or x.dtype == torch.complex32
    return computed and x.layout == torch.strided and not x.is_nested


def has_memory(tensor: Tensor) -> bool:
    """Whether a strided tensor's storage holds all of its entries; where there is none, as on "meta", yes."""
    return not _is_plain(tensor) or TENSORS.layout(tensor).held


def _is_plain(x: Tensor) -> bool:
    """Whether a tensor has memory to be looked at; those within torch.func's transforms have none."""
    return (
        type(x) in (Tensor, torch.nn.Parameter)
        and x.is_cpu
        and x.layout == torch.strided
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
    )


class TensorForm:
    """What `thalweg.kernels.table.Form` says, of tensors.

    Identity would not do: `.data`, `set_` and the storage's own methods put other memory under a tensor.
    """

    def __init__(self, tensors: list[Tensor]) -> None:
        self._seen = _form(tensors)
        self._glance = self._glance_of(tensors)

    def find(self, tensors: list[Tensor]) -> bytes | None:
        """See `Form`."""
        if self._glance and (addresses := self._glance(tensors)) is not None:
            return addresses
        # A glance asks for more than must be, such as the mode that autograd is in.
        if _form(tensors) != self._seen:
            return None
        self._glance = self._glance_of(tensors)
        return array("q", map(Tensor.data_ptr, tensors)).tobytes()

    def _glance_of(self, tensors: list[Tensor]) -> Glance | None:
        return glance(tensors) if all(map(_is_plain, tensors)) else None


def _form(tensors: list[Tensor]) -> tuple[list[Any], ...]:
    return (
        list(map(type, tensors)),
        list(map(_dtype, tensors)),
        list(map(_shape, tensors)),
        list(map(Tensor.stride, tensors)),
        list(map(_device, tensors)),
        list(map(Tensor.is_neg, tensors)),
        list(map(Tensor.is_conj, tensors)),
        list(map(Tensor.storage_offset, tensors)),
        list(map(torch.UntypedStorage.nbytes, map(Tensor.untyped_storage, tensors))),
    )


class Tensors:
    """Tensors for which `has_kernel` holds."""

    form = TensorForm

    def layout(self, tensor: Tensor) -> Layout:
        """Where a tensor's entries lie; a complex entry is two real ones."""
        shape, strides, size = tuple(tensor.shape), tensor.stride(), tensor.element_size()
        if tensor.is_complex():
            shape, strides, size = (*shape, 2), (*(2 * s for s in strides), 1), size // 2
        address, storage = tensor.data_ptr(), tensor.untyped_storage()
        begin = storage.data_ptr()
        end = address
        if tensor.numel():
            end += size * (1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)))
        return Layout(
            _DTYPES.get(tensor.dtype, ""),
            shape,
            strides,
            address,
            (address, end),
            (begin, begin + storage.nbytes()),
            direct=not (tensor.is_neg() or tensor.is_conj() or address % size),
        )

    def empty(self, tensor: Tensor, like: Tensor | None) -> Tensor:
        """A new tensor of that dtype, laid out like another, or in the usual order."""
        if like is not None:
            return torch.empty_like(like, dtype=tensor.dtype, requires_grad=False)
        return torch.empty(tensor.shape, dtype=tensor.dtype)

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Fill a tensor with another's entries."""
        with torch.no_grad():
            target.copy_(source)

    def changed(self, tensors: Sequence[Tensor]) -> None:
        """Let autograd know that tensors changed, as from any in-place operation."""
        torch.autograd.graph.increment_version(tensors)


TENSORS = Tensors()
