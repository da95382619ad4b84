"""torch.optim's and thalweg.torch's state, which have one layout: a `state_dict`."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import thalweg.torch
from thalweg.convert.forms import fitted, missing, spoken_in
from thalweg.convert.names import shapes_of as parameters  # noqa: F401
from thalweg.convert.parts import (
    Anatomy,
    Array,
    Converted,
    Part,
    Refused,
    Run,
    Shapes,
    Source,
    Target,
    anatomy,
    array,
    bare,
    in_order,
    initial,
    number,
    scalar_slots,
)
from thalweg.dialects.spelling import DECOUPLED, Spelling
from thalweg.dialects.torch import TORCH
from thalweg.errors import Argument
from thalweg.program.tracing import trace
from thalweg.registry import find
from thalweg.rule import Rule
from thalweg.rules import SGD
from thalweg.schedules import TimeDecay
from thalweg.statefile import apart
from thalweg.torch.base import BaseOptimizer
from thalweg.torch.groups import SCHEDULER_KEYS
from thalweg.torch.loading import known
from thalweg.torch.optimizers import Named, class_of
from thalweg.treatments import L2, ClipByGlobalNorm, ClipByNorm, ClipByValue, Maximize, SkipNonFinite

Settings = dict[str, Any]

# Settings that choose among implementations, or came with a later version of torch.
_FREE = ("foreach", "fused", "capturable", "differentiable", "maximize", "decoupled_weight_decay", "dialect")
_NOT_SETTINGS = ("params", "param_names", *SCHEDULER_KEYS)
# A momentum schedule that has warmed up before the first step.
_WARM = 1e4
_CLIPPED = "the gradient is clipped in the source; in torch call torch.nn.utils.{} before each step"
_LACKING = {
    ClipByValue: _CLIPPED.format("clip_grad_value_"),
    ClipByNorm: _CLIPPED.format("clip_grad_norm_([p], c)"),
    ClipByGlobalNorm: _CLIPPED.format("clip_grad_norm_"),
    SkipNonFinite: "the source skips a step whose gradients are not finite; in torch a GradScaler does",
}


def read(source: Source) -> Run:
    """Read a `state_dict`, or an optimizer.

    Raises:
        Refused: it does not tell which rule it follows, or follows none that Thalweg has.
        ValueError: it is no state of an optimizer.
    """
    optimizer = source.state if isinstance(source.state, torch.optim.Optimizer) else None
    state_dict = optimizer.state_dict() if optimizer else source.state
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
        raise ValueError("not the state_dict of a torch optimizer: it has no 'state' and 'param_groups'")
    groups = state_dict["param_groups"]
    names = _names(groups, source.params)
    run = Run(
        "torch",
        names=[names[i] for group in groups for i in group["params"]],
        shapes=dict(source.params or {}),
    )
    if isinstance(optimizer, thalweg.torch.Optimizer):
        source = replace(source, rule=optimizer.rule)
    given = type(optimizer) if optimizer else None
    kept: dict[str, Settings] = {}
    for index, group in enumerate(groups):
        states = {names[i]: _held(state_dict["state"].get(i)) for i in group["params"]}
        kept |= states
        kind, rule = _meaning(group, states.values(), source.rule, given)
        used = {
            *_NOT_SETTINGS,
            *_FREE,
            *(_defaults(kind) if issubclass(kind, Named) else rule.values),
        }
        extra = {k: v for k, v in group.items() if k in SCHEDULER_KEYS or k not in used}
        for part in _parts(run, source, states, kind, rule):
            part.group, part.extra = index, extra
            run.add(part)
    stay = {key for key in state_dict["state"] if key not in names}
    stay |= {key for state in kept.values() for key in state if key not in {*known()[0], "step"}}
    if stay:
        run.lost.append(f"entries of your own in the state stay behind: {', '.join(sorted(map(str, stay)))}")
    return run


def write(run: Run, target: Target) -> Converted:
    """The run as a `state_dict`.

    Raises:
        Refused: torch has no optimizer that takes the same steps.
    """
    groups: dict[int, tuple[str, Settings, dict[str, Any]]] = {}
    states: dict[str, Settings] = {}
    followed: Rule | None = None
    for part in run.parts:
        core, kind, settings = _native(run, part, target) if target.native else _own(part)
        followed = followed or _rule(kind, settings, part.rule)
        groups.setdefault(part.group, (kind, settings, part.extra if run.family == "torch" else {}))
        slot_names = {} if kind == "Optimizer" else getattr(thalweg.torch, kind).slot_names
        states |= _states(core, run.shapes, kind, slot_names, target.native)
    assert followed is not None
    kinds = {kind for kind, _, _ in groups.values()}
    if kinds == {"Adam", "AdamW"}:  # which differ in a setting of each group
        kinds = {_common_adam([settings for _, settings, _ in groups.values()])}
    if len(kinds) > 1:
        raise target.refuse(f"the parameter groups need different optimizers: {', '.join(sorted(kinds))}")
    (kind,) = kinds
    order = [name for index in groups for name in run.names if name in _of_group(run, index)]
    written = []
    for index, (_, settings, extra) in groups.items():
        members = [name for name in order if name in _of_group(run, index)]
        group = {**settings, **extra, "params": [order.index(name) for name in members]}
        if not all(name.isdigit() for name in order):
            group["param_names"] = members
        written.append(group)
    state = {place: states[name] for place, name in enumerate(order) if states.get(name)}
    step = max(part.t for part in run.parts)
    module = "torch.optim" if target.native else "thalweg.torch"
    factory = getattr(torch.optim if target.native else thalweg.torch, kind)
    settings = next(iter(groups.values()))[1]
    if kind == "Optimizer":
        settings = {"rule": run.parts[0].rule}
    elif kind == "AdamW":
        settings = {k: v for k, v in settings.items() if k != "decoupled_weight_decay"}
    state_dict = {"state": state, "param_groups": written}
    if target.native and kind == "SGD":
        run.lose_count("torch.optim.SGD")

    def make(params: Any) -> Any:
        given = list(params)
        if given and isinstance(given[0], tuple):
            found = in_order(order, [name for name, _ in given])
            by_name = dict(zip(found, (p for _, p in given), strict=True))
            given = [by_name[name] for name in order]
        elif len(given) != len(order):
            raise ValueError(f"{len(given)} parameters are given, the state is of {len(order)}")
        of_groups = [{"params": [given[i] for i in group["params"]]} for group in written]
        optimizer = factory(of_groups, **settings)
        optimizer.load_state_dict(copy.deepcopy(state_dict))  # torch.optim takes tensors as they are
        return optimizer

    return Converted(f"{module}.{kind}", settings, state_dict, followed, tuple(order), step, make)


# -- reading -----------------------------------------------------------------------------------------


def _names(groups: Sequence[Settings], params: Shapes | None) -> dict[Any, str]:
    ids = [i for group in groups for i in group["params"]]
    if params is not None:
        if len(params) != len(ids):
            raise ValueError(f"source_params: {len(params)} parameters, the state has {len(ids)}")
        return dict(zip(ids, params, strict=True))
    if all("param_names" in group for group in groups):
        return {i: n for group in groups for i, n in zip(group["params"], group["param_names"], strict=True)}
    return {i: str(place) for place, i in enumerate(ids)}


def _meaning(
    group: Settings, states: Iterable[Settings], rule: str | Rule | None, given: type | None
) -> tuple[type[BaseOptimizer], Rule]:
    """The class of thalweg.torch that a group's settings and slots belong to, and the rule they mean."""
    own = find(rule) if isinstance(rule, str) else type(apart(rule)[1]) if rule else None
    kinds = _kinds(given, own)
    known_slots, known_settings = known()
    known_settings = known_settings.union(*map(_defaults, kinds))
    all_settings = {k: v for k, v in group.items() if k not in _NOT_SETTINGS}
    values = {*rule.values} if isinstance(rule, Rule) else {*()}
    # Others are the user's own, as for the loader of thalweg.torch.
    settings = {k: v for k, v in all_settings.items() if k in known_settings or k in values}
    if isinstance(rule, Rule) and {*settings} == values:
        given_values = {k: v if callable(v) else number(v) for k, v in settings.items()}
        return thalweg.torch.Optimizer, rule.replaced(**given_values)
    all_slots = {k for state in states for k in state if k != "step"}
    slots = all_slots & known_slots
    found: dict[type[Named], tuple[int, Rule]] = {}
    for kind in kinds:
        defaults = _defaults(kind)
        lacking, more = {*defaults} - {*settings} - {*_FREE}, {*all_settings} - {*defaults} - {*_FREE}
        # An optimizer from elsewhere may have the same names and more, and mean something else by them.
        sure = (
            given or own or ("foreach" in defaults and {*defaults} <= {*settings, "decoupled_weight_decay"})
        )
        if lacking or not (sure or (not more and all_slots == slots)) or not kind.spelling.fits(settings):
            continue
        meant = _rule_of(kind, {**defaults, **settings})
        mine = {kind.slot_names.get(s, s) for s in (*trace(meant).slots, *trace(meant).scalar_slots)}
        if not slots or slots == mine:
            found[kind] = len(more), meant
    least = min((more for more, _ in found.values()), default=0)
    found = {kind: (more, meant) for kind, (more, meant) in found.items() if more == least}
    if not found:
        asked = own or given
        whose = TORCH.known[asked].name if asked in TORCH.known else asked.__name__ if asked else ""
        raise Refused(
            f"the settings {', '.join(map(str, all_settings))} and the slots "
            f"{', '.join(sorted(map(str, all_slots))) or 'none'} are not those of "
            f"{whose or 'an optimizer that Thalweg has'}"
        )
    if len({anatomy(meant) for _, meant in found.values()}) > 1:
        raise Refused(
            f"the state may be that of {' or '.join(kind.__name__ for kind in found)}: say which, as ",
            Argument("rule", next(iter(found)).__name__.lower()),
        )
    kind, (_, meant) = next(iter(found.items()))
    return kind, meant


def _kinds(given: type | None, own: type[Rule] | None) -> list[type[Named]]:
    """The classes that a group may be of.

    Args:
        given: the class of the optimizer, where that is given.
        own: the rule, where that is given.
    """
    if given and issubclass(given, Named):
        return [given]
    found = [class_of(one.rule) for one in TORCH.spellings if one.is_chosen(one.defaults)]
    if own:
        name = TORCH.known[own].name if own in TORCH.known else ""
        found = [*dict.fromkeys([*(kind for kind in found if kind.__name__ == name), class_of(own)])]
    return [kind for kind in found if not given or kind.__name__ == given.__name__]


def _defaults(kind: type[Named]) -> Settings:
    """What a parameter group has."""
    return {**kind.spelling.defaults, **kind.spelling.fixed}


def _held(state: Settings | None) -> Settings:
    return {k: v for k, v in (state or {}).items() if v is not None}


def _parts(
    run: Run, source: Source, states: Mapping[str, Settings], kind: type[BaseOptimizer], rule: Rule
) -> Iterable[Part]:
    """The parameters of a group, apart by how many steps they took."""
    program = trace(rule)
    key = {slot: kind.slot_names.get(slot, slot) for slot in (*program.slots, *program.scalar_slots)}
    found: dict[Any, Part] = {}
    for name, state in states.items():
        counted = round(number(state["step"])) if "step" in state else None
        if counted is None and kind is not thalweg.torch.SGD:
            counted = 0  # no step, no state
        t = source.steps(run, "torch.optim.SGD", counted, bool(state))
        scalars = {slot: number(state[key[slot]]) for slot in program.scalar_slots if key[slot] in state}
        part = found.setdefault((t, *scalars.values()), Part(rule, t, [], {}, scalars))
        part.names.append(name)
        for slot in program.slots:
            if key[slot] in state:
                part.slots.setdefault(slot, {})[name] = array(state[key[slot]])
    return found.values()


# -- writing -----------------------------------------------------------------------------------------


def _native(run: Run, part: Part, target: Target) -> tuple[Part, str, Settings]:
    """The class of torch.optim, its settings, and the part in its form."""
    body = anatomy(part.rule)
    one = TORCH.native.get(type(body.core))
    if one is None:
        raise target.refuse(f"torch.optim has no {type(body.core).__name__}")
    lost = []
    around: list[Any] = []
    for link in body.around:
        if (isinstance(link, Maximize) and not around) or (isinstance(link, L2) and not body.decay):
            around.append(link)
        elif type(link) in _LACKING:
            lost.append(_LACKING[type(link)])
        else:
            raise target.refuse(f"torch.optim.{one.name} has no {type(link).__name__} in this place")
    decay = body.decay
    if decay and not (DECOUPLED in one.defaults or isinstance(body.core, SGD)):
        lost.append(f"torch.optim.{one.name} has no decoupled weight decay, the source has {decay:g}")
        decay = 0.0
    if schedules := [k for k, v in part.rule.values.items() if callable(v) and not _is_lr_decay(one, k, v)]:
        raise target.refuse(
            f"a schedule gives {', '.join(schedules)}, and torch keeps schedules beside the optimizer: give "
            "the number to go on with, as ",
            Argument(schedules[0], hyperparameter=True),
            ", and a scheduler of torch.optim.lr_scheduler",
        )
    target.lose(run, lost)
    wanted = missing(one, body.core)
    if getattr(body.core, "psi", 0.0) is None:
        wanted["psi"] = _WARM
    core = fitted(run, bare(part), wanted, target)
    kind, settings = _spelled(Anatomy(core.rule, decay, tuple(around)), one, "torch")
    return core, kind, {**getattr(torch.optim, kind)([torch.zeros(1)]).defaults, **settings}


def _is_lr_decay(one: Spelling, name: str, value: Any) -> bool:
    return "lr_decay" in one.defaults and name == "lr" and isinstance(value, TimeDecay)


def _own(part: Part) -> tuple[Part, str, Settings]:
    """The class of thalweg.torch, in the dialect that has the part's form; or `Optimizer`."""
    body = anatomy(part.rule)
    one = TORCH.known.get(type(body.core))
    dialects = spoken_in(one, body.whole, "torch") if one else ()
    for dialect in dialects:
        assert one is not None
        kind, settings = _spelled(body, one, dialect)
        scheduled = any(callable(value) for value in settings.values())
        if not scheduled and anatomy(_rule_of(getattr(thalweg.torch, kind), settings)) == body:
            return bare(part), kind, settings
    return part, "Optimizer", dict(part.rule.values)


def _rule_of(kind: type[BaseOptimizer], settings: Settings) -> Rule:
    return BaseOptimizer.__new__(kind).rule_of(settings)  # which asks for nothing but the settings


def _rule(kind: str, settings: Settings, rule: Rule) -> Rule:
    """The rule that a class follows under its settings."""
    own = getattr(thalweg.torch, kind)
    return rule if kind == "Optimizer" else _rule_of(own, settings)


def _spelled(body: Anatomy, one: Spelling, dialect: str) -> tuple[str, Settings]:
    """The class that follows the rule in a dialect, and its settings."""
    settings = {**one.defaults, **one.settings_for(body.whole)}
    rate, l2 = body.core.values["lr"], [link.l2 for link in body.around if isinstance(link, L2)]
    if _is_lr_decay(one, "lr", rate):
        settings |= {"lr": rate.initial, "lr_decay": rate.decay}
    settings["maximize"] = any(isinstance(link, Maximize) for link in body.around)
    if "weight_decay" not in one.arguments:
        settings["weight_decay"] = l2[0] if l2 else body.decay
    if DECOUPLED in settings:
        settings[DECOUPLED] = bool(body.decay)
    named = {"dialect": dialect} if dialect != "torch" else {}
    return "AdamW" if one.name == "Adam" and body.decay else one.name, {**settings, **named}


def _states(
    part: Part, shapes: Shapes, kind: str, slot_names: Mapping[str, str], native: bool
) -> dict[str, Settings]:
    """Each parameter's state; none before the first step, where torch has none."""
    slots = {slot: arrays for slot, arrays in part.slots.items() if slot in trace(part.rule).slots}
    if kind == "Adagrad" and not slots:  # torch's has state from the beginning
        slots = {"s": initial(part, "s", shapes, np.float32)}
    if not part.t and (not slots or kind == "SGD"):
        return {}
    numbers = {} if native and kind == "SGD" else {"step": torch.tensor(float(part.t), dtype=torch.float32)}
    for slot, value in scalar_slots(part).items():
        numbers[slot_names.get(slot, slot)] = torch.tensor(value, dtype=torch.float64)
    return {
        name: {
            **{k: v.clone() for k, v in numbers.items()},
            **{slot_names.get(slot, slot): _tensor(arrays[name]) for slot, arrays in slots.items()},
        }
        for name in part.names
    }


def _common_adam(groups: list[Settings]) -> str:
    """AdamW where every group that decays does so beside the step; one that does not may be either."""
    for group in groups:
        group["decoupled_weight_decay"] = group["decoupled_weight_decay"] or not group["weight_decay"]
    return "AdamW" if all(group["decoupled_weight_decay"] for group in groups) else "Adam"


def _of_group(run: Run, index: int) -> Iterable[str]:
    return {name for part in run.parts if part.group == index for name in part.names}


def _tensor(a: Array) -> torch.Tensor:
    if a.dtype.name == "bfloat16":
        return torch.from_numpy(a.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(a))
