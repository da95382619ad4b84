"""How a notebook shows a rule: its formula and its hyperparameters."""

import html

from thalweg.program.tracing import trace
from thalweg.rule import Rule


def rule_html(rule: Rule) -> str:
    """A rule as HTML whose formulas are LaTeX between dollars, as notebooks set them."""
    summary = html.escape((type(rule).__doc__ or "").partition("\n")[0])
    described = rule.hyperparameters
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>${about.symbol}$</td>"
        f"<td>{html.escape(_value(rule.values[name]))}</td><td>{html.escape(about.meaning)}</td></tr>"
        for name, about in described.items()
    )
    head = "".join(f"<th>{name}</th>" for name in ("hyperparameter", "symbol", "value", "meaning"))
    formula = html.escape(trace(rule).latex(rule))
    return (
        f"<p><b>{html.escape(type(rule).__name__)}</b>: {summary}</p><p>$${formula}$$</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else repr(value)
