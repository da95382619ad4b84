"""Every command with words at random: an answer, or one line that says what is wrong; never a traceback."""

import argparse
import contextlib
import io
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import thalweg
import thalweg.numpy
from formula_cases import formula, spoiled
from thalweg import gallery, surfaces
from thalweg.cli import main as cli
from thalweg.study.errors import StudyError

PLAIN = """
x adam adm sgd,adam adamw@torch adam@ @ lr lr=0.1 beta_1=0.5,0.9 momentum=yes , = {x} %s -- -x é
0 1 2 -1 0.5 nan inf -inf 1e400 999999999999999999999999 1,2 -1,2 -1,1,-1,1 float32 float64 float16
keras paper torch optuna dask tcp://nowhere here here/none none.npz note.txt note.txt:task run.npz
"""
WORDS = [*PLAIN.split(), "", "a b", "x.csv", "x.png", "x.gif", "x.txt", "x\0", "\udcff"]
GOOD = """
advise --rnn --sparse
advise study
compare digits --optimizers sgd,adam --epochs 1 --trials 2 --lr 0.1,1 --jobs 1 --seeds 1 --out new
compare digits --optimizers adam --vary batch_size=16,32 --steps 9 --every 3 --search-seeds 1 --out new
convert state.npz x.npz --to optax --dialect optax
dialects
dialects recording.npz --set lr=0.1 --rule sgd,adam
explain adam --dialect keras --latex
export study x.csv --evaluations
figure --list
kernel adam --dtype float32 --dialect torch
path ravine --optimizers sgd,l_bfgs --lr 0.1 --steps 3 --out x.png --theme dark --seed 1
path x**2+y**4 --optimizers adam@keras --steps 3 --start 1,1 --window -2,2,-2,2 --out x.png --noise 0.1
play --port 0 --host 127.0.0.1 --no-browser
report study --out both
rules
watch study --once
"""
ENOUGH = "that will do"


def place(folder: Path) -> None:
    """A few files to stumble over."""
    optimizer = thalweg.numpy.Adam()
    optimizer.update({"w": np.ones(3)}, {"w": np.ones(3)})
    optimizer.save(folder / "state.npz")
    np.savez(folder / "recording.npz", params=np.linspace(1, 0, 12).reshape(6, 2), grads=np.ones((5, 2)))
    make = "compare digits --optimizers sgd --lr 0.1 --epochs 1 --seeds 1 --search-seeds 1 --no-defaults"
    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.main([*make.split(), "--jobs", "1", "--out", str(folder / "study")]) == 0
    (folder / "here").mkdir()
    (folder / "note.txt").write_text("no task = at all\n")
    (folder / "run.npz").write_bytes(b"PK\x05\x06" + bytes(18))
    (folder / "here" / "study.json").write_text('{"format": 1}')


def options(name: str) -> list[argparse.Action]:
    parser = argparse.ArgumentParser()
    cli.COMMANDS[name][1](parser)
    return parser._actions


def word(r: random.Random, action: argparse.Action) -> str:
    """What an argument may be given: what it takes, most of the time."""
    if action.choices and r.random() < 0.7:
        return str(r.choice([*action.choices]))
    if action.metavar in ("RULE", "A,B") and r.random() < 0.6:
        return ",".join(r.choices(thalweg.rules(), k=r.randint(1, 3)))
    if action.metavar == "SURFACE" and r.random() < 0.7:
        return r.choice([r.choice(surfaces.names()), formula(r, 3), spoiled(r, formula(r, 2))])
    return r.choice(WORDS)


def altered(r: random.Random, words: list[str]) -> list[str]:
    """The words with a few others among them, or with fewer."""
    for _ in range(r.choice([0, 1, 1, 1, 2])):
        at = r.randrange(1, len(words) + 1)
        words[at : at + r.randrange(2)] = r.choices(WORDS, k=r.randrange(2))
    return words


def line(r: random.Random) -> list[str]:
    """A command and its words."""
    if r.random() < 0.6:
        return altered(r, r.choice(GOOD.strip().splitlines()).split())
    name = r.choice([*cli.COMMANDS])
    words = [name]
    for action in options(name):
        # A figure or a path in full is drawn elsewhere: here a few steps are enough.
        wanted = 0.85 if not action.option_strings else 0.12
        if r.random() > wanted or "--help" in action.option_strings:
            continue
        values = [] if action.nargs == 0 else [word(r, action)]
        words += [*action.option_strings[-1:], *values]
    if name == "path":
        words += [
            "--steps",
            r.choice(["1", "3"]),
            "--trials",
            r.choice(["1", "2"]),
            *["--out", "x.png"] * (r.random() < 0.8),
        ]
    if r.random() < 0.2:
        words.insert(
            r.randrange(len(words) + 1), r.choice([*WORDS, "--help", "-h", "--version", "--stepz", "--lr"])
        )
    if r.random() < 0.05:
        words.remove(r.choice(words))
    return words


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, where nothing is trained, served, shown or drawn for long."""
    import uvicorn

    from thalweg.study.reporting import terminal
    from thalweg.study.running import engine

    folder = tmp_path / "work"
    folder.mkdir()
    place(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def enough(*_: Any, **__: Any) -> Any:
        raise StudyError(ENOUGH)

    def ended(self: Any, sockets: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", ended)
    monkeypatch.setattr("webbrowser.open", lambda url: None)
    monkeypatch.setattr(engine, "CLUSTER_TIMEOUT", 0.1)
    monkeypatch.setattr(terminal, "follow", enough)
    monkeypatch.setattr(terminal, "watch", enough)
    monkeypatch.setattr(gallery.Picture, "draw", enough)
    return folder


def test_every_command_answers_or_says_in_one_line_why_not(rounds, generator, kept):
    before = {path for path in kept.parent.rglob("*") if kept not in path.parents}
    seen: dict[Any, int] = {}
    for _ in range(rounds):
        words = line(generator)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status: Any = cli.main(words)
            except SystemExit as end:
                status = end.code
        said = err.getvalue()
        shown = (words, status, said[-2000:])
        assert status in (0, 1, 2, 130), shown
        assert "Traceback" not in said, shown
        if status == 2:
            assert said.count("\n") == 1, shown
            assert said.startswith("thalweg"), shown
        else:
            assert status != 0 or said == "", shown
        seen[status] = seen.get(status, 0) + 1
        os.chdir(kept)
    assert {path for path in kept.parent.rglob("*") if kept not in path.parents} == before
    assert seen[2] > rounds / 4, seen
    assert seen[0] > rounds / 10, seen
