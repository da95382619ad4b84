"""Every command in every kind of terminal, and under every signal.

Each is a process of its own, so there are few in `make test`.
"""

import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import thalweg
import thalweg.numpy

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="terminals and signals as POSIX has them"),
    pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full"),
]

SMALL = "compare digits --optimizers sgd --lr 0.1 --epochs 1 --seeds 1 --search-seeds 1 --no-defaults"
COMMANDS = {
    "--help": 0,
    "--version": 0,
    "advise --help": 0,
    "advise --rnn": 0,
    "advise study": 0,
    f"{SMALL} --jobs 1 --out new": 0,
    f"{SMALL} --jobs 2 --out new": 0,
    "convert state.npz x.npz --to optax --dialect optax": 0,
    "dialects": 0,
    "dialects recording.npz --set lr=0.1 --rule sgd,adam": 0,
    "explain adam": 0,
    "explain adm": 2,
    "export study x.csv": 0,
    "figure --list": 0,
    "figure none": 2,
    "kernel adam": 0,
    "path ravine --optimizers sgd --lr 0.1 --steps 3": 0,
    "play --port 0 --no-browser": 143,
    "report study --out both": 0,
    "rules": 0,
    "rules --wrong": 2,
    "watch study --once": 0,
}
# What a shell adds to a command: it ends as it does without, or with another status where output is lost.
FULL = {"> /dev/full": 1, "> /dev/full 2>&1": 1, "| true": 141}
SHELL = ["", *FULL, ">&-", "2>&-", "<&-", "<&- >&- 2>&-", "2>/dev/full", "< /dev/null > file"]
ENVIRONMENT = [
    {},
    {"LC_ALL": "C"},
    {"PYTHONIOENCODING": "ascii", "NO_COLOR": "1"},
    {"COLUMNS": "18", "TERM": "dumb"},
    {"COLUMNS": "1", "LINES": "1", "FORCE_COLOR": "1"},
    {"PYTHONUNBUFFERED": "1"},
    {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0", "LC_ALL": "POSIX"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files to read, and a study that is complete."""
    where = tmp_path_factory.mktemp("terminal")
    optimizer = thalweg.numpy.Adam()
    optimizer.update({"w": np.ones(3)}, {"w": np.ones(3)})
    optimizer.save(where / "state.npz")
    np.savez(where / "recording.npz", params=np.linspace(1, 0, 12).reshape(6, 2), grads=np.ones((5, 2)))
    run = [sys.executable, "-m", "thalweg", *SMALL.split(), "--jobs", "1", "--out", "study"]
    subprocess.run(run, cwd=where, check=True, capture_output=True)
    return where


def some(generator: random.Random, rounds: int, every: list, share: int) -> list:
    """As many of all cases as there are rounds for, one in so many; all of them in 2000 rounds."""
    return generator.sample(every, min(len(every), max(1, rounds // share)))


def test_every_command_ends_well_in_every_terminal(rounds, generator, folder):
    for words, shell in some(generator, rounds, [*product(COMMANDS, SHELL)], 9):
        environment = generator.choice(ENVIRONMENT)
        # Where something is wrong with what is asked for, nothing is printed but on standard error.
        expected = 2 if COMMANDS[words] == 2 else FULL.get(shell, COMMANDS[words])
        # A shell's status is that of the last command in a pipe: the first's is passed on beside it.
        command = shlex.join([sys.executable, "-m", "thalweg", *words.split()])
        gone = "sleep 0.1; " if shell == "| true" else ""  # before anything is printed
        started = subprocess.Popen(
            ["sh", "-c", f"{{ {gone}{command}; echo $? > status; }} {shell}"],
            cwd=folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        if words.startswith("play") and expected == 143:
            time.sleep(4)
            for pid in of_session(started.pid) - {started.pid}:
                if b"thalweg" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGTERM)
        out, err = started.communicate(timeout=120)
        wait(lambda pid: not of_session(pid), started.pid)
        status = int((folder / "status").read_text())
        (folder / "status").unlink()
        shown = (words, shell, environment, status, out[-500:], err[-3000:])
        assert status == expected, shown
        assert b"Traceback" not in out + err, shown
        assert b"Warning" not in out + err, shown
        assert err.count(b"\n") <= (expected in (1, 2)), shown
        if "ascii" in environment.values():
            assert (out + err).isascii(), shown


def of_session(leader: int) -> set[int]:
    """The living processes of a session."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = status.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            found.add(int(status.parent.name))
    return found


LONG = "compare digits --optimizers sgd,adam --lr 0.1 --epochs 150 --seeds 2 --search-seeds 1 --no-defaults"
STOPPED = "Stopped; the same command goes on from here.\n"


def test_a_study_is_stopped_by_any_signal_and_goes_on(rounds, generator, tmp_path):
    signals = ["SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE"]
    cases = [*product(["1", "2"], signals, [False, True], [1, 2])]
    for i, (jobs, name, everyone, times) in enumerate(some(generator, rounds, cases, 60)):
        folder = tmp_path / str(i)
        process = on_its_way(folder, jobs)
        if name == "SIGPIPE":  # nothing is being said, so it goes on, to be stopped otherwise
            os.kill(process.pid, signal.SIGPIPE)
            name = "SIGTERM"
        number = getattr(signal, name)
        for _ in range(times):
            (os.killpg if everyone else os.kill)(process.pid, number)
        _, said = process.communicate(timeout=60)
        shown = (jobs, name, everyone, times, process.returncode, said)
        # A second one may come before the first is answered, and then ends the process where it is.
        assert process.returncode in (128 + number, *[-number] * (times == 2)), shown
        assert said in (STOPPED, *[""] * (times == 2)), shown
        wait(lambda pid: not of_session(pid), process.pid)
        assert not [path for path in folder.glob("trials/*") if '"crashed"' in path.read_text()], shown
        again = begun(*LONG.split(), "--jobs", jobs, "--out", str(folder))
        assert "training runs of 150 epochs" in again.communicate(timeout=120)[0], shown
        assert again.returncode == 0, shown


def test_watching_is_stopped_by_any_signal(rounds, generator, tmp_path):
    process = on_its_way(tmp_path, "1")
    process.kill()
    process.communicate()
    cases = [*product(["SIGINT", "SIGTERM", "SIGHUP"], [{}, {"FORCE_COLOR": "1"}, {"COLUMNS": "18"}])]
    for name, environment in some(generator, rounds, cases, 200):
        process = begun("watch", str(tmp_path), **environment)
        assert process.stdout is not None
        if environment.get("FORCE_COLOR"):
            time.sleep(3)  # it is a terminal to rich, which draws over what it drew
        else:
            assert re.match(r"\d+ of 4 runs", process.stdout.readline())
        process.send_signal(getattr(signal, name))
        told, said = process.communicate(timeout=30)
        assert (process.returncode, said) == (128 + getattr(signal, name), ""), (name, told)
        assert ("of 4 runs" in " ".join(told.split())) >= (name == "SIGINT"), "who leaves sees where it is"


def on_its_way(folder: Path, jobs: str) -> "subprocess.Popen[str]":
    """A study in which a trial has begun."""
    process = begun(*LONG.split(), "--jobs", jobs, "--out", str(folder))
    wait(lambda where: any(where.glob("trials/*.jsonl")), folder)
    return process


def begun(*words: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "thalweg", *words],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait(for_, what):
    """Until something is so."""
    until = time.monotonic() + 60
    while not for_(what):
        assert time.monotonic() < until
        time.sleep(0.05)
