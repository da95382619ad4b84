"""The seven kinds of optimizers behind one interface, and the rules in which two of them meet."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
import torch

import thalweg
import thalweg.convert
import thalweg.jax
import thalweg.keras
import thalweg.numpy
import thalweg.torch
from thalweg import Rule

SHAPES = {"w": (3, 2), "b": (2,)}
BEFORE, AFTER = 20, 50

Params = dict[str, Any]

# Keras's own, in get_config on the JAX back end.
KERAS_WARNS = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(autouse=True, scope="module")
def all_in_float64() -> Iterator[None]:
    """Every framework in float64."""
    floatx, default = keras.config.floatx(), torch.get_default_dtype()
    keras.config.dtype_policy()  # made now, of float32: Keras makes it when it is first asked for
    keras.config.set_floatx("float64")
    torch.set_default_dtype(torch.float64)
    with jax.enable_x64(True):
        yield
    keras.config.set_floatx(floatx)
    torch.set_default_dtype(default)


def start(shapes: dict[str, tuple[int, ...]] = SHAPES) -> Params:
    generator = np.random.default_rng(0)
    return {name: generator.standard_normal(shape) for name, shape in shapes.items()}


def gradients(steps: int, seed: int = 1, shapes: dict[str, tuple[int, ...]] = SHAPES) -> list[Params]:
    generator = np.random.default_rng(seed)
    return [{name: generator.standard_normal(shape) for name, shape in shapes.items()} for _ in range(steps)]


class Side:
    """An optimizer of one framework on parameters of its own: made, stepped, and read."""

    def __init__(self, make: Callable[[Any], Any], params: Params) -> None:
        raise NotImplementedError

    def step(self, grads: Params) -> None:
        raise NotImplementedError

    @property
    def params(self) -> Params:
        raise NotImplementedError

    @property
    def state(self) -> Any:
        """What conversion reads."""
        raise NotImplementedError

    def run(self, grads: Iterable[Params]) -> Params:
        for step in grads:
            self.step(step)
        return self.params


class Torch(Side):
    def __init__(self, make: Callable[[Any], Any], params: Params) -> None:
        self.tensors = {k: torch.tensor(p, requires_grad=True) for k, p in params.items()}
        self.optimizer = make(list(self.tensors.items()))

    def step(self, grads: Params) -> None:
        for name, p in self.tensors.items():
            p.grad = torch.tensor(grads[name])
        self.optimizer.step()

    @property
    def params(self) -> Params:
        return {name: p.detach().numpy().copy() for name, p in self.tensors.items()}

    @property
    def state(self) -> Any:
        return self.optimizer.state_dict()


class Keras(Side):
    def __init__(self, make: Callable[[Any], Any], params: Params) -> None:
        self.variables = [keras.Variable(p, dtype=p.dtype.name, name=name) for name, p in params.items()]
        self.optimizer = make(self.variables)
        self.optimizer.build(self.variables)

    def step(self, grads: Params) -> None:
        self.optimizer.apply([jnp.asarray(grads[v.path]) for v in self.variables], self.variables)

    @property
    def params(self) -> Params:
        return {v.path: np.array(v) for v in self.variables}

    @property
    def state(self) -> Any:
        return self.optimizer


class Optax(Side):
    def __init__(self, make: Callable[[Any], Any], params: Params) -> None:
        self.tree = {name: jnp.asarray(p) for name, p in params.items()}
        made = make(self.tree)
        self.optimizer, self.state_ = made if type(made) is tuple else (made, made.init(self.tree))

    def step(self, grads: Params) -> None:
        updates, self.state_ = self.optimizer.update(
            {k: jnp.asarray(g) for k, g in grads.items()}, self.state_, self.tree
        )
        self.tree = optax.apply_updates(self.tree, updates)

    @property
    def params(self) -> Params:
        return {name: np.array(p) for name, p in self.tree.items()}

    @property
    def state(self) -> Any:
        return self.state_


class Numpy(Side):
    def __init__(self, make: Callable[[Any], Any], params: Params) -> None:
        self.arrays = {name: p.copy() for name, p in params.items()}
        self.optimizer = make(self.arrays)

    def step(self, grads: Params) -> None:
        self.optimizer.update(self.arrays, grads)

    @property
    def params(self) -> Params:
        return {name: p.copy() for name, p in self.arrays.items()}

    @property
    def state(self) -> Any:
        return self.optimizer


SIDES: dict[str, type[Side]] = {
    "torch": Torch,
    "thalweg.torch": Torch,
    "keras": Keras,
    "thalweg.keras": Keras,
    "optax": Optax,
    "thalweg.jax": Optax,
    "thalweg.numpy": Numpy,
}

# Each rule as each framework's own class has it: the class and the settings that two of them share.
LR = 0.05
BETAS = {"beta_1": 0.8, "beta_2": 0.95}
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("sgd", {}),
    "momentum": ("momentum", {"momentum": 0.8}),
    "nesterov": ("nesterov", {"momentum": 0.8}),
    "adagrad": ("adagrad", {"epsilon": 0.0, "initial_accumulator": 0.1}),
    "adadelta": ("adadelta", {"rho": 0.8, "epsilon": 1e-5}),
    "rmsprop": ("rmsprop", {"rho": 0.8, "epsilon": 0.0}),
    "rmsprop-momentum": ("rmsprop", {"rho": 0.8, "epsilon": 0.0, "momentum": 0.7}),
    "rmsprop-centered": ("rmsprop", {"rho": 0.8, "epsilon": 0.0, "momentum": 0.7, "centered": True}),
    "adam": ("adam", {**BETAS, "epsilon": 0.0}),
    "adam-late": ("adam", {"beta_1": 0.8, "beta_2": 0.2, "epsilon": 1e-3}),
    "adamw": ("adamw", {**BETAS, "epsilon": 0.0, "weight_decay": 0.1}),
    "amsgrad": ("amsgrad", {"beta_1": 0.8, "beta_2": 0.2, "epsilon": 1e-3}),
    "adamax": ("adamax", {**BETAS, "epsilon": 0.0}),
    "nadam": ("nadam", {**BETAS, "epsilon": 1e-3, "psi": 1.0}),
    "nadam-constant": ("nadam", {**BETAS, "epsilon": 1e-3, "psi": None}),
    "radam": ("radam", {**BETAS, "epsilon": 0.0}),
    "adabelief": ("adabelief", {**BETAS, "epsilon": 1e-5}),
    "adan": ("adan", {"epsilon": 1e-5, "weight_decay": 0.1}),
    "lion": ("lion", {"beta_1": 0.8, "beta_2": 0.7, "weight_decay": 0.1}),
}


def rule_in(dialect: str, name: str) -> Rule:
    """The rule of RULES in a dialect's form."""
    kind, values = RULES[name]
    return thalweg.get(kind, dialect=dialect, lr=LR, **values)


def native(framework: str, name: str) -> Callable[[Any], Any] | None:
    """How the framework's own optimizer for it is made of parameters; None where it has none."""
    makers = {"torch": _torch, "keras": _keras, "optax": _optax}
    return makers[framework](name)


def maker(framework: str, name: str) -> Callable[[Any], Any] | None:
    """How an optimizer of the framework is made, a native one or Thalweg's."""
    if framework in ("torch", "keras", "optax"):
        return native(framework, name)
    rule = rule_in({"thalweg.numpy": "paper", "thalweg.jax": "optax"}.get(framework, framework[8:]), name)
    if framework == "thalweg.torch":
        return lambda params: thalweg.torch.Optimizer(params, rule)
    if framework == "thalweg.keras":
        return lambda _: thalweg.keras.Optimizer(rule)
    if framework == "thalweg.jax":
        return lambda _: thalweg.jax.optimizer(rule)
    return lambda _: thalweg.numpy.Optimizer(rule)


def _torch(name: str) -> Callable[[Any], Any] | None:
    kind, v = RULES[name]
    if kind in ("adabelief", "adan", "lion") or v.get("psi", 0) is None:
        return None
    classes = {"momentum": "SGD", "nesterov": "SGD", "amsgrad": "Adam"}
    words = {"epsilon": "eps", "psi": "momentum_decay", "initial_accumulator": "initial_accumulator_value"}
    settings = {words.get(k, k): x for k, x in v.items() if k not in ("beta_1", "beta_2")}
    if "beta_1" in v:
        settings["betas"] = (v["beta_1"], v["beta_2"])
    if kind == "rmsprop":
        settings["alpha"] = settings.pop("rho")
    if kind == "nesterov":
        settings["nesterov"] = True
    if kind == "amsgrad":
        settings["amsgrad"] = True
    known = {c.lower(): c for c in dir(torch.optim)}
    factory = getattr(torch.optim, known[classes.get(kind, kind).lower()])
    return lambda params: factory(params, lr=LR, **settings)


def _keras(name: str) -> Callable[[Any], Any] | None:
    kind, v = RULES[name]
    if kind in ("adabelief", "adan", "radam") or v.get("psi", 0) is None:
        return None
    classes = {"momentum": "SGD", "nesterov": "SGD", "amsgrad": "Adam"}
    settings = {k: x for k, x in v.items() if k != "psi"}
    if "initial_accumulator" in settings:
        settings["initial_accumulator_value"] = settings.pop("initial_accumulator")
    if kind in ("nesterov", "amsgrad"):
        settings[kind] = True
    known = {c.lower(): c for c in dir(keras.optimizers)}
    factory = getattr(keras.optimizers, known[classes.get(kind, kind).lower()])
    return lambda _: factory(learning_rate=LR, **settings)


def _optax(name: str) -> Callable[[Any], Any] | None:
    kind, v = RULES[name]
    if v.get("psi"):
        return None
    words = {"beta_1": "b1", "beta_2": "b2", "epsilon": "eps"}
    if kind == "rmsprop":
        words["rho"] = "decay"
    if kind == "adagrad":
        words["initial_accumulator"] = "initial_accumulator_value"
    settings = {words.get(k, k): x for k, x in v.items() if k != "psi"}
    if kind == "adabelief":
        settings["eps_root"] = settings["eps"]
    if kind == "nesterov":
        settings["nesterov"] = True
    factory = getattr(optax, {"momentum": "sgd", "nesterov": "sgd"}.get(kind, kind))
    return lambda _: factory(LR, **settings)


def told(framework: str, name: str) -> dict[str, Any]:
    """What `state` must be told besides, because the framework's state does not tell it."""
    if framework == "optax":
        return {"rule": rule_in("optax", name)}
    if framework in ("thalweg.jax", "thalweg.torch"):
        return {"rule": rule_in("optax" if framework == "thalweg.jax" else "torch", name)}
    return {}


def pairs(source: str) -> list[tuple[str, str]]:
    """Each rule that the source has, with each target that has it too."""
    found = [
        (name, target) for name in RULES for target in SIDES if maker(source, name) and maker(target, name)
    ]
    # Optax's Adan is another than the paper's.
    return [(n, t) for n, t in found if n != "adan" or t != "optax" or source in ("optax", "thalweg.jax")]


def moved_to(target: str, moved: Any, params: Params) -> Side:
    """The target's side, going on from what was converted; parameters in an order of its own."""
    params = {name: params[name] for name in SHAPES}
    if SIDES[target] is Optax:
        return Optax(lambda _: (moved.optimizer(), moved.state), params)
    return SIDES[target](moved.optimizer, params)
