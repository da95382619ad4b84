"""The JAX front end: Optax's arithmetic, names and habits, under every transformation of JAX."""

import inspect
import math
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from hypothesis import given

import thalweg
import thalweg.jax
import thalweg.numpy
from helpers import difference, output, python
from thalweg import schedules
from thalweg.dialects import DIALECTS
from thalweg.eager import descend
from thalweg.jax import State, optimizer, with_hyperparameters
from thalweg.jax.base import _step_of
from thalweg.registry import find

STEPS = 200

NAMES = [name for name in thalweg.jax.__all__ if name[0].islower()]
NAMES = [name for name in NAMES if name not in ("get", "optimizer", "with_hyperparameters")]
# Settings of Optax's optimizers that make another form.
FORMS_OF_OPTAX: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in NAMES},
    "sgd-momentum": ("sgd", {"momentum": 0.9}),
    "sgd-nesterov": ("sgd", {"momentum": 0.9, "nesterov": True}),
    "rmsprop-momentum": ("rmsprop", {"momentum": 0.7}),
    "rmsprop-nesterov": ("rmsprop", {"momentum": 0.7, "nesterov": True}),
    "rmsprop-centered": ("rmsprop", {"centered": True, "momentum": 0.5, "initial_scale": 2.0}),
    "rmsprop-outside": ("rmsprop", {"eps_in_sqrt": False}),
    "adadelta-decay": ("adadelta", {"weight_decay": 0.01}),
    "adam-nesterov": ("adam", {"nesterov": True}),
    "nadam-plain": ("nadam", {"nesterov": False}),
    "adamw-nesterov": ("adamw", {"nesterov": True}),
    "nadamw-plain": ("nadamw", {"nesterov": False}),
}
_DRAWS: dict[str, Callable[[random.Random], Any]] = {
    "learning_rate": lambda r: 10 ** r.uniform(-4, -1),
    "b1": lambda r: r.uniform(0.5, 0.95),
    "b2": lambda r: r.uniform(0.9, 0.9999),
    "b3": lambda r: r.uniform(0.9, 0.9999),
    "eps": lambda r: 10 ** r.uniform(-10, -4),
    "decay": lambda r: r.uniform(0.5, 0.999),
    "rho": lambda r: r.uniform(0.5, 0.99),
    "initial_accumulator_value": lambda r: r.uniform(0.0, 1.0),
    "weight_decay": lambda r: 10 ** r.uniform(-3, -1),
}


def both(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Ours and Optax's function of that name."""
    return getattr(thalweg.jax, name), getattr(optax, name)


def draw(form: str, seed: int) -> dict[str, Any]:
    """Random settings for one of FORMS_OF_OPTAX."""
    name, fixed = FORMS_OF_OPTAX[form]
    generator = random.Random(f"{form} {seed}")
    taken = inspect.signature(getattr(optax, name)).parameters
    drawn = {k: make(generator) for k, make in _DRAWS.items() if k in taken}
    if name == "adan":  # it has two
        drawn["eps_root"] = 10 ** generator.uniform(-10, -4)
    if name == "adabelief":
        drawn["eps_root"] = drawn["eps"]
    return {k: v for k, v in drawn.items() if k not in fixed}


@pytest.fixture
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


SHAPES = {"w": (3, 2), "inner": [(4,), None, ((), (0, 2))]}
PAIR = {"w": (3, 2), "b": [()]}


def tree(dtype: Any = jnp.float32, shapes: Any = SHAPES) -> Any:
    """Parameters in a tree of every kind: dictionary, tuple, list, None, a scalar, an empty array."""
    generator = np.random.default_rng(0)

    def is_shape(x: Any) -> bool:
        return isinstance(x, tuple) and all(isinstance(n, int) for n in x)

    return jax.tree.map(lambda s: jnp.asarray(generator.standard_normal(s), dtype), shapes, is_leaf=is_shape)


def pair(dtype: Any = jnp.float32) -> Any:
    """Parameters in a small tree, which compiles quickly."""
    return tree(dtype, PAIR)


def random_like(params: Any, seed: int) -> Any:
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(generator.standard_normal(p.shape), p.dtype), params)


def stacked(params: Any, steps: int) -> Any:
    """Gradients for every step along a first axis; they do not depend on where the parameters are."""
    generator = np.random.default_rng(7)
    return jax.tree.map(lambda p: jnp.asarray(generator.standard_normal((steps, *p.shape)), p.dtype), params)


def go_on(transformation: Any, params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
    """Parameters and state after a scan over the gradients."""

    def step(carry: Any, g: Any) -> tuple[Any, None]:
        params, state = carry
        updates, state = transformation.update(g, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), grads)[0]  # type: ignore[no-any-return]


def follow(transformation: Any, params: Any, grads: Any) -> tuple[Any, Any]:
    """Parameters and state after a scan over the gradients from the first step on, under jit."""
    whole = jax.jit(lambda params, grads: go_on(transformation, params, transformation.init(params), grads))
    return whole(params, grads)  # type: ignore[no-any-return]


def apart(found: Any, wanted: Any, start: Any = None) -> float:
    """The largest relative difference of two trees or, with `start`, of the ways gone from there."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    pairs = zip(*map(jax.tree.leaves, (found, wanted, found if start is None else start)), strict=True)
    plain = [[np.asarray(x, np.float64) for x in pair] for pair in pairs]
    return max(difference(a, b) if start is None else difference(a - s, b - s) for a, b, s in plain)


def same(found: Any, wanted: Any) -> bool:
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    leaves = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in leaves)


# Equality


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", FORMS_OF_OPTAX)
def test_equals_optax(form: str) -> None:
    name, flags = FORMS_OF_OPTAX[form]
    params = pair(jnp.float64)
    grads = stacked(params, STEPS)
    ours, theirs = both(name)
    # Each is compiled once for all draws: ours has its settings in the state, Optax takes traced arrays.
    made = ours(**draw(form, 0), **flags)
    run = jax.jit(lambda state: go_on(made, params, state, grads)[0])
    wanted = jax.jit(lambda drawn: follow(theirs(**drawn, **flags), params, grads)[0])
    for seed in range(3):
        drawn = draw(form, seed)
        found = run(ours(**drawn, **flags).init(params))
        assert apart(found, wanted(drawn), params) <= 1e-10
    assert run._cache_size() == 1


@pytest.mark.parametrize("form", FORMS_OF_OPTAX)
def test_is_as_precise_as_optax_in_float32(form: str) -> None:
    name, flags = FORMS_OF_OPTAX[form]
    params = pair()
    grads = stacked(params, 50)
    found, theirs = (follow(make(0.01, **flags), params, grads)[0] for make in both(name))
    with jax.enable_x64(True):
        doubled = [jax.tree.map(lambda x: x.astype(jnp.float64), t) for t in (params, grads)]
        wanted, _ = follow(both(name)[1](0.01, **flags), *doubled)
    assert apart(found, wanted, params) <= 2 * apart(theirs, wanted, params) + 1e-6


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dialect", [d for d in DIALECTS if d != "optax"])
@pytest.mark.parametrize(
    ("function", "settings", "name", "values"),
    [
        ("sgd", {"momentum": 0.8}, "momentum", {"momentum": 0.8}),
        ("rmsprop", {"momentum": 0.8}, "rmsprop", {"momentum": 0.8}),
        ("adagrad", {}, "adagrad", {}),
        ("adamw", {}, "adamw", {}),
        ("adamax", {}, "adamax", {}),
        ("nadam", {"eps": 1e-4}, "nadam", {"epsilon": 1e-4}),
    ],
)
def test_another_dialect_decides_on_all_that_is_not_given(
    function: str, settings: dict[str, Any], name: str, values: dict[str, Any], dialect: str
) -> None:
    p, *grads = np.random.default_rng(3).standard_normal((21, 6)) * 1e-4
    made = getattr(thalweg.jax, function)(0.1, **settings, dialect=dialect)
    found, _ = follow(made, jnp.asarray(p), jnp.asarray(np.stack(grads)))
    wanted = descend(thalweg.get(name, dialect=dialect, lr=0.1, **values), p, grads)
    assert difference(found - p, wanted - p) <= 1e-10


def test_adadelta_without_a_learning_rate_descends_at_rate_one() -> None:
    params, grads = pair(), stacked(pair(), 10)
    assert same(
        follow(thalweg.jax.adadelta(), params, grads), follow(thalweg.jax.adadelta(1.0), params, grads)
    )


# Optax's catalogue of problems


def parabola(p: Any) -> Any:
    return jnp.sum((p - jnp.array([1.0, -1.0, 1.0])) ** 2)


def rosenbrock(p: Any) -> Any:
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


# Rates at which Optax's own tests reach the minimum within 10 000 steps, and a few of their kind.
RATES = {
    "sgd": 1e-3,
    "momentum": 1e-3,
    "nesterov": 1e-3,
    "adagrad": 1.0,
    "adadelta": 0.1,
    "rmsprop": 5e-3,
    "adam": 0.1,
    "adamw": 0.1,
    "amsgrad": 0.1,
    "adamax": 0.1,
    "nadam": 1e-2,
    "radam": 5e-3,
    "adabelief": 1e-2,
    "adan": 0.1,
    "lion": 1e-2,
}


@pytest.mark.parametrize(
    ("loss", "start", "end"),
    [(parabola, [-1.0, 10.0, 1.0], [1.0, -1.0, 1.0]), (rosenbrock, [0.0, 0.0], [1.0, 1.0])],
    ids=["parabola", "rosenbrock"],
)
@pytest.mark.parametrize("name", thalweg.rules())
def test_every_rule_finds_the_minimum(name: str, loss: Any, start: list[float], end: list[float]) -> None:
    values = {"weight_decay": 1e-4} if name == "lion" else {}
    made = thalweg.jax.get(name, lr=RATES[name], **values)

    @jax.jit
    def whole(p: Any) -> Any:
        def step(_: Any, carry: Any) -> Any:
            p, state = carry
            updates, state = made.update(jax.grad(loss)(p), state, p)
            return p + updates, state

        return jax.lax.fori_loop(0, 10_000, step, (p, made.init(p)))[0]

    far = 0.1 if (name, loss) == ("sgd", rosenbrock) else 0.03
    np.testing.assert_allclose(whole(jnp.array(start)), end, rtol=far, atol=far)


# Optax's names


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_optaxs(name: str) -> None:
    ours, theirs = (inspect.signature(f).parameters for f in both(name))
    *own, dialect = ours.values()
    assert [(p.name, p.kind) for p in own] == [(p.name, p.kind) for p in theirs.values()]
    assert (dialect.name, dialect.kind, dialect.default) == ("dialect", dialect.KEYWORD_ONLY, "optax")
    other = {p.name for p in own if p.default != theirs[p.name].default}
    only = {"adabelief": {"eps", "eps_root"}, "radam": {"eps_root", "threshold"}}
    assert other == only.get(name, {"eps_root"} & {*ours} - ({"eps_root"} if name == "adan" else set()))
    assert all(ours[p].default is None for p in other)
    assert inspect.signature(both(name)[0]).return_annotation is thalweg.jax.GradientTransformation


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_the_dialects(name: str) -> None:
    ours, theirs = both(name)
    defaults = {
        p.name: p.default for p in inspect.signature(theirs).parameters.values() if p.default is not p.empty
    }
    params = tree()
    assert same(
        ours(0.1).init(params),
        ours(**defaults | {"learning_rate": 0.1}).init(params),
    )


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("adam", {"eps_root": 1e-8}, r"adam: eps_root is always 0\.0 here, got 1e-08"),
        ("adam", {"eps_root": jnp.zeros(())}, "eps_root is always"),
        ("nadam", {"eps_root": 1e-8}, "nadam: eps_root"),
        ("adamw", {"eps_root": 1e-8}, "adamw: eps_root"),
        ("nadamw", {"eps_root": 1e-8}, "nadamw: eps_root"),
        ("amsgrad", {"eps_root": 1e-8}, "amsgrad: eps_root"),
        ("amsgrad", {"bias_correction_mu": False}, "bias_correction_mu is always True"),
        ("amsgrad", {"bias_correction_nu": False}, "bias_correction_nu is always True"),
        ("radam", {"eps_root": 1e-8}, "radam: eps_root"),
        ("radam", {"threshold": 4.0}, r"threshold is always 5\.0"),
        ("radam", {"nesterov": True}, "nesterov is always False"),
        ("rmsprop", {"bias_correction": True}, "bias_correction is always False"),
        ("adabelief", {"eps": 1e-8}, "eps"),
        ("adabelief", {"eps_root": 1e-8}, "eps"),
        ("adabelief", {"nesterov": True}, "nesterov is always False"),
        ("adam", {"b1": 1.5}, r"beta_1 must lie in \[0, 1\)"),
        ("adam", {"dialect": "kears"}, "did you mean 'keras'"),
        ("adamw", {"weight_decay": -1.0}, "weight_decay must lie"),
    ],
)
def test_what_cannot_be_done_is_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(thalweg.jax, name)(0.1, **settings)


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="beta1"):
        thalweg.jax.adam(0.1, beta1=0.9)  # type: ignore[call-arg]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, "function") for name in ("adamw", "nadamw", "adamaxw", "adan", "lion", "adadelta")),
        *(("adamw", how) for how in ("tree", "prefix")),
    ],
)
def test_a_mask_says_what_decays(name: str, how: str) -> None:
    params = tree(jnp.float64)
    masks: dict[str, Any] = {
        "tree": {"w": True, "inner": [False, None, (True, False)]},
        "prefix": {"w": True, "inner": False},
        "function": lambda t: jax.tree.map(lambda x: x.ndim > 1, t),
    }
    mask = "weight_decay_mask" if name == "adadelta" else "mask"
    settings = {"learning_rate": 0.1, "weight_decay": 0.3, mask: masks[how]}
    grads = stacked(params, 3)
    found, wanted = (follow(make(**settings), params, grads)[0] for make in both(name))
    assert apart(found, wanted, params) <= 1e-10
    plain, _ = follow(both(name)[0](learning_rate=0.1, weight_decay=0.3), params, grads)
    assert apart(found["inner"][0], plain["inner"][0]) > 1e-4
    assert same(found["w"], plain["w"])


@pytest.mark.parametrize(
    ("name", "settings", "slot"),
    [
        ("sgd", {"momentum": 0.9, "accumulator_dtype": "bfloat16"}, "trace"),
        *(
            (name, {"mu_dtype": jnp.bfloat16}, "mu")
            for name in ("adam", "nadam", "adamw", "nadamw", "amsgrad", "lion")
        ),
    ],
)
def test_the_first_moment_may_have_a_dtype_of_its_own(name: str, settings: dict[str, Any], slot: str) -> None:
    params = tree()
    ours, theirs = (make(0.1, **settings) for make in both(name))
    grads = stacked(params, 5)
    (found, state), (wanted, _) = follow(ours, params, grads), follow(theirs, params, grads)
    assert {x.dtype.name for x in jax.tree.leaves(optax.tree.get(state, slot))} == {"bfloat16"}
    others = {k: v for k, v in state.slots.items() if k != slot}
    assert {x.dtype.name for x in jax.tree.leaves(others)} <= {"float32"}
    assert apart(found, wanted, params) <= 0.02


# Any rule


def test_get_makes_any_rule_by_its_own_name() -> None:
    params, grads = pair(), stacked(pair(), 5)
    found = follow(thalweg.jax.get("heavy_ball", learning_rate=0.1, momentum=0.8), params, grads)
    assert apart(found[0], follow(optax.sgd(0.1, 0.8), params, grads)[0]) <= 1e-6
    nadam = thalweg.jax.get("nadam", dialect="keras").init(params)
    assert nadam.hyperparameters["psi"] == 1.0
    with pytest.raises(thalweg.UnknownRuleError, match="did you mean 'adam'"):
        thalweg.jax.get("adm")


@pytest.mark.usefixtures("names")
def test_a_rule_of_the_users_own() -> None:
    @thalweg.register
    class Shrinking(thalweg.Rule):
        lr: thalweg.Scalar = 0.1

        def update(self, t: Any, g: Any, norm: Any, last: Any = 0) -> Any:
            return self.lr * (g / (1 + norm) + last), norm

    made = thalweg.jax.get("shrinking", lr=0.5)
    g = jnp.array([3.0, 4.0])
    state = made.init(g)
    updates, state = jax.jit(made.update)(g, state)
    np.testing.assert_allclose(updates, -0.5 * g / 6, rtol=1e-6)
    assert state.slots["last"].tolist() == [5.0, 5.0]
    updates, state = jax.jit(made.update)(g, state)
    np.testing.assert_allclose(updates, -0.5 * (g / 6 + 5), rtol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "rule",
    [
        thalweg.chain(thalweg.ClipByNorm(0.7), thalweg.Nadam(0.1)),
        thalweg.chain(thalweg.ClipByGlobalNorm(0.7), thalweg.Adam(schedules.Cosine(0.1, 8))),
        thalweg.chain(thalweg.ClipByValue(0.3), thalweg.L2(0.1), thalweg.Momentum(0.1)),
        thalweg.chain(thalweg.Maximize(), thalweg.DecoupledDecay(0.1), thalweg.RMSprop(0.1)),
    ],
    ids=lambda rule: type(rule.treatments[0]).__name__,
)
def test_treatments(rule: Any) -> None:
    params = tree(jnp.float64)
    grads = stacked(params, 12)
    found, _ = follow(optimizer(rule), params, grads)
    arrays = [np.array(p) for p in jax.tree.leaves(params)]
    reference = thalweg.numpy.Optimizer(rule)
    for k in range(12):
        reference.update(arrays, [np.array(g[k]) for g in jax.tree.leaves(grads)])
    assert apart(jax.tree.leaves(found), [jnp.asarray(a) for a in arrays]) <= 1e-12


def test_large_gradients_are_finite() -> None:
    made = optimizer(thalweg.chain(thalweg.SkipNonFinite(), thalweg.SGD(1.0)))
    g = jnp.array([3e38, 1.0])  # its squared norm overflows
    assert same(made.update(g, made.init(g))[0], -g)


# State


def test_the_state() -> None:
    params = tree()
    made = thalweg.jax.get("nadam", dialect="keras", lr=0.1)
    state = made.init(params)
    assert isinstance(state, State)
    assert state.count.dtype == jnp.int32
    assert int(state.count) == 0
    assert {k: float(v) for k, v in state.hyperparameters.items()} == pytest.approx(
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.999, "eps": 1e-7, "psi": 1.0}
    )
    assert {v.dtype.name for v in state.hyperparameters.values()} == {"float32"}
    assert {*state.slots} == {"mu", "nu"}
    assert jax.tree.structure(state.slots["mu"]) == jax.tree.structure(params)
    assert {*state.scalars} == {"mu_product"}
    _, state = made.update(params, state)
    _, state = made.update(params, state)
    assert int(state.count) == 2
    mus = [0.9 * (1 - 0.5 * 0.96**t) for t in (1, 2)]
    assert float(state.scalars["mu_product"]) == pytest.approx(mus[0] * mus[1], rel=1e-6)


def test_the_count_stops_at_its_largest() -> None:
    made = thalweg.jax.adam(0.1)
    state = made.init(jnp.ones(2))._replace(count=jnp.asarray(2**31 - 2, jnp.int32))
    for _ in range(3):
        updates, state = made.update(jnp.ones(2), state)
        assert int(state.count) == 2**31 - 1
        assert np.isfinite(updates).all()


def test_initial_accumulators_start_where_they_should() -> None:
    params = tree()
    state = thalweg.jax.adagrad(0.1, initial_accumulator_value=0.25).init(params)
    assert all((x == 0.25).all() for x in jax.tree.leaves(state.slots["sum_of_squares"]))
    state = thalweg.jax.rmsprop(0.1, initial_scale=jnp.asarray(2.0)).init(params)
    assert all((x == 2.0).all() for x in jax.tree.leaves(state.slots["nu"]))
    assert "initial_scale" not in state.hyperparameters


def test_a_state_goes_through_numpy_and_on() -> None:
    params = tree()
    grads = stacked(params, 6)
    halves = [jax.tree.map(lambda g, s=s: g[s], grads) for s in (slice(0, 3), slice(3, 6))]
    made = thalweg.jax.get("nadam", dialect="keras")
    wanted = follow(made, params, grads)
    middle = jax.tree.map(np.asarray, follow(made, params, halves[0]))
    p, state = jax.tree.map(jnp.asarray, middle)
    for k in range(3):
        updates, state = jax.jit(made.update)(jax.tree.map(lambda g, k=k: g[k], halves[1]), state, p)
        p = optax.apply_updates(p, updates)
    assert apart((p, state), wanted) <= 1e-6
    # Also where nothing is compiled, straight from NumPy.
    eagerly, _ = made.update(jax.tree.map(lambda g: np.asarray(g[0]), halves[1]), middle[1], middle[0])
    compiled, _ = jax.jit(made.update)(jax.tree.map(lambda g: g[0], halves[1]), *middle[::-1])
    assert apart(eagerly, compiled) <= 1e-6


@pytest.mark.parametrize("state", [optax.adam(0.1).init(jnp.ones(2)), None])
def test_a_state_of_something_else_is_refused(state: Any) -> None:
    with pytest.raises(ValueError, match=r"adam in this form has b1, b2, eps, learning_rate, mu, nu; got"):
        thalweg.jax.adam(0.1).update(jnp.ones(2), state)


@pytest.mark.parametrize(
    "other",
    [
        thalweg.jax.sgd(0.1),
        thalweg.jax.adam(lambda count: 0.1),
        thalweg.jax.get("rmsprop"),
        thalweg.jax.amsgrad(0.1),
    ],
)
def test_a_state_of_another_rule_or_form_is_refused(other: Any) -> None:
    with pytest.raises(ValueError, match="a state is for the optimizer that made it: adam"):
        thalweg.jax.adam(0.1).update(jnp.ones(2), other.init(jnp.ones(2)))


# Hyperparameters at run time


def test_a_hyperparameter_changes_without_recompilation() -> None:
    made = thalweg.jax.adam(0.1)
    update = jax.jit(made.update)
    params = tree()
    state = made.init(params)
    first, after = update(params, state)
    again, _ = update(params, with_hyperparameters(after, lr=0.1))
    third, _ = update(params, with_hyperparameters(state, lr=0.3))
    assert update._cache_size() == 1
    assert apart(third, jax.tree.map(lambda x: 3 * x, first)) <= 1e-6
    for name, value in (("beta_1", 0.5), ("beta_2", 0.5), ("epsilon", 0.1)):
        other, _ = update(params, with_hyperparameters(after, **{name: value}))
        assert apart(other, again) > 1e-3
    assert update._cache_size() == 1


def test_a_number_put_into_the_state_by_hand_is_kept() -> None:
    made = thalweg.jax.sgd(0.1)
    update = jax.jit(made.update)
    state = made.init(jnp.ones(2))
    state.hyperparameters["learning_rate"] = 0.5
    updates, state = update(jnp.ones(2), state)
    assert same(updates, jnp.full(2, -0.5))
    assert not state.hyperparameters["learning_rate"].weak_type
    update(jnp.ones(2), state)
    update(jnp.ones(2), made.init(jnp.ones(2)))
    assert update._cache_size() == 2  # a Python number is another type to JAX, once


def test_with_hyperparameters_reaches_into_chains() -> None:
    made = optax.chain(optax.clip(1.0), optax.masked(thalweg.jax.adam(0.1), {"a": True, "b": False}))
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    state = with_hyperparameters(made.init(params), lr=0.5)
    updates, _ = made.update(params, state, params)
    np.testing.assert_allclose(updates["a"], -0.5, rtol=1e-5)
    assert jax.tree.structure(state) == jax.tree.structure(made.init(params))


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"beta1": 0.5}, thalweg.UnknownHyperparameterError, "did you mean 'beta_1'"),
        ({"lr": -1.0}, ValueError, r"lr must lie in \[0, ∞\), got -1\.0"),
        ({"lr": math.nan}, ValueError, "lr must lie in"),
        ({"beta_2": jnp.asarray(1.0)}, ValueError, r"beta_2 must lie in \[0, 1\), got 1\.0"),
        ({"lr": True}, TypeError, "lr is a number, got True"),
        ({"lr": jnp.array(True)}, TypeError, "lr is a number, got"),
        ({"lr": jnp.ones(3)}, ValueError, r"lr has shape \(3,\) where the state has \(\); .* jax\.vmap"),
    ],
)
def test_with_hyperparameters_refuses(values: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        with_hyperparameters(thalweg.jax.adam(0.1).init(jnp.ones(2)), **values)


def test_with_hyperparameters_knows_the_rules_own_ranges() -> None:
    class Bounded(thalweg.Rule):
        lr: thalweg.Scalar = 0.1
        gamma: thalweg.Scalar = thalweg.hyper(0.5, symbol="c", meaning="a share", low=0, high=1)

        def update(self, g: Any, m: Any = 0) -> Any:
            m = self.gamma * m + g
            return self.lr * m, m

    class Steep(thalweg.Rule):
        lr: thalweg.Scalar = thalweg.hyper(0.1, high=0.5)

        def update(self, g: Any, steep: Any = 0) -> Any:
            return self.lr * g, steep + g

    state = optimizer(Bounded()).init(jnp.ones(2))
    assert with_hyperparameters(state, gamma=1.0).hyperparameters["gamma"] == 1.0
    with pytest.raises(ValueError, match=r"gamma must lie in \[0, 1\], got 1\.5"):
        with_hyperparameters(state, gamma=1.5)
    steep = optimizer(Steep()).init(jnp.ones(2))
    assert with_hyperparameters((state,), lr=0.6)[0].hyperparameters["learning_rate"] == jnp.float32(0.6)
    with pytest.raises(ValueError, match=r"lr must lie in \[0, 0\.5\), got 0\.6"):
        with_hyperparameters((state, steep), lr=0.6)


def test_a_schedule_is_not_in_the_state() -> None:
    state = thalweg.jax.adam(optax.constant_schedule(0.1)).init(jnp.ones(2))
    with pytest.raises(
        thalweg.UnknownHyperparameterError,
        match="no hyperparameter 'lr'; known: b1, b2, beta_1",
    ):
        with_hyperparameters(state, lr=0.1)


RATES_OF_FIVE = jnp.array([1e-3, 3e-3, 0.01, 0.03, 0.1])


@pytest.mark.parametrize("name", ["adam", "nadam"])
def test_vmap_over_learning_rates_equals_separate_runs(name: str) -> None:
    params = pair()
    grads = stacked(params, 10)
    made = thalweg.jax.get(name)

    states = jax.vmap(lambda lr: with_hyperparameters(made.init(params), lr=lr))(RATES_OF_FIVE)
    found, after = jax.jit(jax.vmap(lambda state: go_on(made, params, state, grads)))(states)
    np.testing.assert_array_equal(after.hyperparameters["learning_rate"], RATES_OF_FIVE)
    for k, lr in enumerate(RATES_OF_FIVE.tolist()):
        wanted, _ = follow(thalweg.jax.get(name, lr=lr), params, grads)
        assert apart(jax.tree.map(lambda x, k=k: x[k], found), wanted) <= 1e-5
    # A number is for all, an array with one for each.
    assert with_hyperparameters(after, lr=0.5).hyperparameters["learning_rate"].tolist() == [0.5] * 5
    assert same(with_hyperparameters(after, lr=RATES_OF_FIVE).hyperparameters["learning_rate"], RATES_OF_FIVE)


def test_an_array_given_to_the_optimizer_stays_outside() -> None:
    params = jnp.array([1.0, -2.0])

    def after_three_steps(lr: Any, b1: Any) -> Any:
        made = thalweg.jax.adam(lr, b1=b1)
        p, state = params, made.init(params)
        assert {*state.hyperparameters} == {"b2", "eps"}
        for _ in range(3):
            updates, state = made.update(2 * p, state, p)
            p = p + updates
        return jnp.sum(p**2)

    lr, b1, small = 0.1, 0.8, 1e-2
    found = jax.grad(after_three_steps, (0, 1))(lr, b1)
    for slope, shift in zip(found, ((small, 0), (0, small)), strict=True):
        ahead, behind = (
            after_three_steps(jnp.float32(lr + s * shift[0]), jnp.float32(b1 + s * shift[1])) for s in (1, -1)
        )
        assert float(slope) == pytest.approx(float(ahead - behind) / (2 * small), rel=1e-2)


def test_get_takes_an_array_too() -> None:
    def step(lr: Any) -> Any:
        made = thalweg.jax.get("momentum", lr=lr, momentum=0.9)
        assert {*made.init(jnp.ones(2)).hyperparameters} == {"momentum", "dampening"}
        return made.update(jnp.ones(2), made.init(jnp.ones(2)))[0].sum()

    assert float(jax.grad(step)(0.1)) == -2.0


def test_the_state_can_be_differentiated_by() -> None:
    made = thalweg.jax.sgd(0.1)
    state = made.init(jnp.ones(2))
    slope = jax.grad(lambda lr: made.update(jnp.ones(2), with_hyperparameters(state, lr=lr))[0].sum())(0.1)
    assert float(slope) == -2.0


# Schedules


def test_optaxs_names_take_optaxs_schedules() -> None:
    params, grads = tree(), stacked(tree(), 8)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, 3, 8)
    decay = optax.linear_schedule(0.1, 0.3, 4)
    for name, settings in (
        ("sgd", {}),
        ("adam", {}),
        ("adamw", {"weight_decay": decay}),
        ("nadamw", {"weight_decay": decay}),
    ):
        found, wanted = (follow(make(schedule, **settings), params, grads)[0] for make in both(name))
        assert apart(found, wanted, params) <= 1e-5


@pytest.mark.parametrize(
    "make",
    [
        thalweg.jax.sgd,
        lambda lr: thalweg.jax.get("sgd", lr=lr),
        lambda lr: optimizer(thalweg.SGD(lr)),
        lambda lr: optimizer(thalweg.chain(thalweg.L2(0.0), thalweg.SGD(lr))),
    ],
)
def test_thalwegs_schedules_count_from_one_everywhere(make: Any) -> None:
    made = make(schedules.WarmUp(4, 0.8))
    p = jnp.zeros(1)
    state = made.init(p)
    found = []
    for _ in range(5):
        updates, state = made.update(jnp.ones(1), state, p)
        found.append(-float(updates[0]))
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])


def test_a_schedule_sees_whole_numbers() -> None:
    table, seen = jnp.array([0.0, 3.0, 5.0]), []

    def schedule(t: Any) -> Any:
        seen.append(t.dtype)
        return table[t]

    for make, wanted in ((thalweg.jax.sgd, [0.0, 3.0]), (lambda f: thalweg.jax.get("sgd", lr=f), [3.0, 5.0])):
        made = make(schedule)
        state = made.init(jnp.ones(1))
        found = []
        for _ in range(2):
            updates, state = jax.jit(made.update)(jnp.ones(1), state)
            found.append(-float(updates[0]))
        assert found == wanted
    assert {d.name for d in seen} == {"int32"}


@pytest.mark.usefixtures("x64")
def test_schedules_are_as_precise_as_the_parameters() -> None:
    rule = thalweg.Adam(
        lr=schedules.WarmUp(3, schedules.Cosine(0.1, 17, 0.01)), beta_1=schedules.Polynomial(0.9, 7, 0.5)
    )
    p, *grads = np.random.default_rng(3).standard_normal((21, 6))
    found, _ = follow(optimizer(rule), jnp.asarray(p), jnp.asarray(np.stack(grads)))
    assert difference(found, descend(rule, p, grads)) <= 1e-12


# Composition with Optax


@pytest.mark.parametrize("name", NAMES)
def test_inject_hyperparams(name: str) -> None:
    params = pair()
    ours, theirs = (optax.inject_hyperparams(make)(learning_rate=0.1) for make in both(name))
    states = [made.init(params) for made in (ours, theirs)]
    updates = [jax.jit(made.update) for made in (ours, theirs)]
    for lr in (0.1, 0.3, 0.05):
        for state in states:
            state.hyperparams["learning_rate"] = jnp.asarray(lr, jnp.float32)
        stepped = [u(params, s, params) for u, s in zip(updates, states, strict=True)]
        states = [state for _, state in stepped]
        assert apart(stepped[0][0], stepped[1][0]) <= 1e-5
    assert {u._cache_size() for u in updates} == {1}
    missing = {*states[1].hyperparams} - {*states[0].hyperparams}
    assert missing <= {"eps_root", "threshold", "eps"}


def test_inject_hyperparams_with_a_schedule() -> None:
    params = pair()
    schedule = optax.linear_schedule(0.1, 0.3, 3)
    made = [optax.inject_hyperparams(make)(schedule) for make in (thalweg.jax.adam, optax.adam)]
    assert apart(*(follow(m, params, stacked(params, 5))[0] for m in made)) <= 1e-5


def test_inject_hyperparams_in_another_dialect() -> None:
    params = tree()
    with pytest.raises(TypeError, match=r"adam: in another dialect than Optax's, b1 is a number"):
        optax.inject_hyperparams(thalweg.jax.adam)(0.1, dialect="keras").init(params)
    made = optax.inject_hyperparams(lambda learning_rate: thalweg.jax.adam(learning_rate, dialect="keras"))(
        0.1
    )
    wanted = thalweg.jax.get("adam", dialect="keras", lr=0.1)
    grads = jax.tree.map(lambda p: 1e-6 * p, params)
    assert (
        apart(made.update(grads, made.init(params), params)[0], wanted.update(grads, wanted.init(params))[0])
        <= 1e-6
    )


class Point(NamedTuple):
    x: Any
    y: Any


PARTS = Point({"a": "first", "b": "second"}, "second")
WRAPPERS: dict[str, Callable[[Callable[..., Any], Callable[..., Any]], Any]] = {
    "chain": lambda adam, sgd: optax.chain(optax.clip_by_global_norm(0.5), adam(0.1), optax.scale(0.5)),
    "masked": lambda adam, sgd: optax.masked(adam(0.1), Point({"a": True, "b": False}, True)),
    "partition": lambda adam, sgd: optax.partition({"first": adam(0.1), "second": sgd(0.1, 0.9)}, PARTS),
    "frozen": lambda adam, sgd: optax.partition({"first": adam(0.1), "second": optax.set_to_zero()}, PARTS),
    "MultiSteps": lambda adam, sgd: optax.MultiSteps(adam(0.1), 2),
    "apply_if_finite": lambda adam, sgd: optax.apply_if_finite(adam(0.1), 3),
    "averaged": lambda adam, sgd: optax.chain(sgd(0.1, 0.9), optax.ema(0.5)),
    "extra": lambda adam, sgd: optax.chain(adam(0.1), optax.contrib.reduce_on_plateau()),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_composes_with_optax(wrapper: str) -> None:
    params = Point({"a": jnp.arange(3.0), "b": jnp.ones((2, 2))}, jnp.array([-1.0, 2.0]))
    ends = []
    for library in (thalweg.jax, optax):
        made = WRAPPERS[wrapper](library.adam, library.sgd)  # type: ignore[attr-defined]
        p, state = params, made.init(params)

        @jax.jit
        def step(p: Any, state: Any, made: Any = made) -> Any:
            extra = {"value": jnp.sum(p.y)} if wrapper == "extra" else {}
            updates, state = made.update(jax.tree.map(jnp.cos, p), state, p, **extra)
            return optax.apply_updates(p, updates), state

        for _ in range(6):
            p, state = step(p, state)
        ends.append(p)
        assert step._cache_size() == 1
    assert apart(*ends) <= 1e-4
    assert apart(ends[0], params) > 1e-3


def test_is_optaxs_own_type_and_takes_extra_arguments() -> None:
    made = thalweg.jax.adam(0.1)
    assert isinstance(made, optax.GradientTransformationExtraArgs)
    assert thalweg.jax.GradientTransformation is optax.GradientTransformationExtraArgs
    made.update(jnp.ones(2), made.init(jnp.ones(2)), value=1.0, grad=None)


def test_optax_finds_the_parameters_in_the_state() -> None:
    params = tree()
    made = thalweg.jax.get("nadam", dialect="keras")
    state = made.init(params)
    marked = optax.tree.map_params(made, lambda x: x + 1, state)
    assert same(marked._replace(slots=state.slots), state)
    assert same(marked.slots["mu"], jax.tree.map(lambda x: x + 1, state.slots["mu"]))
    assert optax.tree.get(state, "count") is state.count
    changed = optax.tree.set(state, learning_rate=0.7)
    assert float(optax.tree.get(changed, "learning_rate")) == 0.7
    assert (
        apart(made.update(params, changed)[0], made.update(params, with_hyperparameters(state, lr=0.7))[0])
        == 0
    )


# Transformations of JAX, dtypes, trees


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("name", [*NAMES, "get-nadam"])
@pytest.mark.usefixtures("x64")
def test_dtypes_stay(name: str, dtype: str) -> None:
    params = jax.eval_shape(lambda: jax.tree.map(lambda p: p.astype(dtype), tree()))
    made = thalweg.jax.get("nadam") if name == "get-nadam" else getattr(thalweg.jax, name)(0.1)
    state = jax.eval_shape(made.init, params)
    updates, after = jax.eval_shape(made.update, params, state, params)

    def types(t: Any) -> Any:
        return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), t)

    assert types(after) == types(state)
    assert types(updates) == types(params)
    assert {x.dtype.name for x in jax.tree.leaves(state.slots)} <= {dtype}
    wide = "float64" if dtype == "float64" else "float32"
    assert {x.dtype.name for x in (*state.hyperparameters.values(), *state.scalars.values())} == {wide}


leaves = st.builds(
    lambda shape, dtype: jax.ShapeDtypeStruct(tuple(shape), dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(["bfloat16", "float16", "float32"]),
)
trees = st.recursive(
    leaves | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@given(inner=trees, name=st.sampled_from(["adagrad", "lion", "nadam"]), guarded=st.booleans())
def test_any_tree(inner: Any, name: str, guarded: bool) -> None:
    params = {"all": inner}
    links = [thalweg.SkipNonFinite()] if guarded else []
    made = optimizer(thalweg.chain(*links, thalweg.ClipByGlobalNorm(1.0), thalweg.get(name)))
    state = jax.eval_shape(made.init, params)
    updates, after = jax.eval_shape(made.update, params, state, params)
    assert (updates, after) == (params, state)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_types_are_computed_in_float32(dtype: Any) -> None:
    # ε = 1e-8 is nothing in float16, and 1 − β₂ is 0.0010 ± 3 % in bfloat16.
    p, g = np.zeros(4, dtype), np.array([0.0, 1e-3, 1.0, -2.0], dtype)
    made = thalweg.jax.adam(0.1)
    found, state = made.update(jnp.asarray(g), made.init(jnp.asarray(p)))
    wanted = descend(thalweg.get("adam", lr=0.1), p.astype(float), [g.astype(float)])
    np.testing.assert_array_equal(np.asarray(found), wanted.astype(dtype))
    np.testing.assert_array_equal(np.asarray(state.slots["nu"]), (0.001 * g.astype(float) ** 2).astype(dtype))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_update_has_its_gradients_dtype_and_state_its_own(dtype: str) -> None:
    made = thalweg.jax.get("nadam", dialect="keras")
    state = made.init(jnp.ones(2, jnp.bfloat16))
    updates, after = made.update(jnp.ones(2, dtype), state)
    assert updates.dtype == dtype
    assert after.slots["mu"].dtype == jnp.bfloat16
    assert after.scalars["mu_product"].dtype == jnp.float32


@pytest.mark.usefixtures("x64")
def test_trees_of_mixed_dtypes_are_computed_each_in_its_own() -> None:
    params = {"single": jnp.ones(3, jnp.float32), "double": jnp.ones(3, jnp.float64)}
    rule = thalweg.get("nadam", dialect="keras", lr=0.1)
    grads = jax.tree.map(lambda p: p / 3, params)
    made = optimizer(rule)
    state = made.init(params)
    for _ in range(5):
        updates, state = jax.jit(made.update)(grads, state, params)
        params = optax.apply_updates(params, updates)
    wanted = descend(rule, np.ones(3), [np.ones(3) / 3] * 5)
    assert {k: p.dtype.name for k, p in params.items()} == {"single": "float32", "double": "float64"}
    assert difference(params["double"], wanted) <= 1e-13
    assert 1e-12 < difference(params["single"], wanted) <= 1e-6
    alone = jax.make_jaxpr(made.update)({"single": grads["single"]}, made.init({"single": params["single"]}))
    assert "f64" not in str(alone)


def test_works_under_strict_promotion() -> None:
    with jax.numpy_dtype_promotion("strict"):
        params = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.float32)}
        rule = thalweg.chain(
            thalweg.ClipByGlobalNorm(0.5), thalweg.get("nadam", dialect="keras", lr=schedules.Step(0.1, 2))
        )
        made = optimizer(rule)
        updates, _ = jax.jit(made.update)(params, made.init(params), params)
    assert {k: x.dtype.name for k, x in updates.items()} == {"a": "bfloat16", "b": "float32"}


@pytest.mark.parametrize("name", ["adamw", "nadam", "rmsprop", "adan"])
def test_compiled_or_not_is_the_same(name: str) -> None:
    made = getattr(thalweg.jax, name)(0.1)
    params = pair()
    grads = random_like(params, 5)
    eagerly = made.update(grads, made.init(params), params)
    compiled = jax.jit(made.update)(grads, jax.jit(made.init)(params), params)
    assert apart(eagerly, compiled) <= 1e-5


@pytest.mark.parametrize("params", [{}, None, (), {"a": None}, {"a": optax.MaskedNode()}])
def test_trees_without_arrays(params: Any) -> None:
    made = optimizer(
        thalweg.chain(thalweg.SkipNonFinite(), thalweg.ClipByGlobalNorm(1.0), thalweg.Nadam(0.1))
    )
    updates, state = jax.jit(made.update)(params, made.init(params), params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert int(state.count) == 1
    assert 0 < float(state.scalars["mu_product"]) < 1


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"a": jnp.arange(3)}, r"params\['a'\] is int32; adam updates floating-point and complex parameters"),
        (jnp.array([True]), "params is bool"),
    ],
)
def test_parameters_that_have_no_gradient_are_refused(params: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        thalweg.jax.adam(0.1).init(params)


@pytest.mark.parametrize(
    "made", [thalweg.jax.adamw(0.1), thalweg.jax.lion(0.1), thalweg.jax.adadelta(1.0, weight_decay=0.1)]
)
def test_parameters_are_asked_for_where_they_are_needed(made: Any) -> None:
    state = made.init(jnp.ones(2))
    with pytest.raises(ValueError, match=r"needs the parameters: update\(grads, state, params\)"):
        made.update(jnp.ones(2), state)
    made.update(jnp.ones(2), state, jnp.ones(2))


def test_parameters_are_not_asked_for_where_nothing_decays() -> None:
    for made in (thalweg.jax.adam(0.1), thalweg.jax.adadelta(1.0), thalweg.jax.adadelta(1.0, weight_decay=0)):
        made.update(jnp.ones(2), made.init(jnp.ones(2)))


@pytest.mark.parametrize(
    ("given", "meant"),
    [("lr", "learning_rate"), ("lrr", "learning_rate"), ("beta_1", "b1"), ("epsilon", "eps")],
)
def test_an_unknown_keyword_is_near_to_optax_s(given: str, meant: str) -> None:
    with pytest.raises(TypeError, match=f"adam has no hyperparameter '{given}'; did you mean '{meant}'"):
        thalweg.jax.adam(**{given: 0.1})


def test_only_a_rule_makes_an_optimizer() -> None:
    with pytest.raises(TypeError, match=r"takes a rule, got 'adam': give a rule, such as thalweg\.Adam\(\)"):
        optimizer("adam")  # type: ignore[arg-type]


def test_gradients_of_another_structure_are_refused() -> None:
    made = thalweg.jax.adam(0.1)
    state = made.init({"a": jnp.ones(2), "b": jnp.ones(2)})
    with pytest.raises(ValueError, match="key"):
        made.update({"a": jnp.ones(2)}, state)


def test_a_model_is_compiled_once_for_each_shape_and_inlined() -> None:
    made = thalweg.jax.get("adagrad", lr=0.5)
    step = _step_of(thalweg.trace(thalweg.get("adagrad", dialect="optax")))
    params = [jnp.ones((5, 7))] * 30
    state = made.init(params)
    step.clear_cache()
    made.update(params, state)
    assert step._cache_size() == 1
    assert "name=step" not in str(jax.make_jaxpr(made.update)(params, state))


DEVICES = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import jax, jax.numpy as jnp, numpy as np, optax, thalweg, thalweg.jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

assert jax.device_count() == 4
mesh = Mesh(np.array(jax.devices()), ("x",))
params = {"w": jnp.linspace(-1.0, 1.0, 32).reshape(8, 4), "b": jnp.linspace(0.5, 1.0, 4)}
specs = {"w": P("x", None), "b": P()}
data = jnp.linspace(0.1, 2.0, 16 * 8).reshape(16, 8)
rule = thalweg.chain(thalweg.ClipByGlobalNorm(0.5), thalweg.get("nadam", dialect="keras", lr=0.05))

def loss(p, x):
    return jnp.mean((x @ p["w"] + p["b"]) ** 2)

def train(made, params, state, data, mean=lambda g: g):
    for _ in range(4):
        updates, state = made.update(mean(jax.grad(loss)(params, data)), state, params)
        params = optax.apply_updates(params, updates)
    return params, state

def same(found, wanted):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-5, atol=1e-7)

made = thalweg.jax.optimizer(rule)
wanted = train(made, params, made.init(params), data)

# Parameters and state in shards, the batch too.
placed = {k: jax.device_put(p, NamedSharding(mesh, specs[k])) for k, p in params.items()}
state = jax.jit(made.init)(placed)
assert made.init(placed).slots["mu"]["w"].sharding.is_equivalent_to(placed["w"].sharding, 2)
x = jax.device_put(data, NamedSharding(mesh, P("x", None)))
found = jax.jit(lambda p, s, x: train(made, p, s, x))(placed, made.init(placed), x)
assert found[1].slots["mu"]["w"].sharding.is_equivalent_to(placed["w"].sharding, 2)
same(found, wanted)

# One copy a device, gradients averaged.
mean = lambda g: jax.lax.pmean(g, "x")
step = jax.shard_map(
    lambda p, s, x: train(made, p, s, x, mean), mesh=mesh, in_specs=(P(), P(), P("x")), out_specs=P()
)
same(jax.jit(step)(params, made.init(params), data), wanted)
if hasattr(jax, "pmap"):
    copied = jax.tree.map(lambda a: jnp.stack([a] * 4), (params, made.init(params)))
    out = jax.pmap(lambda c, x: train(made, *c, x, mean), axis_name="x")(copied, data.reshape(4, 4, 8))
    same(jax.tree.map(lambda a: a[3], out), wanted)
print("done")
"""


def test_on_several_devices() -> None:
    assert output(python(DEVICES, JAX_PLATFORMS="cpu")) == "done"


WITHOUT = """
import sys
sys.modules[{missing!r}] = None
"""
NO_OPTAX = """
import jax, jax.numpy as jnp, numpy as np, thalweg.jax
assert "optax" not in {k for k, v in sys.modules.items() if v is not None}
for made in (thalweg.jax.adamw(0.1), thalweg.jax.get("momentum", lr=0.1)):
    assert type(made) is thalweg.jax.GradientTransformation
    init, update = made
    p = jnp.ones(3)
    state = init(p)
    for _ in range(3):
        updates, state = jax.jit(update)(p, state, p)
        p = p + updates
    assert int(state.count) == 3
print(np.asarray(p).tolist())
"""


def test_works_without_optax() -> None:
    found = output(python(WITHOUT.format(missing="optax") + NO_OPTAX, JAX_PLATFORMS="cpu"))
    wanted = descend(thalweg.Momentum(0.1), np.ones(1), [])  # where it starts
    p = wanted
    b = 0.0
    for _ in range(3):
        b = 0.9 * b + p
        p = p - 0.1 * b
    assert eval(found) == pytest.approx([float(p[0])] * 3, rel=1e-6)


def test_says_what_to_install_without_jax() -> None:
    done = python(WITHOUT.format(missing="jax") + "import thalweg.jax")
    assert "ImportError: thalweg.jax needs JAX: pip install 'thalweg[jax]'" in done.stderr


def test_brings_in_no_other_framework() -> None:
    source = "import sys, thalweg.jax; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = {*output(python(source, JAX_PLATFORMS="cpu")).split()}
    assert "jax" in loaded
    assert not loaded & {"torch", "keras", "tensorflow", "numba", "llvmlite", "matplotlib"}


def test_every_name_is_there() -> None:
    assert all(hasattr(thalweg.jax, name) for name in thalweg.jax.__all__)
    assert {find(name) for name in thalweg.rules()} == {find(name) for name in RATES}
