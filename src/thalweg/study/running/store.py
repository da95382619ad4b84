"""Where trials are kept: a folder with one file of JSON lines a trial.

A line is written whole and at once, or taken back; a file without its closing line is a trial that was cut
off, and is run anew. Trials are found by the hash of their specification, so nothing is ever mixed. The
closing line has a checksum: a file that is not as a run leaves it is passed over, and named.
"""

import errno
import io
import json
import os
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from thalweg.errors import Argument
from thalweg.study.errors import StudyError
from thalweg.study.fingerprint.hashing import other
from thalweg.study.planning.plan import Plan
from thalweg.study.planning.specification import PROTOCOL, Trial
from thalweg.study.records import AlteredError, Record, Run, checksum, parse, parse_header

if TYPE_CHECKING:
    import polars

try:
    import fcntl
except ImportError:  # Windows: there, two studies in one folder at the same time are not kept apart
    fcntl = None  # type: ignore[assignment]

_EVALUATION = b'{"record": "evaluation"'

# No trial's file has so many bytes: what has is not read into memory.
_LARGEST = 2**31


@dataclass(frozen=True)
class Store:
    """A study's folder.

    Attributes:
        faults: what is wrong with each file that was passed over, in a sentence, by its trial's id.
    """

    folder: Path
    faults: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def open(self) -> None:
        """Makes the folder and sees that it can be written.

        Raises:
            StudyError: it cannot.
        """
        try:
            self._trials.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._trials) as probe:
                probe.write(b"\n" * 4096)
        except OSError as error:
            raise StudyError(
                f"the study folder {self.folder} cannot be written ({error.strerror}): choose another with ",
                Argument("out"),
            ) from None

    # -- one trial -----------------------------------------------------------------------------------

    def read(self, trial: Trial | str) -> Run | None:
        """What a trial, or the trial of an id, left behind; None where it never came to its end.

        None, too, where its file is altered: then `faults` says how.
        """
        key = trial if isinstance(trial, str) else trial.id
        found = None
        self.faults.pop(key, None)
        with self._checked(key):
            found = parse(_read(self._path(key)), key)
        return found  # noqa: RET504  (not where an error was noted)

    def begun(self, trial: Trial) -> bool:
        """Whether a trial was begun and cut off: it has records but no end, and nobody is running it."""
        with self._checked(trial.id):
            content = _read(self._path(trial.id))
            if not content or parse(content, trial.id):
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
            with self._checked(trial.id):
                stored = parse(file.read(), trial.id)
                if stored and stored.settled:
                    return stored
            self.faults.pop(trial.id, None)  # what is written now takes its place
            file.seek(0)
            file.truncate()
            run(trial, lambda record: _write(file, [record]))
            file.seek(0)
            fresh = parse(file.read(), trial.id)
            assert fresh is not None, "a run ends with its closing record"
            return fresh

    @contextmanager
    def claimed(self, trial: Trial) -> Iterator[IO[bytes] | None]:
        """The trial's file, ours alone until left; None where another process has it.

        The lock goes with its holder's death.

        Raises:
            StudyError: it cannot be opened, or is a link.
        """
        path = self._path(trial.id)
        try:
            file = open(path, "a+b", buffering=0, opener=_opened)  # noqa: SIM115  (closed below)
        except OSError as error:
            raise StudyError(f"{path} cannot be written: {_why(error)}") from None
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
        """Every trial's header, by id: torn and altered files are left out."""
        found = {}
        for key, content in self._contents():
            with suppress(AlteredError):
                found[key] = parse_header(content, key)
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

        figures = (
            "epoch",
            "seconds",
            *measures,
            *(f"val_{m}" for m in measures),
            "gradient_norm",
            "update_norm",
        )
        schema = {"step": polars.Int64()} | dict.fromkeys(figures, polars.Float64())
        try:
            ids, lines = self._evaluations()
            table = polars.read_ndjson(lines, schema=schema) if ids else polars.DataFrame(schema=schema)
        except polars.exceptions.PolarsError:  # then it pays to look at every line
            for key, _ in self._contents():
                self.read(key)
            ids, lines = self._evaluations()
            table = polars.read_ndjson(lines, schema=schema) if ids else polars.DataFrame(schema=schema)
        return table.insert_column(0, polars.Series("id", ids, polars.String()))

    def _evaluations(self) -> tuple[list[str], io.BytesIO]:
        """All lines of evaluations, and whose each is; altered files are left out, as far as known."""
        ids: list[str] = []
        lines: list[bytes] = []
        for key, content in self._contents():
            if not content.startswith(b'{"record": "trial", "id": "%s", ' % key.encode()):
                self.read(key)  # which notes what is wrong
            elif key not in self.faults:
                whole = [line for line in content.split(b"\n")[:-1] if line.startswith(_EVALUATION)]
                ids += [key] * len(whole)
                lines += whole
        return ids, io.BytesIO(b"\n".join(lines))

    def strangers(self, plan: Plan) -> list[str]:
        """Sentences about trials here that look like the plan's, but were run with something else."""
        now = {contestant.name: contestant for contestant in plan.contestants}
        found: Counter[str] = Counter()
        for header in self.headers().values():
            spec = header["specification"]
            then, name = dict(spec.get("contestant") or {}), plan.task.name
            of = then.pop("name", None)
            if spec.get("task") != name:
                found[f"run on the task {spec.get('task')}, not on {name}"] += 1
            elif spec.get("task_version") != plan.task.version:
                changed = _changed(header, "task", plan.task.covers)
                versions = f"{spec.get('task_version')}, now {plan.task.version}"
                found[f"run with task version {versions}{changed}"] += 1
            elif spec.get("protocol") != PROTOCOL:
                found[f"run by an older thalweg (protocol {spec.get('protocol')}, now {PROTOCOL})"] += 1
            elif of in now and then != now[of].identity:
                found[f"run with other code of {of}{_changed(header, 'contestant', now[of].covers)}"] += 1
        return [
            f"{count} {'trials here were' if count > 1 else 'trial here was'} {what}: "
            f"{'they are' if count > 1 else 'it is'} kept but not used"
            for what, count in found.items()
        ]

    def _contents(self) -> Iterator[tuple[str, bytes]]:
        for path in sorted(self._trials.glob("*.jsonl")):
            content = b""
            with self._checked(path.stem):
                content = _read(path)
            if content:
                yield path.stem, content

    @contextmanager
    def _checked(self, key: str) -> Iterator[None]:
        """Within: what is wrong with a trial's file is noted, and left."""
        try:
            yield
        except AlteredError as error:
            self.faults[key] = f"{self._path(key)}: {error}"

    @property
    def _trials(self) -> Path:
        return self.folder / "trials"

    def _path(self, key: str) -> Path:
        return self._trials / f"{key}.jsonl"


def _changed(header: Record, what: str, now: Mapping[str, str]) -> str:
    """Which of the parts, modules and files that a version covers are no longer the same, in brackets."""
    then = header.get("covers", {}).get(what, {})
    names = other(then, now)
    files = [name for name in names if "." in name]  # these say more than the part that they belong to
    return f" ({', '.join(files or names)} changed)" if then and now and names else ""


def _read(path: Path) -> bytes:
    """A trial's file; empty where there is none."""
    try:
        with open(path, "rb", opener=_opened) as file:
            if os.fstat(file.fileno()).st_size > _LARGEST:
                raise AlteredError("is larger than any trial's file")
            return file.read()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise AlteredError(f"cannot be read: {_why(error)}") from None


def _opened(path: str, flags: int) -> int:
    """A file of the folder's own: a link would lead out of it, and a pipe would be waited for."""
    file = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "what is there is no file")
    return file


def _why(error: OSError) -> str:
    link = error.errno == errno.ELOOP
    return "it is a symbolic link, which is not followed" if link else str(error.strerror)


def write_all(file: IO[bytes], records: Sequence[Record]) -> None:
    """In place of what the file holds; see `Store.claimed`."""
    file.seek(0)
    file.truncate()
    _write(file, records)


def _write(file: IO[bytes], records: Sequence[Record]) -> None:
    """Straight to the operating system: whatever happens to us, a written line stays."""
    content = b""
    for record in records:
        if record["record"] == "end":
            file.seek(0)
            record = {**record, "checksum": checksum(file.read() + content, record)}
        content += json.dumps(record, allow_nan=False).encode() + b"\n"
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
