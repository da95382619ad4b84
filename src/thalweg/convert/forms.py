"""One rule in another form: exact where that is possible, else the nearest, with what is lost in words.

Each change takes a part under its rule's core and the value that a field is to have. It returns the part
so changed and, where the steps to come are not the same, why: a sentence about what the source does.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from thalweg.convert.parts import NOTHING, Part, Refused, Run, Target, anatomy
from thalweg.dialects import DIALECTS, Spelling, spoken
from thalweg.errors import Argument
from thalweg.program.tracing import trace
from thalweg.rule import Rule
from thalweg.rules import Momentum, Nesterov
from thalweg.statefile import Arrays


def missing(one: Spelling, rule: Rule) -> dict[str, Any]:
    """The fields that bear on a rule and that no setting of the framework's says, with their values there."""
    return {k: v for k, v in one.missing(rule).items() if anatomy(replace(rule, **{k: v})) != anatomy(rule)}


def spoken_in(one: Spelling, rule: Rule, first: str) -> Iterator[str]:
    """The dialects in which settings alone say a rule; the `first`, where it is one, first."""
    for dialect in (first, *(name for name in DIALECTS if name != first)):
        values = {f.name: f.default for f in fields(rule)} | spoken(dialect, one.rule)
        said = {*one.covered, "weight_decay"}  # an option of every optimizer, where it is no argument
        values = {name: value for name, value in values.items() if name not in said}
        if anatomy(replace(rule, **values)) == anatomy(rule):
            yield dialect


def fitted(run: Run, part: Part, wanted: Mapping[str, Any], target: Target) -> Part:
    """The part in the form that a target has.

    Args:
        run: gathers what is lost.
        part: under its rule's core.
        wanted: the value of each field that the target does not leave free.
        target: which.

    Raises:
        Refused: a change is not exact, or none is possible.
    """
    lost: list[str] = []
    for name, value in wanted.items():
        if getattr(part.rule, name, value) != value:
            part, loss = CHANGES[name](part, value)
            lost += [loss] if loss else []
    target.lose(run, lost)
    return part


def _velocity(part: Part, inside: bool) -> tuple[Part, str]:
    """Keras's velocity is −lr·b, or lr·b where it is subtracted: the same as long as the rate stays."""
    rate = part.rule.values_at(part.t + 1)["lr"]
    if "b" not in trace(part.rule).slots or not part.slots:
        return _with(part, lr_in_velocity=inside), ""
    if rate == 0:
        raise Refused(
            "the velocity cannot be brought to or from a learning rate of 0: give the rate that the next "
            "step will have, as ",
            Argument("lr", hyperparameter=True),
        )
    factor = -rate if isinstance(part.rule, Momentum | Nesterov) else rate
    scaled = _scaled(part.slots["b"], *((factor, 1) if inside else (1, factor)))
    loss = ""
    if callable(part.rule.values["lr"]) or "initial_lr" in part.extra:
        held = "gradients" if inside else "steps, at the learning rates of their time"
        loss = (
            f"a schedule moves the learning rate, and the source's velocity holds {held}: the paths part "
            "as the rate changes"
        )
    return _with(part, {"b": scaled}, lr_in_velocity=inside), loss


def _epsilon_hat(part: Part, hat: bool) -> tuple[Part, str]:
    values = part.rule.values_at(part.t + 1)
    left = values["beta_2"] ** (part.t + 1)
    loss = ""
    if values["epsilon"] and left > NOTHING:
        order = ("after", "before") if hat else ("before", "after")
        loss = (
            f"the source adds ε to √v {order[0]} the bias correction, the target {order[1]} it: at the "
            f"next step the larger ε is {1 / math.sqrt(1 - left):.3g} times the other, and later they agree"
        )
    return _with(part, epsilon_hat=hat), loss


def _epsilon_in_root(part: Part, inside: bool) -> tuple[Part, str]:
    epsilon = part.rule.values_at(part.t + 1)["epsilon"]
    forms = (f"√v + ε (ε = {epsilon:g})", f"√(v + ε) (ε = {epsilon:g})")
    loss = (
        f"the source divides by {forms[not inside]}, the target by {forms[inside]}: they differ where "
        f"gradients are below about √ε = {math.sqrt(epsilon):.1g}"
        if epsilon
        else ""
    )
    return _with(part, epsilon_in_root=inside), loss


def _epsilon_in_divisor(part: Part, in_divisor: bool) -> tuple[Part, str]:
    epsilon = part.rule.values_at(part.t + 1)["epsilon"]
    forms = ("the maximum of |g| + ε and the past", "the maximum of |g| and the past, with ε added,")
    loss = (
        f"the source divides by {forms[not in_divisor]}, the target by {forms[in_divisor]}: they differ "
        f"where gradients are not far above ε = {epsilon:g}"
        if epsilon
        else ""
    )
    return _with(part, epsilon_in_divisor=in_divisor), loss


def _corrected_maximum(part: Part, corrected: bool) -> tuple[Part, str]:
    """The nearest has the same divisor at the next step where the maximum stays."""
    beta = part.rule.values_at(part.t + 1)["beta_2"]
    if beta ** (part.t + 1) <= NOTHING:
        return _with(part, corrected_maximum=corrected), ""
    order = ("before", "after") if corrected else ("after", "before")
    correction = 1 - beta ** (part.t + 1)
    scaled = _scaled(part.slots.get("v_max", {}), *((1, correction) if corrected else (correction, 1)))
    loss = (
        f"the source takes the maximum {order[0]} the bias correction, the target {order[1]} it: "
        f"the correction is still {1 / correction:.3g}"
    )
    slots = {"v_max": scaled} if part.slots else {}
    return _with(part, slots, corrected_maximum=corrected), loss


def _psi(part: Part, psi: float | None) -> tuple[Part, str]:
    values = part.rule.values_at(part.t + 1)
    own = values.get("psi")
    warm = [0.0 if x is None else 0.96 ** (x * (part.t + 1)) for x in (own, psi)]
    loss = ""
    if max(warm) > NOTHING:
        kinds = ["keeps it constant" if x is None else f"warms it up with ψ = {x:g}" for x in (own, psi)]
        loss = (
            f"Nadam's momentum: the source {kinds[0]}, the target {kinds[1]}: at the next step it is "
            f"{values['beta_1'] * (1 - warm[0] / 2):.4g} and {values['beta_1'] * (1 - warm[1] / 2):.4g}"
        )
    return _with(part, psi=psi), loss


def _dampening(part: Part, wanted: float) -> tuple[Part, str]:
    """lr·b with b ← μb + (1−τ)g is lr·(1−τ)·b' with b' ← μb' + g, once the undamped first step is over."""
    values = part.rule.values_at(part.t + 1)
    fresh = 1 - values["dampening"]
    if fresh == 0 or callable(part.rule.values["lr"]):
        raise Refused(
            "a dampening of 1, or one under a schedule of the learning rate, has no counterpart here"
        )
    loss = "" if part.t else "the source does not dampen its first step, which is still to come"
    # With the rate inside, the smaller rate and the larger velocity make up for each other.
    inside = getattr(part.rule, "lr_in_velocity", False)
    scaled = {} if inside else {slot: _scaled(a, 1, fresh) for slot, a in part.slots.items()}
    return _with(part, scaled, dampening=wanted, lr=values["lr"] * fresh), loss


def _initial_accumulator(part: Part, wanted: float) -> tuple[Part, str]:
    """What it starts at lives on in the state."""
    start = part.rule.values["initial_accumulator"]
    loss = "" if part.slots else f"the source starts its accumulator at {start:g}, the target at {wanted:g}"
    return _with(part, initial_accumulator=wanted), loss


def _lacking(name: str, what: str) -> Callable[[Part, Any], tuple[Part, str]]:
    def change(part: Part, wanted: Any) -> tuple[Part, str]:
        return _with(part, **{name: wanted}), what

    return change


def _with(part: Part, slots: Mapping[str, Arrays] | None = None, **fields: Any) -> Part:
    """The part under a rule with other fields, and with other arrays in some slots."""
    rule: Rule = replace(part.rule, **fields)
    return replace(part, rule=rule, slots={**part.slots, **(slots or {})})


def _scaled(arrays: Arrays, times: float, over: float) -> Arrays:
    return {name: (a.astype(np.float64) * times / over).astype(a.dtype) for name, a in arrays.items()}


CHANGES: dict[str, Callable[[Part, Any], tuple[Part, str]]] = {
    "lr_in_velocity": _velocity,
    "epsilon_hat": _epsilon_hat,
    "epsilon_in_root": _epsilon_in_root,
    "epsilon_in_divisor": _epsilon_in_divisor,
    "corrected_maximum": _corrected_maximum,
    "psi": _psi,
    "dampening": _dampening,
    "initial_accumulator": _initial_accumulator,
    "nesterov": _lacking("nesterov", "the source's velocity looks ahead, the target's does not"),
    "inverse_change": _lacking(
        "inverse_change", "the source weighs the change of the gradient with one minus the target's share"
    ),
    "weight_decay": _lacking(
        "weight_decay", "the source's weight decay is proximal, p / (1 + lr·λ), the target's is not"
    ),
}
