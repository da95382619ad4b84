"""A step that gradients flow through: to the parameters, gradients and state before it, and to its settings.

It is the rule as written, on torch's operations. As in torch.optim, tensors are changed in place and autograd
keeps track; a parameter that is itself a leaf cannot be, which is autograd's error. Unlike torch.optim's SGD,
the first velocity passes gradients on.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from thalweg.program import trace
from thalweg.rule import Rule
from thalweg.torch.plan import _real, _wide


def step(optimizer: Any) -> None:
    """Take one step of a `BaseOptimizer` within autograd's graph."""
    owners = [(p, group) for group in optimizer.param_groups for p in group["params"]]
    with torch.enable_grad():
        for index, (p, group) in enumerate(owners):
            if p.grad is not None:
                _step(optimizer, p, index, group)


def _step(optimizer: Any, p: Tensor, index: int, group: Mapping[str, Any]) -> None:
    rule = optimizer.rule_of(group)
    program = trace(rule)
    with torch.no_grad():
        state = optimizer._prepare(p, index, rule)
    numbers = {
        name: optimizer._numbers[name].array for name in ("step", *map(optimizer.key, program.scalar_slots))
    }
    t = int(numbers["step"][index]) + 1
    # What a product keeps for its derivative must not be what the step then writes over.
    param, gradient = _wide(p).clone(), _wide(optimizer._dense(p.grad))
    before: dict[str, Any] = dict.fromkeys(rule.slots, 0.0)
    before |= {slot: float(numbers[optimizer.key(slot)][index]) for slot in program.scalar_slots}
    before |= {slot: _wide(state[optimizer.key(slot)]).clone() for slot in program.slots}
    taken, new = _with_tensors(rule, group, t).advance(t, gradient, param, before)
    _real(p).copy_(param - taken)
    for slot in program.slots:
        _real(state[optimizer.key(slot)]).copy_(new[slot])
    numbers["step"][index] = t
    for slot in program.scalar_slots:
        numbers[optimizer.key(slot)][index] = float(new[slot])


def _with_tensors(rule: Rule, group: Mapping[str, Any], t: int) -> Rule:
    """The rule at step `t`, with the settings that are tensors in place of their numbers."""
    values: dict[str, Any] = rule.values_at(t)
    decay = "l2" if "l2" in values else "weight_decay"
    given = {"lr": group["lr"], decay: group.get("weight_decay")}
    given |= {f"beta_{i}": beta for i, beta in enumerate(group.get("betas", ()), 1)}
    for name, x in given.items():
        if isinstance(x, Tensor) and name in values:
            number = float(x.detach())
            values[name] = x.squeeze() * (values[name] / number if number else 1.0)  # a schedule's share
    return rule.with_values(values)
