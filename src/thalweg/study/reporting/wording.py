"""What a study found, in plain sentences with their uncertainty."""

import math
from collections.abc import Sequence

from thalweg.study.statistics.findings import Findings, Outcome, Summary
from thalweg.study.statistics.resampling import Interval

# What became of runs that did not go through.
FAILED = {"diverged": "diverged", "memory": "ran out of memory", "crashed": "crashed"}


# More names than that are not read.
MANY = 10


def answer(findings: Findings) -> str:
    """Which optimizer did best, and how sure that is."""
    leader = findings.leader
    if not any(s.count("finished") for s in findings.summaries):
        return "No run went through, at any setting." if findings.study.complete else "No run is through yet."
    if leader is None or leader.best is None or not findings.tied:
        return "Most runs failed, of every optimizer: nothing can be said of which is best."
    best = f"{leader.name} {_with(leader.best)}: {_figures(findings, leader.best)}"
    if findings.figure == "val_loss":
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
        few = "" if findings.failed else "No optimizer can be told from another: "
        return (
            f"{few}{names(tied)} lie within the noise of {findings.seeds} seeds. "
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
    """What to know before believing the answer."""
    study, found = findings.study, []
    if findings.seeds > 1 and findings.figure == "test_loss" and len(findings.summaries) > 1:
        compared, same = ("ratio", 1) if findings.relative else ("difference", 0)
        found.append(
            f"Intervals are at 95 % over {findings.seeds} seeds that the search never saw. Behind counts who "
            f"has a loss whose {compared} to the best's, paired by seed, lies above {same} with its whole "
            "interval; the intervals hold for all optimizers together."
        )
    untuned = not any(s.tuned for s in findings.summaries)
    if len(findings.summaries) > 1 and untuned and not study.facts.get("varied"):
        given = all(len(s.facts["space"]["lr"]["values"]) == 1 for s in findings.summaries)
        how = "leave --lr out, or give several" if given else "more --trials"
        found.append(f"None was tuned: how they compare when each is, is another question ({how}).")
    edges = [s for s in findings.summaries if s.on_edge]
    if edges and study.complete and study.facts["proposer"] == "grid":
        found.append(
            f"The best learning rate of {names(edges)} lies at an end of what was tried: a better one may "
            "lie beyond (more --trials, or other --lr)."
        )
    if study.facts["halving"]:
        found.append(
            f"Settings that were clearly losing were stopped after a quarter of their length, which saved "
            f"{study.facts['saved']:.0%} of the search."
        )
    runs = sum(len(s.runs) for s in findings.summaries)
    for status, happened in FAILED.items():
        counts = {s.name: s.count(status) for s in findings.summaries if s.count(status)}
        if counts:
            each = ", ".join(f"{name} {count}" for name, count in counts.items())
            found.append(f"{sum(counts.values())} of {runs} runs {happened}: {each}.")
    if altered := len(study.altered):
        what = "files in the folder are" if altered > 1 else "file in the folder is"
        found.append(f"{altered} {what} not as a run left it, and passed over.")
    reasons = {
        run.end["reason"] for s in findings.summaries for run in s.runs if run.end["status"] == "crashed"
    }
    found += [f"Reason of a crash: {reason}." for reason in sorted(reasons)]
    return found + list(study.facts.get("notes", ()))


def number(value: float) -> str:
    """Three significant figures; ∞ for what was never reached, a dash for what was never measured."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if not value:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def interval(found: Interval | None) -> str:
    """An estimate with its interval, where there are several seeds."""
    if found is None:
        return "–"
    if not found.level or found.low == found.high:
        return number(found.estimate)
    return f"{number(found.estimate)} ({number(found.low)}–{number(found.high)})"


def bytes_(count: float) -> str:
    """Memory as people say it."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def names(summaries: Sequence[Summary]) -> str:
    """Several contestants as one says them."""
    said = [s.name for s in summaries]
    if len(said) > MANY:
        said = [*said[: MANY - 1], f"{len(said) - MANY + 1} others"]
    *head, last = said
    return f"{', '.join(head)} and {last}" if head else last


def _with(setting: Outcome) -> str:
    """A setting by what was chosen; at least its learning rate."""
    chosen = {"lr": setting.lr} | {k: v for k, v in setting.chosen.items() if k != "lr"}
    further = [f"{key} {value:g}" for key, value in chosen.items() if key != "lr"]
    return ", ".join([f"at learning rate {setting.lr:g}", *further])


def _figures(findings: Findings, setting: Outcome) -> str:
    part = "validation" if findings.figure == "val_loss" else "test"
    prefix = "val_" if part == "validation" else "test_"
    return ", ".join(f"{part} {m} {interval(setting.median(prefix + m))}" for m in findings.measures)
