"""Built-in tasks, by name; and tasks from the user's files."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from thalweg.errors import nearest
from thalweg.study.data import sets
from thalweg.study.errors import StudyError
from thalweg.study.task import Task
from thalweg.study.tasks.from_file import load


def _lazy(module: str, function: str, *arguments: object) -> Callable[[Path | None], Task]:
    """Makes a task when it is called, and imports only then: listing names needs no framework."""

    def make(folder: Path | None) -> Task:
        task: Task = getattr(import_module(f"{__name__}.{module}"), function)(*arguments, folder)
        return task

    return make


TASKS: dict[str, Callable[[Path | None], Task]] = {
    "digits": _lazy("images", "digits"),
    "mnist": _lazy("images", "perceptron", sets.MNIST),
    "fashion-mnist": _lazy("images", "perceptron", sets.FASHION_MNIST),
    "fashion-mnist-cnn": _lazy("images", "convolutional", sets.FASHION_MNIST),
    "mnist-autoencoder": _lazy("images", "autoencoder", sets.MNIST),
    "imdb-cnn": _lazy("text", "review_convolution"),
    "imdb-bow": _lazy("text", "review_words"),
    "shakespeare-rnn": _lazy("text", "shakespeare_recurrent"),
    "shakespeare-transformer": _lazy("text", "shakespeare_transformer"),
    "quadratic": _lazy("convex", "quadratic"),
    "logistic": _lazy("convex", "logistic"),
}


def get(name: str, folder: Path | None = None) -> Task:
    """A task by name, with its data: a built-in one, or the user's own as `load` takes it.

    Args:
        name: as in `TASKS` (capitals, underscores and spaces make no difference), or "my_task.py:task".
        folder: where the data files are, for a built-in task that has some. None: the cache, else a
            download.

    Raises:
        StudyError: no task has that name, its data is not available, or as `load`.
    """
    if ".py" in name:
        return load(name)
    known = {key.replace("-", ""): make for key, make in TASKS.items()}
    make = known.get(name.lower().replace("-", "").replace("_", "").replace(" ", ""))
    if make is None:
        raise StudyError(
            f"no task is named {name!r}, nor is it a file such as my_task.py:task; {nearest(name, TASKS)}",
            argument="task",
        )
    return make(folder)
