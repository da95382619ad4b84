"""Optax's and thalweg.jax's state, which are pytrees: read and written by the paths of their leaves.

A path is the keys on the way to a leaf with "/" between, such as "0/mu/dense/kernel". So a tree and a
file that holds its leaves by path are read alike.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thalweg.convert.forms import fitted, missing
from thalweg.convert.names import shapes_of
from thalweg.convert.parts import (
    NOTHING,
    Anatomy,
    Converted,
    Part,
    Refused,
    Run,
    Shapes,
    Source,
    Target,
    anatomy,
    array,
    bare,
    merged,
    number,
    scalar_slots,
)
from thalweg.dialects.optax import OPTAX
from thalweg.dialects.spelling import Spelling
from thalweg.errors import Argument
from thalweg.jax import State, optimizer
from thalweg.jax.base import FIELDS
from thalweg.program.tracing import trace
from thalweg.registry import find
from thalweg.rule import Rule
from thalweg.rules import (
    AdaBelief,
    Adan,
    Momentum,
    Nadam,
    Nesterov,
)
from thalweg.statefile import Arrays, apart
from thalweg.treatments import L2, ClipByGlobalNorm, ClipByNorm, ClipByValue, Maximize, SkipNonFinite

Leaves = dict[str, Any]
Tree = Any

_LACKING = {
    ClipByValue: ("clips the gradient", "clip(c)"),
    ClipByNorm: ("clips the gradient of each tensor", "per_example_global_norm_clip"),
    ClipByGlobalNorm: ("clips the gradient", "clip_by_global_norm(c)"),
    L2: ("adds an L2 penalty to the gradient", "add_decayed_weights(λ)"),
    Maximize: ("goes up the gradient", "scale(-1.0)"),
    SkipNonFinite: ("skips steps that are not finite", "apply_if_finite"),
}


def leaves_of(tree: Tree) -> Leaves:
    """The leaves of a tree by path."""
    return {_path(keys): leaf for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def with_leaves(tree: Tree, leaves: Mapping[str, Any]) -> Tree:
    """A tree with other leaves, by path; those of other paths stay.

    Raises:
        ValueError: a path that the tree does not have.
    """
    pairs, structure = jax.tree_util.tree_flatten_with_path(tree)
    paths = [_path(keys) for keys, _ in pairs]
    if unknown := leaves.keys() - set(paths):
        raise ValueError(f"the tree has no {min(unknown)!r}; it has {', '.join(paths)}")
    new = [leaves.get(path, leaf) for path, (_, leaf) in zip(paths, pairs, strict=True)]
    return jax.tree_util.tree_unflatten(structure, new)


def parameters(params: Tree) -> Shapes:
    """Names and shapes of the parameters in a tree."""
    leaves = leaves_of(params)
    if all(hasattr(leaf, "shape") for leaf in leaves.values()):
        return {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    return shapes_of(params)


def read(source: Source) -> Run:
    """Read a state, from the tree that holds it.

    Raises:
        Refused: it holds no state of the rule, or several.
    """
    leaves = leaves_of(source.state)
    return _read_optax(leaves, source) if source.native else _read_own(leaves, source)


def write(run: Run, target: Target) -> Converted:
    """The run as the state that the transformation's `init(params)` has.

    Raises:
        Refused: Optax takes no such steps; or a parameter's shape is not known.
    """
    part = merged(run, target)
    wide = any(a.dtype == np.float64 for arrays in part.slots.values() for a in arrays.values())
    if wide and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        loss = "the state is in float64, JAX computes in float32 (jax.config.update('jax_enable_x64', True))"
        replace(target, native=False).lose(run, [loss])
    template = _template(run, part, target.params)
    if target.native:
        part, rule, kind, settings = _spelled(run, part, target)
        import optax

        made = getattr(optax, kind.removeprefix("optax."))(**settings)
        empty = made.init(template)
        state = with_leaves(empty, _to_optax(part, leaves_of(empty)))
        if not any(path.rsplit("/", 1)[-1] in ("count", "t") for path in leaves_of(empty)):
            run.lose_count(kind)
    else:
        part = replace(part, slots={s: a for s, a in part.slots.items() if s in trace(part.rule).slots})
        rule, kind = part.rule, "thalweg.jax.optimizer"
        settings, made = {"rule": rule}, optimizer(rule)
        empty = made.init(template)
        state = with_leaves(empty, _to_own(part, leaves_of(empty)))
    return Converted(kind, settings, state, rule, tuple(run.names), part.t, lambda _: made)


def _path(keys: Any) -> str:
    return "/".join(str(getattr(k, "name", getattr(k, "key", getattr(k, "idx", k)))) for k in keys)


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _children(leaves: Leaves) -> dict[str, set[str]]:
    """What stands below each prefix of a path."""
    found: dict[str, set[str]] = {}
    for path in leaves:
        keys = path.split("/")
        for i, key in enumerate(keys):
            found.setdefault("/".join(keys[:i]), set()).add(key)
    return found


def _below(leaves: Leaves, path: str) -> Leaves:
    """The leaves below a path, by what follows it; "" where the path is a leaf."""
    return {k[len(path) :].lstrip("/"): v for k, v in leaves.items() if k == path or k.startswith(path + "/")}


# -- reading -----------------------------------------------------------------------------------------


def _read_own(leaves: Leaves, source: Source) -> Run:
    known = {*State._fields}
    found = [p for p, names in _children(leaves).items() if "count" in names <= known and len(names) > 1]
    if len(found) != 1:
        raise Refused(f"the tree holds {len(found)} states of thalweg.jax; give the one that is meant")
    (prefix,) = found
    given = {k: number(v) for k, v in _below(leaves, _join(prefix, "hyperparameters")).items()}
    own = source.rule_with({FIELDS.get(k, k): v for k, v in given.items()}, "lr")
    names = OPTAX.slots_for(type(apart(own)[1]), trace(own).slots)
    slots: dict[str, Arrays] = {}
    for slot, name in names.items():
        slots[slot] = {k: array(v) for k, v in _below(leaves, _join(prefix, "slots", name)).items()}
    has = {s for s in _children(leaves).get(_join(prefix, "slots"), set()) if s}
    if has and has != {*names.values()}:
        raise Refused(
            f"the state has the slots {', '.join(sorted(has))}; {own.name} in this form has "
            f"{', '.join(names.values())}: give its rule as a rule, with its flags, as ",
            Argument("rule"),
        )
    scalars = {s: number(v) for s, v in _below(leaves, _join(prefix, "scalars")).items()}
    run = Run("jax")
    t = source.steps(run, "", int(leaves[_join(prefix, "count")]), True)
    run.add(Part(own, t, list(next(iter(slots.values()), {})), slots, scalars))
    _leave(run, leaves, [prefix])
    return run


def _read_optax(leaves: Leaves, source: Source) -> Run:
    injected = [p for p, names in _children(leaves).items() if "hyperparams" in names]
    values: dict[str, float] = {}
    for prefix in injected:
        values |= {k: number(v) for k, v in _below(leaves, _join(prefix, "hyperparams")).items()}
    kind = find(source.rule) if isinstance(source.rule, str) else None
    needed = ("lr", "momentum") if kind in (Momentum, Nesterov) else ("lr",)
    own = source.rule_with(_renamed(values, kind), *needed)
    core = anatomy(own).core
    _check_form(core)
    slots: dict[str, Arrays] = {}
    used: list[str] = []
    counts = []
    for fields in _states_of(core):
        prefix = _only(leaves, fields, core)
        for name, slot in fields.items():
            if slot:
                sign = -1 if slot.startswith("-") else 1
                found = _below(leaves, _join(prefix, name))
                slots[slot.lstrip("-")] = {k: sign * array(v) for k, v in found.items()}
            else:
                counts.append(int(leaves[_join(prefix, name)]))
        used += [_join(prefix, name) for name in fields]
    ours = {path for path in leaves if any(path == p or path.startswith(p + "/") for p in used)}
    elsewhere = [k for k in leaves if k not in ours and k.rsplit("/", 1)[-1] == "count"]
    counts += [int(leaves[k]) for k in elsewhere]
    run = Run("jax")
    t = source.steps(
        run,
        _function(core),
        counts[0] if counts else None,
        bool(slots),
    )
    scalars = {"mu_product": core.values["beta_1"] ** t} if isinstance(core, Nadam) else {}
    run.add(Part(own, t, list(next(iter(slots.values()), {})), slots, scalars))
    hyper = [_join(p, name) for p in injected for name in ("hyperparams", "hyperparams_states")]
    _leave(run, leaves, [*used, *elsewhere, *hyper])
    return run


def _leave(run: Run, leaves: Leaves, used: list[str]) -> None:
    """Say what else the tree holds."""
    rest = [k for k in leaves if not any(not p or k == p or k.startswith(p + "/") for p in used)]
    if rest:
        run.other.append(f"the tree holds other state beside it: {', '.join(rest[:4])}")


def _renamed(values: Mapping[str, float], rule: type[Rule] | None) -> dict[str, float]:
    """Optax's arguments as hyperparameters; without those that are as the rule has them."""
    as_ever = {"threshold": 5.0}  # RAdam's
    if rule is AdaBelief:  # its two ε are one in the paper
        as_ever["eps_root"] = values.get("eps", 0.0)
    values = {k: v for k, v in values.items() if as_ever.get(k) != v}
    return {FIELDS.get(k, k): v for k, v in values.items()}


def _function(core: Rule) -> str:
    """Optax's function for a rule; "" where it has none."""
    one = OPTAX.native.get(type(core))
    return f"optax.{one.name}" if one else ""


def _check_form(core: Rule) -> None:
    if not _function(core):
        raise Refused(f"Optax has no {type(core).__name__}, so that its state cannot be that of one")
    wanted = missing(OPTAX.native[type(core)], core)
    if wanted:
        raise Refused(
            f"Optax's {core.name} has {', '.join(f'{k}={v}' for k, v in wanted.items())}, the rule that is "
            f"given has not: thalweg.get({core.name!r}, dialect='optax') has"
        )


def _states_of(core: Rule) -> list[dict[str, str]]:
    """The fields of the states of optax that the rule has in its form."""
    held = {"", *trace(core).slots}
    states = []
    for group in OPTAX.native[type(core)].slots:
        names = {slot: name for slot, name in group.items() if slot in held}
        if names:
            states.append({n.lstrip("-"): "-" + slot if n[0] == "-" else slot for slot, n in names.items()})
    return states


def _only(leaves: Leaves, fields: Mapping[str, str], core: Rule) -> str:
    """Where the one state with these fields stands."""
    found = [prefix for prefix, names in _children(leaves).items() if names == {*fields}]
    if len(found) != 1:
        raise Refused(
            f"the tree holds {len(found) or 'no'} state{'s' if len(found) > 1 else ''} with the fields "
            f"{', '.join(fields)} that Optax keeps for {type(core).__name__}"
            + (f" ({', '.join(found)}): give the one that is meant" if found else f": {', '.join(leaves)}")
        )
    return found[0]


# -- writing -----------------------------------------------------------------------------------------


def _template(run: Run, part: Part, params: Tree) -> Tree:
    dtypes = {name: a.dtype for arrays in part.slots.values() for name, a in arrays.items()}
    usual = next(iter(dtypes.values()), jnp.zeros(()).dtype)  # JAX's own without arrays
    if params is not None and all(hasattr(leaf, "shape") for leaf in jax.tree.leaves(params)):
        return jax.tree.map(lambda p: _zeros(p.shape, getattr(p, "dtype", usual)), params)
    if unknown := [name for name in run.names if run.shapes.get(name) is None]:
        raise Refused(f"the shape of parameter {unknown[0]!r} is not known: give ", Argument("target_params"))
    return {n: _zeros(run.shapes[n] or (), dtypes.get(n, usual)) for n in run.names}


def _zeros(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return jnp.zeros(shape, jax.dtypes.canonicalize_dtype(dtype))


def _spelled(run: Run, part: Part, target: Target) -> tuple[Part, Rule, str, dict[str, Any]]:
    """The part in Optax's form, the rule, the function that makes the transformation, and its arguments."""
    body = anatomy(part.rule)
    one, kind = OPTAX.native.get(type(body.core)), _function(body.core)
    if one is None:
        raise target.refuse(f"Optax has no {type(body.core).__name__}")
    lost, decay, core = [], body.decay, body.core
    l2 = 0.0
    for place, link in enumerate(body.around):
        if isinstance(link, L2) and one.decay is L2 and place == len(body.around) - 1:
            l2 = link.l2  # Optax's weight_decay there
        elif isinstance(link, Maximize):
            raise target.refuse(_words(link, kind))
        elif type(link) in _LACKING:
            lost.append(_words(link, kind))
        else:
            raise target.refuse(f"{kind} has no {type(link).__name__}")
    if isinstance(core, Adan) and core.weight_decay:
        lost.append("the source's weight decay is proximal, p / (1 + lr·λ), the target's is beside the step")
        decay, core = core.weight_decay, replace(core, weight_decay=0.0, decoupled_decay=False)
    beside = bool(OPTAX.named(one.name + "w"))
    decays = beside or "weight_decay" in one.arguments
    if decay and not decays:
        lost.append(f"{kind} has no weight decay, the source has {decay:g} beside the step")
    target.lose(run, lost)
    part = fitted(run, replace(bare(part), rule=core), missing(one, core), target)
    product = part.scalars.get("mu_product", 1.0)
    if isinstance(part.rule, Nadam) and abs(product - part.rule.beta_1**part.t) > NOTHING:
        loss = "the source's product of momenta is not β₁ to the number of steps, as Optax takes it to be"
        target.lose(run, [loss])
    if decay and beside:
        kind += "w"
    body = Anatomy(part.rule, decay if decays else 0.0, (L2(l2),) if l2 else ())
    return part, body.assembled(), kind, _arguments(body, one, l2)


def _words(link: Any, kind: str) -> str:
    does, remedy = _LACKING[type(link)]
    return f"the source {does}, {kind} does not; put optax.{remedy} before it with optax.chain"


def _arguments(body: Anatomy, one: Spelling, l2: float) -> dict[str, Any]:
    found = {
        k: v for k, v in one.settings_for(body.whole).items() if k not in one.choice or v != one.defaults[k]
    }
    if l2 or body.decay:
        found["weight_decay"] = l2 or body.decay
    return {k: _counted_from_0(v) if callable(v) else v for k, v in found.items() if v is not None}


def _counted_from_0(schedule: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda count: schedule(count + 1)


def _to_optax(part: Part, empty: Leaves) -> Leaves:
    new: Leaves = {k: jnp.asarray(part.t, jnp.int32) for k in empty if k.rsplit("/", 1)[-1] == "count"}
    for fields in _states_of(part.rule):
        prefix = _only(empty, fields, part.rule)
        for name, slot in fields.items():
            if not slot:
                new[_join(prefix, name)] = jnp.asarray(part.t, jnp.int32)
            for key, a in part.slots.get(slot.lstrip("-"), {}).items():
                new[_join(prefix, name, key)] = jnp.asarray(-a if slot.startswith("-") else a)
    return new


def _to_own(part: Part, empty: Leaves) -> Leaves:
    new: Leaves = {"count": jnp.asarray(part.t, jnp.int32)}
    names = OPTAX.slots_for(type(apart(part.rule)[1]), part.slots)
    for slot, arrays in part.slots.items():
        new |= {_join("slots", names[slot], key): jnp.asarray(a) for key, a in arrays.items()}
    for slot, value in scalar_slots(part).items():
        path = _join("scalars", slot)
        new[path] = jnp.asarray(value, empty[path].dtype)
    return new
