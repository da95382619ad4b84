"""Reports: one self-contained HTML page, pictures, and a summary in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from thalweg.plot import writer
from thalweg.plot.theme import DARK, FONTS, LIGHT, LineStyle
from thalweg.statefile import replaced
from thalweg.study.errors import StudyError
from thalweg.study.planning.budget import counted
from thalweg.study.reporting import advice, charts, figures, interactive, tables, wording
from thalweg.study.reporting.charts import Chart
from thalweg.study.reporting.tables import ResultsTable
from thalweg.study.statistics.findings import Findings

# How many optimizers the charts show at first; the legend shows the others.
SHOWN = 12


class ReportFiles(NamedTuple):
    """The files of a report."""

    page: Path
    picture: Path
    drawing: Path
    summary: Path


@dataclass(frozen=True)
class Section:
    """The report on one study."""

    label: str
    findings: Findings
    table: ResultsTable
    charts: tuple[Chart, ...]

    @property
    def title(self) -> str:
        """What was compared, and on which task."""
        count = len(self.findings.summaries)
        if varied := self.findings.study.facts.get("varied"):
            return f"{self.label}: {count} values of {str(varied['name']).replace('_', ' ')}"
        return f"{self.label}: {count} optimizer{'s' if count > 1 else ''}"

    @property
    def answer(self) -> str:
        """The answer in a sentence."""
        return wording.answer(self.findings)

    @property
    def notes(self) -> list[str]:
        """What to know about the answer."""
        return wording.notes(self.findings)

    @property
    def advice(self) -> tuple[advice.Sentence, ...]:
        """The advice that follows."""
        return advice.advise(self.findings).sentences

    @property
    def names(self) -> list[str]:
        """The contestants in the order of the legend."""
        return [summary.name for summary in charts.order(self.findings)]

    @property
    def settings(self) -> dict[str, str]:
        """How the study was run."""
        return _settings(self.findings)


@dataclass(frozen=True)
class Report:
    """The report on one study, or on several with an overview.

    Attributes:
        overview: every contestant in all studies; None for one study.
        charts: of all studies together.
        remarks: what the overview lacks, and why.
    """

    sections: tuple[Section, ...]
    styles: Mapping[str, LineStyle]
    overview: ResultsTable | None
    charts: tuple[Chart, ...]
    remarks: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The contestants in the charts of all studies together."""
        return list(dict.fromkeys(line.name for chart in self.charts for line in chart.series))

    @property
    def answer(self) -> str:
        """The answer of several studies, in a sentence."""
        best = [{s.name for s in section.findings.tied} for section in self.sections]
        names = list(self.styles)
        counts = {name: sum(name in tied for tied in best) for name in names}
        most = max(counts.values())
        if not most:
            return "Every run failed, in every study."
        often = ", ".join(name for name in names if counts[name] == most)
        all_ = "all" if most == len(best) else f"{most} of"
        return (
            f"Best, or indistinguishable from the best, in {all_} {len(best)} studies: {often}. "
            "Each study's own answer, with its uncertainty, is below."
        )

    @property
    def title(self) -> str:
        """The title of the page."""
        if len(self.sections) == 1:
            return f"{self.sections[0].title} compared"
        return f"Optimizers compared on {', '.join(section.label for section in self.sections)}"


def write(folder: Path, *findings: Findings) -> ReportFiles:
    """Writes a report on one study, or on several, into a folder.

    Raises:
        StudyError: a file cannot be written.
    """
    report = _report(findings)
    written = ReportFiles(*(folder / n for n in ("report.html", "curves.png", "curves.svg", "summary.md")))
    picture = lru_cache(partial(_picture, report))
    steps: tuple[Callable[[BinaryIO], object], ...] = (
        lambda file: file.write(_html(report).encode()),
        lambda file: writer.save(picture(), file, kind="png"),
        lambda file: writer.save(picture(), file, kind="svg"),
        lambda file: file.write(_markdown(report).encode()),
    )
    for path, step in zip(written, steps, strict=True):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replaced(path) as file:
                step(file)
        except OSError as error:
            raise StudyError(f"{path} cannot be written: {error.strerror}") from None
    return written


def html(*findings: Findings) -> str:
    """The report as one page that loads nothing else."""
    return _html(_report(findings))


def markdown(*findings: Findings) -> str:
    """The report as text, without its pictures."""
    return _markdown(_report(findings))


# -- content -------------------------------------------------------------------------------------


def brief(findings: Findings) -> str:
    """The answer and the table as HTML, for a notebook."""
    table = tables.of(findings)
    head = Markup("").join(Markup("<th>{}</th>").format(name) for name in ("", "optimizer", *table.columns))
    rows = [
        Markup("<tr><td>{}</td><th>{}</th>{}</tr>").format(
            row.mark,
            row.name,
            Markup("").join(
                Markup("<td>{}<br><small>{}</small></td>").format(cell.text, cell.below) for cell in row.cells
            ),
        )
        for row in table.rows
    ]
    whole = Markup("<p>{}</p><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>")
    return str(whole.format(wording.answer(findings), head, Markup("").join(rows)))


def _report(findings: Sequence[Findings]) -> Report:
    if not findings:
        raise StudyError("a report is on one study or more")
    labels = _labels(findings)
    sections = tuple(
        Section(label, one, tables.of(one), tuple(charts.of(one)))
        for label, one in zip(labels, findings, strict=True)
    )
    styles, together, remarks = charts.line_styles(LIGHT, *findings), [], []
    if len(findings) > 1:
        together += _beside(findings, labels)
        tasks = {one.task["name"] for one in findings}
        if len(tasks) == len(findings):
            try:
                together += charts.profiles(findings)
            except StudyError as error:
                remarks.append(f"There is no performance profile: {error}.")
    return Report(
        sections,
        styles,
        tables.overview(findings, labels) if len(findings) > 1 else None,
        tuple(together),
        tuple(remarks),
    )


def _labels(findings: Sequence[Findings]) -> list[str]:
    """What to call each study: its task, with its folder where the task is there twice."""
    tasks = [str(one.task["name"]) for one in findings]
    names = [one.study.store.folder.resolve().name for one in findings]
    labels = [
        task if tasks.count(task) == 1 else f"{task} ({name})"
        for task, name in zip(tasks, names, strict=True)
    ]
    return [
        label if labels.count(label) == 1 else f"{label} {labels[: i + 1].count(label)}"
        for i, label in enumerate(labels)
    ]


def _beside(findings: Sequence[Findings], labels: Sequence[str]) -> list[Chart]:
    """Studies of one task in one picture, for each task that is there more than once."""
    groups: dict[str, list[int]] = {}
    for i, one in enumerate(findings):
        groups.setdefault(one.task["name"], []).append(i)
    return [
        chart
        for several in groups.values()
        if len(several) > 1
        for chart in charts.side_by_side([findings[i] for i in several], [labels[i] for i in several])
    ]


def _settings(findings: Findings) -> dict[str, str]:
    """How a study was run, from its folder alone."""
    facts, task = findings.study.facts, findings.task
    environments = [run.header["environment"] for s in findings.summaries for run in s.runs]
    versions = {
        name: ", ".join(sorted({str(environment.get(name, "unknown")) for environment in environments}))
        for name in dict.fromkeys(name for environment in environments for name in environment)
        if name != "host"  # reports are passed on, and the machine's name is private
    }
    stopping = ", losing settings stopped early" if facts["halving"] else ""
    search = (
        f"{facts['settings']} settings each by {facts['proposer']}{stopping}, "
        f"from seeds {_listed(facts['search_seeds'])}"
    )
    return {
        "task": f"{task['name']} (version {task['version']})",
        **({"the version covers": ", ".join(task["covers"])} if task["covers"] else {}),
        **{f"data: {name}": source for name, source in task["sources"].items()},
        "length of a run": ", ".join(counted(n, unit) for unit, n in facts["length"].items()),
        "batch size": f"{facts['batch_size']}",
        **({"search": search} if facts["settings"] > 1 else {}),
        "final seeds": _listed(facts["seeds"]),
        "training runs": f"{findings.study.done} of {findings.study.total}",
        **versions,
        **{s.name: _space(s.facts) for s in findings.summaries},
        **{
            f"the code of {s.name} covers": ", ".join(s.facts["covers"])
            for s in findings.summaries
            if s.facts["covers"]
        },
    }


def _space(facts: Mapping[str, Any]) -> str:
    """What a contestant was searched over, and its defaults."""
    searched = [f"{key} {_range(one)}" for key, one in facts["space"].items()]
    fixed = [f"{key}={value:g}" for key, value in facts["defaults"].items() if key not in facts["space"]]
    return "; ".join(filter(None, (", ".join(searched), ", ".join(fixed))))


def _range(one: Mapping[str, Any]) -> str:
    if len(one["values"]) == 1:
        return f"{one['values'][0]:g}"
    if one["values"]:
        return f"from {', '.join(f'{value:g}' for value in one['values'])}"
    return f"from {one['low']:g} to {one['high']:g}"


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


# -- as a page ------------------------------------------------------------------------------------


def _html(report: Report) -> str:
    light = dict.fromkeys(style.colour for style in report.styles.values())
    variables = {colour: f"--series-{i}" for i, colour in enumerate(light)}
    colours = {theme.name: dict(theme.css) for theme in (LIGHT, DARK)}
    for theme in (LIGHT, DARK):
        styles = charts.line_styles(theme, *(section.findings for section in report.sections))
        for name, style in styles.items():
            colours[theme.name][variables[report.styles[name].colour]] = style.colour
    drawn: dict[str, Any] = {}

    def draw(chart: Chart) -> tuple[str, Chart, Markup]:
        """Notes a chart for the page's script; its name there, and what is seen without it."""
        key = f"chart-{len(drawn)}"
        drawn[key] = interactive.plotly(chart, report.styles, variables)
        # Drawn by matplotlib, which has escaped its text.
        return key, chart, Markup(figures.svg(chart, report.styles, variables))

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.jinja").render(
        report=report,
        draw=draw,
        drawn=drawn,
        colours=colours,
        fonts=Markup(FONTS),
        templates={theme.name: theme.plotly_template for theme in (LIGHT, DARK)},
        variables=variables,
        shown={s.name for section in report.sections for s in section.findings.summaries[:SHOWN]},
        plotly=Markup(writer.plotly_script()),
    )


# -- as pictures, and as Markdown -----------------------------------------------------------------


def _picture(report: Report) -> Figure:
    """One picture: everything of one study; of several, what they are compared by."""
    if len(report.sections) == 1:
        seeds = report.sections[0].findings.seeds
        title = f"{report.title}: medians over {seeds} seed{'s' if seeds != 1 else ''}"
        return figures.combined(report.sections[0].charts, report.styles, title)
    several = [
        replace(chart, title=f"{section.label}: {chart.title[:1].lower()}{chart.title[1:]}")
        for section in report.sections
        for chart in section.charts
        if chart.key in ("val_loss", "sensitivity")
    ]
    return figures.combined([*report.charts, *several], report.styles, report.title)


def _markdown(report: Report) -> str:
    parts = [f"# {_plain(report.title)}"]
    if report.overview:
        parts += [f"**{_plain(report.answer)}**", _grid(report.overview), *map(_plain, report.remarks)]
    for section in report.sections:
        if report.overview:
            parts.append(f"## {_plain(section.title)}")
        parts += [f"**{_plain(section.answer)}**", _grid(section.table)]
        parts.append("\n".join(f"- {_plain(s.text)} ({_plain(s.evidence)})" for s in section.advice))
        parts.append("\n".join(f"- {_plain(note)}" for note in section.notes))
        parts.append("\n".join(f"- {_plain(k)}: {_plain(v)}" for k, v in section.settings.items()))
    return "\n\n".join(filter(None, parts)) + "\n"


def _grid(table: ResultsTable) -> str:
    """A table in Markdown."""
    lines = [("", "optimizer", *table.columns), ("---",) * (len(table.columns) + 2)]
    for row in table.rows:
        cells = (f"{cell.text} ({cell.below})" if cell.below else cell.text for cell in row.cells)
        name = f"{row.name} ({row.below})" if row.below else row.name
        lines.append((row.mark, name, *cells))
    return "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)


def _plain(text: str) -> str:
    """Text in which Markdown finds nothing of its own."""
    for sign in "\\`*_|<>[]":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
