"""The protocol: which trials are run, in which order, so that every contestant has the same chance.

1. **search**: every contestant tries the same number of settings, each from the same few seeds. It begins
   with half-decade steps of the learning rate around the middle of its search range. While the best lies on
   the edge of what was tried, the range is widened; what is left of the budget then refines the best: by
   quarter decades, or by scrambled Sobol points where further hyperparameters are searched.
2. **final**: each contestant's winner, the setting with the lowest median validation loss, runs from seeds
   that the search never saw. Only these runs, and the next ones, are evaluated on test data.
3. **default**: the contestant as its dialect has it, untuned, from the same seeds.

A plan is a function of what it was made from and of the results so far. So going on with a study is a set
difference, and nothing is run twice.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from thalweg.errors import Argument, nearest
from thalweg.rule import Rule
from thalweg.study.contestant import Contestant, Optimizer
from thalweg.study.errors import StudyError
from thalweg.study.planning import proposers
from thalweg.study.planning.budget import MOST, Budget, Length, at_least_one
from thalweg.study.planning.proposers import Point, Tried
from thalweg.study.planning.specification import Trial
from thalweg.study.planning.vary import Varied
from thalweg.study.planning.vary import contestants as variants
from thalweg.study.records import Run
from thalweg.study.task import Task

CLASSICAL = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamax", "nadam")

# Settings a contestant may try, where the user does not say.
TRIALS = 12

# Final seeds begin so far above the first search seed.
FRESH = 1000

# Successive halving looks after this share of a trial, and stops all but this share of the settings.
RUNG, KEPT = 0.25, 1 / 3


@dataclass(frozen=True)
class Unfolded:
    """How far a plan has unfolded.

    Attributes:
        trials: all trials that the results so far call for, done or not.
        missing: those that are not done, each once, in the order of their turns.
        winners: each contestant's best setting by name, once its search is through; None where every
            setting failed.
    """

    trials: tuple[Trial, ...]
    missing: tuple[Trial, ...]
    winners: Mapping[str, Point | None]


@dataclass(frozen=True)
class Plan:
    """A comparison to be run. `make` makes one.

    Attributes:
        settings: how many every contestant may try.
        seeds: of the final and default runs.
        search_seeds: of the search; none of them is among `seeds`.
        halving: whether settings that are clearly losing are stopped early.
        proposer: "grid" as the module says, or "optuna".
        defaults: whether the untuned contestants are run, where there is a search at all.
        varied: what sets the contestants apart, where they are one optimizer.
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
    _seen: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def next_trials(self, results: Mapping[str, Run]) -> list[Trial]:
        """What to run next, given each finished trial's run by its id; nothing where all is done."""
        return list(self.unfold(results).missing)

    def unfold(self, results: Mapping[str, Run]) -> Unfolded:
        """How far the results so far carry the plan."""
        trials: list[Trial] = []
        winners: dict[str, Point | None] = {}
        for contestant in self.contestants:
            searched, tried = self._search(contestant, results)
            trials += searched
            if self.defaults and self.searching:
                trials += self._trials(contestant, {}, "default")
            if tried is not None:
                best = min(tried, key=lambda one: one[1])
                winners[contestant.name] = best[0] if math.isfinite(best[1]) else None
                if math.isfinite(best[1]):
                    trials += self._trials(contestant, best[0], "final")
        missing = {trial.id: trial for trial in trials if trial.id not in results}
        return Unfolded(tuple(trials), tuple(sorted(missing.values(), key=_turn)), winners)

    @property
    def total(self) -> int:
        """How many trials there will be at most; less where spaces are small or a default wins."""
        searches = sum(self._points(c) * len(self.search_seeds) for c in self.contestants if self.searched(c))
        finals = len(self.contestants) * len(self.seeds)
        return searches * (2 if self.halving else 1) + finals * (2 if self.defaults and self.searching else 1)

    @property
    def searching(self) -> bool:
        """Whether any contestant has a choice of settings."""
        return any(self.searched(contestant) for contestant in self.contestants)

    def searched(self, contestant: Contestant) -> bool:
        """Whether a contestant has a choice of settings."""
        return self._points(contestant) > 1

    def saved(self, results: Mapping[str, Run]) -> float:
        """The share of the search's training steps that successive halving saved so far."""
        runs = [
            (t, results[t.id]) for t in self.unfold(results).trials if t.stage == "search" and t.id in results
        ]
        spent = sum(run.end.get("step", 0) for _, run in runs)
        whole = max((run.end.get("step", 0) for t, run in runs if t.until is None), default=0)
        settings = len({(t.contestant.name, json.dumps(t.hyperparameters), t.seed) for t, _ in runs})
        return 1 - spent / (whole * settings) if whole and self.halving else 0.0

    # -- one contestant's search ---------------------------------------------------------------------

    def _search(
        self, contestant: Contestant, results: Mapping[str, Run]
    ) -> tuple[list[Trial], list[Tried] | None]:
        """All its search trials so far, and every setting's score, or None while some are missing."""
        if not self.searched(contestant):
            return [], [(_only(contestant), 0.0)]
        trials: list[Trial] = []
        tried: list[Tried] = []
        early: list[Tried] = []
        while new := self._propose(contestant, tried):
            going = new
            if self.halving:
                rung = [self._trials(contestant, point, "search", RUNG) for point in new]
                trials += [trial for several in rung for trial in several]
                if any(trial.id not in results for several in rung for trial in several):
                    return trials, None
                early += [(p, score(several, results)) for p, several in zip(new, rung, strict=True)]
                kept = sorted(early, key=lambda one: one[1])[: max(2, math.ceil(KEPT * len(early)))]
                going = [p for p in new if any(p is q and math.isfinite(value) for q, value in kept)]
            full = {id(point): self._trials(contestant, point, "search") for point in going}
            trials += [trial for several in full.values() for trial in several]
            if any(trial.id not in results for several in full.values() for trial in several):
                return trials, None
            tried += [(p, score(full[id(p)], results) if id(p) in full else math.inf) for p in new]
        return trials, tried

    def _trials(
        self, contestant: Contestant, point: Point, stage: str, until: float | None = None
    ) -> list[Trial]:
        """A setting from every seed of its stage; the same objects whenever asked: hashing takes time."""
        key = f"{contestant.name} {stage} {until} {json.dumps(point, sort_keys=True)}"
        if key not in self._seen:
            self._seen[key] = [
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
        return self._seen[key]  # type: ignore[no-any-return]

    def _points(self, contestant: Contestant) -> int:
        """How many settings it will try: the budget, or all there are where it has values to choose from."""
        space = contestant.space.values()
        return min(self.settings, math.prod(len(one.values) or self.settings for one in space))

    def _propose(self, contestant: Contestant, tried: Sequence[Tried]) -> list[Point]:
        left = self._points(contestant) - len(tried)
        if left <= 0:
            return []
        return proposers.get(self.proposer)(contestant, tried, left, self.task.seed)


def _turn(trial: Trial) -> tuple[int, int, float]:
    """A seed of all contestants after the other; of them the slow ones first, lest all wait for one."""
    return trial.seed, trial.batch_size, -trial.contestant.cost


def score(trials: Iterable[Trial], results: Mapping[str, Run]) -> float:
    """A setting's median validation loss over its runs, at their end; a failed run is worse than any loss."""
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
    """A plan for optimizers.

    Args:
        task: what to train.
        optimizers: contestants, or what `Contestant` takes; one that is there twice counts once.
        vary: one setting of the one optimizer there is, and its values, such as {"batch_size": [16, 32]}:
            a contestant each; see `vary.contestants`.
        dialect: whose arithmetic and defaults, where an optimizer does not say.
        budget: what every contestant may spend; a number is that of settings to try.
        lr: learning rates to choose from, for all but Contestants. None: each one's own search range. A
            single rate leaves nothing to search.
        tune: further hyperparameters to search, in every rule that has them, for all but Contestants.
        seeds: how many final seeds.
        search_seeds: how many seeds each setting of the search runs from.
        batch_size: None: the task's own.
        every: steps between evaluations; None: one each epoch.
        halving: stop settings early that are clearly losing.
        proposer: "grid" or "optuna".
        defaults: also run the untuned defaults.

    Raises:
        StudyError: a count below one, two contestants of one name, a schedule within a time budget.
        UnknownRuleError, UnknownDialectError: naming the nearest name.
    """
    alone = isinstance(optimizers, str | Rule | Contestant) or callable(optimizers)
    several: list[Any] = [optimizers] if alone else list(optimizers)  # type: ignore[arg-type]
    if vary:
        name, values = _varied(several, vary, batch_size)
        several = variants(several[0], name, values, dialect=dialect, lr=lr, tune=tune)
    found: dict[str, Contestant] = {}
    for one in several:
        if not isinstance(one, Contestant):
            one = _contestant(one, dialect, lr, tune)
        same = found.setdefault(one.name, one)
        if same is not one and _essence(same) != _essence(one):
            raise StudyError(
                f"two contestants are named {one.name}: give one of them another name, by Contestant's name= "
                "in Python or as [optimizers.NAME] in a file for --config"
            )
    if tune and not any(key in contestant.space for key in tune for contestant in found.values()):
        known = {key for contestant in found.values() for key in contestant.defaults}
        raise StudyError(
            f"no optimizer has a hyperparameter {tune[0]!r}; {nearest(tune[0], sorted(known))}",
            argument="tune",
        )
    at_least_one("seeds", seeds, MOST)
    at_least_one("search_seeds", search_seeds, FRESH)
    if isinstance(budget, int):
        budget = Budget(trials=budget)
    budget = budget or Budget()
    contestants = tuple(found.values())
    plan = Plan(
        task,
        contestants,
        budget.trials or _enough(contestants),
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
    """The one setting that is varied, and its values."""
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
        raise StudyError(
            "the batch size is what is varied: do not give another besides", argument="batch_size"
        )
    return name, values


def _essence(contestant: Contestant) -> tuple[Any, ...]:
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
        raise StudyError("successive halving looks at trials on their way, so they need at least 2 epochs")
    for contestant in plan.contestants:
        if contestant.schedule and plan.length.unit == "seconds":
            raise StudyError(
                f"{contestant.name} has a schedule over its steps, whose number seconds do not tell: "
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


def _enough(contestants: Iterable[Contestant]) -> int:
    """As many settings as there are, where all contestants choose from lists of learning rates; else 12."""
    sizes = [
        len(contestant.space["lr"].values) if len(contestant.space) == 1 else 0 for contestant in contestants
    ]
    return max(sizes) if sizes and all(sizes) else TRIALS


def _only(contestant: Contestant) -> Point:
    """The one setting of a contestant that has no choice: what is given, and defaults."""
    return {key: one.values[0] for key, one in contestant.space.items() if one.values}
