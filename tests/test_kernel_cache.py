"""Kernels on disk: found again, made anew where damaged, and never taken from where others can write."""

import errno
import math
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import thalweg
from helpers import output, python
from thalweg import trace
from thalweg.kernels import cache
from thalweg.kernels.cache import step_kernel
from thalweg.kernels.source import cpu_source

STEP = """
import sys, numpy as np, thalweg
from thalweg.kernels.cache import cache_dir
from thalweg.numpy import Optimizer
class Functions(thalweg.Rule):
    def update(self, g, m=0):
        from thalweg.ops import exp, log, sign, sqrt, tanh
        m = exp(tanh(g)) + sqrt(abs(g)) ** 1.5 + log(abs(g)) * sign(g) + m
        return m, m
rule = Functions() if "functions" in sys.argv else thalweg.Adam(0.1)
p = np.full(3, 0.5)
Optimizer(rule).update(p, np.full(3, 2.0))
print(p[0], "numba" in sys.modules, cache_dir())
"""
FUNCTIONS = 0.5 - (math.exp(math.tanh(2)) + math.sqrt(2) ** 1.5 + math.log(2))


def test_a_second_process_finds_the_kernel_on_disk(tmp_path: Path) -> None:
    cache = str(tmp_path / "deep" / "down")
    assert output(python(STEP, THALWEG_CACHE_DIR=cache)).split()[1:] == ["True", cache]
    assert output(python(STEP, THALWEG_CACHE_DIR=cache)).split()[1:] == ["False", cache]
    (source,) = Path(cache).glob("*.py")
    assert source.name.startswith("adam_float64_")
    text = source.read_text()
    compile(text, str(source), "exec")
    assert text.startswith('"""adam: one step over chunks of many tensors, generated from the rule.')
    assert cpu_source(trace(thalweg.Adam()), "float64") in text
    assert not [*Path(cache).glob("*.tmp")]


def test_machine_code_from_disk_finds_the_functions_it_calls(tmp_path: Path) -> None:
    for compiles in ("True", "False"):
        p, compiled, _ = output(python(STEP, "functions", THALWEG_CACHE_DIR=str(tmp_path))).split()
        assert compiled == compiles
        assert float(p) == pytest.approx(FUNCTIONS, rel=1e-12)


def test_a_folder_that_cannot_be_written_is_replaced_with_one_warning(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    again = STEP + "Optimizer(thalweg.SGD()).update(p, p)\n"
    done = python(again, THALWEG_CACHE_DIR=str(file / "kernels"))
    _, compiled, used = output(done).split()
    assert compiled == "True"
    assert not used.startswith(str(tmp_path))
    assert done.stderr.count("RuntimeWarning") == 1
    assert "THALWEG_CACHE_DIR" in done.stderr
    assert file.read_text() == "in the way"


def test_two_processes_may_compile_at_once(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", STEP],
            env={**os.environ, "THALWEG_CACHE_DIR": str(tmp_path / "kernels")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    ends = [(*p.communicate(timeout=120), p.returncode) for p in processes]
    assert [code for *_, code in ends] == [0, 0], ends
    assert output(python(STEP, THALWEG_CACHE_DIR=str(tmp_path / "kernels"))).split()[1] == "False"


# -- who can write -------------------------------------------------------------------------------------

owned = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system's files have no owner and mode")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder that this process has not chosen yet."""
    monkeypatch.setenv("THALWEG_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setattr(cache, "_places", [])
    monkeypatch.setattr(cache, "_kernels", {})
    yield tmp_path / "kernels"
    for place in cache._places[1:]:
        if place is not None:
            cache._remove(place, os.getpid())


def kernel() -> Any:
    """A kernel, from disk or compiled."""
    cache._kernels.clear()
    return step_kernel(trace(thalweg.SGD()), ("float64",) * 2)


@owned
def test_what_is_made_is_the_users_alone(folder: Path) -> None:
    kernel()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert sorted(file.suffix for file in folder.iterdir()) == [".o", ".py"]


def _writable(folder: Path, _: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    folder.chmod(0o770)


def _below_writable(folder: Path, _: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    folder.parent.chmod(0o707)


def _through_a_link(folder: Path, _: pytest.MonkeyPatch) -> None:
    (folder.parent / "open").mkdir()
    (folder.parent / "open").chmod(0o777)
    (folder.parent / "mine").mkdir()
    (folder.parent / "open" / "link").symlink_to("../mine")
    folder.symlink_to("open/link")


def _anothers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    user = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: user)


@owned
@pytest.mark.parametrize("kind", [_writable, _below_writable, _through_a_link, _anothers])
def test_a_folder_that_others_can_change_is_not_used(
    kind: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind(folder, monkeypatch)
    with pytest.warns(RuntimeWarning, match=r"kernels cannot be kept in .*kernels \(other users ") as warned:
        private = cache.cache_dir()
    assert private not in (None, folder)
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    kernel()  # warns no second time
    assert len(warned) == 1
    assert not [*folder.iterdir()]


@owned
def test_the_users_own_group_may_write_above(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.parent.chmod(0o770)
    monkeypatch.setattr(cache, "_is_private", lambda group: True)
    assert cache.cache_dir() == folder
    cache._places.clear()
    monkeypatch.setattr(cache, "_is_private", lambda group: False)
    with pytest.warns(RuntimeWarning, match="other users can replace"):
        assert cache.cache_dir() != folder


@owned
def test_sticky_folders_and_links_of_ones_own_are_fine(folder: Path) -> None:
    above = folder.parent / "sticky"
    above.mkdir()
    above.chmod(0o1777)
    (above / "mine").mkdir(0o700)
    folder.symlink_to("sticky/mine")
    kernel()
    assert cache.cache_dir() == folder
    assert len([*(above / "mine").iterdir()]) == 2


@owned
@pytest.mark.parametrize("how", ["writable by the group", "another's", "a link"])
def test_a_file_that_may_be_anothers_is_made_anew(
    how: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel()
    (file,) = folder.glob("*.o")
    whole = file.read_bytes()
    if how == "writable by the group":
        file.chmod(0o660)
    elif how == "another's":
        ours, fstat = os.geteuid(), os.fstat

        def anothers(descriptor: int) -> os.stat_result:
            found = fstat(descriptor)
            return os.stat_result((*found[:4], ours + 1, *found[5:]))

        monkeypatch.setattr(os, "fstat", anothers)
    else:
        file.rename(folder / "elsewhere")
        file.symlink_to("elsewhere")
    compiled = []
    monkeypatch.setattr(cache, "_compile", lambda *_: compiled.append(1) or whole[cache._DIGEST :])
    kernel()
    assert compiled
    assert stat.S_IMODE(file.lstat().st_mode) == 0o600
    assert file.read_bytes() == whole


@owned
@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_in_the_place_of_one_is_said(put: Any, folder: Path) -> None:
    kernel()
    (file,) = folder.glob("*.o")
    file.unlink()
    put(file)
    with pytest.warns(RuntimeWarning, match="what is there is not a file"):
        kernel()
    assert [*cache.cache_dir().glob("*.o")] == []  # type: ignore[union-attr]
    kernel()
    assert [place.name for place in cache.cache_dir().glob("*.o")] == [file.name]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["_processor", "_toolchain"])
def test_a_kernel_of_another_processor_or_toolchain_is_not_run(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel()
    (file,) = folder.glob("*.o")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(cache, name, lambda: "another")
        kernel()
    (other,) = {*folder.glob("*.o")} - {file}
    file.write_bytes(other.read_bytes())
    kernel()
    assert file.read_bytes() != other.read_bytes()


def test_the_source_beside_a_kernel_is_for_reading_only(folder: Path) -> None:
    kernel()
    (source,), (code,) = folder.glob("*.py"), folder.glob("*.o")
    source.write_text("raise SystemExit('planted')")
    code.unlink()
    kernel()
    assert "planted" not in source.read_text()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_folder_that_is_full_is_given_up(code: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.cache_dir()

    def full(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    # the last thing that is done to a file before it is whole
    monkeypatch.setattr(Path, "replace", full)
    with pytest.warns(RuntimeWarning, match=os.strerror(code)):
        kernel()
    kernel()  # warns no second time
    assert not [*folder.iterdir()]
    assert not [*cache.cache_dir().iterdir()]  # type: ignore[union-attr]


def test_no_room_anywhere_keeps_no_kernel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder.parent.joinpath("kernels").write_text("in the way")
    monkeypatch.setattr("tempfile.mkdtemp", full)
    with pytest.warns(RuntimeWarning, match="kernels cannot be kept"):
        assert cache.cache_dir() is None
    assert kernel().address


def test_a_private_folder_is_gone_at_exit_but_not_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    source = STEP + (
        "import os\n"
        "if hasattr(os, 'fork'):\n"
        "    child = os.fork()\n"
        "    if not child: sys.exit()\n"
        "    os.waitpid(child, 0)\n"
        "assert len([*cache_dir().iterdir()]) == 2\n"
    )
    done = python(source, THALWEG_CACHE_DIR=str(tmp_path / "file" / "kernels"), TMPDIR=str(tmp_path))
    assert output(done)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_does_not_wait_for_a_thread_that_it_does_not_have() -> None:
    source = """
import os, signal, threading, numpy as np, thalweg
from thalweg.kernels import cache
from thalweg.numpy import Optimizer
held = threading.Event()
def compiling():
    with cache._lock:
        held.set()
        threading.Event().wait(0.3)
threading.Thread(target=compiling).start()
held.wait()
child = os.fork()
if not child:
    signal.alarm(60)
    Optimizer(thalweg.SGD()).update(np.zeros(3), np.ones(3))
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert output(python(source)) == "0"
