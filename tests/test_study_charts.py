import math
import re

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from study_cases import BLOBS, changed, findings_of, small
from thalweg.plot import writer
from thalweg.plot.theme import DARK, LIGHT
from thalweg.study.contestant import Contestant
from thalweg.study.errors import StudyError
from thalweg.study.planning.plan import CLASSICAL
from thalweg.study.reporting import charts, figures
from thalweg.study.reporting.charts import Chart, Series
from thalweg.study.statistics import findings as statistics
from thalweg.study.study import Study


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """All classical optimizers at four rates, at the last of which all diverge."""
    plan = small(BLOBS, CLASSICAL, [0.001, 0.01, 0.1, 1e30])
    return findings_of(tmp_path_factory.mktemp("study"), plan)


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    """One optimizer with three batch sizes."""
    sizes = {f"adam of {size}": size for size in (16, 4, 64)}
    contestants = [Contestant("adam", name=name, batch_size=size) for name, size in sizes.items()]
    findings = findings_of(tmp_path_factory.mktemp("study"), small(optimizers=contestants, budget=3, lr=None))
    findings.study.facts["varied"] = {"name": "batch_size", "values": sizes}
    return findings


def by_key(findings):
    return {chart.key: chart for chart in charts.of(findings)}


def line(x=(1.0, 2.0, 3.0), y=(3.0, 2.0, 1.0), **values):
    return Series("adam", x, y, values.pop("low", y), values.pop("high", y), **values)


def chart(*lines, **values):
    return Chart("any", "Any", "x", "y", lines, "", **values)


def test_a_study_has_its_charts_with_every_contestant_best_first(findings):
    found = by_key(findings)
    assert list(found) == ["val_loss", "loss", "val_accuracy", "val_loss_seconds", "sensitivity", "best_of"]
    for one in found.values():
        assert [line.name for line in one.series] == [s.name for s in findings.summaries]
        assert one.title
        assert one.x_label
        assert one.y_label
        assert one.caption.endswith(".")


def test_learning_curves_are_those_of_the_best_setting(findings):
    found = by_key(findings)
    leader = findings.leader
    for figure in ("loss", "val_loss", "val_accuracy"):
        curve, drawn = leader.best.curve(figure), found[figure].series[0]
        assert drawn.x == (1, 2, 3)
        assert (drawn.y, drawn.low, drawn.high) == tuple(map(tuple, (curve.median, curve.low, curve.high)))
    assert found["val_loss_seconds"].series[0].x == tuple(leader.best.curve("val_loss").seconds)
    assert found["val_loss"].level == found["val_loss_seconds"].level == findings.target
    assert found["val_loss"].y_log
    assert not found["val_accuracy"].y_log


def test_sensitivity_shows_each_rate_the_winner_and_where_runs_failed(findings):
    found = by_key(findings)["sensitivity"]
    assert found.x_log
    for line, summary in zip(found.series, findings.summaries, strict=True):
        assert line.x == (0.001, 0.01, 0.1, 1e30)
        assert math.isnan(line.y[-1]), "where all diverge is a gap"
        losses = summary.sweep[0].losses("val_loss")
        assert (line.y[0], line.low[0], line.high[0]) == (np.median(losses), losses.min(), losses.max())
        assert line.mark == (summary.best.lr, line.y[line.x.index(summary.best.lr)])
        assert line.good == (summary.region.low, summary.region.high)


def test_best_of_k_falls_with_the_trials(findings):
    found = by_key(findings)["best_of"].series[0]
    assert found.x == (1, 2, 3, 4)
    shown = [v for v in found.y if math.isfinite(v)]
    assert shown == sorted(shown, reverse=True)
    assert all(map(math.isfinite, found.high)), "a band that reaches infinity ends beyond the chart"


def test_the_good_region_is_drawn_on_the_line_itself():
    bowl = line((0.01, 0.1, 1.0), (4.0, 1.0, 4.0), good=(10**-1.5, 10**-0.5))
    x, y = chart(bowl, x_log=True, y_log=True).good_part(bowl)
    assert x == [10**-1.5, 0.1, 10**-0.5]
    assert y == pytest.approx([2, 1, 2])
    assert chart(bowl, x_log=True).good_part(bowl)[1] == pytest.approx([2.5, 1, 2.5])
    assert chart(line()).good_part(line()) == ([], [])


def test_a_line_falls_apart_at_its_gaps():
    gap = math.nan
    assert line((1.0,) * 6, (1.0, gap, gap, 2.0, 3.0, gap)).segments() == [slice(0, 1), slice(3, 5)]
    assert line(y=(gap,) * 3).segments() == []


def test_losses_far_above_the_lowest_are_cut_off_and_that_is_said():
    high = chart(line((0.1, 1.0, 10.0), (1.0, 50.0, 1e6)))
    cut = charts._scaled(high, cut=True)
    assert cut.y_range == pytest.approx((1 / 1.1, 100))
    assert "Losses above 100 are cut off." in cut.caption
    assert charts._scaled(high).y_range is None
    below_zero = charts._scaled(chart(line(y=(-1.0, 0.0, 1e6))), cut=True)
    assert not below_zero.y_log
    assert below_zero.y_range[1] == 2


def test_a_band_to_infinity_ends_where_nobody_sees_it():
    found = charts._scaled(chart(line(high=(3.0, math.inf, 1.0)))).series[0]
    assert found.high == (3, 30, 1)


def test_an_axis_is_logarithmic_only_where_that_says_more():
    assert charts._scaled(chart(line(y=(9.0, 2.0, 1.0)))).y_log
    assert not charts._scaled(chart(line(y=(2.0, 1.5, 1.0)))).y_log
    assert not charts._scaled(chart(line(y=(9.0, 2.0, 0.0)))).y_log


@pytest.mark.parametrize(
    ("y", "ticks"),
    [
        ((0.1, 0.2, 0.4), (0.1, 0.15, 0.2, 0.3, 0.5)),
        ((0.1, 1.0, 9.0), (0.1, 0.2, 0.5, 1, 2, 5, 10)),
        ((1e-4, 1.0, 9.0), (1e-4, 1e-3, 1e-2, 0.1, 1, 10)),
    ],
)
def test_logarithmic_axes_are_labelled_by_round_numbers(y, ticks):
    assert chart(line(y=y), y_log=True).y_ticks == pytest.approx(ticks)
    assert chart(line(x=y), x_log=True).x_ticks == pytest.approx(ticks)


def test_linear_axes_count_in_whole_numbers_or_as_they_like():
    assert chart(line()).x_ticks == (1, 2, 3)
    assert chart(line(x=(0.5, 1.0, 1.5))).x_ticks == ()
    assert chart(line()).y_ticks == ()


def test_long_lines_are_thinned_but_keep_their_ends():
    x = np.arange(100_000.0)
    thin = charts._line("adam", x, x, x, x)
    assert len(thin.x) == charts.MAX_POINTS
    assert (thin.x[0], thin.x[-1]) == (0, 99_999)


def test_styles_of_24_contestants_differ():
    many = [Contestant("adam", name=f"adam {i}", fixed={"beta_1": 0.5 + i / 100}) for i in range(30)]
    styles = charts.line_styles(LIGHT, statistics.find(_unrun(many)))
    assert len(styles) == 30
    assert len(set(list(styles.values())[:24])) == 24
    for theme in (LIGHT, DARK):
        eight = charts.line_styles(theme, statistics.find(_unrun(CLASSICAL))).values()
        assert len({style.colour for style in eight}) == 8


def _unrun(optimizers):
    from thalweg.study.running.store import Store

    names = [one if isinstance(one, str) else one.name for one in optimizers]
    contestants = [{"name": name, "defaults": {"lr": 0.1}} for name in names]
    return Study(Store("nowhere"), None, {"contestants": contestants, "complete": False}, ())


def test_a_varied_number_has_charts_and_colours_of_its_own(batches):
    found = by_key(batches)
    assert list(found)[:3] == ["varied_val_loss", "varied_val_accuracy", "varied_seconds"]
    by_size = found["varied_val_loss"]
    assert [line.x for line in by_size.series] == [(4, 16, 64)]
    assert by_size.x_log
    assert by_size.x_ticks == (4, 16, 64)
    assert by_size.x_label == "batch size"
    medians = {s.name: s.best.median("val_loss").estimate for s in batches.summaries}
    assert by_size.series[0].y == tuple(medians[f"adam of {n}"] for n in (4, 16, 64))
    assert [line.name for line in found["val_loss"].series] == ["adam of 4", "adam of 16", "adam of 64"]

    for theme in (LIGHT, DARK):
        colours = [charts.line_styles(theme, batches)[f"adam of {n}"].colour for n in (4, 16, 64)]
        assert (colours[0], colours[-1]) == (theme.sequential[0], theme.sequential[-1])
        reds = [int(colour[1:3], 16) for colour in colours]
        assert reds == sorted(reds, reverse=True), "graded by the number"


def test_profiles_are_over_tasks_and_say_why_where_there_are_none(findings, tmp_path):
    other = findings_of(tmp_path, small(changed(name="other"), ["sgd", "adam", "lion"], lr=[0.01, 0.1]))
    steps, seconds = charts.profiles([findings, other])
    assert (steps.key, seconds.key) == ("profile_step", "profile_seconds")
    assert {line.name for line in steps.series} == {"sgd", "adam"}
    assert all(line.y[-1] <= 1 for line in steps.series)
    with pytest.raises(StudyError, match="two tasks"):
        charts.profiles([findings])


def test_studies_of_one_task_stand_beside_each_other(findings):
    (found,) = charts.side_by_side([findings, findings], ["first", "second"])
    assert {line.study for line in found.series} == {"first", "second"}
    assert "solid: first, dashed: second" in found.caption
    style = charts.line_styles(LIGHT, findings)["adam"]
    drawn = {line.study: charts.line_style(found, line, style) for line in found.series}
    assert {study: one.dashes for study, one in drawn.items()} == dict(
        zip(drawn, charts.DASHES, strict=False)
    )
    assert {one.colour for one in drawn.values()} == {style.colour}
    assert charts.line_style(chart(line()), line(), style) == style


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_charts_are_drawn_in_either_format(findings, tmp_path, suffix):
    path = tmp_path / f"curves{suffix}"
    writer.save(
        figures.combined(charts.of(findings), charts.line_styles(LIGHT, findings), "A & B: $x_1$"), path
    )
    if suffix == ".png":
        pixels = matplotlib.image.imread(path)
        assert pixels.shape[0] > 800
        assert len({tuple(colour) for colour in pixels[::7, ::7, :3].reshape(-1, 3)}) > 8
    else:
        text = path.read_text(encoding="utf-8")
        assert re.search(r">A &amp; B: \$x_1\$</text>", text)
        assert all(name in text for name in CLASSICAL)


def test_a_picture_of_many_shows_the_first(findings, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "MAX_LINES", 3)
    path = tmp_path / "curves.svg"
    writer.save(figures.combined(charts.of(findings), charts.line_styles(LIGHT, findings), "All"), path)
    text = path.read_text(encoding="utf-8")
    assert "All; the first 3 of 8 optimizers" in text
    assert [name in text for name in (s.name for s in findings.summaries)] == [True] * 3 + [False] * 5


def test_nothing_to_draw_is_said(tmp_path):
    writer.save(figures.combined([], {}, "Nothing"), tmp_path / "curves.svg")
    assert "nothing to draw" in (tmp_path / "curves.svg").read_text(encoding="utf-8")


def test_drawings_take_the_pages_colours(findings):
    styles = charts.line_styles(LIGHT, findings)
    variables = {style.colour: f"--series-{i}" for i, style in enumerate(styles.values())}
    drawing = figures.svg(by_key(findings)["sensitivity"], styles, variables)
    assert drawing.startswith("<svg")
    for name in ("--text", "--grid", "--muted", "--background", *variables.values()):
        assert f"var({name})" in drawing
    assert not re.search("#[0-9a-f]{6}", drawing)
    assert "<g id=" not in drawing, "several drawings share a page"


@pytest.mark.parametrize(
    ("y", "dots", "marker"),
    [((1.0, math.nan, math.nan), False, "o"), ((3.0, 2.0, 1.0), True, "o"), ((3.0, 2.0, 1.0), False, "None")],
)
def test_a_single_point_is_marked_for_a_line_would_not_be_seen(y, dots, marker):
    axes = Figure().add_subplot()
    figures.draw(axes, chart(line(y=y), markers=dots), {}, LIGHT)
    assert axes.lines[0].get_marker() == marker
