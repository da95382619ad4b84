"""`thalweg convert`: files in, files out, and what it says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import thalweg
import thalweg.numpy
from thalweg.cli.main import main


def convert(*words: object) -> int:
    return main(["convert", *map(str, words)])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    params = [torch.ones(3, 2, requires_grad=True), torch.ones(3, requires_grad=True)]
    optimizer = torch.optim.Adam(params, lr=0.02)
    for _ in range(4):
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
    torch.save({"optimizer": optimizer.state_dict()}, tmp_path / "run.pt")
    return tmp_path / "run.pt"


def test_it_writes_the_file_and_says_what_it_holds(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoint.parent
    (folder / "names.json").write_text(json.dumps({"0": ["kernel", [1, 0]], "1": "bias"}))
    assert convert(checkpoint, folder / "state.npz", "--names", folder / "names.json") == 0
    out = capsys.readouterr().out
    assert f"{folder / 'state.npz'}: thalweg.numpy.Optimizer, 2 parameters, step 4" in out
    assert "0 is now kernel with axes (1, 0)" in out
    assert "1 is now bias" in out
    optimizer = thalweg.numpy.Adam()
    optimizer.load(folder / "state.npz")
    assert optimizer.rule == thalweg.Adam(lr=0.02)
    assert optimizer.state().slots["m"]["kernel"].shape == (2, 3)


def test_settings_are_given_as_options(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = checkpoint.parent
    np.savez(folder / "mine.npz", **{"0/trace/w": np.ones(3)})  # type: ignore[arg-type]
    words = ["--from", "optax", "--rule", "momentum", "--set", "lr=0.1", "--set", "momentum=0.8"]
    assert convert(folder / "mine.npz", folder / "mine.pt", *words) == 0
    assert "Lost: the number of steps taken, for schedules: optax.sgd keeps none" in capsys.readouterr().out
    group = torch.load(folder / "mine.pt", weights_only=True)["param_groups"][0]
    assert (group["lr"], group["momentum"]) == (0.1, 0.8)
    assert convert(folder / "mine.npz", folder / "mine.npz", *words, "--step", 5, "--to", "thalweg.jax") == 0
    assert convert(folder / "mine.npz", folder / "again.npz") == 0
    assert capsys.readouterr().out.endswith("1 parameters, step 5\n")


def test_what_is_not_exact_is_refused_or_said(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = checkpoint.parent
    words = ["--rule", "nadam", "--set", "lr=0.1", "--from", "optax", "--to", "thalweg.numpy"]
    zeros = {"0/count": np.int32(2), "0/mu/w": np.zeros(3), "0/nu/w": np.zeros(3)}
    np.savez(folder / "mine.npz", **zeros, **{"1/ema/w": np.ones(3)})  # type: ignore[arg-type]
    assert convert(folder / "mine.npz", folder / "out.npz", *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("thalweg convert: not exactly: the tree holds other state beside it: 1/ema/w")
    assert error.endswith("; --approximate accepts the difference\n")
    assert not (folder / "out.npz").exists()
    assert convert(folder / "mine.npz", folder / "out.npz", *words, "--approximate") == 0
    assert "Lost: the tree holds other state beside it: 1/ema/w" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run.pt", "out.txt"], "a file of state ends in .pt"),
        (["absent.pt", "out.npz"], "No such file or directory"),
        (["run.pt", "out.npz", "--names", "bad.json"], "is not JSON"),
        (["run.pt", "out.npz", "--names", "absent.json"], "No such file"),
        (
            ["run.pt", "out.npz", "--to", "thalweg.nunpy"],
            "--to thalweg.nunpy: there is no such framework; did you mean 'thalweg.numpy'",
        ),
        (["run.pt", "out.keras", "--approximate"], "give one whose optimizer is to be replaced, as --into"),
        (["run.pt", "out.npz", "--key", "other"], "has no 'other'; it has optimizer"),
        (["mine.npz", "out.npz"], "does not tell which framework's state it holds: give --from"),
        (
            ["mine.npz", "out.npz", "--from", "optax"],
            'does not tell which rule it follows: give --rule, such as "adam"',
        ),
        (
            ["mine.npz", "out.npz", "--from", "optax", "--rule", "adam"],
            "hold the lr of adam: give --set lr=VALUE",
        ),
        (
            ["mine.npz", "out.npz", "--from", "optax", "--rule", "adm"],
            "no rule is named 'adm'; did you mean 'adam'",
        ),
        (["run.pt", "out.npz", "--step", "9"], "--step 9, but the state says 4"),
        (["run.pt", "out.npz", "--set", "rho=0.9"], "has no hyperparameter 'rho'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    words: list[str],
    message: str,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    Path("bad.json").write_text("{")
    np.savez("mine.npz", **{"0/count": np.int32(2), "0/mu/w": np.zeros(3), "0/nu/w": np.zeros(3)})  # type: ignore[arg-type]
    assert convert(*words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path(words[1]).exists()
