"""Parameters in containers, one within another: each by its keys, and by a name that a file can keep."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from thalweg.kernels.numpy_arrays import ARRAYS

Array: TypeAlias = NDArray[Any]
# An array, or dictionaries and lists of arrays, one within another.
Arrays: TypeAlias = Mapping[Any, Any] | Sequence[Any] | Array
# A parameter's keys and indices, from the outermost container to the innermost.
Keys: TypeAlias = tuple[Any, ...]

# How long NumPy may look for a byte that two strided arrays share, in solutions that it tries.
_PATIENCE = 100_000


def flat(params: Arrays, grads: Arrays) -> tuple[dict[Keys, Array], dict[Keys, Any]]:
    """Each parameter and its gradient, by the parameter's keys.

    Raises:
        TypeError: what is no array stands where one should, or a gradient that is not real.
        ValueError: the keys of `params` and `grads` differ.
    """
    flat: dict[Keys, Array] = {}
    gradients: dict[Keys, Any] = {}
    for keys, p, g in _leaves(params, grads, ()):
        flat[keys] = np.asarray(_array(p, what_of(keys)))
        gradients[keys] = _real(g, what_of(keys))
    return flat, gradients


def _leaves(params: Any, grads: Any, keys: Keys) -> Iterator[tuple[Keys, Any, Any]]:
    """Walks through both at once: a gradient may be a list of numbers where the parameter is an array."""
    if not isinstance(params, Mapping | list | tuple):
        yield keys, params, grads
        return
    where = f" at {name_of(keys)!r}" if keys else ""
    if not isinstance(grads, Mapping if isinstance(params, Mapping) else list | tuple):
        raise TypeError(
            f"params{where} is a {type(params).__name__}, grads{where} a {type(grads).__name__}; "
            "give the gradients in containers like the parameters'"
        )
    wanted, given = (dict.fromkeys(x if isinstance(x, Mapping) else range(len(x))) for x in (params, grads))
    if wanted.keys() != given.keys():
        missing = ", ".join(str(k) for k in wanted if k not in given)
        surplus = ", ".join(str(k) for k in given if k not in wanted)
        lacking = [f"no gradient for {missing}"] if missing else []
        lacking += [f"no parameter for {surplus}"] if surplus else []
        raise ValueError(f"params and grads differ{where}: {'; '.join(lacking)}")
    for key in wanted:
        yield from _leaves(params[key], grads[key], (*keys, key))


def _array(p: Any, what: str) -> Array:
    if not isinstance(p, np.ndarray):
        raise TypeError(f"{what} must be a NumPy array to be updated in place, got {type(p).__name__}")
    if isinstance(p, np.ma.MaskedArray):
        raise TypeError(f"{what} is a masked array, of which every entry would be updated; give its .data")
    return p


def _real(g: Any, what: str) -> Any:
    g = g if isinstance(g, np.ndarray) else np.asarray(g)
    if isinstance(g, np.ma.MaskedArray):
        raise TypeError(f"the gradient of {what} is a masked array; fill it, as with g.filled(0)")
    if not np.can_cast(g.dtype, np.float64, "same_kind"):
        raise TypeError(f"the gradient of {what} has entries of {g.dtype}, not real numbers")
    return g


def what_of(keys: Keys) -> str:
    """What to call a parameter in an error."""
    return f"parameter {name_of(keys)!r}" if keys else "the parameter"


def name_of(keys: Keys | str) -> str:
    """A parameter's name, for messages and files."""
    return keys if isinstance(keys, str) else "/".join(map(str, keys))


def names_of(arrays: Iterable[Keys | str]) -> dict[Keys | str, str]:
    """Each parameter's name; checked to be another for each, and one that a file can keep."""
    found: dict[str, Keys | str] = {}
    for keys in arrays:
        name = name_of(keys)
        if name in found:
            raise ValueError(
                f"two parameters are named {name!r}, by the keys {found[name]} and {keys}: rename one"
            )
        if not name.isprintable() or not all(map(_is_lasting, keys)):
            raise ValueError(
                f"parameter {name!r} has no name that a file can keep; its keys should be printable strings, "
                "numbers, or tuples of these"
            )
        found[name] = keys
    return {keys: name for name, keys in found.items()}


def _is_lasting(key: Any) -> bool:
    """Whether a key has the same words in another process."""
    return isinstance(key, str | bool | int | float | np.generic) or (
        isinstance(key, tuple) and all(map(_is_lasting, key))
    )


def check_apart(params: Mapping[Keys, Array]) -> None:
    """Raises ValueError where two entries of the parameters are one in memory."""
    reaching: list[tuple[int, Keys]] = []  # the parameters met so far, by where they end
    for begin, end, keys in sorted(
        ((*ARRAYS.layout(p).extent, keys) for keys, p in params.items() if p.size),
        key=lambda found: found[:2],
    ):
        p = params[keys]
        reach = p.itemsize  # of the axes with shorter strides
        for stride, count in sorted((abs(s), n) for s, n in zip(p.strides, p.shape, strict=True) if n > 1):
            if stride < reach:
                raise ValueError(f"{what_of(keys)} has one entry in several places; make it a copy")
            reach += stride * (count - 1)
        reaching = [(others_end, other) for others_end, other in reaching if others_end > begin]
        for _, other in reaching:
            if _share(p, params[other]):
                raise ValueError(
                    f"parameters {name_of(other)!r} and {name_of(keys)!r} share memory and would each take "
                    "their step there; give it once, with the sum of their gradients"
                )
        reaching.append((end, keys))


def _share(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(a, b, max_work=_PATIENCE)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:  # not even NumPy can tell: not to be relied on
        return True
