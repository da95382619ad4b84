"""What every conversion passes through: the rule, the steps taken, and the state by slot and parameter.

A reader makes a `Run` of one framework's state, a writer makes another's of it. Parameters that share a
rule and a step number share a `Part`; torch's parameter groups, for one, may make several.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from thalweg.errors import Argument, InvalidArgumentError, ThalwegError
from thalweg.program.tracing import trace
from thalweg.registry import find, get
from thalweg.rule import Rule, Scalar, is_flag
from thalweg.rules import SGD, Adam, AdamW, Adan, Lion, Momentum, Nesterov, RMSprop
from thalweg.statefile import Arrays, apart
from thalweg.treatments import L2, DecoupledDecay, Treatment, chain

Array: TypeAlias = NDArray[Any]
Shapes: TypeAlias = dict[str, tuple[int, ...] | None]

# Below this, what tells two forms apart is lost in rounding.
NOTHING = 1e-12


class Refused(ThalwegError, ValueError):  # noqa: N818  (an answer, not a fault)
    """No exact conversion exists; the message says why, and what would do."""


@dataclass(frozen=True)
class Source:
    """What is to be read: see `thalweg.convert.state`.

    Attributes:
        state: the state.
        name: the framework.
        native: whether the framework's own optimizer wrote it, not Thalweg's.
        dialect: of a rule that is given by name.
        rule: its name, itself, or None: the state tells.
        params: the parameters, where given.
        step: number of steps taken, where given.
        values: hyperparameters, where given.
    """

    state: Any
    name: str
    native: bool
    dialect: str
    rule: str | Rule | None = None
    params: Shapes | None = None
    step: int | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    def rule_with(self, held: Mapping[str, float], *needed: str) -> Rule:
        """The rule, with the values that the state holds and those that are given.

        Args:
            held: by hyperparameter.
            needed: those that no default may stand for.

        Raises:
            Refused: the rule is not given, or a needed value is not.
        """
        if self.rule is None:
            raise Refused(
                f"a state of {self.name} does not tell which rule it follows: give ",
                Argument("rule"),
                ', such as "adam"',
            )
        if isinstance(self.rule, Rule):
            own = self.rule.values
            # In float32 a state holds 0.1 as 0.10000000149: it is the rule's number all the same.
            new = {
                k: v for k, v in held.items() if k in own and (callable(own[k]) or v != np.float32(own[k]))
            }
            return self.rule.replaced(**new)
        known = {f.name for f in fields(find(self.rule)) if not is_flag(f)}
        if surplus := [k for k, v in held.items() if k not in known and v]:
            raise Refused(f"{self.rule} has no {surplus[0]}, which is {held[surplus[0]]:g} in the state")
        found = {**{k: v for k, v in held.items() if k in known}, **self.values}
        for name in needed:
            if name not in found:
                raise Refused(
                    f"the state does not hold the {name} of {self.rule}: give ",
                    Argument(name, hyperparameter=True),
                )
        return get(self.rule, dialect=self.dialect, **found)

    def steps(self, run: "Run", kind: str, counted: int | None, begun: bool) -> int:
        """The number of steps taken: as counted, else as given, else 1 where any has been taken.

        Raises:
            ValueError: another number is given than is counted.
        """
        if counted is not None:
            if self.step not in (None, counted):
                raise InvalidArgumentError(Argument("step", self.step), f", but the state says {counted}")
            return counted
        if self.step is None:
            run.lose_count(kind, ": give it, if you know it")
        return int(begun) if self.step is None else self.step


@dataclass(frozen=True)
class Target:
    """What is to be written.

    Attributes:
        name: the framework.
        native: whether for the framework's own optimizer.
        approximate: whether what is lost is accepted.
        params: the parameters, where given.
    """

    name: str
    native: bool
    approximate: bool = False
    params: Any = None

    @property
    def instead(self) -> tuple[str | Argument, ...]:
        """What goes on exactly, as the end of a message."""
        family = {"optax": "jax"}.get(self.name, self.name)
        exact = Argument("target", f"thalweg.{family}")
        return ("; ", exact, " goes on exactly") if self.native else ()

    def lose(self, run: "Run", lost: list[str]) -> None:
        """Note what is lost, or refuse it.

        Raises:
            Refused: something is lost, and that was not accepted.
        """
        if lost and not self.approximate:
            nearest = Argument("approximate", True)
            raise Refused(
                f"not exactly: {'; '.join(lost)}", *self.instead, "; ", nearest, " accepts the difference"
            )
        run.lost += lost

    def refuse(self, *why: str | Argument) -> Refused:
        """What no target of this kind can do, not even nearly."""
        return Refused(*why, *self.instead)


@dataclass
class Part:
    """Some of a model's parameters.

    Attributes:
        rule: with its values.
        t: number of steps taken.
        names: the parameters.
        slots: for each slot, an array for each parameter; none before the first step.
        scalars: slots that are one number.
        group: number of the parameter group.
        extra: settings that only the source's own family understands.
        extra_slots: arrays that only the source's own family understands.
    """

    rule: Rule
    t: int
    names: list[str]
    slots: dict[str, Arrays]
    scalars: dict[str, float] = field(default_factory=dict)
    group: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    extra_slots: dict[str, Arrays] = field(default_factory=dict)


@dataclass
class Run:
    """A whole model.

    Attributes:
        family: of the source: "torch", "keras", "jax" or "numpy".
        parts: at least one.
        names: all parameters, in order.
        shapes: of the parameters, where known.
        other: what the source holds besides, in words: it cannot go along.
        lost: what the source could not say, or the target cannot keep, in words.
    """

    family: str
    parts: list[Part] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    shapes: Shapes = field(default_factory=dict)
    other: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def lose_count(self, kind: str, remedy: str = "") -> None:
        """Note that one side keeps no number of steps, which bears on schedules alone."""
        loss = f"the number of steps taken, for schedules: {kind} keeps none{remedy}"
        if loss not in self.lost:
            self.lost.append(loss)

    def add(self, part: Part) -> None:
        """Add a part; its arrays tell shapes."""
        self.parts.append(part)
        self.names += [name for name in part.names if name not in self.names]
        for arrays in part.slots.values():
            self.shapes |= {name: a.shape for name, a in arrays.items()}


@dataclass(frozen=True)
class Converted:
    """State in the target's terms.

    Attributes:
        kind: the optimizer that goes on from it, such as "torch.optim.Adam".
        settings: what its constructor takes besides the parameters.
        state: what it loads.
        rule: what it follows, in Thalweg's terms.
        names: the parameters, in the target's order.
        step: number of steps taken.
        make: see `optimizer`.
        lost: what is not as it was, in words; empty where everything is.
        undecayed: parameters without weight decay, where neither settings nor state can say so.
        map: which of the source's parameters became which, as `names` of `thalweg.convert.state`.
    """

    kind: str
    settings: dict[str, Any]
    state: Any
    rule: Rule
    names: tuple[str, ...]
    step: int
    make: Callable[[Any], Any] = field(repr=False)
    lost: tuple[str, ...] = ()
    undecayed: tuple[str, ...] = ()
    map: Mapping[str, Any] = field(default_factory=dict)

    def optimizer(self, params: Any = None) -> Any:
        """The optimizer, made and loaded.

        Args:
            params: torch's `model.named_parameters()`, or the parameters in the order of `names`; Keras's
                `model.trainable_variables`; for the others nothing.

        Returns:
            the optimizer, or for optax and thalweg.jax the transformation that goes on from `state`.
        """
        return self.make(params)


@dataclass(frozen=True)
class Anatomy:
    """A rule taken apart, so that rules that do the same are equal.

    Attributes:
        core: the rule, without a decoupled decay of its own.
        decay: the decoupled weight decay.
        around: all other treatments.
    """

    core: Rule
    decay: Scalar
    around: tuple[Treatment, ...]

    @property
    def whole(self) -> Rule:
        """The core, with the decay where it is the rule's own."""
        if self.decay and isinstance(self.core, Lion):
            return replace(self.core, weight_decay=self.decay)
        if self.decay and isinstance(self.core, Adan):
            return replace(self.core, weight_decay=self.decay, decoupled_decay=True)
        return self.core

    def assembled(self) -> Rule:
        """As a rule again."""
        beside = self.decay and self.whole is self.core
        return chain(*self.around, *([DecoupledDecay(self.decay)] if beside else []), self.whole)


def anatomy(rule: Rule) -> Anatomy:
    """Take a rule apart: AdamW is Adam and a decay; a decay of zero is none; and so on."""
    links, core = apart(rule)
    decay = sum((link.weight_decay for link in links if isinstance(link, DecoupledDecay)), start=0.0)
    around = [
        link
        for link in links
        if not isinstance(link, DecoupledDecay) and not (isinstance(link, L2) and link.l2 == 0)
    ]
    if isinstance(core, AdamW):
        decay = core.weight_decay
        core = Adam(core.lr, core.beta_1, core.beta_2, core.epsilon, core.epsilon_hat)
    elif isinstance(core, Lion) or (isinstance(core, Adan) and core.decoupled_decay):
        decay, core = core.weight_decay or decay, replace(core, weight_decay=0.0)
    elif isinstance(core, Momentum | Nesterov) and core.momentum == 0:
        if getattr(core, "dampening", 0) == 0:
            core = SGD(core.lr)
    elif isinstance(core, RMSprop) and not core.momentum:
        core = replace(core, momentum=None, lr_in_velocity=False, nesterov=False)
    if isinstance(core, Adan) and core.weight_decay == 0:
        core = replace(core, decoupled_decay=False)
    last = around[-1] if around else None
    if isinstance(core, SGD) and isinstance(last, L2) and not decay:
        decay, around = last.l2, around[:-1]  # g + λp before the step and lr·λ·p beside it are the same
    return Anatomy(core, decay, tuple(around))


def bare(part: Part) -> Part:
    """The part under its rule's core alone, with the slots that the core has."""
    core = anatomy(part.rule).core
    slots = {slot: arrays for slot, arrays in part.slots.items() if slot in trace(core).slots}
    return replace(part, rule=core, slots=slots)


def merged(run: Run, target: Target) -> Part:
    """All parameters as one part, for a target that has one rule and one step number for all.

    Raises:
        Refused: the parts differ.
    """
    first = max(run.parts, key=lambda part: part.t)
    slots = {slot: dict(arrays) for slot, arrays in first.slots.items()}
    extra_slots = {slot: dict(arrays) for slot, arrays in first.extra_slots.items()}
    for part in run.parts:
        if part is first:
            continue
        _check_same(first, part, target)
        if part.t != first.t and not _t_is_nothing(first, part):
            few = ", ".join(part.names[:3]) + (", …" if len(part.names) > 3 else "")
            target.lose(
                run,
                [
                    f"{target.name} counts the steps of all parameters together, and {few} took {part.t}, "
                    f"others {first.t}"
                ],
            )
        for slot in trace(first.rule).slots:
            dtype = next((a.dtype for a in slots.get(slot, {}).values()), np.dtype(np.float32))
            own = part.slots.get(slot) or initial(part, slot, run.shapes, dtype)
            slots.setdefault(slot, {}).update(own)
        for slot, arrays in part.extra_slots.items():
            extra_slots.setdefault(slot, {}).update(arrays)
    ordered = {slot: {n: arrays[n] for n in run.names if n in arrays} for slot, arrays in slots.items()}
    return replace(first, names=list(run.names), slots=ordered, extra_slots=extra_slots, group=0)


def initial(part: Part, slot: str, shapes: Shapes, dtype: Any) -> Arrays:
    """A slot as it is before the first step.

    Raises:
        Refused: a parameter's shape is not known.
    """
    value = part.rule.initial_state()[slot]
    if unknown := [name for name in part.names if shapes.get(name) is None]:
        raise Refused(
            f"parameter {unknown[0]!r} has no state yet, so its shape is not known: give the parameters, as ",
            *(Argument("source_params"), " or ", Argument("target_params")),
        )
    return {name: np.full(shapes[name] or (), value, dtype) for name in part.names}


def _check_same(first: Part, other: Part, target: Target) -> None:
    if first.rule == other.rule:
        return
    a, b = first.rule, other.rule
    differ = [name for name in a.values if a.values[name] != b.values.get(name)]
    differ += [name for name in b.values if name not in a.values]
    if a.form == b.form:
        what = ", ".join(f"{name} is {a.values[name]} and {b.values[name]}" for name in differ)
    else:
        what = f"one has {_described(a)}, one has {_described(b)}"
    raise Refused(
        f"{target.name} has one rule for all parameters; the parameter groups here differ: {what}. ",
        Argument("target", "thalweg.torch"),
        " keeps groups; or convert one group at a time",
    )


def _described(rule: Rule) -> str:
    links, core = apart(rule)
    return " within ".join([type(core).__name__, *(type(link).__name__ for link in links)])


def _t_is_nothing(a: Part, b: Part) -> bool:
    """Whether the step number makes no difference to what follows."""
    program = trace(a.rule)
    if a.scalars != b.scalars or any(callable(value) for value in a.rule.values.values()):
        return False

    def scalars_at(t: int) -> Any:
        return program.scalars_at(t, a.rule, a.scalars)

    # Corrections vanish with t: if they have at the next step, they have for good.
    return bool(scalars_at(a.t + 1) == scalars_at(b.t + 1) == scalars_at(a.t + 1000))


def scalar_slots(part: Part) -> dict[str, float]:
    """The slots that are one number; as they are before the first step where none has been taken."""
    start = part.rule.initial_state()
    return {slot: part.scalars.get(slot, start[slot]) for slot in trace(part.rule).scalar_slots}


def in_order(names: list[str], given: list[str]) -> list[str]:
    """The names of a state in the order of the parameters that are given; mere numbers go by place.

    Raises:
        ValueError: they are other parameters.
    """
    if len(names) == len(given) and all(name.isdigit() for name in names):
        return names
    if sorted(names) != sorted(given):
        raise InvalidArgumentError(
            f"the state is of the parameters {', '.join(names)}; given are {', '.join(given)}: give state() ",
            *(Argument("names"), " or ", Argument("target_params")),
        )
    return given


def number(x: Any) -> float:
    """A number, from whatever holds one."""
    return float(x.detach() if hasattr(x, "detach") else x)


def array(x: Any) -> Array:
    """A copy as a NumPy array, of the same dtype, of a tensor, variable or array."""
    x = getattr(x, "value", x) if type(x).__module__.startswith("keras") else x
    if hasattr(x, "detach"):  # torch's
        x = x.detach().cpu()
        if str(x.dtype) == "torch.bfloat16":
            import ml_dtypes
            import torch

            bits: Array = x.contiguous().view(torch.int16).numpy()
            return bits.copy().view(ml_dtypes.bfloat16)
        return np.array(x.numpy())
    return np.array(x)
