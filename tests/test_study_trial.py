import math

import numpy as np
import pytest
import torch

from study_cases import BLOBS, changed, load, model, small
from thalweg.study import trial
from thalweg.study.errors import StudyError
from thalweg.study.plan import CLASSICAL
from thalweg.study.task import cross_entropy, cut_cross_entropy


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(trial, "_loaded", None)


def records(one):
    found = []
    trial.run(one, found.append)
    return found


def test_a_trial_leaves_a_header_an_epoch_each_and_a_closing_record():
    one = small().trials[0]
    header, *epochs, end = records(one)
    assert header["id"] == one.id
    assert header["specification"] == one.specification
    assert header["environment"]["torch"] == torch.__version__
    assert header["environment"]["threads"] == 1
    assert [record["epoch"] for record in epochs] == [1, 2, 3]
    assert [record["step"] for record in epochs] == [5, 10, 15], "the last, partial batch is kept"
    assert end["status"] == "finished"
    assert 0 < epochs[0]["seconds"] < epochs[1]["seconds"] < epochs[2]["seconds"] == end["seconds"]
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= epochs[0].keys()
    assert {"test_loss", "test_accuracy"} <= end.keys()


def test_the_same_trial_gives_the_same_figures():
    def figures(one):
        return [{k: v for k, v in record.items() if k != "seconds"} for record in records(one)]

    first, second, other = (
        small(seeds=2, lr=[0.1], optimizers=["adam"]).trials[0],
        *small(seeds=2, lr=[0.1], optimizers=["adam"]).trials,
    )
    assert figures(first) == figures(second) != figures(other)


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
    histories = {}
    for one in small(task, CLASSICAL, lr=[0.01], seeds=2).trials:
        seen.clear()
        records(one)
        histories[one.seed, one.contestant] = list(seen)
    for seed in (0, 1):
        weights, *order = histories[seed, "sgd"]
        for name in CLASSICAL:
            torch.testing.assert_close(histories[seed, name], [weights, *order], rtol=0, atol=0)
    one, other = histories[0, "sgd"], histories[1, "sgd"]
    assert not torch.equal(one[0][0], other[0][0]), "seeds differ in weights"
    assert not torch.equal(one[1], other[1]), "and in order"
    assert not torch.equal(one[1], one[9]), "epochs are shuffled anew"


def test_every_example_counts_once_in_the_running_mean():
    # At rate 0 the weights stay, so that the mean over uneven batches is the mean over the examples.
    one = small(optimizers=["sgd"], lr=[0.0]).trials[0]
    record = records(one)[1]
    seen = load()
    swapped = changed(load=lambda: seen.__class__(seen.train, seen.train, seen.test), version="swapped")
    assert records(small(swapped, ["sgd"], lr=[0.0]).trials[0])[1]["val_loss"] == pytest.approx(
        record["loss"]
    )
    assert 0 < record["accuracy"] < 1


def test_training_is_what_a_plain_loop_does():
    one = small(optimizers=["momentum"], lr=[0.1], dialect="torch").trials[0]
    weights, order = np.random.SeedSequence(one.seed).generate_state(2).tolist()
    data = trial._tensors(one.task)
    with torch.random.fork_rng():
        torch.manual_seed(weights)
        plain = model()
    shuffle = torch.Generator().manual_seed(order)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    for record in records(one)[1:-1]:
        total = 0.0
        for batch in torch.randperm(70, generator=shuffle).split(16):
            optimizer.zero_grad()
            loss = cross_entropy(plain(data.train.inputs[batch]), data.train.targets[batch])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        assert record["loss"] == pytest.approx(total / 70, rel=1e-5)
        left = cross_entropy(plain(data.validation.inputs), data.validation.targets)
        assert record["val_loss"] == pytest.approx(left.item(), rel=1e-5)


def test_divergence_in_the_last_step_shows_in_the_evaluation():
    end = records(small(optimizers=["sgd"], lr=[1e38], batch_size=70, epochs=1).trials[0])[-1]
    assert end["reason"] == "the validation loss was not finite after epoch 1"


def test_divergence_is_an_outcome():
    header, *epochs, end = records(small(optimizers=["sgd"], lr=[1e30]).trials[0])
    assert end["status"] == "diverged"
    assert "not finite at step" in end["reason"]
    assert header
    assert all(math.isfinite(record["loss"]) for record in epochs)


def test_a_crash_is_recorded_with_its_reason():
    def broken():
        raise MemoryError("no room")

    end = records(small(changed(model=broken)).trials[0])[-1]
    assert (end["status"], end["reason"]) == ("crashed", "MemoryError: no room")


def test_data_that_is_not_to_be_had_stops_the_study():
    def absent():
        raise StudyError("the file is gone")

    with pytest.raises(StudyError, match="gone"):
        records(small(changed(load=absent)).trials[0])


def test_the_users_threads_and_random_stream_are_left_alone():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        records(small().trials[0])
        assert torch.get_num_threads() == 2
        torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    finally:
        torch.set_num_threads(threads)


def test_data_is_loaded_once_a_process():
    calls = []

    def counted():
        calls.append(1)
        return load()

    for one in small(changed(load=counted)).trials:
        records(one)
    assert len(calls) == 1


def test_training_learns():
    end = records(small(BLOBS, ["adam"], lr=[0.03], epochs=30).trials[0])[-1]
    assert end["test_accuracy"] > 0.8


def test_the_cut_cross_entropy_is_that_of_cut_probabilities():
    outputs = torch.tensor([[0.0, 1.0, 2.0], [40.0, 0.0, 0.0], [40.0, 0.0, 0.0]], requires_grad=True)
    targets = torch.tensor([1, 1, 0])
    probabilities = torch.softmax(outputs.detach().double(), 1).clip(1e-7, 1 - 1e-7)
    expected = -probabilities[range(3), targets].log().mean()
    found = cut_cross_entropy(outputs, targets)
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert outputs.grad[0].abs().min() > 0
    assert outputs.grad[1:].abs().max() == 0, "what is cut teaches nothing"
