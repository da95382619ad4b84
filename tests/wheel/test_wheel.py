"""The package as users get it: what the wheel holds, and what it does without torch, Keras and JAX."""

import re
import subprocess
import sys
import zipfile
from importlib import metadata, resources
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import pytest

import thalweg

ROOT = Path(__file__).parents[2]
FRAMEWORKS = ("torch", "keras", "jax", "tensorflow")


def run(*command: str, status: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    found = subprocess.run(
        [sys.executable, "-m", "thalweg", *command], capture_output=True, text=True, cwd=cwd
    )
    assert found.returncode == status, found.stderr
    return found


def test_what_is_tried_is_the_wheel() -> None:
    assert ROOT / "src" not in Path(thalweg.__file__).parents
    assert metadata.version("thalweg") == thalweg.__version__
    assert not any(map(find_spec, FRAMEWORKS))


def test_the_wheel_holds_all_of_the_package_and_nothing_else() -> None:
    (wheel,) = (ROOT / ".venv-wheel" / "dist").glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    source = ROOT / "src"
    files = {
        file.relative_to(source).as_posix()
        for file in (source / "thalweg").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert names == files
    assert {"thalweg/py.typed"} < names


@pytest.mark.parametrize(
    ("package", "path"),
    [
        ("thalweg.play", "page/index.html"),
        ("thalweg.play", "languages"),
        ("thalweg.study.reporting", "report.html.jinja"),
    ],
)
def test_files_that_are_not_code_are_there(package: str, path: str) -> None:
    place = resources.files(package)
    for part in path.split("/"):
        place = place / part
    assert place.is_file() or any(place.iterdir())


def test_a_rule_steps_on_numpy() -> None:
    import numpy as np

    import thalweg.numpy

    params, grads = {"w": np.ones(3)}, {"w": np.full(3, 0.5)}
    optimizer = thalweg.numpy.Optimizer(thalweg.get("adam", lr=0.1))
    optimizer.update(params, grads)
    np.testing.assert_allclose(params["w"], 0.9, atol=1e-6)


@pytest.mark.parametrize(
    "command", [["rules"], ["explain", "adam"], ["kernel", "adam"], ["dialects"], ["--help"]]
)
def test_commands_run(command: list[str]) -> None:
    assert run(*command).stdout


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    run("path", "beale", "--optimizers", "sgd,adam", "--out", "path.png", cwd=tmp_path)
    assert (tmp_path / "path.png").read_bytes().startswith(b"\x89PNG")


def test_the_playground_has_its_page() -> None:
    command = [sys.executable, "-m", "thalweg", "play", "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            (address,) = re.findall(r"http://[0-9.:]+", server.stdout.readline())
            with urlopen(address) as page:
                assert b"<title>" in page.read()
        finally:
            server.terminate()


@pytest.mark.parametrize(
    ("module", "extra"), [("thalweg.torch", "torch"), ("thalweg.keras", "keras"), ("thalweg.jax", "jax")]
)
def test_a_front_end_without_its_framework_says_what_to_install(module: str, extra: str) -> None:
    found = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True)
    assert f"thalweg[{extra}]" in found.stderr.splitlines()[-1]


def test_a_comparison_says_what_to_install() -> None:
    assert "thalweg[study]" in run("compare", "digits", status=2).stderr
