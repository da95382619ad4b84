"""What to do after a comparison, or before one: sentences, each with what it rests on."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy import special

from thalweg.errors import nearest
from thalweg.study.errors import StudyError
from thalweg.study.reporting import rules_of_thumb as thumb
from thalweg.study.reporting import wording
from thalweg.study.reporting.rules_of_thumb import FEATURES
from thalweg.study.statistics.findings import TOLERANCE, Findings, Outcome, Summary
from thalweg.study.statistics.resampling import verdict

__all__ = ["FEATURES", "Advice", "Sentence", "advise", "rules_of_thumb"]

# A validation loss that fell by more than this share over the last tenth of the training is still falling;
# one that ends by more than this share above its lowest has risen again.
FALLING, RISEN = 0.02, 0.05

# How often the seeds that are advised should show a difference as large as the one seen.
POWER = 0.8

# From here on a search has shown that its last trials gained nothing.
FLAT = 1.01


@dataclass(frozen=True)
class Sentence:
    """One piece of advice.

    Attributes:
        about: "choice", "gain", "tie", "robustness", "failures", "next" or "thumb".
        text: what to do or to know.
        evidence: the figures, or the source, that it rests on.
    """

    about: str
    text: str
    evidence: str


@dataclass(frozen=True)
class Advice:
    """Sentences in the order of their weight.

    Attributes:
        optimizer: which to use, by its contestant's name; None where there was nothing to choose from.
        hyperparameters: what to use it with.
    """

    sentences: tuple[Sentence, ...]
    optimizer: str | None = None
    hyperparameters: dict[str, float] | None = None

    def __str__(self) -> str:
        return "\n".join(f"{s.text}\n    [{s.evidence}]" for s in self.sentences)


def advise(findings: Findings, default: str | None = None) -> Advice:
    """Which optimizer to use and with what, how much that gains, and how sure it is.

    Of those that the seeds do not tell from the best, it is the one with the least state, then the one with
    the fewest hyperparameters to tune, then the one with the widest region of good learning rates.

    Args:
        findings: of a study, complete or not.
        default: the contestant that the user would take otherwise, untuned. None: "adam" where it took
            part, else the contestant whose default did best.

    Raises:
        StudyError: no contestant has that name.
    """
    by_name = {summary.name: summary for summary in findings.summaries}
    if default is not None and default not in by_name:
        raise StudyError(
            f"no contestant is named {default!r}; {nearest(default, by_name)}", argument="default"
        )
    if not findings.tied:
        why = "; ".join(sorted({_reason(s) for s in findings.summaries} - {""})) or "no run is through yet"
        return Advice(
            (Sentence("failures", "There is nothing to choose from: no setting went through.", why),)
        )
    chosen = min(findings.tied, key=_cost)
    assert chosen.best is not None, "who is tied went through"
    found = [_choice(findings, chosen)]
    found += _gains(findings, chosen, _usual(findings, default))
    found += _tie(findings)
    found += _robustness(findings, chosen)
    found += _failures(findings)
    found += _next(findings, chosen)
    return Advice(tuple(found), chosen.name, dict(chosen.best.hyperparameters))


def rules_of_thumb(features: Collection[str]) -> Advice:
    """What the field says before any comparison, with its sources.

    Args:
        features: of the problem, names in `FEATURES`.

    Raises:
        StudyError: an unknown feature.
    """
    for feature in features:
        if feature not in FEATURES:
            raise StudyError(
                f"no feature is named {feature!r}; {nearest(feature, FEATURES)}", argument="features"
            )
    rules = [rule for feature in FEATURES if feature in features for rule in thumb.BY_FEATURE[feature]]
    return Advice(tuple(Sentence("thumb", rule.text, rule.source) for rule in (*rules, *thumb.ALWAYS)))


# -- sentences ------------------------------------------------------------------------------------


def _choice(findings: Findings, chosen: Summary) -> Sentence:
    assert chosen.best is not None, "it went through"
    with_ = ", ".join(f"{key}={value:g}" for key, value in chosen.best.hyperparameters.items())
    loss = findings.figure.replace("_", " ").replace("val ", "validation ")
    figure = wording.interval(chosen.best.median(findings.figure))
    if len(findings.tied) == 1:
        why = "its loss is lower than every other's by more than the seeds' noise"
        if len(findings.summaries) == 1:
            why = "it was the only one"
    else:
        why = f"of {len(findings.tied)} that cannot be told apart it costs least"
    return Sentence(
        "choice",
        f"Use {chosen.name} with {with_}: {why}.",
        f"{loss} {figure} over {len(chosen.best.runs)} seeds; {_memory(chosen)}",
    )


def _gains(findings: Findings, chosen: Summary, usual: Summary | None) -> list[Sentence]:
    """Over the user's default, and how much of it is tuning alone."""
    if usual is None or usual.default is None or chosen.final is None:
        return []
    found = []
    gain = usual.default.times(chosen.final)
    rate = f"at its default learning rate {usual.default.lr:g}"
    if gain is None:
        failed = len(usual.default.runs) - len(usual.default.finished)
        if failed:
            text = f"{usual.name} {rate} failed in {failed} of {len(usual.default.runs)} runs."
            found.append(Sentence("gain", text, "runs from the final seeds"))
        return found
    times = f"test loss of {usual.name} {rate} over that of {chosen.name}: {wording.interval(gain)} times"
    if verdict(gain, 1.0) == "worse":
        text = f"That lowers the test loss {wording.number(gain.estimate)} times beside {usual.name} {rate}."
    elif verdict(gain, 1.0) == "better":
        text = f"{usual.name} {rate} is better still: keep it."
    elif verdict(gain, 1 + TOLERANCE) == "better":
        text = (
            f"It lowers the test loss by {TOLERANCE:.0%} at most beside {usual.name} {rate}: "
            "there is no need to change."
        )
    else:
        seeds = f"{findings.seeds} {'seeds do' if findings.seeds > 1 else 'seed does'}"
        text = (
            f"{seeds} not tell it from {usual.name} {rate}, which is no sign that they are equal: "
            "more would tell (--seeds)."
        )
    found.append(Sentence("gain", text, times))
    own = usual.gain
    if own is not None and usual is not chosen:
        tuned = {
            "worse": f"Tuning {usual.name} alone lowers it {wording.number(own.estimate)} times",
            "tie": f"Tuning {usual.name} alone changes nothing that the seeds could show",
            "better": f"Tuning {usual.name} alone made it worse on test data",
        }[verdict(own, 1.0)]
        evidence = f"its default's test loss over its tuned one's: {wording.interval(own)} times"
        found.append(Sentence("gain", f"{tuned}.", evidence))
    return found


def _tie(findings: Findings) -> list[Sentence]:
    if len(findings.summaries) < 2 or len(findings.tied) < 2 or findings.leader is None:
        return []
    lags = {s.name: findings.lag(s) for s in findings.tied if s is not findings.leader}
    unit = "times" if findings.relative else "more"
    each = ", ".join(f"{name} {wording.interval(lag)}" for name, lag in lags.items())
    text = f"It is a tie: {wording.names(findings.tied)} cannot be told apart with {findings.seeds} seeds."
    return [Sentence("tie", text, f"loss beside that of {findings.leader.name}, {unit}: {each}")]


def _robustness(findings: Findings, chosen: Summary) -> list[Sentence]:
    """How far the learning rate may be off, for the chosen and for the widest of the tied."""
    region = chosen.region
    if region is None or not math.isfinite(region.best):
        return []
    found = [_region(chosen)]
    regions = {s.name: s for s in findings.tied if s.region and math.isfinite(s.region.best)}
    widest = max(regions.values(), key=_width)
    if widest is not chosen and _width(widest) > _width(chosen) + 0.5:
        text = f"{widest.name} forgives a wrong learning rate more easily."
        found.append(Sentence("robustness", text, _region(widest).text))
    return found


def _region(summary: Summary) -> Sentence:
    region = summary.region
    assert region is not None, "asked before"
    factor = 10**region.decades.estimate
    ends = [name for name, is_open in (("low", region.open_below), ("high", region.open_above)) if is_open]
    more = f" or more: it reaches the {' and '.join(ends)} end of what was tried" if ends else ""
    return Sentence(
        "robustness",
        f"{summary.name} does about as well at learning rates from {region.low:.2g} to {region.high:.2g}, "
        f"a factor of {factor:.2g}{more}.",
        f"median validation loss at most {TOLERANCE:.0%} above its lowest, between the "
        f"{len(summary.sweep)} rates tried; {wording.interval(region.decades)} decades",
    )


def _failures(findings: Findings) -> list[Sentence]:
    runs = {s.name: (s.failed, len(s.runs)) for s in findings.summaries if s.failed}
    if not runs:
        return []
    worst = max(runs, key=lambda name: runs[name][0] / runs[name][1])
    each = ", ".join(f"{name} {failed} of {count}" for name, (failed, count) in runs.items())
    text = f"Watch for divergence, most with {worst}: check that its learning rate is not too large."
    return [Sentence("failures", text, f"runs that did not go through: {each}")]


def _next(findings: Findings, chosen: Summary) -> list[Sentence]:
    assert chosen.best is not None, "it went through"
    found = []
    study = findings.study

    def add(text: str, evidence: str) -> None:
        found.append(Sentence("next", text, evidence))

    if not study.complete:
        add("Let the study come to its end.", f"{study.done} of {study.total} runs are through")
    if chosen.on_edge and study.facts["proposer"] == "grid":
        rates = chosen.rates
        low = chosen.best.lr == rates[0]
        beyond = rates[0] / math.sqrt(10) if low else rates[-1] * math.sqrt(10)
        add(
            f"Try {chosen.name} at {'smaller' if low else 'larger'} learning rates, such as {beyond:.2g}.",
            f"its best, {chosen.best.lr:g}, is the {'smallest' if low else 'largest'} of {len(rates)} tried",
        )
    curve = chosen.best.curve("val_loss")
    if curve is not None and len(curve.median) >= 5 and curve.median.min() > 0:
        start = min(int(0.9 * (len(curve.median) - 1)), len(curve.median) - 2)
        lowest, last = int(curve.median.argmin()), len(curve.median) - 1
        risen = curve.median[last] / curve.median[lowest] - 1
        fallen = 1 - curve.median[last] / curve.median[start]
        if risen > RISEN:
            add(
                f"Stop {chosen.name} near epoch {curve.epoch[lowest]:.3g}, or regularise: then it overfits.",
                f"median validation loss {wording.number(curve.median[lowest])} there, "
                f"{wording.number(curve.median[last])} at the end",
            )
        elif fallen > FALLING:
            add(
                "Train longer.",
                f"the validation loss of {chosen.name} still fell by {fallen:.0%} over the last tenth",
            )
    own = chosen.facts.get("rule", chosen.name)
    if not any(s.facts["schedule"] for s in findings.summaries):
        add(
            f"Try a falling learning rate: {own}+cosine, or {own}+warmup+cosine.",
            "no contestant had a schedule",
        )
    if chosen.tuned and all(s.chosen.keys() <= {"lr"} for s in chosen.search):
        further = [key for key in chosen.facts["defaults"] if key != "lr"]
        if further:
            add(f"Tune {further[0]} of {chosen.name} too.", "only its learning rate was searched")
    best_of = chosen.best_of
    if best_of is not None and len(best_of.estimate) >= 4 and best_of.estimate[-1] > 0:
        enough = int(np.argmax(best_of.estimate <= FLAT * best_of.estimate[-1])) + 1
        if enough < len(best_of.estimate):
            add(
                f"Fewer trials will do for {chosen.name} next time: {enough} of {len(best_of.estimate)}.",
                f"the best of {enough} in random order has a validation loss of "
                f"{wording.number(best_of.estimate[enough - 1])}, that of all {len(best_of.estimate)} "
                f"{wording.number(best_of.estimate[-1])}",
            )
    if study.complete and len(findings.tied) > 1 and (more := _seeds(findings)):
        name, leader, count, share = more
        add(
            f"To tell {name} from {leader}, take about {count} seeds (--seeds).",
            f"by the spread of their difference so far, {share:.0%} of the loss, at a power of {POWER:.0%}",
        )
    return found


# -- what they rest on ----------------------------------------------------------------------------


def _usual(findings: Findings, default: str | None) -> Summary | None:
    """What the user would take otherwise."""
    by_name = {s.name: s for s in findings.summaries}
    if default is not None:
        return by_name[default]
    if "adam" in by_name:
        return by_name["adam"]
    some = [s for s in findings.summaries if s.default]
    return min(some, key=lambda s: _median(s.default), default=None)


def _median(setting: Outcome | None) -> float:
    return float(np.median(setting.losses("test_loss"))) if setting else math.inf


def _cost(summary: Summary) -> tuple[float, int, float]:
    """What a contestant asks for: memory, hyperparameters to tune, care with the learning rate."""
    return _state(summary), len(summary.facts["space"]), -_width(summary)


def _state(summary: Summary) -> float:
    found = summary.best.median("state_bytes") if summary.best else None
    return found.estimate if found else math.inf


def _width(summary: Summary) -> float:
    return summary.region.decades.estimate if summary.region else 0.0


def _memory(summary: Summary) -> str:
    state = _state(summary)
    return (
        "no state"
        if not state
        else f"state of {wording.bytes_(state)}"
        if math.isfinite(state)
        else "state unknown"
    )


def _reason(summary: Summary) -> str:
    run = next((run for run in summary.runs if run.end.get("reason")), None)
    return f"{summary.name}: {run.end['reason']}" if run else ""


def _seeds(findings: Findings) -> tuple[str, str, int, float] | None:
    """Whom more seeds could tell from the leader soonest, the leader, how many seeds, and the spread."""
    leader = findings.leader
    first = leader and findings.best(leader)
    if not leader or not leader.final or not first or findings.seeds < 3 or not findings.relative:
        return None
    best = np.log(first.losses("test_loss"))
    each = 1 - 0.025 / (len(findings.summaries) - 1)
    sure = float(special.ndtri(each) + special.ndtri(POWER))
    found: list[tuple[str, str, int, float]] = []
    for other in findings.tied:
        second = findings.best(other)
        if other is leader or other.final is None or second is None:
            continue
        apart = np.log(second.losses("test_loss")) - best
        if not np.isfinite(apart).all() or apart.mean() <= 0:
            continue
        spread = float(apart.std(ddof=1))
        count = math.ceil((sure * spread / float(apart.mean())) ** 2) + 2
        if findings.seeds < count <= 20 * findings.seeds:
            found.append((other.name, leader.name, count, spread))
    return min(found, key=lambda one: one[2], default=None)
