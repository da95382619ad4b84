"""Loading a `state_dict`, torch.optim's or our own: checked whole before anything changes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from thalweg.program import trace

# Keys that torch itself and its learning-rate schedulers keep in a parameter group, and the name
# that many programs give to one.
SCHEDULER_KEYS = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr", "name")
# Settings that choose among implementations and leave the arithmetic as it is: ours stay.
_EXECUTION = ("foreach", "fused", "capturable", "differentiable")
_NOT_SETTINGS = ("params", "param_names")

Settings = dict[str, Any]
State = dict[str, Any]


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
        if not {"state", "param_groups"} <= set(state_dict):
            raise ValueError(
                f"{self.kind}: not the state_dict of an optimizer: it has "
                f"{', '.join(map(repr, state_dict)) or 'nothing'}, not 'state' and 'param_groups'"
            )
        self.state: Mapping[Any, State] = state_dict["state"]
        self.groups: list[Settings] = state_dict["param_groups"]

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
        for own, group in zip(self.optimizer.param_groups, groups, strict=True):
            own.update(group)
        self.optimizer.state.clear()
        self.optimizer.state.update({p: state for p, state in states.items() if state})
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
        return {k: v for k, v in group.items() if k not in _NOT_SETTINGS}

    def _settings(self, own: Settings, saved: Settings) -> Settings:
        """The saved group's settings that bear on the arithmetic."""
        saved = {k: v for k, v in self._only_settings(saved).items() if k not in _EXECUTION}
        dialect, own_dialect = saved.pop("dialect", "torch"), own.get("dialect", "torch")
        if dialect != own_dialect and self.strict:
            raise ValueError(
                f"{self.kind}: the loaded state follows the dialect {dialect!r}, this optimizer "
                f"{own_dialect!r}: make it with dialect={dialect!r}, or let thalweg.convert change the state"
            )
        unknown = [k for k in saved if k not in own and k not in SCHEDULER_KEYS]
        if unknown and self.strict:
            raise ValueError(
                f"{self.kind}: the loaded state has a setting {unknown[0]!r} that {self.kind} does not "
                "have: it was written by another rule"
            )
        saved = {k: v for k, v in saved.items() if k not in unknown}
        return {k: v.clone() if isinstance(v, Tensor) else v for k, v in saved.items()}

    def _state(self, group: Settings, p: Tensor, saved: State, name: str) -> State:
        """A parameter's state, checked and copied; empty where there is none."""
        saved = {k: v for k, v in saved.items() if v is not None}
        program = trace(self.optimizer.rule_of(group))
        arrays = [self.optimizer.key(slot) for slot in program.slots]
        numbers = ["step", *(self.optimizer.key(slot) for slot in program.scalar_slots)]
        missing = [k for k in arrays + numbers[1:] if k not in saved]
        unknown = [k for k in saved if k not in arrays and k not in numbers]
        if self.strict and saved and (missing or unknown):
            raise ValueError(
                f"{self.kind}: the state of {name} does not fit: missing {', '.join(missing) or 'nothing'}; "
                f"unknown {', '.join(unknown) or 'nothing'}. It was written by another rule or form "
                "(strict=False loads what fits)"
            )
        state: State = {}
        for key in arrays:
            if key not in saved:
                continue
            value = saved[key]
            if not isinstance(value, Tensor) or value.shape != p.shape:
                shape = tuple(value.shape) if isinstance(value, Tensor) else value
                raise ValueError(
                    f"{self.kind}: {key} of {name} has shape {shape}, the parameter {tuple(p.shape)}"
                )
            state[key] = torch.empty_like(p, dtype=value.dtype).copy_(value)
        for key in numbers:
            if key in saved:
                number = saved[key]
                if isinstance(number, Tensor) and number.numel() != 1:
                    raise ValueError(f"{self.kind}: {key} of {name} is one number, got {tuple(number.shape)}")
                state[key] = torch.tensor(float(number), dtype=torch.float64)
        return state
