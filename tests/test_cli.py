import os
import subprocess
import sys

import numpy as np
import pytest

import thalweg
from thalweg import cli
from thalweg.dialects import DIALECTS
from thalweg.explain import explain, table_of_dialects

COMPARE = ["compare", "digits", "--optimizers", "sgd,nadam", "--lr", "0.1", "--epochs", "2", "--jobs", "1"]


def answer(capsys, *arguments):
    """What the command says on standard error, and its status."""
    try:
        status = cli.main(list(arguments))
    except SystemExit as end:
        status = end.code
    return status, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("compere digits", "no command is named 'compere'; did you mean 'compare'?"),
        ("compare digts", "no task is named 'digts'; did you mean 'digits'?"),
        ("compare fashion", "did you mean 'fashion-mnist'?"),
        ("compare digits --optimizers adm", "no rule is named 'adm'; did you mean 'adam'?"),
        ("compare digits --epchs 3", "no option is named '--epchs'; did you mean '--epochs'?"),
        ("compare digits more", "one argument too many: 'more'"),
        ("compare digits --lr fast", "such as 0.001,0.01; got 'fast'"),
        ("compare digits --lr -1", "lr must lie in"),
        ("compare digits --dialect kears", "did you mean 'keras'?"),
        ("compare digits --epochs 0", "epochs must be at least 1"),
        ("compare digits --seeds few", "invalid int value: 'few'"),
        ("compare digits --data .", "embedded"),
        ("compare mnist --data .", "train-images-idx3-ubyte.gz is neither in"),
        ("compare", "required: TASK"),
        ("", "required: COMMAND"),
        ("kernel adm", "did you mean 'adam'?"),
        ("kernel adam --dtype float31", "float31"),
        ("kernel adam --dialect tf2", "no dialect is named 'tf2'; did you mean 'tf1'?"),
        ("explain adm", "no rule is named 'adm'; did you mean 'adam'?"),
        ("explain adam --dialect kears", "no dialect is named 'kears'; did you mean 'keras'?"),
        ("explain", "required: RULE"),
        ("dialects --rule adm", "no rule is named 'adm'; did you mean 'adam'?"),
        ("dialects --set lr=0.1", "--set is about a recorded trajectory; give its FILE"),
        ("dialects none.npz", "No such file or directory: 'none.npz'"),
        ("dialects . --set lr", "a setting is NAME=VALUE, such as lr=0.01 or centered=yes; got 'lr'"),
        ("dialects . --set lr=fast", "got 'lr=fast'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, said = answer(capsys, *arguments.split())
    assert status == 2
    assert message in said
    assert said.count("\n") == 1
    assert not any(tmp_path.iterdir()), "nothing is left behind"


def test_a_folder_that_cannot_be_written_is_named_before_any_work(capsys, tmp_path):
    (tmp_path / "file").touch()
    status, said = answer(capsys, *COMPARE, "--out", str(tmp_path / "file" / "study"))
    assert status == 2
    assert "cannot be written" in said


def test_a_missing_extra_is_named(capsys, monkeypatch):
    monkeypatch.setattr(cli, "find_spec", lambda name: None if name in ("torch", "rich") else name)
    status, said = answer(capsys, *COMPARE)
    assert status == 2
    assert said == "thalweg compare: torch, rich not installed: pip install 'thalweg[study]'\n"


def test_compare_reports_and_a_second_time_finds_all_done(capsys, tmp_path):
    command = [*COMPARE, "--seeds", "2", "--batch-size", "128", "--dialect", "torch", "--out", str(tmp_path)]
    assert cli.main(command) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "digits: 4 training runs of 2 epochs training runs" in said
    for expected in (
        "nadam",
        "sgd",
        "at learning rate 0.1: test loss",
        f"Report: {tmp_path / 'report.html'}",
    ):
        assert expected in said
    assert (tmp_path / "curves.png").exists()
    assert len(list((tmp_path / "trials").iterdir())) == 4
    assert cli.main(command) == 0
    assert "4 training runs of 2 epochs, 4 of them done before" in capsys.readouterr().out


def test_crashed_runs_end_in_status_1(capsys, tmp_path, monkeypatch):
    from thalweg.study import task

    def broken(folder):
        return task.Task("broken", "1", task.data.digits, list, task.cross_entropy)

    monkeypatch.setitem(task.TASKS, "broken", broken)
    assert cli.main(["compare", "broken", *COMPARE[2:], "--out", str(tmp_path)]) == 1
    assert "6 of 6 runs crashed" in capsys.readouterr().out


def test_the_version(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"thalweg {thalweg.__version__}\n"


def test_rules_lists_every_rule_with_its_first_line(capsys):
    assert cli.main(["rules"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == thalweg.rules()
    assert all(len(line.split()) > 3 for line in lines)


def test_kernel_prints_source(capsys):
    assert cli.main(["kernel", "adam"]) == 0
    source = capsys.readouterr().out
    assert "def " in source
    compile(source, "kernel", "exec")


def test_explain_prints_what_python_says(capsys):
    assert cli.main(["explain", "rmsprop"]) == 0
    assert capsys.readouterr().out == explain("rmsprop") + "\n"
    assert cli.main(["explain", "rmsprop", "--dialect", "keras", "--latex"]) == 0
    assert capsys.readouterr().out == explain("rmsprop", "keras", latex=True) + "\n"


def test_dialects_lists_what_each_framework_means(capsys):
    assert cli.main(["dialects"]) == 0
    assert capsys.readouterr().out == table_of_dialects() + "\n"
    assert cli.main(["dialects", "--rule", "adam,lion"]) == 0
    assert capsys.readouterr().out == table_of_dialects(["adam", "lion"]) + "\n"


@pytest.fixture
def recording(tmp_path):
    """A file that RMSprop wrote in Keras's dialect, with momentum and at a rate of 0.02."""
    rule = thalweg.get("rmsprop", dialect="keras", lr=0.02, momentum=0.5)
    generator = np.random.default_rng(0)
    params, grads, state = [np.ones(4)], [], dict(rule.initial_state())
    for t in range(1, 21):
        grads.append(generator.standard_normal(4) * [1, 0.1, 1e-2, 1e-3])
        step, state = rule.advance(t, grads[-1], params[-1], state)
        params.append(params[-1] - step)
    np.savez(tmp_path / "run.npz", params=params, grads=grads)
    return str(tmp_path / "run.npz")


def test_dialects_names_what_a_recording_follows(capsys, recording):
    assert cli.main(["dialects", recording, "--set", "momentum=0.5", "--set", "centered=no"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run.npz: 20 steps of 4 entries, float64"
    assert lines[3].split()[:3] == ["rmsprop", "keras", "0.02"]
    assert len(lines) == 3 + 5 + 1 + 2, "five dialects of the one rule that has both"
    assert "It follows rmsprop (keras) with lr = 0.02, rho = 0.9," in " ".join(lines)
    assert all(len(line) <= 88 for line in lines)


def test_dialects_restricts_and_claims_nothing_that_is_not_so(capsys, recording):
    assert cli.main(["dialects", recording, "--rule", "adam,rmsprop", "--set", "lr=0.02"]) == 0
    said = capsys.readouterr().out
    assert "None of these is followed: the nearest, rmsprop (" in said
    assert {line.split()[0] for line in said.split("\n\n")[1].splitlines()[1:]} == {"adam", "rmsprop"}
    assert "0.02 " in said


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("momentm=0.5", "no rule has a hyperparameter 'momentm'; did you mean 'momentum'?"),
        ("centered=0.5", "centered is True or False, got 0.5"),
        ("rho=2", "rho must lie in [0, 1], got 2.0"),
        ("lr=none", "lr is a number or a schedule, got None"),
    ],
)
def test_a_setting_that_cannot_be_is_said_in_one_line(capsys, recording, setting, message):
    status, said = answer(capsys, "dialects", recording, "--set", setting)
    assert (status, said.count("\n")) == (2, 1)
    assert message in said


def test_a_file_that_is_no_recording_is_said_in_one_line(capsys, tmp_path):
    np.savez(tmp_path / "run.npz", params=np.ones((4, 2)))
    status, said = answer(capsys, "dialects", str(tmp_path / "run.npz"))
    assert (status, said.count("\n")) == (2, 1)
    assert "grads missing, found: params" in said


@pytest.mark.parametrize("command", ["compare", "kernel", "explain"])
def test_help_names_every_dialect(capsys, command):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "paper, torch, keras, tf1 or optax" in said
    assert len(DIALECTS) == 5


def test_help_shows_what_a_recording_is(capsys):
    with pytest.raises(SystemExit):
        cli.main(["dialects", "--help"])
    said = capsys.readouterr().out
    assert "\n    params   (steps + 1, …): before each step, and after the last;" in said


def test_the_command_line_starts_without_torch_and_numba(tmp_path):
    code = (
        "import sys; from thalweg import cli; import thalweg.study.engine; cli.main(['rules']); "
        "cli.main(['explain', 'adam']); "
        "print(sorted({'torch', 'numba', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert found.stdout.splitlines()[-1] == "[]"


def test_it_runs_as_a_module(tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "thalweg.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "100"},
    )
    for command in ("compare", "dialects", "explain", "kernel", "rules"):
        assert command in found.stdout


def test_a_reader_that_has_gone_is_no_error():
    command = [sys.executable, "-m", "thalweg.cli", "kernel", "adam"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 0
