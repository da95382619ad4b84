"""The quick look at many tensors, against asking each of them."""

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from test_torch_storage import MOVES
from thalweg.kernels import torch_glance as module
from thalweg.kernels import torch_tensors as adapter
from thalweg.kernels.torch_glance import glance
from thalweg.kernels.torch_tensors import TENSORS

available = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows does not search a library's dependencies for a function"
)


def asked(tensors: list[Tensor]) -> list[int]:
    return [x.data_ptr() for x in tensors]


def some() -> list[Tensor]:
    return [torch.randn(4, 4), torch.nn.Parameter(torch.randn(4, 4)), torch.randn(4, 4).bfloat16()]


def numbers(addresses: bytes | None) -> list[int] | None:
    return None if addresses is None else memoryview(addresses).cast("q").tolist()


def conjugated_twice(x: Tensor) -> None:
    x.data = x.data.conj_physical().conj()


def smaller_at_its_place(x: Tensor) -> None:
    x.data = x.data[:2]


def of_another_dtype(x: Tensor) -> None:
    x.data = x.data.view(torch.bfloat16 if x.element_size() == 4 else torch.float16)


def in_another_order(x: Tensor) -> None:
    x.data = x.data.t()


CHANGES: dict[str, Callable[[Tensor], None]] = {
    **MOVES,
    "smaller": smaller_at_its_place,
    "of another dtype": of_another_dtype,
    "in another order": in_another_order,
}


@available
def test_with_this_torch_a_glance_is_to_be_had():
    # Without one a step asks each tensor ten questions in Python, which takes longer than a small step.
    assert glance(some()) is not None


@available
@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("change", CHANGES)
def test_a_glance_gives_the_addresses_or_sees_that_something_changed(change: str, which: int):
    tensors = some()
    look = glance(tensors)
    assert look is not None
    assert numbers(look(tensors)) == asked(tensors)
    before = adapter._form(tensors)
    CHANGES[change](tensors[which])
    if adapter._form(tensors) == before:
        assert numbers(look(tensors)) == asked(tensors)
    else:
        assert look(tensors) is None


@available
def test_a_glance_sees_a_conjugate_bit():
    tensors = [torch.randn(3, dtype=torch.complex64)]
    look = glance(tensors)
    assert look is not None
    conjugated_twice(tensors[0])
    assert look(tensors) is None


@available
def test_other_tensors_of_the_form_are_found_where_they_are():
    tensors = some()
    look = glance(tensors)
    assert look is not None
    others = some()
    assert numbers(look(others)) == asked(others) != asked(tensors)


@available
@pytest.mark.parametrize("change", ["offset", "size"])
def test_a_glance_sees_another_storage_at_the_same_address(change: str):
    memory = np.zeros(100, np.float32)
    end = 100 if change == "offset" else 50
    tensors = [torch.from_numpy(memory)[10:20]]
    look = glance(tensors)
    assert look is not None
    begin = 5 if change == "offset" else 0
    others = [torch.from_numpy(memory[begin:end])[10 - begin : 20 - begin]]
    assert asked(others) == asked(tensors)
    assert look(others) is None


@pytest.mark.parametrize("with_glance", [True, False])
@pytest.mark.parametrize("odd", [None, 3.0, "x"])
def test_what_is_no_tensor_has_no_address(monkeypatch, odd, with_glance):
    if not with_glance:
        monkeypatch.setattr(module, "_loop", lambda: None)
    form = TENSORS.form(some())
    with pytest.raises((AttributeError, TypeError)):
        form.find([*some()[:2], odd])


@pytest.mark.parametrize("loop", [module._loop(), None])
def test_where_autograd_stands_does_not_matter(monkeypatch, loop):
    monkeypatch.setattr(module, "_loop", lambda: loop)
    tensors = some()
    form = TENSORS.form(tensors)
    with torch.inference_mode():
        assert numbers(form.find(tensors)) == asked(tensors)
    tensors[0].requires_grad_(True)
    assert numbers(form.find(tensors)) == asked(tensors)
    assert numbers(form.find(tensors)) == asked(tensors)


@pytest.mark.parametrize("loop", [module._loop(), None])
def test_one_tensor_twice_and_no_tensor_at_all(monkeypatch, loop):
    monkeypatch.setattr(module, "_loop", lambda: loop)
    x = torch.randn(3)
    assert numbers(TENSORS.form([x, x]).find([x, x])) == asked([x, x])
    assert numbers(TENSORS.form([]).find([])) == []
    other = torch.randn(3)
    assert numbers(TENSORS.form([x, other]).find([x, x])) == asked([x, x])


def test_a_torch_without_such_functions_or_objects_has_no_glance(monkeypatch):
    monkeypatch.setattr(module, "_inside", lambda: None)
    assert module._loop.__wrapped__() is None
    monkeypatch.undo()
    monkeypatch.delattr(torch._C._dynamo.guards, "TensorGuards")
    assert module._loop.__wrapped__() is None
