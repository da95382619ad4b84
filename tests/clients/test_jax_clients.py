"""What JAX programs keep an Optax transformation in: Flax, Equinox, Orbax, sharded arrays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import NamedSharding, PartitionSpec

import thalweg.jax

X = jnp.linspace(-1, 1, 64).reshape(16, 4)
Y = jnp.sin(X.sum(1, keepdims=True))
# Settings under which each of several rules is taken.
KINDS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9},
    "adamw": {"weight_decay": 0.1},
    "rmsprop": {"momentum": 0.5},
}
kinds = pytest.mark.parametrize("kind", KINDS)


def made(module: Any, kind: str, rate: Any = 0.05) -> Any:
    return getattr(module, kind)(rate, **KINDS[kind])


def beside_optax(act: Callable[[Any], Any]) -> None:
    """Whether `act` leads to the same arrays with optax as with thalweg.jax."""
    wanted, found = (jax.tree.leaves(act(module)) for module in (optax, thalweg.jax))
    assert wanted, "nothing was compared"
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def params() -> Any:
    keys = jax.random.split(jax.random.key(0), 2)
    return {
        "hidden": {"w": jax.random.normal(keys[0], (4, 8)), "b": jnp.zeros(8)},
        "out": {"w": jax.random.normal(keys[1], (8, 2)), "b": jnp.zeros(2)},
    }


def loss(p: Any, x: Any = X, y: Any = Y) -> Any:
    hidden = jnp.tanh(x @ p["hidden"]["w"] + p["hidden"]["b"])
    return ((hidden @ p["out"]["w"] + p["out"]["b"] - y) ** 2).mean()


def steps(transformation: Any, p: Any, state: Any, count: int) -> tuple[Any, Any]:
    @jax.jit
    def step(p: Any, state: Any) -> tuple[Any, Any]:
        updates, state = transformation.update(jax.grad(loss)(p), state, p)
        return optax.apply_updates(p, updates), state

    for _ in range(count):
        p, state = step(p, state)
    return p, state


@kinds
def test_flax_nnx(kind: str) -> None:

    class Network(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.hidden, self.out = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.out(jnp.tanh(self.hidden(x)))

    def act(module: Any) -> Any:
        network = Network(nnx.Rngs(0))
        optimizer = nnx.Optimizer(network, made(module, kind), wrt=nnx.Param)

        @nnx.jit
        def step(network: Any, optimizer: Any) -> None:
            grads = nnx.grad(lambda n: ((n(X) - Y) ** 2).mean())(network)
            optimizer.update(network, grads)

        for _ in range(5):
            step(network, optimizer)
        return nnx.state(network, nnx.Param)

    beside_optax(act)


@kinds
def test_flax_train_state(kind: str) -> None:
    def act(module: Any) -> Any:
        state = TrainState.create(apply_fn=None, params=params(), tx=made(module, kind))
        step = jax.jit(lambda s: s.apply_gradients(grads=jax.grad(loss)(s.params)))
        for _ in range(3):
            state = step(state)
        fresh = TrainState.create(apply_fn=None, params=params(), tx=made(module, kind))
        resumed = flax.serialization.from_bytes(fresh, flax.serialization.to_bytes(state))
        for _ in range(3):
            state, resumed = step(state), step(resumed)
        jax.tree.map(np.testing.assert_array_equal, state.params, resumed.params)
        return state.params

    beside_optax(act)


@kinds
def test_equinox(kind: str, tmp_path: Path) -> None:
    def act(module: Any) -> Any:
        model = eqx.nn.MLP(4, 1, 8, 1, jnp.tanh, key=jax.random.key(0))
        transformation = made(module, kind)
        state = transformation.init(eqx.filter(model, eqx.is_inexact_array))

        @eqx.filter_jit
        def step(model: Any, state: Any) -> tuple[Any, Any]:
            grads = eqx.filter_grad(lambda m: ((jax.vmap(m)(X) - Y) ** 2).mean())(model)
            updates, state = transformation.update(grads, state, eqx.filter(model, eqx.is_inexact_array))
            return eqx.apply_updates(model, updates), state

        for _ in range(3):
            model, state = step(model, state)
        file = tmp_path / f"{module.__name__}.eqx"
        eqx.tree_serialise_leaves(file, state)
        resumed = eqx.tree_deserialise_leaves(
            file, transformation.init(eqx.filter(model, eqx.is_inexact_array))
        )
        return eqx.filter(step(model, resumed)[0], eqx.is_inexact_array)

    beside_optax(act)


@kinds
def test_orbax(kind: str, tmp_path: Path) -> None:
    def act(module: Any) -> Any:
        transformation = made(module, kind)
        p, state = steps(transformation, params(), transformation.init(params()), 3)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / module.__name__, {"params": p, "state": state})
            checkpointer.wait_until_finished()
            fresh = {"params": params(), "state": transformation.init(params())}
            loaded = checkpointer.restore(
                tmp_path / module.__name__, jax.tree.map(ocp.utils.to_shape_dtype_struct, fresh)
            )
        assert jax.tree.structure(loaded["state"]) == jax.tree.structure(state)
        once, _ = steps(transformation, p, state, 3)
        again, _ = steps(transformation, loaded["params"], loaded["state"], 3)
        jax.tree.map(np.testing.assert_array_equal, once, again)
        return again

    beside_optax(act)


def mesh() -> Any:
    assert jax.device_count() == 2, "XLA_FLAGS asks for two devices"
    return jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))


@kinds
def test_shard_map_over_data(kind: str) -> None:
    """Each device with half of the rows, gradients averaged, the same step on each."""

    def act(module: Any) -> Any:
        transformation = made(module, kind)

        def step(p: Any, state: Any, x: Any, y: Any) -> tuple[Any, Any]:
            grads = jax.lax.pmean(jax.grad(loss)(p, x, y), "x")
            updates, state = transformation.update(grads, state, p)
            return optax.apply_updates(p, updates), state

        here, rows = PartitionSpec(), PartitionSpec("x")
        shared = jax.jit(
            jax.shard_map(
                step, mesh=mesh(), in_specs=(here, here, rows, rows), out_specs=here, check_vma=False
            )
        )
        p, state = params(), transformation.init(params())
        for _ in range(5):
            p, state = shared(p, state, X, Y)
        alone, _ = steps(transformation, params(), transformation.init(params()), 5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), p, alone)
        return p

    beside_optax(act)


@kinds
def test_parameters_and_state_sharded(kind: str) -> None:
    """Columns over devices; the state is laid out as its parameter is, and stays so."""

    def act(module: Any) -> Any:
        transformation = made(module, kind)
        layout = NamedSharding(mesh(), PartitionSpec(None, "x"))
        p = params()
        for layer in p.values():
            layer["w"] = jax.device_put(layer["w"], layout)
        state = jax.jit(transformation.init)(p)
        end, state = steps(transformation, p, state, 5)
        assert end["hidden"]["w"].sharding.is_equivalent_to(layout, 2)
        sharded = [s for s in jax.tree.leaves(state) if jnp.shape(s) == (4, 8)]
        assert sharded
        assert all(s.sharding.is_equivalent_to(layout, 2) for s in sharded)
        alone, _ = steps(transformation, params(), transformation.init(params()), 5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), end, alone)
        return end

    beside_optax(act)
