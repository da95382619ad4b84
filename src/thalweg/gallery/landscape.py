"""The loss of a real network around the path of its training.

Li et al. 2018, Visualizing the Loss Landscape of Neural Nets, https://arxiv.org/abs/1712.09913
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from thalweg.gallery.registry import FigureBuilder, picture
from thalweg.plot.paths import draw_contours

Array: TypeAlias = NDArray[np.float64]

_LAYERS, _LR, _MOMENTUM, _BATCH, _EPOCHS = (64, 16, 10), 0.05, 0.9, 64, 10


@dataclass(frozen=True)
class Training:
    """A network's training, kept epoch by epoch.

    Attributes:
        weights: (epochs + 1, parameters).
        losses: of the training data, (epochs + 1,).
        accuracy: on the training data, at the end.
        loss: the loss at weights (k, parameters): an array (k,).
        rows: where each filter, a neuron's incoming weights, lies in the parameters; biases too.
    """

    weights: Array
    losses: Array
    accuracy: float
    loss: Callable[[Array], Array]
    rows: Sequence[slice]


@cache
def training(epochs: int) -> Training:
    """Train a small network on scikit-learn's digits with Thalweg's Momentum.

    Raises:
        ImportError: torch or scikit-learn is not there.
    """
    try:
        import torch
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ImportError(f"the loss landscape needs {error.name}: pip install 'thalweg[study]'") from error
    import thalweg.torch

    data = load_digits()
    x = torch.tensor(data.data / 16, dtype=torch.float32)
    y = torch.tensor(data.target)
    shapes = [(b, a) for a, b in pairwise(_LAYERS)]
    generator = torch.Generator().manual_seed(0)
    parameters: list[Any] = []
    for out, into in shapes:
        parameters += [torch.randn(out, into, generator=generator) * (2 / into) ** 0.5, torch.zeros(out)]
    for p in parameters:
        p.requires_grad_()

    def outputs(weights: Sequence[Any], inputs: Any) -> Any:
        hidden = torch.relu(inputs @ weights[0].mT + weights[1][..., None, :])
        return hidden @ weights[2].mT + weights[3][..., None, :]

    def loss(flat: Array) -> Array:
        many: Any = torch.tensor(np.atleast_2d(flat), dtype=torch.float32)
        parts = many.split([p.numel() for p in parameters], dim=1)
        weights = [part.reshape(-1, *p.shape) for part, p in zip(parts, parameters, strict=True)]
        with torch.no_grad():
            log = torch.log_softmax(outputs(weights, x), dim=-1)
            return np.asarray(-log[:, torch.arange(len(y)), y].mean(dim=-1).numpy(), np.float64)

    def flat() -> Array:
        return np.concatenate([p.detach().numpy().ravel() for p in parameters]).astype(np.float64)

    optimizer = thalweg.torch.SGD(parameters, lr=_LR, momentum=_MOMENTUM)
    kept = [flat()]
    for _ in range(epochs):
        order: Any = torch.randperm(len(x), generator=generator)
        for batch in order.split(_BATCH):
            optimizer.zero_grad()
            objective: Any = torch.nn.functional.cross_entropy(outputs(parameters, x[batch]), y[batch])
            objective.backward()
            optimizer.step()
        kept.append(flat())
    weights = np.array(kept)
    with torch.no_grad():
        accuracy = float((outputs(parameters, x).argmax(dim=-1) == y).float().mean())
    rows, at = [], 0
    for p in parameters:
        width = p.shape[1] if p.ndim == 2 else p.numel()
        rows += [slice(i, i + width) for i in range(at, at + p.numel(), width)]
        at += p.numel()
    return Training(weights, np.concatenate([loss(w) for w in weights]), accuracy, loss, rows)


def random_directions(run: Training, seed: int = 0) -> Array:
    """Two random directions (2, parameters), each filter as long as the trained one."""
    directions = np.random.default_rng(seed).standard_normal((2, run.weights.shape[1]))
    for row in run.rows:
        trained = np.linalg.norm(run.weights[-1, row])
        directions[:, row] *= trained / np.linalg.norm(directions[:, row], axis=1, keepdims=True)
    return directions


def principal_directions(run: Training) -> tuple[Array, float]:
    """The two directions (2, parameters) along which the path moves most, and the share of it they show."""
    away = run.weights - run.weights[-1]
    _, sizes, directions = np.linalg.svd(away, full_matrices=False)
    return directions[:2], float(np.sum(sizes[:2] ** 2) / np.sum(sizes**2))


@picture("loss-landscape", "The loss of a small network around the path of its training")
def loss_landscape(builder: FigureBuilder) -> str:
    """Random and principal directions through the trained weights."""
    run = training(_EPOCHS)
    principal, share = principal_directions(run)
    left, right = builder.axes(1, 2, (10.5, 5.0))
    # Nearest point of the plane, whatever the angle between its directions.
    for ax, directions, title in (
        (left, random_directions(run), "Random, filter by filter normalised"),
        (right, principal, f"Principal: {share:.0%} of the path"),
    ):
        along = np.linalg.lstsq(directions.T, (run.weights - run.weights[-1]).T, rcond=None)[0]
        _slice(builder, ax, run, directions, along)
        builder.set_title(ax, title)
    left.set(xlabel="along the first direction", ylabel="along the second")
    right.set(xlabel="along the first component", ylabel="along the second")
    return (
        "The training loss on two planes through the trained weights (star), and the path of training "
        "laid onto them, an epoch a dot, from the ring on. Random directions show how wide the valley is, "
        "and of the path next to nothing: it is nearly at right angles to them. The path's own two "
        f"principal directions show {share:.0%} of it, down from a loss of {run.losses[0]:.2f} to "
        f"{run.losses[-1]:.3f}. A {'-'.join(map(str, _LAYERS))} network with ReLU on scikit-learn's "
        f"digits, {run.accuracy:.1%} right after {_EPOCHS} epochs of Momentum(lr={_LR:g}, "
        f"momentum={_MOMENTUM:g}) with mini-batches of {_BATCH}, seed 0; the learning rate is a usual one, "
        "not tuned. Directions normalised filter by filter after Li et al. 2018."
    )


def _slice(builder: FigureBuilder, ax: Axes, run: Training, directions: Array, along: Array) -> None:
    """The loss over a plane, with the path on it."""
    count = max(9, int(33 * builder.detail))
    reach = max(1.0, 1.25 * float(np.abs(along).max()))
    axis = np.linspace(-reach, reach, count)
    a, b = np.meshgrid(axis, axis)
    plane = run.weights[-1] + np.stack([a.ravel(), b.ravel()], axis=-1) @ directions
    values = np.concatenate([run.loss(part) for part in np.array_split(plane, max(1, len(plane) // 64))])
    theme = builder.theme
    lines, heights = draw_contours(ax, a, b, values.reshape(a.shape), theme, 16)
    names = {float(rank): f"{height:.2g}" for rank, height in zip(lines.levels, heights, strict=True)}
    ax.clabel(lines, list(lines.levels[2::3]), fmt=names, fontsize=7, colors=theme.muted)
    dots: Any = {"marker": "o", "markersize": 3.5, "path_effects": theme.outline()}
    ax.plot(*along, color=theme.series[0], **dots)
    ax.plot(*along[:, -1], "*", markersize=12, color=theme.text, markeredgecolor=theme.background)
    ax.plot(*along[:, 0], "o", markersize=7, color=theme.background, markeredgecolor=theme.text)
