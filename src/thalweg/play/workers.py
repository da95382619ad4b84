"""Answers, each computed in a process of its own, which is killed where it takes too long.

A thread cannot be stopped, and what a formula costs is not known to the last. So a few processes wait with
everything imported, each for one request at a time; one that overruns is killed, and another takes its place.
Requests come on a process's standard input and answers go to its standard output, pickled, each after its
length.
"""

import asyncio
import faulthandler
import json
import os
import pickle
import struct
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from thalweg.play import answers, question

__all__ = ["ANSWERS", "Answer", "BusyError", "Workers"]

# Processes, and how many requests may wait for one. Seconds that one answer may take.
AT_ONCE, WAITING, SECONDS = 2, 32, 20.0


def _about(answer: Callable[[question.Question], Any], *, tuning: bool = False) -> Callable[[Any], Any]:
    return lambda document: answer(question.read(document, tuning=tuning))


# What can be asked for: the kind of content that it is, and what makes it of what JSON said.
ANSWERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "surface": ("application/json", lambda document: answers.grid(question.surface_of(document))),
    "paths": ("application/json", _about(answers.paths)),
    "tune": ("application/json", _about(answers.tuned, tuning=True)),
    "code": ("text/x-python", _about(answers.code)),
    "csv": ("text/csv", _about(answers.table)),
    "gif": ("image/gif", _about(answers.animation)),
}

_LENGTH = struct.Struct("!Q")


class BusyError(Exception):
    """As many requests wait as may."""


class Answer(NamedTuple):
    """What is said over HTTP."""

    status: int
    kind: str
    body: bytes


def refusal(status: int, why: str) -> Answer:
    """An answer that says why there is no other."""
    return Answer(status, "application/json", json.dumps({"error": why}).encode())


class Workers:
    """A few processes that compute answers.

    Args:
        seconds: how long one answer may take.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self.waiting = 0
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._idle: list[asyncio.subprocess.Process] = []
        self._all: set[asyncio.subprocess.Process] = set()
        self._killed: set[asyncio.subprocess.Process] = set()

    async def answer(self, name: str, document: Any) -> Answer:
        """What `ANSWERS` has of that name, for what JSON said.

        Raises:
            BusyError: too many wait already.
            RuntimeError: a fault of ours, with its traceback.
        """
        if self.waiting >= WAITING:
            raise BusyError
        self.waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self.waiting -= 1
        try:
            return await self._ask(name, document)
        finally:
            self._turn.release()

    async def warm(self) -> None:
        """Starts the processes, so that the first answers are quick too."""
        self._idle = [await self._start() for _ in range(AT_ONCE)]

    async def close(self) -> None:
        """Ends the processes, whatever they are at."""
        for process in list(self._all):
            await self._end(process)
        self._idle = []

    async def _ask(self, name: str, document: Any) -> Answer:
        process = self._idle.pop() if self._idle else None
        if process is None or process.returncode is not None:  # one died where it waited
            process = await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        done = False
        try:
            request = pickle.dumps((name, document, self.seconds))
            async with asyncio.timeout(self.seconds):
                process.stdin.write(_LENGTH.pack(len(request)) + request)
                await process.stdin.drain()
                (length,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
                found = pickle.loads(await process.stdout.readexactly(length))
            done = True
        except TimeoutError:
            return refusal(
                422,
                f"this takes more than the {self.seconds:g} seconds that an answer may take: "
                "ask for fewer steps, fewer optimizers or a shorter formula",
            )
        except (asyncio.IncompleteReadError, ConnectionError):
            return refusal(
                422, "the process that computed this died, perhaps for want of memory; ask for less"
            )
        finally:
            if done:
                self._idle.append(process)
            else:
                await asyncio.shield(self._end(process))
        if isinstance(found, str):
            raise RuntimeError(f"an answer failed:\n{found}")
        return Answer(*found)

    async def _start(self) -> asyncio.subprocess.Process:
        # Of a session of its own: Ctrl-C in the terminal is for the server, which then ends it. What it can
        # import is what this process can; never, as without -P, what happens to lie in the folder.
        path = os.pathsep.join(entry or os.curdir for entry in sys.path)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        self._all.add(process)
        return process

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None and process not in self._killed:
            self._killed.add(process)  # once: a second time takes the status that asyncio waits for
            process.kill()
        await process.wait()
        self._killed.discard(process)
        self._all.discard(process)


# -- in the process that computes ----------------------------------------------------------------------------


def compute(name: str, document: Any) -> Answer:
    """The answer of that name, or why there is none."""
    kind, made = ANSWERS[name]
    try:
        found = made(document)
    except question.BadRequestError as error:
        return refusal(422, str(error))
    except ImportError as error:
        return refusal(501, str(error))
    if kind == "application/json":
        found = json.dumps(found, allow_nan=False, separators=(",", ":"))
    return Answer(200, kind, found.encode() if isinstance(found, str) else found)


def serve() -> None:
    """Computes what comes on the standard input until that ends."""
    incoming = sys.stdin.buffer
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    while head := incoming.read(_LENGTH.size):
        name, document, seconds = pickle.loads(incoming.read(*_LENGTH.unpack(head)))
        # The server kills what overruns. Where the server is gone, this does.
        faulthandler.dump_traceback_later(2 * seconds, exit=True)
        try:
            found: Any = tuple(compute(name, document))
        except Exception:
            found = traceback.format_exc()
        faulthandler.cancel_dump_traceback_later()
        packed = pickle.dumps(found)
        outgoing.write(_LENGTH.pack(len(packed)) + packed)
        outgoing.flush()
