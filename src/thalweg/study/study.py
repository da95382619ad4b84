"""What users hold: `compare(task, ...)` runs a comparison and returns it as a `Study`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg.errors import nearest
from thalweg.study.comparison import Comparison, Progress
from thalweg.study.planning import plan as plans
from thalweg.study.planning.budget import Budget
from thalweg.study.running.engine import Engine
from thalweg.study.task import Task

if TYPE_CHECKING:
    from thalweg.study.reporting.advice import Advice
    from thalweg.study.reporting.report import ReportFiles
    from thalweg.study.statistics.findings import Findings


class Study(Comparison):
    """A comparison with its findings, advice and reports.

    Attributes are those of `Comparison`.
    """

    def findings(self) -> Findings:
        """What the trials show so far."""
        from thalweg.study.statistics.findings import find

        return find(self)

    def advice(self, default: str | None = None) -> Advice:
        """Which optimizer to use, with what, and how sure that is.

        Args:
            default: the contestant that you would use otherwise, untuned; see `advice.advise`.

        Raises:
            StudyError: there is no such contestant.
        """
        from thalweg.study.reporting.advice import advise

        return advise(self.findings(), default)

    def _repr_html_(self) -> str:
        from thalweg.study.reporting.report import brief

        return brief(self.findings())

    def report(self, folder: str | Path | None = None) -> ReportFiles:
        """Writes the report as files, and returns their paths.

        Args:
            folder: where; None: the study's own.

        Raises:
            StudyError: they cannot be written.
        """
        from thalweg.study.reporting.report import write

        return write(Path(folder) if folder else self.store.folder, self.findings())

    def export(self, path: str | Path, evaluations: bool = False) -> None:
        """Writes all trials as one table; see `export.write`.

        Args:
            path: ends in .parquet or .csv.
            evaluations: a row for each evaluation, not for each trial.

        Raises:
            StudyError: another ending, or it cannot be written.
        """
        from thalweg.study.reporting.export import write

        write(self, path, evaluations)


def compare(
    task: Task | str,
    optimizers: Any = plans.CLASSICAL,
    *,
    out: str | Path | None = None,
    engine: str = "local",
    address: str | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Study:
    """Trains a task with several optimizers, each tuned with the same budget.

    Args:
        task: what to train, or its name.
        optimizers: `Contestant`s, names such as "adam", "adamw@torch" or "sgd+cosine", rules, and classes
            or functions that make PyTorch optimizers.
        out: the study's folder; trials that it has already are not run again. None: studies/TASK.
        engine: what runs the trials; this and the next two are those of `Engine`.
        address: of a cluster.
        jobs: how many local processes.
        progress: is called with the study and the run after each training run.
        **options: `dialect`, `budget`, `lr`, `tune`, `seeds`, `search_seeds`, `batch_size`, `every`,
            `halving`, `proposer`, `defaults` and `vary` of `plan.make`.

    Raises:
        StudyError: something that the user can put right.
        TypeError: an option that there is not.
    """
    _check(options)
    if isinstance(task, str):
        from thalweg.study.tasks import get

        task = get(task)
    study = Study.of(plans.make(task, optimizers, **options), out)
    study.engine = Engine(engine, address, jobs)
    return study.resume(progress)


def _check(options: Iterable[str]) -> None:
    known = {**signature(compare).parameters, **signature(plans.make).parameters}
    del known["options"]
    for name in options:
        if name in (field.name for field in fields(Budget)):
            raise TypeError(f"compare has no argument {name!r}: give budget=thalweg.Budget({name}=...)")
        if name not in known:
            raise TypeError(f"compare has no argument {name!r}; {nearest(name, known)}")
