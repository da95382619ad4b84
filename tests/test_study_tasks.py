"""Tasks: the user's own from data and models, from a file, and the built-in ones."""

import dataclasses
import gzip
import json
import math
import pickle
from functools import partial

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import torch
from sklearn.datasets import load_diabetes, load_iris
from torch import nn

from study_cases import BLOBS, SHARED, Setting, load, model
from thalweg import Loaders
from thalweg.study import tasks
from thalweg.study.data import files, sets
from thalweg.study.data.arrays import Examples
from thalweg.study.data.files import Files
from thalweg.study.errors import StudyError
from thalweg.study.fingerprint.hashing import fingerprint
from thalweg.study.learners.models import mlp
from thalweg.study.learners.torch_metrics import METRICS, clipped_cross_entropy, cross_entropy
from thalweg.study.task import Metric, Task
from thalweg.study.tasks import convex, from_file, models, text

DATA = load()


pytestmark = pytest.mark.usefixtures("one_thread")


def blobs(**values):
    values = {"model": model, "data": DATA, "loss": "cross_entropy"} | values
    return Task.from_torch("t", **values)


def one(count):
    return partial(mlp, 4, count)


def part(inputs=DATA.train.inputs, targets=DATA.train.targets):
    return inputs, targets


# -- what is wrong is said at once ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "cross_entropi"}, "nor is it a function of your own; did you mean 'cross_entropy'\\?$"),
        ({"metrics": ["acuracy"]}, "named 'acuracy', nor is it one of your own, .* mean 'accuracy'\\?$"),
        ({"metrics": [cross_entropy]}, r'Metric\("name", function, "higher"\)'),
        ({"metrics": ["accuracy", "accuracy"]}, "two measures are named 'accuracy'"),
        ({"metrics": [Metric("loss", cross_entropy, "lower")]}, "two measures are named 'loss'"),
        ({"metrics": [Metric("accuracy", cross_entropy, "lower")]}, "accuracy is better when it is higher"),
        ({"metrics": [Metric("error", cross_entropy, "higher")]}, "error is better when it is lower"),
        ({"data": part(targets=DATA.train.targets[:-1])}, "X of data has 70 examples, y has 69"),
        ({"data": part(DATA.train.inputs[:0], DATA.train.targets[:0])}, "data is empty"),
        ({"data": part(np.full((70, 4), np.nan))}, "X of data holds nan or infinity"),
        ({"data": part(np.full((70, 4), "a"))}, "X of data must hold numbers, and holds <U1"),
        ({"data": DATA.train.inputs}, r"data is ndarray, where \(X, y\)"),
        (
            {"data": {"train": part(), "valid": part(), "test": part()}},
            "must be named train, validation, test",
        ),
        ({"data": (part(), part(), part())}, "training set and the validation set have the same examples"),
        ({"data": (DATA.train, DATA.validation, ([], []))}, "the test set is empty"),
        ({"data": (part(DATA.train.inputs[:3], DATA.train.targets[:3]))}, "set is empty: 3 examples"),
        ({"data": part(), "split": (0.5, 0.5)}, "split is three positive fractions"),
        ({"data": part(), "split": (0.9, 0.1, 0.0)}, "split is three positive fractions"),
        ({"data": part(), "split": (0.9, 0.2, 0.1)}, "split is three positive fractions"),
        ({"model": model()}, "must be a function that makes a model"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, not 0"),
        ({"batch_size": -3}, "batch_size must be a whole number of at least 1, not -3"),
    ],
)
def test_what_a_task_is_made_of_is_checked(change, message):
    with pytest.raises(StudyError, match=message):
        blobs(**change)


@pytest.mark.parametrize("better", ["min", "Higher", "", None])
def test_a_direction_is_higher_or_lower(better):
    with pytest.raises(StudyError, match="better is 'higher' or 'lower'"):
        Metric("mine", cross_entropy, better)


def test_a_metric_has_a_function():
    with pytest.raises(StudyError, match="'accuracy' is not a function"):
        Metric("mine", "accuracy", "higher")


def high(name, value):
    targets = getattr(DATA, name).targets.copy()
    targets[3] = value
    return dataclasses.replace(DATA, **{name: Examples(getattr(DATA, name).inputs, targets)})


class Idle(nn.Module):
    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": high("train", 3)}, "3 outputs, so labels are 0 to 2; the train set has 3 too"),
        ({"data": high("validation", -1)}, "labels are 0 to 2; the validation set has -1 too"),
        ({"data": high("test", 7)}, "labels are 0 to 2; the test set has 7 too"),
        ({"data": high("test", 7), "loss": clipped_cross_entropy}, "the test set has 7 too"),
        ({"data": part(targets=DATA.train.targets * 1.0)}, r"class numbers \(integers\).*loss=\"mse\""),
        ({"model": lambda: nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))}, 'loss="bce"'),
        ({"loss": lambda o, t: o.sum() * math.nan}, "the loss is nan before the first step"),
        ({"loss": lambda o, t: o.sum() / 0}, "the loss is -?(inf|nan) before the first step"),
        ({"loss": lambda o, t: o.sum(-1)}, r"the loss must be one number, not a tensor of shape \(32,\)"),
        ({"loss": lambda o, t: 3.0}, "the loss must be one number, not float"),
        ({"loss": lambda o, t: o.detach().mean()}, "does not depend on the model's parameters"),
        ({"loss": "mse"}, r"outputs have shape \(32, 3\), the targets \(32,\)"),
        (
            {"metrics": [Metric("rows", lambda o, t: o.sum(-1), "lower")]},
            "the metric rows must be one number, and has shape",
        ),
        ({"model": Idle}, "the model Idle has no parameters to train"),
        ({"model": lambda: 3}, r"the model must be a torch\.nn\.Module, not int"),
    ],
)
def test_model_data_and_loss_are_tried_before_training(change, message):
    wrong = blobs(**change)
    with pytest.raises(StudyError, match=message):
        wrong.learner(Setting(batch_size=32), 0)
    wrong = dataclasses.replace(wrong, version="again")
    with pytest.raises(StudyError, match=message):
        wrong.learner(Setting(batch_size=32), 0)


def test_loaders_are_checked():
    empty = Loaders(lambda seed: [], lambda: [], lambda: [])
    with pytest.raises(StudyError, match="the train set is empty"):
        blobs(data=empty)
    odd = Loaders(lambda seed: [torch.ones(3)], lambda: [], lambda: [])
    with pytest.raises(StudyError, match=r"a batch of the train set must be \(inputs, targets\), not Tensor"):
        blobs(data=odd)


def test_trying_changes_nothing():
    """A model with running means, and one that draws: the check leaves both as they were."""

    def normed():
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))

    task = blobs(model=normed)
    before = torch.get_rng_state()
    first = task.learner(Setting(), 0)
    assert torch.equal(torch.get_rng_state(), before)
    second = task.learner(Setting(), 0)
    assert first.evaluate("test") == second.evaluate("test")
    assert first.train(5) == second.train(5)


# -- losses and metrics --------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "bce"])
def test_columns_and_rows_of_targets_are_the_same(loss):
    targets = (DATA.train.targets > 0).astype(np.float32)
    found = []
    for shape in ((70,), (70, 1)):
        task = blobs(data=part(targets=targets.reshape(shape)), loss=loss, model=one(1), metrics=["mae"])
        learner = task.learner(Setting(lr=0.01), 0)
        found.append((learner.train(9), learner.evaluate("test")))
    assert found[0] == found[1]


def test_the_clipped_cross_entropy_is_that_of_cut_probabilities():
    outputs = torch.tensor([[0.0, 1.0, 2.0], [40.0, 0.0, 0.0], [40.0, 0.0, 0.0]], requires_grad=True)
    targets = torch.tensor([1, 1, 0])
    probabilities = torch.softmax(outputs.detach().double(), 1).clip(1e-7, 1 - 1e-7)
    expected = -probabilities[range(3), targets].log().mean()
    found = clipped_cross_entropy(outputs, targets)
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert outputs.grad[0].abs().min() > 0
    assert outputs.grad[1:].abs().max() == 0, "what is cut teaches nothing"


def test_metrics_are_what_their_names_say():
    outputs, targets = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]]), torch.tensor([0, 1, 1])
    value = {
        name: figure.finish(figure.function(outputs, targets).item())
        for name, figure in METRICS.items()
        if name in ("accuracy", "error", "perplexity", "cross_entropy")
    }
    p = torch.softmax(outputs, 1)[range(3), targets]
    assert value["accuracy"] == pytest.approx(2 / 3)
    assert value["error"] == pytest.approx(1 / 3)
    assert value["cross_entropy"] == pytest.approx(-p.log().mean().item(), rel=1e-6)
    assert value["perplexity"] == pytest.approx(1 / p.prod().item() ** (1 / 3), rel=1e-6)
    y, z = torch.tensor([[1.0], [-2.0], [0.5]]), torch.tensor([0.0, 1.0, 1.0])
    assert METRICS["accuracy"].function(y, z).item() == pytest.approx(1 / 3)
    assert METRICS["rmse"].finish(METRICS["mse"].function(y, z).item()) == pytest.approx(
        math.sqrt((1 + 9 + 0.25) / 3)
    )
    assert METRICS["mae"].function(y, z).item() == pytest.approx((1 + 3 + 0.5) / 3)
    lower = {name: figure.measure.lower_is_better for name, figure in METRICS.items()}
    assert [name for name, is_lower in lower.items() if not is_lower] == ["accuracy"]


def test_perplexity_is_that_of_the_whole_part():
    learner = blobs(metrics=["perplexity"]).learner(Setting(lr=0.1), 0)
    found = [learner.train(5), learner.evaluate("test")]
    for figures in found:
        assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]))


def test_a_language_model_is_measured_over_all_positions():
    tokens = np.random.RandomState(0).randint(5, size=(40, 7))
    task = Task.from_torch(
        "tokens",
        partial(models.Recurrent, 5, 8),
        (tokens[:, :-1], tokens[:, 1:]),
        "cross_entropy",
        ["accuracy"],
    )
    learner = task.learner(Setting("adam", lr=0.01), 0)
    assert learner.train(1)["loss"] == pytest.approx(math.log(5), rel=0.2)
    assert 0 < learner.evaluate("validation")["accuracy"] < 0.6
    with pytest.raises(StudyError, match="4 outputs, so labels are 0 to 3; the train set has 4 too"):
        Task.from_torch(
            "few", lambda: nn.Sequential(nn.Embedding(5, 4)), (tokens[:, :-1], tokens[:, 1:]), "cross_entropy"
        ).learner(Setting(), 0)


# -- arrays --------------------------------------------------------------------------------------


def test_arrays_are_standardised_by_the_training_part_alone():
    X, y = load_diabetes(return_X_y=True, scaled=False)
    X[:, 3] = 7
    made = Task.from_arrays(X, y, name="diabetes", split_seed=3)
    found = made.learner.data
    np.testing.assert_allclose(found.train.inputs.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(found.train.inputs.std(axis=0), [1, 1, 1, 0, *[1] * 6], atol=1e-5)
    assert found.train.targets.std() == pytest.approx(1, abs=1e-5)
    assert abs(found.test.inputs.mean(axis=0)).max() > 1e-3, "test statistics are its own"
    order = np.random.RandomState(3).permutation(len(y))
    mean, deviation = X[order[:354]].mean(axis=0), X[order[:354]].std(axis=0)
    deviation[3] = 1
    np.testing.assert_allclose(found.test.inputs, (X[order[398:]] - mean) / deviation, rtol=1e-3, atol=1e-4)
    learner = made.learner(Setting("adam", lr=0.01, batch_size=32), 0)
    assert {measure.name for measure in made.measures} == {"loss", "mae"}
    learner.train(100)
    assert learner.evaluate("validation")["loss"] < 0.9, "better than the mean"


@pytest.mark.parametrize(
    "labels",
    [lambda y: y, lambda y: np.array(["a", "b", "c"])[y], lambda y: y.tolist(), lambda y: y * 10 - 5],
)
def test_labels_of_any_kind_are_classes(labels):
    X, y = load_iris(return_X_y=True)
    made = Task.from_arrays(X, labels(y))
    learner = made.learner(Setting("adam", lr=0.03, batch_size=16), 0)
    learner.train(80)
    assert learner.evaluate("test")["accuracy"] > 0.8


def test_sparse_arrays_give_the_figures_of_dense_ones():
    rng = np.random.RandomState(0)
    X = rng.poisson(0.3, size=(200, 30)).astype(float)
    y = (X[:, :5].sum(axis=1) > 1).astype(int)
    found = []
    for given in (scipy.sparse.csr_matrix(X), scipy.sparse.csc_array(X)):
        made = Task.from_arrays(given, y)
        learner = made.learner(Setting("adam", lr=0.03, batch_size=16), 0)
        found.append((made.version, learner.train(30), learner.evaluate("test")))
    dense = Task.from_arrays(X, y).learner.data
    held = Task.from_arrays(scipy.sparse.csr_matrix(X), y).learner.data.train.inputs
    assert abs(held).max() == 1
    task = Task.from_torch(
        "dense",
        partial(mlp, 30, 2),
        tuple(
            (
                getattr(Task.from_arrays(scipy.sparse.csr_matrix(X), y).learner.data, n).inputs.toarray(),
                getattr(dense, n).targets,
            )
            for n in ("train", "validation", "test")
        ),
        "cross_entropy",
        ["accuracy"],
    )
    learner = task.learner(Setting("adam", lr=0.03, batch_size=16), 0)
    assert found[0][1:] == found[1][1:] == (learner.train(30), learner.evaluate("test"))
    assert found[0][2]["accuracy"] > 0.6


@pytest.mark.parametrize(
    ("y", "values", "message"),
    [
        (np.arange(100), {}, 'y holds 100 different integers.*kind="regression"'),
        (np.zeros(100, int), {}, "a single class"),
        (
            np.arange(100),
            {"kind": "regresion"},
            "kind must be 'classification' or 'regression', not 'regresion'",
        ),
        (np.arange(99) % 3, {}, "X of data has 100 examples, y has 99"),
    ],
)
def test_arrays_are_checked(y, values, message):
    with pytest.raises(StudyError, match=message):
        Task.from_arrays(np.random.RandomState(0).normal(size=(100, 3)), y, **values)


def test_a_kind_that_is_given_is_kept():
    X, counts = np.random.RandomState(0).normal(size=(100, 3)), np.arange(100)
    assert {m.name for m in Task.from_arrays(X, counts, kind="regression").measures} == {"loss", "mae"}
    own = Task.from_arrays(X, counts % 2, model=lambda features, outputs: nn.Linear(features, outputs))
    assert [tuple(p.shape) for p in own.learner.model().parameters()] == [(2, 3), (2,)]
    with pytest.raises(StudyError, match=r"must have shape \(examples, features\)"):
        Task.from_arrays(X[:, 0], counts % 2)


# -- versions ------------------------------------------------------------------------------------

WIDTH = 8


def wide():
    return helper(WIDTH)


def helper(width):
    return mlp(4, width, 3)


def test_a_version_changes_with_whatever_decides_the_outcome(monkeypatch):
    version = blobs(model=wide).version
    assert blobs(model=wide).version == version
    other = dataclasses.replace(DATA, test=Examples(DATA.test.inputs + 1e-3, DATA.test.targets))
    assert blobs(model=wide, data=other).version != version
    assert blobs(model=wide, loss=clipped_cross_entropy).version != version
    assert blobs(model=wide, metrics=["accuracy"]).version != version
    assert blobs(model=partial(mlp, 4, 8, 3)).version != version
    assert blobs(model=wide, data=part()).version != blobs(model=wide, data=part(), split_seed=1).version
    monkeypatch.setitem(wide.__globals__, "WIDTH", 9)
    changed = blobs(model=wide).version
    assert changed != version
    monkeypatch.setitem(wide.__globals__, "helper", lambda width: mlp(4, width, width, 3))
    assert blobs(model=wide).version not in (version, changed)


def test_fingerprints_tell_kinds_and_places_apart():
    class A:
        def __init__(self, x):
            self.x = x

        def __call__(self):
            return self.x

    class B(A):
        def __call__(self):
            return -self.x

    things = [
        *(1, 1.0, True, "1", b"1", None, [1], (1, 2), [1, [2]], [[1], 2], {"a": 1}, {"b": 1}, {1}, {2}),
        *(np.ones(2), np.ones((2, 1)), np.ones(2, np.float32), torch.ones(2, dtype=torch.float64) * 2),
        *(
            partial(max, 1),
            partial(max, 2),
            partial(min, 1),
            A(1),
            A(2),
            B(1),
            A,
            B,
            math,
            np.array(["a", None]),
        ),
        *(lambda x: x, lambda x: x + 1, scipy.sparse.eye(2).tocsr(), scipy.sparse.eye(3).tocsr()),
        *(DATA, DATA.train, torch.utils.data.TensorDataset(torch.ones(3)), A(1).__call__),
    ]
    prints = [fingerprint(thing) for thing in things]
    assert len(set(prints)) == len(things)
    assert prints == [fingerprint(thing) for thing in things]
    assert fingerprint(1, 2) != fingerprint((1, 2)) != fingerprint(12)

    def child(base):
        class Child(base):
            pass

        return Child

    assert fingerprint(child(A)) == fingerprint(child(A)) != fingerprint(child(B))

    def cells():
        return cells

    assert fingerprint(cells) == fingerprint(cells)


# -- files ---------------------------------------------------------------------------------------

SOURCE = """
import neighbour
from thalweg.study.task import Task

def made():
    make = lambda: neighbour.model(WIDTH)
    return Task.from_torch("mine", make, neighbour.data(), "cross_entropy", ["accuracy"], batch_size=16)

WIDTH = 8
task = made()
number = 3

def broken():
    return 1 / 0
"""
NEIGHBOUR = """
import numpy as np
from thalweg.study.learners.models import mlp

def model(width):
    return mlp(4, width, 3)

def data():
    rng = np.random.RandomState(0)
    return rng.normal(size=(60, 4)), rng.randint(3, size=60)
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    monkeypatch.delitem(__import__("sys").modules, "neighbour", raising=False)
    (tmp_path / "neighbour.py").write_text(NEIGHBOUR)
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path / "mine.py"


def test_a_task_is_loaded_from_a_file_and_found_again_by_other_processes(file):
    made, named, alone = (from_file.load(f"{file}{name}") for name in (":made", ":task", ""))
    assert made.version == named.version == alone.version
    assert tasks.get(f"{file}:task").version == made.version
    again = pickle.loads(pickle.dumps(made))
    first, second = (each.learner(Setting(lr=0.1), 0) for each in (made, again))
    assert first.train(6) == second.train(6)


def test_a_file_that_changes_while_the_study_runs_is_noticed(file):
    before = from_file.load(f"{file}:made")
    file.write_text(SOURCE.replace("WIDTH = 8", "WIDTH = 9"))
    __import__("os").utime(file, ns=(1, 1))
    with pytest.raises(StudyError, match="the task has changed while the study ran"):
        before.learner(Setting(), 0)
    after = from_file.load(f"{file}:made")
    assert after.version != before.version
    after.learner(Setting(), 0)
    file.unlink()
    with pytest.raises(StudyError, match="is gone"):
        after.learner(Setting(), 0)


@pytest.mark.parametrize("within", ["", "scale = float(data()[0].std())\n"], ids=["data", "a constant"])
def test_data_that_no_seed_fixes_is_not_taken_for_a_changed_file(file, within):
    source = SOURCE.replace("neighbour.data()", "data()").replace("neighbour.model(WIDTH)", "model()")
    file.write_text(
        f"{source.replace('task = made()', '')}\n"
        "import numpy as np\n"
        f"scale = 1.0\n"
        "def data():\n"
        "    return np.random.default_rng().normal(size=(60, 4)), np.arange(60) % 3\n"
        f"{within}"
        "def model():\n"
        "    return neighbour.model(WIDTH + 0 * int(scale))\n"
    )
    made = from_file.load(f"{file}:made")
    from_file._task_of.cache_clear()  # as in another process
    from_file.run_file.cache_clear()
    with pytest.raises(StudyError, match=r"mine\.py: its (model and )?data differ from .*: seed what"):
        made.learner(Setting(), 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (":mde", "has no 'mde'; did you mean 'made'"),
        (":number", "number of mine.py must be a Task, not int"),
        (":broken", r"broken\(\) of mine.py failed: ZeroDivisionError: division by zero \(line 14\)"),
        ("x:task", "there is no file"),
    ],
)
def test_a_file_without_the_task_is_explained(file, name, message):
    with pytest.raises(StudyError, match=message):
        tasks.get(f"{file}{name}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_of_the_kind", "mine.py failed: ModuleNotFoundError.*line 1"),
        ("x = 1\nx.y", "mine.py failed: AttributeError.*line 2"),
        ("def f(:", "mine.py failed: SyntaxError"),
        ("from thalweg.study.errors import StudyError\nraise StudyError('mine')", "^mine$"),
    ],
)
def test_a_file_that_fails_is_explained(file, source, message):
    file.write_text(source)
    with pytest.raises(StudyError, match=message):
        from_file.load(f"{file}:task")


def test_an_unknown_task_is_answered_with_the_nearest():
    with pytest.raises(StudyError, match="fashion-mnist"):
        tasks.get("fashon_mnist")


# -- built-in ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "quadratic", "logistic"])
def test_embedded_tasks_take_no_folder(name, tmp_path):
    with pytest.raises(StudyError, match="leave out folder="):
        tasks.get(name, tmp_path)


@pytest.mark.parametrize("name", ["digits", "quadratic", "logistic"])
def test_embedded_tasks_train(name):
    made = tasks.get(name)
    again = pickle.loads(pickle.dumps(made))
    learner = again.learner(Setting("adam", lr=0.01, batch_size=made.batch_size), made.seed)
    first = learner.train(1)
    for _ in range(3):
        last = learner.train(learner.steps_per_epoch)
    assert last["loss"] < first["loss"]
    assert learner.evaluate("test").keys() == {measure.name for measure in made.measures}
    assert made.optimum is None or last["loss"] > made.optimum


def test_the_quadratic_is_as_ill_conditioned_as_it_says():
    made = convex.quadratic(dimensions=20, condition=50, noise=0.5)
    hessian = made.learner.model().hessian.double()
    eigenvalues = torch.linalg.eigvalsh(hessian)
    assert (eigenvalues[-1] / eigenvalues[0]).item() == pytest.approx(50, rel=1e-3)
    assert hessian.diag().std() > 1e-3
    noise = made.learner.data().train.inputs
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=1e-6)
    assert noise.std() == pytest.approx(0.5, rel=0.1)
    assert convex.quadratic().version != made.version
    learner = convex.quadratic(condition=10).learner(Setting("sgd", lr=1.0, batch_size=1), 0)
    learner.train(300)
    assert learner.evaluate("train")["loss"] == pytest.approx(0, abs=1e-6)
    for values in ({"dimensions": 0}, {"condition": 0.5}, {"condition": math.nan}, {"noise": -1}):
        with pytest.raises(StudyError, match="at least"):
            convex.quadratic(**values)


def test_the_optimum_of_logistic_is_the_lowest_loss():
    made = tasks.get("logistic")
    train = made.learner.data().train
    X, y = train.inputs.astype(float), train.targets.astype(float)

    def loss(w):
        logits = X @ w[:-1] + w[-1]
        value = np.mean(np.logaddexp(0, logits) - y * logits) + 0.005 * w[:-1] @ w[:-1]
        slope = (1 / (1 + np.exp(-logits)) - y) / len(y)
        return value, np.append(X.T @ slope + 0.01 * w[:-1], slope.sum())

    found = scipy.optimize.minimize(loss, np.zeros(31), jac=True, method="BFGS", options={"gtol": 1e-9})
    assert made.optimum == pytest.approx(found.fun, abs=1e-10)
    learner = made.learner(Setting("momentum", lr=0.5, batch_size=369), 0)
    learner.train(400)
    assert learner.evaluate("train")["loss"] == pytest.approx(made.optimum, abs=1e-5)


def jsonl(count, seed):
    """Reviews like IMDB's, by a taste that shows in the words."""
    rng = np.random.RandomState(seed)
    words = np.array(["good", "bad", "the", "a", "film", "it's"])
    lines = []
    for label in (0, 1):
        for id in rng.permutation(count // 2).tolist():
            chosen = rng.choice(
                words, size=rng.randint(3, 9), p=[0.2 * label, 0.2 * (1 - label), 0.3, 0.2, 0.2, 0.1]
            )
            written = {
                "id": id,
                "label": label,
                "rating": 3,
                "text": "<br />" + ", ".join(chosen).title() + " \u2028!",
            }
            lines.append(json.dumps(written, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def official(monkeypatch, name, contents, **values):
    import hashlib

    checksums = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    for module in (sets, text):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, dataclasses.replace(getattr(sets, name), checksums=checksums))


@pytest.fixture
def small_text(monkeypatch, tmp_path):
    """A folder with few reviews and a short play, which count as the official files; an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    imdb = {"train.jsonl": jsonl(60, 0), "test.jsonl": jsonl(20, 1)}
    play = {"input.txt": ("First: Speak, speak!\nAll: Resolved.\n" * 200).encode()}
    official(monkeypatch, "IMDB", imdb)
    official(monkeypatch, "SHAKESPEARE", play)
    (tmp_path / "imdb").mkdir()
    for file, content in imdb.items():
        (tmp_path / "imdb" / f"{file}.gz").write_bytes(gzip.compress(content))
    (tmp_path / "input.txt").write_bytes(play["input.txt"])
    return tmp_path


def test_reviews_are_numbered_as_keras_numbers_them(small_text, monkeypatch):
    found = text._sequences(small_text, words=7, length=5)
    assert [len(p.targets) for p in (found.train, found.validation, found.test)] == [48, 12, 20]
    assert found.train.targets.shape == (48, 1)
    assert found.test.targets.ravel().tolist() == [0] * 10 + [1] * 10, "each opinion by its ids"
    texts, labels = sets.reviews(small_text)[1]
    assert labels == [0] * 10 + [1] * 10
    counts = {}
    for review in sets.reviews(small_text)[0].texts:
        for word in text._words(review):
            counts[word] = counts.get(word, 0) + 1
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    assert "it's" in ranked
    for row, review in zip(found.test.inputs, texts, strict=True):
        numbers = [1, *(ranked.index(w) + 4 if ranked.index(w) < 3 else 2 for w in text._words(review))][-5:]
        assert row.tolist() == [0] * (5 - len(numbers)) + numbers
    monkeypatch.setattr(sets, "reviews", None)  # from here on from the cache
    bags = text._bags(small_text, words=3).test.inputs
    for row, review in zip(bags.toarray(), texts, strict=True):
        assert row.tolist() == [float(word in text._words(review)) for word in ranked[:3]]


def test_numbered_reviews_that_are_damaged_are_made_anew(small_text):
    before = text.reviews(small_text)
    (kept,) = (files.cache() / "prepared").iterdir()
    kept.write_bytes(kept.read_bytes()[:-100])
    after = text.reviews(small_text)
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name])


def test_a_cache_that_cannot_be_written_is_done_without(small_text, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(text.reviews(small_text)["labels_test"]) == 20


def test_windows_of_shakespeare_follow_one_another(small_text):
    found = text._windows(small_text)
    whole = (small_text / "input.txt").read_bytes()
    characters = sorted(set(whole))
    written = bytes(characters[number] for number in found.train.inputs.ravel())
    ahead = bytes(characters[number] for number in found.train.targets.ravel())
    assert written == whole[: len(written)]
    assert ahead == whole[1 : len(written) + 1]
    assert (
        bytes(characters[n] for n in found.test.inputs.ravel())
        == whole[-(len(whole) // 20) :][: found.test.inputs.size]
    )


@pytest.mark.parametrize("name", ["imdb-cnn", "imdb-bow", "shakespeare-rnn", "shakespeare-transformer"])
def test_text_tasks_train_on_files_of_their_format(small_text, name):
    made = pickle.loads(pickle.dumps(tasks.get(name, small_text)))
    learner = made.learner(Setting("adam", lr=0.01, batch_size=4), 0)
    first = learner.train(1)
    last = learner.train(12)
    assert last["loss"] < first["loss"]
    assert learner.evaluate("validation").keys() == {measure.name for measure in made.measures}
    with pytest.raises(StudyError, match=r"neither in .*folder="):
        tasks.get("shakespeare-rnn", small_text / "imdb")


def test_a_transformer_does_not_look_ahead():
    torch.manual_seed(0)
    for made in (models.Transformer(9, 6), models.Recurrent(9)):
        characters = torch.randint(9, (2, 6))
        outputs = made(characters)
        assert outputs.shape == (2, 6, 9)
        later = characters.clone()
        later[:, 4:] = (later[:, 4:] + 1) % 9
        torch.testing.assert_close(made(later)[:, :4], outputs[:, :4])
        assert not torch.allclose(made(later)[:, 4:], outputs[:, 4:])


def test_the_autoencoder_is_mirrored_about_a_linear_code():
    made = models.autoencoder(784, 1000, 500, 250, 30)
    widths = [layer.out_features for layer in made if isinstance(layer, nn.Linear)]
    assert widths == [1000, 500, 250, 30, 250, 500, 1000, 784]
    assert [type(layer).__name__ for layer in made].count("Sigmoid") == 6
    code = next(i for i, layer in enumerate(made) if getattr(layer, "out_features", 0) == 30)
    assert isinstance(made[code + 1], nn.Linear)


def test_the_convolutions_are_as_large_as_their_courses_have_them():
    def count(made):
        return sum(p.numel() for p in made.parameters())

    assert models.convolutional()(torch.rand(2, 784)).shape == (2, 10)
    made = models.TextConvolution()
    # Keras's example: 5000 * 50 + (3 * 50 + 1) * 250 + 251 * 250 + 251
    assert count(made) == 250_000 + 37_750 + 62_750 + 251
    assert made(torch.randint(5000, (2, 400), dtype=torch.int32)).shape == (2, 1)


@pytest.mark.parametrize(
    "name", [name for name in tasks.TASKS if name not in ("digits", "quadratic", "logistic")]
)
def test_built_in_tasks_take_a_step_on_the_official_files(name, tmp_path, monkeypatch):
    folder = name.removesuffix("-cnn").removesuffix("-bow").removesuffix("-autoencoder")
    folder = "tinyshakespeare" if folder.startswith("shakespeare") else folder
    if not (SHARED / folder).exists():
        pytest.skip(f"no {folder} files in {SHARED}")
    if folder == "imdb":  # numbering all words takes a while: 500 reviews of each opinion do
        train, test = sets.reviews(SHARED)
        assert [sum(p.labels) for p in (train, test)] == [12500, 12500]
        assert len(train.texts) == len(test.texts) == 25000
        few = [sets.Reviews(p.texts[12000:13000], p.labels[12000:13000]) for p in (train, test)]
        monkeypatch.setattr(sets, "reviews", lambda folder: tuple(few))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = tasks.get(name, SHARED)
    learner = made.learner(Setting("adam", lr=0.001, batch_size=made.batch_size), 0)
    assert math.isfinite(learner.train(1)["loss"])
    assert made.version == tasks.get(name, SHARED).version


def test_every_task_says_where_its_data_come_from():
    assert tasks.get("digits").sources
    assert BLOBS.sources == {}
    assert Files("a", (), {"b": "c"}).digest != Files("a", (), {"b": "d"}).digest
