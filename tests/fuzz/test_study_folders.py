"""Study folders with anything in them, and studies that are killed: nothing is mixed up, no trace shown."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from study_cases import BLOBS
from thalweg.study.errors import StudyError
from thalweg.study.records import checksum, identify
from thalweg.study.reporting import export, report, terminal, wording
from thalweg.study.study import Study, compare

# In place of any value of a file.
VALUES = (
    *(None, True, 0, -1, 1.5, 1e300, -1e-300, 10**30, 10**400, float("nan"), float("inf"), "", "x", "a\nb"),
    *("\ud800", "<script>", [], {}, [[]], {"lr": 1}, ["x"], "../../etc/passwd", "0" * 16),
)
PLAN = {"optimizers": ["sgd", "adam"], "lr": [0.01, 0.1], "seeds": 2, "jobs": 1}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    compare(BLOBS, out=folder, **PLAN)
    return folder


def places(value, path=()):
    """Every place within a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def changed_value(generator, value):
    """A JSON value with another in one place, or without what is there."""
    path = generator.choice([path for path in places(value) if path])
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    if generator.random() < 0.3:
        del inner[path[-1]]
    else:
        inner[path[-1]] = generator.choice(VALUES)
    return value


def changed_bytes(generator, content):
    """Bytes with some of them changed, lost or twice there."""
    start, length = generator.randrange(len(content)), generator.choice([1, 1, 3, 40, 10_000])
    piece = content[start : start + length]
    other = generator.choice(
        [b"", generator.randbytes(length % 50), piece + piece, b"\n", b"\x00", b"[" * 9000]
    )
    return content[:start] + other + content[start + length :]


def changed_line(generator, content):
    """Lines of JSON with one value changed, or one line lost, twice there, or in another's place."""
    lines = content.splitlines(keepends=True)
    i, j = generator.randrange(len(lines)), generator.randrange(len(lines))
    kind = generator.randrange(5)
    if kind == 0:
        del lines[i]
    elif kind == 1:
        lines[i], lines[j] = lines[j], lines[i]
    elif kind == 2:
        lines.insert(i, lines[j])
    else:
        lines[i] = json.dumps(changed_value(generator, json.loads(lines[i]))).encode() + b"\n"
    return b"".join(lines)


def sealed(content):
    """A trial's lines with the checksum that they should have, if they have an end."""
    whole, _, last = content.rstrip(b"\n").rpartition(b"\n")
    try:
        end = json.loads(last)
        end["checksum"] = checksum(whole + b"\n", {key: end[key] for key in end if key != "checksum"})
    except (ValueError, TypeError):
        return content
    return whole + b"\n" + json.dumps(end).encode() + b"\n"


def forged(generator, folder, path):
    """A trial with another specification that knows its own hash, in the study's list as well."""
    first, _, rest = path.read_bytes().partition(b"\n")
    header = changed_value(generator, json.loads(first))
    try:
        header["id"] = identify(header["specification"])
    except (KeyError, TypeError, AttributeError, ValueError):
        return
    whole = sealed(json.dumps(header).encode() + b"\n" + rest)
    path.with_name(f"{header['id']}.jsonl").write_bytes(whole)
    known = folder / "study.json"
    if known.is_file():
        known.write_bytes(known.read_bytes().replace(path.stem.encode(), header["id"].encode()))


def mutate(generator, whole, folder):
    """Changes a few files of a study's folder, one way each, and says which."""
    trials = sorted((whole / "trials").iterdir())
    files = [folder / "trials" / path.name for path in trials] + [folder / "study.json"] * 3
    touched = set(generator.sample(files, generator.choice([1, 1, 2, 5])))
    for path in sorted(touched):
        other, is_trial = generator.choice(trials), path.suffix == ".jsonl"
        kind = generator.randrange(10)
        if kind == 0:
            path.unlink()
            path.mkdir()
        elif kind == 1:
            path.write_bytes(b"")
        elif kind == 2:
            path.unlink()
            path.symlink_to(other)
        elif kind == 3 and is_trial:
            path.write_bytes(other.read_bytes())
        elif kind == 4 and is_trial:
            forged(generator, folder, path)
        elif kind < 7:
            path.write_bytes(changed_bytes(generator, path.read_bytes()))
        elif is_trial:
            content = changed_line(generator, path.read_bytes())
            path.write_bytes(sealed(content) if generator.random() < 0.5 else content)
        else:
            path.write_text(json.dumps(changed_value(generator, json.loads(path.read_text()))))
    return touched


def looked_at(folder, whole_report):
    """All that the commands do with a folder; the study, and what it said."""
    study = Study.open(folder)
    findings = study.findings()
    screen = Console(file=io.StringIO(), width=80)
    screen.print(terminal.state(study), wording.answer(findings), *wording.notes(findings))
    said = [screen.file.getvalue(), str(study.advice()), report.markdown(findings), *study.altered]
    for evaluations in (False, True):
        export.write(study, folder / "out.csv", evaluations)
    if whole_report:
        report.write(folder, findings)
    for text in said:
        text.encode()
    return study


def outcome(*arguments):
    """The study that was looked at, or the line that said why not."""
    try:
        return looked_at(*arguments), ""
    except StudyError as error:
        return None, str(error)


def test_whatever_is_in_a_folder_is_read_or_named_in_one_line(whole, tmp_path, rounds, generator):
    read = 0
    folder = tmp_path / "study"
    for i in range(rounds):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        touched = mutate(generator, whole, folder)
        study, said = outcome(folder, i % 20 == 0)
        if not study:
            assert folder / "study.json" in touched, said
            assert "study.json" in said, "the file is named"
            assert "\n" not in said
            continue
        read += 1
        for sentence in study.altered:
            assert "\n" not in sentence
            assert str(folder / "trials") in sentence
        if folder / "study.json" not in touched:
            assert study.done >= study.total - len(touched), "and the rest is there"
    assert read > rounds // 3


def test_an_altered_study_is_made_whole_by_the_same_command(whole, tmp_path, rounds, generator):
    expected = deterministic(Study.open(whole))
    for _ in range(max(1, rounds // 20)):
        folder = tmp_path / "study"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        for path in generator.sample(sorted((folder / "trials").iterdir()), 3):
            path.write_bytes(generator.choice([changed_bytes, changed_line])(generator, path.read_bytes()))
        compare(BLOBS, out=folder, **PLAN)
        assert deterministic(Study.open(folder)) == expected


def deterministic(study):
    """A study's records but for times and places."""
    found = {}
    for entry in study.entries:
        run = study.runs[entry.id]
        found[entry.id] = [
            {key: value for key, value in record.items() if key not in ("seconds", "environment")}
            for record in (run.header, *run.evaluations, run.end)
        ]
    return found


# A process that starts others, each with torch loaded at once, and kills them.
KILLER = """
import os, random, signal, sys, time
import torch
from study_cases import BLOBS
from thalweg.study.study import compare
from test_study_folders import PLAN

torch.set_num_threads(1)

def begun(folder):
    if not (process := os.fork()):
        try:
            compare(BLOBS, out=folder, **PLAN)
        finally:
            os._exit(0)
    return process

left, generator, studies = int(sys.argv[2]), random.Random(sys.argv[3]), 0
while left:  # one study after the other, each until it comes to its end
    studies += 1
    while True:
        process = begun(f"{sys.argv[1]}/{studies}")
        if left:
            time.sleep(generator.choice([0.02, 0.1, 0.4]) * generator.random())
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if not os.WIFSIGNALED(status):
            break
        left -= 1
print(studies)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills as POSIX has them")
def test_a_study_that_is_killed_again_and_again_ends_as_one_that_is_not(whole, tmp_path, rounds, generator):
    kills = min(max(4, rounds // 10), 100)
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path), str(kills), str(generator.random())],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    expected = deterministic(Study.open(whole))
    for number in range(1, int(done.stdout) + 1):
        study = Study.open(tmp_path / str(number))
        assert study.complete
        assert study.altered == []
        assert deterministic(study) == expected
