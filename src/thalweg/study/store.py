"""Where trials are kept: a folder with one file of JSON lines a trial."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from thalweg.study.errors import StudyError
from thalweg.study.plan import Trial

try:
    import fcntl
except ImportError:  # Windows: there, two studies in one folder at the same time are not kept apart
    fcntl = None  # type: ignore[assignment]

Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What a trial left behind.

    Attributes:
        header: specification and environment.
        epochs: one record each.
        end: the closing record; its "status" is "finished", "diverged" or "crashed".
    """

    header: Record
    epochs: tuple[Record, ...]
    end: Record

    @property
    def finished(self) -> bool:
        """Whether training went through."""
        return bool(self.end["status"] == "finished")

    @property
    def settled(self) -> bool:
        """Whether running the trial again would show nothing new. The cause of a crash may be mended."""
        return bool(self.end["status"] != "crashed")


@dataclass(frozen=True)
class Store:
    """A study's folder. Trials are found by the hash of their specification."""

    folder: Path

    def open(self) -> None:
        """Makes the folder and sees that it can be written.

        Raises:
            StudyError: it cannot.
        """
        try:
            self._trials.mkdir(parents=True, exist_ok=True)
            probe = self._trials / f".{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StudyError(
                f"the study folder {self.folder} cannot be written ({error.strerror}): "
                "choose another with --out"
            ) from None

    def read(self, trial: Trial) -> Run | None:
        """What the trial left behind, or None where it never came to its end.

        Raises:
            StudyError: its file cannot be read.
        """
        path = self._path(trial)
        try:
            return _parse(path.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StudyError(f"{path} cannot be read: {error.strerror}") from None

    def record(self, trial: Trial, run: Callable[[Trial, Callable[[Record], None]], None]) -> Run:
        """The trial's outcome: as it is stored, else by `run(trial, write)`, which is stored line by line.

        A trial that another process is just running is waited for, not run twice.

        Raises:
            StudyError: the file cannot be written.
        """
        with _locked(self._path(trial)) as file:
            stored = _parse(file.read())
            if stored and stored.settled:
                return stored
            file.seek(0)
            file.truncate()

            def write(record: Record) -> None:
                # Straight to the operating system: whatever happens to us, a written line stays.
                line = json.dumps(record, allow_nan=False)
                try:
                    file.write(line + "\n")
                    file.flush()
                except OSError as error:
                    raise StudyError(f"{file.name} cannot be written: {error.strerror}") from None

            run(trial, write)
            file.seek(0)
            fresh = _parse(file.read())
            assert fresh is not None, "a run ends with its closing record"
            return fresh

    @property
    def _trials(self) -> Path:
        return self.folder / "trials"

    def _path(self, trial: Trial) -> Path:
        return self._trials / f"{trial.id}.jsonl"


@contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    """The file, open to read and append, ours alone until closed; the lock goes with its holder's death."""
    try:
        file = path.open("a+", encoding="utf-8", errors="replace")
    except OSError as error:
        raise StudyError(f"{path} cannot be written: {error.strerror}") from None
    with file:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        yield file


def _parse(text: str) -> Run | None:
    """A trial's lines; None where the closing one is missing or any is torn."""
    try:
        header, *epochs, end = map(json.loads, text.splitlines())
    except ValueError:  # fewer than two lines, or one that is no JSON
        return None
    closed = isinstance(end, dict) and end.get("record") == "end"
    return Run(header, tuple(epochs), end) if closed else None
