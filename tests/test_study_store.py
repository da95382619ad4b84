import threading

import pytest

from study_cases import small
from thalweg.study.errors import StudyError
from thalweg.study.store import Store

TRIAL = small().trials[0]


def finish(trial, write, status="finished"):
    write({"record": "trial"})
    write({"record": "epoch", "epoch": 1, "loss": 0.5})
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
    assert run.epochs == ({"record": "epoch", "epoch": 1, "loss": 0.5},)
    assert store.read(TRIAL) == run == store.record(TRIAL, refuse)


def test_a_diverged_run_is_settled_a_crashed_one_is_not(store):
    diverged = store.record(TRIAL, lambda trial, write: finish(trial, write, "diverged"))
    assert not diverged.finished
    assert store.record(TRIAL, refuse) == diverged
    other = small().trials[1]
    assert not store.record(other, lambda trial, write: finish(trial, write, "crashed")).settled
    assert store.record(other, finish).finished


@pytest.mark.parametrize("lost", [1, 8, 20, 40])
def test_a_file_without_its_end_or_with_a_torn_line_counts_as_not_run(store, path, lost):
    whole = store.record(TRIAL, finish)
    path.write_bytes(path.read_bytes()[: -lost - 1])  # at least the line's own end and one byte more
    assert store.read(TRIAL) is None
    assert store.record(TRIAL, finish) == whole
    assert len(path.read_text().splitlines()) == 3, "nothing of the torn file is left"


@pytest.mark.parametrize("content", [b"", b"\n", b"5\n6\n", b"{}\n{}\n", b"\x00\x00\n", b"\xff\xfe"])
def test_a_file_of_other_content_counts_as_not_run(store, path, content):
    path.write_bytes(content)
    assert store.read(TRIAL) is None
    assert store.record(TRIAL, finish).finished


def test_lines_are_kept_when_the_run_is_cut_off(store, path):
    def cut(trial, write):
        write({"record": "trial"})
        write({"record": "epoch", "epoch": 1})
        assert len(path.read_text().splitlines()) == 2, "a line is out as soon as it is written"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.record(TRIAL, cut)
    assert store.read(TRIAL) is None
    assert store.record(TRIAL, finish).finished


def test_a_trial_that_is_being_run_is_waited_for(store):
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
    second = threading.Thread(target=lambda: found.append(store.record(TRIAL, refuse)))
    second.start()
    second.join(0.2)
    assert second.is_alive(), "it waits"
    go_on.set()
    first.join(10)
    second.join(10)
    assert len(found) == 2
    assert found[0] == found[1]


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
