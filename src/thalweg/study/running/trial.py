"""One trial: a model is trained from fresh weights, evaluated on the way, and recorded."""

import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version

import numpy as np
import torch

from thalweg.study.errors import StudyError
from thalweg.study.learners import Diverged, Learner, Measurements
from thalweg.study.planning.specification import BOUND, Trial
from thalweg.study.records import Record
from thalweg.study.task import Task

Write = Callable[[Record], None]


def run(trial: Trial, write: Write) -> None:
    """Trains and evaluates as the trial specifies, on one thread.

    The same seed gives every contestant the same initial weights and the same order of examples.

    Args:
        trial: what to run.
        write: is called with each record: first the header ("trial") with the specification and the
            environment; then an "evaluation" each epoch, or every so many steps: "epoch", "step",
            "seconds" of training alone, means of the task's measures over the training since the last
            one, the same over the validation data ("val_loss" ...), "gradient_norm" and "update_norm" of
            the last step; finally the closing one ("end"), whose "status" is "finished", "stopped" (by
            successive halving), "diverged", "memory" (it ran out) or "crashed", with a "reason" unless it
            finished. A number that is not finite is null.

    Raises:
        StudyError: the data is not available, or `write` failed; there is no closing record then.
    """
    with _isolated():
        write(header(trial))
        progress: Record = {"epoch": 0.0, "step": 0, "seconds": 0.0}
        try:
            end = _train(trial, progress, write)
        except StudyError:
            raise
        except Diverged as outcome:
            end = {"status": "diverged", "reason": str(outcome)}
        except Exception as error:  # whatever a model or a rule may raise is recorded, and the study goes on
            status = "memory" if _out_of_memory(error) else "crashed"
            end = {"status": status, "reason": f"{type(error).__name__}: {error}"}
        write({"record": "end"} | end | progress)


def rehearse(trial: Trial) -> int:
    """Takes one step of a trial and evaluates, keeping nothing, so that mistakes show at once.

    Returns:
        the number of steps of one epoch.

    Raises:
        StudyError: the model cannot be made, trained or evaluated; its first loss is not finite; or it
            lacks one of the task's measures.
    """
    where = f"{trial.contestant.name} on {trial.task.name}"
    with _isolated():
        try:
            learner = trial.task.learner(trial.setting(total_steps(trial)), trial.seed)
            measured = [learner.train(1) | learner.diagnostics()]
        except StudyError:
            raise
        except Diverged:
            raise StudyError(
                f"{where}: the loss is not finite at the very first step, before anything is learned: "
                "look for NaN or huge numbers in the data, and check the loss"
            ) from None
        except Exception as error:
            raise StudyError(f"{where} fails at the first step: {type(error).__name__}: {error}") from error
        for subset in ("validation", "test"):
            try:
                measured.append(learner.evaluate(subset))
            except StudyError:
                raise
            except Diverged:  # one step can be too large: the trial itself will record that
                pass
            except Exception as error:
                raise StudyError(
                    f"{where} fails on the {subset} data: {type(error).__name__}: {error}"
                ) from error
        for measure in trial.task.measures:
            if any(measure.name not in values for values in measured):
                raise StudyError(f"{where}: the model reports no {measure.name}, which the task measures")
        return learner.steps_per_epoch


def header(trial: Trial) -> Record:
    """The record that a trial begins with."""
    return {
        "record": "trial",
        "id": trial.id,
        "specification": trial.specification,
        "covers": {"task": dict(trial.task.covers), "contestant": dict(trial.contestant.covers)},
        "environment": environment(trial.task),
    }


def environment(task: Task) -> Record:
    """What a task's trials run on: versions of the frameworks, and the machine."""
    frameworks = list(task.frameworks)
    if "keras" in frameworks:
        from thalweg.study.learners.keras import backend

        frameworks.append(backend())
    return {
        "thalweg": version("thalweg"),
        "python": platform.python_version(),
        "numpy": np.__version__,
        **{name: str(import_module(name).__version__) for name in frameworks},
        "machine": f"{platform.system()} {platform.machine()}",
        "host": platform.node(),
        "device": _device(frameworks),
        "threads": torch.get_num_threads(),
    }


def _device(frameworks: Sequence[str]) -> str:
    """The name of the device on which the last of these frameworks computes."""
    device = "cpu"
    if frameworks[-1:] == ["jax"]:
        import jax

        device = jax.devices()[0].device_kind
    elif frameworks[-1:] == ["tensorflow"]:
        import tensorflow

        for device in tensorflow.config.list_physical_devices("GPU")[:1]:
            device = tensorflow.config.experimental.get_device_details(device).get("device_name", device.name)
    elif torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    return str(device)


def total_steps(trial: Trial) -> int | None:
    """How many steps a trial takes; None where its length is in seconds, or it has no schedule.

    The steps of an epoch are asked of a learner, once for a task and batch size in every process.
    """
    if trial.length.unit == "steps":
        return int(trial.length.amount)
    if trial.length.unit == "seconds" or trial.contestant.schedule is None:
        return None
    key = trial.task.name, trial.task.version, trial.batch_size
    if key not in _steps_per_epoch:
        _steps_per_epoch[key] = trial.task.learner(trial.setting(None), trial.seed).steps_per_epoch
    return int(trial.length.amount * _steps_per_epoch[key])


_steps_per_epoch: dict[tuple[str, str, int], int] = {}


@contextmanager
def _isolated() -> Iterator[None]:
    """Within: one thread and torch's random state to itself; both are restored."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        torch.set_num_threads(threads)


def _train(trial: Trial, progress: Record, write: Write) -> Record:
    """Trains to the end, and updates `progress`, which is recorded whatever happens."""
    learner = trial.task.learner(trial.setting(total_steps(trial)), trial.seed)
    every = trial.every or learner.steps_per_epoch
    while count := _steps_to_evaluation(trial, learner, progress, every):
        start = time.perf_counter()
        trained = learner.train(count)
        progress["seconds"] += time.perf_counter() - start
        progress["step"] += count
        progress["epoch"] = progress["step"] / learner.steps_per_epoch
        trained |= learner.diagnostics()
        validation = learner.evaluate("validation")
        record = {"record": "evaluation"} | progress | trained
        write(_json_values(record | {f"val_{k}": v for k, v in validation.items()}))
        for what, loss in (("training", trained["loss"]), ("validation", validation["loss"])):
            _check_bound(trial.task, what, loss, progress)
    progress["state_bytes"] = learner.state_bytes
    if trial.until is not None:
        return {
            "status": "stopped",
            "reason": f"after {trial.until:.0%} of {trial.length}, to compare settings",
        }
    if trial.stage == "search":
        return {"status": "finished"}
    return {"status": "finished"} | _json_values(
        {f"test_{k}": v for k, v in learner.evaluate("test").items()}
    )


def _steps_to_evaluation(trial: Trial, learner: Learner, progress: Record, every: int) -> int:
    """How many steps to take before the next evaluation; 0 at the end."""
    amount = trial.length.amount * (trial.until or 1)
    step, seconds = int(progress["step"]), float(progress["seconds"])
    if trial.length.unit == "seconds":
        if not step:
            return min(every, 10)  # enough to know a step's time
        if seconds >= amount:
            return 0
        return min(every, max(1, math.ceil((amount - seconds) * step / seconds)))
    total = math.ceil(amount * (learner.steps_per_epoch if trial.length.unit == "epochs" else 1))
    return min(every - step % every, total - step)


def _check_bound(task: Task, what: str, loss: float, progress: Record) -> None:
    if not abs(loss) <= BOUND:
        raise Diverged(f"the {what} loss was {loss:.3g} at step {progress['step']}, beyond {BOUND:g}")


def _json_values(values: Measurements | Record) -> Record:
    """Values as JSON: what is not finite becomes null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }


# How torch, XLA and TensorFlow report that memory ran out.
_OUT_OF_MEMORY = (
    "out of memory",
    "outofmemory",
    "t allocate memory",
    "resource exhausted",
    "resourceexhausted",
)


def _out_of_memory(error: Exception) -> bool:
    message = f"{type(error).__name__} {error}".lower().replace("_", " ")
    return isinstance(error, MemoryError) or any(phrase in message for phrase in _OUT_OF_MEMORY)
