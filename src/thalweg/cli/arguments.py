"""What all commands share: how arguments are read, and how an error is answered."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from thalweg import dialects
from thalweg.errors import Argument, ThalwegError
from thalweg.untrusted import printable

DIALECTS = f"{', '.join([*dialects.DIALECTS][:-1])} or {[*dialects.DIALECTS][-1]}"

# The errors that a command answers with one line and status 2, wherever they are raised, and while what was
# asked for is taken up (see `asked`). Any other is a fault of ours, and shows where it was raised.
ANSWERED = (ThalwegError,)
ASKED = (ValueError, TypeError, OSError, ImportError)


class UsageError(ThalwegError):
    """What a command was asked for cannot be done."""


@contextmanager
def asked() -> Iterator[None]:
    """Within: options, and the files and code that they name, are taken up; what fails is about these."""
    try:
        yield
    except ANSWERED:
        raise
    except ASKED as error:
        raise UsageError(str(error)) from None


def answer(error: ThalwegError, command: argparse.ArgumentParser) -> str:
    """An error in one line, which speaks of the command's options, not of Python's arguments."""
    message = printable(error.message(lambda argument: option(argument, command)))
    about = _action(error.argument, command)
    if about is None or not about.option_strings or error.names_it:
        return message
    return f"argument {about.option_strings[-1]}: {message}"  # as argparse begins its own


def option(argument: Argument, command: argparse.ArgumentParser) -> str:
    """How a command is given an argument of Python's: it parses into the same name."""
    if argument.hyperparameter and _action("set", command):
        return f"--set {argument.name}={'VALUE' if argument.value is None else argument.value}"
    action = _action(argument.name, command)
    if action is None:
        return f"{argument} in Python"
    name = str(action.option_strings[-1] if action.option_strings else action.metavar)
    return name if argument.value is None or action.nargs == 0 else f"{name} {argument.value}"


def _action(name: str, command: argparse.ArgumentParser) -> argparse.Action | None:
    return next((action for action in command._actions if action.dest == name), None)


def names(text: str) -> list[str]:
    """Names with commas between."""
    return [name.strip() for name in text.split(",") if name.strip()]
