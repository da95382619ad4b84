"""Gradients of a few examples, and learning rates that fall."""

from dataclasses import replace

import numpy as np

from thalweg import surfaces
from thalweg.gallery.registry import FigureBuilder, picture
from thalweg.rules import SGD
from thalweg.schedules import (
    Constant,
    Cosine,
    Exponential,
    InverseSqrt,
    Polynomial,
    Schedule,
    Step,
    TimeDecay,
    WarmUp,
    WarmUpStableDecay,
)
from thalweg.surfaces.functions import Noise
from thalweg.surfaces.paths import path, paths

# How many descents a mean is over.
_SEEDS = 200


@picture("batches", "Batch, mini-batch and stochastic gradients")
def batches(builder: FigureBuilder) -> str:
    """One rule, three amounts of noise."""
    one_example, size, lr = 2.5, 32, 0.2
    noises = {"stochastic": one_example, f"mini-batch of {size}": one_example / size**0.5, "batch": 0.0}
    run = {
        label: path(replace(surfaces.get("noisy"), noise=Noise(deviation)), SGD(lr=lr), steps=100, seed=1)
        for label, deviation in noises.items()
    }
    builder.race(run, "One rule, three gradients", height=4.2)
    return builder.caption(
        "With the gradient of the whole data (batch) the path is smooth. A mini-batch's gradient is right "
        "on average and noisy; that of a single example is noisier still, and it wanders about the "
        "minimum at a distance that the learning rate sets. But a step of the batch costs as much as many "
        f"of a mini-batch, and one of these as much as {size} of a single example.",
        f"The noise of one example has a deviation of {one_example:g}, that of a mini-batch "
        f"{one_example:g}/√{size}, and the batch none. The learning rate is the same for all.",
    )


@picture("schedules", "The learning-rate schedules, and what a falling rate is for")
def learning_rate_schedules(builder: FigureBuilder) -> str:
    """Each schedule's curve; under noise, a constant rate against one that falls."""
    steps, lr = 400, 0.5
    shown: dict[str, Schedule] = {
        "Constant": Constant(lr),
        "TimeDecay": TimeDecay(lr, 0.02),
        "InverseSqrt": InverseSqrt(lr),
        "Step": Step(lr, 130, 0.3),
        "Exponential": Exponential(lr, 0.99),
        "Polynomial": Polynomial(lr, steps),
        "Cosine": Cosine(lr, steps),
        "WarmUp": WarmUp(40, Cosine(lr, steps - 40)),
        "WarmUpStableDecay": WarmUpStableDecay(lr, 40, 260, 100),
    }
    left, right = builder.axes(1, 2, (11, 4.6), width_ratios=(1, 1.1))
    t = np.arange(1, steps + 1)
    builder.curves(left, {name: (t, [s(int(i)) for i in t]) for name, s in shown.items()}, "Schedules")
    left.set(xlabel="step", ylabel="learning rate")
    few = {
        name: paths("noisy", SGD(lr=shown[name]), steps=steps, seed=np.arange(_SEEDS))
        for name in ("Constant", "Step", "Cosine")
    }
    builder.paths |= {name: many[0] for name, many in few.items()}
    losses = {name: (np.arange(steps + 1), many.values.mean(axis=1)) for name, many in few.items()}
    styles = {name: builder.theme.line_style(i) for i, name in enumerate(shown)}
    builder.curves(right, losses, "Gradient descent under noise", styles)
    right.set(yscale="log", xlabel="step", ylabel=f"loss, mean of {_SEEDS} seeds", xlim=(0, steps))
    builder.add_legend(left, 5)
    return builder.caption(
        "Left, the schedules. Right, what they are for: under noise a constant rate stays at a loss that "
        "its size sets; where the rate falls, so does that floor.",
        "Each schedule begins at or warms up to the same rate: " + "; ".join(map(repr, shown.values())) + ".",
    )
