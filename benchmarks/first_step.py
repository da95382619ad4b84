"""What the first step of a rule costs: in a process that compiles its kernel, and in later ones.

    python benchmarks/first_step.py [--rules adam,rmsprop]

Each figure is from processes of their own (median and range of five). Importing Numba, which a
process does once for all rules, is told apart from the step; so is the constructor, in which any
`torch.optim.Optimizer` has torch import its compiler.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

PROGRAM = """
import sys, time
import torch, thalweg.torch
import thalweg
begin = time.perf_counter()
import numba, thalweg.kernels.memory
imported = time.perf_counter()
p = torch.nn.Parameter(torch.ones(1000))
p.grad = torch.ones(1000)
optimizer = thalweg.torch.Optimizer([p], thalweg.get(sys.argv[1]))
ready = time.perf_counter()
optimizer.step()
print(imported - begin, time.perf_counter() - ready)
"""


def run(rule: str, cache: str) -> tuple[float, float]:
    """Seconds that importing Numba and that the first step take in a new process."""
    environment = {**os.environ, "THALWEG_CACHE_DIR": cache}
    out = subprocess.run(
        [sys.executable, "-c", PROGRAM, rule], env=environment, capture_output=True, text=True, check=True
    )
    imported, step = map(float, out.stdout.split())
    return imported, step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rules", default="sgd,rmsprop,adam,nadam,adan")
    options = parser.parse_args()
    imports = []

    def show(seconds: list[float]) -> str:
        return f"{statistics.median(seconds):.3f} ({min(seconds):.3f}–{max(seconds):.3f})"

    print(f"{'rule':10} {'compiling, s':22} {'from the cache, s':22}")
    for rule in options.rules.split(","):
        first, later = [], []
        for _ in range(5):
            with tempfile.TemporaryDirectory() as cache:
                first.append(run(rule, cache)[1])
                imported, step = run(rule, cache)
                later.append(step)
                imports.append(imported)
        print(f"{rule:10} {show(first):22} {show(later):22}")
    print(f"importing Numba, once a process: {show(imports)}")


if __name__ == "__main__":
    main()
