"""What the page shows unasked: surfaces, rules, solvers, and a page for each rule."""

import math
from collections import Counter
from dataclasses import fields
from functools import lru_cache
from typing import Any

from thalweg import palette, registry, surfaces
from thalweg.dialects import DIALECTS, SPELLINGS
from thalweg.explain.guide import GUIDES, SWITCHES
from thalweg.explain.page import dialects_of, differences
from thalweg.hyperparameters import describe
from thalweg.play.question import LIMITS, drawable
from thalweg.program.printing import unicode_symbol
from thalweg.program.tracing import trace
from thalweg.registry import ALIASES
from thalweg.rule import Rule, is_flag
from thalweg.surfaces import solvers
from thalweg.surfaces.functions import Surface

__all__ = ["catalogue", "of_rule", "of_surface"]

# Colours for white and dark paper, and dashes in the width of a line.
LINE_STYLES: dict[str, Any] = {
    "light": palette.LIGHT,
    "dark": palette.DARK,
    "dashes": [[2 * length for length in dashes] for dashes in palette.DASHES],
}


def of_surface(surface: Surface) -> dict[str, Any]:
    """What to know of a surface."""
    return {
        "name": surface.name,
        "title": surface.title,
        "formula": surface.unicode(),
        "window": surface.window,
        "start": surface.start,
        "minima": surface.minima,
        "saddles": surface.saddles,
        "lowest": surface.lowest if surface.minima else None,
        "noise": surface.noise.deviation,
        "sparse": bool(surface.noise.frequencies),
        "source": surface.source,
    }


@lru_cache(maxsize=1)
def catalogue() -> dict[str, Any]:
    """Everything that the page offers."""
    rules = []
    for name in registry.rules():
        kind = registry.find(name)
        forms = {dialect: _form(registry.get(name, dialect=dialect)) for dialect in dialects_of(kind)}
        summary = (kind.__doc__ or "").partition("\n")[0]
        rules.append({"name": name, "title": kind.__name__, "summary": summary, "dialects": forms})
    return {
        "surfaces": [of_surface(surfaces.get(name)) for name in drawable()],
        "rules": rules,
        "solvers": [{"name": s, "title": solvers.get(s).title} for s in solvers.names()],
        "limits": LIMITS,
        "looks": LINE_STYLES,
    }


def _form(rule: Rule) -> dict[str, Any]:
    """A rule's numbers and switches in one dialect."""
    numbers = {}
    symbols = trace(rule).symbols
    for name, about in rule.hyperparameters.items():
        numbers[name] = {
            "symbol": unicode_symbol(symbols[name], name),
            "meaning": about.meaning,
            "range": about.range,
            "low": about.low if math.isfinite(about.low) else None,
            "high": about.high if math.isfinite(about.high) else None,
            "search": about.search,
            "complement": about.complement,
            "value": rule.values[name],
        }
    switches = {
        f.name: {"meaning": SWITCHES.get(f.name, ""), "value": getattr(rule, f.name)}
        for f in fields(rule)
        if is_flag(f)
    }
    return {"numbers": numbers, "switches": switches}


def of_rule(name: str) -> dict[str, Any]:
    """Everything on a rule's page.

    Raises:
        UnknownRuleError: no rule has the name.
    """
    kind = registry.find(name)
    guide = GUIDES.get(registry.standard_name(kind))
    summary, _, source = (kind.__doc__ or "").partition("\n")
    forms = {dialect: registry.get(name, dialect=dialect) for dialect in dialects_of(kind)}
    formulas: dict[str, list[str]] = {}
    for dialect, rule in forms.items():
        formulas.setdefault(trace(rule).unicode(rule), []).append(dialect)
    every = {f.name: describe(f) for f in fields(kind) if not is_flag(f)}
    symbols = Counter(about.symbol for about in every.values())
    return {
        "name": kind.__name__.lower(),
        "title": kind.__name__,
        "aliases": [alias for alias, of in ALIASES.items() if of == registry.standard_name(kind)],
        "summary": summary,
        "source": " ".join(source.split()),
        "formulas": [
            {"dialects": used, "text": "\n".join(line.strip() for line in text.splitlines())}
            for text, used in formulas.items()
        ],
        "hyperparameters": [
            {
                "name": key,
                "symbol": unicode_symbol(about.symbol, key) if symbols[about.symbol] == 1 else key,
                "meaning": about.meaning,
                "range": about.range,
                "values": {d: rule.values.get(key) for d, rule in forms.items()},
            }
            for key, about in every.items()
        ],
        "switches": [
            {
                "name": f.name,
                "meaning": SWITCHES.get(f.name, ""),
                "values": {d: getattr(rule, f.name) for d, rule in forms.items()},
            }
            for f in fields(kind)
            if is_flag(f)
        ],
        "dialects": [
            {
                "name": dialect,
                "spelling": SPELLINGS.get(dialect, {}).get(registry.standard_name(kind), ""),
                "differs": differences(kind, dialect) if dialect in DIALECTS else "",
            }
            for dialect in forms
        ],
        "guide": {"how": guide.how, "well": guide.well, "badly": guide.badly} if guide else None,
    }
