"""The documentation: each page's code runs, in order, as one program; the pages are built."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import thalweg
from thalweg.registry import find

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS)): path for path in sorted(DOCS.rglob("*.md"))}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page].read_text(), re.DOTALL | re.MULTILINE)


# Keras 3.15's own `Variable.numpy` under NumPy 2.4.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_a_pages_code_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "page"}
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), namespace)


def test_commands_are_understood() -> None:
    import shlex

    from thalweg.cli.main import _parser

    commands = [
        line.partition("  #")[0]
        for page in PAGES
        for block in blocks(page, "sh")
        for line in block.splitlines()
        if line.startswith("thalweg ")
    ]
    assert commands
    for command in commands:
        _parser().parse_args(shlex.split(command)[1:])


def test_the_site_is_built(tmp_path: Path) -> None:
    """Strictly: a page outside the navigation or a link to nowhere fails."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path: path.read_text() for path in tmp_path.rglob("*.html")}
    assert not [path for path, text in pages.items() if "{{" in text]
    rules = (tmp_path / "rules" / "index.html").read_text()
    for name in thalweg.rules():
        assert f">{find(name).__name__}</h2>" in rules
    assert rules.count("<math") >= 2 * len(thalweg.rules())
    outside = [
        (str(path.relative_to(tmp_path)), link)
        for path, text in pages.items()
        for link in re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?://[^"]+)"', text)
    ]
    assert not outside
