"""Models in training: what is stepped, in which order, and what is reported."""

import dataclasses
import importlib.util
import math
import os
import random
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from study_cases import BLOBS, Setting, changed, load, model
from thalweg import Loaders
from thalweg.study.data.arrays import Examples
from thalweg.study.errors import StudyError
from thalweg.study.learners import Diverged, seeds
from thalweg.study.learners.batches import gather
from thalweg.study.learners.torch_metrics import cross_entropy
from thalweg.study.planning.plan import CLASSICAL
from thalweg.study.task import Metric, Task

keras = pytest.importorskip("keras")

DATA = load()


pytestmark = pytest.mark.usefixtures("one_thread")


def tensors(part):
    return torch.from_numpy(part.inputs), torch.from_numpy(part.targets)


# -- PyTorch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls", [(5, 5), (10,), (1, 2, 3, 4), (7, 3)])
def test_training_is_what_a_plain_loop_does(calls):
    seed = 4
    weights, order = seeds(seed)
    with torch.random.fork_rng():
        torch.manual_seed(weights)
        plain = model()
    shuffle = torch.Generator().manual_seed(order)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    inputs, targets = tensors(DATA.train)
    losses, right = [], []
    for _ in range(2):
        for batch in torch.randperm(70, generator=shuffle).split(16):
            optimizer.zero_grad()
            outputs = plain(inputs[batch])
            loss = cross_entropy(outputs, targets[batch])
            before = [p.detach().clone() for p in plain.parameters()]
            loss.backward()
            optimizer.step()
            losses.append((loss.item(), len(batch)))
            right.append((outputs.argmax(1) == targets[batch]).sum().item())

    learner = BLOBS.learner(Setting("momentum", lr=0.1), seed)
    assert learner.steps_per_epoch == 5
    taken = 0
    for steps in calls:
        figures = learner.train(steps)
        part, hits = losses[taken : taken + steps], right[taken : taken + steps]
        count = sum(size for _, size in part)
        assert figures["loss"] == pytest.approx(sum(a * n for a, n in part) / count, rel=1e-5)
        assert figures["accuracy"] == pytest.approx(sum(hits) / count, rel=1e-6)
        taken += steps
    for name, part in (("train", DATA.train), ("validation", DATA.validation), ("test", DATA.test)):
        x, y = tensors(part)
        found = learner.evaluate(name)
        assert found["loss"] == pytest.approx(cross_entropy(plain(x), y).item(), rel=1e-5)
        assert found["accuracy"] == pytest.approx((plain(x).argmax(1) == y).float().mean().item())
    gradient = math.sqrt(sum(p.grad.square().sum().item() for p in plain.parameters()))
    update = math.sqrt(
        sum(
            (p.detach() - old).square().sum().item()
            for p, old in zip(plain.parameters(), before, strict=True)
        )
    )
    assert learner.diagnostics() == pytest.approx(
        {"gradient_norm": gradient, "update_norm": update}, rel=1e-4
    )


def test_contestants_start_from_the_same_weights_and_see_the_same_order():
    seen = []

    def spied_model():
        made = model()
        seen.append([parameter.detach().clone() for parameter in made.parameters()])
        return made

    def spied_loss(outputs, targets):
        seen.append(targets.clone())
        return cross_entropy(outputs, targets)

    task = changed(model=spied_model, loss=spied_loss)
    task.learner(Setting(), 0)  # which tries a batch
    histories = {}
    for seed in (0, 1):
        for name in CLASSICAL:
            seen.clear()
            task.learner(Setting(name, lr=0.01, dialect="keras"), seed).train(10)
            histories[seed, name] = list(seen)
        for name in CLASSICAL:
            torch.testing.assert_close(histories[seed, name], histories[seed, "sgd"], rtol=0, atol=0)
    one, other = histories[0, "sgd"], histories[1, "sgd"]
    assert not torch.equal(one[0][0], other[0][0]), "seeds differ in weights"
    assert not torch.equal(one[1], other[1]), "and in order"
    assert not torch.equal(one[1], one[6]), "epochs are shuffled anew"
    assert sorted(torch.cat(one[1:6]).tolist()) == sorted(DATA.train.targets), (
        "an epoch has every example once"
    )


def noisy():
    return nn.Sequential(nn.Linear(4, 32), nn.Dropout(0.5), nn.Linear(32, 3))


def streams():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


def test_random_streams_are_the_learners_own():
    task = changed(model=noisy)
    task.learner(Setting(), 0)
    before = streams()
    alone = task.learner(Setting(lr=0.1), 7)
    expected = [alone.train(5), alone.train(5)]
    assert streams() == before
    one, other = task.learner(Setting(lr=0.1), 7), task.learner(Setting(lr=0.1), 8)
    found = []
    for _ in range(2):  # another learner and the user draw in between
        found.append(one.train(5))
        one.evaluate("validation")
        other.train(3)
        torch.rand(3)
    assert found == expected
    # A stream goes on where it stopped: ten steps are not twice the same five.
    whole = task.learner(Setting(lr=0.1), 7).train(10)
    assert whole["loss"] == pytest.approx((found[0]["loss"] + found[1]["loss"]) / 2, rel=1e-6)


def test_a_failing_step_gives_the_streams_back():
    learner = BLOBS.learner(Setting("sgd", lr=1e30), 0)
    before = streams()
    with pytest.raises(Diverged):
        learner.train(20)
    assert streams() == before


def test_divergence_names_its_step():
    steps = []

    def loss(outputs, targets):
        steps.append(1)
        return cross_entropy(outputs, targets) * (math.nan if len(steps) == 9 else 1)

    task = changed(loss=loss)
    learner = task.learner(Setting(lr=0.01), 0)
    steps.clear()
    assert math.isfinite(learner.train(5)["loss"])
    with pytest.raises(Diverged, match="the training loss was not finite at step 9, in epoch 2"):
        learner.train(60)


def test_divergence_in_the_last_step_shows_in_the_evaluation():
    learner = BLOBS.learner(Setting("sgd", lr=1e38), 0)
    learner.train(1)
    with pytest.raises(Diverged, match="the validation loss was not finite after step 1"):
        learner.evaluate("validation")


def test_the_state_is_counted_in_bytes():
    parameters = 4 * 8 + 8 + 8 * 3 + 3
    slots = {"sgd": 0, "momentum": 1, "adam": 2}
    for name, count in slots.items():
        learner = BLOBS.learner(Setting(name, lr=0.01), 0)
        learner.train(1)
        assert learner.state_bytes == 4 * parameters * count, "not the step numbers"


def test_data_is_loaded_once_a_process():
    calls = []

    def counted():
        calls.append(1)
        return load()

    task = changed(load=counted)
    for seed in range(3):
        task.learner(Setting(), seed).train(1)
    assert len(calls) == 1
    again = changed(load=counted)
    again.learner(Setting(), 0)
    assert len(calls) == 2, "another task has data of its own"


def test_evaluation_in_pieces_is_the_whole(monkeypatch):
    learner = BLOBS.learner(Setting(lr=0.1), 0)
    learner.train(5)
    whole = learner.evaluate("validation")
    monkeypatch.setattr("thalweg.study.learners.batches.EVALUATION_BATCH", 7)
    assert learner.evaluate("validation") == pytest.approx(whole, rel=1e-6)


def test_blocks_and_looks_change_nothing(monkeypatch):
    def taken():
        learner = BLOBS.learner(Setting(lr=0.1), 0)
        return learner.train(12) | learner.diagnostics()

    expected = taken()
    monkeypatch.setattr("thalweg.study.learners.batches._BLOCK", 1)
    monkeypatch.setattr("thalweg.study.learners.torch._CHECK_EVERY", 5)
    assert taken() == pytest.approx(expected, rel=1e-6)


class Twice(Dataset):
    """Items that are made when they are asked for."""

    def __init__(self, part, scale=2.0):
        self.part, self.scale = part, scale

    def __len__(self):
        return len(self.part.targets)

    def __getitem__(self, index):
        return torch.from_numpy(self.part.inputs[index]) * self.scale, int(self.part.targets[index])


def loader(part, seed, batch_size=16):
    return DataLoader(
        TensorDataset(*tensors(part)), batch_size, shuffle=True, generator=torch.Generator().manual_seed(seed)
    )


def rest(part):
    return DataLoader(TensorDataset(*tensors(part)), 9)


def each(make):
    return tuple(make(getattr(DATA, name)) for name in ("train", "validation", "test"))


LOADERS = Loaders(partial(loader, DATA.train), partial(rest, DATA.validation), partial(rest, DATA.test))


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(DATA, id="Data"),
        pytest.param(
            {name: tensors(getattr(DATA, name)) for name in ("test", "validation", "train")}, id="parts"
        ),
        pytest.param(
            tuple(TensorDataset(*tensors(getattr(DATA, n))) for n in ("train", "validation", "test")),
            id="sets",
        ),
        pytest.param(tuple(Twice(getattr(DATA, n)) for n in ("train", "validation", "test")), id="made"),
        pytest.param(LOADERS, id="loaders"),
    ],
)
def test_data_in_every_shape_trains(given):
    task = Task.from_torch("t", model, given, "cross_entropy", ["accuracy", "error"], batch_size=16)
    assert task.version == Task.from_torch("t", model, given, "cross_entropy", ["accuracy", "error"]).version
    first, second = (task.learner(Setting("adam", lr=0.03), 0) for _ in range(2))
    assert first.steps_per_epoch == 5
    figures = first.train(50)
    assert figures == second.train(50)
    assert figures["error"] == pytest.approx(1 - figures["accuracy"])
    found = first.evaluate("validation")
    assert first.evaluate("test")["accuracy"] > 0.6
    assert found["accuracy"] > 0.6
    assert found.keys() == {"loss", "accuracy", "error"} == {measure.name for measure in task.measures}


def test_arrays_and_sets_of_them_are_the_same_task():
    one = Task.from_torch("t", model, each(tensors), "cross_entropy")
    other = Task.from_torch("t", model, each(lambda part: TensorDataset(*tensors(part))), "cross_entropy")
    assert one.version == other.version


@pytest.mark.parametrize("given", [(DATA.train.inputs, DATA.train.targets), Twice(DATA.train)])
def test_one_set_is_split_without_overlap(given):
    seen = []
    task = Task.from_torch("t", model, given, "cross_entropy", split=(0.5, 0.3, 0.2), batch_size=8)
    learner = task.learner(Setting(), 0)
    for part in ("train", "validation", "test"):
        seen.append([tuple(row) for inputs, _ in learner._source.subset(part) for row in inputs.tolist()])
    assert [len(part) for part in seen] == [35, 21, 14]
    assert len({row for part in seen for row in part}) == 70


def test_a_set_that_knows_its_classes_is_split_by_them():
    given = Twice(DATA.train)
    given.targets = [0] * 60 + [1] * 10
    found = gather(given, (0.8, 0.1, 0.1), 0)
    assert [sum(i >= 60 for i in part.indices) for part in (found.train, found.validation, found.test)] == [
        *(8, 1, 1)
    ]
    given.targets = "no classes"
    assert len(gather(given, (0.8, 0.1, 0.1), 0).train) == 56


def test_a_loader_that_decides_its_batch_size_says_so():
    fixed = dataclasses.replace(LOADERS, train=lambda seed: loader(DATA.train, seed))
    task = Task.from_torch("t", model, fixed, "cross_entropy", batch_size=16)
    assert task.learner(Setting(batch_size=16), 0).steps_per_epoch == 5
    with pytest.raises(StudyError, match=r"train\(seed, batch_size\)"):
        task.learner(Setting(batch_size=32), 0)
    free = Task.from_torch("t", model, LOADERS, "cross_entropy", batch_size=16)
    assert free.learner(Setting(batch_size=32), 0).steps_per_epoch == 3


def test_a_loader_without_a_length_is_counted():
    def batches(seed):
        return iter(loader(DATA.train, seed))

    class Endless:
        def __init__(self, seed):
            self.seed = seed

        def __iter__(self):
            return batches(self.seed)

    task = Task.from_torch(
        "t", model, dataclasses.replace(LOADERS, train=Endless), "cross_entropy", batch_size=16
    )
    learner = task.learner(Setting(), 0)
    assert learner.steps_per_epoch == 5
    assert learner.train(11)["loss"] > 0


class Summed(nn.Module):
    """Two inputs, and outputs in a tuple."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, a, b):
        return self.layer(a), b.sum(-1)


def test_inputs_and_outputs_of_several_tensors():
    x, y = torch.linspace(-1, 2, 80).view(20, 4), torch.linspace(0, 1, 20)

    def batches(*_):
        return [((x[:12], x[:12]), y[:12]), ((x[12:], x[12:]), y[12:])]

    task = Task.from_torch(
        "several",
        Summed,
        Loaders(batches, batches, batches),
        lambda outputs, targets: (outputs[0][:, 0] - targets).square().mean(),
        [Metric("second", lambda outputs, targets: outputs[1].mean(), "higher")],
    )
    learner = task.learner(Setting(batch_size=32), 0)
    learner.train(2)
    assert learner.diagnostics()["second"] == pytest.approx(x.sum(-1).mean().item(), abs=1e-6)
    assert learner.evaluate("test")["second"] == pytest.approx(x.sum(-1).mean().item(), abs=1e-6)


def macro_f1(outputs, targets):
    assert outputs.device.type == "cpu"
    return f1_score(targets.flatten(), outputs.argmax(-1).flatten(), average="macro")


def given_as(kind):
    if kind == "tokens":  # targets of several positions each, beside outputs of three axes
        fold = partial(map_parts, lambda x: x.reshape(-1, 2, *x.shape[1:]))
        return fold(DATA), lambda: model()
    return {"arrays": DATA, "loaders": LOADERS, "sets": each(Twice)}[kind], model


def map_parts(function, data):
    return dataclasses.replace(
        data, **{n: Examples(*map(function, getattr(data, n))) for n in ("train", "validation", "test")}
    )


@pytest.mark.parametrize("kind", ["arrays", "loaders", "sets", "tokens"])
def test_a_metric_of_ones_own_sees_the_whole_part(kind, monkeypatch):
    monkeypatch.setattr("thalweg.study.learners.batches.EVALUATION_BATCH", 3)
    given, make = given_as(kind)
    calls = []

    def counted(outputs, targets):
        calls.append(len(targets))
        return macro_f1(outputs, targets)

    metrics = ["accuracy", Metric("f1", counted, "higher"), Metric("blocks", macro_f1, "higher", mean=True)]
    task = Task.from_torch("whole", make, given, "cross_entropy", metrics, batch_size=16)
    learner = task.learner(Setting(lr=0.1), 0)
    calls.clear()
    found = learner.evaluate("validation")
    count = 10 if kind == "tokens" else 20
    assert calls == [count], "it is called once"
    outputs, targets = (
        torch.cat([learner._model(x) for x, _ in learner._source.subset("validation")]),
        torch.cat([torch.as_tensor(y) for _, y in learner._source.subset("validation")]),
    )
    assert found["f1"] == pytest.approx(macro_f1(outputs.detach(), targets))
    assert abs(found["f1"] - found["blocks"]) > 1e-3, "means of blocks are another figure"
    assert found["accuracy"] == pytest.approx((outputs.argmax(-1) == targets).double().mean().item())
    learner.train(6)
    calls.clear()
    assert "f1" not in learner.train(2)
    assert not calls, "nothing but training is timed"
    learner.diagnostics()
    assert calls == [32], "two batches"


def test_metrics_of_training_are_of_all_steps_since_the_last_time(monkeypatch):
    monkeypatch.setattr("thalweg.study.learners.torch._CHECK_EVERY", 2)
    seen = []
    whole = Metric("whole", lambda o, t: seen.append(len(t)) or 0.5, "higher")
    task = Task.from_torch("all", model, DATA, "cross_entropy", [whole], batch_size=16)
    learner = task.learner(Setting(lr=0.1), 0)
    seen.clear()
    for steps in (5, 3):
        learner.train(steps)
        assert learner.diagnostics()["whole"] == 0.5
    assert seen == [70, 48]


def test_outputs_that_cannot_be_concatenated_are_named():
    def batches(*_):
        return [(torch.ones(2, width, 4), torch.zeros(2, width, dtype=torch.int64)) for width in (3, 5)]

    given = Loaders(batches, batches, batches)
    for mean in (False, True):
        metric = Metric("first", lambda o, t: o.mean(), "higher", mean=mean)
        task = Task.from_torch("widths", model, given, "cross_entropy", [metric])
        learner = task.learner(Setting(batch_size=32), 0)
        if mean:
            assert math.isfinite(learner.evaluate("test")["first"])
            continue
        with pytest.raises(StudyError, match=r"metric first needs all outputs at once.*mean=True"):
            learner.evaluate("test")


# -- Keras ---------------------------------------------------------------------------------------


def keras_model():
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


CROSS_ENTROPY = "sparse_categorical_crossentropy"


def keras_task(metrics=("accuracy",)):
    return Task.from_keras("blobs", keras_model, DATA, CROSS_ENTROPY, metrics, batch_size=16)


def softmax_loss(weights, inputs, targets):
    a, b, c, d = (torch.tensor(np.array(w), requires_grad=True) for w in weights)
    outputs = torch.relu(inputs @ a + b) @ c + d
    return cross_entropy(outputs, targets), (a, b, c, d)


def values(learner):
    return learner._weights()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_keras_training_is_what_a_plain_loop_does():
    learner = keras_task().learner(Setting("sgd", lr=0.1), 4)
    weights = values(learner)
    shuffle = np.random.RandomState(seeds(4)[1])
    inputs, targets = tensors(DATA.train)
    total = 0.0
    for _ in range(2):
        order = shuffle.permutation(70)
        for start in range(0, 70, 16):
            batch = order[start : start + 16]
            loss, leaves = softmax_loss(weights, inputs[batch], targets[batch])
            loss.backward()
            gradient = math.sqrt(sum(p.grad.square().sum().item() for p in leaves))
            weights = [(p - 0.1 * p.grad).detach().numpy() for p in leaves]
            total += loss.item() * len(batch)
    assert learner.steps_per_epoch == 5
    first, second = learner.train(3), learner.train(7)
    seen = 48
    assert first["loss"] * seen + second["loss"] * (140 - seen) == pytest.approx(total, rel=1e-4)
    for found, expected in zip(values(learner), weights, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    norms = learner.diagnostics()
    assert norms == pytest.approx({"gradient_norm": gradient, "update_norm": 0.1 * gradient}, rel=1e-3)
    for found, expected in zip(values(learner), weights, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)  # diagnostics() left them alone
    validation = learner.evaluate("validation")
    expected, _ = softmax_loss(weights, *tensors(DATA.validation))
    assert validation["loss"] == pytest.approx(expected.item(), rel=1e-4)
    assert learner.evaluate("test").keys() == {"loss", "accuracy"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_keras_contestants_share_weights_and_seeds_do_not():
    task = keras_task()
    before = streams()
    one, same, other = (
        task.learner(Setting("sgd"), 0),
        task.learner(Setting("adam"), 0),
        task.learner(Setting("sgd"), 1),
    )
    assert streams() == before
    for a, b in zip(values(one), values(same), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(values(one)[0], values(other)[0])
    parameters = 4 * 8 + 8 + 8 * 3 + 3
    same.train(1)
    assert same.state_bytes == 8 * parameters, "two float32 slots; not the step number or the learning rate"
    assert streams() == before


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_keras_divergence_is_raised():
    learner = keras_task().learner(Setting("sgd", lr=1e30), 0)
    with pytest.raises(Diverged, match="in epoch 1"):
        learner.train(5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "sparse_categorical_crossentropi"}, "did you mean 'sparse_categorical_crossentropy'"),
        ({"metrics": ["acuracy"]}, "did you mean 'accuracy'"),
        ({"metrics": ["accuracy", "accuracy"]}, "two measures are named 'accuracy'"),
        ({"data": (DATA.train.inputs, DATA.train.targets[:-1])}, "has 70 examples, y has 69"),
        ({"model": keras_model}, None),
    ],
)
def test_keras_tasks_are_checked(change, message):
    values = {"loss": CROSS_ENTROPY, "data": DATA, "model": keras_model} | change
    if message is None:
        Task.from_keras("t", **values)
        return
    with pytest.raises(StudyError, match=message):
        Task.from_keras("t", **values)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_keras_learners_are_checked():
    high = dataclasses.replace(DATA, test=Examples(DATA.test.inputs, DATA.test.targets + 5))
    task = Task.from_keras("high", keras_model, high, CROSS_ENTROPY)
    with pytest.raises(StudyError, match="3 outputs, so labels are 0 to 2; the test set has 5, 6, 7 too"):
        task.learner(Setting(), 0)
    none = partial(keras.Sequential, [keras.Input((4,)), keras.layers.Flatten()])
    with pytest.raises(StudyError, match="no parameters to train"):
        Task.from_keras("none", none, DATA, "mse").learner(Setting(), 0)
    with pytest.raises(StudyError, match=r"must be a keras\.Model"):
        Task.from_keras("no model", lambda: 3, DATA, "mse").learner(Setting(), 0)
    with pytest.raises(StudyError, match="the loss is nan before the first step"):
        Task.from_keras("nan", keras_model, DATA, lambda t, y: keras.ops.mean(y) * math.nan).learner(
            Setting(), 0
        )


def half(targets, outputs):
    return 0.5 * keras.ops.mean(outputs, -1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_keras_metrics_of_ones_own():
    task = keras_task(
        metrics=[
            CROSS_ENTROPY,
            Metric("half", half, "lower"),
            Metric("hits", keras.metrics.SparseCategoricalAccuracy(), "higher"),
        ]
    )
    assert [measure.lower_is_better for measure in task.measures] == [True, True, True, False]
    learner = task.learner(Setting("sgd", lr=0.01), 0)
    figures = learner.train(5)
    figures |= {name: value for name, value in learner.diagnostics().items() if "norm" not in name}
    assert figures["half"] == pytest.approx(1 / 6, rel=1e-5)
    assert figures[CROSS_ENTROPY] == pytest.approx(figures["loss"], rel=1e-5)
    assert 0 <= figures["hits"] <= 1
    assert learner.evaluate("validation").keys() == figures.keys()


def keras_f1(targets, outputs):
    return f1_score(np.asarray(targets), np.asarray(outputs).argmax(-1), average="macro")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_keras_metrics_see_the_whole_part(monkeypatch):
    monkeypatch.setattr("thalweg.study.learners.keras.EVALUATION_BATCH", 3)
    hits = Metric("recall", keras.metrics.Recall(class_id=1), "higher")
    one_hot = map_parts(lambda x: np.eye(3, dtype=np.float32)[x] if x.ndim == 1 else x, DATA)

    def f1(targets, outputs):
        return keras_f1(np.asarray(targets).argmax(-1), outputs)

    task = Task.from_keras(
        "whole", keras_model, one_hot, "categorical_crossentropy", [Metric("f1", f1, "higher"), hits]
    )
    learner = task.learner(Setting("sgd", lr=0.1), 0)
    on_the_way = []
    for steps in (6, 2):
        figures = learner.train(steps)
        assert figures.keys() == {"loss", "recall"}
        on_the_way.append(figures["recall"])
        found = learner.diagnostics()
        seen = np.unique(np.concatenate(learner._trained_on))
        outputs = learner._model.predict(DATA.train.inputs[seen], verbose=0)
        assert found["f1"] == pytest.approx(keras_f1(DATA.train.targets[seen], outputs))
    outputs = learner._model.predict(DATA.validation.inputs, verbose=0)
    found = learner.evaluate("validation")
    assert found["f1"] == pytest.approx(keras_f1(DATA.validation.targets, outputs))
    of_class = DATA.validation.targets == 1
    assert found["recall"] == pytest.approx((outputs[of_class, 1] > 0.5).mean())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_keras_metrics_of_training_are_those_of_one_fit():
    """A figure with a state, over steps that are taken in two pieces."""
    auc = Metric("auc", keras.metrics.AUC(), "higher")
    binary = map_parts(lambda x: (x == 1).astype(np.float32)[:, None] if x.ndim == 1 else x, DATA)

    def make():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])

    learner = Task.from_keras("auc", make, binary, "binary_crossentropy", [auc]).learner(
        Setting("sgd", lr=0.0, batch_size=16), 0
    )
    found = learner.train(5)
    assert found == pytest.approx(learner.evaluate("train"), rel=1e-5), "the weights do not move"
    assert learner.train(5) == pytest.approx(found, rel=1e-5)


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_keras_on_another_back_end(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    if "THALWEG_INNER" in os.environ:
        pytest.skip("runs in the outer process")
    done = subprocess.run(
        [
            sys.executable,
            *("-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-k", "keras"),
            str(Path(__file__)),
        ],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTEST_ADDOPTS": "", "THALWEG_INNER": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
