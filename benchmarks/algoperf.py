"""Score the AlgoPerf v0.5 competition again, beside the published scores.

    python benchmarks/algoperf.py [DATA]

DATA (default ../shared/data/algoperf) holds `v05-external_tuning.csv.gz`, every evaluation of the external
tuning track, and `v05-targets.json`. Prints each submission's score by the published code's choice of trial
(lowest evaluation index) and by the written rule's (least time), the first with the 95 % interval that
resampling studies gives, and the one that resampling workloads as well gives.
"""

import csv
import functools
import gzip
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thalweg.study.statistics.profiles import algoperf, of_chosen_trials, profile
from thalweg.study.statistics.resampling import to_target

PUBLISHED = {
    "shampoo_submission": 0.7784,
    "schedule_free_adamw": 0.7077,
    "generalized_adam": 0.6383,
    "cyclic_lr": 0.6301,
    "nadamp": 0.5909,
    "baseline": 0.5707,
    "amos": 0.4918,
    "caspr_adaptive": 0.4722,
    "lawa_queue": 0.3699,
    "lawa_ema": 0.3384,
    "schedule_free_prodigy": 0.0,
}
LOWER_IS_BETTER = {"ce_loss", "error_rate", "ctc_loss", "wer", "l1_loss", "loss"}
STUDIES = TRIALS = 5


class Competition(NamedTuple):
    """When each trial reached its target: submissions x workloads x studies x trials, inf for never.

    Attributes:
        seconds: of training.
        evaluations: index of the evaluation.
        variants: held-out workloads, by index, and the workload that each is a variant of.
    """

    submissions: tuple[str, ...]
    seconds: npt.NDArray[np.float64]
    evaluations: npt.NDArray[np.float64]
    variants: dict[int, int]


def read(folder: Path) -> Competition:
    rules = json.loads((folder / "v05-targets.json").read_text())
    base, held_out = rules["base_workloads"], rules["held_out_workloads"]
    submissions, workloads = tuple(PUBLISHED), [*base, *held_out]
    curves: dict[tuple[int, ...], list[tuple[float, float, float]]] = {}
    with gzip.open(folder / "v05-external_tuning.csv.gz", "rt", newline="") as lines:
        for row in csv.DictReader(lines):
            if row["workload"] not in workloads:
                continue  # a variant that was not drawn for the competition
            trial = (
                submissions.index(row["submission"]),
                workloads.index(row["workload"]),
                int(row["study"].removeprefix("study_")),
                int(row["trial"].removeprefix("trial_")) - 1,
            )
            point = (float(row["evaluation"]), float(row["seconds"]), float(row["validation_metric"]))
            curves.setdefault(trial, []).append(point)

    seconds = np.full((len(submissions), len(workloads), STUDIES, TRIALS), np.inf)
    evaluations = seconds.copy()
    for trial, points in curves.items():
        target = rules["workloads"][workloads[trial[1]]]
        sign = 1 if target["target_metric_name"] in LOWER_IS_BETTER else -1
        evaluation, spent, metric = np.transpose(points)
        goal = sign * target["validation_target_value"]
        seconds[trial], evaluations[trial] = to_target([sign * metric] * 2, [spent, evaluation], goal)
    variants = {
        len(base) + i: next(j for j, name in enumerate(base) if variant.startswith(f"{name}_"))
        for i, variant in enumerate(held_out)
    }
    return Competition(submissions, seconds, evaluations, variants)


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/algoperf")
    found = read(folder)
    rules = functools.partial(algoperf, variants=found.variants)
    published = of_chosen_trials(found.seconds, found.evaluations)
    studies = profile(published, rules=rules)
    workloads = profile(published, rules=rules, tasks_too=True)
    written = profile(of_chosen_trials(found.seconds), rules=rules)
    print(
        f"{'submission':22} {'published':>9} {'ours':>7} {'as written':>10}   "
        f"{'95 %: studies':17} {'and workloads':17}"
    )
    for i, name in enumerate(found.submissions):
        print(
            f"{name:22} {PUBLISHED[name]:9.4f} {studies.score[i]:7.4f} {written.score[i]:10.4f}   "
            f"{studies.score_low[i]:.4f} – {studies.score_high[i]:.4f}   "
            f"{workloads.score_low[i]:.4f} – {workloads.score_high[i]:.4f}"
        )
    off = [
        n for n, s in zip(found.submissions, studies.score, strict=True) if round(float(s), 4) != PUBLISHED[n]
    ]
    print(f"differ from the published: {', '.join(off)}" if off else "all published scores reproduced")
    return bool(off)


if __name__ == "__main__":
    raise SystemExit(main())
