"""Steps to be refused among steps that are taken: nothing is written, and training goes on as if unasked."""

from typing import Any

import pytest
import torch

import thalweg.torch
from helpers import TORCH_FORMS, copies, parameters

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.complex64)


def nested() -> torch.Tensor:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(1)], layout=torch.jagged)


def odd_state(generator: Any, p: torch.Tensor, key: str) -> Any:
    """What cannot stand in a parameter's state: for a slot, or else for a number."""
    if key in ("step", "mu_product"):
        odd = [torch.ones(2), torch.ones(1).to_sparse(), nested(), torch.tensor(1j), "x", [], {}]
        if key == "step":
            odd += [-1.0, 0.5, float("nan"), float("inf"), torch.tensor(-3.0)]
        return generator.choice([*odd, torch.ones((), device="meta")])
    other = torch.float32 if p.is_complex() else torch.complex64
    odd = [torch.zeros(p.shape, dtype=d) for d in (torch.int32, torch.bool, other)]
    odd += [torch.zeros(p.shape).to(torch.float8_e5m2), torch.zeros(p.shape, device="meta"), nested()]
    return generator.choice([*odd, torch.zeros(p.shape).to_sparse(), torch.zeros(*p.shape, 2), 1.0, "x", {}])


def odd_parameter(generator: Any) -> torch.Tensor:
    made = generator.choice(
        [lambda: torch.ones(3).to_sparse(), nested, lambda: torch.ones(3).to(torch.float8_e4m3fn)]
    )()
    p = torch.nn.Parameter(made)
    p.grad = made.detach().clone()
    return p


def numbers(optimizer: torch.optim.Optimizer, params: list[torch.Tensor]) -> list[Any]:
    states = [optimizer.state.get(p, {}) for p in params]
    return [
        [p.tolist(), *((k, x.tolist()) for k, x in s.items())] for p, s in zip(params, states, strict=True)
    ]


def give(params: list[torch.Tensor], seed: int, absent: set[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    for i, p in enumerate(params):
        g = torch.randn(p.shape, generator=generator).to(p.dtype)
        p.grad = None if i in absent else g


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate:UserWarning")
def test_a_step_is_taken_whole_or_not_at_all(rounds: int, generator: Any) -> None:
    refused = 0
    for _ in range(rounds):
        form = generator.choice([*TORCH_FORMS])
        kind, settings = TORCH_FORMS[form]
        shapes = [
            (generator.randint(1, 4),) * generator.randint(1, 2) for _ in range(generator.randint(1, 4))
        ]
        params = [
            q for k, s in enumerate(shapes) for q in parameters(s, dtype=generator.choice(DTYPES), seed=k)
        ]
        ours, twins = copies(params), copies(params)
        extra = [generator.randrange(len(params))] if generator.random() < 0.2 else []
        optimizer, twin = (
            getattr(thalweg.torch, kind)([*some, *(some[i] for i in extra)], lr=0.01, **settings)
            for some in (ours, twins)
        )
        for t in range(generator.randint(1, 4)):
            absent = {i for i in range(len(params)) if generator.random() < 0.3}
            give(ours, t, absent)
            give(twins, t, absent)
            if generator.random() < 0.7:
                refused += spoiled(generator, optimizer, ours, form)
            optimizer.step()
            twin.step()
            assert str(numbers(optimizer, ours)) == str(numbers(twin, twins)), form
    assert refused >= rounds // 4


def spoiled(generator: Any, optimizer: torch.optim.Optimizer, params: list[torch.Tensor], form: str) -> bool:
    """Spoil something, see a step refused with nothing written, and mend it; whether anything could be."""
    present = [p for p in params if p.grad is not None]
    states = [(p, key) for p in present for key in optimizer.state.get(p, {})]
    before = str(numbers(optimizer, params))
    what = generator.randrange(3)
    if what == 0 and states:
        p, key = generator.choice(states)
        state = optimizer.state[p]
        held, state[key] = state[key], odd_state(generator, p, key)
        with pytest.raises((TypeError, ValueError), match=r"parameter \d"):
            optimizer.step()
        state[key] = held
    elif what == 1 and present:
        p = generator.choice(present)
        assert p.grad is not None
        held = p.grad
        p.grad = held.clone()
        p.grad.untyped_storage().resize_(0)
        with pytest.raises(ValueError, match=r"the gradient of parameter \d"):
            optimizer.step()
        p.grad = held
    elif what == 2:
        group = optimizer.param_groups[0]["params"]
        place = generator.randint(0, len(group))
        group.insert(place, odd_parameter(generator))
        with pytest.raises(TypeError, match=f"parameter {place} is a"):
            optimizer.step()
        del group[place]
    else:
        return False
    assert str(numbers(optimizer, params)) == before, form
    return True
