"""What is done to a gradient before a rule sees it, and to the step after: by composition.

`chain(ClipByGlobalNorm(1.0), L2(1e-4), Adam())` is a rule like any other, and is traced into one
kernel with it. Treatments act in the order written.
"""

import copy
from collections.abc import Mapping
from dataclasses import fields
from functools import cached_property
from typing import Any, ClassVar, Self

from thalweg.hyperparameters import Hyperparameter
from thalweg.ops import clip, maximum
from thalweg.rule import Declared, Norm, Rule, Scalar

__all__ = [
    "L2",
    "TREATMENTS",
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


class Treatment(Declared):
    """One thing done around a rule. Override `gradient`, `step`, or both."""

    guarded: ClassVar[bool] = False

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
        """g within [−c, c]."""
        return clip(g, -self.clip_value, self.clip_value)


class ClipByNorm(Treatment):
    """The gradient of each tensor scaled down to norm c where it is longer.

    Pascanu, Mikolov & Bengio 2013, Algorithm 1, https://arxiv.org/abs/1211.5063
    """

    clip_norm: Scalar

    def gradient(self, g: Any, given: Mapping[str, Any]) -> Any:
        """g·c / max(‖g‖, c)."""
        return g * (self.clip_norm / maximum(given["norm"](g), self.clip_norm))


class ClipByGlobalNorm(Treatment):
    """The gradient of the whole model scaled down to norm c where it is longer.

    Pascanu, Mikolov & Bengio 2013, Algorithm 1, https://arxiv.org/abs/1211.5063
    Exactly c, as in Keras and Optax; torch's `clip_grad_norm_` divides by ‖g‖ + 1e-6.
    """

    clip_global_norm: Scalar

    def gradient(self, g: Any, given: Mapping[str, Any]) -> Any:
        """g·c / max(‖all g‖, c)."""
        return g * (self.clip_global_norm / maximum(given["global_norm"](g), self.clip_global_norm))


class L2(Treatment):
    """A penalty ½λ‖p‖² in the loss: the gradient pulls towards zero, through the rule."""

    l2: Scalar

    def gradient(self, g: Any, given: Mapping[str, Any]) -> Any:
        """g + λp."""
        return g + self.l2 * given["p"]


class DecoupledDecay(Treatment):
    """Weights decay by lr·λ a step, beside the rule.

    Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101
    """

    weight_decay: Scalar

    def step(self, step: Any, lr: Any, given: Mapping[str, Any]) -> Any:
        """step + lr·λ·p."""
        return step + lr * self.weight_decay * given["p"]


class SkipNonFinite(Treatment):
    """Where any gradient of the model is NaN or infinite, the step is skipped whole.

    Parameters, state and step number stay as they were. (A float64 gradient whose squared norm
    overflows, above about 1e154, counts as infinite.)
    """

    guarded: ClassVar[bool] = True


TREATMENTS: tuple[type[Treatment], ...] = (
    *(Maximize, ClipByValue, ClipByNorm, ClipByGlobalNorm, L2, DecoupledDecay),
    SkipNonFinite,
)


class Chain(Rule):
    """A rule within treatments: see `chain`."""

    treatments: tuple[Treatment, ...]
    rule: Rule

    def __post_init__(self) -> None:
        if isinstance(self.rule, Chain):  # one chain, however it was put together
            object.__setattr__(self, "treatments", (*self.treatments, *self.rule.treatments))
            object.__setattr__(self, "rule", self.rule.rule)
        taken: dict[str, str] = {}
        for link in self.links:
            for field in fields(link):
                if field.name in taken:
                    raise ValueError(
                        f"chain: {type(link).__name__} brings a second {field.name!r}, which "
                        f"{taken[field.name]} has; a chain has each hyperparameter once"
                    )
                taken[field.name] = type(link).__name__

    @property
    def links(self) -> tuple[Treatment | Rule, ...]:
        """The treatments in the order in which they act, then the rule."""
        return (*self.treatments, self.rule)

    @property
    def name(self) -> str:
        """The inner rule's name."""
        return self.rule.name

    @cached_property
    def hyperparameters(self) -> dict[str, Hyperparameter]:
        """The treatments' and the rule's."""
        return {name: about for link in self.links for name, about in link.hyperparameters.items()}

    @cached_property
    def values(self) -> dict[str, Scalar]:
        """The treatments' and the rule's."""
        return {name: value for link in self.links for name, value in link.values.items()}

    @property
    def flags(self) -> dict[str, bool]:
        """The treatments' and the rule's."""
        return {name: value for link in self.links for name, value in link.flags.items()}

    @cached_property
    def form(self) -> tuple[Any, ...]:
        """The forms of the treatments and of the rule."""
        return (Chain, *(link.form for link in self.links))

    @property
    def slots(self) -> dict[str, float | str]:
        """The rule's."""
        return self.rule.slots

    @property
    def guarded(self) -> bool:
        """Whether one of the links skips non-finite steps."""
        return any(link.guarded for link in self.links)

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """This chain with other values, symbols among them, unchecked."""
        *treatments, rule = (link.with_values(values) for link in self.links)
        other = copy.copy(self)
        for cached in ("values", "_scheduled"):
            vars(other).pop(cached, None)
        vars(other).update(treatments=tuple(treatments), rule=rule)
        return other

    def compute(
        self, t: Any, g: Any, p: Any, state: Mapping[str, Any], norm: Norm, global_norm: Norm
    ) -> tuple[Any, dict[str, Any]]:
        """Treat the gradient, let the rule step, treat the step."""
        given = {"t": t, "p": p, "norm": norm, "global_norm": global_norm}
        for treatment in self.treatments:
            g = treatment.gradient(g, given)
        step, new = self.rule.compute(t, g, p, state, norm, global_norm)
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
