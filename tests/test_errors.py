"""What errors say, spelled for Python and for the command line; and which errors a command answers."""

import argparse
import pickle
from pathlib import Path

import pytest

import thalweg
from thalweg import errors
from thalweg.cli import main as cli
from thalweg.cli.arguments import ASKED, UsageError, answer, asked
from thalweg.errors import Argument, InvalidArgumentError, ThalwegError
from thalweg.study.errors import StudyError


@pytest.fixture
def command() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("rule", metavar="RULE")
    parser.add_argument("--from", dest="source")
    parser.add_argument("--step", type=int)
    parser.add_argument("--set", action="append")
    parser.add_argument("--approximate", action="store_true")
    parser.add_argument("--no-defaults", action="store_false", dest="defaults")
    return parser


@pytest.mark.parametrize(
    ("argument", "python", "option"),
    [
        (Argument("source"), "source=", "--from"),
        (Argument("source", "torch"), "source='torch'", "--from torch"),
        (Argument("step", 9), "step=9", "--step 9"),
        (Argument("approximate", True), "approximate=True", "--approximate"),
        (Argument("defaults", False), "defaults=False", "--no-defaults"),
        (Argument("rule"), "rule=", "RULE"),
        (Argument("lr", hyperparameter=True), "lr=", "--set lr=VALUE"),
        (Argument("lr", 0.1, hyperparameter=True), "lr=0.1", "--set lr=0.1"),
        (Argument("target_params"), "target_params=", "target_params= in Python"),
    ],
)
def test_an_argument_is_spelled_as_each_side_writes_it(
    command: argparse.ArgumentParser, argument: Argument, python: str, option: str
) -> None:
    error = InvalidArgumentError("give ", argument, ", such as x=1")
    assert str(error) == f"give {python}, such as x=1"
    assert answer(error, command) == f"give {option}, such as x=1", "what is no Argument stays as it is"
    assert error.argument == argument.name


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("step", "argument --step: it is too large"),
        ("source", "argument --from: it is too large"),
        ("rule", "it is too large"),
        ("jobs", "it is too large"),
        ("", "it is too large"),
    ],
)
def test_an_option_at_fault_that_a_message_does_not_name_begins_the_line(
    command: argparse.ArgumentParser, argument: str, line: str
) -> None:
    error = InvalidArgumentError("it is too large\nby far", argument=argument)
    assert (answer(error, command), error.argument) == (line, argument)


@pytest.mark.parametrize(
    ("error", "argument"),
    [
        (errors.UnknownRuleError("adm", ["adam"]), "rule"),
        (errors.UnknownDialectError("kears", ["keras"]), "dialect"),
        (errors.UnknownSurfaceError("bael", ["beale"]), "surface"),
        (errors.UnknownSolverError("newtn", ["newton"]), "solver"),
        (errors.UnknownHyperparameterError("Adam", "bta_1", ["beta_1"]), "bta_1"),
        (errors.MissingPackageError("it", "safetensors", "safetensors"), ""),
        (StudyError("give ", Argument("folder")), "folder"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_from_worker_processes_are_as_they_were_raised(error: ThalwegError, argument: str) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.argument) == (str(error), argument)


@pytest.mark.parametrize("kind", ASKED)
def test_what_is_asked_for_is_answered_and_faults_of_ours_pass(kind: type[Exception]) -> None:
    with pytest.raises(UsageError, match="why"), asked():
        raise kind("why")
    known = InvalidArgumentError("why", argument="step")
    with pytest.raises(InvalidArgumentError) as found, asked():
        raise known
    assert found.value is known
    for fault in (KeyError, AttributeError, RuntimeError, AssertionError):
        with pytest.raises(fault), asked():
            raise fault("why")


def test_an_error_of_ours_outside_what_is_asked_for_passes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.COMMANDS, "rules", (lambda arguments: int("x"), cli.COMMANDS["rules"][1]))
    with pytest.raises(ValueError, match="invalid literal"):
        cli.main(["rules"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("compare digits --epochs 0", "argument --epochs: the number of epochs must be at least 1, got 0"),
        ("compare digits --data .", "digits are embedded in scikit-learn: leave out --data"),
        ("compare digits --engine dsk", "argument --engine: no engine is named 'dsk'; did you mean 'dask'?"),
        (
            "compare digits --dialect kears",
            "argument --dialect: no dialect is named 'kears'; did you mean 'keras'?",
        ),
        (
            "kernel adam --dialect kears",
            "argument --dialect: no dialect is named 'kears'; did you mean 'keras'?",
        ),
        ("kernel adm", "no rule is named 'adm'; did you mean 'adam'?"),
        ("play --port 99999", "argument --port: a port is a number from 0 to 65535, got 99999"),
    ],
)
def test_a_command_says_which_option(
    line: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == 2
    assert capsys.readouterr().err == f"thalweg {line.split()[0]}: {said}\n"


def test_the_errors_that_thalweg_exports_are_of_one_base() -> None:
    exported = [
        kind for name in thalweg.__all__ if name.endswith("Error") for kind in [getattr(thalweg, name)]
    ]
    assert exported
    assert all(issubclass(kind, ThalwegError) for kind in exported)
