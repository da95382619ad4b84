"""Every picture of the gallery: complete, legible, and with a caption that says every setting."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

from thalweg import gallery
from thalweg.cli.main import main
from thalweg.gallery import CaptionedFigure
from thalweg.rule import Rule
from thalweg.surfaces.race import code, point


@cache
def drawn(name: str) -> CaptionedFigure:
    made = gallery.get(name).draw(detail=0.2)
    FigureCanvasAgg(made.figure).draw()
    return made


def has_data(ax: Axes) -> bool:
    lines = [np.asarray(line.get_xydata(), float) for line in ax.lines]
    return any(np.isfinite(xy).all(axis=1).any() for xy in lines) or bool(ax.collections or ax.images)


@pytest.mark.parametrize("name", gallery.names())
def test_every_axes_has_data_and_lies_beside_the_others(name: str) -> None:
    figure = drawn(name).figure
    boxes = [ax.get_window_extent() for ax in figure.axes]
    assert boxes
    assert all(map(has_data, figure.axes))
    for i, box in enumerate(boxes):
        assert box.width > 20
        assert box.height > 100
        assert not any(box.overlaps(other) for other in boxes[:i])


@pytest.mark.parametrize("name", gallery.names())
def test_nothing_is_cut_off_and_no_words_lie_over_each_other(name: str) -> None:
    figure = drawn(name).figure
    edge = figure.bbox.padded(2)
    titles = [ax.title if ax.title.get_text() else ax._left_title for ax in figure.axes]
    words = [text for ax in figure.axes for text in (ax.xaxis.label, ax.yaxis.label)] + titles
    words += [text for legend in figure.legends for text in legend.get_texts()]
    shown = [word.get_window_extent() for word in words if word.get_text()]
    for i, box in enumerate(shown):
        assert edge.x0 <= box.x0
        assert box.x1 <= edge.x1
        assert edge.y0 <= box.y0
        assert box.y1 <= edge.y1
        assert not any(box.overlaps(other) for other in shown[:i])


@pytest.mark.parametrize("name", gallery.names())
def test_the_caption_says_every_setting(name: str) -> None:
    made = drawn(name)
    assert len(made.caption) > 200
    assert "  " not in made.caption
    for path in made.paths.values():
        assert code(path.method) in made.caption
        assert point(path.points[0]) in made.caption
        assert f"{path.steps} step" in made.caption
        assert path.surface.unicode() in made.caption or path.surface.name == "parsed"
        assert isinstance(path.method, Rule)
    assert any(
        word in made.caption for word in ("tuned", "same", "theory", "limit", "Each schedule", "settings")
    )


@pytest.mark.parametrize("name", gallery.names())
def test_a_picture_is_drawn_alike_each_time_and_in_both_themes(name: str) -> None:
    again, dark = (gallery.get(name).draw(detail=0.2, theme=theme) for theme in ("light", "dark"))
    assert again.caption == dark.caption == drawn(name).caption
    for one, other in ((again, drawn(name)), (dark, drawn(name))):
        for ax, same in zip(one.figure.axes, other.figure.axes, strict=True):
            for line, known in zip(ax.lines, same.lines, strict=True):
                np.testing.assert_array_equal(line.get_xydata(), known.get_xydata())
    assert dark.figure.get_facecolor() != again.figure.get_facecolor()


def test_the_classics_are_there() -> None:
    wanted = {
        *(
            "learning-rate",
            "ravine",
            *(f"ravine-{r}" for r in ("sgd", "momentum", "adagrad", "rmsprop", "adam")),
        ),
        *("momentum-escapes", "nesterov", "adagrad-oscillation", "effective-rate", "bias-correction"),
        *("best-step", "race-valley", "race-saddle", "race-beale", "batches", "betas", "epsilon", "dialects"),
        *("sparse", "schedules", "loss-landscape"),
    }
    assert wanted <= {*gallery.names()}


def test_what_captions_claim_is_so() -> None:
    """Claims in words, held against the paths."""
    stays, leaves = (drawn("momentum-escapes").paths[name].end[0] for name in ("SGD", "Momentum"))
    assert stays > 0.9
    assert leaves < -1
    corrected, not_corrected = drawn("bias-correction").paths.values()
    assert not_corrected.step_sizes[0, 0] == pytest.approx(
        corrected.step_sizes[0, 0] * 0.1 / 0.001**0.5, rel=1e-6
    )
    small, right, large = drawn("learning-rate").paths.values()
    assert large.values[-1] > large.values[0] > small.values[-1] > right.values[-1]
    momentum, nesterov = drawn("nesterov").paths.values()
    assert np.abs(nesterov.points[10:, 1]).max() < np.abs(momentum.points[10:, 1]).max() / 2


def test_the_command_draws_and_prints_the_caption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["figure", "ravine-adam", "--theme", "dark", "--out", "adam.svg"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said == f"adam.svg {drawn('ravine-adam').caption}"
    assert "<svg" in (tmp_path / "adam.svg").read_text()
    assert main(["figure", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [*gallery.names()]


def test_a_figure_that_is_not_there_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figure", "race-beal"]) == 2
    assert capsys.readouterr().err == (
        "thalweg figure: no figure is named 'race-beal'; did you mean 'race-beale'?\n"
    )
    assert main(["figure"]) == 2
    assert "--list" in capsys.readouterr().err
