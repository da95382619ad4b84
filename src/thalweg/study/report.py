"""A study as one HTML file that opens offline, and as one picture."""

import dataclasses
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from thalweg.study import figures, words
from thalweg.study.errors import StudyError
from thalweg.study.plan import Plan
from thalweg.study.statistics import Ranking


def write(folder: Path, plan: Plan, ranking: Ranking) -> tuple[Path, Path]:
    """Writes `report.html` and `curves.png` into a folder and returns their paths.

    Raises:
        StudyError: one cannot be written.
    """
    page, picture = folder / "report.html", folder / "curves.png"
    try:
        page.write_text(html(plan, ranking), encoding="utf-8")
        figures.save(picture, plan, ranking)
    except OSError as error:
        raise StudyError(f"{error.filename or folder} cannot be written: {error.strerror}") from None
    return page, picture


def html(plan: Plan, ranking: Ranking) -> str:
    """The report as one page that needs nothing else."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": words.number, "spread": words.spread}
    return environment.get_template("report.html.jinja").render(
        plan=plan,
        ranking=ranking,
        tuned=any(len(contestant.rates) > 1 for contestant in plan.contestants),
        answer=words.answer(plan, ranking),
        notes=words.notes(plan, ranking),
        measures=("loss", *plan.task.metrics),
        # Our own drawing: what it says in words, matplotlib has escaped.
        panels=[(panel.title, Markup(figures.svg(panel))) for panel in figures.panels(plan, ranking)],
        cut=figures.CUT,
        looks=figures.looks(plan),
        palettes={"light": figures.LIGHT, "dark": figures.DARK},
        settings=_settings(plan, ranking),
        rules={c.name: _hyperparameters(c.rule) for c in plan.contestants},
    )


def _settings(plan: Plan, ranking: Ranking) -> dict[str, str]:
    environments = [run.header["environment"] for summary in ranking.summaries for run in summary.runs]
    versions = {
        name: ", ".join(sorted({str(environment[name]) for environment in environments}))
        for name in environments[0]
    }
    return {
        "task": f"{plan.task.name} (version {plan.task.version})",
        "epochs": str(plan.epochs),
        "batch size": str(plan.batch_size),
        "seeds": ", ".join(map(str, plan.seeds)),
        "learning rates": "; ".join(
            f"{names}: {', '.join(f'{rate:g}' for rate in rates)}" for rates, names in _rates(plan).items()
        ),
        "arithmetic and defaults": ", ".join(sorted({c.dialect for c in plan.contestants})),
        "training runs": str(len(plan.trials)),
    } | versions


def _rates(plan: Plan) -> dict[tuple[float, ...], str]:
    """Contestants by the learning rates they were tried with."""
    groups: dict[tuple[float, ...], list[str]] = {}
    for contestant in plan.contestants:
        groups.setdefault(contestant.rates, []).append(contestant.name)
    return {rates: "all" if len(groups) == 1 else ", ".join(names) for rates, names in groups.items()}


def _hyperparameters(rule: Any) -> str:
    fields = (field.name for field in dataclasses.fields(rule) if field.name != "lr")
    return ", ".join(f"{name}={getattr(rule, name)!r}" for name in fields)
