"""The optimizers of `optax`, in its own spelling, simplest first.

Each takes what Optax's takes, and `dialect`: whose arithmetic, and whose default for every argument that
is not given. A schedule counts the steps taken, from 0, as in Optax.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, NamedTuple, ParamSpec

import jax

from thalweg import registry
from thalweg.errors import UnknownHyperparameterError
from thalweg.jax.base import GradientTransformation, Mask, Value, constant, transformation
from thalweg.jax.names import FIELDS
from thalweg.schedules import BuiltInSchedule
from thalweg.treatments import L2, DecoupledDecay, Treatment, chain

Arguments = ParamSpec("Arguments")


class _Choice(NamedTuple):
    """What a function of Optax's name comes to."""

    rule: str
    treatment: Treatment | None = None
    dtypes: Mapping[str, Any] = {}
    decay_mask: Mask = None


def _as_optax(choose: Callable[Arguments, _Choice]) -> Callable[Arguments, GradientTransformation]:
    """Make a transformation of the rule that a function of Optax's name and signature chooses.

    Arguments that are given are the rule's fields; for the others the dialect decides.
    """
    signature = inspect.signature(choose)
    name = choose.__name__

    @wraps(choose)
    def function(*args: Arguments.args, **kwargs: Arguments.kwargs) -> GradientTransformation:
        for argument in kwargs.keys() - signature.parameters.keys():
            words = {field: word for word, field in FIELDS.items() if word in signature.parameters}
            raise UnknownHyperparameterError(name, argument, signature.parameters, words)
        bound = signature.bind(*args, **kwargs)
        given = {k: v for k, v in bound.arguments.items() if v is not None}
        bound.apply_defaults()
        dialect = bound.arguments["dialect"]
        choice = choose(*bound.args, **bound.kwargs)
        known = {*inspect.signature(registry.find(choice.rule)).parameters}
        given = {k: v for k, v in given.items() if FIELDS.get(k, k) in known}
        for argument, value in given.items():
            default = signature.parameters[argument].default
            if dialect != "optax" and isinstance(value, jax.Array) and default is not inspect.Parameter.empty:
                raise TypeError(
                    f"{name}: in another dialect than Optax's, {argument} is a number or a schedule, since "
                    "optax.inject_hyperparams passes Optax's defaults as arrays; inject a function of what "
                    f"is to change: lambda learning_rate: {name}(learning_rate, dialect={dialect!r})"
                )
        fields = {FIELDS.get(k, k): _value(v) for k, v in given.items()}
        rule = registry.get(choice.rule, dialect=dialect, **fields)
        links = [choice.treatment] if choice.treatment else []
        return transformation(chain(*links, rule), choice.dtypes, choice.decay_mask)

    made = {"return": GradientTransformation}
    function.__annotations__ = choose.__annotations__ | made
    function.__signature__ = signature.replace(return_annotation=GradientTransformation)  # type: ignore[attr-defined]
    return function


def _value(value: Any) -> Any:
    """A setting as a rule takes it: a schedule counts from 1, and an array is one too."""
    if isinstance(value, jax.Array):
        return constant(value)
    if callable(value) and not isinstance(value, BuiltInSchedule):
        return lambda t: value(t - 1)
    return value


def _only(name: str, admitted: Any, **setting: Any) -> None:
    """Refuse another value than the one that there is."""
    ((argument, value),) = setting.items()
    if value is not None and not (isinstance(value, bool | int | float) and value == admitted):
        raise ValueError(f"{name}: {argument} is always {admitted!r} here, got {value!r}")


@_as_optax
def sgd(
    learning_rate: Value,
    momentum: Value | None = None,
    nesterov: bool = False,
    accumulator_dtype: Any = None,
    *,
    dialect: str = "optax",
) -> _Choice:
    """Gradient descent, with momentum and Nesterov's look-ahead. See `optax.sgd`."""
    if momentum is None:
        return _Choice("SGD")
    return _Choice("Nesterov" if nesterov else "Momentum", dtypes={"b": accumulator_dtype})


@_as_optax
def adagrad(
    learning_rate: Value,
    initial_accumulator_value: Value = 0.1,
    eps: Value = 1e-7,
    *,
    dialect: str = "optax",
) -> _Choice:
    """A rate that falls with the sum of squared gradients. See `optax.adagrad`."""
    return _Choice("Adagrad")


@_as_optax
def rmsprop(
    learning_rate: Value,
    decay: Value = 0.9,
    eps: Value = 1e-8,
    initial_scale: Value = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Value | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    *,
    dialect: str = "optax",
) -> _Choice:
    """A rate from the running mean of squares. See `optax.rmsprop`; without its `bias_correction`."""
    _only("rmsprop", False, bias_correction=bias_correction)
    return _Choice("RMSprop")


@_as_optax
def adadelta(
    learning_rate: Value | None = None,
    rho: Value = 0.9,
    eps: Value = 1e-6,
    weight_decay: Value = 0.0,
    weight_decay_mask: Mask = None,
    *,
    dialect: str = "optax",
) -> _Choice:
    """A rate from the running size of its own steps. See `optax.adadelta`.

    Without a learning rate it is 1, as in the paper (Optax 0.2.8 then goes uphill). `weight_decay` is L2.
    """
    decays = not isinstance(weight_decay, float | int) or weight_decay != 0
    return _Choice("Adadelta", L2(_value(weight_decay)) if decays else None, decay_mask=weight_decay_mask)


@_as_optax
def adam(
    learning_rate: Value,
    b1: Value = 0.9,
    b2: Value = 0.999,
    eps: Value = 1e-8,
    eps_root: float | None = None,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
    dialect: str = "optax",
) -> _Choice:
    """Momentum over a running RMS, both bias-corrected. See `optax.adam`; `eps_root` is 0."""
    _only("adam", 0.0, eps_root=eps_root)
    return _Choice("Nadam" if nesterov else "Adam", dtypes={"m": mu_dtype})


@_as_optax
def nadam(
    learning_rate: Value,
    b1: Value = 0.9,
    b2: Value = 0.999,
    eps: Value = 1e-8,
    eps_root: float | None = None,
    mu_dtype: Any = None,
    *,
    nesterov: bool = True,
    dialect: str = "optax",
) -> _Choice:
    """Adam that looks ahead. See `optax.nadam`; `eps_root` is 0."""
    _only("nadam", 0.0, eps_root=eps_root)
    return _Choice("Nadam" if nesterov else "Adam", dtypes={"m": mu_dtype})


@_as_optax
def adamw(
    learning_rate: Value,
    b1: Value = 0.9,
    b2: Value = 0.999,
    eps: Value = 1e-8,
    eps_root: float | None = None,
    mu_dtype: Any = None,
    weight_decay: Value = 1e-4,
    mask: Mask = None,
    *,
    nesterov: bool = False,
    dialect: str = "optax",
) -> _Choice:
    """Adam with decoupled weight decay. See `optax.adamw`; `eps_root` is 0."""
    _only("adamw", 0.0, eps_root=eps_root)
    if nesterov:
        return _Choice("Nadam", DecoupledDecay(_value(weight_decay)), {"m": mu_dtype}, mask)
    return _Choice("AdamW", dtypes={"m": mu_dtype}, decay_mask=mask)


@_as_optax
def nadamw(
    learning_rate: Value,
    b1: Value = 0.9,
    b2: Value = 0.999,
    eps: Value = 1e-8,
    eps_root: float | None = None,
    mu_dtype: Any = None,
    weight_decay: Value = 1e-4,
    mask: Mask = None,
    *,
    nesterov: bool = True,
    dialect: str = "optax",
) -> _Choice:
    """Nadam with decoupled weight decay. See `optax.nadamw`; `eps_root` is 0."""
    _only("nadamw", 0.0, eps_root=eps_root)
    rule = "Nadam" if nesterov else "Adam"
    return _Choice(rule, DecoupledDecay(_value(weight_decay)), {"m": mu_dtype}, mask)


@_as_optax
def amsgrad(
    learning_rate: Value,
    b1: Value = 0.9,
    b2: Value = 0.999,
    eps: Value = 1e-8,
    eps_root: float | None = None,
    mu_dtype: Any = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    dialect: str = "optax",
) -> _Choice:
    """Adam whose divisor never shrinks. See `optax.amsgrad`; `eps_root` is 0, both moments are corrected."""
    _only("amsgrad", 0.0, eps_root=eps_root)
    _only("amsgrad", True, bias_correction_mu=bias_correction_mu)
    _only("amsgrad", True, bias_correction_nu=bias_correction_nu)
    return _Choice("AMSGrad", dtypes={"m": mu_dtype})


@_as_optax
def adamax(
    learning_rate: Value,
    b1: Value = 0.9,
    b2: Value = 0.999,
    eps: Value = 1e-8,
    *,
    dialect: str = "optax",
) -> _Choice:
    """Adam with the largest recent gradient as divisor. See `optax.adamax`."""
    return _Choice("AdaMax")


@_as_optax
def adamaxw(
    learning_rate: Value,
    b1: Value = 0.9,
    b2: Value = 0.999,
    eps: Value = 1e-8,
    weight_decay: Value = 1e-4,
    mask: Mask = None,
    *,
    dialect: str = "optax",
) -> _Choice:
    """AdaMax with decoupled weight decay. See `optax.adamaxw`."""
    return _Choice("AdaMax", DecoupledDecay(_value(weight_decay)), decay_mask=mask)


@_as_optax
def radam(
    learning_rate: Value,
    b1: Value = 0.9,
    b2: Value = 0.999,
    eps: Value = 1e-8,
    eps_root: float | None = None,
    threshold: float | None = None,
    *,
    nesterov: bool = False,
    dialect: str = "optax",
) -> _Choice:
    """Adam that trusts its divisor only once it can. See `optax.radam`; `eps_root` is 0, `threshold` 5."""
    _only("radam", 0.0, eps_root=eps_root)
    _only("radam", 5.0, threshold=threshold)
    _only("radam", False, nesterov=nesterov)
    return _Choice("RAdam")


@_as_optax
def adabelief(
    learning_rate: Value,
    b1: Value = 0.9,
    b2: Value = 0.999,
    eps: float | None = None,
    eps_root: float | None = None,
    *,
    nesterov: bool = False,
    dialect: str = "optax",
) -> _Choice:
    """Adam that takes large steps where gradients come as expected. See `optax.adabelief`.

    The two ε of Optax are one here, 1e-16: another is to be given as both.
    """
    _only("adabelief", 1e-16 if eps is None else eps, eps_root=eps_root)
    _only("adabelief", 1e-16 if eps_root is None else eps_root, eps=eps)
    _only("adabelief", False, nesterov=nesterov)
    return _Choice("AdaBelief")


@_as_optax
def adan(
    learning_rate: Value,
    b1: Value = 0.98,
    b2: Value = 0.92,
    b3: Value = 0.99,
    eps: Value = 1e-8,
    eps_root: Value = 1e-8,
    weight_decay: Value = 0.0,
    mask: Mask = None,
    *,
    dialect: str = "optax",
) -> _Choice:
    """Adam with Nesterov's look-ahead taken from the change of the gradient. See `optax.adan`."""
    return _Choice("Adan", decay_mask=mask)


@_as_optax
def lion(
    learning_rate: Value,
    b1: Value = 0.9,
    b2: Value = 0.99,
    mu_dtype: Any = None,
    weight_decay: Value = 1e-3,
    mask: Mask = None,
    *,
    dialect: str = "optax",
) -> _Choice:
    """The sign of an interpolated momentum; weight decay is decoupled. See `optax.lion`."""
    return _Choice("Lion", dtypes={"m": mu_dtype}, decay_mask=mask)
