"""The examples, at a reduced size: each one's task is loaded from its file, trained and evaluated."""

import dataclasses
import pickle
import runpy
import sys
from pathlib import Path

import pytest

import thalweg
from study_cases import Setting
from thalweg.study.planning.configuration import from_toml
from thalweg.study.tasks.from_file import load


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """As a trial has it; several threads on busy cores wait for one another."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def test_there_is_an_example_of_each_kind():
    assert {path.stem for path in EXAMPLES} >= {"torch_model", "keras_model", "arrays", "language_model"}


def test_the_example_of_a_file_is_understood():
    found = from_toml(EXAMPLES[0].with_name("study.toml"))
    assert [contestant.name for contestant in found["optimizers"]] == ["sgd", "adam+cosine", "library"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_task_trains(path):
    if path.stem == "keras_model":
        pytest.importorskip("keras")
    task = pickle.loads(pickle.dumps(load(f"{path}:task")))
    learner = task.learner(Setting("adam", batch_size=task.batch_size, lr=0.003), 0)
    first = learner.train(learner.steps_per_epoch)
    for _ in range(4):
        last = learner.train(learner.steps_per_epoch)
    assert last["loss"] < first["loss"]
    found = learner.evaluate("test")
    assert found.keys() == {measure.name for measure in task.measures}
    if "perplexity" in found:
        assert found["loss"] < first["loss"]
    else:
        assert found.get("accuracy", 1) > 0.6
        assert found["loss"] < 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_runs(path, monkeypatch, tmp_path, capsys):
    """As written, but for the size: one epoch, two learning rates, one seed, in this process."""
    if path.stem == "keras_model":
        pytest.importorskip("keras")
    monkeypatch.chdir(tmp_path)
    compare = thalweg.compare
    small = dataclasses.replace(load(f"{path}:task"), epochs=1)
    asked = []

    def fewer(task, optimizers, budget):
        asked.append((task.name, task.version))
        return compare(small, optimizers=optimizers[:2], budget=2, seeds=1, search_seeds=1, jobs=1)

    monkeypatch.setattr(thalweg, "compare", fewer)
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    assert asked == [(small.name, small.version)]
    assert capsys.readouterr().out.strip()
