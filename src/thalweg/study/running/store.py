"""Storage: a folder with one file of JSON lines for each trial.

A line is written whole, or removed again; a file without its closing line belongs to a trial that was
interrupted, and is run again. A file is named by the hash of its trial's specification, so nothing is ever
mixed. The closing line has a checksum: a file that was altered is skipped, and named.
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
from thalweg.study.fingerprint.hashing import differences
from thalweg.study.planning.plan import Plan
from thalweg.study.planning.specification import PROTOCOL, Trial
from thalweg.study.records import AlteredError, Record, Run, checksum, parse, parse_header

if TYPE_CHECKING:
    import polars

try:
    import fcntl
except ImportError:  # Windows: two studies in one folder at the same time may run the same trial there
    fcntl = None  # type: ignore[assignment]

_EVALUATION = b'{"record": "evaluation"'

# A trial's file is never larger than this, in bytes; a larger file is not read.
_LARGEST = 2**31


@dataclass(frozen=True)
class Store:
    """A study's folder.

    Attributes:
        faults: what is wrong with each file that was skipped, in a sentence, by its trial's id.
    """

    folder: Path
    faults: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def open(self) -> None:
        """Makes the folder, and checks that it can be written.

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
        """The run of a trial, or of the trial with an id; None where it did not end.

        Also None where its file was altered: then `faults` says how.
        """
        key = trial if isinstance(trial, str) else trial.id
        run = None
        self.faults.pop(key, None)
        with self._noting_faults(key):
            run = parse(_read(self._path(key)), key)
        return run  # noqa: RET504  (None after an error)

    def begun(self, trial: Trial) -> bool:
        """Whether a trial was interrupted: it has records but no end, and no process is running it."""
        with self._noting_faults(trial.id):
            content = _read(self._path(trial.id))
            if not content or parse(content, trial.id):
                return False
        with self.locked(trial) as file:
            return file is not None

    def record(self, trial: Trial, run: Callable[[Trial, Callable[[Record], None]], None]) -> Run | None:
        """A trial's run: the stored one, or that of `run(trial, write)`, whose lines are stored as they come.

        None where another process is running it.

        Raises:
            StudyError: the file cannot be written.
        """
        with self.locked(trial) as file:
            if file is None:
                return None
            with self._noting_faults(trial.id):
                stored = parse(file.read(), trial.id)
                if stored and stored.settled:
                    return stored
            self.faults.pop(trial.id, None)  # the file is rewritten
            file.seek(0)
            file.truncate()
            run(trial, lambda record: _write(file, [record]))
            file.seek(0)
            finished = parse(file.read(), trial.id)
            assert finished is not None, "a run ends with its closing record"
            return finished

    @contextmanager
    def locked(self, trial: Trial) -> Iterator[IO[bytes] | None]:
        """Within: the trial's file, locked; None where another process has locked it.

        The lock ends with the process that holds it.

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
        """The settled runs of some trials, by id."""
        runs = {trial.id: self.read(trial) for trial in trials}
        return {key: run for key, run in runs.items() if run and run.settled}

    def headers(self) -> dict[str, Record]:
        """Every trial's header, by id; incomplete and altered files are left out."""
        headers = {}
        for key, content in self._contents():
            with suppress(AlteredError):
                headers[key] = parse_header(content, key)
        return headers

    def evaluations(self, measures: Sequence[str] = ("loss",)) -> "polars.DataFrame":
        """All evaluations of all trials as one table, quickly.

        Args:
            measures: names of the task's measures.

        Returns:
            a row each: "id", "epoch", "step", "seconds", each measure and its "val_", "gradient_norm" and
            "update_norm".
        """
        import polars

        columns = (
            "epoch",
            "seconds",
            *measures,
            *(f"val_{m}" for m in measures),
            "gradient_norm",
            "update_norm",
        )
        schema = {"step": polars.Int64()} | dict.fromkeys(columns, polars.Float64())
        try:
            ids, lines = self._evaluations()
            table = polars.read_ndjson(lines, schema=schema) if ids else polars.DataFrame(schema=schema)
        except polars.exceptions.PolarsError:  # only now is every line checked
            for key, _ in self._contents():
                self.read(key)
            ids, lines = self._evaluations()
            table = polars.read_ndjson(lines, schema=schema) if ids else polars.DataFrame(schema=schema)
        return table.insert_column(0, polars.Series("id", ids, polars.String()))

    def _evaluations(self) -> tuple[list[str], io.BytesIO]:
        """The lines of all evaluations, and the trial of each; files known to be altered are left out."""
        ids: list[str] = []
        lines: list[bytes] = []
        for key, content in self._contents():
            if not content.startswith(b'{"record": "trial", "id": "%s", ' % key.encode()):
                self.read(key)  # notes what is wrong
            elif key not in self.faults:
                complete = [line for line in content.split(b"\n")[:-1] if line.startswith(_EVALUATION)]
                ids += [key] * len(complete)
                lines += complete
        return ids, io.BytesIO(b"\n".join(lines))

    def outdated(self, plan: Plan) -> list[str]:
        """Sentences about trials here that a plan cannot use: of another task, version or code."""
        now = {contestant.name: contestant for contestant in plan.contestants}
        reasons: Counter[str] = Counter()
        for header in self.headers().values():
            spec = header["specification"]
            then, name = dict(spec.get("contestant") or {}), plan.task.name
            contestant = then.pop("name", None)
            if spec.get("task") != name:
                reasons[f"run on the task {spec.get('task')}, not on {name}"] += 1
            elif spec.get("task_version") != plan.task.version:
                changed = _changed(header, "task", plan.task.covers)
                versions = f"{spec.get('task_version')}, now {plan.task.version}"
                reasons[f"run with task version {versions}{changed}"] += 1
            elif spec.get("protocol") != PROTOCOL:
                reasons[f"run by an older thalweg (protocol {spec.get('protocol')}, now {PROTOCOL})"] += 1
            elif contestant in now and then != now[contestant].identity:
                changed = _changed(header, "contestant", now[contestant].covers)
                reasons[f"run with other code of {contestant}{changed}"] += 1
        return [
            f"{count} {'trials here were' if count > 1 else 'trial here was'} {what}: "
            f"{'they are' if count > 1 else 'it is'} kept but not used"
            for what, count in reasons.items()
        ]

    def _contents(self) -> Iterator[tuple[str, bytes]]:
        for path in sorted(self._trials.glob("*.jsonl")):
            content = b""
            with self._noting_faults(path.stem):
                content = _read(path)
            if content:
                yield path.stem, content

    @contextmanager
    def _noting_faults(self, key: str) -> Iterator[None]:
        """Within: what is wrong with a trial's file is noted in `faults`, and not raised."""
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
    """Which of the parts, modules and files that a version covers have changed, in brackets."""
    then = header.get("covers", {}).get(what, {})
    names = differences(then, now)
    files = [name for name in names if "." in name]  # more precise than the part that they belong to
    return f" ({', '.join(files or names)} changed)" if then and now and names else ""


def _read(path: Path) -> bytes:
    """A trial's file; empty where there is none."""
    try:
        with open(path, "rb", opener=_opened) as file:
            if os.fstat(file.fileno()).st_size > _LARGEST:
                raise AlteredError("is too large for a trial's file")
            return file.read()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise AlteredError(f"cannot be read: {_why(error)}") from None


def _opened(path: str, flags: int) -> int:
    """Opens regular files only: a link would lead out of the folder, and a pipe would block."""
    file = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return file


def _why(error: OSError) -> str:
    link = error.errno == errno.ELOOP
    return "it is a symbolic link, which is not followed" if link else str(error.strerror)


def write_all(file: IO[bytes], records: Sequence[Record]) -> None:
    """Replaces the content of a file; see `Store.locked`."""
    file.seek(0)
    file.truncate()
    _write(file, records)


def _write(file: IO[bytes], records: Sequence[Record]) -> None:
    """Appends records, unbuffered: a written line stays whatever happens to this process."""
    content = b""
    for record in records:
        if record["record"] == "end":
            file.seek(0)
            record = {**record, "checksum": checksum(file.read() + content, record)}
        content += json.dumps(record, allow_nan=False).encode() + b"\n"
    length = file.seek(0, os.SEEK_END)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        file.truncate(length)  # leaves no half line
        raise StudyError(
            f"{file.name} cannot be written: {error.strerror}. Finished trials are kept; "
            "the same command goes on from here"
        ) from None
