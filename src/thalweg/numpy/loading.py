"""Loading a state: checked whole before anything changes."""

from pathlib import Path
from typing import Any

from thalweg import statefile
from thalweg.program.tracing import trace
from thalweg.statefile import State


def load(optimizer: Any, source: Any) -> None:
    """Load a state; see `Optimizer.load`."""
    state = statefile.checked(source) if isinstance(source, State) else statefile.read(Path(source))
    program = trace(optimizer.rule)
    own = State.of(optimizer.rule, 0, {}, {})
    if state.rule != own.rule:
        raise ValueError(f"the state was written by {state.rule!r}; this optimizer is {own.rule!r}")
    found, wanted = _form(state), _form(own)
    if found != wanted:
        more, less = ", ".join(_beside(found, wanted)), ", ".join(_beside(wanted, found))
        differs = [f"has {more}, which this optimizer has not"] if more else []
        differs += [f"lacks {less}, which this optimizer has"] if less else []
        raise ValueError(
            f"the state was written by another form of {state.rule}: it "
            f"{' and '.join(differs) or 'has its treatments in another order'}; thalweg.convert changes "
            "the form of a state"
        )
    pairs = ((state.slots, program.slots), (state.scalars, program.scalar_slots))
    if any(set(has) - set(needs) or (state.t and set(has) != set(needs)) for has, needs in pairs):
        has = ", ".join((*state.slots, *state.scalars)) or "none"
        needs = ", ".join((*program.slots, *program.scalar_slots)) or "none"
        raise ValueError(f"the state has the slots {has}; this form of {optimizer.rule.name} has {needs}")
    values = {k: v for k, v in state.hyperparameters.items() if v is not None}
    scheduled = [k for k, v in optimizer.rule.values.items() if callable(v)]
    optimizer.rule = optimizer.rule.replaced(**{k: v for k, v in values.items() if k not in scheduled})
    optimizer.t = state.t
    optimizer._scalars = dict(state.scalars)
    optimizer._slots = {
        slot: {k: a.copy() for k, a in arrays.items()} for slot, arrays in state.slots.items()
    }


def _form(state: State) -> list[str]:
    """What is settled before the first step, in words."""
    flags = [f"{name}={value}" for name, value in state.flags.items()]
    return [*flags, *state.treatments, *sorted(state.hyperparameters)]


def _beside(some: list[str], others: list[str]) -> list[str]:
    return [x for x in some if x not in others]
