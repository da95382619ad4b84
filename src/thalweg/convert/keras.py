"""Keras's and thalweg.keras's state: a configuration, and variables in one order.

The order is: iteration, learning rate (where no schedule gives it), averages of weights, accumulated
gradients, slots, numbers. thalweg.keras has Keras's order for the rules that Keras has, so its classes
say what a configuration means.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

import thalweg.keras
from thalweg.convert.forms import fitted, missing, spoken_in
from thalweg.convert.names import shapes_of as parameters  # noqa: F401
from thalweg.convert.parts import (
    Anatomy,
    Array,
    Converted,
    Part,
    Refused,
    Run,
    Source,
    Target,
    anatomy,
    array,
    bare,
    in_order,
    initial,
    merged,
    scalar_slots,
)
from thalweg.dialects.keras import KERAS
from thalweg.dialects.spelling import Spelling
from thalweg.errors import Argument
from thalweg.keras.optimizers import class_of
from thalweg.keras.scheduled import Scheduled
from thalweg.program.tracing import trace
from thalweg.registry import standard_name
from thalweg.schedules import TimeDecay
from thalweg.statefile import Arrays
from thalweg.treatments import (
    L2,
    ClipByGlobalNorm,
    ClipByNorm,
    ClipByValue,
    Maximize,
    SkipNonFinite,
    Treatment,
)

Settings = dict[str, Any]

_CLIPS = {
    ClipByNorm: ("clipnorm", "clip_norm"),
    ClipByGlobalNorm: ("global_clipnorm", "clip_global_norm"),
    ClipByValue: ("clipvalue", "clip_value"),
}
# Options that are neither part of the rule nor known elsewhere, as they are where nothing is asked for.
_OPTIONS = {
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}
_AVERAGE, _ACCUMULATOR = "average", "gradient_accumulator"


def read(source: Source) -> Run:
    """Read an optimizer, or a pair of its configuration and its variables.

    Raises:
        Refused: it follows no rule that Thalweg has, or a schedule that is not given.
        ValueError: its variables are not those of its configuration.
    """
    optimizer, params, decays = source.state, source.params, None
    if isinstance(optimizer, keras.optimizers.Optimizer):
        if not optimizer.built:
            raise ValueError(
                "the Keras optimizer has no state yet: call its build(model.trainable_variables)"
            )
        model = optimizer._trainable_variables
        params = params or {v.path: tuple(v.shape) for v in model}
        decays = [optimizer._use_weight_decay(v) for v in model]
        config, given = _config_of(optimizer), optimizer.variables
    else:
        try:
            config, given = optimizer
        except (TypeError, ValueError):
            raise TypeError(
                "a state of Keras is an optimizer, or a pair (configuration, variables), "
                f"got {type(optimizer).__name__}"
            ) from None
    variables = [array(v) for v in given]
    ours = _ours(config, source)
    run = Run("keras", shapes=dict(params or {}))
    t = source.steps(run, "", int(variables[0]), True)
    rate, rest = _rate(ours, variables, source)
    slots, scalars, names = _slots(ours, rest, None if params is None else list(params))
    meant = ours._treated()
    meant = meant.replaced(lr=rate) if "lr" in meant.values else meant
    extra = {k: getattr(ours, k) for k, plain in _OPTIONS.items() if getattr(ours, k) != plain}
    if k := ours.gradient_accumulation_steps:
        extra["iterations"], t = t, t // k
    own = {slot: arrays for slot, arrays in slots.items() if slot in trace(meant).slots}
    more = {slot: arrays for slot, arrays in slots.items() if slot not in own}
    whole = Part(meant, t, names, own, scalars, extra=extra, extra_slots=more)
    for part in _by_decay(whole, decays):
        run.add(part)
    run.names, run.other = names, _unknown_elsewhere(extra)
    return run


def write(run: Run, target: Target) -> Converted:
    """The run as Keras's variables, and settings to go with them.

    Raises:
        Refused: Keras takes no such steps, or a parameter's shape is not known.
    """
    run, excluded = _one_decay(run)
    part = merged(run, target)
    extra = part.extra if run.family == "keras" else {}
    part, kind, settings = _native(run, part, target) if target.native else _own(part)
    settings |= {k: v for k, v in extra.items() if k in _OPTIONS}
    factory = getattr(keras.optimizers if target.native else thalweg.keras, kind)

    def fresh() -> Any:
        return factory(**settings)

    ours = getattr(thalweg.keras, kind)(**settings)
    variables = _variables(run, part, ours, extra)

    def make(given: Any) -> Any:
        optimizer, model = fresh(), list(given)
        order = in_order(run.names, [v.path for v in model])
        if excluded:
            optimizer.exclude_from_weight_decay([model[order.index(name)] for name in excluded])
        optimizer.build(model)
        values = _variables(replace(run, names=order), part, ours, extra)
        for variable, value in zip(optimizer.variables, values, strict=True):
            if tuple(variable.shape) != value.shape:
                raise ValueError(
                    f"{variable.path} has shape {tuple(variable.shape)}, the state {value.shape}"
                )
            variable.assign(value)
        return optimizer

    rule = ours._treated()
    rule = rule.replaced(lr=part.rule.values["lr"]) if "lr" in rule.values else rule
    module = "keras.optimizers" if target.native else "thalweg.keras"
    return Converted(
        f"{module}.{kind}",
        settings,
        variables,
        rule,
        tuple(run.names),
        part.t,
        make,
        undecayed=tuple(excluded),
    )


# -- reading -----------------------------------------------------------------------------------------


def _config_of(optimizer: Any) -> Settings:
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise Refused("give the optimizer within the LossScaleOptimizer: its inner_optimizer")
    kind, config = type(optimizer).__name__, optimizer.get_config()
    rate = getattr(optimizer, "_learning_rate", None)
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        config["learning_rate"] = rate
    return {"class_name": kind, "config": config}


def _ours(config: Mapping[str, Any] | None, source: Source) -> Any:
    """The optimizer of thalweg.keras that does what a configuration says."""
    if config is None:
        kind, settings = _own_settings(anatomy(source.rule_with({})))
        return getattr(thalweg.keras, kind)(**settings)
    name = str(config["class_name"]).removeprefix("thalweg>")
    try:
        kind = getattr(thalweg.keras, name)
    except AttributeError:
        raise Refused(
            f"the state is that of keras.optimizers.{name}, and Thalweg has no rule of that name"
        ) from None
    return kind.from_config(dict(config["config"]))


def _rate(ours: Any, variables: Sequence[Array], source: Source) -> tuple[Any, list[Array]]:
    """The learning rate as rules have it, and the variables after iteration and learning rate."""
    rate = ours._learning_rate
    if not callable(rate):
        return float(variables[1]), list(variables[2:])
    if "lr" in source.values:
        return source.values["lr"], list(variables[1:])
    if isinstance(rate, Scheduled):
        return rate.schedule, list(variables[1:])
    if isinstance(rate, keras.optimizers.schedules.InverseTimeDecay) and not rate.staircase:
        decay = float(rate.decay_rate) / float(rate.decay_steps)
        return TimeDecay(float(rate.initial_learning_rate), decay), list(variables[1:])
    raise Refused(
        f"{type(rate).__name__} gives the learning rate, and is Keras's alone: give the number or the "
        "schedule of thalweg.schedules to go on with, as ",
        Argument("lr", hyperparameter=True),
    )


def _layout(ours: Any, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The slot and parameter of each variable after the learning rate, but for the numbers."""
    if ours.use_ema:
        yield from ((_AVERAGE, name) for name in names)
    if ours.gradient_accumulation_steps:
        yield from ((_ACCUMULATOR, name) for name in names)
    program = trace(ours.rule)
    named = {slot for group in ours.layout for slot in group}
    for group in (*ours.layout, [slot for slot in program.slots if slot not in named]):
        yield from ((slot, name) for name in names for slot in group if slot in program.slots)


def _slots(
    ours: Any, rest: Sequence[Array], names: list[str] | None
) -> tuple[dict[str, Arrays], dict[str, float], list[str]]:
    program = trace(ours.rule)
    numbers = list(program.scalar_slots)
    each = len(list(_layout(ours, [""])))
    count, left = divmod(len(rest) - len(numbers), each) if each else (len(names or ()), len(rest))
    if left or (names is not None and count != len(names)):
        raise ValueError(
            f"the state has {len(rest)} variables besides iteration and learning rate; "
            f"{type(ours).__name__} keeps {each} for each parameter"
            + (f", of which there are {len(names)}" if names is not None else "")
        )
    names = names if names is not None else [str(place) for place in range(count)]
    slots: dict[str, Arrays] = {}
    for (slot, name), a in zip(_layout(ours, names), rest, strict=False):
        slots.setdefault(slot, {})[name] = a
    tail = rest[len(rest) - len(numbers) :]
    return slots, {slot: float(a) for slot, a in zip(numbers, tail, strict=True)}, names


def _by_decay(whole: Part, decays: list[bool] | None) -> list[Part]:
    """Those parameters that are excluded from weight decay as a part of their own."""
    body = anatomy(whole.rule)
    if decays is None or all(decays) or not body.decay:
        return [whole]
    undecayed = replace(body, decay=0.0).assembled()
    parts: list[Part] = []
    for rule, wanted in ((whole.rule, True), (undecayed, False)):
        names = [name for name, decay in zip(whole.names, decays, strict=True) if decay == wanted]

        def only(slots: dict[str, Arrays], names: list[str] = names) -> dict[str, Arrays]:
            return {slot: {n: a for n, a in arrays.items() if n in names} for slot, arrays in slots.items()}

        slots, extra_slots = only(whole.slots), only(whole.extra_slots)
        parts.append(
            replace(whole, rule=rule, names=names, slots=slots, extra_slots=extra_slots, group=len(parts))
        )
    return parts


def _unknown_elsewhere(extra: Settings) -> list[str]:
    words = {
        "use_ema": "Keras keeps a moving average of the weights (use_ema)",
        "loss_scale_factor": "Keras divides the gradients by loss_scale_factor",
        "gradient_accumulation_steps": "Keras steps once in several batches (gradient_accumulation_steps)",
    }
    return [words[k] for k in extra if k in words]


# -- writing -----------------------------------------------------------------------------------------


def _one_decay(run: Run) -> tuple[Run, list[str]]:
    """One rule for all where parts differ only in that some do not decay; and the names of those."""
    bodies = [anatomy(part.rule) for part in run.parts]
    decays = {body.decay for body in bodies if body.decay}
    undecayed = [
        name for part, body in zip(run.parts, bodies, strict=True) if not body.decay for name in part.names
    ]
    if len(decays) != 1 or not undecayed:
        return run, []
    (decay,) = decays
    parts = [
        replace(part, rule=replace(body, decay=decay).assembled())
        for part, body in zip(run.parts, bodies, strict=True)
    ]
    return replace(run, parts=parts), undecayed


def _class_of(body: Anatomy) -> tuple[str, Spelling | None]:
    """The class of keras.optimizers, and how it spells the core; "" and None where there is none."""
    one = KERAS.native.get(type(body.core))
    if one is None:
        return "", None
    return "AdamW" if one.name == "Adam" and body.decay else one.name, one


def _native(run: Run, part: Part, target: Target) -> tuple[Part, str, Settings]:
    """The part in Keras's form, the class, and its settings."""
    body = anatomy(part.rule)
    kind, one = _class_of(body)
    if one is None:
        raise target.refuse(f"keras.optimizers has no {type(body.core).__name__}")
    lost: list[str] = []
    around: list[Treatment] = []
    for link in body.around:
        if type(link) in _CLIPS and not around:
            around.append(link)
        elif isinstance(link, L2):
            lost.append(
                f"the source adds an L2 penalty {link.l2:g} to the gradient, Keras's optimizers do not; give "
                f"layers kernel_regularizer=keras.regularizers.L2({link.l2 / 2:g})"
            )
        elif isinstance(link, SkipNonFinite):
            lost.append("the source skips a step whose gradients are not finite, Keras's optimizers do not")
        else:
            remedy = ": negate the loss there" if isinstance(link, Maximize) else ""
            raise target.refuse(f"keras.optimizers.{kind} has no {type(link).__name__}{remedy}")
    moved = [k for k, v in part.rule.values.items() if callable(v)]
    if moved and (moved != ["lr"] or not isinstance(part.rule.values["lr"], TimeDecay)):
        raise target.refuse(
            f"a schedule gives {', '.join(moved)}, and Keras has its own: give the number to go on with, as ",
            Argument(moved[0], hyperparameter=True),
            ", and set the schedule in Keras",
        )
    target.lose(run, lost)
    part = fitted(run, bare(part), missing(one, body.core), target)
    decay = body.decay
    if body.core.values.get("dampening"):  # the rate is now the smaller for it
        decay = decay / (1 - body.core.values["dampening"])
    settings = _settings(Anatomy(part.rule, decay, tuple(around)), one)
    if isinstance(rate := part.rule.values["lr"], TimeDecay):
        settings["learning_rate"] = keras.optimizers.schedules.InverseTimeDecay(rate.initial, 1, rate.decay)
    return part, kind, settings


def _own(part: Part) -> tuple[Part, str, Settings]:
    kind, settings = _own_settings(anatomy(part.rule))
    if kind != "Optimizer":
        part = bare(part)
    return part, kind, settings


def _own_settings(body: Anatomy) -> tuple[str, Settings]:
    """The class of thalweg.keras, in the dialect that has the form, and settings; or `Optimizer`."""
    kind, one = _class_of(body)
    if one is None and standard_name(type(body.core)):
        made = class_of(type(body.core))
        kind, one = made.__name__, made.spelling
    options = len(body.around) <= 1 and all(isinstance(link, (*_CLIPS, L2)) for link in body.around)
    for dialect in spoken_in(one, body.whole, "keras") if one and options else ():
        assert one is not None
        settings = _settings(body, one) | ({} if dialect == "keras" else {"dialect": dialect})
        made = getattr(thalweg.keras, kind)(**settings)
        meant = made._treated()
        meant = meant.replaced(lr=body.core.values["lr"]) if "lr" in meant.values else meant
        if anatomy(meant) == body:
            return kind, settings
    return "Optimizer", {"rule": body.assembled()}


def _settings(body: Anatomy, one: Spelling) -> Settings:
    """A class's settings, in Keras's names."""
    settings = {**one.defaults, **one.settings_for(body.whole)}
    if decay := body.decay or body.whole.values.get("weight_decay"):
        settings["weight_decay"] = decay
    for link in body.around:
        if isinstance(link, L2):
            settings["weight_decay"] = link.l2
        else:
            option, field = _CLIPS[type(link)]
            settings[option] = getattr(link, field)
    return settings


def _variables(run: Run, part: Part, ours: Any, extra: Settings) -> list[Array]:
    """The optimizer's variables, in order."""
    program = trace(ours.rule)
    dtypes = [a.dtype for arrays in part.slots.values() for a in arrays.values()]
    wide = np.dtype(np.float64) if np.dtype(np.float64) in dtypes else np.dtype(keras.config.floatx())
    found: list[Array] = [np.asarray(extra.get("iterations", part.t), np.int32)]
    if not callable(ours._learning_rate):
        found.append(np.asarray(part.rule.values.get("lr", 1.0), wide))
    slots = {**part.slots, **part.extra_slots}
    for slot in program.slots:
        if slot not in slots:
            slots[slot] = initial(part, slot, run.shapes, dtypes[0] if dtypes else wide)
    found += [slots[slot][name] for slot, name in _layout(ours, run.names)]
    held = scalar_slots(part)
    found += [np.asarray(held[slot], dtypes[0] if dtypes else wide) for slot in program.scalar_slots]
    return found
