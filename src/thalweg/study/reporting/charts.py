"""What each chart of a study shows, as data: `figures` draws it by matplotlib, `interactive` by plotly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, pairwise

import numpy as np

from thalweg.palette import DASH_NAMES, DASHES
from thalweg.plot.theme import LineStyle, Theme
from thalweg.study.reporting.wording import number
from thalweg.study.statistics import findings as statistics
from thalweg.study.statistics.findings import TOLERANCE, Curve, Findings, SettingRuns, Summary
from thalweg.study.statistics.resampling import FloatArray

# A loss so many times the lowest is cut off: what happens there matters to nobody.
CUT_OFF = 100

# A logarithmic axis that spans less than this factor has no round numbers to be labelled by.
MIN_LOG_RATIO = 3

# No screen shows more points of a line.
MAX_POINTS = 300


@dataclass(frozen=True)
class Series:
    """A line of a chart with its band; NaN in y is a gap.

    Attributes:
        name: the contestant's.
        low, high: ends of the band; equal to y where there is none.
        mark: a point to mark.
        good: the good region: between which learning rates the line is drawn thicker.
        study: the study it is of, where one chart shows several.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    mark: tuple[float, float] | None = None
    good: tuple[float, float] | None = None
    study: str = ""

    def segments(self) -> list[slice]:
        """The indices of its points between gaps."""
        seen = [False, *map(math.isfinite, self.y), False]
        turns = [i for i, (a, b) in enumerate(pairwise(seen)) if a != b]
        return [slice(*ends) for ends in zip(turns[::2], turns[1::2], strict=True)]


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        key: names it within a study.
        caption: what to see, in a sentence or two.
        y_range: what is shown of the y axis; None: everything.
        level: a horizontal line across, such as the target.
        markers: whether each point is a measurement of its own, to be marked.
    """

    key: str
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    caption: str
    x_log: bool = False
    y_log: bool = False
    y_range: tuple[float, float] | None = None
    level: float | None = None
    markers: bool = False

    @property
    def x_ticks(self) -> tuple[float, ...]:
        """Where the x axis is labelled; empty: anywhere."""
        found = sorted({x for line in self.series for x in line.x})
        if self.markers or (len(found) <= 12 and all(x == round(x) for x in found)):
            return tuple(found[:: 1 + len(found) // 12])
        return _ticks(found[0], found[-1]) if self.x_log else ()

    @property
    def y_ticks(self) -> tuple[float, ...]:
        """Where the y axis is labelled; empty: anywhere."""
        if not self.y_log:
            return ()
        seen = [v for line in self.series for p in line.segments() for v in (*line.low[p], *line.high[p])]
        return _ticks(*(self.y_range or (min(seen), max(seen))))

    @property
    def band_opacity(self) -> float:
        """How opaque bands are: the more lie over each other, the less."""
        return min(0.16, 0.6 / max(1, len(self.series)))

    def good_part(self, line: Series) -> tuple[list[float], list[float]]:
        """The points (x, y) of a sensitivity line within its good region."""
        if line.good is None:
            return [], []
        low, high = line.good
        x, y = (np.array(v)[np.isfinite(line.y)] for v in (line.x, line.y))
        at = [low, *(float(v) for v in x if low < v < high), high]
        # As straight as the line itself is on the chart's axes.
        there = np.interp(np.log(at), np.log(x), np.log(y) if self.y_log else y)
        return at, (np.exp(there) if self.y_log else there).tolist()


def line_styles(theme: Theme, *findings: Findings) -> dict[str, LineStyle]:
    """Each contestant's style, by name: up to 24 differ; graded by the number in a varied study."""
    names = dict.fromkeys(c["name"] for one in findings for c in one.study.facts["contestants"])
    numbers = {name: value for one in findings for name, value in _numbers(one).items()}
    if numbers and numbers.keys() == names.keys():
        ranked = sorted(set(numbers.values()))
        styles = theme.graded_styles(len(ranked))
        return {name: styles[ranked.index(number)] for name, number in numbers.items()}
    return {name: theme.line_style(i) for i, name in enumerate(names)}


def order(findings: Findings) -> list[Summary]:
    """Contestants as charts list them: best first, or in a varied study by their number."""
    numbers = _numbers(findings)
    return sorted(findings.summaries, key=lambda s: numbers.get(s.name, math.inf))


def of(findings: Findings) -> list[Chart]:
    """The charts of a study that have something to show."""
    measures = findings.measures
    return _drawable(
        *_varied(findings),
        _learning(findings, "val_loss", "Validation loss"),
        _learning(findings, "loss", "Training loss"),
        *(_learning(findings, f"val_{m}", f"Validation {m}") for m in measures[1:]),
        _over_seconds(findings),
        _sensitivity(findings),
        _best_of(findings),
    )


def profiles(findings: Sequence[Findings]) -> list[Chart]:
    """Performance profiles over the tasks of several studies, by steps and by seconds.

    Raises:
        StudyError: as `statistics.across`.
    """
    found = []
    for cost, plural in (("step", "steps"), ("seconds", "seconds")):
        names, profile = statistics.across([one.study for one in findings], cost)
        lines = tuple(
            _line(name, profile.factors, *curves)
            for name, *curves in zip(names, profile.share, profile.share_low, profile.share_high, strict=True)
        )
        found.append(
            Chart(
                f"profile_{cost}",
                f"Performance profile by {plural}",
                f"times the fewest {plural} to the target",
                "share of tasks",
                lines,
                f"On what share of the {len(findings)} tasks an optimizer reaches the target within a factor "
                "of the fastest: higher is better; the left edge is how often it is the fastest.",
                y_range=(0.0, 1.04),
            )
        )
    return found


def side_by_side(findings: Sequence[Findings], labels: Sequence[str]) -> list[Chart]:
    """Several studies of one task in one chart: the validation loss of all their contestants."""
    each = [_learning(one, "val_loss", "Validation loss, studies beside each other") for one in findings]
    lines = [
        replace(line, study=label) for chart, label in zip(each, labels, strict=True) for line in chart.series
    ]
    dashes = ", ".join(f"{name}: {label}" for name, label in zip(cycle(DASH_NAMES), labels, strict=False))
    caption = f"The same optimizer has the same colour. Each study has its own dashes: {dashes}."
    return _drawable(
        _scaled(replace(each[0], key="side_by_side", series=tuple(lines), caption=caption, level=None))
    )


def line_style(chart: Chart, line: Series, style: LineStyle) -> LineStyle:
    """A line's style: its contestant's, with dashes of its study's where the chart shows several."""
    if not line.study:
        return style
    studies = list(dict.fromkeys(one.study for one in chart.series))
    return style._replace(dashes=DASHES[studies.index(line.study) % len(DASHES)])


# -- the charts -----------------------------------------------------------------------------------


def _learning(findings: Findings, figure: str, title: str) -> Chart:
    curves = _curves(findings, figure)
    lines = tuple(_line(s.name, c.epoch, c.median, c.low, c.high) for s, c in curves)
    loss = figure.endswith("loss")
    chart = Chart(
        figure,
        title,
        "epochs of training",
        title.lower(),
        lines,
        "Lines are medians over the seeds, each optimizer at its best setting; bands reach from the lowest "
        "to the highest.",
        level=findings.target if figure == "val_loss" else None,
    )
    if chart.level is not None:
        chart = replace(
            chart, caption=f"{chart.caption} Dotted: the target that “steps to target” counts to."
        )
    return _scaled(chart) if loss else chart


def _over_seconds(findings: Findings) -> Chart:
    """The validation loss by what it cost: the same lines, another axis."""
    curves = _curves(findings, "val_loss")
    lines = tuple(_line(s.name, c.seconds, c.median, c.low, c.high) for s, c in curves)
    return _scaled(
        Chart(
            "val_loss_seconds",
            "Validation loss over time",
            "seconds of training, evaluation apart",
            "validation loss",
            lines,
            "The same by the clock: an optimizer whose steps are slow reaches further right.",
            level=findings.target,
        )
    )


def _sensitivity(findings: Findings) -> Chart:
    lines = []
    for summary in order(findings):
        if len(summary.sweep) < 2:
            continue
        losses = np.array([setting.losses("val_loss") for setting in summary.sweep])
        rates = np.array([setting.lr for setting in summary.sweep])
        line = _line(summary.name, rates, np.median(losses, axis=1), losses.min(axis=1), losses.max(axis=1))
        region = summary.region
        good = (region.low, region.high) if region and math.isfinite(region.low) else None
        lines.append(replace(line, mark=_chosen(summary), good=good))
    return _scaled(
        Chart(
            "sensitivity",
            "Sensitivity to the learning rate",
            "learning rate",
            "validation loss at the end",
            tuple(lines),
            "Wide and flat forgives a wrong learning rate; the dot is the one chosen, and a line is thick "
            f"where the loss is at most {TOLERANCE:.0%} above its lowest. Medians and extremes over the "
            "search's seeds; a line breaks where runs failed.",
            x_log=True,
        ),
        cut=True,
    )


def _best_of(findings: Findings) -> Chart:
    lines = []
    for summary in order(findings):
        found = summary.best_of
        if found and len(found.estimate) > 1:
            k = np.arange(1.0, len(found.estimate) + 1)
            lines.append(_line(summary.name, k, found.estimate, found.low, found.high))
    return _scaled(
        Chart(
            "best_of",
            "What tuning is worth",
            "trials",
            "validation loss of the best",
            tuple(lines),
            "The loss to expect of the best of so many trials, drawn from those that were run: a line that "
            "is flat early needs little tuning. Bands are 95 % intervals, of a lower level to the right.",
        ),
        cut=True,
    )


def _varied(findings: Findings) -> list[Chart]:
    """How the end depends on the number by which the contestants differ."""
    numbers = _numbers(findings)
    if not numbers:
        return []
    label = str(findings.study.facts["varied"]["name"]).replace("_", " ")
    log = min(numbers.values()) > 0 and max(numbers.values()) > 4 * min(numbers.values())
    asked = {f"val_{m}": f"validation {m}" for m in findings.measures} | {"seconds": "seconds of training"}
    return [
        _scaled(
            Chart(
                f"varied_{figure}",
                f"{what.capitalize()} by {label}",
                label,
                what,
                _groups(findings, numbers, figure),
                f"Medians at the end of training, each {label} at its best setting; bands reach from the "
                "lowest seed to the highest.",
                x_log=log,
                markers=True,
            ),
            log=figure in ("val_loss", "seconds"),
        )
        for figure, what in asked.items()
    ]


def _groups(findings: Findings, numbers: dict[str, float], figure: str) -> tuple[Series, ...]:
    """A line for each rule: its contestants' figure by their number."""
    points: dict[str, list[tuple[float, ...]]] = {}
    for summary in order(findings):
        seen = summary.best.values(figure) if summary.best else np.empty(0)
        if np.isfinite(seen).any() and summary.name in numbers:
            rule = str(summary.facts.get("rule", findings.task["name"]))
            point = (numbers[summary.name], np.nanmedian(seen), np.nanmin(seen), np.nanmax(seen))
            points.setdefault(rule, []).append(point)
    return tuple(_line(rule, *np.array(several).T) for rule, several in points.items())


# -- their lines ----------------------------------------------------------------------------------


def _curves(findings: Findings, figure: str) -> Iterable[tuple[Summary, Curve]]:
    for summary in order(findings):
        if summary.best and (curve := summary.best.curve(figure)):
            yield summary, curve


def _chosen(summary: Summary) -> tuple[float, float] | None:
    """The winner where the search saw it, though it may differ from the sweep in more than its rate."""
    if summary.best is None:
        return None
    for setting in summary.search:
        if setting.chosen == summary.best.chosen and math.isfinite(_middle(setting)):
            return setting.lr, _middle(setting)
    return None


def _middle(setting: SettingRuns) -> float:
    return float(np.median(setting.losses("val_loss")))


def _line(name: str, x: FloatArray, y: FloatArray, low: FloatArray, high: FloatArray) -> Series:
    """A line of no more points than can be seen; what is infinite becomes a gap."""
    few = np.linspace(0, len(x) - 1, min(len(x), MAX_POINTS)).round().astype(int)
    y = np.where(np.isfinite(y), y, math.nan)
    points, middle, least, most = (tuple(v[few].tolist()) for v in (x, y, low, high))
    return Series(name, points, middle, least, most)


def _scaled(chart: Chart, *, cut: bool = False, log: bool = True) -> Chart:
    """On a logarithmic axis where that says more; cut off far above the lowest, if asked; bands finite."""
    seen = [v for line in chart.series for v in line.y if math.isfinite(v)]
    if not seen:
        return chart
    least = min(seen)
    below = [line.low[i] for line in chart.series for i, v in enumerate(line.y) if math.isfinite(v)]
    chart = replace(chart, y_log=log and min(below) > 0 and max(seen) > MIN_LOG_RATIO * min(below))
    if cut:
        # Without a zero to go by, three times as far from the lowest as the middle is.
        limit = CUT_OFF * least if chart.y_log else least + 3 * (float(np.median(seen)) - least)
        if least < limit < max(seen):
            bottom = (min(below) / 1.1) if chart.y_log else min(below) - 0.05 * (limit - least)
            caption = f"{chart.caption} Losses above {number(limit)} are cut off."
            chart = replace(chart, y_range=(bottom, limit), caption=caption)
    top = 10 * max(map(abs, seen))
    finite = (replace(line, high=tuple(min(v, top) for v in line.high)) for line in chart.series)
    return replace(chart, series=tuple(finite))


def _ticks(low: float, high: float) -> tuple[float, ...]:
    """Round numbers for a logarithmic axis: curves seldom span a decade, so powers of ten are too few."""
    decades = math.log10(high / low)
    parts = (1, 1.5, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades < 3 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    # Some more at each end, where axes have their margin.
    found = tuple(part * 10.0**p for p in powers for part in parts if low / 1.3 < part * 10.0**p < high * 1.3)
    return found if len(found) > 1 else (low, high)


def _drawable(*charts: Chart) -> list[Chart]:
    return [chart for chart in charts if any(line.segments() for line in chart.series)]


def _numbers(findings: Findings) -> dict[str, float]:
    """The contestants' numbers, where the study varied one."""
    varied = findings.study.facts.get("varied") or {"values": {}}
    return {name: float(value) for name, value in varied["values"].items()}
