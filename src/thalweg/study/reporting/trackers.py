"""Experiment trackers: a study's runs in TensorBoard and MLflow.

A tracker is called after each training run, as `progress` of `compare`. Runs that ended before are not
logged again.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from thalweg.study.comparison import Comparison
from thalweg.study.errors import StudyError
from thalweg.study.records import Run

# MLflow takes this many metrics at once. By default it tries for minutes to reach a server that is gone, and
# the study would wait; this many attempts take seconds.
BATCH, ATTEMPTS = 1000, 3


class Tracker:
    """Logs runs until logging fails once: a study does not end because a server does."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.missing: list[str] = []
        self._reason = ""

    def __call__(self, study: Comparison, run: Run) -> None:
        """Logs a run that has ended."""
        if not self._reason:
            try:
                return self._log(study, run)
            except Exception as error:  # whatever the library may raise
                self._reason = f"{type(error).__name__}: {error}"
        self.missing.append(run.header["id"])
        return None

    @property
    def sentence(self) -> str | None:
        """What went wrong, if anything did."""
        many = f"{len(self.missing)} training run{'s' if len(self.missing) > 1 else ''}"
        return f"{self.place} is without the last {many}: {self._reason}" if self.missing else None

    def _log(self, study: Comparison, run: Run) -> None:
        raise NotImplementedError


class TensorBoard(Tracker):
    """A folder of event files, one subfolder a run.

    Args:
        folder: what `tensorboard --logdir` is to be given.

    Raises:
        StudyError: tensorboard is not installed, or the folder cannot be written.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise StudyError("TensorBoard is not installed: pip install tensorboard") from None
        super().__init__(str(folder))
        self._folder, self._writer = Path(folder), SummaryWriter
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(f"{folder} cannot be written: {error.strerror}") from None

    def _log(self, study: Comparison, run: Run) -> None:
        with self._writer(str(self._folder / _path(study, run))) as writer:
            for step, _, values in _measurements(run):
                for name, value in values.items():
                    writer.add_scalar(name, value, step)
            # Under names of their own, or the curves above would have one more point.
            ends = {f"end/{name}": value for name, value in _final(run).items()}
            writer.add_hparams(_parameters(run), ends, run_name=".", global_step=_step(run))


class MLflow(Tracker):
    """A tracking server, or a database such as "sqlite:///mlflow.db": an experiment named as the task.

    Args:
        uri: of the tracking server.

    Raises:
        StudyError: MLflow is not installed, or does not answer there.
    """

    def __init__(self, uri: str) -> None:
        try:
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise StudyError("MLflow is not installed: pip install mlflow-skinny") from None
        super().__init__(uri)
        try:
            with _few_retries():
                self._client = MlflowClient(tracking_uri=uri)
                self._client.search_experiments(max_results=1)
        except Exception as error:  # its own, SQLAlchemy's, requests'
            raise StudyError(f"MLflow at {uri} cannot be used: {error}") from None

    def _log(self, study: Comparison, run: Run) -> None:
        with _few_retries():
            self._send(study, run)

    def _send(self, study: Comparison, run: Run) -> None:
        from mlflow.entities import Metric, Param

        end, start = time.time(), time.time() - run.end.get("seconds", 0)
        tags = {"thalweg.trial": run.header["id"], "thalweg.status": run.end["status"]}
        if "reason" in run.end:
            tags["thalweg.reason"] = run.end["reason"]
        begun = self._client.create_run(
            self._experiment(study.facts["task"]["name"]), int(start * 1000), tags, _path(study, run)
        )
        metrics = [
            Metric(name, value, int((start + seconds) * 1000), step)
            for step, seconds, values in _measurements(run)
            for name, value in values.items()
        ]
        metrics += [
            Metric(name, value, int(end * 1000), _step(run))
            for name, value in _final(run).items()
            if name.startswith("test_")
        ]
        key = begun.info.run_id
        self._client.log_batch(key, params=[Param(k, str(v)) for k, v in _parameters(run).items()])
        for first in range(0, len(metrics), BATCH):
            self._client.log_batch(key, metrics[first : first + BATCH])
        through = run.end["status"] in ("finished", "stopped")
        self._client.set_terminated(key, "FINISHED" if through else "FAILED", int(end * 1000))

    def _experiment(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        return str(experiment.experiment_id if experiment else self._client.create_experiment(name))


@contextmanager
def _few_retries() -> Iterator[None]:
    """Within, MLflow gives up soon, unless the user has configured it."""
    key = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    if key in os.environ:
        yield
        return
    os.environ[key] = str(ATTEMPTS)
    try:
        yield
    finally:
        del os.environ[key]


def _path(study: Comparison, run: Run) -> str:
    """The name of a run: "adam/search lr=0.01 seed=0 3fa9c1"."""
    key, specification = run.header["id"], run.header["specification"]
    entry = next((entry for entry in study.entries if entry.id == key), None)
    chosen = dict(entry.hyperparameters) if entry else {}
    values = " ".join(f"{name}={value:g}" for name, value in chosen.items())
    which = f"{specification['stage']} {values} seed={specification['seed']} {key[:6]}"
    name = specification["contestant"]["name"]
    return "/".join(re.sub(r"[^\w.,@+= -]+", "_", " ".join(part.split())) for part in (name, which))


def _parameters(run: Run) -> dict[str, Any]:
    """The parameters of a run, without those that are None."""
    specification = run.header["specification"]
    about = {key: specification[key] for key in ("task", "stage", "seed", "batch_size", "schedule", "until")}
    about = {"contestant": specification["contestant"]["name"]} | about | specification["hyperparameters"]
    return {key: value for key, value in about.items() if value is not None}


def _measurements(run: Run) -> list[tuple[int, float, dict[str, float]]]:
    """Step, seconds and measured values of each evaluation."""
    return [(r["step"], r["seconds"], _numbers(r, ("record", "step"))) for r in run.evaluations]


def _step(run: Run) -> int:
    return int(run.end.get("step", 0))  # a process that died recorded none


def _final(run: Run) -> dict[str, float]:
    """The final values."""
    last = run.evaluations[-1] if run.evaluations else {}
    return _numbers({**last, **run.end}, ("record", "step", "status", "reason"))


def _numbers(record: dict[str, Any], without: tuple[str, ...]) -> dict[str, float]:
    return {key: float(value) for key, value in record.items() if key not in without and value is not None}
