"""Which parameter of the source is which of the target, and how its axes are ordered there."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from thalweg.convert.parts import Array, Part, Refused, Run, Shapes, array
from thalweg.errors import Argument, InvalidArgumentError, nearest
from thalweg.statefile import Arrays

Shape: TypeAlias = tuple[int, ...]
# A target's name for each of the source's; with a permutation of axes where the layouts differ.
Names: TypeAlias = Mapping[str, str | tuple[str, Sequence[int]]]

# How frameworks order the axes of one weight: the permutations of each rank. torch has (out, in, …space),
# Keras and JAX (…space, in, out).
_LAYOUTS: dict[int, tuple[tuple[int, ...], ...]] = {
    2: ((0, 1), (1, 0)),
    3: ((0, 1, 2), (2, 1, 0)),
    4: ((0, 1, 2, 3), (2, 3, 1, 0), (3, 2, 0, 1)),
    5: ((0, 1, 2, 3, 4), (2, 3, 4, 1, 0), (4, 3, 0, 1, 2)),
}

# What ends the name of a parameter that is added rather than multiplied.
_ADDED = ("bias", "beta", "b")


def propose_names(
    source: Mapping[str, Shape], target: Mapping[str, Shape], known: Names | None = None
) -> dict[str, str | tuple[str, tuple[int, ...]]]:
    """A map of names, from shapes alone.

    A parameter fits one of the same shape, or one whose axes are in the other order that frameworks
    have: a matrix its transpose, a convolution's (out, in, …space) a (…space, in, out). Who fits one
    parameter only, and is fitted by it only, is matched with it. Where several fit, **order** decides, if
    all parameters of both models fit each other place by place, and no place has a bias (`bias`, `beta`,
    `b`) on one side only: give both models in the order in which they are applied, as
    `model.named_parameters()` and `model.trainable_variables` are; JAX sorts the keys of a dictionary.
    Nothing decides whether a square matrix is transposed.

    Args:
        source: the shape of each parameter by name.
        target: likewise.
        known: what is settled already, such as what is ambiguous otherwise.

    Returns:
        for each source name the target's name, or a pair of it and the permutation of axes.

    Raises:
        Refused: it is ambiguous; the message names every parameter that is.
        ValueError: a parameter fits none, or `known` names one that there is not.
    """
    settled = {name: _pair(to) for name, to in (known or {}).items()}
    _check_known(settled, source, target)
    taken = {to for to, _ in settled.values()}
    left, right = [s for s in source if s not in settled], [t for t in target if t not in taken]
    fits = {s: [t for t in right if _orders(source[s], target[t])] for s in left}
    fitted = {t: [s for s in left if t in fits[s]] for t in right}
    alone = [s for s in left if not fits[s]] + [t for t in right if not fitted[t]]
    if alone or len(left) != len(right):
        what = ", ".join(f"{n!r} {tuple((source if n in source else target)[n])}" for n in alone)
        raise ValueError(
            f"the models differ: {len(source)} parameters and {len(target)}"
            + (f"; nothing has a shape that fits {what}" if what else "")
        )
    in_order = all(
        t in fits[s] and {_is_added(s), _is_added(t)} != {True, False}
        for s, t in zip(left, right, strict=True)
    )
    ambiguous: list[str] = []
    for place, s in enumerate(left):
        if in_order:
            t = right[place]
        elif len(fits[s]) == 1 == len(fitted[fits[s][0]]):
            t = fits[s][0]
        else:
            ambiguous.append(f"{s!r} {tuple(source[s])} fits {', '.join(map(repr, fits[s]))}")
            continue
        if len(orders := _orders(source[s], target[t])) > 1:
            ambiguous.append(f"{s!r} {tuple(source[s])} fits {t!r} as {' and as '.join(map(str, orders))}")
        else:
            settled[s] = t, orders[0]
    if ambiguous:
        raise Refused(
            f"shapes do not tell: {'; '.join(ambiguous)}. Settle these with known={{name: (target, axes)}}"
        )
    return _plain({s: settled[s] for s in source})


def inverted(names: Names) -> dict[str, str | tuple[str, tuple[int, ...]]]:
    """The map of names for the way back."""
    pairs = {name: _pair(to) for name, to in names.items()}
    return {
        to: name if axes is None else (name, tuple(int(i) for i in np.argsort(axes)))
        for name, (to, axes) in pairs.items()
    }


def arrays(params: Mapping[str, Any], names: Names) -> Arrays:
    """Parameters under the target's names and in its layout, so that a run moves as a whole.

    Args:
        params: the source's, by name: a `state_dict` of torch's, for one; what `names` leaves out, such as
            buffers, stays behind.
        names: as `state` takes them.

    Returns:
        copies, as NumPy arrays of the same dtypes.

    Raises:
        ValueError: a name that `params` lacks, or a permutation that does not fit.
    """
    found = {}
    for name, to in names.items():
        if name not in params:
            raise ValueError(f"there is no parameter {name!r}; {nearest(name, params)}")
        found[_pair(to)[0]] = _turned(name, array(params[name]), _pair(to)[1])
    return found


def renamed(run: Run, names: Names | Sequence[str] | None, target: Shapes | None) -> tuple[Run, Names]:
    """The run under the target's names, in its order and layout; and the map of names.

    Args:
        run: under the source's names.
        names: a map of names; or the target's names in the source's order; or "propose", for a map from
            shapes; or None: they are the same.
        target: the target's parameters, in order, with shapes where known.

    Raises:
        ValueError: a name that is none, is left out or comes twice, or a shape that differs.
    """
    if not run.names and target is not None and names is None:  # a rule without state names no parameters
        run = replace(
            run, parts=[replace(part, names=list(target)) for part in run.parts], names=list(target)
        )
    if names == "propose":
        names = _proposed(run, target)
    pairs = _pairs(run, names)
    new = [pairs[name][0] for name in run.names if name in pairs]
    if len(set(new)) < len(new):
        twice = next(name for name in new if new.count(name) > 1)
        raise ValueError(f"names: two parameters become {twice!r}")
    shapes = {pairs[n][0]: _turned_shape(shape, pairs[n][1]) for n, shape in run.shapes.items() if n in pairs}
    if target is not None:
        _check_target(new, shapes, target)
        new = list(target)
        shapes |= {name: shape for name, shape in target.items() if shape is not None}
    elif all(name.isdigit() for name in new):
        new.sort(key=int)
    parts = [_renamed_part(part, pairs) for part in run.parts]
    parts = [part for part in parts if part.names or not new]
    return replace(run, parts=parts, names=new, shapes=shapes), _plain(pairs)


def _proposed(run: Run, target: Shapes | None) -> Names:
    known = {name: shape for name in run.names if (shape := run.shapes.get(name)) is not None}
    wanted = {name: shape for name, shape in (target or {}).items() if shape is not None}
    if len(known) < len(run.names) or target is None or len(wanted) < len(target):
        raise InvalidArgumentError(
            Argument("names", "propose"),
            " needs the shapes of all parameters: give ",
            *(Argument("source_params"), " and ", Argument("target_params")),
        )
    return propose_names(known, wanted)


def _plain(
    pairs: Mapping[str, tuple[str, tuple[int, ...] | None]],
) -> dict[str, str | tuple[str, tuple[int, ...]]]:
    return {s: t if axes is None else (t, axes) for s, (t, axes) in pairs.items()}


def shapes_of(params: Any) -> Shapes:
    """Names and shapes of parameters, however they are given: see `thalweg.convert.state`.

    Raises:
        TypeError: they are none of these.
    """
    if hasattr(params, "shape"):
        return {"": tuple(params.shape)}
    if isinstance(params, Mapping):
        return dict(_leaves(params))
    found: Shapes = {}
    for place, entry in enumerate(params):
        if isinstance(entry, str):
            found[entry] = None
        elif isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str):
            found[entry[0]] = _shape(entry[1])
        elif hasattr(entry, "shape"):
            found[str(getattr(entry, "path", place))] = tuple(entry.shape)
        else:
            found |= {f"{place}/{name}": shape for name, shape in _leaves(entry)}
    return found


def _leaves(tree: Any, path: str = "") -> Iterable[tuple[str, Shape]]:
    """Path and shape of each array in nested dictionaries and sequences, as JAX orders them."""
    if hasattr(tree, "shape") or (isinstance(tree, tuple) and all(isinstance(n, int) for n in tree)):
        yield path, _shape(tree)
    elif isinstance(tree, Mapping):
        for key in tree:
            yield from _leaves(tree[key], f"{path}/{key}" if path else str(key))
    elif isinstance(tree, list | tuple):
        for place, entry in enumerate(tree):
            yield from _leaves(entry, f"{path}/{place}" if path else str(place))
    else:
        raise TypeError(f"parameters are arrays, or their shapes or names; {path!r} is {tree!r}")


def _shape(x: Any) -> Shape:
    return tuple(int(n) for n in getattr(x, "shape", x))


def _pair(to: str | tuple[str, Sequence[int]] | Sequence[Any]) -> tuple[str, tuple[int, ...] | None]:
    if isinstance(to, str):
        return to, None
    name, axes = tuple(to)
    return str(name), None if axes is None else tuple(axes)


def _pairs(run: Run, names: Names | Sequence[str] | None) -> dict[str, tuple[str, tuple[int, ...] | None]]:
    if names is None:
        return {name: (name, None) for name in run.names}
    if not isinstance(names, Mapping):
        if len(names) != len(run.names):
            raise ValueError(f"names: {len(names)} names for {len(run.names)} parameters")
        return {name: (to, None) for name, to in zip(run.names, names, strict=True)}
    for name in names:
        if name not in run.names:
            raise ValueError(f"names: the source has no parameter {name!r}; {nearest(name, run.names)}")
    begun = {n for part in run.parts for slots in part.slots.values() for n in slots}
    if forgotten := [name for name in run.names if name not in names and name in begun]:
        raise ValueError(f"names: nothing is said of {', '.join(forgotten)}, whose state would be lost")
    return {name: _pair(to) for name, to in names.items()}


def _check_target(new: list[str], shapes: Shapes, target: Shapes) -> None:
    missing, surplus = [n for n in target if n not in new], [n for n in new if n not in target]
    if missing or surplus:
        raise InvalidArgumentError(
            f"the target's parameters are not the source's: without a counterpart in the source: "
            f"{', '.join(missing) or 'none'}; in the target: {', '.join(surplus) or 'none'}. Give ",
            Argument("names"),
            ", a map from source to target (thalweg.convert.propose_names proposes one)",
        )
    for name in new:
        have, want = shapes.get(name), target[name]
        if have is not None and want is not None and have != want:
            raise ValueError(
                f"parameter {name!r} has shape {have} in the source, {want} in the target"
                + (f"; give its axes: names={{…: ({name!r}, axes)}}" if sorted(have) == sorted(want) else "")
            )


def _renamed_part(part: Part, pairs: Mapping[str, tuple[str, tuple[int, ...] | None]]) -> Part:
    def of(slots: dict[str, Arrays]) -> dict[str, Arrays]:
        return {
            slot: {pairs[n][0]: _turned(n, a, pairs[n][1]) for n, a in of_slot.items() if n in pairs}
            for slot, of_slot in slots.items()
        }

    part = replace(part, names=[pairs[name][0] for name in part.names if name in pairs])
    part.slots, part.extra_slots = of(part.slots), of(part.extra_slots)
    return part


def _turned(name: str, a: Array, axes: tuple[int, ...] | None) -> Array:
    if axes is None:
        return a
    if sorted(axes) != list(range(a.ndim)):
        raise ValueError(f"names: {axes} is no permutation of the {a.ndim} axes of {name!r}")
    return np.ascontiguousarray(a.transpose(axes))


def _turned_shape(shape: Shape | None, axes: tuple[int, ...] | None) -> Shape | None:
    if shape is None or axes is None or len(axes) != len(shape):
        return shape
    return tuple(shape[i] for i in axes)


def _check_known(
    settled: Mapping[str, tuple[str, tuple[int, ...] | None]],
    source: Mapping[str, Shape],
    target: Mapping[str, Shape],
) -> None:
    for s, (t, axes) in settled.items():
        for name, model in ((s, source), (t, target)):
            if name not in model:
                raise ValueError(f"known: there is no parameter {name!r}; {nearest(name, model)}")
        if _turned_shape(tuple(source[s]), axes) != tuple(target[t]):
            raise ValueError(f"known: {s!r} {tuple(source[s])} does not become {t!r} {tuple(target[t])}")


def _orders(source: Shape, target: Shape) -> list[tuple[int, ...] | None]:
    """The orders of axes in which one shape becomes the other; those that move no entry count as none."""
    found: dict[tuple[int, ...], tuple[int, ...] | None] = {}
    for axes in _LAYOUTS.get(len(source), (tuple(range(len(source))),)):
        if tuple(source[i] for i in axes) == tuple(target):
            moved = tuple(i for i in axes if source[i] != 1)
            found.setdefault(moved, None if axes == tuple(range(len(axes))) else axes)
    return list(found.values())


def _is_added(name: str) -> bool | None:
    """Whether the name is a bias's; None where it is a mere number."""
    last = name.replace("/", ".").rsplit(".", 1)[-1].lower()
    return None if last.isdigit() else last in _ADDED
