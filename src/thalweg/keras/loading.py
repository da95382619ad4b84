"""Whether a saved state fits an optimizer: checked whole before anything changes."""

import re
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import numpy as np


def check_state(optimizer: Any, store: Mapping[str, Any]) -> None:
    """Check a state, by position as Keras keeps it.

    Args:
        optimizer: what it is to be loaded into.
        store: an array for each of the optimizer's variables, under "0", "1", ….

    Raises:
        ValueError: it was written by another rule, or numbers or shapes of the variables differ.
    """
    kind, variables = type(optimizer).__name__, optimizer.variables
    written_by = _stem(_writer(store))
    if written_by in _SLOTS and _stem(optimizer.name) in _SLOTS:
        found, own = _SLOTS[written_by], _SLOTS[_stem(optimizer.name)]
        if found != own:
            raise ValueError(
                f"{kind}: the state was written by {_writer(store)!r}, with the slots "
                f"{_list(chain(*found))}; this optimizer has {_list(chain(*own))}"
            )
    names = [v.path for v in variables]
    if len(store.keys()) != len(variables):
        raise ValueError(
            f"{kind}: the state has {len(store.keys())} variables, this optimizer "
            f"{len(variables)}: {_list(names)}"
        )
    for i, variable in enumerate(variables):
        if str(i) not in store:
            raise ValueError(f"{kind}: the state has no variable {i}, {variable.path}")
        shape = tuple(np.shape(store[str(i)]))
        if shape != tuple(variable.shape):
            raise ValueError(
                f"{kind}: variable {i}, {variable.path}, has shape {tuple(variable.shape)}, "
                f"in the state {shape}"
            )


# The slots of each optimizer, group by group, by the name that Keras gives to an instance of its class.
Slots = tuple[tuple[str, ...], ...]
_SLOTS: dict[str, Slots] = {}


def know(name: str, slots: Slots) -> None:
    """Remember that optimizers named so by default have these slots; equal slots hold equal numbers."""
    _SLOTS[name] = slots


def _writer(store: Any) -> str:
    """The name of the optimizer that wrote a state, where the file tells."""
    attributes = getattr(getattr(store, "_h5_entry_group", None), "attrs", {})
    return str(attributes.get("name", ""))


def _stem(name: str) -> str:
    """An instance's name without the number that Keras adds."""
    return re.sub(r"_\d+$", "", name)


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
