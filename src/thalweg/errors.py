"""Errors that name what was wrong and what would be right."""

from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher, get_close_matches

from thalweg.hyperparameters import spellings


def nearest(word: str, known: Iterable[str], also: Mapping[str, str] | None = None) -> str:
    """The clause that ends an error about `word`: the nearest known word, or all of them.

    Args:
        word: what was given.
        known: what would have been right.
        also: known words by further spellings of them.
    """
    known = list(known)
    return _meant(word, {**(also or {}), **{k: k for k in known}}) or f"known: {', '.join(known) or 'none'}"


def _meant(word: str, names: Mapping[str, str]) -> str:
    """Which name was meant, by spellings of all; those that are equally near are all said; "" if none is."""
    folded = {spelling.lower().replace("_", ""): name for spelling, name in names.items()}
    word = word.lower().replace("_", "")
    near = {
        spelling: (-_slips(word, spelling), SequenceMatcher(None, word, spelling).ratio())
        for spelling in get_close_matches(word, folded, len(folded) or 1)
    }
    best = max(near.values(), default=None)
    meant = dict.fromkeys(name for spelling, name in folded.items() if near.get(spelling) == best)
    return f"did you mean {' or '.join(map(repr, meant))}?" if near else ""


def _slips(a: str, b: str) -> int:
    """How many letters were left out, added, mistaken or exchanged with the next."""
    rows: list[list[int]] = [[*range(len(b) + 1)]]
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(row[-1] + 1, rows[-1][j] + 1, rows[-1][j - 1] + (x != y)))
            if i > 1 < j and (x, y) == (b[j - 2], a[i - 2]):
                row[-1] = min(row[-1], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]


def no_rule(taker: str, given: object) -> TypeError:
    """What to raise where a rule is wanted and something else was given."""
    return TypeError(
        f"{taker} takes a rule, got {given!r}: give a rule, such as thalweg.Adam() or thalweg.get('adam')"
    )


def no_attribute(module: str, name: str, known: Iterable[str]) -> AttributeError:
    """What a module raises that is asked for what it has not."""
    meant = _meant(name, {k: k for k in known})
    return AttributeError(f"module {module!r} has no attribute {name!r}" + (meant and f"; {meant}"))


class UnknownRuleError(ValueError):
    """No rule has that name."""

    def __init__(self, name: str, known: Iterable[str] = (), why: str = "") -> None:
        super().__init__(f"no rule is named {name!r}; {why or nearest(name, known)}")


class UnknownDialectError(ValueError):
    """No dialect has that name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"no dialect is named {name!r}; {nearest(name, known)}")


class UnknownHyperparameterError(TypeError, ValueError):
    """A rule has no hyperparameter of that name."""

    def __init__(
        self, rule: str, name: str, known: Iterable[str], also: Mapping[str, str] | None = None
    ) -> None:
        known = list(known)
        near = nearest(name, known, {**(also or {}), **spellings(known)})
        super().__init__(f"{rule} has no hyperparameter {name!r}; {near}")


class UnknownSurfaceError(ValueError):
    """No surface has that name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"no surface is named {name!r}; {nearest(name, known)}")


class UnknownSolverError(ValueError):
    """No solver has that name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"no solver is named {name!r}; {nearest(name, known)}")


class InvalidFormulaError(ValueError):
    """A text is no formula, or has what formulas may not have."""
