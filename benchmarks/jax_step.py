"""Whole jitted training steps in JAX, and large updates alone, beside Optax's optimizers.

    python benchmarks/jax_step.py [--seconds 3] [--rounds 21]

Prints milliseconds and the ratio of Thalweg's time to Optax's: median and quartiles over rounds in which the
two take turns. Required is 1.05 at most. What XLA made of both is compared too: the instructions of the
optimized programs, fusions counted as one.
"""

import argparse
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import optax

import thalweg.jax
from timing import take_turns

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "adam": lambda library: library.adam(1e-3),
    "sgd, momentum": lambda library: library.sgd(1e-3, momentum=0.9),
    "rmsprop": lambda library: library.rmsprop(1e-3),
    "adamw": lambda library: library.adamw(1e-3),
    "nadam": lambda library: library.nadam(1e-3),
}
LIBRARIES = {"thalweg": thalweg.jax, "optax": optax}
LAYERS = (784, 300, 100, 10)
ENTRIES = 20_000_000
MOST = 1.05

Step = Callable[..., Any]


def training_step(optimizer: Any) -> tuple[Step, tuple[Any, ...]]:
    """784-300-100-10, batch 32: forward, backward, step."""
    key = jax.random.key(0)
    params = [
        (jax.random.normal(jax.random.fold_in(key, i), (a, b)) * (2 / a) ** 0.5, jnp.zeros(b))
        for i, (a, b) in enumerate(pairwise(LAYERS))
    ]
    inputs = jax.random.normal(key, (32, LAYERS[0]))
    labels = jax.random.randint(key, (32,), 0, LAYERS[-1])

    def loss(params: Any) -> jax.Array:
        x = inputs
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        w, b = params[-1]
        return optax.softmax_cross_entropy_with_integer_labels(x @ w + b, labels).mean()

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    return step, (params, optimizer.init(params))


def large_update(optimizer: Any) -> tuple[Step, tuple[Any, ...]]:
    """20 M entries, the step alone."""
    params = jnp.linspace(-1.0, 1.0, ENTRIES)

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        # The gradient of ½p², which costs nothing.
        updates, state = optimizer.update(params, state, params)
        return optax.apply_updates(params, updates), state

    return step, (params, optimizer.init(params))


def contender(step: Step, carry: tuple[Any, ...]) -> tuple[Callable[[], None], str]:
    """A call that takes one step from where the last one ended, and the compiled program's text."""
    compiled = jax.jit(step, donate_argnums=(0, 1))
    text = compiled.lower(*carry).compile().as_text()
    held = [jax.tree.map(jnp.copy, carry)]

    def call() -> None:
        held[0] = jax.block_until_ready(compiled(*held[0]))

    return call, text


def alternating(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    """A call of one and the other."""

    def call() -> None:
        first()
        second()

    return call


def instructions(text: str) -> str:
    """How many instructions the entry computation has, and how many of them are fusions."""
    entry = text[text.index("ENTRY") :]
    made = [line for line in entry.splitlines() if re.match(r"\s+(ROOT )?%?[\w.-]+ = ", line)]
    moved = ("parameter(", "constant(", "tuple(", "get-tuple-element(", "bitcast(")
    made = [line for line in made if not any(f" {m}" in line for m in moved)]
    return f"{len(made)} ({sum(' fusion(' in line for line in made)} fusions)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each contender (3)")
    parser.add_argument("--rounds", type=int, default=21, help="turns that each gets (21)")
    options = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, optax {optax.__version__}")
    failed = []
    for title, build in {
        "784-300-100-10, batch 32, a training step": training_step,
        f"{ENTRIES:,} entries, an update": large_update,
    }.items():
        print(f"\n{title}: ms")
        print(f"  {'':14} {'thalweg':>8} {'optax':>8}   thalweg/optax        instructions of both")
        for name, make in OPTIMIZERS.items():
            # Where arrays come to lie in memory counts too: each is built twice, and the two alternate.
            built = [
                (x, *contender(*build(make(module)))) for _ in range(2) for x, module in LIBRARIES.items()
            ]
            sizes = {library: instructions(text) for library, _, text in built}
            calls = {x: alternating(*(call for library, call, _ in built if library == x)) for x in LIBRARIES}
            times = take_turns(calls, options.seconds, options.rounds)
            milliseconds = " ".join(f"{times.median(library) * 500:8.3f}" for library in LIBRARIES)
            ratio = times.ratio("thalweg", "optax")
            print(f"  {name:14} {milliseconds}   {ratio:20} {sizes['thalweg']}; {sizes['optax']}")
            if times.quartiles("thalweg", "optax")[1] > MOST:
                failed.append(f"{title}: {name}")
    print(f"\nabove {MOST}: {'; '.join(failed) or 'none'}")


if __name__ == "__main__":
    main()
