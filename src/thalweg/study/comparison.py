"""A comparison in a folder: what it is to run, the runs so far, and how it continues."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from thalweg.statefile import replaced
from thalweg.study.contestant import Range
from thalweg.study.errors import StudyError
from thalweg.study.planning.plan import Plan, PlanState
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
    TableOf,
    matching,
    mismatch,
    non_empty,
    nullable,
    one_of,
)

if TYPE_CHECKING:
    import polars

# Called with the study and the run that has just come to its end.
Progress: TypeAlias = "Callable[[Any, Run], object]"

FILE = "study.json"

# The schemas of an entry and of the file; see `Entry`, `_facts` and `Comparison.facts`.
_ENTRY = {
    "id": matching("[0-9a-f]{16}", "a trial's id"),
    "contestant": TEXT,
    "stage": one_of("search", "final", "default"),
    "hyperparameters": TableOf(NUMBER),
    "seed": INTEGER,
    "until": nullable(NUMBER),
}
_SPACE = {"low": NUMBER, "high": NUMBER, "scale": TEXT, "values": [NUMBER]}
_FILE = {
    "task": {
        "name": TEXT,
        "version": TEXT,
        "measures": (non_empty("a list of measures"), [{"name": TEXT, "lower_is_better": FLAG}]),
        "optimum": nullable(NUMBER),
        "sources": TableOf(TEXT),
        "covers": TableOf(TEXT),
    },
    "contestants": (
        non_empty("a list of contestants"),
        [
            {
                "name": TEXT,
                "dialect": TEXT,
                "schedule": nullable(TEXT),
                "batch_size": NATURAL,
                "space": TableOf(_SPACE),
                "defaults": (TableOf(NUMBER), {"lr": NUMBER}),
                "covers": TableOf(TEXT),
            }
        ],
    ),
    "settings": NATURAL,
    "length": TableOf(POSITIVE),
    "batch_size": NATURAL,
    "seeds": [INTEGER],
    "search_seeds": [INTEGER],
    "every": nullable(NATURAL),
    "halving": FLAG,
    "proposer": TEXT,
    "saved": NUMBER,
    "winners": TableOf(nullable(TableOf(NUMBER))),
    "total": COUNT,
    "complete": FLAG,
    "varied": nullable({"name": TEXT, "values": TableOf(NUMBER)}),
    "notes": [TEXT],
    "entries": [_ENTRY],
}


@dataclass(frozen=True)
class Entry:
    """One trial's place in a study.

    Attributes:
        id: the name of the trial's file; a default that wins has one file and two entries.
        contestant: the contestant's name.
        stage: "search", "final" or "default".
        hyperparameters: those that differ from the contestant's defaults.
        seed: of weights and order of examples.
        until: the share of its length after which successive halving stopped it, or None.
    """

    id: str
    contestant: str
    stage: str
    hyperparameters: Mapping[str, float]
    seed: int
    until: float | None


class Comparison:
    """A comparison in a folder: its plan, and the runs so far.

    Attributes:
        store: the folder and its trials.
        plan: what is to be run; None where the study was opened from its folder.
        facts: the study as `study.json` has it: "task" (name, version, measures, optimum, sources, covers),
            "contestants" (name, dialect, schedule, space, defaults, ...), "settings" (how many each
            may try), "length", "batch_size", "seeds", "search_seeds", "halving", "saved" by it, "winners" by
            name, "total" and "complete"; "varied" (the setting's name and each contestant's value, or None);
            "notes", sentences on how it was planned.
        entries: every trial that is planned so far.
        runs: those that have ended, by id.
    """

    def __init__(
        self, store: Store, plan: Plan | None, facts: dict[str, Any], entries: tuple[Entry, ...]
    ) -> None:
        self.store, self.plan, self.facts, self.entries = store, plan, facts, entries
        self.runs: dict[str, Run] = {}
        self.engine = Engine()
        self._version: object = None

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Opens a study from its folder, to read it; crashed runs are included.

        Raises:
            StudyError: there is none.
        """
        study = cls(Store(Path(folder)), None, {}, ())
        study.refresh()
        return study

    @classmethod
    def of(cls, plan: Plan, folder: str | Path | None = None) -> Self:
        """The study of a plan, with the runs that its folder has.

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
        """How many training runs have ended."""
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
        """Each contestant's best setting, where its search is finished; None where every setting failed."""
        return self.facts["winners"]  # type: ignore[no-any-return]

    @property
    def outdated(self) -> list[str]:
        """Sentences about trials in the folder that ran with another version of the task or the code."""
        return self.store.outdated(self.plan) if self.plan else []

    @property
    def altered(self) -> list[str]:
        """Sentences about files in the folder that are not as a run leaves them, and are skipped."""
        return list(self.store.faults.values())

    def refresh(self) -> None:
        """Reads what was added to the folder since the last time, by this process or another.

        Raises:
            StudyError: the folder can no longer be read.
        """
        if self.plan is None:
            self._read_plan()
        for entry in self.entries:
            known = self.runs.get(entry.id)
            # A crashed trial is run again by the next command.
            if not (known and known.settled) and (run := self.store.read(entry.id)):
                self.runs[entry.id] = run

    def rows(self) -> list[dict[str, Any]]:
        """One flat row for each trial that has ended: a table for any library.

        "contestant", "stage", "seed", "until", "id", "batch_size", the hyperparameters as
        "hyperparameter.NAME" (all of them, defaults too), "status", "reason", "epoch", "step", "seconds",
        "state_bytes", and the final "loss", "val_loss" and "test_loss", and further measures likewise.
        """
        rows = []
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
                rows.append(row)
        return rows

    def evaluations(self) -> polars.DataFrame:
        """TableOf evaluation of every trial in the folder, as a table whose "id" is that of the entries."""
        return self.store.evaluations([measure["name"] for measure in self.facts["task"]["measures"]])

    def resume(self, progress: Progress | None = None) -> Self:
        """Runs the trials that are missing. It can be called again after any interruption.

        Args:
            progress: is called after each training run.

        Raises:
            StudyError: the study was opened from its folder, or something fails that the user can put right.
        """
        for run in self.iterate():
            if progress:
                progress(self, run)
        return self

    def iterate(self) -> Iterator[Run]:
        """As `resume`, and yields each training run as it ends."""
        if self.plan is None:
            raise StudyError(
                "a study opened from its folder cannot train, for the folder has no model: call compare again"
            )
        rehearsed = False
        while missing := self._unfold().missing:
            if not rehearsed and (untried := self._untried(missing)):
                self.engine.rehearse(untried)
            rehearsed = True
            for run in self.engine.run(missing, self.store):
                self.runs[run.header["id"]] = run
                yield run

    def _untried(self, missing: tuple[Trial, ...]) -> list[Trial]:
        """The first trial of each contestant that has no run yet."""
        tried = {entry.contestant for entry in self.entries if entry.id in self.runs}
        first: dict[str, Trial] = {}
        for trial in missing:
            first.setdefault(trial.contestant.name, trial)
        return [trial for name, trial in first.items() if name not in tried]

    def _unfold(self) -> PlanState:
        """Unfolds the plan with the results in the folder, and writes the state to the folder."""
        assert self.plan is not None, "called with a plan alone"
        while True:
            state = self.plan.unfold(self.runs)
            stored = self.store.results(state.missing)
            if not stored:
                break
            self.runs |= stored
        self.entries = tuple(
            Entry(t.id, t.contestant.name, t.stage, dict(t.hyperparameters), t.seed, t.until)
            for t in state.trials
        )
        self.facts = _facts(self.plan, state, self.plan.saved(self.runs))
        self._write()
        return state

    def _read_plan(self) -> None:
        """Reads the study's file, where it has changed: a search adds trials as it goes."""
        path = self.store.folder / FILE
        try:
            status = path.stat()
            version = status.st_mtime_ns, status.st_ino  # a new file each time: see `_write`
            if version == self._version:
                return
            facts = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StudyError(f"there is no study in {self.store.folder}: {FILE} is missing") from None
        except OSError as error:
            raise StudyError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise StudyError(f"{path} cannot be read, it is not JSON: {error}") from None
        if fault := mismatch(facts, _FILE, ""):
            raise StudyError(f"{path} cannot be read: {fault}")
        entries = tuple(Entry(**{key: entry[key] for key in _ENTRY}) for entry in facts.pop("entries"))
        self.facts, self.entries, self._version = facts, entries, version

    def _write(self) -> None:
        path = self.store.folder / FILE
        content = self.facts | {"entries": [vars(entry) for entry in self.entries]}
        try:
            with replaced(path) as file:
                file.write(json.dumps(content, indent=1).encode())
        except OSError as error:
            raise StudyError(f"{path} cannot be written: {error.strerror}") from None


def _facts(plan: Plan, state: PlanState, saved: float) -> dict[str, Any]:
    """A plan and its state, as JSON."""
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
        "winners": {name: point and dict(point) for name, point in state.winners.items()},
        "total": plan.total if state.missing else len({trial.id for trial in state.trials}),
        "complete": not state.missing,
        "varied": plan.varied and {"name": plan.varied.name, "values": dict(plan.varied.values)},
        "notes": [plan.varied.note] if plan.varied else [],
    }


def _range(one: Range) -> dict[str, Any]:
    return vars(one) | {"values": list(one.values)}
