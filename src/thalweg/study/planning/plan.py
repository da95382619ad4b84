"""The protocol: which trials are run, in which order, so that every contestant has the same chance.

1. **search**: every contestant tries the same number of settings, each with the same few seeds. It begins
   with half-decade steps of the learning rate around the middle of its search range. While the best lies at
   an end of what was tried, the range is widened; what is left of the budget then refines around the best:
   by quarter decades, or by scrambled Sobol points where further hyperparameters are searched.
2. **final**: each contestant's winner, the setting with the lowest median validation loss, runs with seeds
   that the search never used. Only these runs, and the next ones, are evaluated on test data.
3. **default**: the contestant at its dialect's defaults, untuned, with the same seeds.

A plan is a function of its arguments and of the results so far. Resuming a study is therefore a set
difference, and nothing is run twice.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from thalweg import registry
from thalweg.errors import Argument, nearest
from thalweg.rule import Rule
from thalweg.rules import WELL_KNOWN
from thalweg.study.contestant import Contestant, Optimizer
from thalweg.study.errors import StudyError
from thalweg.study.planning import proposers
from thalweg.study.planning.budget import MOST, Budget, Length, at_least_one
from thalweg.study.planning.proposers import Point, Tried
from thalweg.study.planning.specification import Trial
from thalweg.study.planning.vary import Varied, variants
from thalweg.study.records import Run
from thalweg.study.task import Task

# The well-known rules but for Adadelta, which was made to do without a learning rate to search for.
CLASSICAL = tuple(name for name in registry.rules() if name in {*WELL_KNOWN} - {"adadelta"})

# How many settings a contestant may try by default.
TRIALS = 12

# The first final seed is the first search seed plus this.
FRESH = 1000

# Successive halving evaluates settings after this share of a trial, and continues this share of them.
RUNG, CONTINUED = 0.25, 1 / 3


@dataclass(frozen=True)
class PlanState:
    """How far the results so far carry a plan.

    Attributes:
        trials: all trials that follow from the results so far, finished or not.
        missing: those that are not finished, each once, in the order to run them.
        winners: each contestant's best setting by name, once its search is finished; None where every
            setting failed.
    """

    trials: tuple[Trial, ...]
    missing: tuple[Trial, ...]
    winners: Mapping[str, Point | None]


@dataclass(frozen=True)
class Plan:
    """A comparison to be run. `make` makes one.

    Attributes:
        settings: how many settings every contestant may try.
        seeds: of the final and default runs.
        search_seeds: of the search; none of them is among `seeds`.
        halving: whether successive halving stops poor settings early.
        proposer: "grid", as described above, or "optuna".
        defaults: whether the untuned contestants are run too, where there is a search at all.
        varied: in what the contestants differ, where all are one optimizer.
    """

    task: Task
    contestants: tuple[Contestant, ...]
    settings: int
    length: Length
    batch_size: int
    seeds: tuple[int, ...]
    search_seeds: tuple[int, ...]
    every: int | None = None
    halving: bool = False
    proposer: str = "grid"
    defaults: bool = True
    varied: Varied | None = None
    _cache: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def next_trials(self, results: Mapping[str, Run]) -> list[Trial]:
        """The trials to run next, given the runs of the finished ones by id."""
        return list(self.unfold(results).missing)

    def unfold(self, results: Mapping[str, Run]) -> PlanState:
        """The trials that follow from the results so far."""
        trials: list[Trial] = []
        winners: dict[str, Point | None] = {}
        for contestant in self.contestants:
            searched, tried = self._search(contestant, results)
            trials += searched
            if self.defaults and self.searching:
                trials += self._trials(contestant, {}, "default")
            if tried is not None:
                best, loss = min(tried, key=lambda one: one[1])
                winners[contestant.name] = best if math.isfinite(loss) else None
                if math.isfinite(loss):
                    trials += self._trials(contestant, best, "final")
        missing = {trial.id: trial for trial in trials if trial.id not in results}
        return PlanState(tuple(trials), tuple(sorted(missing.values(), key=_order)), winners)

    @property
    def total(self) -> int:
        """How many trials there are at most; fewer where a search space is small or a default wins."""
        searched = filter(self.searched, self.contestants)
        searches = sum(self._setting_count(contestant) * len(self.search_seeds) for contestant in searched)
        finals = len(self.contestants) * len(self.seeds)
        return searches * (2 if self.halving else 1) + finals * (2 if self.defaults and self.searching else 1)

    @property
    def searching(self) -> bool:
        """Whether any contestant has a choice of settings."""
        return any(self.searched(contestant) for contestant in self.contestants)

    def searched(self, contestant: Contestant) -> bool:
        """Whether a contestant has a choice of settings."""
        return self._setting_count(contestant) > 1

    def saved(self, results: Mapping[str, Run]) -> float:
        """The share of the search's training steps that successive halving has saved so far."""
        runs = [
            (t, results[t.id]) for t in self.unfold(results).trials if t.stage == "search" and t.id in results
        ]
        taken = sum(run.end.get("step", 0) for _, run in runs)
        full = max((run.end.get("step", 0) for t, run in runs if t.until is None), default=0)
        settings = len({(t.contestant.name, json.dumps(t.hyperparameters), t.seed) for t, _ in runs})
        return 1 - taken / (full * settings) if full and self.halving else 0.0

    # -- one contestant's search ---------------------------------------------------------------------

    def _search(
        self, contestant: Contestant, results: Mapping[str, Run]
    ) -> tuple[list[Trial], list[Tried] | None]:
        """All its search trials so far, and each setting's score, or None while results are missing."""
        if not self.searched(contestant):
            return [], [(_only_setting(contestant), 0.0)]
        trials: list[Trial] = []
        tried: list[Tried] = []
        early: list[Tried] = []
        while new := self._propose(contestant, tried):
            continued = new
            if self.halving:
                rungs = [self._trials(contestant, point, "search", RUNG) for point in new]
                trials += chain.from_iterable(rungs)
                if not _finished(rungs, results):
                    return trials, None
                early += [(point, score(rung, results)) for point, rung in zip(new, rungs, strict=True)]
                continued = _best_of(early, new)
            full = {id(point): self._trials(contestant, point, "search") for point in continued}
            trials += chain.from_iterable(full.values())
            if not _finished(full.values(), results):
                return trials, None
            tried += [(p, score(full[id(p)], results) if id(p) in full else math.inf) for p in new]
        return trials, tried

    def _trials(
        self, contestant: Contestant, point: Point, stage: str, until: float | None = None
    ) -> list[Trial]:
        """A setting with every seed of its stage; cached, for hashing trials takes time."""
        key = f"{contestant.name} {stage} {until} {json.dumps(point, sort_keys=True)}"
        if key not in self._cache:
            self._cache[key] = [
                Trial(
                    self.task,
                    contestant,
                    point,
                    self.length,
                    contestant.batch_size or self.batch_size,
                    seed,
                    stage,
                    self.every,
                    until,
                )
                for seed in (self.search_seeds if stage == "search" else self.seeds)
            ]
        return self._cache[key]  # type: ignore[no-any-return]

    def _setting_count(self, contestant: Contestant) -> int:
        """How many settings it will try: the budget, or all, where there are fewer to choose from."""
        space = contestant.space.values()
        return min(self.settings, math.prod(len(one.values) or self.settings for one in space))

    def _propose(self, contestant: Contestant, tried: Sequence[Tried]) -> list[Point]:
        left = self._setting_count(contestant) - len(tried)
        if left <= 0:
            return []
        return proposers.get(self.proposer)(contestant, tried, left, self.task.seed)


def _finished(settings: Iterable[Sequence[Trial]], results: Mapping[str, Run]) -> bool:
    """Whether all trials of some settings have results."""
    return all(trial.id in results for trials in settings for trial in trials)


def _best_of(early: Sequence[Tried], new: Sequence[Point]) -> list[Point]:
    """Which of the new settings successive halving continues, given all early losses."""
    best = sorted(early, key=lambda one: one[1])[: max(2, math.ceil(CONTINUED * len(early)))]
    return [point for point in new if any(point is p and math.isfinite(loss) for p, loss in best)]


def _order(trial: Trial) -> tuple[int, int, float]:
    """Seed by seed over all contestants; slow ones first, so that the last one to finish is a quick one."""
    return trial.seed, trial.batch_size, -trial.contestant.cost


def score(trials: Iterable[Trial], results: Mapping[str, Run]) -> float:
    """A setting's median final validation loss; a failed run counts as infinite."""
    return statistics.median(
        run.evaluations[-1]["val_loss"] if run.finished or run.end["status"] == "stopped" else math.inf
        for run in (results[trial.id] for trial in trials)
    )


def make(
    task: Task,
    optimizers: Optimizer | Contestant | Sequence[Optimizer | Contestant] = CLASSICAL,
    *,
    vary: Mapping[str, Sequence[float]] | None = None,
    dialect: str = "keras",
    budget: Budget | int | None = None,
    lr: Sequence[float] | None = None,
    tune: Sequence[str] = (),
    seeds: int = 5,
    search_seeds: int = 2,
    batch_size: int | None = None,
    every: int | None = None,
    halving: bool = False,
    proposer: str = "grid",
    defaults: bool = True,
) -> Plan:
    """A plan to compare optimizers on a task.

    Args:
        task: what to train.
        optimizers: contestants, or what `Contestant` takes; repeated ones count once.
        vary: a setting of the only optimizer, and its values, such as {"batch_size": [16, 32]}: one
            contestant a value; see `vary.variants`.
        dialect: whose arithmetic and defaults, where an optimizer's name does not say.
        budget: what every contestant may spend; a number is the number of settings to try.
        lr: learning rates to choose from, except for Contestants. None: each one's own search range. A
            single rate leaves nothing to search.
        tune: further hyperparameters to search, in every rule that has them, except for Contestants.
        seeds: how many final seeds.
        search_seeds: how many seeds each setting of the search runs with.
        batch_size: None: the task's own.
        every: steps between evaluations; None: one evaluation an epoch.
        halving: stop poor settings early, by successive halving.
        proposer: "grid" or "optuna".
        defaults: also run the untuned defaults.

    Raises:
        StudyError: a count below one, two contestants of one name, a schedule with a budget in seconds.
        UnknownRuleError, UnknownDialectError: naming the nearest name.
    """
    single = isinstance(optimizers, str | Rule | Contestant) or callable(optimizers)
    several: list[Any] = [optimizers] if single else list(optimizers)  # type: ignore[arg-type]
    if vary:
        name, values = _varied(several, vary, batch_size)
        several = variants(several[0], name, values, dialect=dialect, lr=lr, tune=tune)
    contestants = _contestants(several, dialect, lr, tune)
    at_least_one("seeds", seeds, MOST)
    at_least_one("search_seeds", search_seeds, FRESH)
    if isinstance(budget, int):
        budget = Budget(trials=budget)
    budget = budget or Budget()
    plan = Plan(
        task,
        contestants,
        budget.trials or _default_trials(contestants),
        budget.length(task),
        task.batch_size if batch_size is None else batch_size,
        tuple(range(task.seed + FRESH, task.seed + FRESH + seeds)),
        tuple(range(task.seed, task.seed + search_seeds)),
        every,
        halving,
        proposer,
        defaults,
        Varied.of(contestants, name) if vary else None,
    )
    _check(plan)
    return plan


def _contestants(
    optimizers: Iterable[Any], dialect: str, lr: Sequence[float] | None, tune: Sequence[str]
) -> tuple[Contestant, ...]:
    """A contestant for each optimizer; repeated ones count once."""
    by_name: dict[str, Contestant] = {}
    for one in optimizers:
        if not isinstance(one, Contestant):
            one = _contestant(one, dialect, lr, tune)
        same = by_name.setdefault(one.name, one)
        if same is not one and _content(same) != _content(one):
            raise StudyError(
                f"two contestants are named {one.name}: give one of them another name, by Contestant's name= "
                "in Python or as [optimizers.NAME] in a file for --config"
            )
    if tune and not any(key in contestant.space for key in tune for contestant in by_name.values()):
        known = {key for contestant in by_name.values() for key in contestant.defaults}
        raise StudyError(
            f"no optimizer has a hyperparameter {tune[0]!r}; {nearest(tune[0], sorted(known))}",
            argument="tune",
        )
    return tuple(by_name.values())


def _contestant(
    optimizer: Optimizer, dialect: str, lr: Sequence[float] | None, tune: Sequence[str]
) -> Contestant:
    plain = Contestant(optimizer, dialect=dialect)
    space: dict[str, Any] = {"lr": list(lr) if lr else None}
    space |= {key: None for key in tune if key != "lr" and key in plain.defaults}
    return Contestant(optimizer, dialect=dialect, space=space)


def _varied(
    optimizers: Sequence[Any], vary: Mapping[str, Sequence[float]], batch_size: int | None
) -> tuple[str, Sequence[float]]:
    """The name of the setting that is varied, and its values."""
    if len(optimizers) != 1:
        raise StudyError(
            f"one optimizer is varied at a time, not {len(optimizers)}: say which with ",
            Argument("optimizers"),
        )
    if len(vary) > 1:
        raise StudyError(f"one setting is varied at a time, not both {' and '.join(vary)}", argument="vary")
    ((name, values),) = vary.items()
    name = name.replace("-", "_")
    if name == "batch_size" and batch_size is not None:
        raise StudyError("the batch size is varied: leave out the single one", argument="batch_size")
    return name, values


def _content(contestant: Contestant) -> tuple[Any, ...]:
    """Everything about a contestant but its name."""
    return (
        contestant.identity,
        contestant.specification({}),
        contestant.space,
        contestant.schedule,
        contestant.batch_size,
    )


def _check(plan: Plan) -> None:
    at_least_one("optimizers", len(plan.contestants))
    at_least_one("batch_size", plan.batch_size)
    at_least_one("every", plan.every)
    proposers.get(plan.proposer)
    if plan.halving and plan.length.unit == "epochs" and plan.length.amount < 2:
        raise StudyError(
            "successive halving evaluates trials before their end, so they need at least 2 epochs"
        )
    for contestant in plan.contestants:
        if contestant.schedule and plan.length.unit == "seconds":
            raise StudyError(
                f"{contestant.name} has a schedule over its steps, and seconds do not say how many: "
                "give the budget in epochs or steps"
            )
        rates = len(contestant.space["lr"].values)
        if rates > plan.settings:
            raise StudyError(
                f"{plan.settings} trials are too few for the {rates} learning rates of {contestant.name}"
            )
        if rates > 1 and rates == plan.settings and len(contestant.space) > 1:
            raise StudyError(
                f"{plan.settings} trials try each learning rate of {contestant.name} once and leave none for "
                f"{', '.join(key for key in contestant.space if key != 'lr')}"
            )


def _default_trials(contestants: Iterable[Contestant]) -> int:
    """The number of learning rates, where contestants choose from lists of these alone; else 12."""
    sizes = [
        len(contestant.space["lr"].values) if len(contestant.space) == 1 else 0 for contestant in contestants
    ]
    return max(sizes) if sizes and all(sizes) else TRIALS


def _only_setting(contestant: Contestant) -> Point:
    """The one setting of a contestant that has no choice."""
    return {key: one.values[0] for key, one in contestant.space.items() if one.values}
