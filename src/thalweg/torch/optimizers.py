"""Optimizers by the names and signatures of `torch.optim`, and every other rule under its own.

Each constructor takes what torch's takes, and `dialect`: whose arithmetic, and whose default for every
setting that is not given. `foreach` and `fused` choose among torch's implementations and have no effect
here: there is one, and it is fused. `differentiable=True` takes the rule as written, on torch's operations;
`capturable=True` is refused.
"""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from thalweg.dialects import FRAMEWORKS, Spelling, spoken
from thalweg.dialects.torch import TORCH
from thalweg.errors import UnknownHyperparameterError
from thalweg.registry import class_name, get
from thalweg.rule import Rule
from thalweg.schedules import TimeDecay
from thalweg.torch.base import BaseOptimizer
from thalweg.treatments import DecoupledDecay, Maximize, Treatment, chain

Group = Mapping[str, Any]

# Whether a sparse gradient means the same as a dense one; whether state exists before the first step.
_TRAITS: dict[str, dict[str, Any]] = {
    "SGD": {"takes_sparse": True},
    "Adagrad": {"takes_sparse": True, "starts_at_once": True},
}


class Named(BaseOptimizer):
    """A rule by the name that torch has for it, or by its own.

    Attributes:
        spelling: what the constructor takes, and what it means.
        takes: its signature, beside the parameters.
        choices: all that its settings may mean.
    """

    spelling: ClassVar[Spelling]
    takes: ClassVar[inspect.Signature]
    choices: ClassVar[list[Spelling]]

    def __init__(self, params: Any, *args: Any, **given: Any) -> None:
        for name in given:
            if name not in self.takes.parameters:
                raise UnknownHyperparameterError(type(self).__name__, name, self.takes.parameters)
        bound = {**self.takes.bind(*args, **given).arguments}
        dialect = bound.setdefault("dialect", "torch")
        settings = {**self.spelling.defaults, **self.spelling.fixed}
        if dialect != "torch":
            settings |= self.spelling.settings_for(get(self.spelling.rule, dialect=dialect))
        settings |= bound
        if settings.get("fused") and settings.get("differentiable"):
            raise RuntimeError("`fused` does not support `differentiable`")
        if settings.get("fused") and settings.get("foreach"):
            raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
        super().__init__(params, settings)

    def rule_of(self, group: Group) -> Rule:
        """The rule that the settings mean, in their dialect, within what torch's common settings ask for."""
        kind, dialect = type(self).__name__, group.get("dialect", "torch")
        one = next(one for one in self.choices if one.is_chosen(group))
        if "nesterov" in one.defaults and group["nesterov"] and (not group["momentum"] or group["dampening"]):
            raise ValueError(f"{kind}: nesterov needs a momentum above 0 and no dampening")
        values = one.values_of({name: _plain(group[name]) for name in one.arguments})
        if "lr_decay" in one.defaults:
            if group["lr_decay"] < 0:
                raise ValueError(f"{kind}: lr_decay must lie in [0, ∞), got {group['lr_decay']!r}")
            if group["lr_decay"]:
                values["lr"] = TimeDecay(values["lr"], group["lr_decay"])
        rule = one.rule(**{**spoken(dialect, one.rule), **values})
        links: list[Treatment] = [Maximize()] if group.get("maximize") else []
        if group.get("weight_decay") and "weight_decay" not in one.arguments:
            links.append(_decay(group, dialect)(_plain(group["weight_decay"])))
        return chain(*links, rule)


def _decay(group: Group, dialect: str) -> Any:
    """What weight decay is: torch's, unless the group or the dialect has all of it beside the step."""
    theirs = FRAMEWORKS[dialect].decay if dialect in FRAMEWORKS else None
    return DecoupledDecay if group.get("decoupled_weight_decay") else theirs or TORCH.decay


def _plain(value: Any) -> Any:
    """A setting without tensors."""
    if isinstance(value, tuple | list):
        return tuple(map(_plain, value))
    if value is None or isinstance(value, bool):
        return value
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"a setting that is one number is {value!r}") from None


_classes: dict[tuple[type[Rule], str], type[Named]] = {}


def class_of(rule: type[Rule]) -> type[Named]:
    """The optimizer of a rule: torch's namesake, or one made of the rule's own fields in torch's words."""
    known = TORCH.known.get(rule)
    one = known if known and known.is_chosen(known.defaults) else TORCH.written(rule, class_name(rule))
    key = rule, one.name
    if key not in _classes:
        _classes[key] = _made(one)
    return _classes[key]


def _made(one: Spelling) -> type[Named]:
    choices = TORCH.named(one.settings_of) or [one]
    slots = {slot: name for other in choices for group in other.slots for slot, name in group.items()}
    base = class_of(choices[0].rule) if one.of else Named
    dialect = inspect.Parameter("dialect", inspect.Parameter.KEYWORD_ONLY, default="torch")
    takes = inspect.Signature([*one.signature.parameters.values(), dialect])
    about = inspect.cleandoc(one.rule.__doc__ or "").partition("\n")[0]
    members = {
        "spelling": one,
        "takes": takes,
        "choices": choices,
        "slot_names": {slot: name for slot, name in slots.items() if slot},
        "keeps_step": "" in slots or not TORCH.named(one.name),
        **_TRAITS.get(one.settings_of, {}),
        "__init__": _constructor(takes),
        "__doc__": about + (f" See `torch.optim.{one.name}`." if one.native else ""),
        "__module__": "thalweg.torch",  # which has it by its name, for pickle
    }
    return type(one.name, (base,), members)


def _constructor(takes: inspect.Signature) -> Any:
    """A constructor whose signature is to be seen."""

    def __init__(self: Named, params: Any, *args: Any, **settings: Any) -> None:  # noqa: N807
        Named.__init__(self, params, *args, **settings)

    first = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", "params")]
    shown = takes.replace(parameters=[*first, *takes.parameters.values()])
    __init__.__signature__ = shown  # type: ignore[attr-defined]
    return __init__
