"""Names of lines are the user's: whatever is in them, figures and pages hold them as text."""

import html
import io
import json
import random
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

import thalweg
from thalweg.plot import interactive, writer
from thalweg.plot.theme import LIGHT
from thalweg.study.reporting import figures
from thalweg.study.reporting.charts import Chart, Series

PIECES = [
    "$",
    "\\",
    "{",
    "}",
    "_",
    "^",
    "<",
    ">",
    "&",
    '"',
    "'",
    "%",
    "#",
    "</script>",
    "<!--",
    "]]>",
    "&lt;",
]
PIECES += ["$x_1$", "\\frac", "{x}", "%{x}", "{0}", "<b>", "javascript:", "β", "é", " ", "a", "1"]


def names(generator: random.Random, rounds: int) -> Iterator[list[str]]:
    """Lists of different names, as many as a figure shows."""
    every = ("".join(generator.choices(PIECES, k=generator.randrange(1, 8))) for _ in range(rounds))
    several = sorted({name for name in every if name.strip()})
    size = figures.MAX_LINES
    return (several[i : i + size] for i in range(0, len(several), size))


def test_any_name_is_text_in_a_chart(generator: random.Random, rounds: int) -> None:
    for several in names(generator, rounds):
        lines = tuple(Series(name, (1.0, 2.0), (1.0, 2.0), (1.0, 2.0), (1.0, 2.0)) for name in several)
        chart = Chart("any", several[0], several[-1], "y", lines, "")
        styles = {name: LIGHT.line_style(i) for i, name in enumerate(several)}
        file = io.BytesIO()
        writer.save(figures.combined([chart], styles, several[0]), file, kind="svg")
        texts = "".join(ElementTree.fromstring(file.getvalue()).itertext())
        assert [name for name in several if name not in texts] == []
        assert several[-1] in "".join(ElementTree.fromstring(figures.svg(chart, styles, {})).itertext())


def test_any_name_is_data_in_a_page(generator: random.Random, rounds: int) -> None:
    pytest.importorskip("plotly", reason="plotly is not installed")
    path = thalweg.path("beale", "adam", steps=1)
    for several in names(generator, rounds):
        figure = interactive.race(dict.fromkeys(several, path))
        page = writer.html_page(figure, several[0])
        ours = page.replace(writer.plotly_script(), "")
        assert ours.count("<script") == ours.count("</script>") == 3
        assert f"<p>{html.escape(several[0])}</p>" in ours
        drawn = re.search(r'Plotly\.newPlot\(\s*"figure",\s*(\[.*?\]),\s*\{"', ours, re.DOTALL)
        assert drawn
        assert {trace["name"] for trace in json.loads(drawn[1]) if "legendgroup" in trace} == {*several}
