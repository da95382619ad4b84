r"""What the hyperparameters of update rules mean: symbol, meaning, admissible range, search range.

A name means the same in every rule, so it is described here once. A rule with a hyperparameter of
its own describes it where it declares it: `gamma: float = hyper(0.5, symbol=r"\gamma", …)`.
"""

import dataclasses
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Hyperparameter:
    """One number that a rule is tuned with.

    Attributes:
        symbol: its LaTeX symbol.
        meaning: what it does, in words.
        low, high: the admissible range.
        closed: which ends belong to the range: "both", "low", "high" or "neither".
        search: the range within which to look for a good value, log-uniformly: by the value itself
            or, where `complement`, by one minus the value (as for β = 0.9, 0.99, 0.999).
        complement: see `search`.
    """

    symbol: str = ""
    meaning: str = ""
    low: float = -math.inf
    high: float = math.inf
    closed: str = "both"
    search: tuple[float, float] | None = None
    complement: bool = False

    def admits(self, value: float) -> bool:
        """Whether `value` lies in the admissible range. NaN and infinities never do."""
        above = value >= self.low if self.closed in ("both", "low") else value > self.low
        below = value <= self.high if self.closed in ("both", "high") else value < self.high
        return above and below and math.isfinite(value)

    @property
    def range(self) -> str:
        """The admissible range as mathematicians write it, such as "[0, 1)"."""
        left = "[" if self.closed in ("both", "low") and math.isfinite(self.low) else "("
        right = "]" if self.closed in ("both", "high") and math.isfinite(self.high) else ")"
        low, high = (f"{x:g}".replace("inf", "∞").replace("-", "−") for x in (self.low, self.high))
        return f"{left}{low}, {high}{right}"


def hyper(default: Any, **description: Any) -> Any:
    """A hyperparameter with a description of its own, for a rule's class body.

    Args:
        default: its value where the user gives none.
        description: attributes of `Hyperparameter`; what is not given is as the name has it everywhere.
    """
    return dataclasses.field(default=default, metadata={"hyperparameter": description})


def describe(field: Any) -> Hyperparameter:
    """What a field of a rule means: as its name does everywhere, but for what it says itself."""
    unknown = Hyperparameter(symbol=rf"\mathrm{{{field.name}}}".replace("_", r"\_"))
    common = HYPERPARAMETERS.get(field.name, unknown)
    return dataclasses.replace(common, **field.metadata.get("hyperparameter", {}))


def _rate(symbol: str, meaning: str, search: tuple[float, float]) -> Hyperparameter:
    return Hyperparameter(symbol, meaning, 0, math.inf, "low", search)


def _memory(
    symbol: str, meaning: str, search: tuple[float, float] = (0.8, 0.999), closed: str = "low"
) -> Hyperparameter:
    return Hyperparameter(symbol, meaning, 0, 1, closed, search, complement=True)


HYPERPARAMETERS = {
    "lr": _rate(r"\eta", "learning rate: the size of a step", (1e-4, 1.0)),
    "momentum": _memory(r"\mu", "share of the velocity kept from step to step", closed="both"),
    "dampening": Hyperparameter(r"\tau", "share of a new gradient kept out of the velocity", 0, 1),
    "rho": _memory(r"\rho", "memory of the running mean of squares", closed="both"),
    "beta_1": _memory(r"\beta_1", "memory of the running mean of gradients"),
    "beta_2": _memory(r"\beta_2", "memory of the running mean of squares", (0.9, 0.9999)),
    "beta_3": _memory(r"\beta_3", "memory of the running mean of squares", (0.9, 0.9999)),
    "psi": _rate(r"\psi", "how fast the momentum warms up to β₁", (1e-3, 1.0)),
    "epsilon": _rate(r"\epsilon", "keeps the divisor away from zero", (1e-10, 1e-3)),
    "epsilon_root": _rate(r"\epsilon_0", "keeps the root's argument away from zero", (1e-10, 1e-3)),
    "initial_accumulator": _rate("s_0", "what the sum or mean of squares starts at", (1e-3, 1.0)),
    "weight_decay": _rate(r"\lambda", "pull of the weights towards zero", (1e-6, 1e-1)),
    "l2": _rate(r"\lambda", "weight of the penalty ½λ‖p‖² in the loss", (1e-6, 1e-1)),
    "clip_value": Hyperparameter("c", "largest absolute value of a gradient's entry", 0, closed="neither"),
    "clip_norm": Hyperparameter("c", "largest norm of one tensor's gradient", 0, closed="neither"),
    "clip_global_norm": Hyperparameter(
        "c", "largest norm of the whole model's gradient", 0, closed="neither"
    ),
}


# Names that other libraries use for the same hyperparameter. `decay` is none: in Optax it is ρ, in old
# Keras the time decay of the learning rate.
SYNONYMS = {
    "learningrate": "lr",
    "stepsize": "lr",
    "eta": "lr",
    "eps": "epsilon",
    "alpha": "rho",
    "decayrate": "rho",
    "mu": "momentum",
}


def spellings(known: Iterable[str]) -> dict[str, str]:
    """The known names by each of their spellings, folded."""
    known = list(known)
    own = {SYNONYMS.get(fold(name), ""): name for name in known} | {fold(name): name for name in known}
    return {synonym: own[name] for synonym, name in SYNONYMS.items() if name in own} | own


def fold(name: str) -> str:
    """What is left of a name whose capitals, underscores, hyphens and spaces make no difference."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
