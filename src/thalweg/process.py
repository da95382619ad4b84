"""The process that a command runs in: its streams, its signals, and how it ends.

A command ends with 0 where all went well, 1 where something failed on the way, 2 where what was asked for
cannot be done, and 128 + its number where a signal ended it, as shells count: 130 after Ctrl-C, 143 after
SIGTERM, 129 after SIGHUP, 141 where the reader of its output, such as `head`, has gone.
"""

import codecs
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, TextIO

from thalweg.program.printing import to_ascii

__all__ = ["Stopped", "complain", "ended", "prepare"]

_PIPE = 13  # SIGPIPE, which Python reports as BrokenPipeError


class Stopped(KeyboardInterrupt):
    """The process was asked to end by other means than Ctrl-C; what tidies up after that does so here too."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def prepare() -> None:
    """Readies a process that is a command's own: whatever streams it has been given, it can write to them."""
    # Were one closed, the next file to be opened would take its place, and be written into by what prints.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    codecs.register_error("thalweg", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if callable(reconfigure := getattr(stream, "reconfigure", None)):
            reconfigure(errors="thalweg")
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        for each in handled:  # a second one ends the process at once
            signal.signal(each, signal.SIG_DFL)
        if os.getpid() != owner:  # a child that was forked ends as children do
            os.kill(os.getpid(), number)
        raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)

    known = (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP"))
    # One that is ignored stays so, as SIGHUP under nohup.
    handled = [number for number in known if number and signal.getsignal(number) is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, stop)
    usual = sys.unraisablehook

    def asked_again(lost: Any) -> None:
        # Raised while Python ran a destructor or a weak reference's callback, it would end nothing.
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            usual(lost)
            return
        number = getattr(lost.exc_value, "number", signal.SIGINT)
        for each in handled:
            signal.signal(each, stop)
        threading.Timer(0.01, os.kill, (owner, number)).start()

    sys.unraisablehook = asked_again


def ended(command: str, run: Callable[[], int]) -> int:
    """The status that a command ends with; all that it printed is written by then.

    Args:
        command: what it is called where something is to be said of it.
        run: the command.
    """
    try:
        try:
            return run()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt as stop:
        return 128 + getattr(stop, "number", signal.SIGINT)
    except BrokenPipeError:
        _give_up(sys.stdout)
        _give_up(sys.stderr)
        return 128 + _PIPE
    except OSError as error:
        _give_up(sys.stdout)
        complain(f"{command}: {error}")
        return 1


def complain(sentence: str) -> None:
    """Says something on standard error, where that can be written."""
    if sys.stderr is None:
        return
    try:
        print(sentence, file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123  (open, for as long as the process lives)


def _give_up(stream: TextIO | None) -> None:
    """Lets go of a stream that cannot be written, lest Python try once more at its end."""
    if stream is None:
        return
    with suppress(OSError, ValueError):  # a test's stream has no descriptor, and no such end
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
    with suppress(OSError, ValueError):
        stream.flush()


def _spelled(error: UnicodeError) -> tuple[str | bytes, int]:
    """What a stream's encoding lacks, in letters that it has; a file's name that is no text, as its bytes."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    try:
        return os.fsencode(text) if error.encoding == "utf-8" else to_ascii(text), error.end
    except UnicodeEncodeError:
        return "?" * len(text), error.end
