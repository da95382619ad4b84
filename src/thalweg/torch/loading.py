"""Saving a `state_dict`, and loading torch.optim's or our own: checked whole before anything changes."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from thalweg.dialects.torch import TORCH
from thalweg.hyperparameters import HYPERPARAMETERS
from thalweg.kernels.torch_tensors import has_memory, is_dense
from thalweg.program.tracing import trace
from thalweg.registry import find, rules
from thalweg.torch.groups import EXECUTION, NOT_SETTINGS, check_keys
from thalweg.torch.plan import NUMBERS, described, one_number

# Settings that came with a later version of torch.
_LATER = ("maximize", "decoupled_weight_decay")

Settings = dict[str, Any]
State = dict[str, Any]


def save(optimizer: Any) -> dict[str, Any]:
    """Write a `state_dict`; see `BaseOptimizer.state_dict`."""
    for hook in optimizer._optimizer_state_dict_pre_hooks.values():
        hook(optimizer)
    places: dict[Tensor, int] = {}
    groups = []
    for group in optimizer.param_groups:
        ids = [places.setdefault(p, len(places)) for p in group["params"]]
        groups.append({**{k: v for k, v in group.items() if k != "params"}, "params": ids})
    written = {
        "state": {
            places.get(p, p): _apart(state)
            for p, state in optimizer.state.items()
            if p in places or not isinstance(p, Tensor)  # else of a parameter that is no longer here
        },
        "param_groups": groups,
    }
    for hook in optimizer._optimizer_state_dict_post_hooks.values():
        changed = hook(optimizer, written)
        written = written if changed is None else changed
    return written


def _apart(state: Any) -> Any:
    """A parameter's state; its numbers, which lie side by side in memory, each in a tensor of its own."""
    if not isinstance(state, dict):
        return state
    return {k: x.clone() if isinstance(x, Tensor) and x.dim() == 0 else x for k, x in state.items()}


def load(optimizer: Any, state_dict: Mapping[str, Any], strict: bool) -> None:
    """Load a `state_dict`; see `BaseOptimizer.load_state_dict`."""
    for hook in optimizer._optimizer_load_state_dict_pre_hooks.values():
        changed = hook(optimizer, dict(state_dict))
        state_dict = state_dict if changed is None else changed
    _Loader(optimizer, state_dict, strict).load()
    for after in optimizer._optimizer_load_state_dict_post_hooks.values():
        after(optimizer)


class _Loader:
    def __init__(self, optimizer: Any, state_dict: Mapping[str, Any], strict: bool) -> None:
        self.optimizer = optimizer
        self.kind = type(optimizer).__name__
        self.strict = strict
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"{self.kind}: not the state_dict of an optimizer: {type(state_dict).__name__}")
        if not (
            isinstance(state_dict.get("state"), Mapping) and isinstance(state_dict.get("param_groups"), list)
        ):
            raise ValueError(
                f"{self.kind}: not the state_dict of an optimizer: it has "
                f"{', '.join(map(repr, state_dict)) or 'nothing'}, not a 'state' and a list of 'param_groups'"
            )
        for number, group in enumerate(state_dict["param_groups"]):
            if not (isinstance(group, Mapping) and isinstance(group.get("params"), list | tuple)):
                raise ValueError(f"{self.kind}: parameter group {number} of the loaded state has no 'params'")
            if strange := [i for i in group["params"] if not isinstance(i, int | str)]:
                raise ValueError(
                    f"{self.kind}: parameter group {number} of the loaded state lists its parameters as "
                    f"numbers or names, got {described(strange[0])}"
                )
        self.state: Mapping[Any, State] = state_dict["state"]
        self.groups: list[Settings] = state_dict["param_groups"]
        self.ids = {i for group in self.groups for i in group["params"]}
        for i in self.ids & self.state.keys():
            if not isinstance(self.state[i], Mapping | None):
                raise ValueError(
                    f"{self.kind}: the state of parameter {i} is no dictionary, got {self.state[i]!r}"
                )
        self.slots, self.settings = known()

    def load(self) -> None:
        matched = self._by_name() if self._named() else self._by_position()
        groups = []
        states: dict[Tensor, State] = {}
        for own, (settings, ids) in zip(self.optimizer.param_groups, matched, strict=True):
            group = {**own, **self._settings(own, settings)}
            groups.append(group)
            for number, (p, saved) in enumerate(zip(own["params"], ids, strict=True)):
                name = own["param_names"][number] if "param_names" in own else f"parameter {saved}"
                states[p] = self._state(group, p, self.state.get(saved) or {}, name)
        of_none = {k: copy.deepcopy(v) for k, v in self.state.items() if k not in self.ids}
        for own, group in zip(self.optimizer.param_groups, groups, strict=True):
            own.update(group)
        self.optimizer.state.clear()
        self.optimizer.state.update({p: state for p, state in states.items() if state})
        self.optimizer.state.update(of_none)  # what users keep for the whole model
        self.optimizer._reset()
        if self.optimizer.starts_at_once:
            self.optimizer._start()

    def _named(self) -> bool:
        return all("param_names" in g for g in (*self.groups, *self.optimizer.param_groups))

    def _by_position(self) -> list[tuple[Settings, list[Any]]]:
        own = [len(g["params"]) for g in self.optimizer.param_groups]
        saved = [len(g["params"]) for g in self.groups]
        if own != saved:
            raise ValueError(
                f"{self.kind}: the loaded state has parameter groups of {saved} parameters, "
                f"this optimizer has {own}"
            )
        return [(g, g["params"]) for g in self.groups]

    def _by_name(self) -> list[tuple[Settings, list[Any]]]:
        found = {
            name: (settings, saved)
            for settings in self.groups
            for name, saved in zip(settings["param_names"], settings["params"], strict=True)
        }
        own_names = [n for g in self.optimizer.param_groups for n in g["param_names"]]
        missing, surplus = [n for n in own_names if n not in found], sorted(found.keys() - set(own_names))
        if self.strict and (missing or surplus):
            raise ValueError(
                f"{self.kind}: names differ: not in the loaded state: {', '.join(missing) or 'none'}; "
                f"not in this optimizer: {', '.join(surplus) or 'none'} (strict=False loads the rest)"
            )
        matched = []
        for group in self.optimizer.param_groups:
            sources = [found[n][0] for n in group["param_names"] if n in found]
            first = self._only_settings(sources[0]) if sources else {}
            for name in group["param_names"]:
                if name in found and self._only_settings(found[name][0]) != first:
                    raise ValueError(
                        f"{self.kind}: {group['param_names'][0]!r} and {name!r} are in one parameter group "
                        "here but come from groups with different settings"
                    )
            matched.append((first, [found[n][1] if n in found else None for n in group["param_names"]]))
        return matched

    @staticmethod
    def _only_settings(group: Settings) -> Settings:
        return {k: v for k, v in group.items() if k not in NOT_SETTINGS}

    def _settings(self, own: Settings, saved: Settings) -> Settings:
        """The saved group's settings that bear on the arithmetic."""
        saved = {k: v for k, v in self._only_settings(saved).items() if k not in EXECUTION}
        dialect, own_dialect = saved.pop("dialect", "torch"), own.get("dialect", "torch")
        if dialect != own_dialect and self.strict:
            raise ValueError(
                f"{self.kind}: the loaded state follows the dialect {dialect!r}, this optimizer "
                f"{own_dialect!r}: make it with dialect={dialect!r}, or let thalweg.convert change the state"
            )
        unknown = [k for k in saved if k not in own and k in self.settings]
        lacking = {*self.optimizer.defaults} - {*saved, *EXECUTION, *_LATER}
        if self.strict and not lacking and self.optimizer.slot_names:
            unknown = []  # all of ours are there, so these are the user's own, such as the rho of SAM
        if self.strict:
            new = [k for k in saved if k not in own and k not in unknown]
            check_keys(self.kind, new, self.optimizer.defaults)
        if unknown and self.strict:
            raise ValueError(
                f"{self.kind}: the loaded state has a setting {unknown[0]!r} that {self.kind} does not "
                "have: it was written by another rule"
            )
        return {
            k: v.detach().clone() if isinstance(v, Tensor) else copy.deepcopy(v)
            for k, v in saved.items()
            if k not in unknown
        }

    def _state(self, group: Settings, p: Tensor, saved: State, name: str) -> State:
        """A parameter's state, checked and copied; empty where there is none."""
        saved = {k: v for k, v in saved.items() if v is not None}
        program = trace(self.optimizer.rule_of(group))
        arrays = [self.optimizer.key(slot) for slot in program.slots]
        numbers = ["step", *(self.optimizer.key(slot) for slot in program.scalar_slots)]
        missing = [k for k in arrays + numbers[1:] if k not in saved]
        begun = any(k in saved for k in arrays + numbers)
        unknown = [k for k in saved if k in self.slots and k not in arrays + numbers]  # others are the user's
        if self.strict and ((begun and missing) or unknown):
            raise ValueError(
                f"{self.kind}: the state of {name} does not fit: missing {', '.join(missing) or 'nothing'}; "
                f"unknown {', '.join(unknown) or 'nothing'}. It was written by another rule or form "
                "(strict=False loads what fits)"
            )
        state: State = {}
        for key, value in saved.items():
            if key in arrays:
                state[key] = self._array(key, value, p, name)
            elif key in numbers:
                state[key] = self._number(key, value, name)
            elif key not in unknown:
                state[key] = _own(value, p)
        if not self.optimizer.keeps_step:
            state.pop("step", None)
        return state

    def _array(self, key: str, value: Any, p: Tensor, name: str) -> Tensor:
        if not isinstance(value, Tensor):
            raise ValueError(f"{self.kind}: {key} of {name} is a tensor, got {value!r}")
        kinds = [(x.is_floating_point(), x.is_complex()) for x in (value, p)]
        if kinds[0] != kinds[1]:
            raise ValueError(f"{self.kind}: {key} of {name} is of {value.dtype}, the parameter of {p.dtype}")
        if not (is_dense(value) and has_memory(value)) or (value.is_meta and not p.is_meta):
            raise ValueError(
                f"{self.kind}: {key} of {name} is a dense tensor of {NUMBERS}, got {described(value)}"
            )
        if value.shape != p.shape:
            shapes = tuple(value.shape), tuple(p.shape)
            raise ValueError(f"{self.kind}: {key} of {name} has shape {shapes[0]}, the parameter {shapes[1]}")
        return torch.empty_like(p, dtype=value.dtype).copy_(value)

    def _number(self, key: str, value: Any, name: str) -> Tensor:
        try:
            number = one_number(value)
        except ValueError as error:
            raise ValueError(f"{self.kind}: {key} of {name} {error}") from None
        if key == "step" and not (number >= 0 and number.is_integer()):
            raise ValueError(f"{self.kind}: {key} of {name} is a whole number from 0, got {number}")
        kept = isinstance(value, Tensor) and value.is_floating_point()
        return torch.tensor(number, dtype=value.dtype if kept else number_dtype())


def number_dtype() -> torch.dtype:
    """The dtype in which torch keeps step numbers and the like."""
    return torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32


def known() -> tuple[set[str], set[str]]:
    """The slots that any optimizer has in its state, and the settings in its parameter groups."""
    slots = {name for one in TORCH.spellings for group in one.slots for slot, name in group.items() if slot}
    slots |= {slot for name in rules() for slot in find(name)._slots}
    settings = {name for one in TORCH.spellings for name in one.signature.parameters}
    return slots, settings | {*HYPERPARAMETERS, "dialect"}


def _own(value: Any, p: Tensor) -> Any:
    """An entry of the user's own, copied; tensors move to their parameter's device, as torch moves them."""
    if isinstance(value, Tensor):
        return value.detach().to(p.device, copy=True)
    if isinstance(value, dict):
        return {k: _own(v, p) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_own(v, p) for v in value)
    return copy.deepcopy(value)
