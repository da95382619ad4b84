"""Tasks from the user's files."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thalweg.errors import nearest
from thalweg.study.errors import StudyError
from thalweg.study.fingerprint.files import files_read, hashes
from thalweg.study.fingerprint.hashing import differences
from thalweg.study.fingerprint.libraries import is_library
from thalweg.study.task import Task

if TYPE_CHECKING:
    from thalweg.study.contestant import Setting
    from thalweg.study.learners import Learner


def load(reference: str) -> Task:
    """A task from the user's file.

    Other processes run the file again, by its path: what it makes need not be picklable.

    Args:
        reference: "my_task.py:task", a file and the name in it of a Task, or of a function that
            returns one; ":task" may be left out.

    Raises:
        StudyError: there is no such file or name, the file fails, or what it has is not a Task.
    """
    file, colon, attribute = reference.rpartition(":")
    if not colon or attribute.endswith(".py"):
        file, attribute = reference, "task"
    path = Path(file).expanduser().absolute()
    if not path.is_file():
        raise StudyError(f"there is no file {path}")
    changed = path.stat().st_mtime_ns
    task = _task_of(path, attribute, changed)
    return dataclasses.replace(task, learner=_FromFile(path, attribute, task.version, task.covers, changed))


@dataclass(frozen=True)
class _FromFile:
    """Makes learners of a task in a file, in any process."""

    path: Path
    attribute: str
    version: str
    covers: Mapping[str, str]
    changed: int  # when the file was, as for `run_file`

    def __call__(self, setting: Setting, seed: int) -> Learner:
        if not self.path.is_file():
            raise StudyError(f"{self.path} is gone; on a cluster, every machine needs it at the same place")
        changed = self.path.stat().st_mtime_ns
        task = _task_of(self.path, self.attribute, changed)
        if task.version != self.version:
            raise StudyError(f"{self.path}: {self._why_another(task, changed)}")
        return task.learner(setting, seed)

    def _why_another(self, task: Task, changed: int) -> str:
        names = differences(self.covers, task.covers)
        parts = " and ".join(name for name in names if "." not in name)
        edited = changed != self.changed or any("." in name for name in names if name != self.path.name)
        if edited or not parts:
            return "the task has changed while the study ran: start the study again"
        return (
            f"its {parts} differ from one making of the task to the next, though the file has not changed: "
            "seed what is random there, as with numpy.random.default_rng(0)"
        )


@functools.lru_cache(maxsize=1)
def _task_of(path: Path, attribute: str, changed: int) -> Task:
    """The task in a file, made once as long as the file is unchanged."""
    with files_read() as files:
        module, read = run_file(path, changed)
        task = _task_in(module, path, attribute)
    content = hashes(files | read) if task.covers else []
    if not content:
        return task
    # What was read on the way may have gone into anything.
    digest = hashlib.sha256(repr((task.version, content)).encode()).hexdigest()[:16]
    covers = {**task.covers, **{name: hash_[:16] for name, hash_ in content}}
    return dataclasses.replace(task, version=digest, covers=covers)


def _task_in(module: types.ModuleType, path: Path, attribute: str) -> Task:
    task = getattr(module, attribute, None)
    if task is None:
        known = [name for name, value in vars(module).items() if isinstance(value, Task) or callable(value)]
        raise StudyError(f"{path.name} has no {attribute!r}; {nearest(attribute, known)}")
    if callable(task):
        try:
            task = task()
        except StudyError:
            raise
        except Exception as error:
            raise StudyError(f"{attribute}() of {path.name} failed: {_with_line(error)}") from error
    if not isinstance(task, Task):
        raise StudyError(f"{attribute} of {path.name} must be a Task, not {type(task).__name__}")
    return task


@functools.lru_cache(maxsize=1)
def run_file(path: Path, changed: int) -> tuple[types.ModuleType, set[str]]:
    """A Python file as a module, run once as long as it is unchanged, and the files that it read.

    Args:
        path: absolute.
        changed: when it was, in nanoseconds, as `path.stat().st_mtime_ns` has it.

    Raises:
        StudyError: the file fails; the message has the error and its line.
    """
    name = f"thalweg_task_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise StudyError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # as `python my_task.py` would: it may import its neighbours
    try:
        with files_read() as files:
            spec.loader.exec_module(module)
    except StudyError:
        raise
    except Exception as error:
        raise StudyError(f"{path.name} failed: {_with_line(error)}") from error
    return module, files


def _with_line(error: Exception) -> str:
    """An exception's message with the line of the user's file that it comes from."""
    trace, line = error.__traceback__, None
    while trace:
        if Path(trace.tb_frame.f_code.co_filename).suffix == ".py" and not is_library(
            trace.tb_frame.f_code.co_filename
        ):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{type(error).__name__}: {error}" + (f" (line {line})" if line else "")
