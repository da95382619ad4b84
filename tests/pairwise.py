"""Every pair of parameters' values in place of every combination: what differs rarely needs three to show."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

Pair = tuple[Hashable, ...]


def pairs(combination: Mapping[str, Any]) -> set[Pair]:
    """The pairs that a combination of values, by parameter, tries; a single parameter is all there is."""
    values = [(name, _known(value)) for name, value in sorted(combination.items())]
    return set(combinations(values, 2)) or set(values)


def covering(combinations: Sequence[Mapping[str, Any]]) -> list[int]:
    """The places of few combinations that try all pairs which all of them try; always the same ones."""
    tried = [pairs(combination) for combination in combinations]
    missing: set[Pair] = set().union(*tried)
    chosen = []
    while missing:
        best = max(range(len(tried)), key=lambda place: len(tried[place] & missing))
        missing -= tried[best]
        chosen.append(best)
    return sorted(chosen)


def superfluous(items: Iterable[Any]) -> list[Any]:
    """Of pytest's items, those marked `pairwise` whose pairs others of their test try."""
    tests: dict[Any, list[Any]] = {}
    for item in items:
        if item.get_closest_marker("pairwise"):
            tests.setdefault((item.path, item.originalname), []).append(item)
    return [
        item
        for same in tests.values()
        for chosen in [{*covering([item.callspec.params for item in same])}]
        for place, item in enumerate(same)
        if place not in chosen
    ]


def _known(value: Any) -> Hashable:
    try:
        hash(value)
    except TypeError:
        return id(value)
    return type(value), value
