"""What the pages take from the code when they are built: `{{ rules }}`, `{{ dialects }}`, `{{ gallery }}`."""

import html
import io
import re
import textwrap
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

import thalweg
from thalweg import gallery, plot
from thalweg.dialects import DIALECTS, SPELLINGS
from thalweg.explain.guide import GUIDES, SWITCHES
from thalweg.registry import find
from thalweg.rule import Rule


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in a page's placeholders; mkdocs calls it."""
    return re.sub(r"^\{\{ (\w+) \}\}$", lambda match: GENERATED[match[1]](), markdown, flags=re.MULTILINE)


def on_files(files: Files, *, config: Any) -> None:
    """Draw the gallery, small, on light and on dark; mkdocs calls it."""
    for name in gallery.names():
        for theme in plot.THEMES:
            drawn = gallery.get(name).draw(theme=theme, scale=0.9, detail=0.6)
            picture = io.BytesIO()
            plot.save(drawn.figure, picture, kind="png", dpi=100)
            files.append(File.generated(config, f"gallery/{name}-{theme}.png", content=picture.getvalue()))
            CAPTIONS[name] = drawn.caption


def pictures() -> str:
    """A section a picture: what to see, and the code that drew it."""
    return "\n\n".join(
        "\n".join(
            [
                f"## {gallery.get(name).title}",
                "",
                *(f"![](gallery/{name}-{theme}.png#only-{theme})" for theme in plot.THEMES),
                "",
                f"<p>{html.escape(caption)}</p>",
                "",
                f"`thalweg figure {name}`",
                "",
                '??? note "The code"',
                "",
                textwrap.indent(f"```python\n{gallery.get(name).code}\n```", "    "),
            ]
        )
        for name, caption in CAPTIONS.items()
    )


def dialects() -> str:
    """One table a rule: a row a field that differs, a column a dialect."""
    return "\n\n".join(f"### {kind.__name__}\n\n{table(kind)}" for kind in map(find, thalweg.rules()))


def rules() -> str:
    """A section a rule."""
    return "\n\n".join(section(find(name)) for name in thalweg.rules())


def section(kind: type[Rule]) -> str:
    """What a rule does, its formula, hyperparameters, when it serves, its cost."""
    program = thalweg.trace(kind())
    summary, _, source = (kind.__doc__ or "").partition("\n\n")
    guide = GUIDES[kind.__name__]
    linked = re.sub(r"(https://[^ ]*[^ ,.])", r"<\1>", " ".join(source.split()))
    rows = [
        f"| `{name}` | {mathml(h.symbol)} | {h.meaning} | {h.range} | {shown(kind().values[name])} |"
        for name, h in kind().hyperparameters.items()
    ]
    return "\n".join(
        [
            f"## {kind.__name__}",
            "",
            f"{summary} {guide.how}",
            "",
            f'<div class="formula">{mathml(program.latex(kind()), "block")}</div>',
            "",
            "| hyperparameter | symbol | meaning | range | default |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"**Serves well.** {guide.well}",
            "",
            f"**Serves badly.** {guide.badly}",
            "",
            f"**Cost**, float32: {program.bytes_per_entry(4)} bytes and {program.operations.total()} "
            f"operations an entry; state: {len(program.slots)} × the size of the parameters.",
            "",
            f"**Source**: {linked}",
        ]
    )


def table(kind: type[Rule]) -> str:
    """The fields that differ among a rule's dialects."""
    known = [name for name in DIALECTS if name == "paper" or kind.__name__ in SPELLINGS[name]]
    rules = {name: thalweg.get(kind.__name__, dialect=name) for name in known}
    differ = [
        f.name
        for f in fields(kind)  # type: ignore[arg-type]
        if len({getattr(rule, f.name) for rule in rules.values()}) > 1
    ]
    lines = [f"| | {' | '.join(rules)} |", "|---|" + "---|" * len(rules)]
    for name in differ:
        lines.append(f"| `{name}` | {' | '.join(shown(getattr(rule, name)) for rule in rules.values())} |")
    switches = [f"`{name}`: {SWITCHES[name]}." for name in differ if name in SWITCHES]
    calls = ", ".join(f"`{SPELLINGS[name][kind.__name__]}`" for name in rules if name in SPELLINGS)
    same = "" if differ else "The same arithmetic and defaults everywhere. "
    return "\n".join([*(lines if differ else []), "", " ".join(switches), "", f"{same}Elsewhere: {calls}."])


def shown(value: Any) -> str:
    """A field's value as a reader writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}"


def mathml(latex: str, display: str = "inline") -> str:
    """A formula that browsers set themselves."""
    return convert(latex.replace("{aligned}", "{align*}"), display=display)


GENERATED: dict[str, Callable[[], str]] = {"dialects": dialects, "gallery": pictures, "rules": rules}
CAPTIONS: dict[str, str] = {}
