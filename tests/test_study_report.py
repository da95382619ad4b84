import re

import matplotlib.image
import pytest

from study_cases import BLOBS, changed, small
from thalweg.study import engine, figures, report, statistics, terminal
from thalweg.study.errors import StudyError
from thalweg.study.plan import CLASSICAL
from thalweg.study.store import Store


def studied(folder, plan):
    store = Store(folder)
    store.open()
    list(engine.run(plan.trials, store, jobs=1))
    return plan, statistics.rank(plan, store)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """All classical optimizers at three rates, the last of which makes some diverge."""
    return studied(tmp_path_factory.mktemp("study"), small(BLOBS, CLASSICAL, [0.01, 0.1, 1e30], epochs=2))


def test_the_page_has_every_contestant_and_needs_nothing_else(study):
    page = report.html(*study)
    for name in CLASSICAL:
        assert re.search(rf'<th scope="row">{name}\b', page)
        assert f"<dt>{name}</dt>" in page
    # Namespaces are names, not addresses that a browser would visit.
    visited = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.search(r"https?:|//[a-z]|\bsrc=|<link|@import|<script", visited)
    assert page.count("<figure") == 4
    assert "runs diverged" in page
    assert "prefers-color-scheme: dark" in page


def test_pictures_follow_the_pages_colours(study):
    drawing = figures.svg(figures.panels(*study)[0])
    assert drawing.startswith("<svg")
    for name in ("--ink", "--grid", "--series-0", "--series-7"):
        assert f"var({name})" in drawing
    assert not set(re.findall(r"#[0-9a-f]{6}", drawing)) - {"#ffffff", "#000000"}


def test_contestants_look_different():
    looks = figures.looks(small(optimizers=CLASSICAL)).values()
    assert len({look.colour for look in looks}) == len(set(looks)) == 8


def test_names_are_escaped(tmp_path):
    page = report.html(*studied(tmp_path, small(changed(name="<b>&amp;"), lr=[0.1], seeds=1)))
    assert "<b>" not in page
    assert "&lt;b&gt;&amp;amp;" in page


def test_one_rate_has_no_sensitivity_and_one_seed_no_range(tmp_path):
    plan, ranking = studied(tmp_path, small(lr=[0.1], seeds=1))
    assert [panel.title for panel in figures.panels(plan, ranking)] == [
        "Training loss",
        "Validation loss",
        "Validation accuracy",
    ]
    assert "One seed" in report.html(plan, ranking).replace("With one", "One")
    assert report.write(tmp_path, plan, ranking)


def test_a_study_in_which_all_diverge_is_reported_too(tmp_path):
    plan, ranking = studied(tmp_path, small(optimizers=["sgd", "momentum"], lr=[1e30, 1e31]))
    page, picture = report.write(tmp_path, plan, ranking)
    assert "No run went through" in page.read_text(encoding="utf-8")
    assert picture.exists()
    assert terminal.table(plan, ranking).row_count == 2


def test_a_study_in_which_all_crash_says_why(tmp_path):
    page = report.html(*studied(tmp_path, small(changed(model=list), lr=[0.1])))
    assert "4 of 4 runs crashed" in page
    assert "AttributeError" in page


def test_files_are_written_and_the_picture_is_one(study, tmp_path):
    page, picture = report.write(tmp_path, *study)
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    pixels = matplotlib.image.imread(picture)
    assert pixels.shape[0] > 800
    assert len({tuple(colour) for colour in pixels[::7, ::7, :3].reshape(-1, 3)}) > 8, "something is drawn"


def test_a_report_that_cannot_be_written_is_named(study, tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(StudyError, match=r"report\.html cannot be written"):
        report.write(tmp_path, *study)
