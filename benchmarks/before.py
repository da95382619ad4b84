"""The optimizer step, and whole training steps, beside an earlier commit's: what a change costs.

    python benchmarks/before.py COMMIT [--seconds 2] [--only mlp,20m] [--rules adam,sgd] [--pairs 7]

Each side runs in processes of its own, on the same pages of shared memory, and they take turns: A B B A ….
Prints how many times as fast the code that lies here is: median and quartiles over pairs of processes, since
where a process lies in memory matters; then whether every median is at least 0.98.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
LEAST = 0.98
ROUNDS = 41


def worker(what: str, rule: str, memory: str) -> None:
    """Makes the contender; then, for each number of calls read, takes them and answers with the seconds."""
    import torch

    import step
    import thalweg.torch
    import train_step

    call: Callable[[], object]
    if what in train_step.MODELS:
        name = {"adam": "Adam", "nadam": "NAdam"}[rule]
        kind = getattr(thalweg.torch, name)
        call = train_step.training_step(train_step.MODELS[what], lambda p: kind(p, lr=1e-4))
    else:
        shapes = [torch.Size(s) for s in step.LISTS[what]()]
        count = sum(s.numel() for s in shapes)
        room = torch.from_file(memory, shared=True, size=2 * count)
        at, params = 0, []
        for shape in shapes:
            p = torch.nn.Parameter(room[at : at + shape.numel()].view(shape))
            p.grad = room[count + at : count + at + shape.numel()].view(shape)
            params.append(p)
            at += shape.numel()
        kind_name, settings = step.RULES[rule]
        call = getattr(thalweg.torch, kind_name)(params, **settings).step
    for _ in range(3):
        call()
    print("ready", flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        for _ in range(int(line)):
            call()
        print(time.perf_counter() - begin, flush=True)


class Contender:
    """A worker in a process of its own, on the package in some folder."""

    def __init__(self, source: Path, what: str, rule: str, memory: str) -> None:
        script = (
            f"import sys; sys.path[:0] = [{str(source)!r}, {str(HERE)!r}]\n"
            "import before; before.worker(*sys.argv[1:])"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, what, rule, memory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def seconds(self, calls: int) -> float:
        """For one call, of so many."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{calls}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline()) / calls

    def end(self) -> None:
        """Stop it."""
        self.process.communicate()


@contextmanager
def earlier(commit: str) -> Iterator[Path]:
    """The package as it was at a commit, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", commit, "src"], cwd=HERE.parent, check=True, capture_output=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder) / "src"


def ratio(now: Contender, then: Contender, seconds: float) -> float:
    """How many times as fast `now` is, by the lower quartile of its rounds and that of the other's.

    What else runs on the machine only ever slows a round down, by up to half on a shared one.
    """
    calls = max(1, int(seconds / ROUNDS / 2 / max(now.seconds(3), 1e-7)))
    times: dict[Contender, list[float]] = {now: [], then: []}
    for turn in range(ROUNDS):
        for contender in (now, then) if turn % 2 else (then, now):
            times[contender].append(contender.seconds(calls))
    return float(np.quantile(times[then], 0.25) / np.quantile(times[now], 0.25))


def main() -> None:
    sys.path.insert(0, str(HERE))
    import step
    import train_step
    from timing import machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("commit", help="what to hold the code that lies here against")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each rule and pair (2)")
    parser.add_argument("--pairs", type=int, default=7, help="of processes (7)")
    parser.add_argument("--only", default=",".join(step.LISTS), help=f"of {','.join(step.LISTS)}")
    parser.add_argument("--rules", default="sgd,momentum,adam,adamw,rmsprop,nadam")
    parser.add_argument("--no-training", action="store_true", help="the step alone")
    options = parser.parse_args()
    print(machine())
    contests = [(what, rule) for what in options.only.split(",") for rule in options.rules.split(",")]
    if not options.no_training:
        contests += [(model, rule) for model in train_step.MODELS for rule in ("adam", "nadam")]
    slower = []
    with earlier(options.commit) as source, tempfile.NamedTemporaryFile(dir=_shared_memory()) as memory:
        memory.truncate(4 * 2 * 26_000_000)
        for what, rule in contests:
            found: list[float] = []
            for _ in range(options.pairs):
                pair = [
                    Contender(folder, what, rule, memory.name) for folder in (HERE.parent / "src", source)
                ]
                found.append(ratio(pair[0], pair[1], options.seconds))
                for contender in pair:
                    contender.end()
            low, middle, high = np.quantile(found, [0.25, 0.5, 0.75])
            print(f"{what:26} {rule:10} {middle:5.2f} ({low:.2f}–{high:.2f}) times as fast", flush=True)
            if middle < LEAST:
                slower.append(f"{what} {rule}: {middle:.3f}")
    print(f"below {LEAST}: {'; '.join(slower) or 'none'}")


def _shared_memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


if __name__ == "__main__":
    main()
