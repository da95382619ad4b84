import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import thalweg
from thalweg.cli import main as cli
from thalweg.cli import studies as commands
from thalweg.dialects import DIALECTS
from thalweg.eager import Driver
from thalweg.explain.page import explain, table_of_dialects
from thalweg.study.reporting.rules_of_thumb import FEATURES

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
        (
            "compare digts",
            "no task is named 'digts', nor is it a file such as my_task.py:task; did you mean 'digits'?",
        ),
        ("compare fashion", "did you mean 'fashion-mnist'?"),
        ("compare digits --optimizers adm", "no rule is named 'adm'; did you mean 'adam'?"),
        ("compare digits --epchs 3", "no option is named '--epchs'; did you mean '--epochs'?"),
        ("compare digits more", "one argument too many: 'more'"),
        ("compare digits --lr fast", "such as 0.001,0.01; got 'fast'"),
        ("compare digits --lr -1", "lr must lie in"),
        ("compare digits --dialect kears", "did you mean 'keras'?"),
        ("compare digits --epochs 0", "epochs must be at least 1"),
        ("compare digits --seeds few", "invalid int value: 'few'"),
        (
            "compare digits --vary batch_size",
            "NAME=X,Y in numbers, such as batch_size=16,32; got 'batch_size'",
        ),
        (
            "compare digits --vary lr=0.1",
            "one optimizer is varied at a time, not 8: say which with --optimizers",
        ),
        ("compare digits --optimizers adam --vary bta_1=0.5", "did you mean 'beta_1'?"),
        ("compare digits --optimizers adam --vary beta_1=1", "beta_1 must lie in [0, 1), got 1.0"),
        ("compare digits --optimizers adam --vary lr=1 --vary beta_1=0.5", "not both lr and beta_1"),
        ("compare digits --data .", "embedded"),
        ("compare mnist --data .", "train-images-idx3-ubyte.gz is neither in"),
        ("compare", "required: TASK"),
        ("", "required: COMMAND"),
        ("advise", "give the folders of studies, or say what the problem is like (--sparse, --rnn, ...)"),
        ("advise --rnn .", "(--sparse, --rnn, ...), not both"),
        ("advise --rnn --default adam", "--default names an optimizer of a study; give its folder"),
        ("advise --transfomer", "no option is named '--transfomer'; did you mean '--transformer'?"),
        ("advise none", "there is no study in none: study.json is missing"),
        ("export none out.csv", "there is no study in none"),
        ("export none", "required: OUT"),
        ("report none", "there is no study in none"),
        ("report a b", "a report of several studies belongs to none of them: say where with --out"),
        ("watch none", "there is no study in none"),
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


@pytest.mark.parametrize(
    "command",
    [COMPARE, ["advise", "--rnn"], ["export", "a", "b.csv"], ["report", "a"], ["watch", "a"]],
    ids=lambda command: command[0],
)
def test_a_missing_extra_is_named(capsys, monkeypatch, command):
    monkeypatch.setattr(commands, "find_spec", lambda name: None if name in ("torch", "rich") else name)
    status, said = answer(capsys, *command)
    assert status == 2
    assert said == f"thalweg {command[0]}: torch, rich not installed: pip install 'thalweg[study]'\n"


def test_compare_reports_and_a_second_time_finds_all_done(capsys, tmp_path):
    command = [*COMPARE, "--seeds", "2", "--batch-size", "128", "--dialect", "torch", "--out", str(tmp_path)]
    assert cli.main(command) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "digits: 4 training runs of 2 epochs" in said
    for expected in (
        "nadam",
        "sgd",
        "at learning rate 0.1: test loss",
        f"Report: {tmp_path / 'report.html'}",
    ):
        assert expected in said
    assert (tmp_path / "curves.png").exists()
    assert "\x1b" not in said, "a file is no terminal"
    assert len(list((tmp_path / "trials").iterdir())) == 4
    assert cli.main(command) == 0
    assert "4 training runs of 2 epochs, 4 of them done before" in capsys.readouterr().out


CRASHES = """
from thalweg.study.task import LOSS, Task


class Learner:
    steps_per_epoch = 4
    state_bytes = 0

    def __init__(self, setting, seed):
        self.steps = 0

    def train(self, steps):
        self.steps += steps
        if self.steps > 1:
            raise RuntimeError("on its way")
        return {"loss": 1.0}

    def evaluate(self, part):
        return {"loss": 1.0}

    def diagnostics(self):
        return {"gradient_norm": 1.0, "update_norm": 1.0}


task = Task("crashes", "1", Learner, (LOSS,), epochs=2)
"""


def test_crashed_runs_end_in_status_1(capsys, tmp_path):
    (tmp_path / "crashes.py").write_text(CRASHES)
    command = ["compare", str(tmp_path / "crashes.py:task"), *COMPARE[2:], "--out", str(tmp_path / "study")]
    assert cli.main([*command, "--no-defaults", "--seeds", "3"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "6 of 6 runs crashed" in said
    assert "RuntimeError: on its way" in said


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A study of one optimizer at two batch sizes, as the command line makes it."""
    folder = tmp_path_factory.mktemp("study")
    command = [*COMPARE[:2], "--optimizers", "adam", "--vary", "batch-size=64,256", "--lr", "0.01,0.1"]
    options = ["--epochs", "1", "--seeds", "2", "--search-seeds", "1", "--jobs", "1", "--no-defaults"]
    assert cli.main([*command, *options, "--out", str(folder)]) == 0
    return folder


def test_compare_varies_one_setting(capsys, studied):
    assert cli.main(["watch", str(studied), "--once"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("8 of 8 runs\n")
    assert all(len(line) <= 80 for line in said.splitlines())
    facts = json.loads((studied / "study.json").read_text())
    assert facts["varied"] == {
        "name": "batch_size",
        "values": {"adam, batch size 64": 64, "adam, batch size 256": 256},
    }
    assert cli.main(["watch", str(studied)]) == 0
    assert capsys.readouterr().out == said, "what is complete is not waited for"


def test_compare_logs_what_it_runs(capsys, tmp_path, monkeypatch):
    logged = []

    class Book:
        sentence = "the book is without the last training run"

        def __init__(self, place):
            self.place = place

        def __call__(self, study, run):
            logged.append((self.place, run.header["id"]))

    monkeypatch.setattr("thalweg.study.reporting.trackers.TensorBoard", Book)
    monkeypatch.setattr("thalweg.study.reporting.trackers.MLflow", Book)
    books = ["--tensorboard", str(tmp_path / "logs"), "--mlflow", "sqlite://"]
    command = [*COMPARE, "--epochs", "1", "--seeds", "1", "--out", str(tmp_path / "study")]
    assert cli.main([*command, *books]) == 0
    assert "not logged again" not in capsys.readouterr().out
    assert len(logged) == len(set(logged)) == 2 * 2
    assert {place for place, _ in logged} == {tmp_path / "logs", "sqlite://"}
    assert cli.main([*command, *books]) == 0
    said = capsys.readouterr().out
    assert "What was done before is not logged again." in said
    assert "the book is without the last training run" in said
    assert len(logged) == 4


def test_advise_says_what_a_study_shows(capsys, studied):
    assert cli.main(["advise", str(studied)]) == 0
    one = capsys.readouterr().out
    assert one.startswith("Use adam, batch size ")
    assert "\n    test loss " in one, "what it rests on"
    assert cli.main(["advise", str(studied), str(studied)]) == 0
    heading = f"digits ({studied}):\n\n"
    assert capsys.readouterr().out == f"{heading}{one}\n{heading}{one}"
    status, said = answer(capsys, "advise", str(studied), "--default", "adam, batch size 65")
    assert (status, said.count("\n")) == (2, 1)
    assert "did you mean 'adam, batch size 64'?" in said


def test_advise_without_a_study_is_by_rules_of_thumb_and_says_so(capsys):
    assert cli.main(["advise", "--sparse", "--large-batch"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Rules of thumb from the literature; nothing was measured on your problem:\n\n")
    assert "Adagrad, or Adam" in said
    assert "\n    Duchi, Hazan & Singer 2011" in said
    assert "warm it up" in said
    assert "Clip" not in said
    with pytest.raises(SystemExit):
        cli.main(["advise", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for name, meaning in FEATURES.items():
        assert f"--{name} {meaning}" in told


@pytest.mark.parametrize(("options", "rows"), [([], 8), (["--evaluations"], 8)])
def test_export_writes_a_table(capsys, studied, tmp_path, options, rows):
    out = tmp_path / "study.csv"
    assert cli.main(["export", str(studied), str(out), *options]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    header, *lines = out.read_text().splitlines()
    assert len(lines) == rows
    assert ("gradient_norm" in header, "status" in header) == (True, not options)


def test_report_is_written_anew_for_one_study_or_several(capsys, studied, tmp_path):
    (studied / "report.html").unlink()
    assert cli.main(["report", str(studied)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == str(studied / "report.html")
    assert all(Path(path).stat().st_size for path in said)
    assert cli.main(["report", str(studied), str(studied), "--out", str(tmp_path / "new" / "both")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(tmp_path / "new" / "both" / "report.html")
    status, said = answer(capsys, "report", str(studied), "--out", str(studied / "study.json"))
    assert (status, said.count("\n")) == (2, 1)
    assert "study.json cannot be written" in said


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
    params, grads, driver = [np.ones(4)], [], Driver(rule)
    for _ in range(20):
        grads.append(generator.standard_normal(4) * [1, 0.1, 1e-2, 1e-3])
        params.append(params[-1] - driver.step(params[-1], grads[-1]))
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
        "import sys; from thalweg.cli.main import main; import thalweg.study.running.engine; "
        "main(['rules']); "
        "main(['explain', 'adam']); "
        "print(sorted({'torch', 'numba', 'matplotlib', 'sklearn', 'polars', 'rich'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert found.stdout.splitlines()[-1] == "[]"


def test_it_runs_as_a_module(tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "thalweg", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "100"},
    )
    for command in cli.COMMANDS:
        assert command in found.stdout


def ran(*words, shell="", **environment):
    """A command in a process and, by a shell, with streams of its own: status, output and complaints."""
    command = shlex.join([sys.executable, "-W", "error", "-m", "thalweg", *words])
    done = subprocess.run(
        ["sh", "-c", f"{command} {shell}"],
        capture_output=True,
        env=os.environ | environment,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.decode()


FULL = "thalweg {}: [Errno 28] No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize(
    ("words", "shell", "status", "said"),
    [
        ("kernel adam", "> /dev/full", 1, FULL.format("kernel")),
        ("--help", "> /dev/full", 1, FULL.format("--help")),
        ("play --port 0 --no-browser", "> /dev/full", 1, FULL.format("play")),
        ("rules", "> /dev/full 2>&1", 1, ""),
        ("rules", ">&- 2>&- <&-", 0, ""),
        ("explain adm", ">&- 2>/dev/full", 2, ""),
    ],
)
def test_streams_that_cannot_be_written_are_said_where_that_can_be(words, shell, status, said, buffered):
    assert ran(*words.split(), shell=shell, PYTHONUNBUFFERED=buffered) == (status, b"", said)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_that_comes_within_a_destructor_still_ends_the_command(name):
    # Python has nobody to hand an exception to there; it says so on standard error and goes on.
    code = """
import os, signal, sys, time
from thalweg import process

class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.Signals[sys.argv[1]])
        time.sleep(0.01)

def run():
    kept = Last()
    del kept
    time.sleep(60)
    return 0

process.prepare()
raise SystemExit(process.ended("it", run))
"""
    done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, timeout=50)
    assert done.returncode == 128 + signal.Signals[name]
    assert done.stderr == b""


def test_a_file_never_takes_the_place_of_a_stream_that_was_closed(tmp_path):
    """Else what is printed would be written into it."""
    code = "import sys; from thalweg import process; process.prepare(); print(open(sys.argv[1]).fileno() > 2)"
    done = subprocess.run(
        ["sh", "-c", f"{shlex.join([sys.executable, '-c', code, '/dev/null'])} <&- 2>&-"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("explain adam", "theta_t = theta_{t-1} - eta*m_hat_t / (sqrt v_hat_t + epsilon)"),
        ("explain adamax", "max(beta_2*u_{t-1}, |g_t|)"),
    ],
)
def test_what_a_terminal_cannot_show_is_spelled(words, expected):
    status, told, said = ran(*words.split(), PYTHONIOENCODING="ascii", COLUMNS="18", TERM="dumb")
    assert (status, said) == (0, "")
    assert expected in told.decode("ascii")
    assert b"?" not in told


def test_a_file_s_name_that_is_no_text_is_printed_as_it_is(tmp_path):
    odd = os.fsencode(tmp_path) + b"/\xff"
    code = "from thalweg import process; process.prepare(); import os, sys; print(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, odd], capture_output=True, check=True)
    assert done.stdout == odd + b"\n"


def test_a_reader_that_has_gone_is_no_error_and_ends_the_command():
    command = [sys.executable, "-m", "thalweg", "kernel", "adam"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 141
