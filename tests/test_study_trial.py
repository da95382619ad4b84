import dataclasses
import math

import numpy as np
import pytest
import torch

from study_cases import BLOBS, changed, model
from thalweg.study.contestant import Contestant
from thalweg.study.errors import StudyError
from thalweg.study.learners import Diverged
from thalweg.study.planning.budget import Length
from thalweg.study.planning.plan import CLASSICAL
from thalweg.study.planning.specification import Trial
from thalweg.study.running import trial
from thalweg.study.task import LOSS, Measure, Task

ONE = Trial(BLOBS, Contestant("adam"), {"lr": 0.1}, Length("epochs", 3), 16, 0, "final")


class Toy:
    """A learner of one number, which shows how it was used."""

    steps_per_epoch = 10
    state_bytes = 8

    def __init__(self, setting, seed, losses=(), validation=1.0, pause=None):
        self.calls, self.setting, self.seed = [], setting, seed
        self.losses, self.validation, self.pause = iter(losses), validation, pause

    def train(self, steps):
        self.calls.append(steps)
        if self.pause:
            self.pause(steps)
        loss = next(self.losses, 1.0)
        if isinstance(loss, Exception):
            raise loss
        return {"loss": loss}

    def evaluate(self, part):
        self.calls.append(part)
        if isinstance(self.validation, Exception):
            raise self.validation
        return {"loss": self.validation}

    def diagnostics(self):
        return {"gradient_norm": math.inf, "update_norm": 0.5}


def toy(**values):
    """A task of toys, and the list of those that it makes."""
    made = []

    def learner(setting, seed):
        made.append(Toy(setting, seed, **values))
        return made[-1]

    return Task(f"toy {len(values)} {id(made)}", "1", learner, (LOSS,), epochs=2), made


def played(task, **values):
    return dataclasses.replace(ONE, task=task, **values)


def records(one):
    found = []
    trial.run(one, found.append)
    return found


def figures(one):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records(one)]


def test_a_trial_leaves_a_header_an_evaluation_an_epoch_and_a_closing_record():
    header, *evaluations, end = records(ONE)
    assert header["id"] == ONE.id
    assert header["specification"] == ONE.specification
    assert header["environment"]["torch"] == torch.__version__
    assert header["environment"]["threads"] == 1
    assert {"thalweg", "python", "device", "host"} <= header["environment"].keys()
    assert [record["epoch"] for record in evaluations] == [1, 2, 3]
    assert [record["step"] for record in evaluations] == [5, 10, 15], "the last, partial batch is kept"
    assert {record["record"] for record in evaluations} == {"evaluation"}
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= evaluations[0].keys()
    assert all(record["gradient_norm"] > 0 < record["update_norm"] for record in evaluations)
    assert (
        0
        < evaluations[0]["seconds"]
        < evaluations[1]["seconds"]
        < evaluations[2]["seconds"]
        == end["seconds"]
    )
    assert (end["record"], end["status"], end["step"], end["epoch"]) == ("end", "finished", 15, 3)
    assert {"test_loss", "test_accuracy"} <= end.keys()
    assert end["state_bytes"] >= 2 * 4 * sum(p.numel() for p in model().parameters())


def test_the_same_trial_gives_the_same_figures():
    assert figures(ONE) == figures(ONE)
    for other in ({"seed": 1}, {"hyperparameters": {"lr": 0.2}}):
        assert figures(dataclasses.replace(ONE, **other))[1]["loss"] != figures(ONE)[1]["loss"]


def test_contestants_start_from_the_same_weights_and_see_the_same_order():
    # At rate 0 nothing is learned: what each batch costs tells the weights and the order.
    found = {}
    for name in CLASSICAL:
        for seed in (0, 1):
            still = dataclasses.replace(
                ONE, contestant=Contestant(name), hyperparameters={"lr": 0.0}, seed=seed, every=1
            )
            found[name, seed] = [record["loss"] for record in records(still)[1:-1]]
    for seed in (0, 1):
        assert all(found[name, seed] == found["sgd", seed] for name in CLASSICAL)
    assert found["sgd", 0] != found["sgd", 1]
    assert len(found["sgd", 0]) == 15
    assert len(set(found["sgd", 0])) > 10, "epochs are shuffled anew"


def test_test_data_stays_unseen_in_the_search():
    task, made = toy()
    assert "test_loss" not in records(played(task, stage="search"))[-1]
    assert "test" not in made[0].calls
    for stage in ("final", "default"):
        assert records(played(task, stage=stage))[-1]["test_loss"] == 1.0


@pytest.mark.parametrize(
    ("values", "calls"),
    [
        ({"length": Length("epochs", 2)}, [10, 10]),
        ({"length": Length("epochs", 2), "every": 4}, [4, 4, 4, 4, 4]),
        ({"length": Length("epochs", 1), "every": 4}, [4, 4, 2]),
        ({"length": Length("steps", 25)}, [10, 10, 5]),
        ({"length": Length("steps", 3)}, [3]),
        ({"length": Length("epochs", 8), "until": 0.25}, [10, 10]),
        ({"length": Length("epochs", 2), "until": 0.25}, [5]),
        ({"length": Length("steps", 1), "until": 0.25}, [1]),
    ],
    ids=str,
)
def test_it_trains_as_long_and_evaluates_as_often_as_it_says(values, calls):
    task, made = toy()
    *_, end = records(played(task, **values))
    assert [call for call in made[0].calls if isinstance(call, int)] == calls
    assert made[0].calls.count("validation") == len(calls)
    assert end["step"] == sum(calls)
    assert end["epoch"] == sum(calls) / 10
    assert end["status"] == ("stopped" if "until" in values else "finished")


def test_seconds_of_training_alone_end_a_trial_that_has_so_many(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(trial.time, "perf_counter", lambda: clock[0])

    def pause(steps):
        clock[0] += 0.125 * steps

    task, made = toy(pause=pause)
    evaluate = Toy.evaluate

    def slow(self, part):
        clock[0] += 1000
        return evaluate(self, part)

    monkeypatch.setattr(Toy, "evaluate", slow)
    *_, last, end = records(played(task, length=Length("seconds", 3.5)))
    assert end["seconds"] == last["seconds"] == 3.5, "evaluation takes none of them"
    assert [call for call in made[0].calls if isinstance(call, int)] == [10, 10, 8]


def test_a_schedule_spans_the_trials_steps():
    seen = []

    def learner(setting, seed):
        seen.append(setting.total_steps)
        return Toy(setting, seed)

    task = Task("scheduled", "1", learner, (LOSS,))
    scheduled = played(task, contestant=Contestant("adam+cosine"), length=Length("epochs", 3))
    records(scheduled)
    assert seen == [None, 30], "a first learner says how long an epoch is"
    records(dataclasses.replace(scheduled, seed=1))
    assert seen[2:] == [30], "once in a process"
    records(dataclasses.replace(scheduled, length=Length("steps", 17)))
    records(played(task))
    records(dataclasses.replace(scheduled, until=0.25))
    assert seen[3:] == [17, None, 30]


@pytest.mark.parametrize(
    ("values", "status", "reason"),
    [
        ({"losses": [1.0, Diverged("no number")]}, "diverged", "no number"),
        ({"losses": [1.0, 1e9]}, "diverged", "training loss was 1e+09 at step 20, beyond 1e+08"),
        ({"losses": [1.0, -1e9]}, "diverged", "-1e+09"),
        ({"validation": 1e9}, "diverged", "validation loss was 1e+09 at step 10"),
        ({"losses": [1.0, ZeroDivisionError("by hand")]}, "crashed", "ZeroDivisionError: by hand"),
        ({"losses": [1.0, MemoryError("2 GiB")]}, "memory", "MemoryError: 2 GiB"),
        ({"losses": [torch.OutOfMemoryError("no")]}, "memory", "no"),
        ({"pause": lambda steps: torch.empty(2**50)}, "memory", "allocate memory"),
        ({"losses": [RuntimeError("RESOURCE_EXHAUSTED: Out of memory while")]}, "memory", "RESOURCE"),
    ],
)
def test_a_failure_is_recorded_with_its_reason(values, status, reason):
    task, _ = toy(**values)
    header, *evaluations, end = records(played(task))
    assert header["record"] == "trial"
    assert end["status"] == status
    assert reason in end["reason"]
    assert end["step"] == 10 * len(evaluations)
    assert "test_loss" not in end


def test_a_rate_far_too_high_diverges():
    *_, end = records(dataclasses.replace(ONE, contestant=Contestant("sgd"), hyperparameters={"lr": 1e30}))
    assert end["status"] == "diverged"


def test_figures_that_are_not_finite_are_null():
    task, _ = toy()
    assert records(played(task))[1]["gradient_norm"] is None


def test_an_error_for_the_user_is_not_an_outcome():
    task, _ = toy(losses=[StudyError("the data is gone")])
    with pytest.raises(StudyError, match="the data is gone"):
        records(played(task))


def test_the_users_threads_and_random_streams_are_put_back(two_threads):
    task, _ = toy(losses=[ValueError()])
    for one in (ONE, played(task)):
        torch.manual_seed(5)
        np.random.seed(5)
        expected = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
        records(one)
        assert torch.equal(torch.random.get_rng_state(), expected[0])
        assert np.random.get_state()[1].tolist() == expected[1]
        assert torch.get_num_threads() == 2


def test_a_rehearsal_takes_one_step_and_looks_at_everything():
    task, made = toy()
    assert trial.rehearse(played(task)) == 10
    assert made[0].calls == [1, "validation", "test"]
    assert trial.rehearse(ONE) == 5
    high = dataclasses.replace(ONE, contestant=Contestant("sgd"), hyperparameters={"lr": 1e38})
    assert trial.rehearse(high) == 5, "a rate that is too high is the trial's own affair"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (toy(losses=[Diverged("NaN")])[0], "the loss is not finite at the very first step"),
        (
            toy(losses=[ZeroDivisionError("by hand")])[0],
            "fails at the first step: ZeroDivisionError: by hand",
        ),
        (toy(validation=KeyError("x"))[0], "fails on the validation data: KeyError: 'x'"),
        (toy(losses=[StudyError("labels run from 0 to 2")])[0], "^labels run from 0 to 2$"),
        (dataclasses.replace(toy()[0], measures=(LOSS, Measure("f1", False))), "reports no f1"),
        (changed(model=list, version="list"), "must be a torch.nn.Module"),
    ],
    ids=["nan", "crash", "validation", "user", "measure", "model"],
)
def test_a_rehearsal_shows_what_is_wrong(task, message):
    with pytest.raises(StudyError, match=message):
        trial.rehearse(dataclasses.replace(ONE, task=task))


def test_a_budget_of_seconds_with_an_evaluation_that_is_small_runs_at_all():
    *_, end = records(dataclasses.replace(ONE, length=Length("seconds", 0.02)))
    assert end["status"] == "finished"
    assert end["seconds"] >= 0.02


def test_the_versions_of_what_trained_are_noted():
    keras = pytest.importorskip("keras")
    plain = trial.environment(BLOBS)
    assert plain["torch"] == torch.__version__
    assert plain["numpy"] == np.__version__
    assert not {"keras", "jax", "tensorflow"} & plain.keys()
    found = trial.environment(dataclasses.replace(BLOBS, frameworks=("keras",)))
    backend = keras.backend.backend()
    assert found["keras"] == keras.__version__
    assert found[backend] == __import__(backend).__version__
    assert backend == "torch" or "torch" not in found
    assert found["device"]
