"""What a trial leaves behind, and how it is read back."""

import hashlib
import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from thalweg.study.schema import COUNT, NUMBER, TEXT, Every, Kind, Optional, maybe, one_of, wrong

Record: TypeAlias = dict[str, Any]


class AlteredError(Exception):
    """A trial's file is not as a run leaves it: the message says which line, and why."""


@dataclass(frozen=True)
class Run:
    """What a trial left behind.

    Attributes:
        header: specification and environment.
        evaluations: one record each.
        end: the closing record; see `trial.run`.
    """

    header: Record
    evaluations: tuple[Record, ...]
    end: Record

    @property
    def finished(self) -> bool:
        """Whether training went through to its end."""
        return bool(self.end["status"] == "finished")

    @property
    def settled(self) -> bool:
        """Whether running the trial again would show nothing new. The cause of a crash may be mended."""
        return self.end["status"] not in ("crashed", "memory")


def identify(specification: Mapping[str, Any]) -> str:
    """Hash of what decides a trial's outcome: names do not, and a default that wins is not run twice."""
    contestant = {key: value for key, value in specification["contestant"].items() if key != "name"}
    content = {
        **specification,
        "contestant": contestant,
        "dialect": None,
        "stage": specification["stage"] == "search",  # whether test data stays unseen
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


_FIGURE = maybe(NUMBER)
_NUMBER_OR_TEXT = Kind("a number, text or null", lambda value: _FIGURE.passes(value) or TEXT.passes(value))
_PLACE = {"epoch": NUMBER, "step": COUNT, "seconds": NUMBER}
_STATUS = one_of("finished", "stopped", "diverged", "memory", "crashed")

_HEADER = {
    "specification": {
        "task": TEXT,
        "contestant": (Every(TEXT), {"name": TEXT}),
        "hyperparameters": Every(_NUMBER_OR_TEXT),
        "batch_size": COUNT,
        "stage": TEXT,
    },
    "covers": Optional({"task": Every(TEXT), "contestant": Every(TEXT)}),
    "environment": Every(_NUMBER_OR_TEXT),
}
_END = {"status": _STATUS, "reason": Optional(TEXT)}
_THROUGH = {**_PLACE, "state_bytes": COUNT}


def parse(content: bytes, key: str) -> Run | None:
    """A trial's lines; None where the closing one is missing: it is under way, or was cut off.

    Args:
        content: of the trial's file.
        key: the trial's id.

    Raises:
        AlteredError: a line is not as it was written, or is of another trial.
    """
    *lines, torn = content.split(b"\n")
    records = [_record(line, number) for number, line in enumerate(lines, 1)]
    if records:
        _check_header(records[0], key)
    before: Record = dict.fromkeys(_PLACE, 0)
    for number, record in enumerate(records[1:], 2):
        if record["record"] == "end" and number == len(records) and not torn:
            evaluations = tuple(records[1:-1])
            _check_end(record, evaluations, number)
            given = record.pop("checksum", None)
            if given != checksum(content[: -len(lines[-1]) - 1], record):
                raise AlteredError(
                    f"lines 1 to {number} are not those that were written: their checksum differs"
                )
            return Run(records[0], evaluations, record)
        if record["record"] != "evaluation":
            raise AlteredError(f"line {number} is no evaluation, but others follow")
        _expect(record, _PLACE, number)
        if fallen := [name for name in _PLACE if record[name] < before[name]]:
            raise AlteredError(f"line {number}: evaluation.{fallen[0]} is less than before")
        before = record
    return None


def checksum(content: bytes, end: Record) -> str:
    """What the closing record says of all lines before it, and of itself."""
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
        raise AlteredError(f"line {number} is no JSON") from None
    if not isinstance(record, dict) or record.get("record") not in ("trial", "evaluation", "end"):
        raise AlteredError(f"line {number} is no record of a trial")
    return record


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _check_header(header: Record, key: str) -> None:
    if header["record"] != "trial":
        raise AlteredError("line 1 is not a trial's first")
    _expect(header, _HEADER, 1)
    if header.get("id") != key:
        raise AlteredError(f"line 1 is of another trial, {reprlib.repr(header.get('id'))}")
    if identify(header["specification"]) != key:
        raise AlteredError("line 1 has a specification that was changed: its hash is not the trial's id")


def _check_end(end: Record, evaluations: tuple[Record, ...], number: int) -> None:
    _expect(end, _END, number)
    if end["status"] != "finished":
        _expect(end, {"reason": TEXT}, number)
    if end["status"] in ("finished", "stopped"):
        _expect(end, _THROUGH, number)
        if not evaluations:
            raise AlteredError(f"line {number} ends a run that was never evaluated")
        _expect(evaluations[-1], {"loss": NUMBER, "val_loss": NUMBER}, number - 1)


def _expect(record: Record, shape: Any, number: int) -> None:
    """An entry is as the shape says, and whatever else evaluations and ends have is a figure."""
    named = {*_HEADER, *_END, "record", "id", "checksum"}
    figures = {key: value for key, value in record.items() if key not in named}
    if fault := wrong(record, shape, record["record"]) or wrong(figures, Every(_FIGURE), record["record"]):
        raise AlteredError(f"line {number}: {fault}")
