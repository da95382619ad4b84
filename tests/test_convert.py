"""Optimizer state between the seven kinds of optimizers: the next steps are the same."""

from functools import cache
from typing import Any

import jax
import keras
import numpy as np
import pytest

import thalweg
import thalweg.jax
import thalweg.keras
import thalweg.numpy
import thalweg.torch
from convert_cases import (
    AFTER,
    BEFORE,
    KERAS_WARNS,
    RULES,
    SIDES,
    Params,
    all_in_float64,  # noqa: F401
    gradients,
    maker,
    moved_to,
    pairs,
    rule_in,
    start,
    told,
)
from helpers import largest_difference
from thalweg import convert

pytestmark = KERAS_WARNS
THALWEG = ["thalweg.torch", "thalweg.keras", "thalweg.jax", "thalweg.numpy"]


@cache
def trained(source: str, name: str) -> tuple[Params, dict[str, Any], Params]:
    """Where a run is after BEFORE steps, its state then for each target, and where AFTER steps lead it."""
    side = SIDES[source](maker(source, name), start())
    here = side.run(gradients(BEFORE))
    moved: dict[str, Any] = {}
    for target in convert.FRAMEWORKS:
        try:
            moved[target] = convert.state(
                side.state, source=source, target=target, target_params=here, **told(source, name)
            )
        except convert.Refused as refusal:
            moved[target] = refusal
    return here, moved, side.run(gradients(AFTER, seed=2))


@pytest.mark.pairwise
@pytest.mark.parametrize(
    ("source", "name", "target"),
    [(source, name, target) for source in convert.FRAMEWORKS for name, target in pairs(source)],
)
def test_the_next_steps_are_the_same(source: str, name: str, target: str) -> None:
    here, moved, wanted = trained(source, name)
    if isinstance(moved[target], Exception):
        raise moved[target]
    found = moved_to(target, moved[target], here).run(gradients(AFTER, seed=2))
    assert same_steps(found, wanted, here)


def same_steps(found: Params, wanted: Params, here: Params) -> bool:
    moves = [wanted[k] - here[k] for k in here]
    return largest_difference([found[k] - here[k] for k in here], moves) <= 1e-10


# -- there and back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["torch", "keras", "optax"])
@pytest.mark.parametrize("name", RULES)
def test_there_and_back_all_is_as_it_was(name: str, source: str) -> None:
    if maker(source, name) is None:
        pytest.skip(f"{source} has no {name}")
    here, moved, _ = trained(source, name)
    wanted = moved[source]
    for way in {way for n, way in pairs(source) if n == name} - {source}:
        there = moved[way]
        given = there.optimizer(variables(here)) if "keras" in way else there.state
        asked = {} if way in ("torch", "keras", "thalweg.keras") else {"rule": there.rule}
        if any(loss.endswith("keeps none") for loss in there.lost):
            asked["step"] = steps_in(moved[way])
        back = convert.state(given, source=way, target=source, target_params=here, **asked)
        assert back.kind == wanted.kind
        if source != "torch":  # whose state holds them
            ambiguous = {"eps_in_sqrt": 0}  # where ε is 0
            assert {**back.settings, **ambiguous} == pytest.approx(
                {**wanted.settings, **ambiguous}, rel=1e-15
            )
        for a, b in zip(leaves(back.state), leaves(wanted.state), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-15, atol=0, err_msg=way)


def steps_in(moved: Any) -> int:
    """What a conversion has taken the number of steps to be."""
    return 1 if any("step=" in loss for loss in moved.lost) else BEFORE


def variables(params: Params) -> list[keras.Variable]:
    return [keras.Variable(p, dtype=p.dtype.name, name=name) for name, p in params.items()]


def leaves(state: Any) -> list[Any]:
    return [
        np.asarray(x) if hasattr(x, "shape") else x for x in jax.tree.leaves(state) if not isinstance(x, str)
    ]


@pytest.mark.parametrize("way", THALWEG)
@pytest.mark.parametrize("name", RULES)
def test_through_thalweg_nothing_changes_at_all(name: str, way: str) -> None:
    optimizer = thalweg.numpy.Optimizer(thalweg.chain(thalweg.ClipByGlobalNorm(0.5), rule_in("paper", name)))
    params = start()
    for grads in gradients(3):
        optimizer.update(params, grads)
    state = optimizer.state()
    there = convert.state(state, source="thalweg.numpy", target=way, target_params=params)
    given = there.optimizer(variables(params)) if "keras" in way else there.state
    asked = {} if way == "thalweg.keras" else {"rule": there.rule}
    back = convert.state(given, source=way, target="thalweg.numpy", target_params=params, **asked).state
    assert (back.rule, back.t, back.hyperparameters) == (state.rule, 3, state.hyperparameters)
    assert (back.flags, back.treatments, back.scalars) == (state.flags, state.treatments, state.scalars)
    for slot, arrays in state.slots.items():
        for key, a in arrays.items():
            np.testing.assert_array_equal(back.slots[slot][key], a)
