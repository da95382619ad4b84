"""Every dialect of every rule against the framework itself: 200 steps in float64, values at random."""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jax
import keras
import numpy as np
import optax
import pytest
import torch
from numpy.typing import NDArray

import thalweg
from thalweg.dialects import DIALECTS, SPELLINGS
from thalweg.eager import descend
from thalweg.registry import find
from thalweg.rule import Rule
from thalweg.schedules import Exponential, TimeDecay

STEPS = 200
TOLERANCE = 1e-10
SEEDS = [(0, 1.0), (1, 1.0), (2, 0.98)]  # what is drawn, and the factor by which the rate falls each step

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Form:
    """One way of using a framework's optimizer, and the rule that it means.

    Attributes:
        rule: the rule's name.
        kind: the framework's.
        named: the rule's hyperparameter (or several) behind each of the framework's arguments; `l2`,
            `decay` and `lr_decay` are what is done around the rule.
        ours, theirs: what else is set on either side.
    """

    rule: str
    kind: str
    named: Mapping[str, Any] = field(default_factory=dict)
    ours: Mapping[str, Any] = field(default_factory=dict)
    theirs: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.rule, *self.ours, *(n for n in self.names if n in (*AROUND, "momentum"))])

    @property
    def names(self) -> list[str]:
        """The hyperparameters that the framework's arguments set."""
        return [n for names in self.named.values() for n in ((names,) if isinstance(names, str) else names)]


AROUND = ("l2", "decay", "lr_decay")


def torch_form(rule: str, kind: str, *, ours: Any = None, theirs: Any = None, **named: Any) -> Form:
    return Form(rule, kind, {"lr": "lr", **named}, ours or {}, theirs or {})


def other_form(rule: str, kind: str, *, ours: Any = None, theirs: Any = None, **named: Any) -> Form:
    return Form(rule, kind, {"learning_rate": "lr", **named}, ours or {}, theirs or {})


BETAS = {"betas": ("beta_1", "beta_2"), "eps": "epsilon"}
TORCH = [
    torch_form("sgd", "SGD"),
    torch_form("sgd", "SGD", weight_decay="l2"),
    torch_form("momentum", "SGD", momentum="momentum", dampening="dampening"),
    torch_form("momentum", "SGD", momentum="momentum", weight_decay="l2"),
    torch_form("nesterov", "SGD", theirs={"nesterov": True}, momentum="momentum"),
    torch_form("adagrad", "Adagrad", eps="epsilon", initial_accumulator_value="initial_accumulator"),
    torch_form("adagrad", "Adagrad", lr_decay="lr_decay", weight_decay="l2"),
    torch_form("rmsprop", "RMSprop", alpha="rho", eps="epsilon", weight_decay="l2"),
    torch_form("rmsprop", "RMSprop", alpha="rho", eps="epsilon", momentum="momentum"),
    *(
        torch_form("rmsprop", "RMSprop", ours=centered, theirs=centered, alpha="rho", eps="epsilon", **extra)
        for centered in [{"centered": True}]
        for extra in ({}, {"momentum": "momentum"})
    ),
    torch_form("adadelta", "Adadelta", rho="rho", eps="epsilon"),
    torch_form("adadelta", "Adadelta", rho="rho", eps="epsilon", weight_decay="l2"),
    torch_form("adam", "Adam", **BETAS),
    torch_form("adam", "Adam", weight_decay="l2", **BETAS),
    torch_form("amsgrad", "Adam", theirs={"amsgrad": True}, **BETAS),
    torch_form("amsgrad", "AdamW", theirs={"amsgrad": True}, weight_decay="decay", **BETAS),
    torch_form("adamw", "AdamW", weight_decay="weight_decay", **BETAS),
    torch_form("adamax", "Adamax", **BETAS),
    torch_form("adamax", "Adamax", weight_decay="l2", **BETAS),
    torch_form("nadam", "NAdam", momentum_decay="psi", **BETAS),
    torch_form("nadam", "NAdam", theirs={"decoupled_weight_decay": True}, weight_decay="decay", **BETAS),
    torch_form("radam", "RAdam", **BETAS),
    torch_form("radam", "RAdam", weight_decay="l2", **BETAS),
]

MOMENTS = {"beta_1": "beta_1", "beta_2": "beta_2"}
ADAM = {**MOMENTS, "epsilon": "epsilon"}
RMS = {"rho": "rho", "epsilon": "epsilon"}
KERAS = [
    other_form("sgd", "SGD"),
    other_form("sgd", "SGD", weight_decay="decay"),
    other_form("momentum", "SGD", momentum="momentum"),
    other_form("nesterov", "SGD", theirs={"nesterov": True}, momentum="momentum"),
    other_form("adagrad", "Adagrad", epsilon="epsilon", initial_accumulator_value="initial_accumulator"),
    other_form("rmsprop", "RMSprop", **RMS),
    other_form("rmsprop", "RMSprop", momentum="momentum", weight_decay="decay", **RMS),
    *(
        other_form("rmsprop", "RMSprop", ours=centered, theirs=centered, **RMS, **extra)
        for centered in [{"centered": True}]
        for extra in ({}, {"momentum": "momentum"})
    ),
    other_form("adadelta", "Adadelta", **RMS),
    other_form("adam", "Adam", **ADAM),
    other_form("adam", "Adam", weight_decay="decay", **ADAM),
    other_form("amsgrad", "Adam", theirs={"amsgrad": True}, **ADAM),
    other_form("amsgrad", "AdamW", theirs={"amsgrad": True}, weight_decay="decay", **ADAM),
    other_form("adamw", "AdamW", weight_decay="weight_decay", **ADAM),
    other_form("adamax", "Adamax", **ADAM),
    other_form("nadam", "Nadam", **ADAM),
    other_form("nadam", "Nadam", weight_decay="decay", **ADAM),
    other_form("lion", "Lion", **MOMENTS),
    other_form("lion", "Lion", weight_decay="weight_decay", **MOMENTS),
]

TF1_RMS = {"decay": "rho", "epsilon": "epsilon", "momentum": "momentum"}
TF1 = [
    other_form("sgd", "GradientDescentOptimizer"),
    other_form("momentum", "MomentumOptimizer", momentum="momentum"),
    other_form("nesterov", "MomentumOptimizer", theirs={"use_nesterov": True}, momentum="momentum"),
    other_form("adagrad", "AdagradOptimizer", initial_accumulator_value="initial_accumulator"),
    other_form("rmsprop", "RMSPropOptimizer", decay="rho", epsilon="epsilon"),
    other_form("rmsprop", "RMSPropOptimizer", **TF1_RMS),
    other_form("rmsprop", "RMSPropOptimizer", ours={"centered": True}, theirs={"centered": True}, **TF1_RMS),
    other_form("adadelta", "AdadeltaOptimizer", **RMS),
    other_form("adam", "AdamOptimizer", beta1="beta_1", beta2="beta_2", epsilon="epsilon"),
]

B = {"b1": "beta_1", "b2": "beta_2"}
OPTAX_ADAM = {**B, "eps": "epsilon"}
OPTAX_RMS = {"decay": "rho", "eps": "epsilon", "initial_scale": "initial_accumulator"}
OPTAX = [
    other_form("sgd", "sgd"),
    other_form("momentum", "sgd", momentum="momentum"),
    other_form("nesterov", "sgd", theirs={"nesterov": True}, momentum="momentum"),
    other_form("adagrad", "adagrad", eps="epsilon", initial_accumulator_value="initial_accumulator"),
    other_form("rmsprop", "rmsprop", **OPTAX_RMS),
    other_form("rmsprop", "rmsprop", momentum="momentum", **OPTAX_RMS),
    *(
        other_form("rmsprop", "rmsprop", ours=ours, theirs=theirs, momentum="momentum", **OPTAX_RMS)
        for ours, theirs in [
            ({"centered": True}, {"centered": True}),
            ({"nesterov": True}, {"nesterov": True}),
            ({"nesterov": True, "centered": True}, {"nesterov": True, "centered": True}),
            ({"epsilon_in_root": False}, {"eps_in_sqrt": False}),
            ({"epsilon_in_root": False, "centered": True}, {"eps_in_sqrt": False, "centered": True}),
        ]
    ),
    other_form("adadelta", "adadelta", rho="rho", eps="epsilon"),
    other_form("adadelta", "adadelta", rho="rho", eps="epsilon", weight_decay="l2"),
    other_form("adam", "adam", **OPTAX_ADAM),
    other_form("adamw", "adamw", weight_decay="weight_decay", **OPTAX_ADAM),
    other_form("amsgrad", "amsgrad", **OPTAX_ADAM),
    other_form("adamax", "adamax", **OPTAX_ADAM),
    other_form("adamax", "adamaxw", weight_decay="decay", **OPTAX_ADAM),
    other_form("nadam", "nadam", **OPTAX_ADAM),
    other_form("nadam", "nadamw", weight_decay="decay", **OPTAX_ADAM),
    other_form("radam", "radam", **OPTAX_ADAM),
    # One ε of the paper's is two in Optax.
    Form("adabelief", "adabelief", {"learning_rate": "lr", **OPTAX_ADAM, "eps_root": "epsilon"}),
    other_form(
        "adan", "adan", b3="beta_3", eps_root="epsilon_root", weight_decay="weight_decay", **OPTAX_ADAM
    ),
    other_form("lion", "lion", weight_decay="weight_decay", **B),
]


def drawn(seed: int) -> dict[str, float]:
    """A value for every hyperparameter."""
    uniform = np.random.default_rng(seed).uniform
    ranges = {
        "momentum": (0.5, 0.99),
        "dampening": (0.0, 0.9),
        "rho": (0.8, 0.99),
        "beta_1": (0.6, 0.98),
        "beta_2": (0.8, 0.999),
        "beta_3": (0.8, 0.999),
    }
    powers_of_ten = {
        "lr": (-3.0, -1.0),
        "psi": (-3.0, 0.0),
        "epsilon": (-9.0, -5.0),
        "initial_accumulator": (-4.0, 0.0),
        "epsilon_root": (-12.0, -8.0),
        "weight_decay": (-3.0, -1.0),
        "l2": (-3.0, -1.0),
        "decay": (-3.0, -1.0),
        "lr_decay": (-3.0, -1.0),
    }
    linear = {name: float(uniform(*ends)) for name, ends in ranges.items()}
    return linear | {name: float(10 ** uniform(*ends)) for name, ends in powers_of_ten.items()}


def problem(form: Form, seed: int) -> tuple[Array, Array]:
    """A parameter, and gradients whose entries differ in size: only tiny ones tell where ε stands.

    But not under L2: where the penalty outweighs the gradient, an adaptive rule bounces about zero and
    roundings grow to any size.
    """
    generator = np.random.default_rng(seed + 100)
    scale = 10.0 ** -(np.arange(8) * ("l2" not in form.names))
    p, *grads = generator.standard_normal((1 + STEPS, 8)) * scale
    return p, np.array(grads)


def rule_of(form: Form, dialect: str, seed: int, factor: float, **changed: Any) -> Rule:
    """The rule that the form means, with what the seed draws for all that the framework lets one set."""
    values = {name: drawn(seed)[name] for name in form.names}
    around = {name: values.pop(name) for name in AROUND if name in values}
    rate: Any = Exponential(values["lr"], factor)
    if "lr_decay" in around:
        rate = lambda t: TimeDecay(Exponential(values["lr"], factor)(t), around["lr_decay"])(t)  # noqa: E731
    rule = thalweg.get(form.rule, dialect=dialect, **{**form.ours, **values, "lr": rate, **changed})
    if "l2" in around:
        return thalweg.chain(thalweg.L2(around["l2"]), rule)
    if "decay" in around:
        return thalweg.chain(thalweg.DecoupledDecay(around["decay"]), rule)
    return rule


def settings_of(form: Form, seed: int) -> dict[str, Any]:
    """The framework's arguments, but for the learning rate."""
    values = drawn(seed)
    named = {
        theirs: values[ours] if isinstance(ours, str) else tuple(values[name] for name in ours)
        for theirs, ours in form.named.items()
        if ours != "lr"
    }
    return {**form.theirs, **named}


Run = Callable[[str, Mapping[str, Any], Sequence[float], Array, Array], Array]


def with_torch(
    kind: str, settings: Mapping[str, Any], rates: Sequence[float], p: Array, grads: Array
) -> Array:
    tensor = torch.tensor(p, requires_grad=True)
    optimizer = getattr(torch.optim, kind)([tensor], lr=rates[0], **settings)
    for rate, g in zip(rates, grads, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        tensor.grad = torch.tensor(g)
        optimizer.step()
    return tensor.detach().numpy()  # type: ignore[no-any-return]


def with_keras(
    kind: str, settings: Mapping[str, Any], rates: Sequence[float], p: Array, grads: Array
) -> Array:
    with jax.enable_x64(True):
        variable = keras.Variable(p, dtype="float64")
        optimizer = getattr(keras.optimizers, kind)(**settings)
        optimizer.build([variable])
        lr = [v.name for v in optimizer.variables].index("learning_rate")

        def step(carry: Any, given: Any) -> Any:
            params, state = carry
            g, rate = given
            return optimizer.stateless_apply([*state[:lr], rate, *state[lr + 1 :]], [g], params), None

        start = [variable.value], [v.value for v in optimizer.variables]
        (end, _), _ = jax.jit(lambda *xs: jax.lax.scan(step, start, xs))(grads, np.array(rates))
        return np.asarray(end[0])


def with_optax(
    kind: str, settings: Mapping[str, Any], rates: Sequence[float], p: Array, grads: Array
) -> Array:
    switches = tuple((name, x) for name, x in settings.items() if isinstance(x, bool))
    numbers = {name: x for name, x in settings.items() if not isinstance(x, bool)}
    with jax.enable_x64(True):
        return np.asarray(_optax_way(kind, switches)(numbers, np.array(rates), p, grads))


@cache
def _optax_way(kind: str, switches: tuple[tuple[str, bool], ...]) -> Any:
    """The whole way as one compiled function of the hyperparameters."""

    def way(settings: Any, rates: Any, p: Any, grads: Any) -> Any:
        optimizer = getattr(optax, kind)(
            learning_rate=lambda count: rates[count], **settings, **dict(switches)
        )

        def step(carry: Any, g: Any) -> Any:
            params, state = carry
            updates, state = optimizer.update(g, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (p, optimizer.init(p)), grads)[0][0]

    return jax.jit(way)


def with_tf1(kind: str, settings: Mapping[str, Any], rates: Sequence[float], p: Array, grads: Array) -> Array:
    import tensorflow as tf

    def exactly(x: Any) -> Any:  # a plain number would be kept in float32
        return x if isinstance(x, bool) else np.float64(x)

    remaining = iter(rates)
    optimizer = getattr(tf.compat.v1.train, kind)(
        learning_rate=lambda: exactly(next(remaining)), **{k: exactly(v) for k, v in settings.items()}
    )
    variable = tf.Variable(p)
    for g in grads:
        optimizer.apply_gradients([(tf.constant(g), variable)])
    return variable.numpy()  # type: ignore[no-any-return]


FRAMEWORKS: dict[str, tuple[list[Form], Run]] = {
    "torch": (TORCH, with_torch),
    "keras": (KERAS, with_keras),
    "tf1": (TF1, with_tf1),
    "optax": (OPTAX, with_optax),
}
ALL = [
    pytest.param(dialect, form, id=f"{dialect}-{form}")
    for dialect, (forms, _) in FRAMEWORKS.items()
    for form in forms
]


@pytest.fixture(scope="module", autouse=True)
def doubles() -> Iterator[None]:
    """Keras's and torch's own scalars in float64."""
    before = keras.config.floatx(), torch.get_default_dtype()
    keras.config.dtype_policy()  # made now, of float32: Keras makes it when it is first asked for
    keras.config.set_floatx("float64")
    torch.set_default_dtype(torch.float64)
    yield
    keras.config.set_floatx(before[0])
    torch.set_default_dtype(before[1])


@pytest.fixture(scope="module")
def tensorflow() -> Any:
    """TensorFlow, imported quietly by the tests that need it alone."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return pytest.importorskip("tensorflow", reason="TensorFlow is not installed")


@pytest.fixture
def dialect(request: pytest.FixtureRequest) -> str:
    """A framework's dialect; the test is skipped where the framework is absent."""
    if request.param == "tf1":
        request.getfixturevalue("tensorflow")
    return str(request.param)


def deviation(found: Array, wanted: Array, p: Array) -> float:
    """The largest difference of an entry, relative to the entry's own way or, where longer, its start."""
    return float(np.max(np.abs(found - wanted) / np.maximum(np.abs(wanted - p), np.abs(p))))


def deviation_of(dialect: str, form: Form, seed: int, factor: float, **changed: Any) -> float:
    p, grads = problem(form, seed)
    rate = Exponential(drawn(seed)["lr"], factor)
    rates = [rate(t) for t in range(1, STEPS + 1)]
    wanted = FRAMEWORKS[dialect][1](form.kind, settings_of(form, seed), rates, p, grads)
    found = descend(rule_of(form, dialect, seed, factor, **changed), p, grads)
    return deviation(found, wanted, p)


@pytest.mark.pairwise
@pytest.mark.parametrize(("seed", "factor"), SEEDS)
@pytest.mark.parametrize(("dialect", "form"), ALL, indirect=["dialect"])
def test_it_follows_the_framework(dialect: str, form: Form, seed: int, factor: float) -> None:
    assert deviation_of(dialect, form, seed, factor) <= TOLERANCE


def test_every_rule_that_a_framework_has_is_proven() -> None:
    for dialect, (forms, _) in FRAMEWORKS.items():
        assert {find(form.rule).__name__ for form in forms} == {*SPELLINGS[dialect]}
    assert {*FRAMEWORKS, "paper"} == {*DIALECTS}


@pytest.mark.parametrize(("seed", "factor"), SEEDS)
@pytest.mark.parametrize("ours", [{}, {"momentum": 0.7}, {"momentum": 0.7, "centered": True}])
def test_rmsprop_of_tensorflow_1_by_its_formula(ours: dict[str, Any], seed: int, factor: float) -> None:
    """So the proof exists where TensorFlow does not."""
    form = other_form("rmsprop", "", ours=ours, decay="rho", epsilon="epsilon")
    p, grads = problem(form, seed)
    values = drawn(seed)
    way, mean_square, mean, velocity = p, np.ones(8), np.zeros(8), np.zeros(8)
    for k, g in enumerate(grads):
        mean_square = mean_square + (g**2 - mean_square) * (1 - values["rho"])
        mean = mean + (g - mean) * (1 - values["rho"])
        variance = mean_square - mean**2 if "centered" in ours else mean_square
        velocity = ours.get("momentum", 0.0) * velocity + values["lr"] * factor**k * g / np.sqrt(
            variance + values["epsilon"]
        )
        way = way - velocity
    assert deviation(descend(rule_of(form, "tf1", seed, factor), p, grads), way, p) <= TOLERANCE


# What a framework does not let one set, and what its signature says of the rest: together every value
# that a dialect states is held.
SETTABLE = {
    (dialect, find(form.rule).__name__, name)
    for dialect, (forms, _) in FRAMEWORKS.items()
    for form in forms
    for name in form.names
}
FIXED = [
    (dialect, rule, name)
    for dialect, rules in DIALECTS.items()
    for rule, values in rules.items()
    for name in values
    if (dialect, rule, name) not in SETTABLE
]


@pytest.mark.parametrize(("dialect", "rule", "name"), FIXED, indirect=["dialect"])
def test_without_it_the_proof_fails(dialect: str, rule: str, name: str) -> None:
    """Each such value is needed: with the paper's in its place some form goes elsewhere."""
    papers = getattr(find(rule)(), name)
    forms = [form for form in FRAMEWORKS[dialect][0] if find(form.rule).__name__ == rule]
    assert any(
        deviation_of(dialect, form, seed, factor, **{name: papers}) > 10 * TOLERANCE
        for form in forms
        if name not in form.ours
        for seed, factor in SEEDS[::-1]
    )


def signature_of(dialect: str, kind: str) -> Mapping[str, inspect.Parameter]:
    if dialect == "tf1":
        import tensorflow as tf

        return inspect.signature(getattr(tf.compat.v1.train, kind)).parameters
    module = {"torch": torch.optim, "keras": keras.optimizers, "optax": optax}[dialect]
    return inspect.signature(getattr(module, kind)).parameters


@pytest.mark.parametrize(("dialect", "form"), ALL, indirect=["dialect"])
def test_defaults_are_the_frameworks_own(dialect: str, form: Form) -> None:
    rule = thalweg.get(form.rule, dialect=dialect, **form.ours)
    signature = signature_of(dialect, form.kind)
    for theirs, ours in form.named.items():
        default = signature[theirs].default
        if isinstance(ours, tuple):
            assert default == tuple(rule.values[name] for name in ours)
        elif ours in AROUND or ours == "momentum":
            assert (
                not isinstance(default, float | int)
                or default == 0
                or form.kind in ("AdamW", "adamaxw", "nadamw")
            )
        elif default is inspect.Parameter.empty or (ours == "lr" and default is None):
            assert rule.values[ours] == find(form.rule)().values[ours], "the paper's stays"
        else:
            assert rule.values[ours] == (default or 0), f"{theirs} of {form.kind}"


@pytest.mark.parametrize(
    ("dialect", "rule", "spelling"),
    [(d, rule, spelling) for d, known in SPELLINGS.items() for rule, spelling in known.items()],
    indirect=["dialect"],
)
def test_a_spelling_names_what_is_there_and_what_must_be_given(
    dialect: str, rule: str, spelling: str
) -> None:
    path, _, inside = spelling.rstrip(")").partition("(")
    given = [name.strip() for name in inside.split(",") if name]
    kinds = {form.kind for form in FRAMEWORKS[dialect][0] if find(form.rule).__name__ == rule}
    assert path.rpartition(".")[2] in kinds
    signature = signature_of(dialect, path.rpartition(".")[2])
    assert {name.rstrip("=") for name in given} <= {*signature}
    # Optax's adadelta has the default None, under which it ascends.
    required = {
        name
        for name, parameter in signature.items()
        if (name, parameter.default) == ("learning_rate", None)
        or (parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD)
    }
    assert {name for name in given if not name.endswith("=")} == required - {"params"}


@pytest.mark.parametrize(("kind", "wanted"), [("torch", -0.0909), ("keras", -0.0405), ("tf1", -0.0405)])
def test_where_epsilon_stands_decides_how_far_adam_goes(kind: str, wanted: float) -> None:
    rule = thalweg.get("adam", dialect=kind, lr=0.01, epsilon=1e-7)
    assert descend(rule, np.zeros(1), [np.full(1, 1e-6)] * 10)[0] == pytest.approx(wanted, abs=5e-5)


@pytest.mark.parametrize(("kind", "wanted"), [("torch", -0.1733), ("keras", -0.1479), ("tf1", -0.000135)])
def test_where_rmsprop_starts_decides_how_far_it_goes(kind: str, wanted: float) -> None:
    rule = thalweg.get("rmsprop", dialect=kind, lr=0.01, rho=0.9, epsilon=1e-7)
    assert descend(rule, np.zeros(1), [np.full(1, 1e-3)] * 10)[0] == pytest.approx(wanted, rel=5e-3)


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_names_only_rules_and_fields_that_exist(name: str) -> None:
    for rule, values in DIALECTS[name].items():
        kind = find(rule)
        assert kind.__name__ == rule
        for field_name, value in values.items():
            assert getattr(kind(), field_name) != value, f"{name} says of {rule} what the rule says itself"


def test_a_rule_that_a_framework_lacks_is_the_papers() -> None:
    for dialect, known in SPELLINGS.items():
        assert {*DIALECTS[dialect]} <= {*known}


def test_a_value_given_wins_over_the_dialects() -> None:
    assert thalweg.get("adam", dialect="keras", epsilon=1e-3).values["epsilon"] == 1e-3
