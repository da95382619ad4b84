import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import thalweg
from study_cases import BLOBS, TOML, Bowl, changed, planned
from thalweg.cli import main as cli
from thalweg.study import comparison as comparisons
from thalweg.study.contestant import Contestant
from thalweg.study.errors import StudyError
from thalweg.study.planning.budget import Budget
from thalweg.study.planning.configuration import from_toml
from thalweg.study.planning.plan import make
from thalweg.study.study import Study, compare
from thalweg.study.task import LOSS, Task


class OneMeasure(Bowl):
    def evaluate(self, subset):
        return {"loss": self.distance**2 + 1e-3 * self.seed + 1 / (1 + self.steps) + (subset == "test")}


BOWL = Task("bowl", "1", OneMeasure, (LOSS,), epochs=4, batch_size=8)


def mine(params, lr=0.1):
    return torch.optim.SGD(params, lr=lr)


def test_a_comparison_from_python(tmp_path):
    seen = []
    optimizers = ["sgd", "adam+cosine", thalweg.Lion(), mine, Contestant("nadam", space={"lr": [0.01, 0.02]})]
    study = compare(
        BOWL,
        optimizers,
        out=tmp_path,
        jobs=1,
        budget=5,
        seeds=3,
        progress=lambda s, r: seen.append((s.done, r)),
    )
    assert study.complete
    assert study.done == study.total == len(list((tmp_path / "trials").iterdir()))
    assert [done for done, _ in seen] == [*range(1, study.done + 1)]
    assert study.winners["sgd"] is None
    assert study.winners["nadam"] == {"lr": 0.02}
    for name in ("adam+cosine", "mine"):
        assert study.winners[name]["lr"] == pytest.approx(0.02, rel=0.7)
    rows = study.rows()
    assert len(rows) == len(study.entries) == 4 * (5 * 2 + 3) + (2 * 2 + 3) + 4 * 3
    final = [row for row in rows if row["contestant"] == "adam+cosine" and row["stage"] == "final"]
    assert [row["seed"] for row in final] == [1000, 1001, 1002]
    assert final[0]["test_loss"] == pytest.approx(final[0]["val_loss"] + 1)
    assert final[0]["hyperparameter.lr"] == study.winners["adam+cosine"]["lr"]
    assert final[0]["hyperparameter.beta_1"] == 0.9
    assert (final[0]["status"], final[0]["step"], final[0]["loss"]) == ("finished", 16, 1 / 16)
    lost = [row for row in rows if row["contestant"] == "sgd"]
    assert {row["stage"] for row in lost} == {"search", "default"}
    assert {(row["status"], row["reason"]) for row in lost} == {("diverged", "as it always does")}
    table = study.evaluations()
    assert len(table) == sum(4 for row in rows if row["status"] == "finished")
    assert set(table["id"]) <= {entry.id for entry in study.entries}


@pytest.mark.parametrize(
    ("option", "right"),
    [
        ("trials", r"give budget=thalweg\.Budget\(trials=\.\.\.\)"),
        ("epochs", r"give budget=thalweg\.Budget\(epochs=\.\.\.\)"),
        ("seed", "did you mean 'seeds'"),
        ("engin", "did you mean 'engine'"),
    ],
)
def test_an_option_that_there_is_not_is_named(option, right):
    with pytest.raises(TypeError, match=f"compare has no argument '{option}'[;:] {right}"):
        compare(BLOBS, "adam", **{option: 5})


def test_one_of_a_thing_is_said_so():
    assert str(make(BLOBS, "adam", budget=Budget(epochs=1)).length) == "1 epoch"
    assert str(make(BLOBS, "adam", budget=Budget(seconds=1.5)).length) == "1.5 seconds"


def test_repeating_a_comparison_runs_nothing_and_changing_it_runs_what_is_new(tmp_path, monkeypatch):
    first = compare(BOWL, ["adam"], out=tmp_path, jobs=1, budget=4)
    monkeypatch.setattr(comparisons.Engine, "rehearse", lambda self, trials: pytest.fail("all is proven"))
    seen = []
    again = compare(BOWL, ["adam"], out=tmp_path, jobs=1, budget=4, progress=lambda s, r: seen.append(r))
    assert (seen, again.rows()) == ([], first.rows())
    compare(BOWL, ["adam"], out=tmp_path, jobs=1, budget=4, seeds=7, progress=lambda s, r: seen.append(r))
    assert len(seen) == 2 * 2, "two more final seeds, tuned and default"


def test_a_study_is_opened_by_its_folder_alone(tmp_path):
    ran = compare(BOWL, ["adam", "sgd"], out=tmp_path, jobs=1, budget=3, halving=True, tune=["beta_1"])
    found = Study.open(tmp_path)
    assert found.rows() == ran.rows()
    assert found.winners == ran.winners
    assert found.complete
    assert (found.done, found.total) == (ran.done, ran.total)
    assert found.facts["task"]["measures"] == [{"name": "loss", "lower_is_better": True}]
    assert found.facts["length"] == {"epochs": 4}
    assert found.facts["saved"] == ran.plan.saved(ran.runs)
    space = found.facts["contestants"][0]["space"]
    assert space["beta_1"] == {"low": 0.8, "high": 0.999, "scale": "complement", "values": []}
    with pytest.raises(StudyError, match="call compare again"):
        found.resume()


def test_a_study_that_is_running_can_be_watched(tmp_path):
    running = Study.of(make(BOWL, ["adam"], budget=4), tmp_path)
    running.engine = comparisons.Engine(jobs=1)
    steps = running.iterate()
    next(steps)
    watching = Study.open(tmp_path)
    assert (watching.done, watching.complete) == (1, False)
    assert watching.total == 4 * 2 + 5 + 5
    next(steps)
    watching.refresh()
    assert watching.done == 2
    assert len(watching.rows()) == 2


def test_a_crashed_trial_counts_as_failed_and_is_tried_again_next_time(tmp_path):
    optimizers = [Contestant("adam", name="fails"), "nadam"]
    study = compare(BOWL, optimizers, out=tmp_path, jobs=1, budget=3)
    assert study.winners["fails"] is None
    assert study.winners["nadam"]
    crashed = {row["id"] for row in study.rows() if row["status"] == "crashed"}
    seen = []
    compare(
        BOWL, optimizers, out=tmp_path, jobs=1, budget=3, progress=lambda s, r: seen.append(r.header["id"])
    )
    assert set(seen) == crashed


@pytest.mark.parametrize("content", [None, "{", "[]", '{"entries": [{"id": 1}]}'])
def test_a_folder_without_a_study_is_named(tmp_path, content):
    if content:
        (tmp_path / "study.json").write_text(content)
    with pytest.raises(StudyError, match=r"there is no study in|study\.json cannot be read"):
        Study.open(tmp_path)


def test_what_cannot_train_stops_before_anything_is_run(tmp_path):
    def wrong(params, lr=0.1):
        raise TypeError("no such argument")

    with pytest.raises(
        StudyError, match="wrong on blobs fails at the first step: TypeError: no such argument"
    ):
        compare(BLOBS, ["adam", wrong], out=tmp_path, jobs=1)
    assert list((tmp_path / "trials").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_run(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="cannot be written"):
        compare(BOWL, out=tmp_path / "file" / "study")
    (tmp_path / "study.json").mkdir()
    with pytest.raises(StudyError, match=r"study\.json cannot be written"):
        compare(BOWL, out=tmp_path)


LIMITED = """
import resource, signal, sys
from study_cases import BLOBS
from thalweg.study.errors import StudyError
from thalweg.study.planning.budget import Budget
from thalweg.study.study import compare

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    budget = Budget(epochs=15)
    compare(BLOBS, ["adam"], lr=[0.1, 0.2], seeds=1, out=sys.argv[1], jobs=1, every=1, budget=budget)
except StudyError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits as POSIX has them")
def test_on_a_disk_that_fills_up_nothing_is_lost(tmp_path):
    command = [sys.executable, "-c", LIMITED, str(tmp_path), "9000"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    assert ".jsonl cannot be written: File too large. Finished trials are kept" in answer.stdout
    (path,) = tmp_path.glob("trials/*.jsonl")
    assert path.stat().st_size > 8500
    for path in tmp_path.glob("trials/*.jsonl"):
        for line in path.read_text().splitlines():
            json.loads(line)
    study = compare(BLOBS, ["adam"], lr=[0.1, 0.2], seeds=1, out=tmp_path, jobs=1)
    assert study.complete


def test_another_version_of_the_task_is_pointed_out(tmp_path):
    compare(BLOBS, ["adam"], lr=[0.1], seeds=2, out=tmp_path, jobs=1)
    other = Study.of(make(changed(version="2"), ["adam"], lr=[0.1], seeds=2), tmp_path)
    assert other.done == 0
    assert other.outdated == ["2 trials here were run with task version 1, now 2: they are kept but not used"]


def test_a_comparison_from_a_file(tmp_path):
    (tmp_path / "mine.py").write_text("from torch.optim import SGD as Mine\n")
    plan = planned(tmp_path, f'{TOML}[optimizers.own]\noptimizer = "mine.py:Mine"\n'.encode())
    assert (len(plan.seeds), plan.halving, plan.settings, str(plan.length)) == (4, True, 6, "3 epochs")
    sgd, adam, nadam, own = plan.contestants
    assert (sgd.name, sgd.dialect) == ("sgd", "torch")
    assert (adam.name, adam.dialect, adam.schedule, adam.batch_size) == ("adam+cosine", "keras", "cosine", 4)
    assert (adam.space["lr"].low, adam.space["lr"].high) == (1e-4, 0.1)
    assert adam.space["beta_1"].values == (0.8, 0.9)
    assert adam.space["beta_2"].scale == "complement"
    assert adam.defaults["epsilon"] == 1e-6
    assert (nadam.name, nadam.schedule) == ("mine", "warmup")
    assert (own.name, own.factory) == ("own", torch.optim.SGD)
    trial = next(t for t in plan.next_trials({}) if t.contestant is adam)
    assert trial.specification["batch_size"] == 4


def test_the_documented_file_is_one(tmp_path):
    lines = from_toml.__doc__.split("Raises:")[0].split("\n")[2:]
    (tmp_path / "my_optimizers.py").write_text("from torch.optim import SGD as Mine\n")
    (tmp_path / "study.toml").write_text("\n".join(line.strip() for line in lines))
    found = from_toml(tmp_path / "study.toml")
    assert found["budget"] == Budget(12, 20)
    assert [contestant.name for contestant in found["optimizers"]] == ["sgd", "adam+cosine", "mine"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seeds = ", "is not TOML"),
        ("seed = 3", "no entry 'seed'; did you mean 'seeds'"),
        ("[budget]\ntrails = 3", "budget has no entry 'trails'; did you mean 'trials'"),
        ("[budget]\ntrials = 0", "budget.trials is 0, not a whole number from 1"),
        ("seeds = nan", "study.toml: seeds is nan, not a whole number from 1"),
        ("seeds = true", "seeds is True, not a whole number from 1"),
        ("seeds = 2.0", "seeds is 2.0, not a whole number from 1"),
        ("seeds = []", "seeds is .., not a whole number from 1"),
        ('budget.seconds = "x"', "budget.seconds is 'x', not a number above 0"),
        ("budget.seconds = inf", "budget.seconds is inf, not a number above 0"),
        ("budget = { epochs = 3, steps = 3 }", "length is given twice, in epochs and in steps"),
        ("proposer = []", "proposer is .., not text"),
        ("halving = 1", "halving is 1, not true or false"),
        ("dialect = 2024-01-01", "dialect is datetime.date.*, not text"),
        ("[optimizers]\nadam = 3", "optimizers.adam is 3, not a table"),
        ("[optimizers.adam]\noptimizer = 3", "optimizers.adam.optimizer is 3, not text"),
        ("[optimizers.adam]\nbatch_size = 0", "optimizers.adam.batch_size is 0, not a whole number from 1"),
        ("[optimizers.adam]\nfixed.lr = 'x'", "fixed.lr is 'x', not a number, or true or false"),
        ("[optimizers.adam]\nspace.lr.values = []", "space.lr.values is .., not a list of numbers"),
        ("[optimizers.adam]\nspace.lr.values = [nan]", r"values\[0\] is nan, not a finite number"),
        ("[optimizers.adam]\nspace.lr.low = 'x'", "space.lr.low is 'x', not a finite number"),
        ("x = " + "[" * 5000, "is not TOML"),
        ("budget = 3", "study.toml: budget is 3, not a table"),
        ("optimizers = 3", "optimizers is 3, not a table"),
        ("[optimizers.adam]\nspaces = 3", "optimizers.adam has no entry 'spaces'; did you mean 'space'"),
        ("[optimizers.adam]\nspace = 3", "space is 3, not a table"),
        ("[optimizers.adam]\nspace.lr = [1, 2]", r"space.lr is \[1, 2\], not a table"),
        ("[optimizers.adam]\nspace.lr = { low = 1 }", "has low and high, or values, or nothing; got low"),
        ("[optimizers.adam]\nspace.lr = { low = -1, high = 1 }", "lr reaches -1"),
        ("[optimizers.admw]", "no rule is named 'admw'"),
    ],
)
def test_a_file_with_something_wrong_is_explained(tmp_path, content, message):
    (tmp_path / "study.toml").write_text(content)
    with pytest.raises((StudyError, ValueError), match=message):
        from_toml(tmp_path / "study.toml")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"study\.toml cannot be read: No such file"):
        from_toml(tmp_path / "study.toml")


@pytest.mark.parametrize("command", ["export", "advise", "watch", "report"])
def test_every_command_names_what_it_passes_over_and_goes_on(tmp_path, capsys, command):
    compare(BLOBS, ["adam"], lr=[0.1], seeds=3, out=tmp_path, jobs=1)
    path, other, third = sorted((tmp_path / "trials").iterdir())
    path.write_text(path.read_text().replace('"step": 5', '"step": "five"', 1))
    other.write_bytes(third.read_bytes())
    arguments = {"export": [str(tmp_path / "runs.csv")], "watch": ["--once"]}
    assert cli.main([command, str(tmp_path), *arguments.get(command, [])]) == 0
    said = capsys.readouterr()
    assert sorted(said.err.splitlines(), key=lambda line: "another" in line) == [
        f"Not as it was left, so passed over: {path}: line 2: evaluation.step is 'five', not a whole number "
        "from 0",
        f"Not as it was left, so passed over: {other}: line 1 belongs to another trial, '{third.stem}'",
    ]
    assert said.out
    if command == "export":
        assert len((tmp_path / "runs.csv").read_text().splitlines()) == 2, "a head and the run that is left"


def test_compare_names_what_it_runs_anew(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("from study_cases import BLOBS as task\n")
    command = [
        "compare",
        f"{tmp_path / 'mine.py'}:task",
        "--optimizers",
        "adam",
        "--lr",
        "0.1",
        "--seeds",
        "2",
    ]
    command += ["--jobs", "1", "--out", str(tmp_path / "study")]
    assert cli.main(command) == 0
    path = min((tmp_path / "study" / "trials").iterdir())
    whole = path.read_text()
    path.write_text(whole.replace('"step": 5', '"step": 4', 1))
    capsys.readouterr()
    assert cli.main(command) == 0
    said = "".join(capsys.readouterr().out.splitlines())
    assert "Not as it was left, so run anew: " in said
    assert "are not those that were written" in said
    assert path.read_text() != whole.replace('"step": 5', '"step": 4', 1)
    assert Study.open(tmp_path / "study").altered == []
