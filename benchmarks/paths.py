"""Steps a second of many Adam paths at once on one core, beside torch and a plain NumPy Adam.

    python benchmarks/paths.py [--seconds 3] [--paths 1000] [--steps 200] [--surfaces ravine,beale]

All contenders descend from the same starts and keep every point. Ours also checks what it is given, and keeps
gradients and state.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from thalweg import Adam, surfaces
from thalweg.surfaces.paths import paths
from timing import machine, take_turns

LR = 0.01


def ravine(x: Any, y: Any) -> tuple[Any, Any]:
    return x / 10, 2 * y


def beale(x: Any, y: Any) -> tuple[Any, Any]:
    a, b, c = 1.5 - x + x * y, 2.25 - x + x * y**2, 2.625 - x + x * y**3
    dx = 2 * a * (y - 1) + 2 * b * (y**2 - 1) + 2 * c * (y**3 - 1)
    return dx, 2 * x * a + 4 * x * y * b + 6 * x * y**2 * c


# By hand, as one writes them for a picture.
GRADIENTS: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {"ravine": ravine, "beale": beale}


def plain(gradient: Callable[..., Any], start: Any, steps: int) -> Any:
    """Adam as in its paper, on an array (paths, 2)."""
    p = start.copy()
    m, v = np.zeros_like(p), np.zeros_like(p)
    points = [p]
    for t in range(1, steps + 1):
        g = np.stack(gradient(p[:, 0], p[:, 1]), axis=1)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        p = p - LR * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        points.append(p)
    return np.stack(points)


def one_tensor(gradient: Callable[..., Any], start: Any, steps: int) -> Any:
    """torch.optim.Adam on a tensor (paths, 2)."""
    p = torch.tensor(start)
    optimizer = torch.optim.Adam([p], lr=LR, foreach=True)
    points = [p.clone()]
    for _ in range(steps):
        p.grad = torch.stack(gradient(p[:, 0], p[:, 1]), dim=1)
        optimizer.step()
        points.append(p.clone())
    return torch.stack(points).numpy()


def many_tensors(gradient: Callable[..., Any], start: Any, steps: int) -> Any:
    """torch.optim.Adam on a tensor (2,) a path, as it is for paths with settings of their own."""
    whole = torch.tensor(start)
    ps = list(whole.unbind())
    optimizer = torch.optim.Adam(ps, lr=LR, foreach=True)
    points = [whole.clone()]
    for _ in range(steps):
        slopes = torch.stack(gradient(whole[:, 0], whole[:, 1]), dim=1)
        for p, g in zip(ps, slopes.unbind(), strict=True):
            p.grad = g
        optimizer.step()
        points.append(whole.clone())
    return torch.stack(points).numpy()


def contenders(name: str, count: int, steps: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    surface, gradient = surfaces.get(name), GRADIENTS[name]
    start = np.array(surface.start) + 0.1 * np.random.default_rng(0).standard_normal((count, 2))
    yield "thalweg", lambda: paths(surface, Adam(lr=LR), starts=start, steps=steps).points
    rates = np.geomspace(LR / 10, LR, count)
    yield "each its lr", lambda: paths(surface, Adam(), starts=start, lr=rates, steps=steps).points
    yield "numpy", lambda: plain(gradient, start, steps)
    yield "torch", lambda: one_tensor(gradient, start, steps)
    yield "torch, a tensor each", lambda: many_tensors(gradient, start, steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each contender (3)")
    parser.add_argument("--paths", type=int, default=1000, help="how many at once (1000)")
    parser.add_argument("--steps", type=int, default=200, help="of each path (200)")
    parser.add_argument("--surfaces", default=",".join(GRADIENTS), help=f"of {','.join(GRADIENTS)}")
    options = parser.parse_args()

    torch.set_num_threads(1)
    print(machine())
    verdicts = []
    for name in options.surfaces.split(","):
        taking = dict(contenders(name, options.paths, options.steps))
        wanted = taking["numpy"]()
        for other in ("thalweg", "torch", "torch, a tensor each"):
            np.testing.assert_allclose(taking[other](), wanted, rtol=1e-9, atol=1e-9)
        times = take_turns(taking, options.seconds)
        print(f"\n{name}: {options.paths:,} paths, {options.steps} steps, float64")
        print(f"{'contender':22} {'M steps/s':>10}   thalweg is times faster")
        total = options.paths * options.steps
        for contender in taking:
            rate = total / times.median(contender) / 1e6
            print(f"{contender:22} {rate:10.2f}   {times.ratio(contender, 'thalweg')}")
        verdicts += [
            (f"{name}: ≥ 1 M steps/s", (total / times.median(c) / 1e6), total / times.median(c) >= 1e6)
            for c in ("thalweg", "each its lr")
        ]
    print("\nrequired")
    for what, found, holds in verdicts:
        print(f"{'yes' if holds else 'NO ':3} {what}: {found:.1f}")


if __name__ == "__main__":
    main()
