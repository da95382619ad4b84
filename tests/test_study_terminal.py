import io
import itertools
import math

import pytest
from rich.console import Console

from study_cases import BLOBS, Bowl, small
from thalweg.study.contestant import Contestant
from thalweg.study.reporting import terminal
from thalweg.study.reporting.terminal import Dashboard, Pace
from thalweg.study.running.engine import Engine
from thalweg.study.statistics.findings import find
from thalweg.study.study import Study, compare
from thalweg.study.task import LOSS, Measure, Task

MEASURES = ("loss", "accuracy", "perplexity", "error")


class TwoMeasures(Bowl):
    measures = MEASURES

    def evaluate(self, subset):
        noise = 0.1 * math.sin(self.seed * len(self.setting.contestant))
        return dict.fromkeys(MEASURES, 0.5 + self.distance**2 + noise + (subset == "test"))


BOWL = Task("bowl", "1", TwoMeasures, (LOSS, Measure("accuracy", False)), epochs=2, batch_size=8)
NAMES = ("a name that nobody would choose for an optimizer", "adamw@torch+warmup+cosine")


def printed(found, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(found)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    optimizers = ["adam", "sgd", Contestant("nadam", space={"lr": [0.01, 0.02]})]
    folder = tmp_path_factory.mktemp("study")
    return compare(BOWL, optimizers, budget=3, seeds=4, search_seeds=2, out=folder, jobs=1)


def test_the_table_has_a_row_for_each_contestant_best_first(study):
    lines = printed(terminal.table(find(study))).splitlines()
    adam, beneath, nadam, _, sgd, _ = (line.split() for line in lines[3:])
    loss = find(study).summaries[0].final.median("test_loss")
    assert adam[:7] == ["●", "adam", "0.001", "0.0316", "0.499", "1.50", "1.50"]
    assert adam[7] == f"0/{3 * 2 + 4 + 4}"
    assert beneath == 2 * [f"{loss.low:.2f}–{loss.high:.2f}"]
    assert nadam[:4] == ["●", "nadam", "0.001", "0.02"]
    assert sgd == ["sgd", "0.01", "–", "–", "–", "–", "10/10", "–"]


def test_ties_are_marked_and_explained(study):
    said = printed(terminal.table(find(study)))
    assert said.count("●") == 3
    assert "● within the noise of the best" in said
    alone = find(study)
    object.__setattr__(alone, "summaries", alone.summaries[:1])
    assert "●" not in printed(terminal.table(alone)), "nobody to be told apart from"


def test_the_table_fits_into_80_columns_whatever_the_names_and_measures(tmp_path):
    measures = (LOSS, *(Measure(name, False) for name in ("accuracy", "perplexity", "error")))
    task = Task("bowl", "2", TwoMeasures, measures, epochs=2)
    optimizers = [Contestant("adam", name=NAMES[0]), NAMES[1]]
    study = compare(task, optimizers, budget=3, seeds=3, out=tmp_path, jobs=1)
    wide, narrow = (printed(terminal.table(find(study)), width) for width in (200, 80))
    assert all(len(line) <= 80 for line in narrow.splitlines())
    for head in ("optimizer", "default", "tuned", "valid.", "test", "failed", "ms a", "accuracy"):
        assert head in narrow
    assert "error" not in wide, "left to the report"
    assert NAMES[0] in wide
    assert NAMES[1] in wide


@pytest.mark.parametrize("width", [18, 40, 60])
def test_names_stay_in_a_narrow_terminal(study, width):
    for shown in (terminal.table(find(study)), terminal.ranking(find(study)), Dashboard(study, Pace([]))):
        lines = printed(shown, width).splitlines()
        assert all(len(line) <= width for line in lines)
        words = {word for line in lines for word in line.split()}
        assert {"adam", "sgd", "nadam"} <= words
        assert "…" not in "".join(lines), "a number is shown whole or not at all"
    assert ("━" in printed(Dashboard(study, Pace([])), width)) == (width == 60), "the bar goes first"
    assert "0.0316" in printed(terminal.ranking(find(study)), 40)


def test_a_long_name_is_folded_in_a_narrow_terminal(tmp_path):
    study = compare(
        BOWL, [Contestant("adam", name="abcdefghijklmnopqrstu")], budget=1, seeds=1, out=tmp_path, jobs=1
    )
    for shown in (terminal.table(find(study)), terminal.ranking(find(study))):
        assert "abcdefghijklmnopqrstu" in "".join(printed(shown, 18).split())


def test_one_setting_each_is_not_called_tuned(tmp_path):
    study = compare(BOWL, "adam", vary={"lr": [0.01, 0.1]}, out=tmp_path, seeds=1, jobs=1)
    assert "tuned" not in printed(terminal.table(find(study)))


def test_a_study_that_has_just_begun_has_a_table_too(tmp_path):
    begun = Study.of(small(), tmp_path)
    said = printed(terminal.state(begun))
    assert said.startswith("0 of 16 runs\n")
    assert "0/0" in said
    assert [line.split() for line in printed(terminal.ranking(find(begun))).splitlines()[1:]] == [
        ["sgd", "–", "–", "0", "0"],
        ["adam", "–", "–", "0", "0"],
    ]


def test_the_ranking_so_far_is_by_validation_loss(study):
    lines = printed(terminal.ranking(find(study))).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["adam", "nadam", "sgd"]
    assert lines[2].split() == ["nadam", "0.02", "0.516", "12", "0"]
    assert lines[3].split() == ["sgd", "–", "–", "10", "10"]


@pytest.fixture
def clock(monkeypatch):
    """The time, to be set."""
    now = [1000.0]
    monkeypatch.setattr(terminal.time, "time", lambda: now[0])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


def test_what_is_left_follows_from_how_fast_runs_came(clock):
    assert Pace([]).left(10) is None
    assert Pace([999.0]).left(10) is None
    pace = Pace([980.0, 990.0, 1000.0])
    assert pace.left(6) == 60
    clock[0] = 1005.0
    assert pace.left(6) == 55, "a run is under way"
    clock[0] = 2000.0
    assert pace.left(6) == 0
    assert Pace([0.0, *range(1900, 2001)]).left(10) == 10, "the last ones tell"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min"), (3599, "60 min"), (9000, "2 h 30 min")]
)
def test_times_are_said_to_the_unit_that_matters(seconds, said):
    assert terminal._duration(seconds) == said


def test_the_ranking_is_computed_anew_only_now_and_then(study, clock, monkeypatch):
    taken = []

    def slow(study):
        taken.append(clock[0])
        clock[0] += cost
        return find(study)

    monkeypatch.setattr(terminal, "find", slow)
    board = Dashboard(study, Pace([]))
    cost = 0.0
    for _ in range(12):
        printed(board)
        clock[0] += 0.25
    assert taken == [1000.0, 1002.0]
    cost, clock[0] = 1.0, 1010.0
    for _ in range(300):
        printed(board)
        clock[0] += 0.1
    assert taken[2:] == [1010.0, pytest.approx(1030.0, abs=0.2)], "a twentieth of the time at most"


def running(folder):
    study = Study.of(small(BLOBS, seeds=1, lr=[0.1]), folder)
    study.engine = Engine(jobs=1)
    return study


def test_in_a_terminal_progress_and_ranking_are_drawn_and_taken_back(tmp_path):
    study = running(tmp_path)
    console = Console(file=io.StringIO(), force_terminal=True, width=80, _environ={})
    seen = []
    for run in terminal.follow(study, study.iterate(), console):
        seen.append(run.header["id"])
    assert set(seen) == study.runs.keys()
    drawn = console.file.getvalue()
    assert "0 of 2 runs" in drawn
    assert "2 of 2 runs" in drawn
    assert "optimizer so far" in drawn
    assert drawn.endswith("\x1b[2K") or "\x1b[1A\x1b[2K" in drawn[-200:], "nothing of it stays"


def test_in_a_log_there_is_a_line_now_and_then(tmp_path, clock):
    study = running(tmp_path)
    console = Console(file=io.StringIO(), width=80)
    for _ in terminal.follow(study, study.iterate(), console):
        clock[0] += 45
    assert console.file.getvalue() == "2 of 2 runs\n"


def test_a_study_is_watched_until_it_is_complete(tmp_path):
    study = running(tmp_path)
    steps = study.iterate()
    watching = Study.open(tmp_path)
    assert (watching.done, watching.complete) == (0, False)
    console = Console(file=io.StringIO(), force_terminal=True, width=80, _environ={})
    looks = itertools.count()
    terminal.watch(watching, console, pause=lambda: next(looks) and next(steps, None))
    assert watching.complete
    assert watching.done == 2
    assert next(looks) == 4, "before, after each run, and after the end"
    assert "2 of 2 runs" in console.file.getvalue()


def test_watching_without_a_terminal_writes_lines(tmp_path, clock):
    study = running(tmp_path)
    steps = study.iterate()

    def pause():
        clock[0] += 40
        next(steps, None)

    console = Console(file=io.StringIO(), width=80)
    terminal.watch(Study.open(tmp_path), console, pause)
    lines = console.file.getvalue().splitlines()
    assert [line[:11] for line in lines] == ["0 of 2 runs", "2 of 2 runs"]


def test_watching_follows_a_search_that_calls_for_more(tmp_path):
    study = Study.of(small(BLOBS, ["adam"], lr=None, budget=4, seeds=1), tmp_path)
    study.engine = Engine(jobs=1)
    watching = Study.open(tmp_path)
    before = len(watching.entries)
    study.resume()
    watching.refresh()
    assert len(watching.entries) == len(study.entries) > before
    assert watching.rows() == study.rows()
    assert watching.facts == study.facts
