"""Thalweg's rules as Optax gradient transformations: pure functions of pytrees, for JAX.

    import thalweg.jax

    optimizer = thalweg.jax.adam(1e-3)
    state = optimizer.init(params)
    updates, state = optimizer.update(grads, state, params)
    params = optax.apply_updates(params, updates)  # or jax.tree.map(jnp.add, params, updates)

The functions below have the names, arguments, defaults and arithmetic of Optax's; `dialect=` asks for
another framework's. Where Optax has a default and here stands None, there is one value, and others are
refused. Every registered rule is here under its own name in lower case (`momentum`, one of yours), and
`optimizer` takes any rule object, within treatments or not. What they make composes with Optax's own
(`chain`, `masked`, `partition`, `MultiSteps`, …) and needs no Optax.

**Hyperparameters** are numbers, schedules, or JAX arrays. A number goes into the state, where it may be
changed at any time without recompilation: `with_hyperparameters(state, lr=0.01)`. One call so trains
several learning rates, where `train(state)` is any function that takes its steps with `optimizer.update`:

    states = jax.vmap(lambda lr: with_hyperparameters(optimizer.init(params), lr=lr))(rates)
    results = jax.vmap(train)(states)

A JAX array stays outside and is used as it is, so whoever traces one through a constructor
(`optax.inject_hyperparams(thalweg.jax.adam)`, a derivative by the learning rate) is in charge of it.

**Schedules** are called with the number of the step as an integer array. What is passed to a function of
Optax's name follows Optax: it counts the steps taken, from 0; those of `thalweg.schedules` count from 1
everywhere, and so does every schedule inside a rule. They must be traceable: `jnp.where`, not `if`.

Arithmetic is in float32, in float64 where a parameter or gradient is float64; state has the parameter's
dtype, an update its gradient's. Complex parameters are updated as in Optax where that is clear, and else
refused.
"""

try:
    import jax as _  # noqa: F401
except ImportError as error:
    raise ImportError("thalweg.jax needs JAX: pip install 'thalweg[jax]'") from error

from collections.abc import Callable

from thalweg.dialects.optax import OPTAX
from thalweg.errors import UnknownRuleError, no_attribute
from thalweg.jax.base import GradientTransformation, State, get, optimizer, with_hyperparameters
from thalweg.jax.optimizers import function_of, named
from thalweg.registry import class_name, find, rules

__all__ = ["GradientTransformation", "State", "get", "optimizer", "with_hyperparameters"]
__all__ += dict.fromkeys(one.name for one in OPTAX.spellings)


def __getattr__(name: str) -> Callable[..., GradientTransformation]:
    if OPTAX.named(name):
        return named(name)
    try:
        rule = find(name)
    except UnknownRuleError:
        rule = None
    if rule is None or name != class_name(rule).lower():
        raise no_attribute(__name__, name, __dir__())
    return function_of(rule)


def __dir__() -> list[str]:
    return [*__all__, *(class_name(find(name)).lower() for name in rules())]
