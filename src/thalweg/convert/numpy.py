"""thalweg.numpy's state: `thalweg.statefile.State`."""

from typing import Any

from thalweg.convert.names import shapes_of as parameters  # noqa: F401
from thalweg.convert.parts import Converted, Part, Run, Source, Target, merged, scalar_slots
from thalweg.numpy import Optimizer
from thalweg.program.tracing import trace
from thalweg.registry import find, name_of
from thalweg.rule import Rule
from thalweg.statefile import State, apart


def read(source: Source) -> Run:
    """Read a state, or an optimizer.

    Raises:
        TypeError: it is neither.
        ValueError: a schedule is not given, or another rule than the state's is.
    """
    state, rule = source.state, source.rule
    if isinstance(state, Optimizer):
        state, rule = state.state(), rule or state.rule
    if not isinstance(state, State):
        raise TypeError(f"a state of thalweg.numpy is a State or an Optimizer, got {type(state).__name__}")
    asked = find(rule) if isinstance(rule, str) else type(apart(rule)[1]) if rule else None
    if asked and name_of(asked) != state.rule:
        raise ValueError(f'rule="{name_of(asked)}", but the state says {state.rule}')
    given = {**(rule.values if isinstance(rule, Rule) else {}), **source.values}
    own = state.rebuilt(**{k: v for k, v in given.items() if state.hyperparameters.get(k, 0) is None})
    slots = {slot: {name: a.copy() for name, a in arrays.items()} for slot, arrays in state.slots.items()}
    names = list(dict.fromkeys(name for arrays in slots.values() for name in arrays))
    run = Run("numpy")
    run.add(Part(own, source.steps(run, "", state.t, True), names, slots, dict(state.scalars)))
    return run


def write(run: Run, target: Target) -> Converted:
    """The run as a `State`.

    Raises:
        Refused: its parameters do not share one rule and one step number.
    """
    part = merged(run, target)
    slots = {slot: arrays for slot, arrays in part.slots.items() if slot in trace(part.rule).slots}
    state = State.of(part.rule, part.t, scalar_slots(part) if part.t else {}, slots)

    def make(_: Any) -> Optimizer:
        optimizer = Optimizer(part.rule)
        optimizer.load(state)
        return optimizer

    settings = {"rule": part.rule}
    return Converted("thalweg.numpy.Optimizer", settings, state, part.rule, tuple(run.names), part.t, make)
