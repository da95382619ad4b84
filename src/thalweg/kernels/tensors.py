"""PyTorch's tensors, as the table of tensors sees them."""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from thalweg.kernels import threads
from thalweg.kernels.table import Layout
from thalweg.sources import DTYPES

_DTYPES = {getattr(torch, name): name for name in DTYPES}
_DTYPES |= {torch.complex64: "float32", torch.complex128: "float64"}  # pairs of reals
threads.look_again()  # torch, imported above, brings OpenMP threads

_dtype, _shape, _is_cpu = attrgetter("dtype"), attrgetter("shape"), attrgetter("is_cpu")


def has_kernel(tensors: Iterable[Any]) -> bool:
    """Whether a CPU kernel steps these: plain, strided, on the CPU, of a known dtype."""
    return all(_is_plain(x) and x.dtype in _DTYPES for x in tensors)


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


class Tensors:
    """Tensors for which `has_kernel` holds."""

    def look(self, tensors: Sequence[Tensor]) -> tuple[list[int], Any]:
        """Each tensor's address, and all else that bears on where its entries lie.

        Identity would not do: `.data`, `set_` and the storage's own methods put other memory under a tensor.
        """
        addresses = list(map(Tensor.data_ptr, tensors))
        return addresses, (
            list(map(type, tensors)),
            list(map(_dtype, tensors)),
            list(map(_shape, tensors)),
            list(map(Tensor.stride, tensors)),
            list(map(_is_cpu, tensors)),
            list(map(Tensor.is_neg, tensors)),
            list(map(Tensor.storage_offset, tensors)),
            list(map(torch.UntypedStorage.nbytes, map(Tensor.untyped_storage, tensors))),
        )

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


class ComplexTensors(Tensors):
    """Tensors some of which are complex: a bit may say that memory holds the conjugates of the entries."""

    def look(self, tensors: Sequence[Tensor]) -> tuple[list[int], Any]:
        """See `Tensors.look`."""
        addresses, form = super().look(tensors)
        return addresses, (form, list(map(Tensor.is_conj, tensors)))


TENSORS, COMPLEX_TENSORS = Tensors(), ComplexTensors()
