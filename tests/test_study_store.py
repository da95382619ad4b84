import errno
import json
import os
import threading

import pytest

from study_cases import changed, small
from thalweg.study.contestant import Contestant
from thalweg.study.errors import StudyError
from thalweg.study.planning.plan import make
from thalweg.study.planning.specification import PROTOCOL
from thalweg.study.records import identify
from thalweg.study.running import store as stores
from thalweg.study.running.store import Store

TRIAL, OTHER = small().next_trials({})[:2]


EVALUATION = {"record": "evaluation", "epoch": 1.0, "step": 5, "seconds": 0.1, "loss": 0.5, "val_loss": 0.6}
END = {"record": "end", "status": "finished", "epoch": 1.0, "step": 5, "seconds": 0.1, "state_bytes": 0}


def header(trial):
    about = {"covers": {"task": dict(trial.task.covers), "contestant": {}}, "environment": {}}
    return {"record": "trial", "id": trial.id, "specification": trial.specification} | about


def finish(trial, write, status="finished"):
    write(header(trial))
    write(EVALUATION)
    write(END | {"status": status} | ({} if status == "finished" else {"reason": "by hand"}))


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
    assert run.evaluations == (EVALUATION,)
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
        write(header(trial))
        write(EVALUATION)
        assert len(path.read_text().splitlines()) == 2, "a line is out as soon as it is written"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.record(TRIAL, cut)
    assert store.read(TRIAL) is None
    assert store.record(TRIAL, finish).finished


def test_a_trial_that_is_being_run_is_not_run_a_second_time(store):
    started, go_on, found = threading.Event(), threading.Event(), []

    def slow(trial, write):
        write(header(trial))
        started.set()
        assert go_on.wait(10)
        write(EVALUATION)
        write(END)

    first = threading.Thread(target=lambda: found.append(store.record(TRIAL, slow)))
    first.start()
    assert started.wait(10)
    assert store.read(TRIAL) is None
    assert store.record(TRIAL, refuse) is None
    assert not store.begun(TRIAL), "it is not cut off either"
    go_on.set()
    first.join(10)
    assert found == [store.record(TRIAL, refuse)]


def test_the_content_of_another_trial_is_not_believed(store, path):
    """A copy under another name, and a specification that was changed by hand."""
    other = store.folder / "trials" / f"{OTHER.id}.jsonl"
    store.record(TRIAL, finish)
    whole = path.read_text()
    other.write_text(whole)
    assert store.read(OTHER) is None
    assert store.faults == {OTHER.id: f"{other}: line 1 belongs to another trial, {TRIAL.id!r}"}
    assert store.results([TRIAL, OTHER]).keys() == {TRIAL.id}
    assert store.headers().keys() == {TRIAL.id}
    assert set(store.evaluations()["id"]) == {TRIAL.id}
    other.write_text(whole.replace(TRIAL.id, OTHER.id))
    assert store.read(OTHER) is None
    assert "its hash is not the trial's id" in store.faults[OTHER.id]
    assert store.record(OTHER, finish).finished
    assert store.faults == {}, "what was run anew is right"
    path.write_text(whole.replace('"seed": 0', '"seed": 1'))
    assert store.read(TRIAL) is None


@pytest.mark.parametrize(
    ("number", "change", "said"),
    [
        (1, lambda line: "{", "line 1 is not JSON"),
        (2, lambda line: line.replace("0.5", "NaN"), "line 2 is not JSON"),
        (2, lambda line: line.replace("0.5", "1e999"), "line 2: evaluation.loss is inf, not a finite number"),
        (2, lambda line: line.replace("0.5", '"x"'), "line 2: evaluation.loss is 'x', not a finite number"),
        (2, lambda line: line.replace("0.5", "true"), "line 2: evaluation.loss is True"),
        (2, lambda line: line.replace("5,", f"{10**30},", 1), "line 2: evaluation.step is 1000"),
        (
            2,
            lambda line: line.replace("5,", "-5,", 1),
            "line 2: evaluation.step is -5, not a whole",
        ),
        (2, lambda line: line.replace('"step"', '"stop"'), "line 2: evaluation has no step"),
        (2, lambda line: line.replace('"val_loss"', '"other"'), "line 2: evaluation has no val_loss"),
        (
            2,
            lambda line: line.replace("evaluation", "end"),
            "line 2 is not an evaluation, but further lines follow",
        ),
        (2, lambda line: "[" * 100_000, "line 2 is not JSON"),
        (2, lambda line: "3", "line 2 is not a record of a trial"),
        (2, lambda line: f"{line}\n{line}"[: len(line)] + "\n\xff", "line 3 is not JSON"),
        (
            3,
            lambda line: line.replace("finished", "fine"),
            "line 3: end.status is 'fine', not one of",
        ),
        (3, lambda line: line.replace("state_bytes", "state"), "line 3: end has no state_bytes"),
        (3, lambda line: line.replace('"status"', '"reason": "\\ud800", "status"'), "line 3: end.reason is"),
    ],
)
def test_an_altered_line_is_named_and_passed_over(store, path, number, change, said):
    store.record(TRIAL, finish)
    store.record(OTHER, finish)
    lines = path.read_text().splitlines()
    lines[number - 1] = change(lines[number - 1])
    path.write_text("".join(f"{line}\n" for line in lines), encoding="latin-1")
    assert store.results([TRIAL, OTHER]).keys() == {OTHER.id}
    assert store.faults.keys() == {TRIAL.id}
    assert store.faults[TRIAL.id].startswith(f"{path}: {said}")
    assert set(store.evaluations()["id"]) == {OTHER.id}
    assert store.record(TRIAL, finish).finished
    assert store.results([TRIAL]).keys() == {TRIAL.id}
    assert store.faults == {}


@pytest.mark.skipif(os.name != "posix", reason="links and pipes as POSIX has them")
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "device"])
def test_what_is_no_file_is_neither_followed_nor_waited_for(store, path, tmp_path, kind):
    target = tmp_path / "target"
    if kind == "link":
        store.record(TRIAL, finish)
        path.rename(target)
    before = target.read_bytes() if target.exists() else None
    {
        "link": lambda: path.symlink_to(target),
        "dangling": lambda: path.symlink_to(target),
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
    }[kind]()
    why = "it is not a regular file" if kind == "pipe" else "it is a symbolic link, which is not followed"
    assert store.read(TRIAL) is None
    assert store.faults == {TRIAL.id: f"{path}: cannot be read: {why}"}
    assert store.headers() == {}
    assert len(store.evaluations()) == 0
    with pytest.raises(StudyError, match=f"cannot be written: {why}"):
        store.record(TRIAL, finish)
    assert (target.read_bytes() if target.exists() else None) == before


def test_a_probe_does_not_follow_links(store, tmp_path):
    (tmp_path / "kept").write_text("kept")
    (store.folder / "trials" / f".{os.getpid()}").symlink_to(tmp_path / "kept")
    store.open()
    assert (tmp_path / "kept").read_text() == "kept"


def test_figures_that_json_does_not_know_are_refused(store):
    with pytest.raises(ValueError, match="JSON"):
        store.record(TRIAL, lambda trial, write: write({"record": "evaluation", "loss": float("nan")}))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match=r"file/study cannot be written .*: choose another with out="):
        Store(tmp_path / "file" / "study").open()


def test_a_file_that_cannot_be_written_is_named(store, path):
    path.mkdir()
    with pytest.raises(StudyError, match=r"\.jsonl cannot be written"):
        store.record(TRIAL, finish)
    assert store.read(TRIAL) is None
    assert store.faults == {TRIAL.id: f"{path}: cannot be read: it is not a regular file"}


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
        with store.locked(TRIAL) as file:
            full = Full(file, left)
            stores.write_all(full, [{"record": "trial", "id": TRIAL.id}])
            with pytest.raises(StudyError, match=r"No space left on device\. Finished trials are kept"):
                stores._write(full, [{"record": "evaluation", "loss": 0.123456789, "val_loss": 0.2345678901}])
        assert path.read_bytes().endswith(b"}\n")
        assert len(path.read_text().splitlines()) == 1
    assert store.record(OTHER, refuse).finished
    assert store.record(TRIAL, finish).finished


def test_all_evaluations_are_one_table(store):
    for trial, losses in ((TRIAL, (3.0, 2.0)), (OTHER, (1.0,))):

        def several(trial, write, losses=losses):
            write(header(trial))
            for i, loss in enumerate(losses):
                more = {"gradient_norm": None, "val_loss": 1.0} if i else {"val_error": 0.5, "val_loss": 1.0}
                write(
                    {"record": "evaluation", "epoch": i + 0.5, "step": i, "seconds": 1.5, "loss": loss} | more
                )
            write(END)

        store.record(trial, several)
    torn = store.folder / "trials" / "torn.jsonl"
    torn.write_text(
        '{"record": "trial", "id": "torn", }\n{"record": "evaluation", "loss": 9}\n{"record": "evalu'
    )
    (torn.parent / "other.jsonl").write_bytes(store._path(TRIAL.id).read_bytes())
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
    assert store.outdated(plan) == []
    newer = small(changed(version="2"))
    store.record(newer.next_trials({})[0], finish)
    store.record(newer.next_trials({})[1], finish)
    assert store.outdated(plan) == [
        "2 trials here were run with task version 2, now 1: they are kept but not used"
    ]
    assert store.outdated(newer) == [
        "1 trial here was run with task version 1, now 2: it is kept but not used"
    ]
    other = small(changed(name="balls"))
    assert store.outdated(other) == [
        "3 trials here were run on the task blobs, not on balls: they are kept but not used"
    ]
    first = plan.next_trials({})[0].contestant.name
    mine = make(plan.task, [Contestant("amsgrad", name=first)])
    said = f"1 trial here was run with other code of {first}: it is kept but not used"
    assert said in store.outdated(mine)


def test_what_changed_since_is_named(store):
    def covering(version, **covers):
        return small(
            changed(version=version, covers={f"{k}.py": v for k, v in covers.items()} | {"data": "0"})
        )

    store.record(covering("a", models="1", settings="1", gone="1").next_trials({})[0], finish)
    assert store.outdated(covering("b", models="2", settings="1", new="1")) == [
        "1 trial here was run with task version a, now b (models.py, gone.py, new.py changed): "
        "it is kept but not used"
    ]
    same = {f"{name}.py": "1" for name in ("models", "settings", "gone")}
    other = small(changed(version="b", covers={"data": "1", **same}))
    assert "now b (data changed)" in store.outdated(other)[0]


def test_what_another_protocol_left_is_explained(store, path):
    store.record(TRIAL, finish)
    first, *rest = path.read_text().splitlines(keepends=True)
    older = json.loads(first.replace(f'"protocol": {PROTOCOL}', '"protocol": 1'))
    older["id"] = identify(older["specification"])
    path.with_name(f"{older['id']}.jsonl").write_text("".join([json.dumps(older) + "\n", *rest]))
    path.unlink()
    assert store.outdated(small()) == [
        f"1 trial here was run by an older thalweg (protocol 1, now {PROTOCOL}): it is kept but not used"
    ]
