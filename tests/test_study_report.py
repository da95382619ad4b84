import dataclasses
import json
import os
import re
import shutil

import pytest
import torch

from study_cases import BLOBS, changed, findings_of, small
from thalweg.study.contestant import Contestant
from thalweg.study.errors import StudyError
from thalweg.study.planning.budget import Budget
from thalweg.study.planning.plan import CLASSICAL
from thalweg.study.reporting import advice, report, tables, wording
from thalweg.study.statistics import findings as statistics
from thalweg.study.study import Study

RUDE = '</script><img src=x onerror="alert(1)">|*%{x}$y_1$'


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """All classical optimizers at three rates, at the last of which all diverge."""
    plan = small(BLOBS, CLASSICAL, [0.01, 0.1, 1e30], budget=Budget(epochs=2), seeds=3)
    return findings_of(tmp_path_factory.mktemp("study"), plan)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another task, where two contestants are the same."""
    plan = small(changed(name="other"), ["sgd", "adam", "lion"], [0.01, 0.1], seeds=2)
    return findings_of(tmp_path_factory.mktemp("study"), plan)


@pytest.fixture(scope="module")
def rude(tmp_path_factory):
    """Names that are code wherever they are not escaped."""
    contestants = [Contestant("adam", name=RUDE), Contestant("sgd", name="plain")]
    plan = small(changed(name=f"task {RUDE}"), contestants, lr=None, budget=2)
    return findings_of(tmp_path_factory.mktemp("study"), plan)


def ours(page):
    """A page without plotly's own code."""
    return re.sub(r"<script>/\*\*\s.*?</script>", "", page, count=1, flags=re.DOTALL)


def drawn(page):
    return json.loads(re.search(r'id="drawn">(.*?)</script>', page, re.DOTALL)[1], parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def page(findings):
    return report.html(findings)


@pytest.fixture(scope="module")
def rude_page(rude):
    return report.html(rude)


def test_the_page_has_every_contestant_and_needs_nothing_else(page):
    assert "plotly.js" in page
    for name in CLASSICAL:
        assert re.search(rf'<span class="name">{name}</span>', page)
        assert f"<dt>{name}</dt>" in page
    # Namespaces are names, not addresses that a browser would visit.
    visited = re.sub(r'xmlns(:\w+)?="[^"]*"', "", ours(page))
    assert not re.search(r"https?:|\"//|\bsrc=|<link|@import", visited)
    assert "default-src 'none'" in page
    assert page.count("<figure") == len(drawn(page)) == 6
    assert "prefers-color-scheme: dark" in page


def test_the_page_says_the_answer_what_follows_and_what_it_rests_on(findings, page):
    said = [wording.answer(findings), *wording.notes(findings)]
    said += [part for s in advice.advise(findings).sentences for part in (s.text, s.evidence)]
    for sentence in said:
        assert str(report.Markup.escape(sentence)) in page


def test_the_table_has_what_the_statistics_say(findings):
    table = tables.of(findings)
    assert table.columns == (
        "default lr",
        "tuned lr",
        "validation loss",
        "test loss",
        "test accuracy",
        "beats the best",
        "test loss untuned",
        "ms per step",
        "state memory",
        "steps to target",
        "runs failed",
    )
    for row, summary in zip(table.rows, findings.summaries, strict=True):
        cells = dict(zip(table.columns, row.cells, strict=True))
        assert (row.name, row.below) == (summary.name, "keras")
        assert row.mark == tables.MARKS[findings.verdicts[summary.name]]
        assert row.leading == (summary in findings.tied)
        assert cells["default lr"].text == f"{summary.facts['defaults']['lr']:g}"
        assert cells["tuned lr"].text == f"{summary.final.lr:g}"
        for column, setting in (("test loss", summary.final), ("test loss untuned", summary.default)):
            cell = cells[column]
            assert f"{cell.text} ({cell.below})" == wording.interval(setting.median("test_loss"))
        assert len(cells["test loss"].more.split(",")) == 3, "each seed"
        assert cells["state memory"].text.endswith("B")
        chance = cells["beats the best"]
        if summary is findings.leader:
            assert chance.text == "–"
        else:
            share = findings.beats(summary, findings.leader)
            assert f"{chance.text} ({chance.below})" == wording.interval(share)
        assert cells["runs failed"] == ("17%", "of 12", "2 diverged")


def test_a_target_out_of_reach_is_named_so(findings):
    cells = [tables._to_target(findings, summary) for summary in findings.summaries]
    for cell, summary in zip(cells, findings.summaries, strict=True):
        reached = findings.to_target(summary).estimate != float("inf")
        assert (cell.text == "not reached") != reached
    assert len({cell.text for cell in cells}) > 1


def test_further_tuned_hyperparameters_stand_below_the_rate(tmp_path):
    plan = small(optimizers=["momentum"], lr=None, tune=["momentum"], budget=6, seeds=1)
    (summary,) = findings_of(tmp_path, plan).summaries
    final = dataclasses.replace(summary.final, chosen={"lr": 0.1, "momentum": 0.95})
    assert tables._chosen(dataclasses.replace(summary, final=final)).below == "momentum 0.95"


def test_names_are_escaped(rude_page):
    text = ours(rude_page)
    assert "<img" not in text
    assert text.count("</script>") == 2, "those of the page itself"
    assert "alert(1)&#34;&gt;" in text
    data = drawn(rude_page)["chart-0"]["data"]
    assert {trace["meta"]["name"] for trace in data} == {RUDE, "plain"}
    assert not any("<" in trace["name"] for trace in data)


def test_what_is_drawn_is_small_and_complete(page):
    data = [trace for chart in drawn(page).values() for trace in chart["data"]]
    numbers = [v for trace in data for axis in "xy" for v in trace[axis] if v is not None]
    assert all(float(f"{v:.5g}") == v for v in numbers)
    assert {trace["meta"]["part"] for trace in data} == {"band", "line", "good", "mark"}
    assert not any("color" in json.dumps(trace) for trace in data), "the page knows whether it is dark"


def test_the_summary_is_markdown_with_the_same_table(findings, rude):
    text = report.markdown(findings)
    assert wording.answer(findings) in text.replace("\\", "")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(CLASSICAL)
    assert len({row.count(" | ") for row in rows}) == 1
    escaped = [line for line in report.markdown(rude).splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in escaped}) == 1
    assert not re.search(r"(?<!\\)<", report.markdown(rude))


def test_files_are_written_and_stand_alone(findings, tmp_path):
    written = report.write(tmp_path / "new", findings)
    assert [path.name for path in written] == ["report.html", "curves.png", "curves.svg", "summary.md"]
    assert written.page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert written.picture.read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in written.drawing.read_text(encoding="utf-8")
    assert written.summary.read_text(encoding="utf-8").startswith("# blobs: 8 optimizers compared\n")
    folder = findings.study.store.folder.resolve()
    assert not any(str(folder).encode() in path.read_bytes() for path in written)


def test_a_report_says_what_the_version_covers_and_what_was_passed_over(tmp_path):
    def mine(params, lr=0.1):
        return torch.optim.SGD(params, lr=lr)

    task = changed(covers={"model": "0", "models.py": "1"})
    study = Study.of(small(task, [mine], lr=[0.1], seeds=2), tmp_path)
    study.resume()
    text = report.markdown(study.findings())
    assert "- the version covers: model, models.py\n" in text
    assert "- the code of mine covers: optimizer, test\\_study\\_report.py\n" in text
    path = next((tmp_path / "trials").iterdir())
    path.write_text("{\n")
    opened = Study.open(tmp_path)
    assert "1 file in the folder is not as a run left it, and skipped." in report.markdown(opened.findings())


@pytest.mark.parametrize("name", ["report.html", "curves.png", "curves.svg", "summary.md"])
def test_a_file_that_cannot_be_written_is_named(tmp_path, name):
    findings = statistics.find(Study.of(small(), tmp_path))
    (tmp_path / name).mkdir()
    with pytest.raises(StudyError, match=rf"{re.escape(name)} cannot be written"):
        report.write(tmp_path, findings)


@pytest.mark.skipif(os.name != "posix", reason="links as POSIX has them")
def test_files_are_written_beside_and_moved_into_place(tmp_path, monkeypatch):
    """Links are replaced, not followed; and what fails leaves what was there."""
    findings = statistics.find(Study.of(small(), tmp_path / "study"))
    for name in ("report.html", "curves.png", "curves.svg", "summary.md"):
        (tmp_path / f"kept {name}").write_text("kept")
        (tmp_path / name).symlink_to(tmp_path / f"kept {name}")
    for path in report.write(tmp_path, findings):
        assert not path.is_symlink()
        assert (tmp_path / f"kept {path.name}").read_text() == "kept"

    def fails(figure, file, kind):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    monkeypatch.setattr("thalweg.plot.writer.save", fails)
    with pytest.raises(StudyError, match=r"curves\.png cannot be written: No space left"):
        report.write(tmp_path, findings)
    assert before == {path: path.read_bytes() for path in tmp_path.glob("*.*")}


def test_a_report_on_nothing_is_refused(tmp_path):
    with pytest.raises(StudyError, match="one study or more"):
        report.write(tmp_path)


MANY = [Contestant("adam", name=f"adam {i}", fixed={"beta_1": 0.5 + i / 100}) for i in range(27)]


@pytest.mark.parametrize(
    ("plan", "runs", "said", "figures"),
    [
        (small(optimizers=["adam"], lr=[0.1], seeds=1), None, "1 optimizer compared", 4),
        (small(seeds=2), 3, "Not complete: 3 of ", 6),
        (small(optimizers=["adam"], lr=[0.1], seeds=2), 0, "No run has ended yet", 0),
        (small(lr=[1e30, 1e31]), None, "Every run failed", 0),
        (small(lr=None, budget=Budget(trials=4, epochs=4), halving=True), None, "losing settings stopped", 5),
        (small(budget=Budget(seconds=0.01)), None, "0.01 seconds", 6),
        (small(optimizers=MANY, lr=None, budget=Budget(trials=1, epochs=1), seeds=1), None, "adam 26", 4),
    ],
    ids=["single", "incomplete", "not begun", "all diverged", "halving", "seconds", "many"],
)
def test_every_study_has_a_report(plan, runs, said, figures, tmp_path):
    if runs == 0:
        Study.of(plan, tmp_path)
        findings = statistics.find(Study.open(tmp_path))
    else:
        findings = findings_of(tmp_path, plan, runs)
    page = report.html(findings)
    assert said in page
    assert len(drawn(page)) == figures
    assert ("there is nothing to draw" in page) == (not figures)
    assert report.markdown(findings).startswith("# blobs: ")
    hidden = page.count('aria-pressed="false"')
    assert hidden == max(0, len(plan.contestants) - report.SHOWN) * bool(figures)


def test_crashed_runs_are_told_with_their_reason(tmp_path):
    findings_of(tmp_path, small(seeds=1))
    crash = {"status": "crashed", "reason": "ValueError: a & b"}
    study = Study.open(tmp_path)
    for key, run in study.runs.items():
        if run.header["specification"]["contestant"]["name"] == "sgd":
            study.runs[key] = dataclasses.replace(run, end={**run.end, **crash})
    text = report.html(statistics.find(study))
    assert "Reason for a crash: ValueError: a &amp; b." in text
    assert "100%<small>of " in text
    assert "✕ failed" in text


def test_a_measure_that_no_run_has_is_a_dash(findings):
    study = Study.open(findings.study.store.folder)
    study.facts["task"]["measures"].append({"name": "novel", "lower_is_better": True})
    fresh = statistics.find(study)
    table = tables.of(fresh)
    at = table.columns.index("test novel")
    assert {row.cells[at].text for row in table.rows} == {"–"}
    assert len(drawn(report.html(fresh))) == 6


def test_several_tasks_are_compared_by_a_profile(findings, other, tmp_path):
    written = report.write(tmp_path, findings, other)
    page = written.page.read_text(encoding="utf-8")
    assert "Optimizers compared on blobs, other" in page
    assert "Performance profile by steps" in page
    assert ours(page).count("<h2>") == 2
    assert "Best, or indistinguishable from the best, in" in page
    text = written.summary.read_text(encoding="utf-8")
    assert "blobs: test loss | other: test loss" in text
    assert wording.answer(other) in text.replace("\\", "")


def test_tasks_without_a_contestant_in_common_have_no_profile_and_say_so(findings, tmp_path):
    alone = findings_of(tmp_path, small(changed(name="alone"), ["lion"], [0.1], seeds=1))
    page = report.html(findings, alone)
    assert "There is no performance profile: these studies have no contestant in common." in page


def test_two_studies_of_one_task_stand_beside_each_other(findings, tmp_path):
    shutil.copytree(findings.study.store.folder, tmp_path / "again")
    again = statistics.find(Study.open(tmp_path / "again"))
    found = report._report([findings, again])
    assert [section.label for section in found.sections][1] == "blobs (again)"
    assert [chart.key for chart in found.charts] == ["side_by_side"]
    text = report.markdown(again, again)
    assert "blobs (again) 1: test loss | blobs (again) 2: test loss" in text.replace("\\", "")


# -- in a browser ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_file(findings, rude, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report.html(findings, rude), encoding="utf-8")
    return path


def opened(browser, path, **how):
    """A page, and what it complained of and fetched beside itself."""
    page = browser.new_context(**how).new_page()
    heard = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url))
    page.goto(path.as_uri())
    assert heard.pop(0) == path.as_uri()
    return page, heard


@pytest.fixture(scope="module")
def phone(browser, page_file):
    how = {"is_mobile": True, "has_touch": True, "color_scheme": "dark"}
    return opened(browser, page_file, viewport={"width": 390, "height": 844}, **how)


@pytest.fixture(scope="module")
def desktop(browser, page_file):
    return opened(browser, page_file, viewport={"width": 1280, "height": 900}, color_scheme="light")


ON_WHITE, ON_DARK = "rgb(31, 35, 40)", "rgb(230, 237, 243)"


def assert_ink(page, ink):
    """The charts' numbers are of this colour, at once or soon: a browser tells a page between frames."""
    from playwright.sync_api import expect

    expect(page.locator(".xtick text").first).to_have_css("fill", ink)


@pytest.mark.parametrize(("device", "width", "ink"), [("phone", 390, ON_DARK), ("desktop", 1280, ON_WHITE)])
def test_the_page_draws_everything_fetches_nothing_and_fits(request, page_file, device, width, ink):
    page, heard = request.getfixturevalue(device)
    assert heard == []
    charts = page.locator(".plot").all()
    assert len(charts) == len(drawn(page_file.read_text(encoding="utf-8")))
    for chart in charts:
        assert chart.locator(".scatterlayer .trace").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator(".still").first.is_hidden()
    assert_ink(page, ink)


def test_the_legend_hides_an_optimizer_in_all_charts(desktop):
    page, heard = desktop

    def shown():
        return page.evaluate(
            """[...document.querySelectorAll('.plot')].flatMap(plot => plot.data)
               .filter(trace => trace.meta.name === 'adam' && trace.visible).length"""
        )

    button, before = page.locator('.legend [data-name="adam"]').first, shown()
    assert before > 6
    button.click()
    assert shown() == 0
    assert button.get_attribute("aria-pressed") == "false"
    page.locator("[data-all]").first.click()
    assert shown() == before
    assert heard == []


def test_a_change_to_dark_repaints_the_charts(desktop):
    page, heard = desktop
    for scheme, ink in (("dark", ON_DARK), ("light", ON_WHITE)):
        page.emulate_media(color_scheme=scheme)
        assert_ink(page, ink)
    assert heard == []


def test_paper_is_white_and_has_drawings_in_place_of_the_charts(phone):
    page, _ = phone
    page.set_viewport_size({"width": 718, "height": 1000})
    page.emulate_media(media="print")
    assert page.locator(".plot").first.is_hidden()
    assert page.locator(".still").first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") == 718


def test_without_scripts_the_drawings_are_seen(browser, page_file):
    page, _ = opened(browser, page_file, java_script_enabled=False)
    assert page.locator(".still").first.is_visible()
    assert page.locator(".plot").first.is_hidden()
