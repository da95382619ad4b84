"""Reading the evaluations of thousands of trials into one table, beside JSON and Polars on their own.

    python benchmarks/store.py [--seconds 5] [--trials 5000] [--evaluations 20]

All contenders read the same files and make the same table; ours also leaves out torn lines.
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import polars

from thalweg.study import tasks
from thalweg.study.contestant import Contestant
from thalweg.study.planning import plan
from thalweg.study.planning.budget import Length
from thalweg.study.planning.specification import Trial
from thalweg.study.running import trial
from thalweg.study.running.store import Store
from timing import machine, take_turns

MEASURES = ("loss", "accuracy")


def fill(store: Store, trials: int, evaluations: int) -> None:
    """One real trial, under as many names as there are to be trials."""
    store.open()
    length = Length("epochs", evaluations)
    one = Trial(tasks.get("digits"), Contestant("adam"), {}, length, 64, plan.FRESH, "final")
    store.record(one, trial.run)
    (file,) = store.folder.glob("trials/*.jsonl")
    content = file.read_bytes()
    key = file.stem.encode()
    for i in range(1, trials):
        file.with_name(f"{i:016x}.jsonl").write_bytes(content.replace(key, b"%016x" % i))


def by_json(store: Store, columns: list[str]) -> polars.DataFrame:
    """As one would write it down: line by line, then a table."""
    rows = []
    for file in sorted(store.folder.glob("trials/*.jsonl")):
        records = map(json.loads, file.read_text(encoding="utf-8").splitlines())
        rows += [{**record, "id": file.stem} for record in records if record["record"] == "evaluation"]
    return polars.DataFrame(rows).select(columns)


def by_polars(store: Store, columns: list[str]) -> polars.DataFrame:
    """Polars on the whole folder."""
    schema = {"record": polars.String, "step": polars.Int64}
    schema |= dict.fromkeys((c for c in columns if c not in ("id", "step")), polars.Float64)
    found = polars.scan_ndjson(
        store.folder / "trials" / "*.jsonl", schema=schema, include_file_paths="id"
    ).filter(polars.col("record") == "evaluation")
    return found.with_columns(polars.col("id").str.extract(r"(\w+)\.jsonl$")).select(columns).collect()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each contender (5)")
    parser.add_argument("--trials", type=int, default=5000, help="files (5000)")
    parser.add_argument("--evaluations", type=int, default=20, help="of each trial (20)")
    options = parser.parse_args()

    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        fill(store, options.trials, options.evaluations)
        table = store.evaluations(MEASURES)
        contenders: dict[str, Callable[[], polars.DataFrame]] = {
            "thalweg": lambda: store.evaluations(MEASURES),
            "json": lambda: by_json(store, table.columns),
            "polars": lambda: by_polars(store, table.columns),
        }
        for read in itertools.islice(contenders.values(), 1, None):
            assert read().sort("id", "step").equals(table.sort("id", "step"))
        times = take_turns(contenders, options.seconds, rounds=9)
    print(f"\n{options.trials:,} trials, {len(table):,} evaluations")
    print(f"{'contender':10} {'seconds':>8}   thalweg is times faster")
    for name in contenders:
        print(f"{name:10} {times.median(name):8.2f}   {times.ratio(name, 'thalweg')}")


if __name__ == "__main__":
    main()
