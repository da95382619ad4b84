"""What to do after a comparison, or before one: sentences, each with what it rests on."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy import special

from thalweg.errors import nearest
from thalweg.study.errors import StudyError
from thalweg.study.reporting import wording
from thalweg.study.reporting.rules_of_thumb import ALWAYS, BY_FEATURE, FEATURES
from thalweg.study.statistics.findings import TOLERANCE, Findings, SettingRuns, Summary
from thalweg.study.statistics.resampling import verdict

__all__ = ["FEATURES", "Advice", "Sentence", "advise", "rules_of_thumb"]

# A validation loss that fell by more than this share over the last tenth of training is still falling; one
# that ends more than this share above its lowest has risen again.
FALLING, RISEN = 0.02, 0.05

# With what probability the advised number of seeds shows a difference as large as the one observed.
POWER = 0.8

# A validation loss within this factor of the lowest counts as low enough.
FLAT = 1.01


@dataclass(frozen=True)
class Sentence:
    """One piece of advice.

    Attributes:
        about: "choice", "gain", "tie", "robustness", "failures", "next" or "rule of thumb".
        text: what to do or to know.
        evidence: the numbers, or the source, that it rests on.
    """

    about: str
    text: str
    evidence: str


@dataclass(frozen=True)
class Advice:
    """Sentences, most important first.

    Attributes:
        optimizer: which to use, by its contestant's name; None where there is nothing to choose from.
        hyperparameters: the values to use it with.
    """

    sentences: tuple[Sentence, ...]
    optimizer: str | None = None
    hyperparameters: dict[str, float] | None = None

    def __str__(self) -> str:
        return "\n".join(f"{s.text}\n    [{s.evidence}]" for s in self.sentences)


def advise(findings: Findings, default: str | None = None) -> Advice:
    """Which optimizer to use and with what, how much that gains, and how sure it is.

    Of those that are tied with the best, it is the one with the least state, then the one with the fewest
    hyperparameters to tune, then the one with the widest region of good learning rates.

    Args:
        findings: of a study, complete or not.
        default: the contestant that the user would use otherwise, untuned. None: "adam" where it took
            part, otherwise the contestant whose default did best.

    Raises:
        StudyError: no contestant has that name.
    """
    by_name = {summary.name: summary for summary in findings.summaries}
    if default is not None and default not in by_name:
        raise StudyError(
            f"no contestant is named {default!r}; {nearest(default, by_name)}", argument="default"
        )
    if not findings.tied:
        why = "; ".join(sorted({_reason(s) for s in findings.summaries} - {""})) or "no run has ended yet"
        text = "There is nothing to choose from: every setting failed, or none has ended."
        return Advice((Sentence("failures", text, why),))
    chosen = min(findings.tied, key=_cost)
    assert chosen.best is not None, "tied contestants have a best setting"
    sentences = [_choice(findings, chosen)]
    sentences += _gains(findings, chosen, _usual(findings, default))
    sentences += _tie(findings)
    sentences += _robustness(findings, chosen)
    sentences += _failures(findings)
    sentences += _next(findings, chosen)
    return Advice(tuple(sentences), chosen.name, dict(chosen.best.hyperparameters))


def rules_of_thumb(features: Collection[str]) -> Advice:
    """The field's advice before any comparison, with its sources.

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
    rules = [rule for feature in FEATURES if feature in features for rule in BY_FEATURE[feature]]
    return Advice(tuple(Sentence("rule of thumb", rule.text, rule.source) for rule in (*rules, *ALWAYS)))


# -- sentences ------------------------------------------------------------------------------------


def _choice(findings: Findings, chosen: Summary) -> Sentence:
    assert chosen.best is not None, "it was chosen for it"
    values = ", ".join(f"{key}={value:g}" for key, value in chosen.best.hyperparameters.items())
    loss = findings.ranked_by.replace("_", " ").replace("val ", "validation ")
    median = wording.interval(chosen.best.median(findings.ranked_by))
    if len(findings.tied) == 1:
        why = "its loss is lower than every other's by more than the seeds' noise"
        if len(findings.summaries) == 1:
            why = "it was the only one"
    else:
        why = f"of {len(findings.tied)} that cannot be distinguished it costs least"
    return Sentence(
        "choice",
        f"Use {chosen.name} with {values}: {why}.",
        f"{loss} {median} over {len(chosen.best.runs)} seeds; {_memory(chosen)}",
    )


def _gains(findings: Findings, chosen: Summary, usual: Summary | None) -> list[Sentence]:
    """What the choice gains over the user's default, and how much of that comes from tuning alone."""
    if usual is None or usual.default is None or chosen.final is None:
        return []
    sentences = []
    gain = usual.default.ratio_to(chosen.final)
    rate = f"at its default learning rate {usual.default.lr:g}"
    if gain is None:
        failed = len(usual.default.runs) - len(usual.default.finished)
        if failed:
            text = f"{usual.name} {rate} failed in {failed} of {len(usual.default.runs)} runs."
            sentences.append(Sentence("gain", text, "runs from the final seeds"))
        return sentences
    times = f"test loss of {usual.name} {rate} over that of {chosen.name}: {wording.interval(gain)} times"
    if verdict(gain, 1.0) == "worse":
        times_lower = wording.number(gain.estimate)
        text = f"That lowers the test loss {times_lower} times compared with {usual.name} {rate}."
    elif verdict(gain, 1.0) == "better":
        text = f"{usual.name} {rate} is better still: keep it."
    elif verdict(gain, 1 + TOLERANCE) == "better":
        text = (
            f"It lowers the test loss by {TOLERANCE:.0%} at most compared with {usual.name} {rate}: "
            "there is no need to change."
        )
    else:
        seeds = f"{findings.seeds} {'seeds do' if findings.seeds > 1 else 'seed does'}"
        text = (
            f"{seeds} not distinguish it from {usual.name} {rate}, which does not show that they are equal: "
            "more seeds would decide (--seeds)."
        )
    sentences.append(Sentence("gain", text, times))
    own = usual.gain
    if own is not None and usual is not chosen:
        tuned = {
            "worse": f"Tuning {usual.name} alone lowers it {wording.number(own.estimate)} times",
            "tie": f"Tuning {usual.name} alone makes no difference that the seeds could show",
            "better": f"Tuning {usual.name} alone made it worse on test data",
        }[verdict(own, 1.0)]
        evidence = f"its default's test loss over its tuned one's: {wording.interval(own)} times"
        sentences.append(Sentence("gain", f"{tuned}.", evidence))
    return sentences


def _tie(findings: Findings) -> list[Sentence]:
    if len(findings.summaries) < 2 or len(findings.tied) < 2 or findings.leader is None:
        return []
    lags = {s.name: findings.lag(s) for s in findings.tied if s is not findings.leader}
    unit = "times" if findings.relative else "more"
    each = ", ".join(f"{name} {wording.interval(lag)}" for name, lag in lags.items())
    text = f"It is a tie: {wording.names(findings.tied)} cannot be distinguished with {findings.seeds} seeds."
    return [Sentence("tie", text, f"loss compared with that of {findings.leader.name}, {unit}: {each}")]


def _robustness(findings: Findings, chosen: Summary) -> list[Sentence]:
    """How far the learning rate may be off, for the choice and for the most tolerant of the tied."""
    region = chosen.region
    if region is None or not math.isfinite(region.best):
        return []
    sentences = [_region(chosen)]
    regions = {s.name: s for s in findings.tied if s.region and math.isfinite(s.region.best)}
    widest = max(regions.values(), key=_width)
    if widest is not chosen and _width(widest) > _width(chosen) + 0.5:
        text = f"{widest.name} is less sensitive to the learning rate."
        sentences.append(Sentence("robustness", text, _region(widest).text))
    return sentences


def _region(summary: Summary) -> Sentence:
    region = summary.region
    assert region is not None, "checked before"
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
    return [Sentence("failures", text, f"failed runs: {each}")]


def _next(findings: Findings, chosen: Summary) -> list[Sentence]:
    """What to try next, most important first."""
    suggestions = (
        _finish(findings),
        _wider_range(findings, chosen),
        _other_length(chosen),
        _schedule(findings, chosen),
        _further_hyperparameter(chosen),
        _fewer_trials(chosen),
        _more_seeds(findings),
    )
    return [Sentence("next", *suggestion) for suggestion in suggestions if suggestion]


# A suggestion, and what it rests on; None where there is nothing to suggest.
_Suggestion: TypeAlias = tuple[str, str] | None


def _finish(findings: Findings) -> _Suggestion:
    study = findings.study
    if study.complete:
        return None
    return "Let the study finish.", f"{study.done} of {study.total} runs have ended"


def _wider_range(findings: Findings, chosen: Summary) -> _Suggestion:
    if not chosen.on_edge or chosen.best is None or findings.study.facts["proposer"] != "grid":
        return None
    rates = chosen.rates
    low = chosen.best.lr == rates[0]
    beyond = rates[0] / math.sqrt(10) if low else rates[-1] * math.sqrt(10)
    return (
        f"Try {chosen.name} at {'smaller' if low else 'larger'} learning rates, such as {beyond:.2g}.",
        f"its best, {chosen.best.lr:g}, is the {'smallest' if low else 'largest'} of {len(rates)} tried",
    )


def _other_length(chosen: Summary) -> _Suggestion:
    """Stops where the validation loss rises again, or trains longer where it is still falling."""
    curve = chosen.best.curve("val_loss") if chosen.best else None
    if curve is None or len(curve.median) < 5 or curve.median.min() <= 0:
        return None
    start = min(int(0.9 * (len(curve.median) - 1)), len(curve.median) - 2)
    lowest, last = int(curve.median.argmin()), len(curve.median) - 1
    if curve.median[last] / curve.median[lowest] - 1 > RISEN:
        return (
            f"Stop {chosen.name} near epoch {curve.epoch[lowest]:.3g}, or regularise: then it overfits.",
            f"median validation loss {wording.number(curve.median[lowest])} there, "
            f"{wording.number(curve.median[last])} at the end",
        )
    fallen = 1 - curve.median[last] / curve.median[start]
    if fallen > FALLING:
        evidence = f"the validation loss of {chosen.name} still fell by {fallen:.0%} over the last tenth"
        return "Train longer.", evidence
    return None


def _schedule(findings: Findings, chosen: Summary) -> _Suggestion:
    if any(s.facts["schedule"] for s in findings.summaries):
        return None
    rule = chosen.facts.get("rule", chosen.name)
    return (
        f"Try a falling learning rate: {rule}+cosine, or {rule}+warmup+cosine.",
        "no contestant had a schedule",
    )


def _further_hyperparameter(chosen: Summary) -> _Suggestion:
    further = [key for key in chosen.facts["defaults"] if key != "lr"]
    if not further or not chosen.tuned or any(s.chosen.keys() - {"lr"} for s in chosen.search):
        return None
    return f"Tune {further[0]} of {chosen.name} too.", "only its learning rate was searched"


def _fewer_trials(chosen: Summary) -> _Suggestion:
    best_of = chosen.best_of
    if best_of is None or len(best_of.estimate) < 4 or best_of.estimate[-1] <= 0:
        return None
    count = len(best_of.estimate)
    enough = int(np.argmax(best_of.estimate <= FLAT * best_of.estimate[-1])) + 1
    if enough == count:
        return None
    return (
        f"Fewer trials will do for {chosen.name} next time: {enough} of {count}.",
        f"the best of {enough} in random order has a validation loss of "
        f"{wording.number(best_of.estimate[enough - 1])}, that of all {count} "
        f"{wording.number(best_of.estimate[-1])}",
    )


def _more_seeds(findings: Findings) -> _Suggestion:
    if not findings.study.complete or len(findings.tied) < 2 or not (more := _seeds(findings)):
        return None
    name, leader, count, share = more
    return (
        f"To distinguish {name} from {leader}, take about {count} seeds (--seeds).",
        f"by the spread of their difference so far, {share:.0%} of the loss, at a power of {POWER:.0%}",
    )


# -- what they rest on ----------------------------------------------------------------------------


def _usual(findings: Findings, default: str | None) -> Summary | None:
    """What the user would use otherwise."""
    by_name = {s.name: s for s in findings.summaries}
    if default is not None:
        return by_name[default]
    if "adam" in by_name:
        return by_name["adam"]
    some = [s for s in findings.summaries if s.default]
    return min(some, key=lambda s: _median(s.default), default=None)


def _median(setting: SettingRuns | None) -> float:
    return float(np.median(setting.losses("test_loss"))) if setting else math.inf


def _cost(summary: Summary) -> tuple[float, int, float]:
    """What a contestant costs: memory, hyperparameters to tune, care with the learning rate."""
    return _state(summary), len(summary.facts["space"]), -_width(summary)


def _state(summary: Summary) -> float:
    memory = summary.best.median("state_bytes") if summary.best else None
    return memory.estimate if memory else math.inf


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
    """Which contestant more seeds could distinguish from the leader soonest, how many, and the spread."""
    leader = findings.leader
    first = leader and findings.best(leader)
    if not leader or not leader.final or not first or findings.seeds < 3 or not findings.relative:
        return None
    best = np.log(first.losses("test_loss"))
    each = 1 - 0.025 / (len(findings.summaries) - 1)
    z = float(special.ndtri(each) + special.ndtri(POWER))
    candidates: list[tuple[str, str, int, float]] = []
    for other in findings.tied:
        second = findings.best(other)
        if other is leader or other.final is None or second is None:
            continue
        differences = np.log(second.losses("test_loss")) - best
        if not np.isfinite(differences).all() or differences.mean() <= 0:
            continue
        spread = float(differences.std(ddof=1))
        count = math.ceil((z * spread / float(differences.mean())) ** 2) + 2
        if findings.seeds < count <= 20 * findings.seeds:
            candidates.append((other.name, leader.name, count, spread))
    return min(candidates, key=lambda one: one[2], default=None)
