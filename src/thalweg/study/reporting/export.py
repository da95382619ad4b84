"""A study's trials as one table, in a file for other tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from thalweg.statefile import replaced
from thalweg.study.comparison import Comparison
from thalweg.study.errors import StudyError

if TYPE_CHECKING:
    import polars

# Columns that identify a trial, besides its hyperparameters.
_TRIAL = ("contestant", "stage", "seed", "until", "id", "batch_size")


def write(study: Comparison, path: str | Path, evaluations: bool = False) -> None:
    """Writes all trials that have ended, one row each.

    Args:
        study: complete or not.
        path: ends in .parquet or .csv.
        evaluations: one row for each evaluation instead, beside its trial's "contestant", "stage", "seed",
            "until", "id", "batch_size" and hyperparameters. A trial with two entries, a default
            that won, is there twice.

    Raises:
        StudyError: another ending, or the file cannot be written.
    """
    path = Path(path)
    writers: dict[str, Callable[[polars.DataFrame, BinaryIO], object]] = {
        ".parquet": lambda rows, file: rows.write_parquet(file),
        ".csv": lambda rows, file: rows.write_csv(file),
    }
    if path.suffix.lower() not in writers:
        raise StudyError(f"{path}: its ending tells its kind, and is {' or '.join(writers)}", argument="out")
    rows = table(study, evaluations)
    try:
        with replaced(path) as file:
            writers[path.suffix.lower()](rows, file)
    except OSError as error:
        why, _, _ = str(error.strerror or error).partition(" (os error")
        raise StudyError(f"{path} cannot be written: {why}") from None


def table(study: Comparison, evaluations: bool = False) -> polars.DataFrame:
    """The table that `write` writes."""
    import polars

    rows = [_flat(row) for row in study.rows()]
    if not rows:
        return study.evaluations().clear()
    # A column's type depends on all rows: the first may have no value.
    trials = polars.DataFrame(rows, infer_schema_length=None).cast({"until": polars.Float64})
    which = [*_TRIAL, *(name for name in trials.columns if name.startswith("hyperparameter."))]
    if evaluations:
        return trials.select(which).join(study.evaluations(), on="id", maintain_order="left_right")
    return trials.select(*which, polars.exclude(which))


def _flat(row: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values of a row become columns named "outer.inner"."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        inner = dict(enumerate(value)) if isinstance(value, list | tuple) else value
        flat |= _flat(inner, f"{prefix}{key}.") if isinstance(inner, Mapping) else {f"{prefix}{key}": value}
    return flat
