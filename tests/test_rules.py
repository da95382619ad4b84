"""Rules as written: on every array library, against independent formulas, and by name."""

import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
import numpy as np
import optax
import pytest
import torch

import thalweg
import thalweg.jax
import thalweg.numpy
import thalweg.torch
from helpers import FORMS, copies, difference, gradients, parameters, train
from thalweg import Rule, Scalar, Treatment, chain, hyper
from thalweg.eager import Driver, descend
from thalweg.ops import minimum, sqrt, where
from thalweg.schedules import Constant

STEPS = 20


@pytest.fixture(params=["numpy", "torch", "jax", "array_api_strict"])
def asarray(request: pytest.FixtureRequest) -> Iterator[Callable[[Any], Any]]:
    """Makes a float64 array of some library from a NumPy array; NumPy's own are read-only."""
    if request.param == "numpy":
        yield read_only
    elif request.param == "torch":
        yield torch.tensor
    elif request.param == "jax":
        with jax.enable_x64(True):
            yield jax.numpy.asarray
    else:
        yield pytest.importorskip("array_api_strict").asarray


def read_only(x: Any) -> Any:
    x = np.array(x)
    x.flags.writeable = False
    return x


def problem(shape: tuple[int, ...] = (2, 3)) -> tuple[Any, list[Any]]:
    generator = np.random.default_rng(0)
    return generator.standard_normal(shape), [generator.standard_normal(shape) for _ in range(STEPS)]


@pytest.mark.parametrize("form", FORMS)
def test_runs_on_every_array_library(form: str, asarray: Callable[[Any], Any]) -> None:
    p, grads = problem()
    rule = FORMS[form]
    found = descend(rule, asarray(p), [asarray(g) for g in grads])
    assert type(found) is type(asarray(p))
    assert difference(np.asarray(found), descend(rule, p, grads)) <= 1e-12


@pytest.mark.parametrize("form", FORMS)
def test_changes_nothing_in_place(form: str) -> None:
    p, grads = problem()
    rule = FORMS[form]
    driver = Driver(rule)
    driver.states[0] |= {k: np.full(p.shape, v) for k, v in rule.initial_state().items()}
    for g in grads:
        for array in (p, g, *(x for x in driver.states[0].values() if isinstance(x, np.ndarray))):
            array.flags.writeable = False
        step = driver.step(p, g)
        assert not any(np.may_share_memory(step, x) for x in (p, g))
        p = p - step


@pytest.mark.parametrize("form", FORMS)
def test_keeps_float32(form: str) -> None:
    p = np.ones(3, np.float32)
    state = {k: np.full_like(p, v) for k, v in FORMS[form].initial_state().items()}
    step, state = FORMS[form].advance(1, p, p, state)
    assert step.dtype == np.float32
    assert {np.asarray(x).dtype for x in state.values()} <= {np.dtype(np.float32)}


# -- independent formulas ------------------------------------------------------------------------


def lion(p: Any, grads: list[Any], lr: float, b1: float, b2: float, decay: float) -> Any:
    m = np.zeros_like(p)
    for g in grads:
        p = p - lr * (np.sign(b1 * m + (1 - b1) * g) + decay * p)
        m = b2 * m + (1 - b2) * g
    return p


def adabelief(p: Any, grads: list[Any], lr: float, b1: float, b2: float, eps: float) -> Any:
    m, s = np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(grads, 1):
        m += (1 - b1) * (g - m)
        s = b2 * s + (1 - b2) * (g - m) * (g - m) + eps
        p = p - lr * m / (1 - b1**t) / (np.sqrt(s / (1 - b2**t)) + eps)
    return p


def adan(
    p: Any, grads: list[Any], lr: float, b1: float, b2: float, b3: float, eps: float, decay: float
) -> Any:
    m, v, n = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for t, (before, g) in enumerate(zip([grads[0], *grads], grads, strict=False), 1):
        change = g - before
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * change
        n = b3 * n + (1 - b3) * (g + b2 * change) ** 2
        eta = lr / (np.sqrt(n / (1 - b3**t)) + eps)
        p = (p - eta * (m / (1 - b1**t) + b2 * v / (1 - b2**t))) / (1 + lr * decay)
    return p


def test_lion_is_program_1() -> None:
    p, grads = problem()
    rule = thalweg.Lion(0.01, 0.8, 0.95, weight_decay=0.1)
    assert difference(descend(rule, p, grads), lion(p, grads, 0.01, 0.8, 0.95, 0.1)) <= 1e-12


def test_adabelief_is_algorithm_2() -> None:
    p, grads = problem()
    rule = thalweg.AdaBelief(0.01, 0.8, 0.95, 1e-4)
    assert difference(descend(rule, p, grads), adabelief(p, grads, 0.01, 0.8, 0.95, 1e-4)) <= 1e-12


def test_adan_is_algorithm_1() -> None:
    p, grads = problem()
    rule = thalweg.Adan(0.01, 0.9, 0.7, 0.95, 1e-4, weight_decay=0.1)
    assert difference(descend(rule, p, grads), adan(p, grads, 0.01, 0.9, 0.7, 0.95, 1e-4, 0.1)) <= 1e-12


@pytest.mark.parametrize(
    ("rule", "theirs"),
    [
        (thalweg.Lion(0.01, 0.8, 0.95, 0.1), lambda: optax.lion(0.01, 0.8, 0.95, weight_decay=0.1)),
        (thalweg.AdaBelief(0.01, 0.8, 0.95, 1e-6), lambda: optax.adabelief(0.01, 0.8, 0.95, 1e-6, 1e-6)),
        # Optax 0.2.8 looks ahead by 1 − β₂ where the authors' code has β₂: equal at one half.
        (thalweg.Adan(0.01, 0.9, 0.5, 0.95, 1e-6), lambda: optax.adan(0.01, 0.9, 0.5, 0.95, 1e-6, 0.0)),
        (thalweg.AdamW(0.01, weight_decay=0.1), lambda: optax.adamw(0.01, weight_decay=0.1)),
        (thalweg.AdaMax(0.01), lambda: optax.adamax(0.01)),
        (thalweg.RAdam(0.01, beta_2=0.8), lambda: optax.radam(0.01, b2=0.8)),
    ],
    ids=lambda x: x.name if isinstance(x, Rule) else "",
)
def test_equals_optax(rule: Rule, theirs: Callable[[], optax.GradientTransformation]) -> None:
    p, grads = problem()
    with jax.enable_x64(True):
        optimizer = theirs()
        wanted = jax.numpy.asarray(p)
        state = optimizer.init(wanted)
        for g in grads:
            updates, state = optimizer.update(jax.numpy.asarray(g), state, wanted)
            wanted = optax.apply_updates(wanted, updates)
        wanted = np.asarray(wanted)
    assert wanted.dtype == np.float64
    assert difference(descend(rule, p, grads), wanted) <= 1e-10


def test_radam_waits_until_its_divisor_can_be_trusted() -> None:
    p, grads = problem()
    t = next(t for t in range(1, 20) if 1999 - 2 * t * 0.999**t / (1 - 0.999**t) > 5)
    driver = Driver(thalweg.RAdam(1.0))
    for k in range(1, t + 1):
        step = driver.step(p, grads[0])
        # With a constant gradient m̂ is g, and the adaptive step is far from it.
        assert np.allclose(step, grads[0], rtol=1e-9) == (k < t)


# -- a rule of one's own -------------------------------------------------------------------------


class Warmed(Rule):
    """Momentum whose own hyperparameter holds the rate back at first."""

    lr: Scalar = 0.1
    gamma: Scalar = hyper(0.5, symbol=r"\gamma", meaning="how slowly", low=0, high=1)
    cubed: bool = False

    def update(self, t, g, p, m=0, biggest="gamma"):  # type: ignore[no-untyped-def]
        m = self.gamma * m + g
        biggest = where(m * m > biggest, m * m, biggest)
        return (
            self.lr * (1 - self.gamma**t) * (m**3 if self.cubed else m) / sqrt(biggest) + 0.01 * p,
            m,
            biggest,
        )


@pytest.mark.parametrize("cubed", [False, True])
def test_a_rule_of_ones_own_works_at_once(cubed: bool) -> None:
    (p,) = parameters((4, 5))
    grads = gradients([p], STEPS)
    (found,) = copies([p])
    train(thalweg.torch.Optimizer([found], Warmed(gamma=0.7, cubed=cubed)), [found], grads)

    wanted, m, biggest = p.detach().numpy(), np.zeros((4, 5)), np.full((4, 5), 0.7)
    for t, (tensor,) in enumerate(grads, 1):
        m = 0.7 * m + tensor.numpy()
        biggest = np.maximum(biggest, m * m)
        wanted = wanted - (0.1 * (1 - 0.7**t) * (m**3 if cubed else m) / np.sqrt(biggest) + 0.01 * wanted)
    assert difference(found, wanted) <= 1e-12


def test_an_unregistered_rule_is_not_listed() -> None:
    assert "warmed" not in thalweg.rules()
    with pytest.raises(thalweg.UnknownRuleError):
        thalweg.get("warmed")


def test_a_rule_says_what_its_hyperparameters_are() -> None:
    about = Warmed().hyperparameters
    assert about["gamma"].symbol == r"\gamma"
    assert (about["gamma"].range, about["lr"].range) == ("[0, 1]", "[0, ∞)")
    assert "cubed" not in about
    with pytest.raises(ValueError, match=r"gamma must lie in \[0, 1\], got 1.5"):
        Warmed(gamma=1.5)


@pytest.mark.parametrize("returned", [lambda g, m: g, lambda g, m: (g, m, m)])
def test_returning_the_wrong_number_of_slots_is_an_error(returned: Callable[[Any, Any], Any]) -> None:
    class Wrong(Rule):
        def update(self, g, m=0):  # type: ignore[no-untyped-def]
            return returned(g, m)

    with pytest.raises(TypeError, match=r"Wrong.update must return the step and its 1 slots \(m\)"):
        thalweg.trace(Wrong())
    with pytest.raises(TypeError, match=r"must return the step and its 1 slots"):
        Wrong().advance(1, np.ones(2), np.ones(2), {"m": 0.0})


def test_branching_on_a_value_is_an_error_that_says_what_to_write() -> None:
    class Branches(Rule):
        def update(self, g):  # type: ignore[no-untyped-def]
            return g if g > 0 else -g

    with pytest.raises(TypeError, match=r"where\(condition, a, b\)"):
        thalweg.trace(Branches())


def test_branching_on_a_schedule_or_number_of_a_rule_is_an_error_too() -> None:
    class Branches(Rule):
        lr: Scalar = 0.1

        def update(self, g):  # type: ignore[no-untyped-def]
            return g if self.lr > 0 else -g

    with pytest.raises(TypeError, match="cannot branch"):
        thalweg.trace(Branches())


@pytest.mark.parametrize("taken", ["_hidden", "sqrt", "where", "pow"])
def test_names_that_kernels_need_are_refused(taken: str) -> None:
    why = rf"'{taken}' (begins with an underscore|is the name of an operation); give the field"
    with pytest.raises(TypeError, match=why):
        type("Takes", (Rule,), {"__annotations__": {taken: Scalar}, taken: 0.5, "update": lambda self, g: g})
    namespace: dict[str, Any] = {}
    exec(f"def update(self, g, {taken}=0): return g, {taken}", namespace)
    with pytest.raises(TypeError, match=why):
        type("Takes", (Rule,), {"update": namespace["update"]})


def test_a_slot_says_where_it_starts() -> None:
    with pytest.raises(TypeError, match="'gradient' is none of t, g, p"):

        class Typo(Rule):
            def update(self, gradient):  # type: ignore[no-untyped-def]
                return gradient

    with pytest.raises(TypeError, match="'s' is none of t, g, p"):

        class Nowhere(Rule):
            def update(self, g, s="nowhere"):  # type: ignore[no-untyped-def]
                return g, s


# -- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", thalweg.rules())
def test_search_ranges_are_admissible_and_defaults_in_range(name: str) -> None:
    rule = thalweg.get(name)
    for hyperparameter, about in rule.hyperparameters.items():
        assert about.meaning
        assert about.admits(rule.values[hyperparameter])
        if about.search:
            assert all(map(about.admits, about.search))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": -1e-3}, r"lr must lie in \[0, ∞\), got -0.001"),
        ({"lr": float("nan")}, "lr must lie in"),
        ({"lr": float("inf")}, "lr must lie in"),
        ({"beta_1": 1.0}, r"beta_1 must lie in \[0, 1\)"),
        ({"beta_2": -0.1}, r"beta_2 must lie in \[0, 1\)"),
        ({"epsilon": -1e-8}, "epsilon must lie in"),
    ],
)
def test_values_out_of_range_are_errors(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        thalweg.Adam(**values)
    with pytest.raises(ValueError, match=message):
        thalweg.Adam().replaced(**values)


@pytest.mark.parametrize(
    "values", [{"lr": "0.1"}, {"lr": None}, {"lr": True}, {"lr": [0.1]}, {"epsilon_hat": 1}]
)
def test_values_of_the_wrong_type_are_errors(values: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"Adam: {next(iter(values))} is"):
        thalweg.Adam(**values)


def test_edges_of_ranges_are_admitted() -> None:
    thalweg.Adam(lr=0, beta_1=0, beta_2=0, epsilon=0)
    thalweg.Momentum(momentum=1, dampening=1)
    thalweg.RMSprop(rho=1, momentum=0)


def test_numbers_of_other_libraries_are_numbers() -> None:
    assert thalweg.Adam(lr=np.float32(0.5)).values["lr"] == 0.5
    assert thalweg.Adam(lr=torch.tensor(0.5)).values["lr"] == 0.5


def test_rules_are_values() -> None:
    assert thalweg.Adam(lr=0.1) == thalweg.Adam(lr=0.1) != thalweg.Adam(lr=0.2)
    rule = thalweg.Adam(lr=0.1)
    with pytest.raises(AttributeError):
        rule.lr = 0.2  # type: ignore[misc]
    changed = rule.replaced(lr=0.2, beta_1=0.5)
    assert changed == thalweg.Adam(lr=0.2, beta_1=0.5)
    assert rule == thalweg.Adam(lr=0.1)
    assert changed.values == {"lr": 0.2, "beta_1": 0.5, "beta_2": 0.999, "epsilon": 1e-8}
    with pytest.raises(thalweg.UnknownHyperparameterError, match="did you mean 'beta_1'"):
        rule.replaced(beta1=0.2)


def test_a_scheduled_value_may_be_replaced_and_back() -> None:
    rule = thalweg.Adam(lr=0.1)
    scheduled = rule.replaced(lr=Constant(0.3))
    assert scheduled.values_at(5)["lr"] == 0.3
    assert scheduled.at(5) == thalweg.Adam(lr=0.3)
    assert scheduled.replaced(lr=0.1).at(2) == rule
    assert rule.at(2) is rule


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("lr", 0.01, "lr: Scalar = 0.01"),
        ("steps", 3, "steps: Scalar = 3"),
        ("flag", True, "flag: bool = True"),
        ("momentum", None, r"momentum: Scalar \| None = None"),
        ("lr", np.float64(0.5), "lr: Scalar = np.float64"),
    ],
)
@pytest.mark.parametrize("base", [Rule, Treatment])
def test_a_number_without_a_type_is_refused(base: type, name: str, value: Any, right: str) -> None:
    with pytest.raises(TypeError, match=f"Plain: {name} = .* has no type, .*write {right}"):
        type("Plain", (base,), {name: value, "update": lambda self, g: g})


def test_a_rule_is_written_without_an_init() -> None:
    with pytest.raises(TypeError, match=r"Own must have no __init__ of its own: hyperparameters are"):

        class Own(Rule):
            lr: Scalar = 0.1

            def __init__(self, lr: Scalar = 0.1) -> None:
                self.lr = lr


def test_state_is_not_kept_in_the_rule() -> None:
    class Keeping(Rule):
        lr: Scalar = 0.1

        def update(self, g: Any) -> Any:
            self.m = 0.9 * getattr(self, "m", 0) + g
            return self.lr * self.m

    rule = Keeping()
    with pytest.raises(AttributeError, match=r"Keeping: self\.m cannot be set: .* argument of update"):
        thalweg.trace(rule)
    with pytest.raises(AttributeError, match=r"Keeping: lr cannot be set; make another one"):
        rule.lr = 0.2
    with pytest.raises(AttributeError, match=r"Chain: lr cannot be set; make another one"):
        thalweg.chain(thalweg.L2(0.1), rule).lr = 0.2  # type: ignore[attr-defined]


def test_an_update_without_a_return_is_named() -> None:
    class Silent(Rule):
        def update(self, g: Any) -> Any:
            pass

    with pytest.raises(TypeError, match=r"Silent\.update returned nothing: return the step to subtract"):
        thalweg.trace(Silent())


def test_a_default_that_would_not_change_is_refused() -> None:
    with pytest.raises(TypeError, match=r"lr = 0\.5 has no type"):

        class Faster(thalweg.Adam):
            lr = 0.5


def test_what_is_no_hyperparameter_needs_no_type() -> None:
    class Free(Rule):
        lr: Scalar = 0.1
        paper: ClassVar[int] = 2026
        title = "a word"
        _scale = 2.0

        @property
        def double(self) -> Any:
            return 2 * self.lr

        def update(self, g: Any) -> Any:
            return self.double * g * self._scale

    class Guarded(Treatment):
        guarded = True

    assert chain(Guarded(), Free()).values == {"lr": 0.1}
    assert chain(Guarded(), Free()).guarded


# -- numbers and functions -----------------------------------------------------------------------


class Endless(Rule):
    """Infinities and NaN as constants, in scalar lines, element lines and the initial state."""

    lr: Scalar = 0.5

    def update(self, t: Any, g: Any, least: Any = math.inf) -> Any:
        least = minimum(least, where(g > -math.inf, g, math.nan))
        rate = where(t < math.inf, self.lr, math.inf)
        return rate * where(least < math.inf, least, -math.inf), least


def test_infinities_are_constants_like_others() -> None:
    rule, p = Endless(), np.linspace(1, 2, 5)
    grads = [np.array([1.0, -2.0, 3.0, -4.0, 0.5]) * k for k in (1.0, -0.5, 2.0)]
    wanted = descend(rule, p, grads)
    assert np.isfinite(wanted).all()
    in_numpy, in_torch = p.copy(), torch.tensor(p, requires_grad=True)
    ours = thalweg.numpy.Optimizer(rule)
    for g in grads:
        ours.update(in_numpy, g)
    train(thalweg.torch.Optimizer([in_torch], rule), [in_torch], [[torch.tensor(g)] for g in grads])
    np.testing.assert_allclose(in_numpy, wanted, rtol=1e-15)
    np.testing.assert_allclose(in_torch.detach(), wanted, rtol=1e-15)
    transform = thalweg.jax.optimizer(rule)
    in_jax = np.asarray(p, np.float32)
    state = transform.init(in_jax)
    for g in grads:
        updates, state = transform.update(g.astype(np.float32), state, in_jax)
        in_jax = in_jax + updates
    np.testing.assert_allclose(in_jax, wanted, rtol=1e-6)
    program = thalweg.trace(rule)
    assert "∞" in program.unicode()
    assert r"\infty" in program.latex()


@pytest.mark.parametrize("asarray", [float, np.asarray], ids=["numbers", "arrays"])
def test_numbers_follow_ieee_754_as_the_kernel_does(asarray: Any) -> None:
    """RAdam's ρ∞ is 4 at β₂ = 0.6, where its rectification divides by zero."""
    rule, p = thalweg.RAdam(lr=0.1, beta_2=0.6), np.ones(1)
    optimizer = thalweg.numpy.Optimizer(rule)
    grads = [np.full(1, x) for x in (1.0, -2.0, 0.5, 3.0, 1.0, -1.0)]
    for g in grads:
        optimizer.update(p, g)
    found = descend(rule, asarray(1.0), [asarray(g[0]) for g in grads])
    np.testing.assert_allclose(found, p[0], rtol=1e-12)


class Breaks(Rule):
    """What Python's own numbers have exceptions for, of numbers alone."""

    lr: Scalar = 0.0

    def update(self, t: Any, g: Any, s: Any = 0) -> Any:
        bad = 1 / self.lr + (self.lr - 0.5) ** 0.5 + 10.0 ** (400 * t) + self.lr**-1.0
        return g * where(bad > 0, bad, 1.0), s + 1 / self.lr


def test_a_number_divides_by_zero_as_an_array_does() -> None:
    for g in (2.0, np.float64(2.0), np.full(2, 2.0), torch.full((2,), 2.0)):
        step, new = Breaks().advance(1, g, g, {"s": 0.0})
        np.testing.assert_array_equal(step, g)  # NaN is not above 0
        assert new["s"] == math.inf
    p = np.zeros(1)
    thalweg.numpy.Optimizer(Breaks()).update(p, np.full(1, 2.0))
    assert p.tolist() == [-2.0]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (lambda g: np.sign(g), r"np\.sign does not work in update, .*; use thalweg\.ops\.sign"),
        (lambda g: np.absolute(g), r"use thalweg\.ops\.abs"),
        (lambda g: np.maximum(g, 0), r"np\.maximum .* use thalweg\.ops\.maximum"),
        (lambda g: np.clip(g, -1, 1), r"use thalweg\.ops\.(clip|maximum|minimum)"),
        (lambda g: np.where(g > 0, g, 0), r"np\.where .* use thalweg\.ops\.where"),
        (lambda g: np.cbrt(g), r"np\.cbrt .* use those of thalweg\.ops \(sqrt, exp"),
        (lambda g: np.linalg.norm(g), r"use those of thalweg\.ops|use thalweg\.ops"),
        (lambda g: torch.sign(g), r"torch\.sign .* use thalweg\.ops\.sign"),
        (lambda g: torch.clamp(g, 0), r"torch\.clamp .* use thalweg\.ops\.clip"),
        (lambda g: max(g, 0), r"thalweg\.ops\.maximum\(a, b\)"),
        (lambda g: min(g, 0), r"minimum\(a, b\) for Python's max and min"),
        (lambda g: math.sqrt(g), r"use those of thalweg\.ops \(sqrt, exp"),
        (lambda g: math.floor(g), r"use those of thalweg\.ops"),
        (lambda g: float(g), r"use those of thalweg\.ops"),
        (lambda g: round(g), r"use thalweg\.ops\.floor\(x \+ 0\.5\)"),
        (lambda g: g.mean(), r"stand for one entry each, a number, which has no 'mean'; use operators"),
    ],
)
def test_functions_of_others_name_the_right_one(wrong: Callable[[Any], Any], right: str) -> None:
    class Wrong(Rule):
        def update(self, g: Any) -> Any:
            return wrong(g)

    with pytest.raises((TypeError, AttributeError), match=right):
        thalweg.trace(Wrong())


def test_numpys_numbers_are_numbers_beside_symbols() -> None:
    class Scaled(Rule):
        def update(self, g: Any) -> Any:
            return np.float64(2.0) * g / np.float32(4.0) + np.int64(1)

    p = np.zeros(1)
    thalweg.numpy.Optimizer(Scaled()).update(p, np.ones(1))
    assert p.tolist() == [-1.5]


# -- names ---------------------------------------------------------------------------------------


def test_every_rule_the_issue_names_is_there() -> None:
    assert set(thalweg.rules()) >= {
        *("sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "amsgrad"),
        *("adamax", "nadam", "adamw", "radam", "lion", "adabelief", "adan"),
    }


@pytest.mark.parametrize("name", thalweg.rules())
def test_a_rule_is_found_by_its_name_in_any_spelling(name: str) -> None:
    kind = type(thalweg.get(name))
    for spelling in (
        kind.__name__,
        name.upper(),
        f"{name[:3]}_{name[3:]}",
        f"{name[:2]}-{name[2:]}",
        f" {name}",
    ):
        assert type(thalweg.get(spelling)) is kind
    assert getattr(thalweg.rules, kind.__name__) is kind
    assert kind.__name__ in dir(thalweg.rules)
    assert thalweg.get(name).name == name


@pytest.mark.parametrize(
    ("alias", "name"),
    [("gd", "SGD"), ("Gradient Descent", "SGD"), ("NAG", "Nesterov"), ("heavy-ball", "Momentum")],
)
def test_aliases(alias: str, name: str) -> None:
    assert type(thalweg.get(alias)).__name__ == name
    assert alias not in thalweg.rules()


@pytest.mark.parametrize(
    ("wrong", "right"), [("adm", "adam"), ("rmspop", "rmsprop"), ("nestrov", "nesterov")]
)
def test_a_wrong_name_names_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(thalweg.UnknownRuleError, match=f"no rule is named '{wrong}'; did you mean '{right}'"):
        thalweg.get(wrong)


def test_a_name_near_nothing_lists_all() -> None:
    with pytest.raises(thalweg.UnknownRuleError, match="known: sgd, momentum"):
        thalweg.get("zzzzzzzz")
    with pytest.raises(AttributeError, match="did you mean 'Adam'"):
        _ = thalweg.rules.Adm


@pytest.mark.parametrize(("wrong", "right"), [("torh", "torch"), ("kers", "keras")])
def test_a_wrong_dialect_names_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(thalweg.UnknownDialectError, match=f"did you mean '{right}'"):
        thalweg.get("adam", dialect=wrong)


@pytest.mark.parametrize("build", [lambda **v: thalweg.get("adam", **v), thalweg.Adam], ids=["get", "class"])
@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("beta_3", "beta_1' or 'beta_2'"),
        ("betas", "beta_1' or 'beta_2'"),
        ("epsilom", "epsilon'"),
        ("lrr", "lr'"),
        ("learning_rte", "lr'"),
    ],
)
def test_a_wrong_hyperparameter_names_the_nearest(build: Callable[..., Rule], wrong: str, right: str) -> None:
    with pytest.raises(
        thalweg.UnknownHyperparameterError, match=f"no hyperparameter '{wrong}'; did you mean '{right}"
    ):
        build(**{wrong: 0.5})


def test_hyperparameters_are_found_in_other_libraries_spellings() -> None:
    rule = thalweg.get("adam", learning_rate=0.1, beta1=0.5, Beta2=0.6, eps=1e-3)
    assert rule == thalweg.Adam(0.1, 0.5, 0.6, 1e-3)
    assert thalweg.get("rmsprop", alpha=0.5, mu=0.7) == thalweg.RMSprop(rho=0.5, momentum=0.7)


def test_a_hyperparameter_given_twice_is_an_error() -> None:
    with pytest.raises(TypeError, match="lr"):
        thalweg.get("adam", lr=0.1, learning_rate=0.2)


def test_annotations_may_be_strings() -> None:
    namespace: dict[str, Any] = {"Rule": thalweg.Rule, "Scalar": thalweg.Scalar}
    source = (
        "from __future__ import annotations\n"
        "class Late(Rule):\n"
        "    lr: Scalar = 0.1\n"
        "    momentum: Scalar | None = None\n"
        "    flag: bool = False\n"
        "    def update(self, t, g):\n"
        "        return self.lr * g if self.flag else g\n"
    )
    exec(compile(source, "late", "exec", dont_inherit=True), namespace)
    rule = namespace["Late"](flag=True)
    assert list(rule.hyperparameters) == ["lr"]
    with pytest.raises(TypeError, match="lr is a number or a schedule, got None"):
        namespace["Late"](lr=None)


def test_decay_is_not_taken_for_rho() -> None:
    """Old Keras's `decay` slows the learning rate, Optax's is ρ: neither is guessed."""
    with pytest.raises(TypeError, match="RMSprop has no hyperparameter 'decay'"):
        thalweg.get("rmsprop", decay=0.01)
