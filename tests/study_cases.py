"""A task small enough to train in milliseconds, and plans of it, for the tests of the study."""

import dataclasses
import itertools
import math
import runpy
from pathlib import Path

import numpy as np

import thalweg
from thalweg.study.comparison import Entry
from thalweg.study.data.arrays import Data, Examples
from thalweg.study.learners import Diverged
from thalweg.study.learners.models import mlp
from thalweg.study.learners.torch import TorchTraining
from thalweg.study.learners.torch_metrics import METRICS, cross_entropy
from thalweg.study.planning import plan
from thalweg.study.planning.configuration import from_toml
from thalweg.study.planning.plan import Plan
from thalweg.study.records import Run
from thalweg.study.running.engine import Engine
from thalweg.study.running.store import Store
from thalweg.study.statistics import findings as statistics
from thalweg.study.study import Study
from thalweg.study.task import LOSS, Task


def load():
    """Three clouds of points in four dimensions; the number to train on is no multiple of the batch size."""
    rng = np.random.RandomState(0)
    centres = rng.normal(size=(3, 4)) * 2

    def part(count):
        targets = rng.randint(3, size=count)
        return Examples(
            (centres[targets] + rng.normal(size=(count, 4))).astype(np.float32), targets.astype(np.int64)
        )

    return Data(part(70), part(20), part(20))


def model():
    return mlp(4, 8, 3)


ACCURACY = METRICS["accuracy"]
BLOBS = Task(
    "blobs",
    "1",
    TorchTraining("blobs 1", model, load, cross_entropy, (ACCURACY,), 16),
    (LOSS, ACCURACY.measure),
    epochs=3,
    batch_size=16,
)


_keys = itertools.count()


def changed(**values) -> Task:
    """The blobs with something else instead: a field of the task, or `model`, `load` or `loss`."""
    names = {"model": "model", "load": "data", "loss": "loss"}
    parts = {names[key]: values.pop(key) for key in names.keys() & values.keys()}
    if parts:  # a key of its own: data is kept by it
        values["learner"] = dataclasses.replace(BLOBS.learner, key=f"changed {next(_keys)}", **parts)
    return dataclasses.replace(BLOBS, **values)


def small(task=BLOBS, optimizers=("sgd", "adam"), lr=(0.01, 0.1), seeds=2, **values) -> Plan:
    return plan.make(task, optimizers, lr=lr, seeds=seeds, **values)


class Bowl:
    """A learner whose loss depends on how far its learning rate is from the best; "sgd" always diverges."""

    steps_per_epoch = 4
    state_bytes = 0
    measures = ("loss",)

    def __init__(self, setting, seed):
        self.setting, self.seed, self.steps = setting, seed, 0
        self.distance = math.log10(setting.hyperparameters["lr"] / 0.02)

    def train(self, steps):
        self.steps += steps
        if self.setting.contestant == "sgd" and self.steps > 1:
            raise Diverged("as it always does")
        if self.setting.contestant == "fails" and self.steps > 1:
            raise RuntimeError("on its way")
        return dict.fromkeys(self.measures, 1 / self.steps)

    def diagnostics(self):
        return {"gradient_norm": 1.0, "update_norm": 1.0}


class Setting:
    """What a learner needs of one contestant at one point."""

    def __init__(self, optimizer="sgd", batch_size=16, dialect="torch", **values):
        self._rule = thalweg.get(optimizer, dialect=dialect, **values)
        self.batch_size = batch_size

    def rule(self):
        return self._rule

    def torch(self, params):
        from thalweg.torch import Optimizer

        return Optimizer(params, self._rule)

    def keras(self):
        from thalweg.keras import Optimizer

        return Optimizer(self._rule)


def ended(identity, test=None, val=None, curve=(3.0, 2.0), state_bytes=0, status="finished", **more) -> Run:
    """A run by its final losses; None: as good as the other. Infinite: it diverged."""
    val = test if val is None else val
    if val == math.inf:
        status = "diverged"
    last = {"loss": val, "val_loss": val, "val_accuracy": 0.9}
    records = [{"loss": x, "val_loss": x, "val_accuracy": 0.5} for x in curve]
    if status == "finished":
        records.append(last)
    places = [{"epoch": i / 2, "step": 5 * i, "seconds": i / 100} for i in range(1, len(records) + 1)]
    evaluations = tuple(place | figures for place, figures in zip(places, records, strict=True))
    end = {"status": status} | places[-1] | {"state_bytes": state_bytes}
    if status == "finished" and test is not None:
        end |= {"test_loss": test, "test_accuracy": 0.8}
    if status != "finished":
        end["reason"] = "by hand"
    return Run({"id": identity}, evaluations, end | more)


# Final losses by seed: low ones, clearly higher ones, and ones that differ from the first by noise alone.
GOOD, WORSE = [0.10, 0.11, 0.12, 0.13, 0.14, 0.15], [0.20, 0.21, 0.23, 0.25, 0.27, 0.28]
NEAR = [0.11, 0.10, 0.13, 0.12, 0.15, 0.14]
FAILS = {"search": {0.1: [math.inf]}}

# The data sets that a checkout may have beside it.
SHARED = Path(__file__).parents[2] / "shared" / "data"


def interval_cases():
    """The cases by which the benchmark measures how often intervals contain the true value."""
    return runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "intervals.py"))["CASES"]


def findings_of(folder, plan, runs=None):
    """What a plan's study shows, or what its first few runs do, read from its folder."""
    study = Study.of(plan, folder)
    study.engine = Engine(jobs=1)
    for i, _ in enumerate(study.iterate(), 1):
        if i == runs:
            break
    return statistics.find(Study.open(folder))


def study_of(contestants, complete=True, total=None, **facts) -> Study:
    """A study by what its runs came to, without running any.

    Args:
        contestants: by name, of each: "search", validation losses by learning rate; "final", test losses,
            and "lr" that they ran at; "default", test losses at "default_lr" or 0.001; further values of
            its runs, such as `state_bytes`, and of its "facts".
    """
    entries, runs, described = [], {}, []
    for name, given in contestants.items():
        parts = dict(given)
        fixed = {"lr": parts.pop("default_lr", 0.001), "beta": 0.9}
        lr, own = parts.pop("lr", 0.1), parts.pop("facts", {})
        stages = [("search", {"lr": rate}, losses) for rate, losses in parts.pop("search", {}).items()]
        stages += [("final", {"lr": lr}, parts.pop("final", ()))]
        stages += [("default", {}, parts.pop("default", ()))]
        for stage, point, losses in stages:
            for seed, loss in enumerate(losses):
                identity = f"{name} {stage} {point} {seed}"
                entries.append(Entry(identity, name, stage, point, seed, None))
                figures = {"val": loss} if stage == "search" else {"test": loss}
                runs[identity] = ended(identity, **figures, **parts)
        described.append(
            {"name": name, "dialect": "keras", "schedule": None, "batch_size": 16}
            | {"space": {"lr": {"low": 1e-3, "high": 1.0, "scale": "log", "values": []}}}
            | {"defaults": fixed, "covers": {}}
            | own
        )
    whole = {
        "task": {
            "name": "blobs",
            "version": "1",
            "measures": [
                {"name": "loss", "lower_is_better": True},
                {"name": "accuracy", "lower_is_better": False},
            ],
            "optimum": None,
            "sources": {},
            "covers": {},
        },
        "contestants": described,
        "settings": 3,
        "length": {"epochs": 3},
        "batch_size": 16,
        "seeds": [0, 1, 2],
        "search_seeds": [0],
        "every": None,
        "halving": False,
        "proposer": "grid",
        "saved": 0.0,
        "winners": {},
        "total": total or len(runs),
        "complete": complete,
    }
    study = Study(Store(Path("nowhere")), None, whole | facts, tuple(entries))
    study.runs = runs
    return study


# A file for `compare` with an entry of every kind.
TOML = """
dialect = "torch"
seeds = 4
search_seeds = 2
batch_size = 16
every = 5
halving = true
proposer = "grid"
defaults = false

[budget]
trials = 6
epochs = 3

[optimizers.sgd]

[optimizers."adam+cosine"]
dialect = "keras"
batch_size = 4
space.lr = { low = 1e-4, high = 0.1 }
space.beta_1 = { values = [0.8, 0.9] }
space.beta_2 = {}
fixed.epsilon = 1e-6

[optimizers.mine]
optimizer = "nadam"
schedule = "warmup"
"""


def planned(folder, content: bytes) -> Plan:
    """The plan that a TOML file in a folder makes."""
    path = folder / "study.toml"
    path.write_bytes(content)
    return plan.make(BLOBS, **from_toml(path))
