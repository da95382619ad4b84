"""Errors that name what was wrong and what would be right.

What a user can put right is a `ThalwegError`; whoever answers users, as the command line does, needs to know
no other. It says which argument it is about, so that the answer can speak of an option instead.
"""

from collections.abc import Callable, Iterable, Mapping
from difflib import SequenceMatcher, get_close_matches
from typing import Any, ClassVar, NamedTuple

from thalweg.hyperparameters import spellings


class Argument(NamedTuple):
    """An argument, where a message names it: `step=9` in Python, and in other places as they write it.

    Attributes:
        name: of the argument, or of the hyperparameter.
        value: what it is, or ought to be; None: left open.
        hyperparameter: whether it is one of a rule's.
    """

    name: str
    value: Any = None
    hyperparameter: bool = False

    def __str__(self) -> str:
        return f"{self.name}={'' if self.value is None else repr(self.value)}"


class ThalwegError(Exception):
    """Something that the user can put right.

    Args:
        pieces: the message: text, and an `Argument` wherever it names one.
        argument: the name of the argument that it is about, where the message does not name it so.

    Attributes:
        argument: the name of the argument that it is about; "" where it is about none.
    """

    def __init__(self, *pieces: str | Argument, argument: str = "") -> None:
        super().__init__(*pieces)
        self.argument = argument or next((p.name for p in pieces if isinstance(p, Argument)), "")

    def __str__(self) -> str:
        return self.message()

    def __reduce__(self) -> Any:
        # As it is: the constructors of those below make a message, which is made already.
        return _restored, (type(self), self.args, self.argument)

    @property
    def names_it(self) -> bool:
        """Whether the message names the argument that it is about."""
        return any(isinstance(piece, Argument) and piece.name == self.argument for piece in self.args)

    def message(self, spelled: Callable[[Argument], str] = str) -> str:
        """What was wrong and what would be right.

        Args:
            spelled: how an argument is written; by default as in Python.
        """
        return "".join(spelled(piece) if isinstance(piece, Argument) else piece for piece in self.args)


def _restored(kind: type[ThalwegError], pieces: tuple[str | Argument, ...], argument: str) -> ThalwegError:
    error = kind.__new__(kind)
    ThalwegError.__init__(error, *pieces, argument=argument)
    return error


def pieces(error: Exception) -> tuple[str | Argument, ...]:
    """The message of any error, to be part of another's."""
    return error.args if isinstance(error, ThalwegError) else (str(error),)


class InvalidArgumentError(ThalwegError, ValueError):
    """An argument has a value that it cannot have, or lacks one that it needs."""


class InvalidFileError(ThalwegError, ValueError):
    """A file does not hold what it ought to, or cannot hold what is to be written."""


class MissingPackageError(ThalwegError, ImportError):
    """A package that is needed is not installed."""

    def __init__(self, needing: str, package: str | None, extra: str) -> None:
        super().__init__(f"{needing} needs {package}: pip install 'thalweg[{extra}]'")


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


class UnknownNameError(ThalwegError, ValueError):
    """Nothing of that kind has that name."""

    kind: ClassVar[str]

    def __init__(self, name: str, known: Iterable[str] = (), why: str = "") -> None:
        super().__init__(
            f"no {self.kind} is named {name!r}; {why or nearest(name, known)}", argument=self.kind
        )


class UnknownRuleError(UnknownNameError):
    """No rule has that name."""

    kind = "rule"


class UnknownDialectError(UnknownNameError):
    """No dialect has that name."""

    kind = "dialect"


class UnknownSurfaceError(UnknownNameError):
    """No surface has that name."""

    kind = "surface"


class UnknownSolverError(UnknownNameError):
    """No solver has that name."""

    kind = "solver"


class UnknownHyperparameterError(ThalwegError, TypeError, ValueError):
    """A rule has no hyperparameter of that name."""

    def __init__(
        self, rule: str, name: str, known: Iterable[str], also: Mapping[str, str] | None = None
    ) -> None:
        known = list(known)
        near = nearest(name, known, {**(also or {}), **spellings(known)})
        super().__init__(f"{rule} has no hyperparameter {name!r}; {near}", argument=name)


class InvalidFormulaError(ThalwegError, ValueError):
    """A text is no formula, or has what formulas may not have."""
