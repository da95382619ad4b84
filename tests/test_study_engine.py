import os
import signal
import subprocess
import sys
import time

import pytest

from study_cases import changed, small
from thalweg import cli
from thalweg.study import engine
from thalweg.study.errors import StudyError
from thalweg.study.store import Store

# Long enough to be stopped in the middle, short enough to be run to its end.
OPTIONS = "--optimizers sgd,adam --lr 0.01,0.1 --seeds 3 --epochs 30 --jobs 2 --out"
COMMAND = [sys.executable, "-m", "thalweg.cli", "compare", "digits", *OPTIONS.split()]


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path)
    found.open()
    return found


def outcomes(plan, store):
    """All figures of a study but the times."""
    runs = [store.read(trial) for trial in plan.trials]
    return [
        [{k: v for k, v in record.items() if k != "seconds"} for record in (*run.epochs, run.end)]
        for run in runs
    ]


def test_one_process_and_several_find_the_same(tmp_path):
    plan = small(seeds=1)
    found = []
    for jobs in (1, 2):
        store = Store(tmp_path / str(jobs))
        store.open()
        assert sum(1 for _ in engine.run(engine.missing(plan, store), store, jobs)) == 4
        found.append(outcomes(plan, store))
    assert found[0] == found[1]


def test_only_what_is_missing_is_run(store):
    plan = small()
    half = plan.trials[::2]
    list(engine.run(half, store, jobs=1))
    missing = engine.missing(plan, store)
    assert missing == list(plan.trials[1::2])
    list(engine.run(missing, store, jobs=1))
    assert engine.missing(plan, store) == []
    assert list(engine.run([], store, jobs=1)) == []


def test_diverged_and_crashed_trials_do_not_stop_the_study(store):
    plan = small(optimizers=["sgd"], lr=[1e30, 0.1], seeds=1)
    assert [run.end["status"] for run in engine.run(plan.trials, store, jobs=1)] == ["diverged", "finished"]


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_explained(store):
    plan = small(changed(load=killed, version="killed"), seeds=1)
    with pytest.raises(StudyError, match="killed, perhaps for want of memory"):
        list(engine.run(plan.trials, store, jobs=2))


def absent():
    raise StudyError("the data is gone")


def test_an_error_for_the_user_comes_through_from_a_worker(store):
    plan = small(changed(load=absent, version="absent"), seeds=1)
    with pytest.raises(StudyError, match="the data is gone"):
        list(engine.run(plan.trials, store, jobs=2))


def ask():
    raise StudyError(f"Ctrl-C means {signal.getsignal(signal.SIGINT)!r}")


def test_workers_leave_ctrl_c_to_their_parent(store):
    plan = small(changed(load=ask, version="ask"), seeds=1)
    with pytest.raises(StudyError, match="SIG_IGN"):
        list(engine.run(plan.trials, store, jobs=2))


@pytest.mark.parametrize("jobs", [0, -1])
def test_a_count_below_one_is_refused(store, jobs):
    with pytest.raises(StudyError, match="jobs must be at least 1"):
        list(engine.run(small().trials, store, jobs))


def closed(folder):
    """Trial files with a closing line, by name."""
    files = {path.name: path.read_bytes() for path in folder.glob("trials/*.jsonl")}
    return {name: content for name, content in files.items() if b'"record": "end"' in content}


def gone(group, seconds):
    """Whether a process group dies out within some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def stop(folder, count, signal_number, everyone):
    """Starts the command and stops it once so many trials are through: its status and what it said.

    No process of it may be left behind.
    """
    process = subprocess.Popen(
        [*COMMAND, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 60
    while len(closed(folder)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    (os.killpg if everyone else os.kill)(process.pid, signal_number)
    _, said = process.communicate(timeout=30)
    assert gone(process.pid, 10)
    return process.returncode, said


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_a_study_that_was_killed_or_stopped_goes_on_with_the_same_command(tmp_path, capsys):
    status, _ = stop(tmp_path, 1, signal.SIGKILL, everyone=False)
    assert status == -signal.SIGKILL
    first = closed(tmp_path)
    # A terminal sends Ctrl-C to the whole group, workers included.
    status, said = stop(tmp_path, len(first) + 1, signal.SIGINT, everyone=True)
    assert (status, said) == (130, "Stopped; the same command goes on from here.\n")
    second = closed(tmp_path)
    assert len(first) < len(second) < 12
    # In this process, which has torch by now. How many processes share the work decides nothing.
    assert cli.main([*COMMAND[3:], str(tmp_path), "--jobs", "1"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"12 training runs of 30 epochs, {len(second)} of them done before" in said
    third = closed(tmp_path)
    assert len(third) == 12
    assert first.items() <= second.items() <= third.items(), "nothing finished is run again"
