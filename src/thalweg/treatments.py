"""What is done to a gradient before a rule sees it, and to the step after: by composition.

`chain(ClipByGlobalNorm(1.0), L2(1e-4), Adam())` is a rule like any other, and is traced into one
kernel with it. Treatments act in the order written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, dataclass_transform

from thalweg import ops
from thalweg.hyperparameters import Hyperparameter, describe
from thalweg.ops import clip, maximum
from thalweg.rule import Rule, Scalar, check

__all__ = [
    "L2",
    "Chain",
    "ClipByGlobalNorm",
    "ClipByNorm",
    "ClipByValue",
    "DecoupledDecay",
    "Maximize",
    "SkipNonFinite",
    "Treatment",
    "chain",
]


@dataclass_transform(frozen_default=True)
class Treatment:
    """One thing done around a rule. Override `gradient`, `step`, or both."""

    guarded: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            check(type(self), field, getattr(self, field.name))

    def gradient(self, g: Any, given: Mapping[str, Any]) -> Any:
        """The gradient that what follows sees.

        Args:
            g: the gradient as what comes before has left it.
            given: `t`, `p`, and the functions `norm` and `global_norm` of a gradient: of the tensor's,
                and of the whole model's.
        """
        return g

    def step(self, step: Any, lr: Any, given: Mapping[str, Any]) -> Any:
        """The step to subtract, from the one the rule takes at learning rate `lr`."""
        return step


class Maximize(Treatment):
    """Up the gradient instead of down."""

    def gradient(self, g: Any, given: Mapping[str, Any]) -> Any:
        """−g."""
        return -g


class ClipByValue(Treatment):
    """Each entry of the gradient brought into [−c, c]."""

    clip_value: Scalar

    def gradient(self, g: Any, given: Mapping[str, Any]) -> Any:
        """G within [−c, c]."""
        return clip(g, -self.clip_value, self.clip_value)


class ClipByNorm(Treatment):
    """The gradient of each tensor scaled down to norm c where it is longer.

    Pascanu, Mikolov & Bengio 2013, Algorithm 1, https://arxiv.org/abs/1211.5063
    """

    clip_norm: Scalar

    def gradient(self, g: Any, given: Mapping[str, Any]) -> Any:
        """G·c / max(‖g‖, c)."""
        return g * (self.clip_norm / maximum(given["norm"](g), self.clip_norm))


class ClipByGlobalNorm(Treatment):
    """The gradient of the whole model scaled down to norm c where it is longer.

    Pascanu, Mikolov & Bengio 2013, Algorithm 1, https://arxiv.org/abs/1211.5063
    Exactly c, as in Keras and Optax; torch's `clip_grad_norm_` divides by ‖g‖ + 1e-6.
    """

    clip_global_norm: Scalar

    def gradient(self, g: Any, given: Mapping[str, Any]) -> Any:
        """G·c / max(‖all g‖, c)."""
        return g * (self.clip_global_norm / maximum(given["global_norm"](g), self.clip_global_norm))


class L2(Treatment):
    """A penalty ½λ‖p‖² in the loss: the gradient pulls towards zero, through the rule."""

    l2: Scalar

    def gradient(self, g: Any, given: Mapping[str, Any]) -> Any:
        """G + λp."""
        return g + self.l2 * given["p"]


class DecoupledDecay(Treatment):
    """Weights decay by lr·λ a step, beside the rule.

    Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101
    """

    weight_decay: Scalar

    def step(self, step: Any, lr: Any, given: Mapping[str, Any]) -> Any:
        """Step + lr·λ·p."""
        return step + lr * self.weight_decay * given["p"]


class SkipNonFinite(Treatment):
    """Where any gradient of the model is NaN or infinite, the step is skipped whole.

    Parameters, state and step number stay as they were. (A float64 gradient whose squared norm
    overflows, above about 1e154, counts as infinite.)
    """

    guarded = True


class Chain(Rule, register=False):
    """A rule within treatments: see `chain`."""

    treatments: tuple[Treatment, ...]
    rule: Rule

    def __post_init__(self) -> None:
        taken: set[str] = set(self.rule.hyperparameters)
        for treatment in self.treatments:
            names = {f.name for f in fields(treatment)}  # type: ignore[arg-type]
            if names & taken:
                raise ValueError(
                    f"chain: {type(treatment).__name__} brings a second {min(names & taken)!r}; "
                    "a rule has each hyperparameter once"
                )
            taken |= names

    @property
    def name(self) -> str:
        """The inner rule's name."""
        return self.rule.name

    @cached_property
    def hyperparameters(self) -> dict[str, Hyperparameter]:
        """The treatments' and the rule's."""
        own = {f.name: describe(f) for tr in self.treatments for f in fields(tr)}  # type: ignore[arg-type]
        return own | self.rule.hyperparameters

    @cached_property
    def values(self) -> dict[str, Scalar]:
        """The treatments' and the rule's."""
        own = {f.name: getattr(tr, f.name) for tr in self.treatments for f in fields(tr)}  # type: ignore[arg-type]
        return own | self.rule.values

    @cached_property
    def form(self) -> tuple[Any, ...]:
        """The kinds of the treatments, and the rule's form."""
        return (Chain, tuple(type(tr) for tr in self.treatments), self.rule.form)

    @property
    def slots(self) -> dict[str, float | str]:
        """The rule's."""
        return self.rule.slots

    @property
    def guarded(self) -> bool:
        """Whether one of the treatments skips non-finite steps."""
        return any(tr.guarded for tr in self.treatments) or self.rule.guarded

    def with_values(self, values: Mapping[str, Any]) -> "Chain":
        """This chain with other values, symbols among them, unchecked."""
        other = super().with_values(values)
        treatments = []
        for treatment in self.treatments:
            changed = object.__new__(type(treatment))
            vars(changed).update({f.name: values[f.name] for f in fields(treatment)})  # type: ignore[arg-type]
            treatments.append(changed)
        for name in self.values:
            vars(other).pop(name, None)
        vars(other).update(treatments=tuple(treatments), rule=self.rule.with_values(values))
        return other  # type: ignore[return-value]

    def advance(
        self,
        t: Any,
        g: Any,
        p: Any,
        state: Mapping[str, Any],
        norm: Callable[[Any], Any] = ops.norm,
        global_norm: Callable[[Any], Any] = ops.norm,
    ) -> tuple[Any, dict[str, Any]]:
        """Treat the gradient, let the rule step, treat the step."""
        given = {"t": t, "p": p, "norm": norm, "global_norm": global_norm}
        for treatment in self.treatments:
            g = treatment.gradient(g, given)
        step, new = self.rule.advance(t, g, p, state, norm, global_norm)
        for treatment in self.treatments:
            step = treatment.step(step, self.rule.values.get("lr", 1.0), given)
        return step, new


def chain(*links: Treatment | Rule) -> Rule:
    """Treatments, in the order in which they act, then the rule.

    Raises:
        TypeError: the last is not a rule, or another is not a treatment.
        ValueError: two of them bring a hyperparameter of one name.
    """
    *treatments, rule = links
    if not isinstance(rule, Rule):
        raise TypeError(f"chain ends with a rule, such as Adam(); got {rule!r}")
    for treatment in treatments:
        if not isinstance(treatment, Treatment):
            raise TypeError(f"chain takes treatments before the rule; got {treatment!r}")
    return Chain(tuple(treatments), rule) if treatments else rule  # type: ignore[arg-type]
