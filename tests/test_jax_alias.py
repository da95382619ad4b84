"""What Optax's own `alias_test.py` asks of every optimizer, asked of ours under the same names.

There: it descends a parabola and Rosenbrock's function, real and complex, and compiles once; state keeps its
structure, shapes and dtypes; an update has its gradient's dtype; moments have the dtype asked for; it takes
arguments meant for others; it works within `inject_hyperparams` and `MultiSteps`.

Left out, with the reason:
    optimizers that Thalweg has no rule for (adafactor, lamb, lars, yogi, …; L-BFGS is a solver here);
    the descent in float32, which `test_jax.py` has for every rule;
    `adadelta()` without a learning rate, which goes uphill in Optax (`test_jax.py` says what it does here);
    complex parameters in a real `mu_dtype`, which Optax rounds to their real part, and we refuse;
    equal states within `inject_hyperparams` and without: within, our numbers are Optax's to hold, not ours.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import thalweg
import thalweg.jax
from test_jax import FORMS_OF_OPTAX, NAMES, apart, both, follow, pair, same, stacked, tree
from thalweg.jax import optimizer, with_hyperparameters

# Those that Optax's own tests pass over for complex parameters, and that are refused here.
REAL_ONLY = ("adadelta", "adan", "lion")
RATES = {
    "adagrad": 1.0,
    "adabelief": 1e-2,
    "nadam": 1e-2,
    "nadamw": 1e-2,
    "radam": 5e-3,
    "rmsprop": 5e-3,
    "sgd": 1e-3,
}
COMPLEX_FORMS = {k: v for k, v in FORMS_OF_OPTAX.items() if v[0] not in REAL_ONLY}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def squared(z):
    return jnp.real(z) ** 2 + jnp.imag(z) ** 2


def parabola(z):
    return jnp.sum(squared(z - jnp.array([1.0, -1.0, 1.0]) * (1 + 1j)))


def rosenbrock(z):
    return squared(1 + 1j - z[0]) + 100 * squared(z[1] - z[0] ** 2)


def complex_tree(dtype=jnp.complex128):
    """Parameters that are complex, but for one."""
    params = tree(jnp.float64, {"w": (3, 2), "b": [()], "real": (4,)})
    turned = jax.tree.map(lambda p: (p + 1j * p[..., ::-1] if p.ndim else p * (1 + 2j)).astype(dtype), params)
    return {**turned, "real": params["real"]}


def complex_grads(params, steps):
    generator = np.random.default_rng(7)

    def drawn(p):
        parts = generator.standard_normal((2, steps, *p.shape))
        return jnp.asarray(parts[0] + 1j * parts[1] if jnp.iscomplexobj(p) else parts[0], p.dtype)

    return jax.tree.map(drawn, params)


def largest_part(found, wanted):
    return apart(*(jax.tree.map(lambda z: jnp.stack([jnp.real(z), jnp.imag(z)]), t) for t in (found, wanted)))


# -- complex parameters --------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", COMPLEX_FORMS)
def test_complex_arithmetic_is_optaxs(form):
    name, flags = COMPLEX_FORMS[form]
    params = complex_tree()
    grads = complex_grads(params, 20)
    found, wanted = (follow(make(0.05, **flags), params, grads)[0] for make in both(name))
    assert largest_part(found, wanted) <= 1e-10
    assert largest_part(found, params) > 1e-3


@pytest.mark.parametrize(
    ("loss", "end"),
    [(parabola, [1 + 1j, -1 - 1j, 1 + 1j]), (rosenbrock, [1 + 1j, 2j])],
    ids=["parabola", "rosenbrock"],
)
@pytest.mark.parametrize("name", [name for name in NAMES if name not in REAL_ONLY])
def test_finds_a_complex_minimum_and_compiles_once(name, loss, end):
    settings = {"momentum": 0.9} if name in ("sgd", "rmsprop") else {}
    made = getattr(thalweg.jax, name)(RATES.get(name, 0.1), **settings)
    start = jnp.array([-1, 10, 1] if loss is parabola else [0, 0], jnp.complex64)

    @jax.jit
    def some(p, state):
        def step(_, carry):
            p, state = carry
            updates, state = made.update(jnp.conj(jax.grad(loss)(p)), state, p)
            return p + updates, state

        return jax.lax.fori_loop(0, 5_000, step, (p, state))

    p, state = some(start, optax.tree.map_params(made, lambda v: v, made.init(start)))
    p, _ = some(p, state)
    assert some._cache_size() == 1
    np.testing.assert_allclose(p, end, rtol=0.03, atol=0.03)


@pytest.mark.parametrize(
    ("made", "named"),
    [
        *((lambda name=name: getattr(thalweg.jax, name)(0.1), name) for name in REAL_ONLY),
        (lambda: optimizer(thalweg.chain(thalweg.ClipByValue(1.0), thalweg.SGD(0.1))), "clipbyvalue"),
    ],
)
def test_what_is_unclear_for_complex_parameters_is_refused(made, named):
    with pytest.raises(
        TypeError, match=rf"(?i)params\['z'\] is complex64, and there is no agreed {named} of"
    ):
        made().init({"z": jnp.ones(2, jnp.complex64)})


@pytest.mark.parametrize("name", REAL_ONLY)
def test_and_the_remedy_in_the_message_works(name):
    grads = jnp.array([[1 + 2j, 3 - 4j]], jnp.complex64)
    found, wanted = (
        follow(optax.contrib.split_real_and_imaginary(make(0.1)), grads[0], grads)[0] for make in both(name)
    )
    assert largest_part(found, wanted) <= 1e-6


def test_complex_gradients_are_clipped_by_their_norm():
    g = {"a": jnp.array([3 + 4j], jnp.complex64), "b": jnp.array([12.0])}
    for clip, shares in (
        (thalweg.ClipByNorm(1.0), (1 / 5, 1 / 12)),
        (thalweg.ClipByGlobalNorm(1.0), (1 / 13,) * 2),
    ):
        made = optimizer(thalweg.chain(thalweg.SkipNonFinite(), clip, thalweg.SGD(1.0)))
        updates, state = made.update(g, made.init(g), g)
        wanted = {k: -share * g[k] for k, share in zip(g, shares, strict=True)}
        assert largest_part(updates, wanted) <= 1e-6
        broken, after = made.update({**g, "a": g["a"] * complex(0, np.inf)}, state, g)
        assert same(after, state)
        assert not any(np.any(x) for x in jax.tree.leaves(broken))


# -- names in the state ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", FORMS_OF_OPTAX)
def test_optax_finds_our_slots_by_its_own_names(form):
    name, flags = FORMS_OF_OPTAX[form]
    params = pair(jnp.float64)
    grads = stacked(params, 10)
    found, wanted = (follow(make(0.01, **flags), params, grads)[1] for make in both(name))
    fields = [f for f in ("mu", "nu", "nu_max", "trace", "sum_of_squares", "e_g", "e_x", "m", "v", "n", "g")
              if optax.tree.get(wanted, f) is not None]  # fmt: skip
    if form in ("rmsprop-momentum", "rmsprop-nesterov", "rmsprop-centered"):
        fields.remove("trace")  # Optax's velocity is minus ours, which so keeps its own name
        assert apart(found.slots["b"], jax.tree.map(jnp.negative, optax.tree.get(wanted, "trace"))) <= 1e-10
    for f in fields:
        assert apart(optax.tree.get(found, f), optax.tree.get(wanted, f)) <= 1e-10
    assert len(found.slots) == len(fields) + ("b" in found.slots)
    assert int(optax.tree.get(found, "count")) == 10
    assert float(optax.tree.get(found, "learning_rate")) == 0.01


def test_every_hyperparameter_has_optaxs_argument_and_the_rules_name():
    made = thalweg.jax.rmsprop(0.1, momentum=0.5)
    state = made.init(jnp.ones(2))
    assert {*state.hyperparameters} == {"learning_rate", "decay", "eps", "momentum", "initial_scale"}
    by_optax = with_hyperparameters(state, learning_rate=0.2, decay=0.5)
    assert same(by_optax, with_hyperparameters(state, lr=0.2, rho=0.5))
    assert same(by_optax, optax.tree.set(state, learning_rate=jnp.float32(0.2), decay=jnp.float32(0.5)))
    with pytest.raises(TypeError, match="learning_rate and lr are the same; give one"):
        with_hyperparameters(state, lr=0.1, learning_rate=0.1)


# -- within inject_hyperparams, and other wrappers ---------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_inject_hyperparams_holds_the_numbers_and_changes_act(name):
    params = pair()
    grads = jax.tree.map(lambda p: p / 3, params)
    made = optax.inject_hyperparams(getattr(thalweg.jax, name))(learning_rate=0.1)
    update = jax.jit(made.update)
    state = jax.jit(made.init)(params)
    assert isinstance(state, optax.InjectStatefulHyperparamsState)
    assert float(optax.tree.get(state, "learning_rate")) == pytest.approx(0.1)
    plain = getattr(thalweg.jax, name)(0.1)
    first, after = update(grads, state, params)
    assert apart(first, plain.update(grads, plain.init(params), params)[0]) <= 1e-4
    assert jax.tree.structure(after) == jax.tree.structure(state)
    by_hand = state._replace(hyperparams={**state.hyperparams, "learning_rate": jnp.float32(0.2)})
    for changed in (by_hand, optax.tree.set(state, learning_rate=jnp.float32(0.2))):
        updates, _ = update(grads, changed, params)
        assert apart(updates, jax.tree.map(lambda u: 2 * u, first)) <= 1e-5
    assert update._cache_size() == 1


MORE_WRAPPERS = {
    "flatten": lambda adam: optax.flatten(adam(0.1)),
    "multi_transform": lambda adam: optax.multi_transform(
        {"first": adam(0.1), "second": adam(0.01)}, {"w": "first", "b": ["second"]}
    ),
    "inject in a chain": lambda adam: optax.chain(
        optax.clip_by_global_norm(1.0), optax.inject_hyperparams(adam)(optax.linear_schedule(0.1, 0.0, 9))
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("wrapper", MORE_WRAPPERS)
def test_more_wrappers_of_optax(wrapper):
    params = pair(jnp.float64)
    grads = stacked(params, 6)
    found, wanted = (follow(MORE_WRAPPERS[wrapper](make), params, grads)[0] for make in both("adam"))
    assert apart(found, wanted, params) <= 1e-6  # inject_hyperparams has its numbers in float32


def test_lookahead():
    ends = []
    for make in both("adam"):
        made = optax.lookahead(make(0.1), sync_period=3, slow_step_size=0.5)
        params = optax.LookaheadParams.init_synced(pair())
        state = made.init(params)
        for _ in range(7):
            updates, state = jax.jit(made.update)(jax.tree.map(jnp.cos, params.fast), state, params)
            params = optax.apply_updates(params, updates)
        ends.append(params)
    assert apart(*ends) <= 1e-4


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_moves_while_gradients_gather(name, dtype):
    params = jnp.array([1.0, 2.0], dtype)
    made = optax.MultiSteps(getattr(thalweg.jax, name)(0.1), every_k_schedule=4)
    updates, _ = jax.jit(made.update)(2 * params, jax.jit(made.init)(params), params)
    assert same(updates, jnp.zeros_like(params))


# -- dtypes, arguments ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("name", NAMES)
def test_a_state_may_be_chosen_between_steps(name, dtype):
    if "complex" in dtype and name in REAL_ONLY:
        pytest.skip(f"{name} is for real parameters")
    made = getattr(thalweg.jax, name)(0.1)
    params = jnp.array([1, 2], dtype)
    state = made.init(params)

    def stepped(known):
        return jax.lax.cond(known, lambda: made.update(params, state, params), lambda: (params, state))

    updates, after = jax.eval_shape(stepped, jnp.array(True))
    assert updates.dtype == dtype
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)


@pytest.mark.parametrize("state_dtype", ["bfloat16", "float32", "complex64", None])
@pytest.mark.parametrize("params_dtype", ["bfloat16", "float32", "complex64"])
@pytest.mark.parametrize(
    ("name", "option", "slot"),
    [("sgd", "accumulator_dtype", "trace"), ("adam", "mu_dtype", "mu"), ("adamw", "mu_dtype", "mu")],
)
def test_explicit_dtypes(name, option, slot, params_dtype, state_dtype):
    settings = {"momentum": 0.9} if name == "sgd" else {}
    made = getattr(thalweg.jax, name)(0.1, **settings, **{option: state_dtype})
    params = jnp.array([1.0, 2.0], params_dtype)
    if params_dtype == "complex64" and state_dtype in ("bfloat16", "float32"):
        with pytest.raises(TypeError, match=f"would lose its imaginary part in {state_dtype}"):
            made.init(params)
        return
    state = made.init(params)
    updates, after = jax.jit(made.update)(params, state, params)
    for s in (state, after):
        assert optax.tree.get(s, slot).dtype == (state_dtype or params_dtype)
    assert updates.dtype == params_dtype
    plain = getattr(thalweg.jax, name)(0.1, **settings)
    assert largest_part(updates, plain.update(params, plain.init(params), params)[0]) <= 0.02


@pytest.mark.parametrize("name", NAMES)
def test_arguments_meant_for_others_are_passed_over(name):
    made = getattr(thalweg.jax, name)(0.1)
    p = jnp.ones(2)
    extra, _ = made.update(p, made.init(p), p, unexpected=1, value=2.0)
    assert same(extra, made.update(p, made.init(p), p)[0])
