"""Trials run: in this process, in several on this machine, or on a Dask or Ray cluster.

Local processes write into the study's folder themselves, line by line. Workers of a cluster need not see
the folder: they send a trial's records back when it is through, and the process that holds the study writes
them. Either way whoever runs a trial holds the lock on its file, so that two studies in one folder share
the work.
"""

import copy
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import cloudpickle
import joblib
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.backend.resource_tracker import ensure_running
from joblib.externals.loky.process_executor import TerminatedWorkerError

from thalweg.errors import Argument, nearest
from thalweg.study.errors import StudyError
from thalweg.study.planning.budget import at_least_one
from thalweg.study.planning.specification import Trial
from thalweg.study.records import Record, Run
from thalweg.study.running.store import Store, write_all

ENGINES = ("local", "dask", "ray")

# Seconds between looks at trials that another process is running, and to wait for a cluster to answer.
PATIENCE, ANSWER = 0.5, 15


@dataclass(frozen=True)
class Engine:
    """What runs trials.

    Attributes:
        name: "local", "dask" or "ray".
        address: of the cluster's scheduler, such as "tcp://host:8786" for Dask.
        jobs: how many local processes, one trial each at a time; with one, trials run in this process.
            None: one for every core that this process may use. A cluster runs as many as it has cores.

    Raises:
        StudyError: an unknown name, a count below one, an address where there is none or the other way.
    """

    name: str = "local"
    address: str | None = None
    jobs: int | None = None

    def __post_init__(self) -> None:
        at_least_one("jobs", self.jobs)
        if self.name not in ENGINES:
            raise StudyError(
                f"no engine is named {self.name!r}; {nearest(self.name, ENGINES)}", argument="engine"
            )
        if self.name == "local" and self.address:
            raise StudyError(
                "an address is that of a cluster: choose the engine dask or ray", argument="address"
            )
        if self.name == "dask" and not self.address:
            raise StudyError(
                "the engine dask needs the scheduler's address, such as tcp://127.0.0.1:8786",
                argument="address",
            )

    def rehearse(self, trials: Sequence[Trial]) -> None:
        """Takes a first step of each trial, and keeps nothing.

        Raises:
            StudyError: what is wrong with one of them.
        """
        try:
            with self._workers(len(trials)) as each:
                for _ in each(_rehearse, trials):
                    pass
        except TerminatedWorkerError as error:
            raise StudyError(
                f"a worker process died in the first step of a trial: {_cause(error)[1]}"
            ) from None

    def run(self, trials: Sequence[Trial], store: Store) -> Iterator[Run]:
        """Runs trials and yields each outcome as it arrives; those of another process too.

        Args:
            trials: what to run, all of one task.
            store: where outcomes are kept.

        Raises:
            StudyError: data or a file that failed, a cluster that cannot be reached.
            KeyboardInterrupt: after stopping the workers. What is unfinished is run anew next time.
        """
        left = {trial.id: trial for trial in trials}
        way = self._local if self.name == "local" else self._remote
        while left:
            before = len(left)
            for key, run in way(list(left.values()), store):
                if run is not None:
                    del left[key]
                    yield run
            if len(left) == before:  # another process has all that is left
                time.sleep(PATIENCE)

    def close(self) -> None:
        """Ends the local processes, which else wait for more; at once, for they have nothing to tidy up."""
        if self.name == "local":
            get_reusable_executor(reuse=True).shutdown(kill_workers=True)

    def _local(self, trials: list[Trial], store: Store) -> Iterator[tuple[str, Run | None]]:
        """One pass in this process or its children, which write the records themselves."""
        store = Store(store.folder.absolute())  # a child may be older than our way to its folder
        open_ = {trial.id: trial for trial in trials}
        try:
            with self._workers(len(trials)) as each:
                for key, run in each(_record, trials, store):
                    del open_[key]
                    yield key, run
            return
        except TerminatedWorkerError as error:
            suspects = [trial for trial in open_.values() if store.begun(trial)]
            if not suspects:
                raise StudyError(
                    f"a worker process died before it began a trial: {_cause(error)[1]}; "
                    "the same command goes on from here, and needs less memory with fewer ",
                    Argument("jobs"),
                ) from None
        # One of these brought its process down, and the others with it. Each runs once more, alone.
        for trial in suspects:
            try:
                yield _in_a_process(trial, store)
            except TerminatedWorkerError as error:
                status, reason = _cause(error)
                yield trial.id, store.record(trial, _Lost(status, reason))

    def _remote(self, trials: list[Trial], store: Store) -> Iterator[tuple[str, Run | None]]:
        """One pass on a cluster, whose workers send the records."""
        held: dict[str, tuple[AbstractContextManager[Any], Any]] = {}
        others: list[str] = []

        def claims() -> Iterator[Trial]:
            for trial in trials:
                claim = store.claimed(trial)
                file = claim.__enter__()
                held[trial.id] = claim, file
                if file is None or _settled(store, trial.id):
                    release(trial.id)
                    others.append(trial.id)
                else:
                    yield trial

        def release(key: str) -> None:
            claim, _ = held.pop(key)
            claim.__exit__(None, None, None)

        try:
            with self._workers(len(trials)) as each:
                for key, records in each(_collect, claims()):
                    write_all(held[key][1], records)
                    release(key)
                    if (run := store.read(key)) is None:
                        raise StudyError(f"a worker's records are not as they should be: {store.faults[key]}")
                    yield key, run
        except StudyError:
            raise
        except Exception as error:  # a trial's own failures are records: this is the cluster's
            raise StudyError(
                f"the cluster failed: {type(error).__name__}: {error}. What is finished is kept; "
                "the same command goes on from here"
            ) from error
        finally:
            for key in list(held):
                release(key)
        for key in others:
            yield key, store.read(key) if _settled(store, key) else None

    @contextmanager
    def _workers(self, most: int) -> Iterator[Callable[..., Iterator[Any]]]:
        """A function that calls another with each trial, wherever the engine says, and yields what comes."""
        jobs = self.jobs or joblib.cpu_count()
        if self.name == "local" and jobs == 1:
            yield lambda function, trials, *further: (function(trial, *further) for trial in trials)
            return
        with self._backend() as options:

            def each(function: Callable[..., Any], trials: Iterable[Trial], *further: Any) -> Iterator[Any]:
                if self.name == "local":
                    assert isinstance(trials, Collection), "all of them are known"
                    # The task goes to every process once, not with each trial: it may hold the data.
                    task = cloudpickle.dumps(next(iter(trials)).task)
                    # Two at least, even for one trial: joblib would run it here, and it may bring us down.
                    n_jobs = max(2, min(jobs, most))
                    options.update(n_jobs=n_jobs, initializer=_settle, initargs=(os.getpid(), task))
                calls = (
                    joblib.delayed(_unpacked)(function, _packed(trial, self.name != "local"), *further)
                    for trial in trials
                )
                if self.name == "ray":
                    # Its back end answers when all is done: by the handful, so that little is lost.
                    while several := list(islice(calls, 2 * joblib.effective_n_jobs(-1))):
                        yield from joblib.Parallel(n_jobs=-1, batch_size=1)(several)
                else:
                    parallel = joblib.Parallel(batch_size=1, return_as="generator_unordered", **options)
                    yield from parallel(calls)

            yield each

    @contextmanager
    def _backend(self) -> Iterator[dict[str, Any]]:
        """Joblib's back end of that name, and how to call it."""
        options: dict[str, Any] = {}
        if self.name == "local":
            _track()
            with joblib.parallel_config("loky", inner_max_num_threads=1):
                yield options
        elif self.name == "dask":
            with _dask(self.address) as client, joblib.parallel_config("dask", client=client):
                yield options
        else:
            _ray(self.address)
            with joblib.parallel_config("ray"):
                yield options


def _track() -> None:
    """Starts the process in which joblib keeps count of what it shares, where there is none yet.

    A terminal that is closed ends all its processes; this one has to outlive ours, to tidy up after it.
    """
    number = getattr(signal, "SIGHUP", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        return
    before = signal.signal(number, signal.SIG_IGN)
    try:
        ensure_running()
    finally:
        signal.signal(number, before)


def _in_a_process(trial: Trial, store: Store) -> tuple[str, Run | None]:
    """Runs one trial in a child of its own."""
    start = (os.getpid(), cloudpickle.dumps(trial.task))
    child = get_reusable_executor(max_workers=1, initializer=_settle, initargs=start)
    try:
        return child.submit(_unpacked, _record, _packed(trial, False), store).result()  # type: ignore[no-any-return]
    finally:  # joblib, too, would take it for one of its own
        child.shutdown(kill_workers=True)


def _dask(address: str | None) -> AbstractContextManager[Any]:
    """A client of a running scheduler."""
    try:
        from distributed import Client
    except ImportError:
        raise StudyError("the engine dask is not installed: pip install distributed") from None
    try:
        client: AbstractContextManager[Any] = Client(address, timeout=ANSWER, set_as_default=False)
        return client
    except (OSError, ValueError) as error:
        raise StudyError(f"no Dask scheduler answers at {address}: {error}") from None


def _ray(address: str | None) -> None:
    """Joins a running cluster, or starts one on this machine where no address is given."""
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise StudyError("the engine ray is not installed: pip install ray") from None
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False)
        except (ConnectionError, ValueError) as error:
            raise StudyError(f"no Ray cluster answers at {address}: {error}") from None
    register_ray()


# -- in the process that runs a trial ----------------------------------------------------------------------

_task: Any = None  # a local worker's, from its parent


def _packed(trial: Trial, whole: bool) -> bytes:
    """A trial as bytes: Dask would keep a larger object on one worker alone, and lose it with that worker."""
    if not whole:
        trial = copy.copy(trial)  # with its hash, which would take longer than sending it
        object.__setattr__(trial, "task", None)
    return bytes(cloudpickle.dumps(trial))


def _unpacked(function: Callable[..., Any], packed: bytes, *further: Any) -> Any:
    trial = cloudpickle.loads(packed)
    if trial.task is None:
        object.__setattr__(trial, "task", _task)
    return function(trial, *further)


def _rehearse(trial: Trial) -> None:
    # Imports torch, which a process that only waits can do without.
    from thalweg.study.running.trial import rehearse

    rehearse(trial)


def _record(trial: Trial, store: Store) -> tuple[str, Run | None]:
    from thalweg.study.running.trial import run

    return trial.id, store.record(trial, run)


def _collect(trial: Trial) -> tuple[str, list[Record]]:
    from thalweg.study.running.trial import run

    records: list[Record] = []
    run(trial, records.append)
    return trial.id, records


def _settled(store: Store, key: str) -> bool:
    run = store.read(key)
    return run is not None and run.settled


def _settle(parent: int, task: bytes) -> None:
    """What a worker does first: leaves it to its parent to be stopped, and goes when the parent is gone."""
    global _task
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # which a terminal, or a scheduler of jobs, sends to all
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    _task = cloudpickle.loads(task)


# -- a process that died ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lost:
    """Records of a trial that took its process with it."""

    status: str
    reason: str

    def __call__(self, trial: Trial, write: Callable[[Record], None]) -> None:
        from thalweg.study.running.trial import header

        write(header(trial))
        write({"record": "end", "status": self.status, "reason": self.reason})


def _cause(error: TerminatedWorkerError) -> tuple[str, str]:
    """Status and reason of a death: who is killed from outside has mostly asked for too much memory."""
    if "SIGKILL" in str(error):
        return "memory", "the process was killed, perhaps for want of memory"
    return "crashed", "the process died of a fault in compiled code"
