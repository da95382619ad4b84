"""Where trials are kept: a folder with one file of JSON lines a trial.

A line is written whole and at once, or taken back; a file without its closing line is a trial that was cut
off, and is run anew. Trials are found by the hash of their specification, so nothing is ever mixed.
"""

import io
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from thalweg.study.errors import StudyError
from thalweg.study.plan import PROTOCOL, Plan, Trial
from thalweg.study.records import Record, Run

if TYPE_CHECKING:
    import polars

try:
    import fcntl
except ImportError:  # Windows: there, two studies in one folder at the same time are not kept apart
    fcntl = None  # type: ignore[assignment]

_EVALUATION = b'{"record": "evaluation"'


@dataclass(frozen=True)
class Store:
    """A study's folder."""

    folder: Path

    def open(self) -> None:
        """Makes the folder and sees that it can be written.

        Raises:
            StudyError: it cannot.
        """
        try:
            self._trials.mkdir(parents=True, exist_ok=True)
            probe = self._trials / f".{os.getpid()}"
            probe.write_bytes(b"\n" * 4096)
            probe.unlink()
        except OSError as error:
            raise StudyError(
                f"the study folder {self.folder} cannot be written ({error.strerror}): "
                "choose another with --out"
            ) from None

    # -- one trial -----------------------------------------------------------------------------------

    def read(self, trial: Trial | str) -> Run | None:
        """What a trial, or the trial of an id, left behind; None where it never came to its end.

        Raises:
            StudyError: its file cannot be read.
        """
        return _parse(_read(self._path(trial)) or b"")

    def begun(self, trial: Trial) -> bool:
        """Whether a trial was begun and cut off: it has records but no end, and nobody is running it."""
        content = _read(self._path(trial))
        if not content or _parse(content):
            return False
        with self.claimed(trial) as file:
            return file is not None

    def record(self, trial: Trial, run: Callable[[Trial, Callable[[Record], None]], None]) -> Run | None:
        """The trial's outcome: as it is stored, else by `run(trial, write)`, which is stored line by line.

        None where another process is just running it.

        Raises:
            StudyError: the file cannot be written.
        """
        with self.claimed(trial) as file:
            if file is None:
                return None
            stored = _parse(file.read())
            if stored and stored.settled:
                return stored
            file.seek(0)
            file.truncate()
            run(trial, lambda record: _write(file, [record]))
            file.seek(0)
            fresh = _parse(file.read())
            assert fresh is not None, "a run ends with its closing record"
            return fresh

    @contextmanager
    def claimed(self, trial: Trial) -> Iterator[IO[bytes] | None]:
        """The trial's file, ours alone until left; None where another process has it.

        The lock goes with its holder's death.

        Raises:
            StudyError: it cannot be opened.
        """
        path = self._path(trial)
        try:
            file = path.open("a+b", buffering=0)
        except OSError as error:
            raise StudyError(f"{path} cannot be written: {error.strerror}") from None
        with file:
            if fcntl:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield None
                    return
            file.seek(0)
            yield file

    # -- all of them ---------------------------------------------------------------------------------

    def results(self, trials: Collection[Trial]) -> dict[str, Run]:
        """The settled runs among some trials, by id."""
        runs = {trial.id: self.read(trial) for trial in trials}
        return {key: run for key, run in runs.items() if run and run.settled}

    def headers(self) -> dict[str, Record]:
        """Every trial's header, by id: torn and foreign files are left out."""
        found = {}
        for key, content in self._contents():
            try:
                header = json.loads(content.partition(b"\n")[0])
            except ValueError:
                continue
            if isinstance(header, dict) and isinstance(header.get("specification"), dict):
                found[key] = header
        return found

    def evaluations(self, measures: Sequence[str] = ("loss",)) -> "polars.DataFrame":
        """All evaluations of all trials as one table, quickly.

        Args:
            measures: names of the task's measures.

        Returns:
            a row each: "id", "epoch", "step", "seconds", each measure and its "val_", "gradient_norm" and
            "update_norm".
        """
        import polars

        ids: list[str] = []
        lines: list[bytes] = []
        for key, content in self._contents():
            whole = [line for line in content.split(b"\n")[:-1] if line.startswith(_EVALUATION)]
            ids += [key] * len(whole)
            lines += whole
        figures = (
            "epoch",
            "seconds",
            *measures,
            *(f"val_{m}" for m in measures),
            "gradient_norm",
            "update_norm",
        )
        schema = {"step": polars.Int64()} | dict.fromkeys(figures, polars.Float64())
        if not lines:
            return polars.DataFrame(schema={"id": polars.String(), **schema})
        table = polars.read_ndjson(io.BytesIO(b"\n".join(lines)), schema=schema)
        return table.insert_column(0, polars.Series("id", ids))

    def strangers(self, plan: Plan) -> list[str]:
        """Sentences about trials here that look like the plan's, but were run with something else."""
        now = {contestant.name: contestant.identity for contestant in plan.contestants}
        found: Counter[str] = Counter()
        for header in self.headers().values():
            spec = header["specification"]
            then, name = dict(spec.get("contestant") or {}), plan.task.name
            of = then.pop("name", None)
            if spec.get("task") != name:
                found[f"run on the task {spec.get('task')}, not on {name}"] += 1
            elif spec.get("task_version") != plan.task.version:
                found[f"run with task version {spec.get('task_version')}, now {plan.task.version}"] += 1
            elif spec.get("protocol") != PROTOCOL:
                found[f"run by an older thalweg (protocol {spec.get('protocol')}, now {PROTOCOL})"] += 1
            elif of in now and then != now[of]:
                found[f"run with other code of {of}"] += 1
        return [
            f"{count} {'trials here were' if count > 1 else 'trial here was'} {what}: "
            f"{'they are' if count > 1 else 'it is'} kept but not used"
            for what, count in found.items()
        ]

    def _contents(self) -> Iterator[tuple[str, bytes]]:
        for path in sorted(self._trials.glob("*.jsonl")):
            if content := _read(path):
                yield path.stem, content

    @property
    def _trials(self) -> Path:
        return self.folder / "trials"

    def _path(self, trial: Trial | str) -> Path:
        return self._trials / f"{trial if isinstance(trial, str) else trial.id}.jsonl"


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror}") from None


def write_all(file: IO[bytes], records: Sequence[Record]) -> None:
    """In place of what the file holds; see `Store.claimed`."""
    file.seek(0)
    file.truncate()
    _write(file, records)


def _write(file: IO[bytes], records: Sequence[Record]) -> None:
    """Straight to the operating system: whatever happens to us, a written line stays."""
    content = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode()
    whole = file.seek(0, os.SEEK_END)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        file.truncate(whole)  # half a line helps nobody
        raise StudyError(
            f"{file.name} cannot be written: {error.strerror}. What is finished is kept; "
            "the same command goes on from here"
        ) from None


def _parse(content: bytes) -> Run | None:
    """A trial's lines; None where the closing one is missing or any is torn."""
    try:
        header, *evaluations, end = map(json.loads, content.decode(errors="replace").splitlines())
    except ValueError:  # fewer than two lines, or one that is no JSON
        return None
    closed = isinstance(end, dict) and end.get("record") == "end"
    return Run(header, tuple(evaluations), end) if closed else None
