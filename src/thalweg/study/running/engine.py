"""Engines: trials run in this process, in several on this machine, or on a Dask or Ray cluster.

Local processes write into the study's folder themselves, line by line. Workers of a cluster need not see
the folder: they send a trial's records back when it ends, and the process of the study writes them. Either
way the file of a running trial is locked, so that two studies in one folder share the work.
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

# Seconds between checks on trials that another process runs, and until a cluster must have answered.
POLL_INTERVAL, CLUSTER_TIMEOUT = 0.5, 15


@dataclass(frozen=True)
class Engine:
    """What runs trials.

    Attributes:
        name: "local", "dask" or "ray".
        address: of the cluster's scheduler, such as "tcp://host:8786" for Dask.
        jobs: how many local processes, one trial each at a time; with one, trials run in this process.
            None: one for every core that this process may use. A cluster runs as many as it has cores.

    Raises:
        StudyError: an unknown name, a count below one, or an address missing or not needed.
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
        """Takes the first step of each trial, and keeps nothing.

        Raises:
            StudyError: what is wrong with one of them.
        """
        try:
            with self._workers(len(trials)) as run_all:
                for _ in run_all(_rehearse, trials):
                    pass
        except TerminatedWorkerError as error:
            raise StudyError(
                f"a worker process died in the first step of a trial: {_cause(error)[1]}"
            ) from None

    def run(self, trials: Sequence[Trial], store: Store) -> Iterator[Run]:
        """Runs trials, and yields each run as it ends; also those that another process runs.

        Args:
            trials: what to run, all of one task.
            store: where their records are.

        Raises:
            StudyError: data or a file failed, or a cluster cannot be reached.
            KeyboardInterrupt: after stopping the workers. Unfinished trials are run again next time.
        """
        left = {trial.id: trial for trial in trials}
        run_once = self._local if self.name == "local" else self._remote
        while left:
            before = len(left)
            for key, run in run_once(list(left.values()), store):
                if run is not None:
                    del left[key]
                    yield run
            if len(left) == before:  # another process runs all that are left
                time.sleep(POLL_INTERVAL)

    def close(self) -> None:
        """Ends the local processes, which would wait for more work."""
        if self.name == "local":
            get_reusable_executor(reuse=True).shutdown(kill_workers=True)

    def _local(self, trials: list[Trial], store: Store) -> Iterator[tuple[str, Run | None]]:
        """Runs trials in this process or its children, which write the records themselves."""
        store = Store(store.folder.absolute())  # a child may have another working directory
        unfinished = {trial.id: trial for trial in trials}
        try:
            with self._workers(len(trials)) as run_all:
                for key, run in run_all(_record, trials, store):
                    del unfinished[key]
                    yield key, run
            return
        except TerminatedWorkerError as error:
            suspects = [trial for trial in unfinished.values() if store.begun(trial)]
            if not suspects:
                raise StudyError(
                    f"a worker process died before it began a trial: {_cause(error)[1]}; "
                    "the same command goes on from here, and needs less memory with fewer ",
                    Argument("jobs"),
                ) from None
        # One of these killed its process, and the others ended with it. Each runs once more, alone.
        for trial in suspects:
            try:
                yield _in_a_process(trial, store)
            except TerminatedWorkerError as error:
                status, reason = _cause(error)
                yield trial.id, store.record(trial, _Died(status, reason))

    def _remote(self, trials: list[Trial], store: Store) -> Iterator[tuple[str, Run | None]]:
        """Runs trials on a cluster, whose workers send the records."""
        locks: dict[str, tuple[AbstractContextManager[Any], Any]] = {}
        elsewhere: list[str] = []  # another process runs these, or has

        def claimed() -> Iterator[Trial]:
            for trial in trials:
                lock = store.locked(trial)
                file = lock.__enter__()
                locks[trial.id] = lock, file
                if file is None or _settled(store, trial.id):
                    release(trial.id)
                    elsewhere.append(trial.id)
                else:
                    yield trial

        def release(key: str) -> None:
            lock, _ = locks.pop(key)
            lock.__exit__(None, None, None)

        try:
            with self._workers(len(trials)) as run_all:
                for key, records in run_all(_collect, claimed()):
                    write_all(locks[key][1], records)
                    release(key)
                    if (run := store.read(key)) is None:
                        raise StudyError(f"a worker sent damaged records: {store.faults[key]}")
                    yield key, run
        except StudyError:
            raise
        except Exception as error:  # not a trial's failure, which would be recorded, but the cluster's
            raise StudyError(
                f"the cluster failed: {type(error).__name__}: {error}. Finished trials are kept; "
                "the same command goes on from here"
            ) from error
        finally:
            for key in list(locks):
                release(key)
        for key in elsewhere:
            yield key, store.read(key) if _settled(store, key) else None

    @contextmanager
    def _workers(self, count: int) -> Iterator[Callable[..., Iterator[Any]]]:
        """A function that calls another with each trial, where the engine runs, and yields the results."""
        jobs = self.jobs or joblib.cpu_count()
        if self.name == "local" and jobs == 1:
            yield lambda function, trials, *further: (function(trial, *further) for trial in trials)
            return
        with self._backend() as options:

            def run_all(
                function: Callable[..., Any], trials: Iterable[Trial], *further: Any
            ) -> Iterator[Any]:
                if self.name == "local":
                    assert isinstance(trials, Collection), "local trials are a list"
                    # The task is sent to every process once, not with each trial: it may hold the data.
                    task = cloudpickle.dumps(next(iter(trials)).task)
                    # At least two: joblib would run a single job in this process, which a trial may kill.
                    n_jobs = max(2, min(jobs, count))
                    options.update(n_jobs=n_jobs, initializer=_start_worker, initargs=(os.getpid(), task))
                calls = (
                    joblib.delayed(_unpacked)(function, _packed(trial, self.name != "local"), *further)
                    for trial in trials
                )
                if self.name == "ray":
                    # Its back end returns all results at once, so it gets a few calls at a time.
                    while several := list(islice(calls, 2 * joblib.effective_n_jobs(-1))):
                        yield from joblib.Parallel(n_jobs=-1, batch_size=1)(several)
                else:
                    parallel = joblib.Parallel(batch_size=1, return_as="generator_unordered", **options)
                    yield from parallel(calls)

            yield run_all

    @contextmanager
    def _backend(self) -> Iterator[dict[str, Any]]:
        """Joblib's back end of that name, and the options of `joblib.Parallel`."""
        options: dict[str, Any] = {}
        if self.name == "local":
            _start_resource_tracker()
            with joblib.parallel_config("loky", inner_max_num_threads=1):
                yield options
        elif self.name == "dask":
            with _dask(self.address) as client, joblib.parallel_config("dask", client=client):
                yield options
        else:
            _ray(self.address)
            with joblib.parallel_config("ray"):
                yield options


def _start_resource_tracker() -> None:
    """Starts joblib's resource tracker, where it is not running, so that it ignores SIGHUP.

    Closing a terminal ends all its processes; this one must outlive ours, to clean up after it.
    """
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is None or threading.current_thread() is not threading.main_thread():
        return
    before = signal.signal(hang_up, signal.SIG_IGN)
    try:
        ensure_running()
    finally:
        signal.signal(hang_up, before)


def _in_a_process(trial: Trial, store: Store) -> tuple[str, Run | None]:
    """Runs one trial in a child of its own."""
    arguments = (os.getpid(), cloudpickle.dumps(trial.task))
    child = get_reusable_executor(max_workers=1, initializer=_start_worker, initargs=arguments)
    try:
        return child.submit(_unpacked, _record, _packed(trial, False), store).result()  # type: ignore[no-any-return]
    finally:  # joblib would use it for its own trials
        child.shutdown(kill_workers=True)


def _dask(address: str | None) -> AbstractContextManager[Any]:
    """A client of a running scheduler."""
    try:
        from distributed import Client
    except ImportError:
        raise StudyError("the engine dask is not installed: pip install distributed") from None
    try:
        client: AbstractContextManager[Any] = Client(address, timeout=CLUSTER_TIMEOUT, set_as_default=False)
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

_task: Any = None  # of a local worker, from its parent


def _packed(trial: Trial, with_task: bool) -> bytes:
    """A trial as bytes: Dask would keep a larger object on one worker, and lose it with that worker."""
    if not with_task:
        trial = copy.copy(trial)  # keeps the cached hash
        object.__setattr__(trial, "task", None)
    return bytes(cloudpickle.dumps(trial))


def _unpacked(function: Callable[..., Any], packed: bytes, *further: Any) -> Any:
    trial = cloudpickle.loads(packed)
    if trial.task is None:
        object.__setattr__(trial, "task", _task)
    return function(trial, *further)


def _rehearse(trial: Trial) -> None:
    # Imports torch, which a process that only waits does not need.
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


def _start_worker(parent: int, task: bytes) -> None:
    """Runs first in a worker: ignores signals, which its parent handles, and exits with the parent."""
    global _task
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # a terminal, or a job scheduler, sends them to all
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
class _Died:
    """Writes the records of a trial whose process died."""

    status: str
    reason: str

    def __call__(self, trial: Trial, write: Callable[[Record], None]) -> None:
        from thalweg.study.running.trial import header

        write(header(trial))
        write({"record": "end", "status": self.status, "reason": self.reason})


def _cause(error: TerminatedWorkerError) -> tuple[str, str]:
    """Status and reason of a death: a process that is killed has usually used too much memory."""
    if "SIGKILL" in str(error):
        return "memory", "the process was killed, perhaps because memory ran out"
    return "crashed", "the process died of an error in compiled code"
