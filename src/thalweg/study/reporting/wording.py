"""The findings of a study in plain sentences, with their uncertainty."""

import math
from collections.abc import Sequence

from thalweg.study.statistics.findings import Findings, SettingRuns, Summary
from thalweg.study.statistics.resampling import Interval

# How runs fail, in sentences.
FAILED = {"diverged": "diverged", "memory": "ran out of memory", "crashed": "crashed"}


# Of more names only the first are listed.
MANY = 10


def answer(findings: Findings) -> str:
    """Which optimizer did best, and how sure that is."""
    leader = findings.leader
    if not any(s.count("finished") for s in findings.summaries):
        return "Every run failed, at every setting." if findings.study.complete else "No run has ended yet."
    if leader is None or leader.best is None or not findings.tied:
        return "Most runs failed, of every optimizer: nothing can be said of which is best."
    best = f"{leader.name} {_setting(leader.best)}: {_measures(findings, leader.best)}"
    if findings.ranked_by == "val_loss":
        return f"Not complete: {findings.study.done} of {findings.study.total} runs. Lowest so far: {best}."
    if len(findings.summaries) == 1:
        return f"{best}."
    if findings.seeds == 1:
        return (
            f"Lowest test loss: {best}. "
            "With one seed the noise is unknown, so no optimizer can be called better than another."
        )
    tied, behind = findings.tied, findings.behind
    if len(tied) > 1 and not behind:
        none = "" if findings.failed else "No optimizer can be distinguished from another: "
        return (
            f"{none}{names(tied)} lie within the noise of {findings.seeds} seeds. "
            f"Lowest median test loss: {best}."
        )
    if len(tied) == 1:
        return f"Best is {best}." + (
            " All others are behind by more than the seeds' noise." if behind else ""
        )
    return (
        f"{names(tied)} are within the noise of {findings.seeds} seeds; {names(behind)} "
        f"{'are' if len(behind) > 1 else 'is'} behind by more. Lowest median test loss: {best}."
    )


def notes(findings: Findings) -> list[str]:
    """What to know about the answer."""
    study, sentences = findings.study, []
    if findings.seeds > 1 and findings.ranked_by == "test_loss" and len(findings.summaries) > 1:
        compared, same = ("ratio", 1) if findings.relative else ("difference", 0)
        sentences.append(
            f"Intervals are at 95 % over {findings.seeds} seeds that the search never used. An optimizer is "
            f"behind if the {compared} of its loss to the best's, paired by seed, lies above {same} with its "
            "whole interval; the intervals hold for all optimizers together."
        )
    untuned = not any(s.tuned for s in findings.summaries)
    if len(findings.summaries) > 1 and untuned and not study.facts.get("varied"):
        given = all(len(s.facts["space"]["lr"]["values"]) == 1 for s in findings.summaries)
        how = "leave --lr out, or give several" if given else "more --trials"
        sentences.append(f"None was tuned: how they compare when tuned is another question ({how}).")
    edges = [s for s in findings.summaries if s.on_edge]
    if edges and study.complete and study.facts["proposer"] == "grid":
        sentences.append(
            f"The best learning rate of {names(edges)} lies at an end of what was tried: a better one may "
            "lie beyond (more --trials, or other --lr)."
        )
    if study.facts["halving"]:
        sentences.append(
            f"Poor settings were stopped after a quarter of their length, which saved "
            f"{study.facts['saved']:.0%} of the search."
        )
    runs = sum(len(s.runs) for s in findings.summaries)
    for status, happened in FAILED.items():
        counts = {s.name: s.count(status) for s in findings.summaries if s.count(status)}
        if counts:
            each = ", ".join(f"{name} {count}" for name, count in counts.items())
            sentences.append(f"{sum(counts.values())} of {runs} runs {happened}: {each}.")
    if altered := len(study.altered):
        what = "files in the folder are" if altered > 1 else "file in the folder is"
        sentences.append(f"{altered} {what} not as a run left it, and skipped.")
    reasons = {
        run.end["reason"] for s in findings.summaries for run in s.runs if run.end["status"] == "crashed"
    }
    sentences += [f"Reason for a crash: {reason}." for reason in sorted(reasons)]
    return sentences + list(study.facts.get("notes", ()))


def number(value: float) -> str:
    """Three significant digits; ∞ for what was never reached, a dash for what was never measured."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if not value:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def interval(value: Interval | None) -> str:
    """An estimate with its interval, where there are several seeds."""
    if value is None:
        return "–"
    if not value.level or value.low == value.high:
        return number(value.estimate)
    return f"{number(value.estimate)} ({number(value.low)}–{number(value.high)})"


def bytes_(count: float) -> str:
    """Memory with a unit."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def names(summaries: Sequence[Summary]) -> str:
    """The names of several contestants, as in a sentence."""
    listed = [s.name for s in summaries]
    if len(listed) > MANY:
        listed = [*listed[: MANY - 1], f"{len(listed) - MANY + 1} others"]
    *head, last = listed
    return f"{', '.join(head)} and {last}" if head else last


def _setting(setting: SettingRuns) -> str:
    """The learning rate of a setting, and what else was chosen."""
    chosen = {"lr": setting.lr} | {k: v for k, v in setting.chosen.items() if k != "lr"}
    further = [f"{key} {value:g}" for key, value in chosen.items() if key != "lr"]
    return ", ".join([f"at learning rate {setting.lr:g}", *further])


def _measures(findings: Findings, setting: SettingRuns) -> str:
    subset = "validation" if findings.ranked_by == "val_loss" else "test"
    prefix = "val_" if subset == "validation" else "test_"
    return ", ".join(f"{subset} {m} {interval(setting.median(prefix + m))}" for m in findings.measures)
