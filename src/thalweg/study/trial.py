"""One trial run: a model trained from scratch, and what was seen on the way."""

import math
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

import thalweg
from thalweg.study.data import Data, Part
from thalweg.study.errors import StudyError
from thalweg.study.plan import Trial
from thalweg.study.task import Task
from thalweg.torch import Optimizer

# How many examples are evaluated at once: bounds memory, and changes no figure.
EVALUATION_BATCH = 1000

Record = dict[str, Any]


class Diverged(Exception):  # noqa: N818  (an outcome, not a fault)
    """A loss is no longer a finite number."""


def run(trial: Trial, write: Callable[[Record], None]) -> None:
    """Trains and evaluates as the trial says, on one thread.

    The same seed gives every rule the same initial weights and the same order of examples.

    Args:
        trial: what to run.
        write: is called with each record: first the header with the trial's specification, then one
            record an epoch, last the closing one, whose "status" is "finished", "diverged" or
            "crashed" (then with a "reason").

    Raises:
        StudyError: the data is not to be had, or `write` failed; there is no closing record then.
    """
    with _alone():
        write(
            {
                "record": "trial",
                "id": trial.id,
                "specification": trial.specification,
                "environment": environment(),
            }
        )
        try:
            end = {"status": "finished"} | _train(trial, write)
        except StudyError:
            raise
        except Diverged as outcome:
            end = {"status": "diverged", "reason": str(outcome)}
        except Exception as error:  # whatever a model or a rule may raise: recorded, and the study goes on
            end = {"status": "crashed", "reason": f"{type(error).__name__}: {error}"}
        write({"record": "end"} | end)


def environment() -> Record:
    """What the trial runs on."""
    return {
        "thalweg": thalweg.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": version("torch"),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
    }


@contextmanager
def _alone() -> Iterator[None]:
    """One thread and a random stream of our own; the user's are put back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)


def _train(trial: Trial, write: Callable[[Record], None]) -> Record:
    task, data = trial.task, _tensors(trial.task)
    # Two streams, so that a model that draws numbers while training leaves the order as it is.
    weights, order = np.random.SeedSequence(trial.seed).generate_state(2).tolist()
    torch.manual_seed(weights)
    shuffle = torch.Generator().manual_seed(order)
    model = task.model()
    optimizer = Optimizer(model.parameters(), trial.rule)
    seconds, step = 0.0, 0
    for epoch in range(1, trial.epochs + 1):
        start = time.perf_counter()
        model.train()
        # Means over the epoch while the weights move, as Keras reports them.
        sums = dict.fromkeys(("loss", *task.metrics), 0.0)
        examples = torch.randperm(len(data.train.targets), generator=shuffle)
        for batch in examples.split(trial.batch_size):  # type: ignore[no-untyped-call]
            inputs = data.train.inputs.index_select(0, batch)
            targets = data.train.targets.index_select(0, batch)
            outputs = model(inputs)
            loss = task.loss(outputs, targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
            for name, value in _figures(task, outputs.detach(), targets, loss.detach()).items():
                sums[name] += value * len(batch)
            if not math.isfinite(sums["loss"]):
                raise Diverged(f"the training loss was not finite at step {step}, in epoch {epoch}")
        seconds += time.perf_counter() - start
        record = {"record": "epoch", "epoch": epoch, "step": step, "seconds": seconds}
        record |= {name: total / len(data.train.targets) for name, total in sums.items()}
        write(record | _evaluate(task, model, data.validation, "val_", f"after epoch {epoch}"))
    test = _evaluate(task, model, data.test, "test_", "at the end")
    return {"epoch": trial.epochs, "step": step, "seconds": seconds} | test


@torch.inference_mode()
def _evaluate(task: Task, model: torch.nn.Module, part: Part, prefix: str, when: str) -> Record:
    """Mean figures over a part of the data, at the weights as they are."""
    model.eval()
    sums = dict.fromkeys(("loss", *task.metrics), 0.0)
    for inputs, targets in zip(
        part.inputs.split(EVALUATION_BATCH), part.targets.split(EVALUATION_BATCH), strict=True
    ):
        outputs = model(inputs)
        for name, value in _figures(task, outputs, targets, task.loss(outputs, targets)).items():
            sums[name] += value * len(targets)
    if not math.isfinite(sums["loss"]):
        raise Diverged(f"the {'validation' if prefix == 'val_' else 'test'} loss was not finite {when}")
    return {prefix + name: total / len(part.targets) for name, total in sums.items()}


def _figures(
    task: Task, outputs: torch.Tensor, targets: torch.Tensor, loss: torch.Tensor
) -> dict[str, float]:
    return {"loss": loss.item()} | {name: f(outputs, targets).item() for name, f in task.metrics.items()}


_loaded: tuple[tuple[str, str], Data] | None = None


def _tensors(task: Task) -> Data:
    """The task's data as tensors, kept for the next trial of the same process."""
    global _loaded
    key = task.name, task.version
    if _loaded is None or _loaded[0] != key:
        data = task.load()
        parts = (
            Part(torch.as_tensor(part.inputs), torch.as_tensor(part.targets))
            for part in (data.train, data.validation, data.test)
        )
        _loaded = key, Data(*parts)
    return _loaded[1]
