"""A rule as a gradient transformation: pure functions that lift it from one entry to any tree of arrays."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from thalweg import ops, registry
from thalweg.dialects.optax import OPTAX
from thalweg.errors import UnknownHyperparameterError, no_rule
from thalweg.hyperparameters import HYPERPARAMETERS, Hyperparameter
from thalweg.program.tracing import Program, trace
from thalweg.rule import Rule
from thalweg.rules import Adadelta, Adan, Lion
from thalweg.statefile import apart
from thalweg.treatments import L2, ClipByGlobalNorm, ClipByNorm, DecoupledDecay, Maximize, SkipNonFinite

Tree: TypeAlias = Any
Value: TypeAlias = float | jax.Array | Callable[[Any], Any]
Mask: TypeAlias = Tree | Callable[[Tree], Tree] | None


# A hyperparameter's field by Optax's argument; the others have one name in both.
FIELDS: dict[str, str] = {k: v for k, v in OPTAX.fields.items() if isinstance(v, str)}

# The rules and treatments whose arithmetic on complex parameters is Optax's. Its Lion, Adadelta and Adan are
# not made for them, and bounds have no meaning there.
_COMPLEX: set[type] = {*OPTAX.native} - {Lion, Adadelta, Adan} | {
    *(ClipByNorm, ClipByGlobalNorm, DecoupledDecay, L2, Maximize, SkipNonFinite)
}


class InitUpdate(NamedTuple):
    """An optimizer: `init(params)` makes its state, `update(grads, state, params)` takes a step."""

    init: Callable[[Tree], Tree]
    update: Callable[..., tuple[Tree, Tree]]


try:
    from optax import GradientTransformationExtraArgs as _Transformation
except ImportError:
    _Transformation = InitUpdate
GradientTransformation: TypeAlias = _Transformation


class State(NamedTuple):
    """All that an optimizer carries from step to step.

    Names are Optax's where it has one, so that `optax.tree.get(state, "mu")` and `optax.tree.set(state,
    learning_rate=0.01)` find them.

    Attributes:
        count: number of steps taken, int32.
        hyperparameters: the value of each that was given as a number.
        slots: each state slot: a tree like the parameters.
        scalars: each slot that is one number for the whole model.
    """

    count: jax.Array  # type: ignore[assignment]
    hyperparameters: dict[str, jax.Array]
    slots: dict[str, Tree]
    scalars: dict[str, jax.Array]


def optimizer(rule: Rule) -> GradientTransformation:
    """A gradient transformation from a rule, within treatments or not: `optimizer(chain(L2(1e-4), Adam()))`.

    Its schedules are called with the number of the step, from 1.

    Raises:
        TypeError: `rule` is not a rule.
    """
    return transformation(rule)


def get(name: str, *, dialect: str = "optax", **hyperparameters: Value) -> GradientTransformation:
    """Any registered rule by its own name and hyperparameters: `get("momentum", lr=0.1)`.

    Args:
        name: as `thalweg.get` takes it.
        dialect: whose arithmetic and defaults.
        hyperparameters: values other than the dialect's; schedules count from 1.

    Raises:
        UnknownRuleError, UnknownDialectError, UnknownHyperparameterError: naming the nearest name.
        TypeError, ValueError: a value of the wrong type, outside its range, or given twice.
    """
    values = {k: constant(v) if isinstance(v, jax.Array) else v for k, v in hyperparameters.items()}
    return transformation(registry.get(name, dialect=dialect, **values))


def constant(value: Any) -> Callable[[Any], Any]:
    """The schedule that is that value at every step."""
    return lambda t: value


def with_hyperparameters(state: Tree, **values: float | jax.Array) -> Tree:
    """A state with some hyperparameters changed; nothing is recompiled.

    Args:
        state: a `State`, or a tree that holds some, as `optax.chain` makes it: all with that name change.
        values: numbers by the names in `State.hyperparameters`, or by the rule's own (`lr`, `beta_1`); where
            the state was made under `jax.vmap`, one number for all, or an array with one for each.

    Raises:
        UnknownHyperparameterError: no state has it; schedules and arrays given to the optimizer are in none.
        TypeError: a value that is no number.
        ValueError: a value outside the rule's admissible range, or of another shape.
    """
    states = [s for s in jax.tree.leaves(state, is_leaf=_is_state) if _is_state(s)]
    known = sorted({word for s in states for name in s.hyperparameters for word in _words(name)})
    for word, value in values.items():
        if word not in known:
            raise UnknownHyperparameterError("the optimizer's state", word, known)
        for s in states:
            if any(word in _words(name) for name in s.hyperparameters):
                _check_range(s, FIELDS.get(word, word), value)

    def changed(s: Tree) -> Tree:
        if not _is_state(s):
            return s
        new: dict[str, jax.Array] = {}
        for name, old in s.hyperparameters.items():
            given = [word for word in _words(name) if word in values]
            if len(given) > 1:
                raise TypeError(f"{' and '.join(given)} are the same; give one")
            if given:
                new[name] = _in_place_of(old, values[given[0]], given[0])
        return s._replace(hyperparameters=s.hyperparameters | new)

    return jax.tree.map(changed, state, is_leaf=_is_state)


def _words(name: str) -> tuple[str, ...]:
    """What a hyperparameter of a state may be called: by Optax's name for it, and by the rule's own."""
    return tuple(dict.fromkeys((name, FIELDS.get(name, name))))


def _is_state(x: Any) -> bool:
    return isinstance(x, State)


# What the rules of the optimizers made so far say of a hyperparameter, by the names in their states: a state
# holds arrays alone. Where states of two rules have all names in common, what either admits is let pass.
_described: dict[Any, list[Hyperparameter]] = {}


def _place_of(state: Any, name: str) -> Any:
    return (name, *(frozenset(part) for part in state[1:]))


def _check_range(state: State, name: str, value: Any) -> None:
    """Refuse what the state's rule does not admit, where the value is known."""
    if jnp.issubdtype(jnp.result_type(value), jnp.bool_):
        raise TypeError(f"{name} is a number, got {value!r}")
    if isinstance(value, jax.core.Tracer):
        return
    common = HYPERPARAMETERS.get(name, Hyperparameter())
    about = _described.get(_place_of(state, name), [common])
    for x in jnp.ravel(jnp.asarray(value)).tolist():
        if not any(one.admits(x) for one in about):
            raise ValueError(f"{name} must lie in {about[0].range}, got {x!r}")


def _in_place_of(old: Any, value: Any, name: str) -> jax.Array:
    shape = jnp.shape(old)
    if jnp.shape(value) not in ((), shape):
        raise ValueError(
            f"{name} has shape {jnp.shape(value)} where the state has {shape}; "
            "for several values at once make several states with jax.vmap"
        )
    return jnp.broadcast_to(jnp.asarray(value, jnp.result_type(old)), shape)


# The count stays there.
_LAST = 2**31 - 1


def _product(a: Any, b: Any) -> Any:
    """a·b, and |a|² for the square of a complex number, as Optax has it."""
    return jnp.real(a) ** 2 + jnp.imag(a) ** 2 if a is b and jnp.iscomplexobj(a) else a * b


# What programs call by the names of `thalweg.ops`, and products; other arithmetic is left to operators.
_FUNCTIONS = {name: getattr(jnp, name) for name in ops.__all__} | {"mul": _product}
_FUNCTIONS["sum_of_squares"] = lambda x: jnp.sum(_product(x, x))


@cache
def _step_of(program: Program) -> Callable[..., tuple[jax.Array, dict[str, Any], dict[str, Any]]]:
    """One step of one array: the update to add, the new slots, the new scalar slots.

    It is called with what the program's function on arrays is called with, as one dictionary.
    It is compiled on its own where `update` runs outside `jit`, and else traced once for each shape.
    """
    function = program.array_function(_FUNCTIONS)

    def step(given: dict[str, Any]) -> Any:
        g, slots = given["g"], {slot: given[slot] for slot in program.slots}
        change, *new = function(**_widened(given, _computed_in((g, given["p"], slots))))

        def stored_as(old: Any, x: Any) -> jax.Array:
            if not jnp.iscomplexobj(old):  # a moment may be complex where its gradient is not
                x = jnp.real(x)
            return jnp.broadcast_to(jnp.asarray(x, old.dtype), old.shape)

        new_slots = {slot: stored_as(slots[slot], new.pop(0)) for slot in program.slots}
        return stored_as(g, -change), new_slots, dict(zip(program.scalar_slots, new, strict=True))

    return jax.jit(step, inline=True)


@cache
def _norms_of(program: Program) -> Callable[..., Any]:
    """The norms of a model: see `Program.array_norms`."""
    return program.array_norms(_FUNCTIONS)


def _widened(tree: Tree, dtype: Any) -> Tree:
    return jax.tree.map(lambda x: _wide(x, dtype), tree)


def _computed_in(tree: Tree) -> Any:
    """float64 where a leaf is, or is a pair of them, else float32."""
    wide = any(jnp.result_type(x) in (jnp.float64, jnp.complex128) for x in jax.tree.leaves(tree))
    return jnp.float64 if wide else jnp.float32


def _wide(x: Any, dtype: Any) -> jax.Array:
    """An array in floats of a type, or in pairs of them where it is complex."""
    pairs = jnp.complex128 if dtype == jnp.float64 else jnp.complex64
    return jnp.asarray(x, pairs if jnp.iscomplexobj(x) else dtype)


def transformation(
    rule: Rule, dtypes: Mapping[str, Any] | None = None, decay_mask: Mask = None
) -> GradientTransformation:
    """See `optimizer`.

    Args:
        rule: the rule.
        dtypes: of slots that are not kept in the parameters' own, by name.
        decay_mask: which parameters decay, where not all do: a tree of booleans or a prefix of it, or what
            makes one from a tree like the parameters.
    """
    if not isinstance(rule, Rule):
        raise no_rule("optimizer", rule)
    lifted = _Lifted(rule, dtypes or {}, decay_mask)
    return GradientTransformation(lifted.init, lifted.update)


class _Lifted:
    """A rule on trees; see `transformation`."""

    def __init__(self, rule: Rule, dtypes: Mapping[str, Any], decay_mask: Mask) -> None:
        self.rule, self.dtypes, self.decay_mask = rule, dtypes, decay_mask
        self.program = trace(rule)
        self.step = _step_of(self.program)
        self.treatments, self.core = apart(rule)
        # Optax's names, under which the state has them.
        self.arguments = OPTAX.arguments_for(type(self.core), rule.values)
        self.slots = OPTAX.slots_for(type(self.core), self.program.slots)
        self.numbers = {name: value for name, value in rule.values.items() if not callable(value)}
        self.schedules = {name: value for name, value in rule.values.items() if callable(value)}

    def init(self, params: Tree) -> State:
        """The state before the first step."""
        for path, p in jax.tree_util.tree_leaves_with_path(params):
            self._check_dtype(f"params{jax.tree_util.keystr(path)}", jnp.result_type(p))
        dtype = _computed_in(params)
        values = self.numbers | self.scheduled(1, dtype)
        initial = {slot: values[x] if isinstance(x, str) else x for slot, x in self.rule.slots.items()}

        def filled(slot: str) -> Tree:
            def like(p: Any) -> jax.Array:
                return jnp.full_like(p, initial[slot], dtype=self.dtypes.get(slot) or jnp.result_type(p))

            return jax.tree.map(like, params)

        made = State(
            count=jnp.zeros((), jnp.int32),
            hyperparameters={self.arguments[k]: jnp.asarray(v, dtype) for k, v in self.numbers.items()},
            slots={name: filled(slot) for slot, name in self.slots.items()},
            scalars={slot: jnp.asarray(initial[slot], dtype) for slot in self.program.scalar_slots},
        )
        for name in self.numbers:
            known = _described.setdefault(_place_of(made, name), [])
            if (about := self.rule.hyperparameters[name]) not in known:
                known.append(about)
        return made

    def update(self, updates: Tree, state: State, params: Tree = None, **_: Any) -> tuple[Tree, State]:
        """What to add to the parameters, and the new state.

        Args:
            updates: the gradients: a tree like the parameters.
            state: what `init` or the step before made.
            params: the parameters, where the rule asks for them.
            _: what other transformations of a chain take.
        """
        self._check(state)
        needs_p = self.program.needs_p
        if params is None and needs_p:
            raise ValueError(f"{self.rule.name} needs the parameters: update(grads, state, params)")
        leaves, tree = _flatten(updates)
        grads = [jnp.asarray(g) for g in leaves]
        ps = tree.flatten_up_to(params) if needs_p else [None] * len(grads)
        slots = {slot: tree.flatten_up_to(state.slots[name]) for slot, name in self.slots.items()}
        dtype = _computed_in((grads, ps, slots))

        count = jnp.asarray(state.count)
        t = jnp.where(count < _LAST, count + 1, count)
        # A Python number, put there by hand, becomes what the state had.
        held = {name: jnp.asarray(x, jnp.result_type(x)) for name, x in state.hyperparameters.items()}
        values = {name: held[self.arguments[name]] for name in self.numbers} | self.scheduled(t, dtype)
        undecayed = values | {name: 0.0 for name in ("weight_decay", "l2") if name in values}
        shared = {"t": t, **state.scalars}
        given = [
            {**shared, **(values if decays else undecayed), "g": g, "p": p}
            for g, p, decays in zip(grads, ps, self._decays(updates, tree), strict=True)
        ]
        norms, whole = self._norms(given, dtype)

        changes, new_slots = [], []
        for i, of_tensor in enumerate(given):
            own = {slot: arrays[i] for slot, arrays in slots.items()}
            made = self.step({**of_tensor, **norms[i], **whole, **own})
            changes.append(made[0])
            new_slots.append(made[1])
        scalars = state.scalars
        if scalars:  # once for the model, at an entry of zeros: they depend on none
            at_zero = dict.fromkeys(("g", "p", *slots, *self.program.tensor_norms), jnp.zeros((), dtype))
            next_scalars = self.step({**at_zero, **shared, **values, **whole})[2]
            scalars = {slot: jnp.asarray(x, scalars[slot].dtype) for slot, x in next_scalars.items()}

        result = tree.unflatten(changes)
        after = {name: tree.unflatten([new[slot] for new in new_slots]) for slot, name in self.slots.items()}
        if self.rule.guarded:
            finite = jnp.all(jnp.asarray([jnp.all(jnp.isfinite(g)) for g in grads]))

            def only_if_finite(new: Tree, old: Tree) -> Tree:
                return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

            result = only_if_finite(result, jax.tree.map(jnp.zeros_like, result))
            t, after, scalars = only_if_finite((t, after, scalars), (count, state.slots, state.scalars))
        return result, State(t, held, after, scalars)

    def scheduled(self, t: Any, dtype: Any) -> dict[str, Any]:
        """Each schedule's value at step `t` (from 1)."""
        # An integer of the width of the arithmetic: quotients then have its precision.
        t = jnp.asarray(t, jnp.int64 if dtype == jnp.float64 else jnp.int32)
        return {name: schedule(t) for name, schedule in self.schedules.items()}

    def _norms(self, given: Sequence[Any], dtype: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The norms of each tensor, and those of the model, from what the step of each is called with."""
        names = self.program.tensor_norms
        wide = [_widened(of_tensor, dtype) if self.program.norms else {} for of_tensor in given]
        whole = _norms_of(self.program)(wide)
        return [{name: of_tensor[name] for name in names} for of_tensor in wide], whole

    def _decays(self, updates: Tree, tree: Any) -> list[bool]:
        """Whether each parameter decays."""
        if self.decay_mask is None:
            return [True] * int(tree.num_leaves)
        mask = self.decay_mask(updates) if callable(self.decay_mask) else self.decay_mask
        whole = jax.tree.map(lambda decays, part: jax.tree.map(lambda _: decays, part), mask, updates)
        return list(tree.flatten_up_to(whole))

    def _check_dtype(self, what: str, dtype: Any) -> None:
        """Refuse a parameter that the rule does not update."""
        if jnp.issubdtype(dtype, jnp.complexfloating):
            kinds = map(type, (*self.treatments, self.core))
            unclear = [kind for kind in kinds if kind not in _COMPLEX]
            if unclear:
                raise TypeError(
                    f"{what} is {dtype}, and there is no agreed {unclear[0].__name__} of complex "
                    "numbers: optax.contrib.split_real_and_imaginary(optimizer) steps their two parts"
                )
            for slot, own in self.dtypes.items():
                if own and not jnp.issubdtype(own, jnp.complexfloating):
                    raise TypeError(
                        f"{what} is {dtype}, whose {self.slots.get(slot, slot)} would lose its imaginary "
                        f"part in {jnp.dtype(own)}: give a complex type"
                    )
        elif not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"{what} is {dtype}; {self.rule.name} updates floating-point and complex parameters, others "
                "are to be masked (optax.masked)"
            )

    def _check(self, state: Any) -> None:
        numbers = {self.arguments[name] for name in self.numbers}
        wanted = [numbers, {*self.slots.values()}, {*self.program.scalar_slots}]
        if not _is_state(state) or [{*part} for part in state[1:]] != wanted:
            names = ", ".join(sorted(set().union(*wanted)))
            found = ", ".join(sorted(set().union(*state[1:]))) if _is_state(state) else type(state).__name__
            raise ValueError(
                f"a state is for the optimizer that made it: {self.rule.name} in this form has {names}; "
                f"got {found}"
            )


def _flatten(tree: Tree) -> tuple[list[Any], Any]:
    return jax.tree.flatten(tree)
