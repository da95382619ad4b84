"""Rerun a Keras experiment and compare: eight optimizers on Fashion-MNIST, one learning rate, 20 epochs.

    python benchmarks/reference.py [DATA] [STUDY]

DATA (default ../shared/data) holds the data in `fashion-mnist/` and Keras's curves in
`reference/fashion-mnist-keras.json`; STUDY is where the runs are kept and looked for. Every figure is
the median over the seeds after the last epoch; it passes within the reference's spread, give or take 3 % in
losses and 0.01 in accuracies. Takes some ten minutes on two cores; stopped and started again, it goes on.
"""

import json
import statistics
import sys
from pathlib import Path

from thalweg.cli import main as cli
from thalweg.study.statistics import findings as found
from thalweg.study.study import Study


def main() -> int:
    data = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
    study = Path(sys.argv[2] if len(sys.argv) > 2 else "studies/reference")
    reference = json.loads((data / "reference" / "fashion-mnist-keras.json").read_text())
    command = [
        "compare",
        "fashion-mnist",
        "--lr",
        "0.001",
        "--epochs",
        "20",
        "--data",
        str(data / "fashion-mnist"),
    ]
    status = cli.main([*command, "--out", str(study)])
    if status:
        return status

    failed = 0
    print(f"\n{'optimizer':10} {'figure':13} {'ours':>8} {'Keras':>8} {'from':>8} {'to':>8}")
    summaries = found.find(Study.open(study)).summaries
    for summary in summaries:
        name = summary.name
        for figure in ("loss", "accuracy", "val_loss", "val_accuracy"):
            ours = float(statistics.median(summary.final.values(figure)))
            theirs = [run[figure][-1] for run in reference[name]]
            low, high = min(theirs), max(theirs)
            if figure.endswith("loss"):
                low, high = 0.97 * low, 1.03 * high
            else:
                low, high = low - 0.01, high + 0.01
            passes = low <= ours <= high
            failed += not passes
            print(
                f"{name:10} {figure:13} {ours:8.4f} {statistics.median(theirs):8.4f} {low:8.4f} {high:8.4f}  "
                f"{'pass' if passes else 'FAIL'}"
            )
    print(f"\n{failed} of {4 * len(summaries)} figures outside")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
