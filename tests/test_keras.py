"""The Keras front end, on whichever back end Keras was started with.

`test_keras_backends.py` runs this file on the others.
"""

import contextlib
import copy
import dataclasses
import inspect
import json
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from keras import ops

import thalweg
import thalweg.keras
from helpers import (
    difference,
    largest_difference,
    output,
    python,
)
from thalweg.dialects import DIALECTS
from thalweg.eager import Driver, descend
from thalweg.errors import UnknownDialectError, UnknownRuleError
from thalweg.keras import Optimizer
from thalweg.ops import sqrt
from thalweg.registry import find
from thalweg.rule import Rule, Scalar
from thalweg.schedules import Cosine, Exponential, TimeDecay, WarmUp, WarmUpStableDecay

# Keras 3.15 gives its variables no `copy` in `__array__`, which NumPy 2 wishes for.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

BACKEND = keras.backend.backend()
on = {
    b: pytest.mark.skipif(b != BACKEND, reason=f"of the {b} back end") for b in ("torch", "jax", "tensorflow")
}

# Keras computes 1 − 0.999ᵗ in float32, which costs it four digits of the first steps.
ROUNDING = 3e-5

# Keras's own optimizers in their forms.
NINE = ("SGD", "Adagrad", "Adadelta", "RMSprop", "Adam", "AdamW", "Adamax", "Nadam", "Lion")
KERAS_FORMS = {
    **{name: (name, {}) for name in NINE},
    "SGD-momentum": ("SGD", {"momentum": 0.9}),
    "SGD-nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "RMSprop-momentum": ("RMSprop", {"momentum": 0.8}),
    "RMSprop-centered": ("RMSprop", {"centered": True}),
    "RMSprop-both": ("RMSprop", {"centered": True, "momentum": 0.9}),
    "Adam-amsgrad": ("Adam", {"amsgrad": True}),
    "AdamW-amsgrad": ("AdamW", {"amsgrad": True}),
}
OPTIONS = {
    "clipnorm": {"clipnorm": 0.05},
    "clipvalue": {"clipvalue": 0.002},
    "global_clipnorm": {"global_clipnorm": 0.1},
    "weight_decay": {"weight_decay": 0.2},
    "use_ema": {"use_ema": True, "ema_momentum": 0.8},
    "ema_overwrite_frequency": {"use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 3},
    "loss_scale_factor": {"loss_scale_factor": 64.0},
    "gradient_accumulation_steps": {"gradient_accumulation_steps": 3},
}


FALLING = keras.optimizers.schedules.ExponentialDecay(0.05, 4, 0.5, staircase=True)


def both(name):
    """Keras's optimizer of that name, and ours."""
    return getattr(keras.optimizers, name), getattr(thalweg.keras, name)


@pytest.fixture(scope="module")
def digits():
    """Real digits: 320 images of 8 × 8 pixels, and what they show."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.data[:320] / 16).astype("float32"), data.target[:320]


def network(dtype=None, initializer="glorot_uniform"):
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(16, "relu", dtype=dtype, kernel_initializer=initializer),
        keras.layers.Dense(10, dtype=dtype),
    ]
    return keras.Sequential([keras.Input((64,)), *layers])


def fit(optimizer, digits, *, epochs=3, model=None, **compilation):
    """A small network trained on the digits."""
    model = model or network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss, **compilation)
    model.fit(*digits, batch_size=64, epochs=epochs, verbose=0)
    return model


def deviation(found, wanted):
    """The largest difference of two models' weights, and of their optimizers' states."""
    pairs = [(found.weights, wanted.weights), (found.optimizer.variables, wanted.optimizer.variables)]
    return max(largest_difference(map(numpy, a), map(numpy, b)) for a, b in pairs)


def numpy(x):
    return np.asarray(ops.convert_to_numpy(x), np.float64)


def variables(*shapes, dtype="float32", seed=0, values=None):
    generator = np.random.default_rng(seed)
    return [
        keras.Variable(
            generator.standard_normal(s), dtype=dtype, name=f"v{i}_{'bias' if len(s) == 1 else 'kernel'}"
        )
        for i, s in enumerate(shapes)
    ]


def gradients(params, steps, seed=1):
    """For each step a gradient for each parameter, with entries that keep their sign."""
    generator = np.random.default_rng(seed)
    signs = [np.sign(generator.standard_normal(v.shape)) for v in params]
    return [[s * generator.uniform(0.5, 1.5, s.shape) for s in signs] for _ in range(steps)]


def take(optimizer, params, grads):
    """Take a step with each of these gradients."""
    for step in grads:
        tensors = [
            None if g is None else ops.convert_to_tensor(g, dtype=v.dtype)
            for g, v in zip(step, params, strict=True)
        ]
        optimizer.apply(tensors, params)


def take_statelessly(optimizer, params, grads):
    """Take a compiled step with each of these gradients, by `stateless_apply`."""
    import jax

    for step in grads:
        tensors = [ops.convert_to_tensor(g, dtype=v.dtype) for g, v in zip(step, params, strict=True)]
        values, state = ([v.value for v in variables] for variables in (params, optimizer.variables))
        new = jax.jit(optimizer.stateless_apply)(state, tensors, values)
        for v, value in zip((*params, *optimizer.variables), (*new[0], *new[1]), strict=True):
            v.assign(value)


@contextlib.contextmanager
def in_float64():
    """Keras's default dtype float64, in which it then keeps learning rates too."""
    enabled = contextlib.nullcontext()
    if BACKEND == "jax":
        import jax

        enabled = jax.enable_x64(True)
    before = keras.config.floatx()
    keras.config.dtype_policy()  # made now, of float32: Keras makes it when it is first asked for
    keras.config.set_floatx("float64")
    with enabled:
        yield
    keras.config.set_floatx(before)


@pytest.fixture
def float64():
    with in_float64():
        yield


@pytest.fixture(params=["kernel", "arrays"] if BACKEND == "torch" else ["arrays"])
def path(request, monkeypatch):
    """The ways of taking a step: by the kernel, and by the back end's own operations."""
    if BACKEND == "torch" and request.param == "arrays":
        monkeypatch.setattr("thalweg.keras.fused.has_kernel", lambda tensors: False)
    return request.param


# -- beside Keras's own -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NINE)
def test_fit_leads_where_keras_leads(name, digits):
    theirs, ours = both(name)
    assert deviation(fit(ours(0.01), digits), fit(theirs(0.01), digits)) < ROUNDING


@pytest.mark.parametrize("form", [form for form in KERAS_FORMS if form not in NINE])
def test_forms_lead_where_keras_leads(form, digits):
    name, settings = KERAS_FORMS[form]
    found, wanted = (fit(kind(0.01, **settings), digits, run_eagerly=True) for kind in reversed(both(name)))
    assert deviation(found, wanted) < ROUNDING


@on["torch"]  # where each is another way through `apply`; the others compile them together, below
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", ["Adam", "Nadam"])
def test_options_do_as_in_keras(name, option, digits):
    found, wanted = (fit(kind(0.01, **OPTIONS[option]), digits) for kind in reversed(both(name)))
    assert deviation(found, wanted) < ROUNDING


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (
            "Adam",
            {
                "weight_decay": 0.1,
                "global_clipnorm": 0.3,
                "use_ema": True,
                "ema_overwrite_frequency": 2,
                "gradient_accumulation_steps": 2,
            },
        ),
        ("Nadam", {"clipnorm": 0.05, "loss_scale_factor": 8.0, "use_ema": True}),
        (
            "SGD",
            {"learning_rate": FALLING, "momentum": 0.9, "clipvalue": 0.002, "gradient_accumulation_steps": 2},
        ),
    ],
)
def test_options_together_compiled(name, settings, digits):
    settings = {"learning_rate": 0.01, **settings}
    found, wanted = (fit(kind(**settings), digits) for kind in reversed(both(name)))
    assert deviation(found, wanted) < ROUNDING


@on["tensorflow"]
def test_xla(digits):
    found, wanted = (fit(kind(0.01), digits, jit_compile=True) for kind in reversed(both("Nadam")))
    assert deviation(found, wanted) < ROUNDING


@pytest.mark.parametrize("excluded", [{"var_names": ["bias"]}, {"var_list": [0]}])
@pytest.mark.parametrize("name", ["SGD", "AdamW", "Lion"])
def test_excluded_variables_do_not_decay(name, excluded, path):
    results = []
    for kind in both(name):
        params = variables((3, 2), (4,))
        optimizer = kind(0.1, weight_decay=0.5)
        chosen = {k: [params[i] if isinstance(i, int) else i for i in v] for k, v in excluded.items()}
        optimizer.exclude_from_weight_decay(**chosen)
        take(optimizer, params, gradients(params, 3))
        results.append([numpy(v) for v in params])
    assert largest_difference(results[1], results[0]) < ROUNDING


@pytest.mark.parametrize("form", KERAS_FORMS)
def test_variables_are_laid_out_as_in_keras(form):
    name, settings = KERAS_FORMS[form]
    layouts = []
    for kind in both(name):
        params = variables((3, 2), (4,), dtype="float16" if form == "Nadam" else "float32")
        optimizer = kind(**settings, use_ema=True, gradient_accumulation_steps=2, name="same")
        optimizer.build(params)
        layouts.append([(v.path, tuple(v.shape), v.dtype) for v in optimizer.variables])
    if name == "Nadam":  # Keras leaves the name of its product of momenta to chance
        for layout in layouts:
            layout[-1] = ("same/mu_product", *layout[-1][1:])
    assert layouts[1] == layouts[0]


@pytest.mark.parametrize("form", KERAS_FORMS)
@pytest.mark.parametrize("writer", ["Keras", "thalweg"])
def test_saved_weights_go_on_in_the_other(form, writer, tmp_path):
    name, settings = KERAS_FORMS[form]
    kinds = both(name) if writer == "Keras" else both(name)[::-1]
    first, second = (network() for _ in kinds)
    for kind, model in zip(kinds, (first, second), strict=True):
        model.compile(optimizer=kind(0.01, **settings), loss="mse")
        model.optimizer.build(model.trainable_variables)
    grads = gradients(first.trainable_variables, 6)
    take(first.optimizer, first.trainable_variables, grads[:3])
    first.save_weights(tmp_path / "state.weights.h5")
    second.load_weights(tmp_path / "state.weights.h5")
    assert int(second.optimizer.iterations) == 3
    for model in (first, second):
        take(model.optimizer, model.trainable_variables, grads[3:])
    assert deviation(second, first) < ROUNDING


@pytest.mark.parametrize("name", NINE)
def test_signatures_and_settings_are_those_of_keras(name):
    theirs, ours = both(name)
    wanted = inspect.signature(theirs.__init__).parameters
    found = inspect.signature(ours).parameters
    assert [(p.name, p.default) for p in wanted.values() if p.name not in ("self", "kwargs")] == [
        (p.name, p.default) for p in found.values() if p.name not in ("dialect", "schedule_decay")
    ]
    config = ours(name="n").get_config()
    assert {k: v for k, v in config.items() if k != "schedule_decay"} == theirs(name="n").get_config()


# -- every rule ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", thalweg.rules())
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_rule_in_every_dialect(name, dialect):
    optimizer = getattr(thalweg.keras, name)(dialect=dialect)
    wanted = thalweg.get(name, dialect=dialect)
    if dialect == "keras" and name in ("lion", "adamw"):
        assert optimizer.weight_decay == (None if name == "lion" else wanted.weight_decay)
    assert dataclasses.replace(optimizer.rule, lr=wanted.lr) == wanted
    assert float(optimizer.learning_rate) == pytest.approx(wanted.lr, rel=1e-6)
    again = type(optimizer).from_config(optimizer.get_config())
    assert again.rule == dataclasses.replace(optimizer.rule, lr=again.rule.lr)


def test_a_dialect_changes_the_arithmetic(float64, path):
    for dialect in ("keras", "torch"):
        (p,), start = variables((4,), dtype="float64"), None
        start, grads = numpy(p), gradients([p], 5)
        optimizer = thalweg.keras.RMSprop(0.01, momentum=0.9, centered=True, dialect=dialect)
        take(optimizer, [p], grads)
        rule = thalweg.get("rmsprop", dialect=dialect, lr=0.01, momentum=0.9, centered=True)
        assert difference(numpy(p), descend(rule, start, [g for (g,) in grads])) < 1e-12


@pytest.mark.parametrize(
    ("name", "dialect", "links"),
    [
        ("adam", "keras", [thalweg.DecoupledDecay(0.3)]),
        ("adam", "torch", [thalweg.L2(0.3)]),
        ("momentum", "torch", [thalweg.L2(0.3)]),
    ],
)
def test_weight_decay_is_the_dialects(name, dialect, links, float64, path):
    params = variables((4,), (3, 2), dtype="float64")
    starts, grads = [numpy(v) for v in params], gradients(params, 3)
    optimizer = getattr(thalweg.keras, name)(0.1, weight_decay=0.3, dialect=dialect)
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    take(optimizer, params, grads)
    plain = thalweg.get(name, dialect=dialect, lr=0.1)
    for i, rule in enumerate([thalweg.chain(*links, plain), plain]):
        assert difference(numpy(params[i]), descend(rule, starts[i], [g[i] for g in grads])) < 1e-12


def test_adamw_decays_beside_the_step_in_every_dialect(float64):
    for settings in ({}, {"amsgrad": True}):
        (p,) = variables((4,), dtype="float64")
        start, grads = numpy(p), gradients([p], 3)
        take(thalweg.keras.AdamW(0.1, weight_decay=0.3, dialect="torch", **settings), [p], grads)
        inner = thalweg.get("amsgrad" if settings else "adam", dialect="torch", lr=0.1)
        rule = thalweg.chain(thalweg.DecoupledDecay(0.3), inner)
        assert difference(numpy(p), descend(rule, start, [g for (g,) in grads])) < 1e-12


def test_treatments_and_schedules_of_any_hyperparameter(float64, path):
    links = [thalweg.ClipByValue(0.9), thalweg.L2(WarmUp(3, 0.1))]
    rule = thalweg.chain(*links, thalweg.Nadam(lr=Cosine(0.1, 4), beta_1=Exponential(0.9, 0.9), psi=0.5))
    (p,) = variables((5,), dtype="float64")
    start, grads = numpy(p), gradients([p], 6)
    take(Optimizer(rule), [p], grads)
    assert difference(numpy(p), descend(rule, start, [g for (g,) in grads])) < 1e-12


@pytest.mark.parametrize("kind", [thalweg.ClipByNorm, thalweg.ClipByGlobalNorm])
def test_norms_are_each_steps_own(kind, float64, path):
    rule = thalweg.chain(kind(0.7), thalweg.Momentum(0.1))
    (p,) = variables((5,), dtype="float64")
    wanted, b = numpy(p), 0.0
    grads = gradients([p], 3)
    take(Optimizer(rule), [p], grads)
    for (g,) in grads:
        b = 0.9 * b + g * min(1, 0.7 / np.linalg.norm(g))
        wanted = wanted - 0.1 * b
    assert difference(numpy(p), wanted) < 1e-12


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_compute_in_float32(dtype, path):
    (p,) = variables((6,), dtype=dtype)
    grads = gradients([p], 3)
    rule = thalweg.Adam(0.01, epsilon=1e-8)  # this ε is zero in float16
    round_ = lambda x: numpy(ops.cast(ops.convert_to_tensor(np.asarray(x, "float32")), dtype))  # noqa: E731
    wanted, driver = numpy(p), Driver(rule)
    for (g,) in grads:
        wanted = round_(wanted - driver.step(wanted, round_(g)))
        driver.states[0] |= {k: round_(v) for k, v in driver.states[0].items()}
    optimizer = Optimizer(rule)
    take(optimizer, [p], grads)
    assert {v.dtype for v in optimizer.variables[2:]} == {dtype}
    np.testing.assert_array_equal(numpy(p), wanted)


@pytest.mark.usefixtures("names")
def test_a_rule_registered_later():
    @thalweg.register
    class Later(Rule):
        """Half of the gradient."""

        lr: Scalar = 0.25
        share: Scalar = 0.5
        decay: Scalar = 1.0  # no decay of the learning rate

        def update(self, t, g, s=0):
            s = s + g**2
            return self.lr * self.share * g / sqrt(s + self.decay), s

    (p,) = variables((3,))
    start, grads = numpy(p), gradients([p], 3)
    optimizer = thalweg.keras.Later(learning_rate=0.5, share=0.1, decay=2.0, clipvalue=5.0)
    take(optimizer, [p], grads)
    assert difference(numpy(p), descend(Later(0.5, 0.1, 2.0), start, [g for (g,) in grads])) < 1e-6
    assert "Later" in dir(thalweg.keras)
    assert type(keras.optimizers.get("thalweg>Later")) is type(optimizer)
    assert keras.optimizers.deserialize(keras.optimizers.serialize(optimizer)).share == 0.1


# -- old course code, names and keywords --------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (
            lambda k: k.SGD(lr=0.01, decay=1e-6, momentum=0.9, nesterov=True),
            thalweg.get("nesterov", dialect="keras", lr=TimeDecay(0.01, 1e-6), momentum=0.9),
        ),
        (
            lambda k: k.Adagrad(lr=0.01, epsilon=None, decay=0.0),
            thalweg.get("adagrad", dialect="keras", lr=0.01, epsilon=1e-3),
        ),
        (
            lambda k: k.RMSprop(lr=0.001, rho=0.8, epsilon=None, decay=0.5),
            thalweg.get("rmsprop", dialect="keras", lr=TimeDecay(0.001, 0.5), rho=0.8, epsilon=1e-3),
        ),
        (
            lambda k: k.Adam(lr=0.001, beta_1=0.8, beta_2=0.99, epsilon=None, decay=0.0, amsgrad=False),
            thalweg.get("adam", dialect="keras", beta_1=0.8, beta_2=0.99, epsilon=1e-3),
        ),
        (
            lambda k: k.Adamax(lr=0.002, epsilon=None, decay=0.1),
            thalweg.get("adamax", dialect="keras", lr=TimeDecay(0.002, 0.1), epsilon=1e-3),
        ),
        (
            lambda k: k.Nadam(lr=0.002, beta_1=0.9, beta_2=0.999, epsilon=None, schedule_decay=0.004),
            thalweg.get("nadam", dialect="keras", lr=0.002, psi=0.004, epsilon=1e-3),
        ),
        (lambda k: k.SGD(lr=0.01, clipnorm=1.0), thalweg.chain(thalweg.ClipByNorm(1.0), thalweg.SGD(0.01))),
        (lambda k: k.SGD(lr=0.01, clipvalue=0.5), thalweg.chain(thalweg.ClipByValue(0.5), thalweg.SGD(0.01))),
    ],
)
def test_old_course_code(made, wanted, float64):
    before = keras.config.epsilon()
    keras.config.set_epsilon(1e-3)  # what epsilon=None means
    try:
        optimizer = made(thalweg.keras)
    finally:
        keras.config.set_epsilon(before)
    (p,) = variables((4,), dtype="float64")
    start, grads = numpy(p), gradients([p], 4)
    take(optimizer, [p], grads)
    assert difference(numpy(p), descend(wanted, start, [g for (g,) in grads])) < 1e-12
    again = type(optimizer).from_config(json.loads(json.dumps(optimizer.get_config())))
    assert (again.rule, again.get_config()) == (optimizer.rule, optimizer.get_config())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda k: k.Adam(learing_rate=1),
            "Adam has no hyperparameter 'learing_rate'; did you mean 'learning_rate'",
        ),
        (lambda k: k.SGD(lr=0.1, learning_rate=0.1), "lr and learning_rate are the same"),
        (lambda k: k.SGD(lr=lambda: 0.1, decay=0.1), "decay is for a learning rate that is a number"),
        (lambda k: k.SGD(lr=0.1, decay=-0.1), r"decay must lie in \[0, ∞\), got -0.1"),
        (lambda k: k.SGD(lr=-1), r"lr must lie in \[0, ∞\), got -1"),
        (lambda k: k.Adam(beta_1=1.0), r"beta_1 must lie in \[0, 1\), got 1.0"),
        (lambda k: k.Adam(clipnorm=1.0, clipvalue=1.0), "Only one of"),
        (lambda k: k.AdamW(weight_decay=None), "AdamW: weight_decay is a number, got None"),
        (lambda k: k.Optimizer(thalweg.Adam(), decay=0.1), "no hyperparameter 'decay'"),
        (lambda k: k.Adam(dialect="kears"), "did you mean 'keras'"),
        (lambda k: k.Adam(*range(40)), "too many positional"),
        (lambda k: k.Optimizer("adam"), "Optimizer takes a rule"),
        (lambda k: k.Adam("adam"), "adam: lr is a number or a schedule .*, got 'adam'"),
        (lambda k: k.Adam(betas=(0.9, 0.99)), "did you mean 'beta_1' or 'beta_2'"),
        (lambda k: k.Optimizer(thalweg.Adam(), clipnrm=1), "did you mean 'clipnorm'"),
        (lambda k: k.get("adm"), "did you mean 'adam'"),
        (lambda k: k.get(3), "Could not interpret"),
    ],
)
def test_what_is_wrong_is_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call(thalweg.keras)


def test_unknown_dialects_and_attributes():
    with pytest.raises(UnknownDialectError):
        thalweg.keras.SGD(dialect="x")
    with pytest.raises(AttributeError, match="did you mean 'Adam'"):
        thalweg.keras.Adm  # noqa: B018


def test_learning_rates_of_all_kinds():
    for given in (1, np.float32(1), np.array(1.0), 1.0):
        assert float(thalweg.keras.SGD(given).learning_rate) == 1.0
    assert thalweg.keras.SGD(lambda: 0.5).learning_rate == 0.5
    (p,) = variables((2,))
    start = numpy(p)
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 2.0])
    take(Optimizer(thalweg.SGD(rate)), [p], [[np.ones(2)], [np.ones(2)]])
    np.testing.assert_allclose(numpy(p), start - 3)
    optimizer = thalweg.keras.Adam(0.1)
    optimizer.learning_rate = 0.5
    assert float(optimizer.learning_rate) == 0.5
    optimizer.lr = 0.25
    assert float(optimizer.learning_rate) == float(optimizer.lr) == 0.25
    optimizer.lr.assign(optimizer.lr * 0.5)
    assert float(optimizer.learning_rate) == 0.125


@pytest.mark.parametrize("name", ["sgd", "Momentum", "nag", "AMSGrad", "thalweg>RAdam", "AdaMax", "adan"])
def test_get_by_name(name):
    optimizer = thalweg.keras.get(name)
    assert isinstance(optimizer, keras.optimizers.Optimizer)
    assert optimizer.rule == type(optimizer)().rule
    assert isinstance(optimizer.rule, find(name.removeprefix("thalweg>")))


def test_get_takes_what_keras_takes():
    written = keras.optimizers.serialize(keras.optimizers.Adam(0.5))
    made = thalweg.keras.get(written)
    assert (type(made), float(made.learning_rate)) == (thalweg.keras.Adam, 0.5)
    assert thalweg.keras.get(made) is made
    theirs = keras.optimizers.Ftrl()
    assert thalweg.keras.get(theirs) is theirs
    assert isinstance(thalweg.keras.get(keras.optimizers.serialize(theirs)), keras.optimizers.Ftrl)
    assert thalweg.keras.get(thalweg.Adan(0.5)).rule == thalweg.Adan(0.5)
    ours = keras.optimizers.serialize(Optimizer(thalweg.Adan(0.5)))
    assert thalweg.keras.get(ours).rule == thalweg.Adan(0.5)
    with pytest.raises(UnknownRuleError):
        thalweg.keras.get("ftrl")


def test_a_string_compiles(digits):
    model = fit("thalweg>RMSprop", digits, epochs=1, run_eagerly=True)
    assert type(model.optimizer) is thalweg.keras.RMSprop
    assert int(model.optimizer.iterations) == 5
    for name in thalweg.rules():
        kind = getattr(thalweg.keras, name)
        assert type(keras.optimizers.get(f"thalweg>{kind.__name__}")) is kind


def test_settings_are_attributes():
    optimizer = thalweg.keras.Adam(beta_1=0.8)
    assert (optimizer.beta_1, optimizer.amsgrad) == (0.8, False)
    (p,) = variables((2,))
    take(optimizer, [p], gradients([p], 1))
    optimizer.beta_1 = 0.5
    assert optimizer.rule.beta_1 == optimizer.get_config()["beta_1"] == 0.5
    with pytest.raises(ValueError, match=r"beta_1 must lie in \[0, 1\)"):
        optimizer.beta_1 = 2.0
    with pytest.raises(ValueError, match="form"):
        optimizer.amsgrad = True
    assert (optimizer.beta_1, optimizer.amsgrad) == (0.5, False)


@pytest.mark.parametrize("change", ["setting", "option", "rule", "hyperparameter", "rate", "lr"])
def test_what_is_set_between_steps_counts(change, float64, path):
    (p,) = variables((3,), dtype="float64")
    start, grads = numpy(p), gradients([p], 2)
    named = change in ("setting", "option", "rate")
    optimizer = thalweg.keras.Momentum(0.1, 0.9) if named else Optimizer(thalweg.Momentum(0.1, 0.9))
    take(optimizer, [p], grads[:1])
    momentum, limit, rate = 0.9, np.inf, 0.1
    if change == "setting":
        optimizer.momentum = momentum = 0.2
    elif change == "rule":
        optimizer.rule, momentum = thalweg.Momentum(0.1, 0.3), 0.3
    elif change == "hyperparameter":
        optimizer.momentum = momentum = 0.3
    elif change == "rate":
        optimizer.learning_rate = rate = 0.5
    elif change == "lr":
        optimizer.lr = rate = 0.5
    else:
        optimizer.clipvalue = limit = 0.01
    take(optimizer, [p], grads[1:])
    step = 0.1 * grads[0][0]
    wanted = start - step
    wanted = wanted - (momentum * step + rate * np.clip(grads[1][0], -limit, limit))
    if not named:  # there, the velocity holds gradients
        wanted = start - step - rate * (momentum * grads[0][0] + grads[1][0])
    assert difference(numpy(p), wanted) < 1e-12


@pytest.mark.parametrize("name", thalweg.rules())
def test_every_hyperparameter_is_an_attribute(name):
    rule = thalweg.get(name)
    optimizer = Optimizer(rule)
    assert float(optimizer.lr) == float(optimizer.learning_rate) == pytest.approx(rule.lr)
    for field, value in rule.values.items():
        if field == "lr":
            continue
        assert getattr(optimizer, field) == value
        setattr(optimizer, field, 0.5)
        assert getattr(optimizer, field) == getattr(optimizer.rule, field) == 0.5
        with pytest.raises(ValueError, match=rf"{field} must lie in"):
            setattr(optimizer, field, -1.0)
    again = Optimizer.from_config(optimizer.get_config())
    assert again.rule.replaced(lr=0.0) == optimizer.rule.replaced(lr=0.0)
    with pytest.raises(AttributeError, match="'Optimizer' object has no attribute 'beta_9'"):
        _ = optimizer.beta_9


def test_hyperparameters_of_treatments_and_options_are_attributes(float64, path):
    optimizer = Optimizer(thalweg.chain(thalweg.ClipByValue(0.5), thalweg.AdamW(weight_decay=0.1)))
    assert (optimizer.clip_value, optimizer.weight_decay, optimizer.clipvalue) == (0.5, 0.1, None)
    optimizer.weight_decay = 0.2
    assert optimizer.rule.rule.weight_decay == 0.2
    assert Optimizer(thalweg.AdamW(), weight_decay=0.3).rule.weight_decay == 0.3
    assert Optimizer(thalweg.AdamW(weight_decay=WarmUp(3, 0.1))).get_config()["weight_decay"] is None
    (p,) = variables((3,), dtype="float64")
    start, (g,) = numpy(p), gradients([p], 1)[0]
    optimizer = Optimizer(thalweg.chain(thalweg.ClipByValue(0.5), thalweg.SGD(1.0)))
    take(optimizer, [p], [[g]])
    optimizer.clip_value = 0.1
    take(optimizer, [p], [[g]])
    assert difference(numpy(p), start - 0.6 * np.sign(g)) < 1e-12


def test_in_a_compiled_step_a_rate_counts_at_once_and_the_rest_after_compile():
    optimizer = Optimizer(thalweg.chain(thalweg.ClipByValue(1.0), thalweg.SGD(1.0)))
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, "linear", use_bias=False)])

    def moved(compile=False):
        if compile:
            model.compile(optimizer, loss=lambda y, prediction: 100 * ops.mean(prediction))
        before = numpy(model.weights[0])
        model.fit(np.ones((1, 1)), np.ones((1, 1)), verbose=0)
        return float((before - numpy(model.weights[0])).item())

    assert moved(compile=True) == pytest.approx(1.0, abs=1e-5)
    optimizer.lr = 0.5
    assert moved() == pytest.approx(0.5, abs=1e-5)
    optimizer.clip_value = 0.1
    assert moved() == pytest.approx(0.05 if BACKEND == "torch" else 0.5, abs=1e-5)
    assert moved(compile=True) == pytest.approx(0.05, abs=1e-5)


def test_own_optimizers_may_derive_from_ours():
    class Mine(thalweg.keras.Adam):
        def __init__(self):
            super().__init__(0.5, beta_1=0.7)

    assert Mine().rule.beta_1 == 0.7
    assert keras.saving.get_registered_name(Mine) == "Mine"


# -- schedules --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schedule",
    [
        WarmUp(4, Cosine(0.05, 8, 0.001)),
        WarmUpStableDecay(0.05, 3, 3, 5, 0.001),
        lambda t: 0.05 / t if t < 9 else 0.02,  # can only be called with a number
    ],
    ids=["WarmUp", "WarmUpStableDecay", "function"],
)
def test_schedules_in_compiled_steps(schedule, digits):
    found = fit(thalweg.keras.SGD(schedule, momentum=0.9), digits)
    table = keras.optimizers.schedules.PiecewiseConstantDecay(
        list(range(16)), [float(schedule(t)) for t in range(1, 18)]
    )
    wanted = fit(thalweg.keras.SGD(table, momentum=0.9), digits)
    assert largest_difference(map(numpy, found.weights), map(numpy, wanted.weights)) < ROUNDING


def test_schedules_of_other_hyperparameters_in_compiled_steps(digits):
    rule = thalweg.Momentum(0.01, momentum=WarmUp(8, 0.9))
    found, wanted = (fit(Optimizer(rule), digits, run_eagerly=eagerly) for eagerly in (False, True))
    assert deviation(found, wanted) < ROUNDING


# -- configuration and saved state -------------------------------------------------------------------


CONFIGURED = [
    lambda: thalweg.keras.Adam(0.5, clipnorm=2.0, amsgrad=True, name="mine"),
    lambda: thalweg.keras.RMSprop(dialect="torch", momentum=0.5),
    lambda: thalweg.keras.Nadam(schedule_decay=0.004, weight_decay=0.1),
    lambda: thalweg.keras.SGD(WarmUp(3, Cosine(0.1, 10)), momentum=0.5),
    lambda: thalweg.keras.Adan(beta_2=Exponential(0.9, 0.5), use_ema=True),
    lambda: thalweg.keras.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10)),
    lambda: Optimizer(thalweg.chain(thalweg.ClipByNorm(1.0), thalweg.L2(WarmUp(2, 0.1)), thalweg.Lion(0.5))),
    lambda: Optimizer(thalweg.Adam(Cosine(0.1, 10)), clipvalue=1.0, weight_decay=0.2),
]


@pytest.mark.parametrize("made", CONFIGURED)
def test_configurations_go_through_json(made):
    optimizer = made()
    written = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    again = keras.optimizers.deserialize(written)
    assert type(again) is type(optimizer)
    assert again.get_config() == optimizer.get_config()
    assert again._treated().replaced(lr=0.0) == optimizer._treated().replaced(lr=0.0)


def test_what_cannot_be_written_or_read_is_named():
    class Unnamed(Rule):
        lr: Scalar = 0.1

        def update(self, t, g):
            return self.lr * g

    config = Optimizer(Unnamed(0.5)).get_config()
    assert Optimizer.from_config(config).rule == Unnamed(0.5)
    config["rule"]["name"] = "elsewhere:Unnamed"
    with pytest.raises(UnknownRuleError, match="import elsewhere first"):
        Optimizer.from_config(config)
    config = Optimizer(thalweg.chain(thalweg.L2(1.0), thalweg.SGD(TimeDecay(1.0, 1.0)))).get_config()
    config["rule"]["treatments"][0]["name"] = "L3"
    with pytest.raises(ValueError, match="no treatment is named 'L3'"):
        Optimizer.from_config(config)
    with pytest.raises(ValueError, match="no schedule is named 'Cosin'; did you mean 'Cosine'"):
        thalweg.keras.Adam.from_config({"beta_1": {"schedule": "Cosin"}})


@pytest.mark.parametrize(
    "made",
    [
        lambda: thalweg.keras.Nadam(0.01, clipnorm=1.0, use_ema=True),
        lambda: thalweg.keras.RMSprop(0.01, momentum=0.9, centered=True),
        lambda: Optimizer(thalweg.chain(thalweg.ClipByGlobalNorm(0.1), thalweg.Adan(WarmUp(9, 0.01)))),
    ],
)
def test_a_saved_model_goes_on_exactly(made, digits, tmp_path):
    first = fit(made(), digits, epochs=1, run_eagerly=True)
    first.save(tmp_path / "model.keras")
    second = keras.models.load_model(tmp_path / "model.keras")
    assert type(second.optimizer) is type(first.optimizer)
    for model in (first, second):
        model.fit(*digits, batch_size=64, epochs=1, verbose=0, shuffle=False)
    pairs = zip(
        (*first.weights, *first.optimizer.variables),
        (*second.weights, *second.optimizer.variables),
        strict=True,
    )
    for a, b in pairs:
        np.testing.assert_array_equal(numpy(a), numpy(b))


def stateful(kind, width=16, **settings):
    """A model with an optimizer that has taken a step."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(width)])
    model.compile(optimizer=kind(**settings), loss="mse")
    model.optimizer.build(model.trainable_variables)
    take(model.optimizer, model.trainable_variables, gradients(model.trainable_variables, 1))
    return model


@pytest.mark.parametrize(
    ("writer", "reader", "message"),
    [
        (("RMSprop", {}), ("RMSprop", {"centered": True}), "the state has 4 variables, this optimizer 6"),
        (("Adamax", {}), ("Adam", {}), "was written by 'adamax.*slots m, u; this optimizer has m, v"),
        (("SGD", {"momentum": 0.9}), ("Lion", {}), "was written by 'sgd.*slots b; this optimizer has m"),
        (("Nadam", {}), ("Adam", {}), "was written by 'nadam"),
    ],
)
@pytest.mark.parametrize("source", ["keras.optimizers", "thalweg.keras"])
def test_a_state_that_does_not_fit_is_refused(writer, reader, message, source, tmp_path):
    module = keras.optimizers if source == "keras.optimizers" else thalweg.keras
    written = stateful(getattr(module, writer[0]), **writer[1])
    written.save_weights(tmp_path / "x.weights.h5")
    model = stateful(getattr(thalweg.keras, reader[0]), **reader[1])
    before = [numpy(v) for v in model.optimizer.variables]
    with pytest.raises(ValueError, match=message):
        model.load_weights(tmp_path / "x.weights.h5")
    for old, v in zip(before, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(numpy(v), old)


def test_a_state_of_another_shape_is_refused():
    model, other = stateful(thalweg.keras.Adam), stateful(thalweg.keras.Adam, width=3)
    values = [numpy(v) for v in other.optimizer.variables]
    before = [numpy(v) for v in model.optimizer.variables]
    with pytest.raises(
        ValueError, match=r"variable 2, .*kernel_momentum, has shape \(4, 16\), in the state \(4, 3\)"
    ):
        model.optimizer.set_weights(values)
    with pytest.raises(ValueError, match="the state has 5 variables, this optimizer 6"):
        model.optimizer.set_weights(before[:-1])
    with pytest.raises(ValueError, match="the state has no variable 5"):
        model.optimizer.load_own_variables({str(i + (i == 5)): v for i, v in enumerate(before)})
    for old, v in zip(before, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(numpy(v), old)
    model.optimizer.set_weights([2 * v for v in before])
    np.testing.assert_array_equal(numpy(model.optimizer.variables[2]), 2 * before[2])


def compiled(kind, width=16, **settings):
    """A model with an optimizer that has no state yet."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(width)])
    model.compile(optimizer=kind(**settings), loss="mse")
    return model


@pytest.mark.parametrize(
    "made", [thalweg.keras.Adam, lambda: Optimizer(thalweg.Adan())], ids=["Adam", "rule"]
)
def test_weights_go_into_a_model_that_has_not_been_trained(made, tmp_path):
    """What KerasTuner's `get_best_models` does: it builds and compiles anew, and loads the weights."""
    path = tmp_path / "checkpoint.weights.h5"
    best = stateful(made)
    best.save_weights(path)
    model = compiled(made)
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer .* it has 2 variables"):
        model.load_weights(path)
    for a, b in zip(model.weights, best.weights, strict=True):
        np.testing.assert_array_equal(numpy(a), numpy(b))
    model.fit(np.ones((8, 4)), np.ones((8, 16)), verbose=0)
    assert int(model.optimizer.iterations) == 1
    model.load_weights(path)  # now it has a state, which is that of the file
    assert deviation(model, best) == 0
    another = compiled(made)
    another.load_weights(path, objects_to_skip=[another.optimizer])


def test_a_model_that_was_saved_before_training(tmp_path):
    compiled(thalweg.keras.Adam, learning_rate=0.5).save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="the saved optimizer has 2 variables"):
        model = keras.models.load_model(tmp_path / "model.keras")
    assert (float(model.optimizer.lr), int(model.optimizer.iterations)) == (0.5, 0)
    model.fit(np.ones((8, 4)), np.ones((8, 16)), verbose=0)


def test_weights_without_a_state_leave_it(tmp_path):
    model = stateful(thalweg.keras.Adam)
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(16)]).save_weights(tmp_path / "x.weights.h5")
    with pytest.warns(UserWarning, match="the saved optimizer has 0 variables"):
        model.load_weights(tmp_path / "x.weights.h5")
    assert int(model.optimizer.iterations) == 1


def test_mismatches_are_skipped_where_that_is_asked_for(tmp_path):
    stateful(thalweg.keras.Adamax).save_weights(tmp_path / "x.weights.h5")
    model = stateful(thalweg.keras.Adam)
    with pytest.warns(UserWarning, match="was written by 'adamax"):
        model.load_weights(tmp_path / "x.weights.h5", skip_mismatch=True)
    assert int(model.optimizer.iterations) == 1


@pytest.mark.parametrize(
    "made", [thalweg.keras.Nadam, lambda: Optimizer(thalweg.Adan())], ids=["Nadam", "rule"]
)
def test_clones_and_copies_of_models(made, tmp_path):
    model = stateful(made)
    clone = keras.models.clone_model(model)
    clone.compile_from_config(model.get_compile_config())
    assert clone.optimizer.rule.replaced(lr=0.0) == model.optimizer.rule.replaced(lr=0.0)
    assert int(clone.optimizer.iterations) == 0
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert deviation(copied, model) == 0
        take(copied.optimizer, copied.trainable_variables, gradients(model.trainable_variables, 1))
        assert int(copied.optimizer.iterations) == 2
    assert int(model.optimizer.iterations) == 1
    with pytest.warns(UserWarning, match="Skipping variable loading"):  # as of Keras's own: alone, it is new
        assert type(copy.deepcopy(model.optimizer)) is type(model.optimizer)


READ = "import keras; print(type(keras.models.load_model({path!r}).optimizer))"


@pytest.mark.parametrize("made", [thalweg.keras.Adam, lambda: Optimizer(thalweg.Adan()), thalweg.keras.RAdam])
def test_a_model_file_names_what_to_import(made, tmp_path):
    path = str(tmp_path / "model.keras")
    stateful(made).save(path)
    done = python(READ.format(path=path), KERAS_BACKEND=BACKEND)
    assert "make sure they are all imported" in done.stderr
    assert "config: {'module': 'thalweg.keras', " in done.stderr
    assert "thalweg.keras" in output(
        python("import thalweg.keras; " + READ.format(path=path), KERAS_BACKEND=BACKEND)
    )


# -- mixed precision, constraints, unusual gradients -----------------------------------------------------


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy, digits):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        eagerly = policy == "mixed_bfloat16"  # JAX scales losses in compiled steps only
        found, wanted = (
            fit(kind(0.01), digits, epochs=1, run_eagerly=eagerly) for kind in reversed(both("Adam"))
        )
    finally:
        keras.config.set_dtype_policy(before)
    scaled = isinstance(found.optimizer, keras.mixed_precision.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    assert deviation(found, wanted) < 1e-3


@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("guard", ["LossScaleOptimizer", "SkipNonFinite"])
@pytest.mark.parametrize("use_ema", [True, False])
def test_a_skipped_step_changes_nothing(guard, bad, use_ema, path):
    skipping = thalweg.chain(thalweg.SkipNonFinite(), thalweg.Nadam(0.1))
    optimizer = outer = Optimizer(skipping, use_ema=use_ema)
    if guard == "LossScaleOptimizer":
        optimizer = thalweg.keras.Nadam(0.1, use_ema=use_ema)
        outer = keras.mixed_precision.LossScaleOptimizer(optimizer)
    params = variables((3, 2), (4,))
    good, (kernel, bias) = gradients(params, 2)
    outer.build(params)
    step = take_statelessly if BACKEND == "jax" else take  # there, Keras's own can do it in no other way
    step(outer, params, [good])
    before = [numpy(v) for v in (*params, *optimizer.variables)]
    bias[1] = bad
    step(outer, params, [(kernel, bias)])
    for old, v in zip(before, (*params, *optimizer.variables), strict=True):
        np.testing.assert_array_equal(numpy(v), old)
    step(outer, params, [good])
    assert int(optimizer.iterations) == 2
    assert difference(numpy(params[0]), before[0]) > 1e-3


def test_a_skipped_step_in_a_compiled_one(digits):
    x, y = digits
    x = x.copy()
    x[70] = np.nan
    rule = thalweg.chain(thalweg.SkipNonFinite(), thalweg.Nadam(0.01))
    keras.utils.set_random_seed(0)
    model = fit(Optimizer(rule), (x, y), epochs=2)
    assert int(model.optimizer.iterations) == 8  # of ten steps, one an epoch is skipped
    assert all(np.isfinite(numpy(v)).all() for v in (*model.weights, *model.optimizer.variables))


def test_constraints_are_kept(path):
    results = []
    for kind in both("Adam"):
        (p,) = variables((5,))
        p.constraint = keras.constraints.NonNeg()
        take(kind(0.5), [p], gradients([p], 3))
        results.append(numpy(p))
    assert results[1].min() == 0
    assert difference(results[1], results[0]) < ROUNDING


def test_a_constraint_set_later_is_kept():
    (p,) = variables((5,))
    optimizer = thalweg.keras.SGD(0.5)
    take(optimizer, [p], gradients([p], 2))
    p.constraint = keras.constraints.NonNeg()
    take(optimizer, [p], gradients([p], 1))
    assert numpy(p).min() == 0


def test_variables_that_their_gradient_overwrites():
    params = variables((3,), (2,))
    params[1].overwrite_with_gradient = True
    optimizer = thalweg.keras.Adam(0.5)
    for step in gradients(params, 2):
        take(optimizer, params, [step])
        np.testing.assert_allclose(numpy(params[1]), step[1], rtol=1e-6)
    assert len(optimizer.variables) == 4


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "Adam", "RMSprop"])
def test_variables_without_a_gradient_stay(name, path):
    results = []
    for kind in both(name):
        params = variables((3, 2), (4,))
        optimizer = kind(0.1)
        grads = gradients(params, 4)
        for i, step in enumerate(grads):
            absent = [None, step[1]] if i % 2 else step
            with warnings.catch_warnings():  # Keras warns of absent gradients, rightly
                warnings.simplefilter("ignore", UserWarning)
                take(optimizer, params, [absent])
        results.append([numpy(v) for v in (*params, *optimizer.variables)])
    assert largest_difference(results[1], results[0]) < ROUNDING


def sparse(dense, times=1):
    """That gradient in the back end's sparse form: only the rows that are not zero, some several times."""
    rows = np.flatnonzero(np.any(dense != 0, axis=1))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        shares = np.concatenate([dense[rows] / times] * times)  # they are summed
        return tf.IndexedSlices(tf.constant(shares, tf.float32), tf.constant([*rows] * times), dense.shape)
    if BACKEND == "torch":
        import torch

        return torch.sparse_coo_tensor(
            rows[None], dense[rows].astype("float32"), dense.shape, check_invariants=True
        )
    from jax.experimental import sparse as jax_sparse

    return jax_sparse.BCOO((dense[rows].astype("float32"), rows[:, None].astype("int32")), shape=dense.shape)


@pytest.mark.parametrize("name", thalweg.rules())
def test_sparse_gradients_mean_zeros_elsewhere(name):
    results = []
    for form in (lambda g: sparse(g, 2), lambda g: ops.convert_to_tensor(g, "float32")):
        (p,) = variables((5, 3))
        optimizer = getattr(thalweg.keras, name)(0.1, clipnorm=1.0)
        for (g,) in gradients([p], 3):
            g[[1, 3]] = 0
            optimizer.apply([form(g)], [p])
        results.append(numpy(p))
    assert difference(*results) < 1e-5


@on["tensorflow"]
@pytest.mark.parametrize("name", NINE)
def test_sparse_gradients_do_as_in_keras(name):  # which squares before it sums the shares of a row
    results = []
    for kind in both(name):
        (p,) = variables((5, 3))
        optimizer = kind(0.1)
        for (g,) in gradients([p], 3):
            g[[1, 3]] = 0
            optimizer.apply([sparse(g)], [p])
        results.append(numpy(p))
    assert difference(results[1], results[0]) < ROUNDING


@on["tensorflow"]
def test_the_sparse_gradients_of_an_embedding_in_a_compiled_step():
    results = []
    for kind in both("Adam"):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((2,)), keras.layers.Embedding(10, 3), keras.layers.Flatten(), keras.layers.Dense(1)]
        )
        model.compile(optimizer=kind(0.01), loss="mse")
        model.fit(np.arange(8).reshape(4, 2), np.ones((4, 1)), epochs=3, verbose=0)
        results.append([numpy(v) for v in model.weights])
    assert largest_difference(results[1], results[0]) < ROUNDING


# -- one back end's own ---------------------------------------------------------------------------------


if BACKEND == "torch":
    import torch

    from thalweg.keras import fused


@on["torch"]
def test_the_kernel_takes_the_steps(digits, monkeypatch):
    taken = []
    step = fused.Plan.step
    monkeypatch.setattr(fused.Plan, "step", lambda self, t, rate: taken.append(t) or step(self, t, rate))
    fit(thalweg.keras.Adam(weight_decay=0.1, global_clipnorm=1.0), digits, epochs=2)
    assert taken == list(range(1, 11))


@on["torch"]
def test_only_the_first_step_goes_through_keras(monkeypatch):
    through_keras = []
    original = fused.ArrayOptimizer.apply
    monkeypatch.setattr(
        fused.ArrayOptimizer, "apply", lambda self, *a: through_keras.append(1) or original(self, *a)
    )
    params = variables((3, 2), (4,))
    for optimizer in (thalweg.keras.Nadam(clipnorm=1.0), thalweg.keras.AdamW(Cosine(0.1, 5))):
        take(optimizer, params, gradients(params, 4))
        assert int(optimizer.iterations) == 4
    assert len(through_keras) == 2


@on["torch"]
@pytest.mark.parametrize(
    "what", ["value", "data", "slot", "transposed", "gradient dtype", "strided gradient"]
)
def test_a_kernel_follows_what_moves(what, float64):
    p = keras.Variable(np.arange(6.0).reshape(2, 3), dtype="float64")
    optimizer = thalweg.keras.Adam(0.1)
    wanted, grads = numpy(p), gradients([p], 4)
    rule = thalweg.get("adam", dialect="keras", lr=0.1)
    wanted = descend(rule, wanted, [g for (g,) in grads])
    take(optimizer, [p], grads[:2])
    m = optimizer.variables[2]
    if what == "value":
        p._value = torch.nn.Parameter(p._value.detach().clone())
    elif what == "data":
        p._value.data = p._value.data.clone()
    elif what == "slot":
        m._value.data = m._value.data.clone()
    elif what == "transposed":
        p._value.data = p._value.data.t().contiguous().t()
    for (g,) in grads[2:]:
        tensor = torch.as_tensor(g)
        if what == "gradient dtype":
            tensor = tensor.float()
        if what == "strided gradient":
            tensor = tensor.t().contiguous().t()
        optimizer.apply([tensor], [p])
    assert difference(numpy(p), wanted) < (1e-7 if what == "gradient dtype" else 1e-12)
    assert int(optimizer.iterations) == 4


@on["torch"]
def test_a_kernel_follows_a_variable_that_is_turned_where_it_lies():
    p = keras.Variable(np.arange(4.0).reshape(2, 2))
    optimizer = thalweg.keras.SGD(0.5)
    wanted, (first, second) = numpy(p), (g for (g,) in gradients([p], 2))
    take(optimizer, [p], [[first]])
    p._value.data = p._value.data.t()
    take(optimizer, [p], [[second]])
    assert difference(numpy(p), (wanted - 0.5 * first).T - 0.5 * second) < 1e-6


@on["torch"]
def test_each_gradient_goes_to_its_variable():
    a, b = variables((3,), (3,))
    optimizer = thalweg.keras.SGD(0.5)
    start = numpy(a), numpy(b)
    ones = [np.ones(3), np.full(3, 2.0)]
    take(optimizer, [a, b], [ones])
    take(optimizer, [b, a], [ones])
    np.testing.assert_allclose(numpy(a), start[0] - 1.5, rtol=1e-6)
    np.testing.assert_allclose(numpy(b), start[1] - 1.5, rtol=1e-6)
    with pytest.raises(ValueError, match="2 gradients for 1 variables"):
        optimizer.apply([torch.ones(3), torch.ones(3)], [b])


@on["torch"]
def test_the_global_norm_is_over_all_dtypes(path):
    params = [*variables((3,), dtype="float64"), *variables((2, 2))]
    starts, (grads,) = [numpy(v) for v in params], gradients(params, 1)
    optimizer = thalweg.keras.SGD(0.5, global_clipnorm=0.1)
    take(optimizer, params, [grads])
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in grads))
    for start, g, p in zip(starts, grads, params, strict=True):
        assert difference(numpy(p), start - 0.5 * g * 0.1 / norm) < 1e-6


@on["torch"]
def test_a_gradient_of_another_shape_is_refused():
    (p,) = variables((3, 2))
    optimizer = thalweg.keras.SGD(0.1)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"the gradient of \w+ has shape \(2, 3\), \w+ \(3, 2\)"):
            optimizer.apply([torch.ones(2, 3)], [p])
        take(optimizer, [p], gradients([p], 1))


@on["torch"]
def test_a_variable_that_is_not_contiguous():
    values = torch.arange(6.0).reshape(2, 3).t()
    p = keras.Variable(values)
    assert not p.value.is_contiguous()
    optimizer = thalweg.keras.Adam(0.1)
    start, grads = numpy(p), gradients([p], 3)
    take(optimizer, [p], grads)
    rule = thalweg.get("adam", dialect="keras", lr=0.1)
    assert difference(numpy(p), descend(rule, start, [g for (g,) in grads])) < 1e-6
    assert fused.Plan in {type(plan) for plan in optimizer._own.plans.values()}


@on["torch"]
def test_variables_of_several_dtypes(path):
    params = [*variables((3,), dtype="float64"), *variables((2, 2)), *variables((3,), dtype="bfloat16")]
    starts, grads = [numpy(v) for v in params], gradients(params, 3)
    take(thalweg.keras.Nadam(0.1, global_clipnorm=0.5), params, grads)
    for start, p in zip(starts, params, strict=True):
        assert p.dtype in ("float64", "float32", "bfloat16")
        assert 0.1 < np.abs(numpy(p) - start).max() < 0.5


@on["torch"]
def test_autograd_learns_of_the_step():
    (p,) = variables((3,))
    optimizer = thalweg.keras.SGD(0.1)
    for _ in range(2):
        loss = (p.value**2).sum()
        version = p.value._version
        take(optimizer, [p], [[np.ones(3)]])
        assert p.value._version > version
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@on["torch"]
def test_large_variables_are_shared_among_threads():
    before = torch.get_num_threads()
    (p,) = variables((500, 300))
    start, grads = numpy(p), gradients([p], 2)
    try:
        torch.set_num_threads(2)
        take(thalweg.keras.Adam(0.1), [p], grads)
    finally:
        torch.set_num_threads(before)
    rule = thalweg.get("adam", dialect="keras", lr=0.1)
    assert difference(numpy(p), descend(rule, start, [g for (g,) in grads])) < 1e-6


@on["torch"]
def test_gradients_of_another_library_are_taken():
    (p,) = variables((3,))
    optimizer = thalweg.keras.SGD(0.5)
    start = numpy(p)
    for _ in range(2):
        optimizer.apply([np.ones(3, "float32")], [p])
    np.testing.assert_allclose(numpy(p), start - 1)


@on["torch"]
def test_a_compiled_function_may_hold_the_step():
    (p,) = variables((3,))
    optimizer = thalweg.keras.Adam(0.1)
    start, grads = numpy(p), gradients([p], 3)

    @torch.compile(backend="eager")
    def step(g):
        optimizer.apply([g * 1.0], [p])

    for (g,) in grads:
        step(torch.as_tensor(g, dtype=torch.float32))
    rule = thalweg.get("adam", dialect="keras", lr=0.1)
    assert difference(numpy(p), descend(rule, start, [g for (g,) in grads])) < 1e-6


@pytest.mark.skipif(BACKEND == "tensorflow", reason="Keras has no stateless_apply there")
@pytest.mark.parametrize("name", ["SGD", "Nadam"])
def test_stateless_apply_changes_nothing_and_returns_the_step(name):
    params = variables((3, 2), (4,))
    optimizer = getattr(thalweg.keras, name)(0.1)
    first, second = gradients(params, 2)
    take(optimizer, params, [first])
    before = [numpy(v) for v in (*params, *optimizer.variables)]
    new, state = optimizer.stateless_apply(
        [v.value for v in optimizer.variables],
        [ops.convert_to_tensor(g, "float32") for g in second],
        [v.value for v in params],
    )
    for old, v in zip(before, (*params, *optimizer.variables), strict=True):
        np.testing.assert_array_equal(numpy(v), old)
    take(optimizer, params, [second])
    for a, v in zip((*new, *state), (*params, *optimizer.variables), strict=True):
        assert difference(numpy(a), numpy(v)) < 1e-5


@on["jax"]
@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in NINE[3:]), ("Adam", {"global_clipnorm": 1.0, "weight_decay": 0.1})],
)
def test_a_compiled_step_costs_no_more_than_keras(name, options):
    import jax

    costs = []
    for kind in both(name):
        params = variables((300, 100), (100,))
        optimizer = kind(0.1, **options)
        optimizer.build(params)
        values = [v.value for v in params]
        state = [v.value for v in optimizer.variables]
        costs.append(
            jax.jit(optimizer.stateless_apply).lower(state, values, values).compile().cost_analysis()
        )
    assert costs[1]["bytes accessed"] <= costs[0]["bytes accessed"] * 1.01
    assert costs[1]["flops"] <= costs[0]["flops"] * 1.25


@on["tensorflow"]
def test_clipping_by_norm_on_several_replicas_is_refused(monkeypatch):
    class Strategy:
        num_replicas_in_sync = 2

    (p,) = variables((3,))
    optimizer = thalweg.keras.SGD(clipnorm=1.0)
    optimizer.build([p])
    monkeypatch.setattr(optimizer, "_distribution_strategy", Strategy())
    with pytest.raises(ValueError, match="none of 2 replicas has"):
        take(optimizer, [p], gradients([p], 1))


def test_without_keras_the_import_says_what_to_install():
    done = python("import sys; sys.modules['keras'] = None; import thalweg.keras")
    assert "ImportError: thalweg.keras needs Keras 3: pip install 'thalweg[keras]'" in done.stderr


def test_the_import_brings_in_no_other_front_end():
    source = "import sys, thalweg.keras; print(*[m for m in sys.modules if m.startswith('thalweg.')])"
    found = set(output(python(source, KERAS_BACKEND=BACKEND)).split())
    assert not found & {"thalweg.torch", "thalweg.jax", "thalweg.numpy"}


@on["torch"]
def test_threads_may_apply_one_optimizer(path):
    """One after the other: what is prepared for one step is not for another."""
    params = variables((40,))
    optimizer = thalweg.keras.SGD(1.0)
    optimizer.build(params)
    before = numpy(params[0])
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(optimizer.apply, [ops.ones(40)], params) for _ in range(100)]:
            done.result()
    assert difference(numpy(params[0]), before - 100) <= 1e-5
