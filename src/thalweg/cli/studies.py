"""The commands about studies: what they take, call and print."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thalweg.cli.arguments import DIALECTS, UsageError, asked, names
from thalweg.process import Stopped, complain
from thalweg.study.reporting.rules_of_thumb import FEATURES

if TYPE_CHECKING:
    from thalweg.study.reporting.advice import Advice
    from thalweg.study.reporting.trackers import Tracker
    from thalweg.study.study import Study

# Whatever studies import beyond the core: the modules of the extra `study`.
STUDY = (
    *("torch", "joblib", "cloudpickle", "scipy", "polars", "rich", "matplotlib", "plotly", "jinja2"),
    "sklearn",
)

# What `compare` passes on as it is, where it is given, and what a trial may cost.
_OPTIONS = (
    *("optimizers", "dialect", "lr", "tune", "seeds", "search_seeds", "batch_size", "every"),
    *("halving", "proposer", "defaults"),
)
_BUDGET = ("trials", "epochs", "steps", "seconds")

# How wide sentences are set.
_WIDTH = 88


def advise(arguments: argparse.Namespace) -> int:
    """Say which optimizer to use: from studies, or by rules of thumb."""
    features = [name for name in FEATURES if getattr(arguments, _field(name))]
    if bool(arguments.folders) == bool(features):
        raise UsageError(
            "give the folders of studies, or say what the problem is like (--sparse, --rnn, ...)"
            + (", not both" if features else "")
        )
    if features and arguments.default:
        raise UsageError("--default names an optimizer of a study; give its folder")
    _need_extra()
    from thalweg.study.reporting.advice import rules_of_thumb

    if features:
        print("Rules of thumb from the literature; nothing was measured on your problem:\n")
        _say(rules_of_thumb(features))
        return 0
    studies = [_opened(folder) for folder in arguments.folders]
    found = [study.advice(arguments.default) for study in studies]
    for i, (study, advice) in enumerate(zip(studies, found, strict=True)):
        if len(studies) > 1:
            print("\n" * bool(i) + f"{study.facts['task']['name']} ({study.store.folder}):\n")
        _say(advice)
    return 0


def compare(arguments: argparse.Namespace) -> int:
    """Train a task with several optimizers and report which did how."""
    _need_extra()
    from thalweg.study import tasks
    from thalweg.study.planning import plan
    from thalweg.study.planning.budget import Budget, counted
    from thalweg.study.planning.configuration import from_toml
    from thalweg.study.reporting import report, terminal, wording
    from thalweg.study.running.engine import Engine
    from thalweg.study.study import Study

    console = terminal.Screen()
    with asked():
        options = from_toml(arguments.config) if arguments.config else {}
        options |= {key: vars(arguments)[key] for key in _OPTIONS if vars(arguments)[key] is not None}
        given = {key: vars(arguments)[key] for key in _BUDGET if vars(arguments)[key] is not None}
        options["budget"] = _budget(Budget, options.get("budget"), given)
        options["vary"] = dict(arguments.vary)
        planned = plan.make(tasks.get(arguments.task, arguments.folder), **options)
        engine = Engine(arguments.engine, arguments.address, arguments.jobs)
    trackers = _trackers(arguments)
    study = Study.of(planned, arguments.out)
    study.engine = engine
    most = "up to " if planned.searching and not study.complete else ""
    before = f", {study.done} of them done before" if study.done else ""
    runs = counted(study.total, "training runs")
    console.print(f"{planned.task.name}: {most}{runs} of {planned.length}{before}")
    for sentence in (*study.outdated, *(f"Not as it was left, so run anew: {one}" for one in study.altered)):
        console.print(sentence, markup=False)
    if trackers and study.done:
        console.print("What was done before is not logged again.")
    try:
        for run in terminal.follow(study, study.iterate(), console):
            for tracker in trackers:
                tracker(study, run)
    except KeyboardInterrupt:
        complain("Stopped; the same command goes on from here.")
        raise
    finally:
        engine.close()
    findings = study.findings()
    written = report.write(study.store.folder, findings)
    console.print("", terminal.table(findings), "", sep="\n")
    missed = [tracker.sentence for tracker in trackers if tracker.sentence]
    for sentence in (wording.answer(findings), *wording.notes(findings), *missed):
        console.print(sentence, markup=False)
    print(f"\nReport: {written.page}\nCurves: {written.picture}\nAdvice: thalweg advise {study.store.folder}")
    return 1 if any(run.end["status"] in ("crashed", "memory") for run in study.runs.values()) else 0


def export(arguments: argparse.Namespace) -> int:
    """Write a study's trials as one table, .parquet or .csv."""
    _need_extra()
    _opened(arguments.folder).export(arguments.out, arguments.evaluations)
    print(arguments.out)
    return 0


def report(arguments: argparse.Namespace) -> int:
    """Write the report of one study anew, or of several together."""
    if len(arguments.folders) > 1 and not arguments.out:
        raise UsageError("a report of several studies belongs to none of them: say where with --out")
    _need_extra()
    from thalweg.study.reporting.report import write

    findings = [_opened(folder).findings() for folder in arguments.folders]
    out = arguments.out or arguments.folders[0]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}") from None
    for path in write(out, *findings):
        print(path)
    return 0


def watch(arguments: argparse.Namespace) -> int:
    """Show how far a study is that another process runs."""
    _need_extra()
    from thalweg.study.reporting import terminal, wording

    console = terminal.Screen()
    study = _opened(arguments.folder)
    left = None
    if not arguments.once:
        try:
            terminal.watch(study, console)
        except Stopped:
            raise
        except KeyboardInterrupt as stop:  # the way out: what is watched goes on
            left = stop
    console.print(terminal.state(study))
    console.print("", wording.answer(study.findings()), sep="\n", markup=False)
    if left:
        raise left
    return 0


# -- what they take ----------------------------------------------------------------------------------------


def _advise_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("folders", metavar="DIR", nargs="*", type=Path, help="the folder of a study, complete or not")
    add("--default", metavar="NAME", help="the optimizer that you would take otherwise (default: adam)")
    group = command.add_argument_group("rules of thumb, without a study, for")
    for name, meaning in FEATURES.items():
        group.add_argument(f"--{name}", dest=_field(name), action="store_true", help=meaning)


def _compare_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("task", metavar="TASK", help="a built-in task, or FILE.py:NAME of your own")
    add(
        "--optimizers",
        type=names,
        metavar="A,B",
        help="rules, with @dialect and +schedule (adamw@torch+warmup+cosine), or FILE.py:NAME of your own "
        "(default: the eight classical)",
    )
    add(
        "--vary",
        type=_values,
        action="append",
        default=[],
        metavar="NAME=X,Y",
        help="one optimizer with each of these values of batch_size, lr or another hyperparameter; its "
        "learning rate is tuned for each, unless --lr gives one",
    )
    add("--config", type=Path, metavar="FILE", help="budget, seeds, optimizers and their spaces, as TOML")
    add("--trials", type=int, metavar="N", help="settings each optimizer may try (default: 12)")
    add("--lr", type=_rates, metavar="X,Y", help="learning rates to try (default: a half-decade grid)")
    add("--tune", type=names, metavar="A,B", help="further hyperparameters to search, such as beta_1")
    add("--epochs", type=int, metavar="N", help="passes over the training data (default: the task's)")
    add("--steps", type=int, metavar="N", help="length of a run in steps, instead")
    add("--seconds", type=float, metavar="S", help="length of a run in seconds of training, instead")
    add("--batch-size", type=int, metavar="N", help="examples a step (default: the task's)")
    add("--every", type=int, metavar="N", help="steps between evaluations (default: an epoch)")
    add("--seeds", type=int, metavar="N", help="runs of each best setting and default (default: 5)")
    add("--search-seeds", type=int, metavar="N", help="runs of each setting of the search (default: 2)")
    add("--halving", action="store_true", default=None, help="stop settings early that are clearly losing")
    add("--proposer", metavar="NAME", help="who proposes settings: grid or optuna (default: grid)")
    add(
        "--no-defaults",
        action="store_false",
        default=None,
        dest="defaults",
        help="leave the untuned optimizers out",
    )
    add("--jobs", type=int, metavar="N", help="processes at a time (default: one for every core)")
    add("--engine", default="local", metavar="NAME", help="local, dask or ray (default: local)")
    add("--address", metavar="ADDRESS", help="of the cluster's scheduler, such as tcp://host:8786")
    add("--out", type=Path, metavar="DIR", help="the study's folder (default: studies/TASK)")
    add("--resume", action="store_true", help="go on with what is in the folder, as is done anyway")
    add(
        "--data",
        dest="folder",
        type=Path,
        metavar="DIR",
        help="folder of the data files (default: downloaded once)",
    )
    add("--dialect", help=f"whose arithmetic and defaults: {DIALECTS} (default: keras)")
    add("--tensorboard", type=Path, metavar="DIR", help="log each run for TensorBoard too")
    add("--mlflow", metavar="URI", help="log each run with MLflow too, such as sqlite:///mlflow.db")


def _export_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("folder", metavar="DIR", type=Path, help="the folder of a study, complete or not")
    add(
        "out", metavar="OUT", type=Path, help="the file to write; its ending, .parquet or .csv, says its kind"
    )
    add("--evaluations", action="store_true", help="a row for each evaluation, not for each trial")


def _report_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("folders", metavar="DIR", nargs="+", type=Path, help="the folder of a study, complete or not")
    add("--out", type=Path, metavar="FOLDER", help="where to write it (default: DIR, if there is one)")


def _watch_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("folder", metavar="DIR", type=Path, help="the folder of a study")
    add("--once", action="store_true", help="as it is now, and no longer")


def _rates(text: str) -> list[float]:
    try:
        return [float(rate) for rate in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"learning rates are numbers with commas between, such as 0.001,0.01; got {text!r}"
        ) from None


def _values(text: str) -> tuple[str, list[float]]:
    name, _, values = text.partition("=")
    try:
        return name.strip(), [float(value) for value in values.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"what is varied is NAME=X,Y in numbers, such as batch_size=16,32; got {text!r}"
        ) from None


def _field(feature: str) -> str:
    """Where the arguments have a feature: one of them may be named as an option is."""
    return f"feature {feature}"


# -- helpers -----------------------------------------------------------------------------------------------


def _need_extra() -> None:
    absent = [module for module in STUDY if find_spec(module) is None]
    if absent:
        raise UsageError(f"{', '.join(absent)} not installed: pip install 'thalweg[study]'")


def _opened(folder: Path) -> Study:
    """A study by its folder; what in it is not as a run left it is named, and passed over."""
    from thalweg.study.study import Study

    study = Study.open(folder)
    for sentence in study.altered:
        complain(f"Not as it was left, so passed over: {sentence}")
    return study


def _budget(kind: Any, base: Any, given: dict[str, Any]) -> Any:
    """The file's budget with what the command says; a length replaces another."""
    known = {name: getattr(base, name) for name in _BUDGET} if base else {}
    if given.keys() - {"trials"}:
        known = {"trials": known.get("trials")}
    return kind(**known | given)


def _trackers(arguments: argparse.Namespace) -> Sequence[Tracker]:
    from thalweg.study.reporting.trackers import MLflow, TensorBoard

    found: list[Tracker] = []
    if arguments.tensorboard:
        found.append(TensorBoard(arguments.tensorboard))
    if arguments.mlflow:
        found.append(MLflow(arguments.mlflow))
    return found


def _say(advice: Advice) -> None:
    """Each sentence, and what it rests on below."""
    whole: dict[str, Any] = {"width": _WIDTH, "break_on_hyphens": False, "break_long_words": False}
    text = textwrap.TextWrapper(**whole)
    basis = textwrap.TextWrapper(**whole, initial_indent=" " * 4, subsequent_indent=" " * 4)
    for sentence in advice.sentences:
        print(text.fill(sentence.text), basis.fill(sentence.evidence), sep="\n")


COMMANDS = {
    "advise": (advise, _advise_arguments),
    "compare": (compare, _compare_arguments),
    "export": (export, _export_arguments),
    "report": (report, _report_arguments),
    "watch": (watch, _watch_arguments),
}
