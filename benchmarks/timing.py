"""How benchmarks here measure: contenders take turns, and ratios are taken round by round.

Machines are shared and noisy; what disturbs one round disturbs all contenders in it.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch


@dataclass
class Times:
    """Seconds for one call, one number a round, for each contender."""

    rounds: dict[str, list[float]]

    def median(self, name: str) -> float:
        """Median seconds for one call."""
        return statistics.median(self.rounds[name])

    def ratio(self, slow: str, fast: str) -> str:
        """How many times faster `fast` is than `slow`: median and quartiles over the rounds."""
        low, middle, high = self.quartiles(slow, fast)
        return f"{middle:5.2f} ({low:.2f}–{high:.2f})"

    def quartiles(self, slow: str, fast: str) -> tuple[float, float, float]:
        """Quartiles of the ratio slow/fast over the rounds."""
        ratios = np.divide(self.rounds[slow], self.rounds[fast])
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        return float(low), float(middle), float(high)


def take_turns(
    contenders: Mapping[str, Callable[[], object]], seconds: float = 3.0, rounds: int = 15
) -> Times:
    """Time the contenders in turn.

    Args:
        contenders: what to time, by name; each is called a few times first, uncounted.
        seconds: about how long all of it may take for one contender.
        rounds: how many turns each gets.
    """
    calls = {}
    for name, call in contenders.items():
        call()
        call()
        begin = time.perf_counter()
        call()
        one = time.perf_counter() - begin
        calls[name] = max(1, int(seconds / rounds / max(one, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            begin = time.perf_counter()
            for _ in range(calls[name]):
                call()
            times[name].append((time.perf_counter() - begin) / calls[name])
    return Times(times)


def memory_probe(moved: int) -> Callable[[], object]:
    """A contender that only moves memory: `moved` bytes by a sum in place, two reads and a write.

    A sum, since it is the fastest way that torch has: a copy also reads the lines that it overwrites.
    It takes turns with what it is held against, because a shared machine's bandwidth changes from one
    minute to the next, and it moves as much, because part of a smaller array would never leave the cache.
    """
    a, b = torch.ones(moved // 12), torch.ones(moved // 12)
    return lambda: b.add_(a)


def machine() -> str:
    """What the figures were measured on, in a line."""
    import platform

    import numba

    return (
        f"{platform.machine()}, {torch.get_num_threads()} threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}, numba {numba.__version__}, numpy {np.__version__}"
    )
