"""Pictures of paths and maps: what is drawn is what was computed, in every kind of file."""

import base64
import io
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

import thalweg
from helpers import output, python
from thalweg import plot, surfaces
from thalweg.cli.main import main
from thalweg.plot.animation import frames
from thalweg.plot.paths import FIRST, contour_levels, line_styles, points_to_draw
from thalweg.rules import SGD, Adam, Momentum
from thalweg.surfaces.race import Race, compete

SIZE = (5.0, 2.6)


@pytest.fixture(scope="module")
def race() -> Race:
    return compete("ravine", [SGD(), Momentum(), Adam()], steps=30)


def test_paths_are_drawn_where_they_went(race: Race) -> None:
    ax = plot.path(race.paths, count=30)
    lines = {line.get_label(): line for line in ax.lines}
    for label, path in race.paths.items():
        np.testing.assert_array_equal(lines[label].get_xydata(), path.points)
    stars = [line for line in ax.lines if line.get_marker() == "*"]
    assert [tuple(map(float, star.get_xydata()[0])) for star in stars] == [(0, 0)]
    assert ax.get_xlim() == (-8, 8)


def test_the_loss_is_the_paths_values(race: Race) -> None:
    ax = plot.loss(race.paths)
    assert ax.get_yscale() == "log"
    for line in ax.lines:
        np.testing.assert_array_equal(line.get_ydata(), race.paths[str(line.get_label())].values)


def test_axes_of_the_callers_are_drawn_into_and_returned(race: Race) -> None:
    left, right = Figure().subplots(1, 2)
    assert plot.path(race.paths, ax=left, count=30) is left
    assert plot.loss(race.paths, ax=right) is right
    assert plot.surface("beale", ax=left, count=30) is left


@pytest.mark.parametrize(
    ("surface", "start"),
    [
        ("sqrt(-1 - x*x - y*y)", (1, 1)),  # no value anywhere
        ("log(x) + y*y", (-1, 1)),  # none where it begins
        ("x*1e299 + y*1e299", (1e8, 1)),
        ("pi + 0*y", (1, 1)),
        ("1", (1,)),
        ("ravine", (0, 0)),  # begins where it could end
    ],
)
def test_whatever_a_formula_s_values_are_there_is_a_picture(surface: str, start: tuple[float, ...]) -> None:
    down = surface if surface in surfaces.names() else surfaces.parse(surface)
    paths = {name: thalweg.path(down, name, start, steps=5) for name in ("sgd", "l_bfgs")}
    plot.race(paths).savefig(io.BytesIO(), format="png", dpi=20)
    compete(down, ["sgd"], start=start, steps=5)


def test_a_path_that_is_lost_leaves_the_picture_and_stops() -> None:
    lost = thalweg.path("ravine", SGD(lr=3.0), steps=400)
    assert lost.diverged
    shown = points_to_draw(lost)
    assert np.isfinite(shown).all()
    assert np.abs(shown).max() <= 4 * 8
    assert len(shown) < 20
    plot.race([lost], count=30).savefig("/dev/null", format="png")


@pytest.mark.parametrize("name", surfaces.names())
def test_every_surface_is_drawn(name: str) -> None:
    surface = surfaces.get(name)
    whole = (
        plot.race(thalweg.path(surface, SGD(lr=1e-3), steps=5), size=SIZE, count=30)
        if (surface.dimensions <= 2)
        else plot.race(thalweg.path(surface, "adam", steps=5), size=SIZE)
    )
    whole.savefig("/dev/null", format="png", dpi=40)
    assert len(whole.axes) == (2 if surface.dimensions <= 2 else 1)


@pytest.mark.parametrize("name", ["rosenbrock", "long_valley", "beale"])
def test_contour_lines_show_the_valley(name: str) -> None:
    """A third of the lines lies in the lowest tenth of the window."""
    values = surfaces.get(name).value(surfaces.get(name).grid(100))
    heights = contour_levels(values)
    assert (np.diff(heights) > 0).all()
    assert np.mean(heights <= np.quantile(values, 0.15)) >= 1 / 4


def test_a_rule_looks_the_same_in_every_picture(race: Race) -> None:
    for theme in plot.THEMES.values():
        alone = line_styles({"x": race.paths["Adam"]}, theme)["x"]
        assert alone == line_styles(race.paths, theme)["Adam"]
        eight = compete("ravine", FIRST, lr=0.1, steps=2).paths
        assert len({*line_styles(eight, theme).values()}) == 8


@pytest.mark.parametrize("theme", plot.THEMES)
def test_text_stands_out_from_the_background(theme: str, race: Race) -> None:
    def luminance(colour: str) -> float:
        parts = [int(to_hex(colour)[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    def contrast(a: str, b: str) -> float:
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    colours = plot.THEMES[theme]
    assert contrast(colours.text, colours.background) > 12
    assert contrast(colours.muted, colours.background) > 4.5
    assert all(contrast(colour, ground) > 2 for colour in colours.series for ground in colours.elevation)
    whole = plot.race(race.paths, theme=theme, size=SIZE, count=30)
    assert to_hex(whole.get_facecolor()) == colours.background
    labels = [label for ax in whole.axes for label in ax.get_xticklabels()]
    assert {to_hex(label.get_color()) for label in labels} == {colours.text}


@pytest.mark.parametrize("kind", [".png", ".svg", ".pdf"])
def test_equal_data_makes_equal_files(kind: str, race: Race, tmp_path: Path) -> None:
    for name in ("a", "b"):
        plot.save(plot.race(race.paths, size=SIZE, count=30), tmp_path / f"{name}{kind}")
    assert (tmp_path / f"a{kind}").read_bytes() == (tmp_path / f"b{kind}").read_bytes()


@pytest.mark.parametrize("view", ["map", "3d"])
def test_an_animation_grows_step_by_step(view: str, race: Race) -> None:
    seen = list(frames(race.paths, view=view, size=SIZE, dpi=40))  # type: ignore[arg-type]
    assert len(seen) == 31
    assert {frame.shape for frame in seen} == {(104, 200, 3)}
    changed = [np.any(a != b) for a, b in pairwise(seen)]
    assert all(changed)
    # What has been drawn stays: ever more pixels differ from the first frame.
    far = [int(np.any(frame != seen[0], axis=-1).sum()) for frame in seen]
    assert far[-1] > 1.5 * far[10] > 2 * far[2] > 0


# imageio-ffmpeg starts its program by a fork, at which JAX warns where another test has loaded it.
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
def test_gif_and_mp4_hold_the_race(race: Race, tmp_path: Path) -> None:
    plot.animate(race.paths, tmp_path / "race.gif", size=SIZE, dpi=40, fps=25, hold=1)
    with Image.open(tmp_path / "race.gif") as gif:
        assert (gif.n_frames, gif.size) == (31, (200, 104))  # type: ignore[attr-defined]
        # All contestants' colours have come through the palette of few.
        gif.seek(gif.n_frames - 1)  # type: ignore[attr-defined]
        pixels = np.asarray(gif.convert("RGB"), int).reshape(-1, 3)
    for style in line_styles(race.paths, plot.THEMES["light"]).values():
        wanted = [int(style.colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert np.abs(pixels - wanted).max(axis=1).min() < 24
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    plot.animate(race.paths, tmp_path / "race.mp4", size=SIZE, dpi=40, fps=25, hold=1)
    counted, _ = ffmpeg.count_frames_and_secs(str(tmp_path / "race.mp4"))
    assert counted == 31 + 25
    with pytest.raises(ValueError, match=r"\.gif or \.mp4"):
        plot.animate(race.paths, tmp_path / "race.avi")


@pytest.mark.parametrize("view", ["map", "3d"])
def test_a_plotly_figure_has_the_paths_and_plays(view: str, race: Race) -> None:
    whole = plot.interactive.race(race.paths, view=view, theme="dark")
    lines = [
        trace for trace in whole.data if trace.type in ("scatter", "scatter3d") and trace.name in race.paths
    ]
    assert len(lines) == 6
    for trace in lines[::2]:
        path = race.paths[trace.name]
        np.testing.assert_array_equal(np.column_stack([trace.x, trace.y]), path.points)
        np.testing.assert_array_equal(trace.customdata[:, 1], path.values)
    assert [frame.name for frame in whole.frames] == [str(t) for t in range(31)]
    assert [len(line.x) for line in whole.frames[7].data] == [8] * 6


def test_a_page_opens_offline_and_has_the_caption(race: Race, tmp_path: Path) -> None:
    plot.write(race, tmp_path / "race.html")
    text = (tmp_path / "race.html").read_text(encoding="utf-8")
    assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="http', text)
    assert "SGD(lr=" in text
    with pytest.raises(ValueError, match=r"ends in \.png"):
        plot.write(race, tmp_path / "race.doc")


@pytest.mark.parametrize("surface", ["beale", "ravine"])
@pytest.mark.parametrize("width", [400, 1280])
def test_a_page_fits_its_screen(surface: str, width: int, browser: Any, tmp_path: Path) -> None:
    """Map and loss side by side, or one below the other; the caption below both."""
    plot.write(compete(surface, [SGD(), Adam()], lr=0.01, steps=9), tmp_path / "race.html", theme="dark")
    page = browser.new_context(viewport={"width": width, "height": 800}).new_page()
    page.goto((tmp_path / "race.html").as_uri())
    placed = "document.querySelector('.main-svg')?.clientHeight === window.figure.layout.meta[%r].height"
    page.wait_for_function(placed % ("narrow" if width == 400 else "wide"))
    assert page.evaluate("document.documentElement.scrollWidth") == width
    boxes = {
        name: page.locator(name).bounding_box()
        for name in ("[data-subplot=xy].nsewdrag", "[data-subplot=x2y2].nsewdrag", ".slider-container", "p")
    }
    map_, loss, controls, caption = boxes.values()
    if width == 400:
        assert map_["y"] + map_["height"] < loss["y"]
    else:
        assert map_["x"] + map_["width"] < loss["x"]
    assert max(one["y"] + one["height"] for one in (map_, loss)) < controls["y"]
    assert controls["y"] + controls["height"] < caption["y"]
    assert min(map_["height"], loss["height"]) > 120


@pytest.mark.parametrize("theme", plot.THEMES)
def test_one_theme_is_that_of_matplotlib_plotly_and_pages(theme: str, race: Race) -> None:
    colours = plot.THEMES[theme]
    drawn, interactive = plot.race(race.paths, theme=theme), plot.interactive.race(race.paths, theme=theme)
    layout = interactive.layout.template.layout
    assert to_hex(drawn.get_facecolor()) == layout.paper_bgcolor == colours.css["--background"]
    assert to_hex(drawn.axes[0].title.get_color()) == layout.font.color == colours.css["--text"]
    lines = {line.get_label(): line for line in drawn.axes[1].lines}
    losses = [trace for trace in interactive.data if trace.xaxis == "x2"]
    assert [trace.name for trace in losses] == list(race.paths)
    for trace in losses:
        assert trace.line.color == lines[trace.name].get_color()
        assert (trace.line.dash == "solid") == (lines[trace.name].get_linestyle() == "-")
        np.testing.assert_array_equal(trace.y, lines[trace.name].get_ydata())


def test_a_figure_is_written_as_what_it_can_be(race: Race, tmp_path: Path) -> None:
    figure = plot.interactive.race(race.paths)
    plot.save(figure, tmp_path / "race.html")
    assert "plotly.js" in (tmp_path / "race.html").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"a plotly figure is written as \.html, not as \.png"):
        plot.save(figure, tmp_path / "race.png")
    picture = io.BytesIO()
    plot.save(plot.loss(race.paths), picture, kind="svg")
    assert picture.getvalue().startswith(b"<?xml")


def test_a_picture_within_a_page_needs_no_file(race: Race) -> None:
    found = re.fullmatch(
        r'<img alt="paths" src="data:image/png;base64,(.*)">', plot.inline(race.paths["SGD"])
    )
    assert found
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as picture:
        assert picture.width > 500


def test_maps_are_drawn() -> None:
    basins = plot.basins(thalweg.basins("himmelblau", SGD(lr=0.01), 12, 100))
    assert len(basins.images) == 1
    found = thalweg.rate_map("ravine", "momentum", lr=np.linspace(0.1, 2, 9), momentum=np.linspace(0, 0.9, 7))
    ax = plot.rate_map(found)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("lr", "momentum")
    drawn = np.ma.filled(ax.collections[0].get_array(), -1)
    np.testing.assert_array_equal(np.reshape(drawn, (7, 9)), found.steps.T)
    single = plot.rate_map(thalweg.rate_map("ravine", "sgd", lr=np.linspace(0.1, 2, 9)))
    assert single.get_xlabel() == "lr"


def test_what_has_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="10 dimensions"):
        plot.surface("ill_conditioned")
    with pytest.raises(ValueError, match="1 dimensions"):
        plot.surface_3d("double_well")
    with pytest.raises(ValueError, match="no theme"):
        plot.surface("beale", theme="sepia")
    with pytest.raises(ValueError, match="single paths"):
        plot.path(thalweg.paths("beale", "adam", lr=[0.1, 0.2], steps=2))
    with pytest.raises(ValueError, match="no path"):
        plot.race([])


@pytest.mark.parametrize(
    ("module", "extra", "source"),
    [
        ("matplotlib", "plot", "import thalweg.plot"),
        ("plotly", "plot", "from thalweg import plot, path; plot.interactive.race([path('beale', 'adam')])"),
        (
            "imageio_ffmpeg",
            "video",
            "from thalweg import plot, path; plot.animate([path('beale', 'adam')], 'x.mp4')",
        ),
    ],
)
def test_a_missing_extra_is_named(module: str, extra: str, source: str, tmp_path: Path) -> None:
    program = f"import sys; sys.modules[{module!r}] = None\ntry: {source}\nexcept ImportError as e: print(e)"
    assert f"pip install 'thalweg[{extra}]'" in output(python(program))


def test_the_command_draws_a_race(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "path beale --optimizers sgd,rmsprop@tf1,l_bfgs --steps 20 --start 1,1 --out race.png"
    assert main(words.split()) == 0
    said = " ".join(capsys.readouterr().out.split())
    expected = compete(
        "beale", [SGD(), thalweg.get("rmsprop", dialect="tf1"), "l_bfgs"], steps=20, start=[1, 1]
    )
    assert said == f"race.png {expected.caption}"
    assert (tmp_path / "race.png").stat().st_size > 20_000
    formula = [
        "path",
        "(x-1)**2 + y**2/9",
        "--window=-3,3,-2,2",
        "--lr",
        "0.1",
        "--steps",
        "5",
        "--theme",
        "dark",
    ]
    assert main(formula) == 0
    assert (tmp_path / "parsed.png").exists()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["beal"], "did you mean 'beale'"),
        (["x +* y"], "no formula"),
        (["beale", "--optimizers", "adm"], "did you mean"),
        (["beale", "--out", "x.doc"], "ends in .png"),
        (["beale", "--out", "nowhere/x.png"], "there is no folder 'nowhere'"),
        (["beale", "--window", "0,1,0,1"], "window of its own"),
        (["double_well", "--view", "3d"], "dimensions"),
        (["beale", "--start", "1"], "arrays (…, 2)"),
    ],
)
def test_what_cannot_be_drawn_is_answered_in_one_line(
    words: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["path", *words, "--steps", "3"]) == 2
    said = capsys.readouterr()
    assert answer in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("ending", plot.FORMATS)
def test_a_folder_that_is_missing_is_named_and_a_failure_leaves_nothing(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    race = compete("beale", ["sgd"], lr=0.01, steps=2)
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*nowhere'"):
        plot.write(race, tmp_path / "nowhere" / f"x{ending}")
    (tmp_path / f"x{ending}").write_text("older")
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fails)
    monkeypatch.setattr("thalweg.plot.animation.frames", lambda *_, **__: map(fails, [0]))
    monkeypatch.setattr("html.escape", fails)
    with pytest.raises(OSError, match="as it does"):
        plot.write(race, tmp_path / f"x{ending}")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(f"x{ending}", "older")]


def fails(*_: object, **__: object) -> object:
    raise OSError("as it does")
