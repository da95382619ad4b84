"""A step that gradients flow through: to the parameters, gradients and state before it, and to its settings.

It is the rule as written, on torch's operations. As in torch.optim, tensors are changed in place and autograd
keeps track; a parameter that is itself a leaf cannot be, which is autograd's error. Unlike torch.optim's SGD,
the first velocity passes gradients on.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from thalweg.program.tracing import trace
from thalweg.rule import Rule
from thalweg.torch.plan import Member, _real, _wide, check_kinds, check_memory


def step(optimizer: Any) -> None:
    """Take one step of a `BaseOptimizer` within autograd's graph."""
    groups = optimizer.param_groups
    rules = [optimizer.rule_of(group) for group in groups]
    with optimizer._untouched():
        found = optimizer._members(rules, [p.grad for group in groups for p in group["params"]])
        for _, _, member, grad in found:
            keys = [*map(optimizer.key, trace(rules[member.group]).slots)]
            columns = [[x] for x in (member.param, grad, *(member.state[key] for key in keys))]

            def name(row: int, _: int, keys: list[str] = keys, index: int = member.index) -> str:
                return str(optimizer._called(keys, row, index))

            check_kinds(columns, name)
            check_memory(columns, name)
    with torch.enable_grad():
        for _, _, member, grad in found:
            _step(optimizer, member, grad, rules[member.group], groups[member.group])
    for numbers in optimizer._numbers.values():
        numbers.write()


def _step(optimizer: Any, member: Member, grad: Tensor, rule: Rule, group: Mapping[str, Any]) -> None:
    p, state, index = member.param, member.state, member.index
    program = trace(rule)
    numbers = {
        name: optimizer._numbers[name].array for name in ("step", *map(optimizer.key, program.scalar_slots))
    }
    t = int(numbers["step"][index]) + 1
    # What a product keeps for its derivative must not be what the step then writes over.
    param, gradient = _wide(p, p).clone(), _wide(grad, p)
    before: dict[str, Any] = dict.fromkeys(rule.slots, 0.0)
    before |= {slot: float(numbers[optimizer.key(slot)][index]) for slot in program.scalar_slots}
    before |= {slot: _wide(state[optimizer.key(slot)], p).clone() for slot in program.slots}
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
