"""The README's code runs, in order, as one program; what it says is printed is printed."""

import re
import shlex
from pathlib import Path

import thalweg

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_blocks_run(tmp_path, monkeypatch, capsys, names):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    assert (tmp_path / "adam.npz").exists()
    (shown,) = blocks("text")
    assert capsys.readouterr().out.strip() == shown.strip()


def test_rules_are_all_named():
    listed = re.search(r"lists the rules: (.*?)\. `thalweg", README, re.DOTALL).group(1)
    assert {name.strip().lower() for name in listed.replace("\n", " ").split(",")} == set(thalweg.rules())


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([\w-]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_thalweg_commands_are_understood():
    from thalweg.cli.main import _parser

    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("thalweg ")]
    assert commands
    for line in [*commands, "thalweg kernel adam"]:
        _parser().parse_args(shlex.split(line, comments=True)[1:])
