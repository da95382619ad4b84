"""What docs/drivers.md asks of every driver of rules, in every front end; `Driver` is the oracle.

`test_keras_backends.py` runs this file on Keras's other back ends.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import jax
import keras
import numpy as np
import pytest
import torch

import thalweg.jax
import thalweg.keras
import thalweg.numpy
import thalweg.torch
from helpers import CLIPS, FORMS, Normed, clipped_plainly, difference, largest_difference
from thalweg import L2, Adagrad, Nadam, Rule, SkipNonFinite, chain, schedules
from thalweg.eager import Driver

# Keras 3.15 gives its variables no `copy` in `__array__`, which NumPy 2 wishes for.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

SHAPES = ((3, 2), (), (0,), (5,))
Arrays = list[np.ndarray[Any, Any]]


class FrontEnd(Protocol):
    """A front end with a model of its own kind of tensors."""

    def __init__(self, rule: Rule, params: Arrays) -> None: ...

    def step(self, grads: Arrays) -> None: ...

    def params(self) -> list[Any]: ...

    @property
    def t(self) -> int: ...


class OnNumPy:
    def __init__(self, rule: Rule, params: Arrays) -> None:
        self._params, self._optimizer = [p.copy() for p in params], thalweg.numpy.Optimizer(rule)

    def step(self, grads: Arrays) -> None:
        self._optimizer.update(self._params, grads)

    def params(self) -> list[Any]:
        return [p.copy() for p in self._params]

    @property
    def t(self) -> int:
        return self._optimizer.t


class OnTorch:
    def __init__(self, rule: Rule, params: Arrays) -> None:
        self._params = [torch.tensor(p, requires_grad=True) for p in params]
        self._optimizer = thalweg.torch.Optimizer(self._params, rule)

    def step(self, grads: Arrays) -> None:
        for p, g in zip(self._params, grads, strict=True):
            p.grad = torch.tensor(g)
        self._optimizer.step()

    def params(self) -> list[Any]:
        return [p.detach().numpy().copy() for p in self._params]

    @property
    def t(self) -> int:
        state = self._optimizer.state[self._params[0]]
        return int(state["step"]) if state else 0


class OnKeras:
    def __init__(self, rule: Rule, params: Arrays) -> None:
        self._params = [keras.Variable(p, dtype=p.dtype.name) for p in params]
        self._optimizer = thalweg.keras.Optimizer(rule)

    def step(self, grads: Arrays) -> None:
        self._optimizer.apply([keras.ops.convert_to_tensor(g) for g in grads], self._params)

    def params(self) -> list[Any]:
        return [np.array(keras.ops.convert_to_numpy(p.value)) for p in self._params]

    @property
    def t(self) -> int:
        return int(self._optimizer.iterations)


class OnJAX:
    compiled = False

    def __init__(self, rule: Rule, params: Arrays) -> None:
        transform = thalweg.jax.optimizer(rule)
        self._params = [jax.numpy.asarray(p) for p in params]
        self._state = transform.init(self._params)
        self._update = jax.jit(transform.update) if self.compiled else transform.update

    def step(self, grads: Arrays) -> None:
        updates, self._state = self._update([jax.numpy.asarray(g) for g in grads], self._state, self._params)
        self._params = [p + u for p, u in zip(self._params, updates, strict=True)]

    def params(self) -> list[Any]:
        return [np.asarray(p) for p in self._params]

    @property
    def t(self) -> int:
        return int(self._state.count)


class OnJAXCompiled(OnJAX):
    compiled = True


FRONT_ENDS: dict[str, type[FrontEnd]] = {
    "numpy": OnNumPy,
    "torch": OnTorch,
    "torch without kernels": OnTorch,
    "keras": OnKeras,
    "jax": OnJAX,
    "jax compiled": OnJAXCompiled,
}
if keras.backend.backend() == "torch":
    FRONT_ENDS["keras without kernels"] = OnKeras


@pytest.fixture(params=FRONT_ENDS)
def front_end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[FrontEnd]:
    name: str = request.param
    if name.endswith("without kernels"):
        place = "torch.plan" if name.startswith("torch") else "keras.fused"
        monkeypatch.setattr(f"thalweg.{place}.has_kernel", lambda tensors: False)
    return FRONT_ENDS[name]


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    """So that JAX and Keras have it, and keep hyperparameters in it."""
    before = keras.config.floatx()
    keras.config.dtype_policy()  # made now, of float32: Keras makes it when it is first asked for
    keras.config.set_floatx("float64")
    with jax.enable_x64(True):
        yield
    keras.config.set_floatx(before)


def drawn(steps: int, dtype: str = "float64") -> tuple[Arrays, list[Arrays]]:
    """A model's parameters, and for each step a gradient of each, whose entries keep their sign."""
    generator = np.random.default_rng(0)
    params = [np.asarray(generator.standard_normal(s), dtype) for s in SHAPES]
    signs = [np.sign(generator.standard_normal(s)) for s in SHAPES]
    sizes = [[generator.uniform(0.5, 1.5, s) for s in SHAPES] for _ in range(steps)]
    return params, [[np.asarray(s * x, dtype) for s, x in zip(signs, step, strict=True)] for step in sizes]


def led_by(driver: Driver, params: Sequence[Any], grads: Sequence[Sequence[Any]]) -> list[Any]:
    """Where a driver leads a model."""
    with np.errstate(all="ignore"):  # what is not finite, and a root that RAdam takes and does not use
        for step in grads:
            params = [p - taken for p, taken in zip(params, driver.steps(params, step), strict=True)]
    return [*params]


def check(front_end: type[FrontEnd], rule: Rule, steps: int) -> None:
    params, grads = drawn(steps)
    found, driver = front_end(rule, params), Driver(rule, len(params))
    for step in grads:
        found.step(step)
    assert largest_difference(found.params(), led_by(driver, params, grads)) <= 1e-12
    assert found.t == driver.t == steps


class Everything(Rule):
    """Asks for every input, and has a slot of each kind."""

    lr: Any = 0.1
    start: Any = 0.5

    def update(
        self, t: Any, g: Any, p: Any, norm: Any, global_norm: Any, m: Any = "start", s: Any = 1.0
    ) -> Any:
        """Each tensor's share of the model's norm weighs its gradient; s is one number, told by t alone."""
        s = s * (1 - 0.5**t)
        m = 0.9 * m + g * norm / global_norm + 0.01 * p
        return self.lr * m / s, m, s


# -- the rule's inputs, and its state ------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_every_form_takes_the_steps_of_the_rule_as_written(front_end: type[FrontEnd], form: str) -> None:
    check(front_end, FORMS[form], 4)


def test_inputs_are_what_update_asks_for(front_end: type[FrontEnd]) -> None:
    check(front_end, Everything(), 4)


@pytest.mark.parametrize("links", CLIPS.values(), ids=CLIPS)
def test_norms_are_of_the_gradient_as_it_stands(front_end: type[FrontEnd], links: Any) -> None:
    check(front_end, chain(*links, Normed(0.1)), 3)


@pytest.mark.parametrize("links", CLIPS.values(), ids=CLIPS)
def test_the_oracle_takes_norms_as_plain_numpy_does(links: Any) -> None:
    full = [i for i, shape in enumerate(SHAPES) if 0 not in shape]
    params, *grads = ([step[i] for i in full] for step in (drawn(3)[0], *drawn(3)[1]))
    found = led_by(Driver(chain(*links, Normed(0.1)), len(params)), params, grads)
    assert largest_difference(found, clipped_plainly(links, params, grads, 0.1)) <= 1e-12


def test_schedules_are_asked_for_the_step_about_to_be_taken_from_1(front_end: type[FrontEnd]) -> None:
    rates = [0.5, 0.25, 0.125]
    rule = thalweg.SGD(lr=lambda t: 0.5**t)
    params = [np.zeros(3)]
    found = front_end(rule, params)
    for k in range(3):
        found.step([np.ones(3)])
        assert difference(found.params()[0], -np.full(3, sum(rates[: k + 1]))) <= 1e-12


def test_schedules_of_any_hyperparameter(front_end: type[FrontEnd]) -> None:
    falling = schedules.Cosine(0.1, 4)
    check(
        front_end,
        chain(L2(schedules.WarmUp(3, 0.1)), Nadam(falling, beta_1=schedules.Exponential(0.9, 0.9))),
        5,
    )


def test_a_slot_starts_at_the_hyperparameter_that_holds_it(front_end: type[FrontEnd]) -> None:
    check(front_end, Adagrad(initial_accumulator=0.7), 2)


# -- skipped steps -------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_skipped_step_changes_nothing_and_is_not_counted(front_end: type[FrontEnd], bad: float) -> None:
    """Nadam's product of momenta, its bias corrections and the schedule go on as if it had not been."""
    rule = chain(SkipNonFinite(), Nadam(schedules.Exponential(0.1, 0.5)))
    params, grads = drawn(3)
    broken = [g.copy() for g in grads[1]]
    broken[-1][2] = bad
    found, driver = front_end(rule, params), Driver(rule, len(params))
    found.step(grads[0])
    before = found.params()
    found.step(broken)
    assert all(map(np.array_equal, found.params(), before))
    assert found.t == 1
    for step in grads[1:]:
        found.step(step)
    wanted = led_by(driver, params, [grads[0], broken, *grads[1:]])
    assert largest_difference(found.params(), wanted) <= 1e-12
    assert found.t == driver.t == 3
    without = led_by(Driver(rule, len(params)), params, grads)
    assert all(map(np.array_equal, wanted, without)), "the oracle skips too"


# -- dtypes, and what is left alone --------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 5e-5), ("float64", 1e-12)])
def test_parameters_keep_their_dtype(front_end: type[FrontEnd], dtype: str, tolerance: float) -> None:
    """Keras computes 1 − 0.999ᵗ in float32 then, which costs it four digits of the first steps."""
    params, grads = drawn(10, dtype)
    found = front_end(thalweg.Adam(0.1), params)
    for step in grads:
        found.step(step)
    assert {p.dtype.name for p in found.params()} == {dtype}
    wide = [[np.float64(g) for g in step] for step in grads]
    wanted = led_by(Driver(thalweg.Adam(0.1), len(params)), [np.float64(p) for p in params], wide)
    assert largest_difference(found.params(), wanted) <= tolerance


def test_gradients_are_left_alone(front_end: type[FrontEnd]) -> None:
    params, (grads, _) = drawn(2)
    before = [g.copy() for g in grads]
    front_end(chain(thalweg.Maximize(), thalweg.ClipByValue(0.7), thalweg.Momentum()), params).step(grads)
    assert all(map(np.array_equal, grads, before))
