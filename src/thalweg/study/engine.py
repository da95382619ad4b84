"""Trials run: in this process, or in several on this machine."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from thalweg.study.errors import StudyError
from thalweg.study.plan import Plan, Trial
from thalweg.study.store import Run, Store


def missing(plan: Plan, store: Store) -> list[Trial]:
    """The plan's trials that the store has no settled outcome of."""
    runs = ((trial, store.read(trial)) for trial in plan.trials)
    return [trial for trial, run in runs if run is None or not run.settled]


def run(trials: list[Trial], store: Store, jobs: int | None = None) -> Iterator[Run]:
    """Runs trials and yields each outcome as it arrives.

    Args:
        trials: what to run.
        store: where outcomes are kept.
        jobs: how many processes, one trial each at a time. None: one for every core that this process
            may use. With one, trials run in this process.

    Raises:
        StudyError: a count below one, a worker that was killed, data or a file that failed.
        KeyboardInterrupt: after stopping the workers. What is unfinished is run anew next time.
    """
    jobs = joblib.cpu_count() if jobs is None else jobs
    if jobs < 1:
        raise StudyError(f"the number of jobs must be at least 1, got {jobs}")
    if min(jobs, len(trials)) <= 1:
        yield from (_run(trial, store) for trial in trials)
        return
    try:
        with joblib.parallel_config("loky", inner_max_num_threads=1):
            parallel = joblib.Parallel(
                n_jobs=min(jobs, len(trials)),
                return_as="generator_unordered",
                batch_size=1,
                initializer=_settle,
                initargs=(os.getpid(),),
            )
            yield from parallel(joblib.delayed(_run)(trial, store) for trial in trials)
    except TerminatedWorkerError:
        raise StudyError(
            "a worker process was killed, perhaps for want of memory: "
            "the same command goes on from here; fewer --jobs need less memory"
        ) from None


def _run(trial: Trial, store: Store) -> Run:
    from thalweg.study.trial import run  # imports torch, which the process that only waits can do without

    return store.record(trial, run)


def _settle(parent: int) -> None:
    """What a worker does first: leaves Ctrl-C to its parent, and goes when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
