"""A comparison in a folder: what was asked for, what was found so far, and how it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from thalweg.statefile import replaced
from thalweg.study.contestant import Range
from thalweg.study.errors import StudyError
from thalweg.study.planning.plan import Plan, Unfolded
from thalweg.study.planning.specification import Trial
from thalweg.study.records import Run
from thalweg.study.running.engine import Engine
from thalweg.study.running.store import Store
from thalweg.study.schema import (
    COUNT,
    FLAG,
    INTEGER,
    NATURAL,
    NUMBER,
    POSITIVE,
    TEXT,
    Every,
    matching,
    maybe,
    non_empty,
    one_of,
    wrong,
)

if TYPE_CHECKING:
    import polars

# Called with the study and the run that has just come to its end.
Progress: TypeAlias = "Callable[[Any, Run], object]"

FILE = "study.json"

# What it holds, as `Comparison.facts` tells, and one entry; see `_facts` and `Entry`.
_ENTRY = {
    "id": matching("[0-9a-f]{16}", "a trial's id"),
    "contestant": TEXT,
    "stage": one_of("search", "final", "default"),
    "hyperparameters": Every(NUMBER),
    "seed": INTEGER,
    "until": maybe(NUMBER),
}
_SPACE = {"low": NUMBER, "high": NUMBER, "scale": TEXT, "values": [NUMBER]}
_FILE = {
    "task": {
        "name": TEXT,
        "version": TEXT,
        "measures": (non_empty("a list of measures"), [{"name": TEXT, "lower_is_better": FLAG}]),
        "optimum": maybe(NUMBER),
        "sources": Every(TEXT),
        "covers": Every(TEXT),
    },
    "contestants": (
        non_empty("a list of contestants"),
        [
            {
                "name": TEXT,
                "dialect": TEXT,
                "schedule": maybe(TEXT),
                "batch_size": NATURAL,
                "space": Every(_SPACE),
                "defaults": (Every(NUMBER), {"lr": NUMBER}),
                "covers": Every(TEXT),
            }
        ],
    ),
    "settings": NATURAL,
    "length": Every(POSITIVE),
    "batch_size": NATURAL,
    "seeds": [INTEGER],
    "search_seeds": [INTEGER],
    "every": maybe(NATURAL),
    "halving": FLAG,
    "proposer": TEXT,
    "saved": NUMBER,
    "winners": Every(maybe(Every(NUMBER))),
    "total": COUNT,
    "complete": FLAG,
    "varied": maybe({"name": TEXT, "values": Every(NUMBER)}),
    "notes": [TEXT],
    "entries": [_ENTRY],
}


@dataclass(frozen=True)
class Entry:
    """One trial's place in a study.

    Attributes:
        id: names the trial's file; a default that wins has one file and two entries.
        contestant: its name.
        stage: "search", "final" or "default".
        hyperparameters: those that differ from the contestant's defaults.
        seed: of weights and order.
        until: the share of its length after which successive halving stopped it, or None.
    """

    id: str
    contestant: str
    stage: str
    hyperparameters: Mapping[str, float]
    seed: int
    until: float | None


class Comparison:
    """A comparison in a folder: what was asked for, and what was found so far.

    Attributes:
        store: the folder and its trials.
        plan: what is to be run; None where the study was opened by its folder alone.
        facts: the study as `study.json` has it: "task" (name, version, measures, optimum, sources, covers),
            "contestants" (name, dialect, schedule, space, defaults, ...), "settings" (how many each
            may try), "length", "batch_size", "seeds", "search_seeds", "halving", "saved" by it, "winners" by
            name, "total" and "complete"; "varied" (the setting's name and each contestant's value, or None);
            "notes", sentences on how it was planned.
        entries: every trial called for so far.
        runs: what they left behind, by id.
    """

    def __init__(
        self, store: Store, plan: Plan | None, facts: dict[str, Any], entries: tuple[Entry, ...]
    ) -> None:
        self.store, self.plan, self.facts, self.entries = store, plan, facts, entries
        self.runs: dict[str, Run] = {}
        self.engine = Engine()
        self._stamp: object = None

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """A study by its folder, to be read; crashed runs are there too.

        Raises:
            StudyError: there is none.
        """
        study = cls(Store(Path(folder)), None, {}, ())
        study.refresh()
        return study

    @classmethod
    def of(cls, plan: Plan, folder: str | Path | None = None) -> Self:
        """A plan's study, as far as its folder has it.

        Raises:
            StudyError: the folder cannot be written.
        """
        store = Store(Path(folder) if folder else Path("studies") / plan.task.name)
        store.open()
        study = cls(store, plan, {}, ())
        study._unfold()
        return study

    @property
    def done(self) -> int:
        """How many training runs are through."""
        return len(self.runs)

    @property
    def total(self) -> int:
        """How many there will be, at most."""
        return int(self.facts["total"])

    @property
    def complete(self) -> bool:
        """Whether nothing is left to run."""
        return bool(self.facts["complete"])

    @property
    def winners(self) -> Mapping[str, Mapping[str, float] | None]:
        """Each contestant's best setting, where its search is through; None where every setting failed."""
        return self.facts["winners"]  # type: ignore[no-any-return]

    @property
    def strangers(self) -> list[str]:
        """Sentences about trials in the folder that another version of the task or the code left."""
        return self.store.strangers(self.plan) if self.plan else []

    @property
    def altered(self) -> list[str]:
        """Sentences about files in the folder that are not as a run leaves them: they are passed over."""
        return list(self.store.faults.values())

    def refresh(self) -> None:
        """Reads what has been added to the folder since, by this process or another.

        Raises:
            StudyError: the folder cannot be read any more.
        """
        if self.plan is None:
            self._look()
        for entry in self.entries:
            known = self.runs.get(entry.id)
            # What crashed is run again by the next command.
            if not (known and known.settled) and (run := self.store.read(entry.id)):
                self.runs[entry.id] = run

    def rows(self) -> list[dict[str, Any]]:
        """One flat row for each trial that is through: a table for any library.

        "contestant", "stage", "seed", "until", "id", "batch_size", the hyperparameters as
        "hyperparameter.NAME" (all of them, defaults too), "status", "reason", "epoch", "step", "seconds",
        "state_bytes", and the figures at the end: "loss", "val_loss", "test_loss", further measures likewise.
        """
        found = []
        for entry in self.entries:
            if run := self.runs.get(entry.id):
                row: dict[str, Any] = {
                    "contestant": entry.contestant,
                    "stage": entry.stage,
                    "seed": entry.seed,
                    "until": entry.until,
                    "id": entry.id,
                }
                specification = run.header["specification"]
                row["batch_size"] = specification["batch_size"]
                values = specification["hyperparameters"]
                row |= {f"hyperparameter.{name}": value for name, value in values.items()}
                row |= dict(run.evaluations[-1]) if run.evaluations else {}
                row |= run.end
                del row["record"]
                found.append(row)
        return found

    def evaluations(self) -> polars.DataFrame:
        """Every evaluation of every trial in the folder, as a table whose "id" is that of the entries."""
        return self.store.evaluations([measure["name"] for measure in self.facts["task"]["measures"]])

    def resume(self, progress: Progress | None = None) -> Self:
        """Runs what is missing. Repeating it, or the command, after any interruption is safe.

        Args:
            progress: is called after each training run.

        Raises:
            StudyError: the study was opened by its folder alone, or something fails that the user can mend.
        """
        for run in self.iterate():
            if progress:
                progress(self, run)
        return self

    def iterate(self) -> Iterator[Run]:
        """As `resume`, yielding each training run as it comes to its end."""
        if self.plan is None:
            raise StudyError("what is in the folder does not tell how to train: call compare again")
        rehearsed = False
        while missing := self._unfold().missing:
            if not rehearsed and (unproven := self._unproven(missing)):
                self.engine.rehearse(unproven)
            rehearsed = True
            for run in self.engine.run(missing, self.store):
                self.runs[run.header["id"]] = run
                yield run

    def _unproven(self, missing: tuple[Trial, ...]) -> list[Trial]:
        """The first trial of each contestant of which none has come through yet."""
        proven = {entry.contestant for entry in self.entries if entry.id in self.runs}
        first: dict[str, Trial] = {}
        for trial in missing:
            first.setdefault(trial.contestant.name, trial)
        return [trial for name, trial in first.items() if name not in proven]

    def _unfold(self) -> Unfolded:
        """Follows the plan as far as the folder's results carry it, and notes that in the folder."""
        assert self.plan is not None, "called with a plan alone"
        while True:
            known = self.plan.unfold(self.runs)
            fresh = self.store.results(known.missing)
            if not fresh:
                break
            self.runs |= fresh
        self.entries = tuple(
            Entry(t.id, t.contestant.name, t.stage, dict(t.hyperparameters), t.seed, t.until)
            for t in known.trials
        )
        self.facts = _facts(self.plan, known, self.plan.saved(self.runs))
        self._note()
        return known

    def _look(self) -> None:
        """Reads what was asked for, where that is news: searches call for trials as they go."""
        path = self.store.folder / FILE
        try:
            status = path.stat()
            stamp = status.st_mtime_ns, status.st_ino  # a new file each time: see `_note`
            if stamp == self._stamp:
                return
            facts = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StudyError(f"there is no study in {self.store.folder}: {FILE} is missing") from None
        except OSError as error:
            raise StudyError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise StudyError(f"{path} cannot be read, it is no JSON: {error}") from None
        if fault := wrong(facts, _FILE, ""):
            raise StudyError(f"{path} cannot be read: {fault}")
        entries = tuple(Entry(**{key: entry[key] for key in _ENTRY}) for entry in facts.pop("entries"))
        self.facts, self.entries, self._stamp = facts, entries, stamp

    def _note(self) -> None:
        path = self.store.folder / FILE
        content = self.facts | {"entries": [vars(entry) for entry in self.entries]}
        try:
            with replaced(path) as file:
                file.write(json.dumps(content, indent=1).encode())
        except OSError as error:
            raise StudyError(f"{path} cannot be written: {error.strerror}") from None


def _facts(plan: Plan, known: Unfolded, saved: float) -> dict[str, Any]:
    """A plan and how far it is, as JSON has it."""
    task = plan.task
    return {
        "task": {
            "name": task.name,
            "version": task.version,
            "measures": [vars(measure) for measure in task.measures],
            "optimum": task.optimum,
            "sources": dict(task.sources),
            "covers": dict(task.covers),
        },
        "contestants": [
            {
                "name": c.name,
                "dialect": c.dialect,
                "schedule": c.schedule,
                "batch_size": c.batch_size or plan.batch_size,
                "space": {key: _range(one) for key, one in c.space.items()},
                "defaults": dict(c.defaults),
                "covers": dict(c.covers),
                **c.identity,
            }
            for c in plan.contestants
        ],
        "settings": plan.settings,
        "length": {plan.length.unit: plan.length.amount},
        "batch_size": plan.batch_size,
        "seeds": list(plan.seeds),
        "search_seeds": list(plan.search_seeds),
        "every": plan.every,
        "halving": plan.halving,
        "proposer": plan.proposer,
        "saved": saved,
        "winners": {name: point and dict(point) for name, point in known.winners.items()},
        "total": plan.total if known.missing else len({trial.id for trial in known.trials}),
        "complete": not known.missing,
        "varied": plan.varied and {"name": plan.varied.name, "values": dict(plan.varied.values)},
        "notes": [plan.varied.note] if plan.varied else [],
    }


def _range(one: Range) -> dict[str, Any]:
    return vars(one) | {"values": list(one.values)}
