"""Errors that name what was wrong and what would be right."""

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """The sentence that ends an error about `word`: the nearest known word, or all of them."""
    known = list(known)
    folded = {k.lower().replace("_", ""): k for k in known}
    close = difflib.get_close_matches(word.lower().replace("_", ""), folded, 1, 0.5)
    return f"did you mean {folded[close[0]]!r}?" if close else f"known: {', '.join(known) or 'none'}"


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

    def __init__(self, rule: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"{rule} has no hyperparameter {name!r}; {nearest(name, known)}")


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
