"""What a version says: it changes with all of the user's that decides the outcome, and tells what that is."""

import os
import random
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from helpers import output, python
from thalweg.study.contestant import Contestant
from thalweg.study.errors import StudyError
from thalweg.study.fingerprint import files
from thalweg.study.fingerprint.hashing import differences, examine, fingerprint
from thalweg.study.task import Task
from thalweg.study.tasks import from_file

MODELS = """
import functools
import settings

WIDTH = 8

class Config:
    def __init__(self):
        self.width = 4
        self.deep = {"depths": [1, 2]}

CONFIG = Config()

def doubled(function):
    @functools.wraps(function)
    def wrapper(*arguments):
        return 2 * function(*arguments)
    return wrapper

@doubled
def head():
    return 31

@functools.lru_cache
def kept():
    return 32

class Base:
    def forward(self):
        return 33

class Net(Base):
    scale = settings.SCALE

    class Inner:
        value = 34

    @property
    def bias(self):
        return settings.bias()

    @staticmethod
    def fixed():
        return settings.fixed()

    @classmethod
    def named(cls):
        return settings.named()

    @functools.cached_property
    def lazy(self):
        return settings.lazy()

    def step(self, *, rate=0.5):
        return settings.step()

def unused():
    return 99
"""
SETTINGS = """
SCALE = 1 + 1
def bias(): return 41
def fixed(): return 42
def named(): return 43
def lazy(): return 44
def step(): return 45
def unused(): return 99
"""
FILES = {
    "models.py": MODELS,
    "settings.py": SETTINGS,
    "pkg/__init__.py": "",
    "pkg/mod.py": "def f(): return 51\ndef unused(): return 99\n",
    "pkg/near.py": "from . import mod\nfrom .mod import f\ndef g(): return mod.f()\n"
    "def h():\n    from . import mod\n    return mod.f()\n",
    "words.txt": "one two",
}
NAMES = ("mine", *(name.removesuffix(".py").replace("/", ".") for name in FILES), "pkg")

# What the factory does; the file that changes, and what in it.
CHANGES = [
    ("models.Net()", "models.py", "rate=0.5", "rate=0.25"),
    ("models.Net()", "models.py", "return 33", "return 34"),
    ("models.Net()", "models.py", "value = 34", "value = 35"),
    ("models.Net()", "settings.py", "SCALE = 1 + 1", "SCALE = 1 + 2"),
    *(("models.Net()", "settings.py", f"return 4{i}", f"return 5{i}") for i in range(1, 6)),
    ("models.WIDTH", "models.py", "WIDTH = 8", "WIDTH = 9"),
    ("models.CONFIG.width", "models.py", "width = 4", "width = 5"),
    ("CONFIG.deep['depths']", "models.py", "[1, 2]", "[1, 3]"),
    ("models.head()", "models.py", "return 31", "return 32"),
    ("models.head()", "models.py", "return 2 *", "return 3 *"),
    ("models.kept()", "models.py", "return 32", "return 33"),
    ("pkg.mod.f()", "pkg/mod.py", "return 51", "return 52"),
    ("pkg.near.g()", "pkg/mod.py", "return 51", "return 52"),
    ("pkg.near.h()", "pkg/mod.py", "return 51", "return 52"),
    ("pkg.near.f()", "pkg/mod.py", "return 51", "return 52"),
    ("m = models; m.Net()", "models.py", "return 33", "return 34"),
    ("getattr(models, 'Net')()", "settings.py", "return 41", "return 42"),
    ("vars(models)['WIDTH']", "models.py", "WIDTH = 8", "WIDTH = 9"),
    ("import models as m; m.Net()", "settings.py", "return 41", "return 42"),
    ("from models import WIDTH; WIDTH", "models.py", "WIDTH = 8", "WIDTH = 9"),
    ("import pkg.mod; pkg.mod.f()", "pkg/mod.py", "return 51", "return 52"),
    ("import pkg.mod as m; m.f()", "pkg/mod.py", "return 51", "return 52"),
    ("import importlib; importlib.import_module('pkg.mod').f()", "pkg/mod.py", "return 51", "return 52"),
    ("[w for w in (lambda: models.WIDTH,)]", "models.py", "WIDTH = 8", "WIDTH = 9"),
    ("import pathlib; pathlib.Path(WORDS).read_text()", "words.txt", "two", "three"),
]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a user's modules, imported anew whenever they are asked for."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(
        "thalweg.study.fingerprint.files._TOOL_FOLDERS", {"__pycache__"}
    )  # a tmp_path may lie anywhere
    (tmp_path / "pkg").mkdir()
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    forget()
    yield tmp_path
    forget()


def forget():
    for name in NAMES:
        sys.modules.pop(name, None)


def factory(project, body, imports="import models, pkg.mod, pkg.near\nfrom models import CONFIG"):
    source = f"{imports}\nWORDS = {str(project / 'words.txt')!r}\ndef made():\n    {body}\n"
    (project / "mine.py").write_text(source)
    forget()
    return import_module("mine").made


def version(project, *arguments, **values):
    return Task.from_torch(
        "t", factory(project, *arguments, **values), (np.ones((50, 2)), np.arange(50) % 2), "cross_entropy"
    )


@pytest.mark.parametrize(("body", "name", "before", "after"), CHANGES)
def test_a_version_changes_with_what_the_code_names(project, body, name, before, after):
    first = version(project, body)
    assert version(project, body).version == first.version
    path = project / name
    assert path.read_text().count(before)
    path.write_text(path.read_text().replace(before, after))
    second = version(project, body)
    assert second.version != first.version
    assert name in second.covers, "and it says what it covers"
    assert second.covers.keys() == first.covers.keys()
    # A value that a class takes from another module is the class's.
    assert {name, "models.py"} & {*differences(first.covers, second.covers)}, "and which of it changed"


@pytest.mark.parametrize("body", ["models.Net()", "pkg.mod.f()", "models.CONFIG.width"])
def test_what_the_code_does_not_name_is_free_to_change(project, body):
    first = version(project, body).version
    for name in ("models.py", "settings.py", "pkg/mod.py"):
        (project / name).write_text((project / name).read_text().replace("return 99", "return 100"))
    assert version(project, body).version == first


def test_a_version_does_not_say_where_the_project_lies(project, tmp_path_factory, monkeypatch):
    first = version(project, "models.Net(), pkg.near.g()").version
    other = tmp_path_factory.mktemp("other")
    (other / "pkg").mkdir()
    for name, content in FILES.items():
        (other / name).write_text(content)
    monkeypatch.syspath_prepend(str(other))
    (project / "mine.py").rename(other / "mine.py")
    forget()
    data = np.ones((50, 2)), np.arange(50) % 2
    assert Task.from_torch("t", import_module("mine").made, data, "cross_entropy").version == first


def test_the_step_of_an_optimizer_of_ones_own_is_followed(project):
    (project / "own.py").write_text(
        "import models, torch\nclass Own(torch.optim.SGD):\n    def __init__(self, params, lr=0.1):\n"
        "        super().__init__(params, lr)\n    def step(self):\n        return models.head()\n"
    )

    def contestant():
        forget()
        sys.modules.pop("own", None)
        found = Contestant("own:Own")
        return found.identity, found.covers

    first = contestant()
    (project / "models.py").write_text(MODELS.replace("return 31", "return 32"))
    second = contestant()
    assert first[0] != second[0]
    assert {"own.py", "models.py"} <= second[1].keys()
    sys.modules.pop("own")


SOURCE = """
import models
from pathlib import Path
from thalweg.study.task import Task
import numpy as np

names = Path(__file__).with_name("words.txt").read_text().split()

def task():
    data = np.ones((50, 2)), np.arange(50) % 2
    return Task.from_torch("mine", models.Net, data, "cross_entropy")
"""


def test_files_that_are_read_while_a_task_is_made_count(project):
    path = project / "mine.py"

    def loaded():
        forget()
        from_file.run_file.cache_clear()
        from_file._task_of.cache_clear()
        return from_file.load(f"{path}:task")

    path.write_text(SOURCE)
    first = loaded()
    assert loaded().version == first.version
    assert {"model", "data", "models.py", "words.txt"} <= first.covers.keys()
    (project / "words.txt").write_text("one three")
    assert loaded().version != first.version


def test_which_files_are_noted(tmp_path, monkeypatch):
    monkeypatch.setattr("thalweg.study.fingerprint.files._TOOL_FOLDERS", {"__pycache__"})
    (tmp_path / "read.txt").write_text("a")
    (tmp_path / "code.py").write_text("a")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "kept.txt").write_text("a")
    with files.files_read() as outer:
        with files.files_read() as found:
            for name in ("read.txt", "code.py", "__pycache__/kept.txt"):
                (tmp_path / name).read_text()
            (tmp_path / "written.txt").write_text("a")
            os.close(os.open(tmp_path / "read.txt", os.O_RDONLY))
            Path(np.__file__).read_bytes()
            with pytest.raises(FileNotFoundError):
                (tmp_path / "absent.txt").read_text()
        (tmp_path / "gone.txt").write_text("a")
        (tmp_path / "gone.txt").read_text()
        (tmp_path / "gone.txt").unlink()
    (tmp_path / "written.txt").read_text()
    assert [name for name, _ in files.hashes(found)] == ["read.txt"]
    assert [name for name, _ in files.hashes(outer)] == ["read.txt"]


def test_a_large_file_counts_by_its_length_age_and_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WHOLE", 10)
    monkeypatch.setattr(files, "END", 4)
    path = tmp_path / "large"

    def hash_of(content):
        path.write_bytes(content)
        os.utime(path, ns=(1, 1))
        return files._hash(path)

    whole = hash_of(b"0123456789abcdef")
    assert hash_of(b"0123456789abcdef") == whole == hash_of(b"0123......abcdef")
    assert len({whole, *map(hash_of, (b"0123456789abcdeF", b"x123456789abcdef", b"0123456789.abcdef"))}) == 4
    os.utime(path, ns=(1, 2))
    assert files._hash(path) != hash_of(b"0123456789.abcdef")


class Held:
    __slots__ = ("a",)

    def __init__(self, a):
        self.a = a


def test_objects_count_by_what_they_hold():
    rng = np.random.default_rng(0)
    before = fingerprint(rng)
    assert before == fingerprint(np.random.default_rng(0)) == fingerprint(rng)
    rng.random()
    assert fingerprint(rng) != before
    assert fingerprint(Held(1)) == fingerprint(Held(1)) != fingerprint(Held(2))
    first, other = (fingerprint(torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert first != other
    before = fingerprint(random.shuffle, np.random.normal, scipy.stats.norm(0, 1))
    random.random(), np.random.normal()
    assert fingerprint(random.shuffle, np.random.normal, scipy.stats.norm(0, 1)) == before
    a, b = Held(1), Held(2)
    assert fingerprint(a, b, a) != fingerprint(a, b, b), "which one it is again"
    ring = [1]
    ring.append(ring)
    assert fingerprint(ring) == fingerprint(ring) != fingerprint([1])
    assert fingerprint([["a"]]) != fingerprint(["a"])
    assert fingerprint({(1, Held(1)), (2, Held(2))}) == fingerprint({(2, Held(2)), (1, Held(1))})
    assert fingerprint(os.environ) == fingerprint(os.environ), "the state of the process belongs to no task"
    deep = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(StudyError, match=r"the model is nested too deeply .* version="):
        examine({"model": deep})


ANYWHERE = """
import sys
sys.path.insert(0, sys.argv[1])
from thalweg.study.fingerprint.hashing import fingerprint
import logging, re, threading, torch, polars, numpy
import models, pkg.near

log = logging.getLogger(__name__)
lock = threading.Lock()
kinds = {"a", "b", "c", ("d", 1)}
pattern = re.compile("x+")
frame = polars.DataFrame({"a": [1, 2], "b": ["x", "y"]})
half = torch.ones(3, dtype=torch.bfloat16)
sparse = torch.eye(3).to_sparse()
layers = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False))
torch.nn.init.ones_(layers[0].weight)

@torch.no_grad()
def factory():
    log.info("%s", (lock, kinds, pattern, frame, half, sparse, layers))
    return models.Net()

print(fingerprint(factory))
"""


def test_a_version_is_the_same_in_every_process(project):
    found = {output(python(ANYWHERE, str(project), PYTHONHASHSEED=seed)) for seed in ("1", "2", "3")}
    assert len(found) == 1
    (project / "models.py").write_text(MODELS.replace("return 33", "return 34"))
    assert output(python(ANYWHERE, str(project))) not in found, "behind a library's decorator too"
