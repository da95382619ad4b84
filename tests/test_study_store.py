import errno
import json
import threading

import pytest

from study_cases import changed, small
from thalweg.study import store as stores
from thalweg.study.contestant import Contestant
from thalweg.study.errors import StudyError
from thalweg.study.plan import PROTOCOL, make
from thalweg.study.store import Store

TRIAL, OTHER = small().next_trials({})[:2]


def finish(trial, write, status="finished"):
    write({"record": "trial", "id": trial.id, "specification": trial.specification})
    write({"record": "evaluation", "epoch": 1.0, "step": 5, "loss": 0.5})
    write({"record": "end", "status": status})


def refuse(trial, write):
    pytest.fail("the trial was run again")


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path / "deep" / "study")
    found.open()
    return found


@pytest.fixture
def path(store):
    return store.folder / "trials" / f"{TRIAL.id}.jsonl"


def test_a_run_is_read_back_and_not_run_again(store):
    assert store.read(TRIAL) is None
    run = store.record(TRIAL, finish)
    assert run.finished
    assert run.header["specification"] == json.loads(json.dumps(TRIAL.specification))
    assert run.evaluations == ({"record": "evaluation", "epoch": 1.0, "step": 5, "loss": 0.5},)
    assert store.read(TRIAL) == store.read(TRIAL.id) == run == store.record(TRIAL, refuse)
    assert store.results([TRIAL, OTHER]) == {TRIAL.id: run}


@pytest.mark.parametrize("status", ["diverged", "stopped"])
def test_a_diverged_run_is_settled(store, status):
    run = store.record(TRIAL, lambda trial, write: finish(trial, write, status))
    assert not run.finished
    assert store.record(TRIAL, refuse) == run


@pytest.mark.parametrize("status", ["crashed", "memory"])
def test_a_crashed_run_is_not_for_its_cause_may_be_mended(store, status):
    assert not store.record(TRIAL, lambda trial, write: finish(trial, write, status)).settled
    assert store.results([TRIAL]) == {}
    assert store.record(TRIAL, finish).finished


@pytest.mark.parametrize("lost", [1, 8, 20, 40, 300])
def test_a_file_without_its_end_or_with_a_torn_line_counts_as_not_run(store, path, lost):
    whole = store.record(TRIAL, finish)
    path.write_bytes(path.read_bytes()[: -lost - 1])  # at least the line's own end and one byte more
    assert store.read(TRIAL) is None
    assert store.begun(TRIAL)
    assert store.record(TRIAL, finish) == whole
    assert not store.begun(TRIAL)
    assert len(path.read_text().splitlines()) == 3, "nothing of the torn file is left"


@pytest.mark.parametrize("content", [b"", b"\n", b"5\n6\n", b"{}\n{}\n", b"\x00\x00\n", b"\xff\xfe"])
def test_a_file_of_other_content_counts_as_not_run(store, path, content):
    path.write_bytes(content)
    assert store.read(TRIAL) is None
    assert store.headers() == {}
    assert len(store.evaluations()) == 0
    assert store.record(TRIAL, finish).finished


def test_lines_are_kept_when_the_run_is_cut_off(store, path):
    def cut(trial, write):
        write({"record": "trial"})
        write({"record": "evaluation", "epoch": 1})
        assert len(path.read_text().splitlines()) == 2, "a line is out as soon as it is written"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.record(TRIAL, cut)
    assert store.read(TRIAL) is None
    assert store.record(TRIAL, finish).finished


def test_a_trial_that_is_being_run_is_not_run_a_second_time(store):
    started, go_on, found = threading.Event(), threading.Event(), []

    def slow(trial, write):
        write({"record": "trial"})
        started.set()
        assert go_on.wait(10)
        write({"record": "end", "status": "finished"})

    first = threading.Thread(target=lambda: found.append(store.record(TRIAL, slow)))
    first.start()
    assert started.wait(10)
    assert store.read(TRIAL) is None
    assert store.record(TRIAL, refuse) is None
    assert not store.begun(TRIAL), "it is not cut off either"
    go_on.set()
    first.join(10)
    assert found == [store.record(TRIAL, refuse)]


def test_figures_that_json_does_not_know_are_refused(store):
    with pytest.raises(ValueError, match="JSON"):
        store.record(TRIAL, lambda trial, write: write({"loss": float("nan")}))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match=r"file/study cannot be written .*--out"):
        Store(tmp_path / "file" / "study").open()


def test_a_file_that_cannot_be_written_is_named(store, path):
    path.mkdir()
    with pytest.raises(StudyError, match=r"\.jsonl cannot be written"):
        store.record(TRIAL, finish)
    with pytest.raises(StudyError, match=r"\.jsonl cannot be read"):
        store.read(TRIAL)


class Full:
    """A file on a disk with so many bytes left."""

    def __init__(self, file, left):
        self.file, self.left, self.name = file, left, file.name

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, content):
        if not self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.file.write(content[: self.left])
        self.left -= written
        return written


def test_on_a_full_disk_whole_lines_stay_and_nothing_else(store, path):
    store.record(OTHER, finish)
    whole = len(json.dumps({"record": "trial", "id": TRIAL.id})) + 1
    for left in range(whole, whole + 50):
        with store.claimed(TRIAL) as file:
            full = Full(file, left)
            stores.write_all(full, [{"record": "trial", "id": TRIAL.id}])
            with pytest.raises(StudyError, match=r"No space left on device\. What is finished is kept"):
                stores._write(full, [{"record": "evaluation", "loss": 0.123456789, "val_loss": 0.2345678901}])
        assert path.read_bytes().endswith(b"}\n")
        assert len(path.read_text().splitlines()) == 1
    assert store.record(OTHER, refuse).finished
    assert store.record(TRIAL, finish).finished


def test_all_evaluations_are_one_table(store):
    for trial, losses in ((TRIAL, (3.0, 2.0)), (OTHER, (1.0,))):

        def several(trial, write, losses=losses):
            write({"record": "trial"})
            for i, loss in enumerate(losses):
                more = {"gradient_norm": None} if i else {"val_error": 0.5, "unknown": "text"}
                write(
                    {"record": "evaluation", "epoch": i + 0.5, "step": i, "seconds": 1.5, "loss": loss} | more
                )
            write({"record": "end", "status": "finished"})

        store.record(trial, several)
    torn = store.folder / "trials" / "torn.jsonl"
    torn.write_text(
        '{"record": "trial"}\n{"record": "evaluation", "loss": 9.0}\n{"record": "evaluation", "lo'
    )
    table = store.evaluations(["loss", "error"])
    assert {*table.columns} == {
        *("id", "epoch", "step", "seconds", "loss", "error", "val_loss", "val_error"),
        *("gradient_norm", "update_norm"),
    }
    found = {(row["id"], row["loss"], row["val_error"]) for row in table.iter_rows(named=True)}
    assert found == {(TRIAL.id, 3.0, 0.5), (TRIAL.id, 2.0, None), (OTHER.id, 1.0, 0.5), ("torn", 9.0, None)}


def test_what_another_version_left_is_explained(store):
    plan = small()
    store.record(plan.next_trials({})[0], finish)
    assert store.strangers(plan) == []
    newer = small(changed(version="2"))
    store.record(newer.next_trials({})[0], finish)
    store.record(newer.next_trials({})[1], finish)
    assert store.strangers(plan) == [
        "2 trials here were run with task version 2, now 1: they are kept but not used"
    ]
    assert store.strangers(newer) == [
        "1 trial here was run with task version 1, now 2: it is kept but not used"
    ]
    other = small(changed(name="balls"))
    assert store.strangers(other) == [
        "3 trials here were run on the task blobs, not on balls: they are kept but not used"
    ]
    first = plan.next_trials({})[0].contestant.name
    mine = make(plan.task, [Contestant("amsgrad", name=first)])
    said = f"1 trial here was run with other code of {first}: it is kept but not used"
    assert said in store.strangers(mine)


def test_what_another_protocol_left_is_explained(store, path):
    store.record(TRIAL, finish)
    path.write_text(path.read_text().replace(f'"protocol": {PROTOCOL}', '"protocol": 1'))
    assert store.strangers(small()) == [
        f"1 trial here was run by an older thalweg (protocol 1, now {PROTOCOL}): it is kept but not used"
    ]
