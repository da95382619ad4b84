"""A hyperparameter as a function of the step number.

A schedule is any callable of `t`, the number of the step about to be taken, **counted from 1** as
in a rule. The formulas below are in `k = t − 1`, the steps already taken, **counted from 0**, so
that the first step has the initial value. Each works wherever a number does: `Adam(lr=Cosine(1e-3, 10_000))`.

They are written with `thalweg.ops` and without branches on `t`, so `t` may also be an array or a symbol:
a library that compiles whole training steps (JAX under `jit`) traces them like the rule itself.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from thalweg.ops import cos, floor, maximum, minimum, sqrt, where

Schedule = Callable[[int], float]

# The number of a step, or a schedule's value there: a number, an array or a symbol.
Number: TypeAlias = Any

__all__ = [
    "BuiltInSchedule",
    "Constant",
    "Cosine",
    "Exponential",
    "InverseSqrt",
    "Polynomial",
    "Schedule",
    "Step",
    "TimeDecay",
    "WarmUp",
    "WarmUpStableDecay",
]


class BuiltInSchedule:
    """A schedule of this module. It counts from 1 wherever it is used."""

    at_least = 1

    def __post_init__(self) -> None:
        """Check that every length in steps is a whole number from `at_least`."""
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.type is int and not (isinstance(value, int) and value >= self.at_least):
                raise ValueError(
                    f"{type(self).__name__}: {field.name} is a number of steps, "
                    f"a whole number from {self.at_least}; got {value!r}"
                )


@dataclass(frozen=True)
class Constant(BuiltInSchedule):
    """The same value at every step."""

    value: float

    def __call__(self, t: Number) -> Number:
        return self.value


@dataclass(frozen=True)
class TimeDecay(BuiltInSchedule):
    """initial / (1 + decay·k): `decay` of Keras 2 and `lr_decay` of torch's Adagrad."""

    initial: float
    decay: float

    def __call__(self, t: Number) -> Number:
        return self.initial / (1 + self.decay * (t - 1))


@dataclass(frozen=True)
class InverseSqrt(BuiltInSchedule):
    """initial / √(k + 1): the rate under which Adagrad's and AMSGrad's regret bounds are stated."""

    initial: float

    def __call__(self, t: Number) -> Number:
        return self.initial / sqrt(t)


@dataclass(frozen=True)
class Step(BuiltInSchedule):
    """initial · factor^⌊k / every⌋: a drop each `every` steps."""

    initial: float
    every: int
    factor: float = 0.1

    def __call__(self, t: Number) -> Number:
        return self.initial * self.factor ** floor((t - 1) / self.every)


@dataclass(frozen=True)
class Exponential(BuiltInSchedule):
    """initial · factor^k."""

    initial: float
    factor: float

    def __call__(self, t: Number) -> Number:
        return self.initial * self.factor ** (t - 1)


@dataclass(frozen=True)
class Polynomial(BuiltInSchedule):
    """From `initial` to `final` in `steps` steps along (1 − k/steps)^power, `final` afterwards."""

    initial: float
    steps: int
    final: float = 0.0
    power: float = 1.0

    def __call__(self, t: Number) -> Number:
        left = 1 - minimum((t - 1) / self.steps, 1.0)
        return self.final + (self.initial - self.final) * left**self.power


@dataclass(frozen=True)
class Cosine(BuiltInSchedule):
    """From `initial` to `final` in `steps` steps along half a cosine, `final` afterwards.

    Loshchilov & Hutter 2017, equation 5 without restarts, https://arxiv.org/abs/1608.03983
    """

    initial: float
    steps: int
    final: float = 0.0

    def __call__(self, t: Number) -> Number:
        done = minimum((t - 1) / self.steps, 1.0)
        return self.final + (self.initial - self.final) * (1 + cos(math.pi * done)) / 2


@dataclass(frozen=True)
class WarmUp(BuiltInSchedule):
    """A linear rise over `steps` steps in front of any schedule, which starts after it.

    At step t ≤ steps: t/steps of the schedule's first value, so the first step already moves;
    afterwards the schedule counts from its own beginning.
    """

    steps: int
    then: float | Schedule
    at_least = 0

    def __call__(self, t: Number) -> Number:
        after = self.then(maximum(t - self.steps, 1)) if callable(self.then) else self.then
        return minimum(t / self.steps, 1.0) * after if self.steps else after


@dataclass(frozen=True)
class WarmUpStableDecay(BuiltInSchedule):
    """A linear rise, a plateau at `peak`, then a linear fall to `final`.

    Hu et al. 2024 (MiniCPM), section 4, https://arxiv.org/abs/2404.06395

    Args:
        peak: the value of the plateau.
        warm_up, stable, decay: lengths of the three phases in steps.
        final: the value after them.
    """

    peak: float
    warm_up: int
    stable: int
    decay: int
    final: float = 0.0
    at_least = 0

    def __call__(self, t: Number) -> Number:
        return WarmUp(self.warm_up, self._after_warm_up)(t)

    def _after_warm_up(self, t: Number) -> Number:
        fall = Polynomial(self.peak, self.decay, self.final)(t - self.stable) if self.decay else self.final
        return where(t > self.stable, fall, self.peak)
