"""A trial's records: what a run leaves in its file, checked when it is read back."""

import hashlib
import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from thalweg.study.schema import COUNT, NUMBER, TEXT, Kind, NotRequired, TableOf, mismatch, nullable, one_of

Record: TypeAlias = dict[str, Any]


class AlteredError(Exception):
    """A trial's file is not as a run writes it: the message says which line, and why."""


@dataclass(frozen=True)
class Run:
    """The records of a trial that ended.

    Attributes:
        header: specification and environment.
        evaluations: a record of each evaluation.
        end: the closing record; see `running.trial.run`.
    """

    header: Record
    evaluations: tuple[Record, ...]
    end: Record

    @property
    def finished(self) -> bool:
        """Whether training reached its end."""
        return bool(self.end["status"] == "finished")

    @property
    def settled(self) -> bool:
        """Whether the outcome stands. A crash may have been fixed since, so the trial is run again."""
        return self.end["status"] not in ("crashed", "memory")


def identify(specification: Mapping[str, Any]) -> str:
    """Hash of what decides a trial's outcome. Names do not, so that a default that wins is not run twice."""
    contestant = {key: value for key, value in specification["contestant"].items() if key != "name"}
    content = {
        **specification,
        "contestant": contestant,
        "dialect": None,
        "stage": specification["stage"] == "search",  # a search leaves test data unseen
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


_MEASUREMENT = nullable(NUMBER)
_NUMBER_OR_TEXT = Kind(
    "a number, text or null", lambda value: _MEASUREMENT.passes(value) or TEXT.passes(value)
)
_PROGRESS = {"epoch": NUMBER, "step": COUNT, "seconds": NUMBER}
_STATUS = one_of("finished", "stopped", "diverged", "memory", "crashed")

_HEADER = {
    "specification": {
        "task": TEXT,
        "contestant": (TableOf(TEXT), {"name": TEXT}),
        "hyperparameters": TableOf(_NUMBER_OR_TEXT),
        "batch_size": COUNT,
        "stage": TEXT,
    },
    "covers": NotRequired({"task": TableOf(TEXT), "contestant": TableOf(TEXT)}),
    "environment": TableOf(_NUMBER_OR_TEXT),
}
_END = {"status": _STATUS, "reason": NotRequired(TEXT)}
_END_OF_TRAINING = {**_PROGRESS, "state_bytes": COUNT}


def parse(content: bytes, key: str) -> Run | None:
    """A run from the lines of its file; None without a closing line: it is still running, or was interrupted.

    Args:
        content: the trial's file.
        key: the trial's id.

    Raises:
        AlteredError: a line is not as it was written, or belongs to another trial.
    """
    *lines, incomplete = content.split(b"\n")
    records = [_record(line, number) for number, line in enumerate(lines, 1)]
    if records:
        _check_header(records[0], key)
    previous: Record = dict.fromkeys(_PROGRESS, 0)
    for number, record in enumerate(records[1:], 2):
        if record["record"] == "end" and number == len(records) and not incomplete:
            evaluations = tuple(records[1:-1])
            _check_end(record, evaluations, number)
            written = record.pop("checksum", None)
            if written != checksum(content[: -len(lines[-1]) - 1], record):
                raise AlteredError(
                    f"lines 1 to {number} are not those that were written: their checksum differs"
                )
            return Run(records[0], evaluations, record)
        if record["record"] != "evaluation":
            raise AlteredError(f"line {number} is not an evaluation, but further lines follow")
        _expect(record, _PROGRESS, number)
        if decreased := [name for name in _PROGRESS if record[name] < previous[name]]:
            raise AlteredError(f"line {number}: evaluation.{decreased[0]} is less than before")
        previous = record
    return None


def checksum(content: bytes, end: Record) -> str:
    """The checksum in the closing record: of all lines before it, and of itself."""
    return hashlib.sha256(content + json.dumps(end).encode()).hexdigest()[:16]


def parse_header(content: bytes, key: str) -> Record:
    """A trial's first line.

    Raises:
        AlteredError: as `parse`.
    """
    header = _record(content.partition(b"\n")[0], 1)
    _check_header(header, key)
    return header


def _record(line: bytes, number: int) -> Record:
    try:
        record = json.loads(line.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise AlteredError(f"line {number} is not JSON") from None
    if not isinstance(record, dict) or record.get("record") not in ("trial", "evaluation", "end"):
        raise AlteredError(f"line {number} is not a record of a trial")
    return record


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _check_header(header: Record, key: str) -> None:
    if header["record"] != "trial":
        raise AlteredError("line 1 is not a trial's header")
    _expect(header, _HEADER, 1)
    if header.get("id") != key:
        raise AlteredError(f"line 1 belongs to another trial, {reprlib.repr(header.get('id'))}")
    if identify(header["specification"]) != key:
        raise AlteredError("line 1 has a specification that was changed: its hash is not the trial's id")


def _check_end(end: Record, evaluations: tuple[Record, ...], number: int) -> None:
    _expect(end, _END, number)
    if end["status"] != "finished":
        _expect(end, {"reason": TEXT}, number)
    if end["status"] in ("finished", "stopped"):
        _expect(end, _END_OF_TRAINING, number)
        if not evaluations:
            raise AlteredError(f"line {number} ends a run that has no evaluation")
        _expect(evaluations[-1], {"loss": NUMBER, "val_loss": NUMBER}, number - 1)


def _expect(record: Record, schema: Any, number: int) -> None:
    """Refuses a record that does not fit; what the schemas do not name must be a number or null."""
    named = {*_HEADER, *_END, "record", "id", "checksum"}
    measured = {key: value for key, value in record.items() if key not in named}
    if fault := mismatch(record, schema, record["record"]) or mismatch(
        measured, TableOf(_MEASUREMENT), record["record"]
    ):
        raise AlteredError(f"line {number}: {fault}")
