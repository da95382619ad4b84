import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from joblib.externals.loky import get_reusable_executor

from study_cases import BLOBS, changed
from thalweg.cli import main as cli
from thalweg.study.contestant import Contestant
from thalweg.study.errors import StudyError
from thalweg.study.planning.budget import Length
from thalweg.study.planning.specification import Trial
from thalweg.study.running import engine as engines
from thalweg.study.running.engine import Engine
from thalweg.study.running.store import Store
from thalweg.study.running.trial import header

# Long enough to be stopped in the middle, short enough to be run to its end.
OPTIONS = "--optimizers sgd,adam --lr 0.01,0.1 --seeds 2 --epochs 20 --jobs 2 --out"
COMMAND = [sys.executable, "-m", "thalweg", "compare", "digits", *OPTIONS.split()]
TOTAL = 2 * (2 * 2 + 2 + 2)


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path)
    found.open()
    return found


def trials(task=BLOBS, rates=(0.01, 0.1), seeds=2):
    return [
        Trial(task, Contestant(name), {"lr": lr}, Length("epochs", 1), 16, seed, "final")
        for seed in range(seeds)
        for name in ("sgd", "adam")
        for lr in rates
    ]


def run(store, which, **engine):
    return list(Engine(**engine).run(which, store))


def outcomes(which, store):
    """All figures of trials but the times."""
    return [
        [{k: v for k, v in record.items() if k != "seconds"} for record in (*found.evaluations, found.end)]
        for found in (store.read(trial) for trial in which)
    ]


def test_one_process_and_several_find_the_same(tmp_path):
    found = []
    for jobs in (1, 2):
        store = Store(tmp_path / str(jobs))
        store.open()
        assert {r.header["id"] for r in run(store, trials(seeds=1), jobs=jobs)} == {
            t.id for t in trials(seeds=1)
        }
        found.append(outcomes(trials(seeds=1), store))
    assert found[0] == found[1]


def test_processes_wait_for_more_until_the_engine_is_closed(store):
    engine, which = Engine(jobs=2), trials(seeds=1)
    assert len([*engine.run(which[:2], store)]) == 2
    waiting = {*get_reusable_executor(reuse=True)._processes}
    assert len([*engine.run(which, store)]) == 4
    assert {*get_reusable_executor(reuse=True)._processes} == waiting
    engine.close()
    for pid in waiting:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert len([*engine.run(which, store)]) == 4, "it can be used again"


def test_workers_have_one_thread(store):
    (first, *_) = run(store, trials(seeds=1), jobs=2)
    assert first.header["environment"]["threads"] == 1


def test_workers_that_were_there_before_find_a_relative_folder(tmp_path, monkeypatch):
    which = trials(seeds=1)
    for name in ("one", "two"):  # the processes of the first run serve the second
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        store = Store(Path("study"))
        store.open()
        run(store, which, jobs=2)
        assert {path.stem for path in Path("study/trials").glob("*.jsonl")} == {trial.id for trial in which}


def test_what_is_done_is_not_run_again(store):
    which = trials()
    run(store, which[::2], jobs=1)
    before = {trial.id: store._path(trial.id).stat().st_mtime_ns for trial in which[::2]}
    assert len(run(store, which, jobs=1)) == len(which)
    assert before == {trial.id: store._path(trial.id).stat().st_mtime_ns for trial in which[::2]}
    assert run(store, [], jobs=1) == []


def test_diverged_and_crashed_trials_do_not_stop_the_study(store):
    which = trials(rates=[1e30, 0.1], seeds=1)[:2]
    assert [found.end["status"] for found in run(store, which, jobs=1)] == ["diverged", "finished"]


class Dies:
    """Makes learners, but the process dies at one of the rates."""

    def __init__(self, learner, rate):
        self.learner, self.rate = learner, rate

    def __call__(self, setting, seed):
        if setting.hyperparameters["lr"] == self.rate:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.learner(setting, seed)


def deadly(rate):
    return changed(learner=Dies(BLOBS.learner, rate), version=f"deadly {rate}")


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_a_trial_that_kills_its_process_is_recorded_and_the_others_go_on(store):
    which = trials(deadly(0.01), seeds=1)[:2]
    found = {r.header["id"]: r.end for r in run(store, which, jobs=2)}
    assert [found[trial.id]["status"] for trial in which] == ["memory", "finished"]
    assert found[which[0].id]["reason"] == "the process was killed, perhaps because memory ran out"
    (alone,) = run(store, which[:1], jobs=2)
    assert alone.end["status"] == "memory", "a single trial has a process of its own too"
    assert not store.read(which[0]).settled, "next time there may be more of it"


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_a_rehearsal_that_kills_its_process_is_explained():
    with pytest.raises(StudyError, match=r"died in the first step of a trial: .*because memory ran out"):
        Engine(jobs=2).rehearse(trials(deadly(0.01), seeds=1))


def absent():
    raise StudyError("the data is gone")


def ask():
    raise StudyError(f"Ctrl-C means {signal.getsignal(signal.SIGINT)!r}")


@pytest.mark.parametrize(("source", "message"), [(absent, "the data is gone"), (ask, "SIG_IGN")])
def test_an_error_for_the_user_comes_through_and_workers_leave_ctrl_c_to_their_parent(store, source, message):
    which = trials(changed(load=source, version=message), seeds=1)
    with pytest.raises(StudyError, match=message):
        run(store, which, jobs=2)
    with pytest.raises(StudyError, match=message):
        Engine(jobs=2).rehearse(which)


def test_a_trial_that_another_process_is_running_is_waited_for(store, monkeypatch):
    monkeypatch.setattr(engines, "POLL_INTERVAL", 0.05)
    which = trials(seeds=1)[:2]
    started, go_on = threading.Event(), threading.Event()

    def slow(trial, write):
        write(header(trial))
        started.set()
        assert go_on.wait(20)
        write({"record": "end", "status": "diverged", "reason": "by another"})

    other = threading.Thread(target=lambda: store.record(which[0], slow))
    other.start()
    assert started.wait(10)
    found = Engine(jobs=1).run(which, store)
    assert next(found).header["id"] == which[1].id, "meanwhile the rest is run"
    threading.Timer(0.3, go_on.set).start()
    assert next(found).end["reason"] == "by another"
    assert list(found) == []
    other.join()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"jobs": 0}, "jobs must be at least 1"),
        ({"jobs": -1}, "jobs must be at least 1"),
        ({"name": "dusk"}, "did you mean 'dask'"),
        ({"address": "tcp://127.0.0.1:1"}, "choose the engine dask or ray"),
        ({"name": "dask"}, "needs the scheduler's address"),
    ],
)
def test_an_engine_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(StudyError, match=message):
        Engine(**values)


@pytest.mark.parametrize(("name", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_an_engine_that_is_not_installed_is_named(store, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(StudyError, match=f"pip install {module}"):
        run(store, trials(), name=name, address="tcp://127.0.0.1:1")


# -- a cluster on the loopback interface ------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler and two workers, each a process of its own that does not see the study's folder."""
    pytest.importorskip("distributed", reason="distributed is not installed")
    folder = tmp_path_factory.mktemp("cluster")
    where = folder / "scheduler.json"
    here = str(Path(__file__).parent)
    environment = os.environ | {"PYTHONPATH": here, "PYTHONWARNINGS": "ignore"}
    started = []

    def start(*arguments):
        log = (folder / f"{len(started)}.log").open("wb")
        command = [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]]
        started.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log))
        return started[-1]

    start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(where))
    workers = [
        start("worker", "--scheduler-file", str(where), "--nthreads", "1", "--no-nanny", "--no-dashboard")
        for _ in range(2)
    ]
    until = time.monotonic() + 60
    while not where.exists() or not where.read_text().strip().endswith("}"):
        assert time.monotonic() < until
        time.sleep(0.05)

    yield json.loads(where.read_text())["address"], workers
    for process in started:
        process.kill()
        process.wait()


class Noted:
    """Makes slow learners, and notes each that it makes."""

    def __init__(self, learner, folder):
        self.learner, self.folder = learner, folder

    def __call__(self, setting, seed):
        made = self.learner(setting, seed)
        name = f"{setting.contestant} {setting.hyperparameters['lr']} {seed}"
        with (self.folder / "begun").open("a") as file:
            file.write(f"{name}\n")
        time.sleep(0.15)
        return made


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_dask_runs_the_same_plan_and_a_killed_worker_loses_nothing(tmp_path, cluster):
    address, workers = cluster
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    here.open()
    there.open()
    which = trials(seeds=4)
    (tmp_path / "notes").mkdir()
    noted = trials(changed(learner=Noted(BLOBS.learner, tmp_path / "notes")), seeds=4)
    assert [trial.id for trial in noted] == [trial.id for trial in which]
    run(there, noted[:3], jobs=1)
    begun = tmp_path / "notes" / "begun"
    begun.unlink()
    done = []
    for found in Engine("dask", address).run(noted, there):
        done.append(found.header["id"])
        if len(done) == 5:
            workers[0].kill()
    assert sorted(done) == sorted(trial.id for trial in which), "nothing is lost, nothing comes twice"
    names = begun.read_text().split("\n")[:-1]
    assert len(names) - len(set(names)) <= 1, "only what the killed worker had is begun again"
    assert not {f"{t.contestant.name} {t.hyperparameters['lr']} {t.seed}" for t in noted[:3]} & {*names}
    run(here, which, jobs=1)
    assert outcomes(which, here) == outcomes(which, there)
    before = {path: path.stat().st_mtime_ns for path in there.folder.rglob("*.jsonl")}
    assert len(run(there, noted, name="dask", address=address)) == len(which)
    assert before == {path: path.stat().st_mtime_ns for path in there.folder.rglob("*.jsonl")}
    assert len(begun.read_text().split("\n")[:-1]) == len(names), "all is done: nothing is run again"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_errors_come_from_a_cluster_too(store, cluster):
    address, _ = cluster
    with pytest.raises(StudyError, match="the data is gone"):
        run(store, trials(changed(load=absent, version="absent")), name="dask", address=address)
    with pytest.raises(StudyError, match="the data is gone"):
        Engine("dask", address).rehearse(trials(changed(load=absent, version="absent")))


def test_a_cluster_that_fails_is_told_from_a_trial_that_does(store, monkeypatch):
    def fails(self, most):
        raise RuntimeError("all workers are gone")

    monkeypatch.setattr(Engine, "_workers", fails)
    with pytest.raises(StudyError, match="the cluster failed: RuntimeError: all workers are gone"):
        run(store, trials(), name="ray")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_scheduler_that_does_not_answer_is_named(store, monkeypatch):
    pytest.importorskip("distributed", reason="distributed is not installed")
    monkeypatch.setattr(engines, "CLUSTER_TIMEOUT", 0.3)
    with pytest.raises(StudyError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        run(store, trials(), name="dask", address="tcp://127.0.0.1:9")


RAY = """
import sys
from test_study_engine import outcomes, run, trials
from pathlib import Path
from thalweg.study.running.store import Store

store = Store(Path(sys.argv[1]))
store.open()
print(len(run(store, trials(seeds=1), name="ray")), len(run(store, trials(seeds=1), name="ray")))
"""


def test_ray_runs_the_same_plan(tmp_path):
    pytest.importorskip("ray", reason="ray is not installed")
    here = str(Path(__file__).parent)
    environment = os.environ | {
        "PYTHONPATH": here,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }
    answer = subprocess.run(
        [sys.executable, "-c", RAY, str(tmp_path / "ray")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "4 4" in answer.stdout.splitlines(), answer.stderr  # Ray may have more to say
    here = Store(tmp_path / "here")
    here.open()
    run(here, trials(seeds=1), jobs=1)
    assert outcomes(trials(seeds=1), here) == outcomes(trials(seeds=1), Store(tmp_path / "ray"))


# -- stopped and gone on with -----------------------------------------------------------------------------


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
    assert len(first) < len(second) < TOTAL
    # In this process, which has torch by now. How many processes share the work decides nothing.
    assert cli.main([*COMMAND[3:], str(tmp_path), "--jobs", "1", "--resume"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"up to {TOTAL} training runs of 20 epochs, {len(second)} of them done before" in said
    third = closed(tmp_path)
    assert len(third) == TOTAL
    assert first.items() <= second.items() <= third.items(), "nothing finished is run again"


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_two_processes_on_one_folder_share_the_work(tmp_path):
    code = (
        "from study_cases import BLOBS; from thalweg.study.study import compare; "
        f"print(compare(BLOBS, ['sgd', 'adam'], out={str(tmp_path / 'study')!r}, jobs=1, budget=4).done)"
    )
    here = str(Path(__file__).parent)
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=here)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1]
    files = list(tmp_path.glob("study/trials/*.jsonl"))
    assert len(files) == int(said[0])
    assert {len(path.read_text().splitlines()) for path in files} == {1 + 3 + 1}, "each was written once"
