"""Rules that scale each entry's step by its past gradients."""

from dataclasses import replace
from typing import Any

import numpy as np

from thalweg import dialects, registry, surfaces
from thalweg.gallery.registry import FigureBuilder, picture
from thalweg.hyperparameters import hyper
from thalweg.ops import sqrt
from thalweg.plot.paths import line_styles
from thalweg.rule import Rule, Scalar
from thalweg.rules import SGD, Adagrad, Adam, RMSprop
from thalweg.surfaces.paths import path
from thalweg.surfaces.race import compete, tune


class UncorrectedAdam(Rule):
    """Adam without the corrections for starting at zero."""

    lr: Scalar = 1e-3
    beta_1: Scalar = 0.9
    beta_2: Scalar = 0.999
    epsilon: Scalar = hyper(1e-8)

    def update(self, t: Any, g: Any, m: Any = 0, v: Any = 0) -> Any:
        """As in Adam, with m and v as they are."""
        m = self.beta_1 * m + (1 - self.beta_1) * g
        v = self.beta_2 * v + (1 - self.beta_2) * g**2
        return self.lr * m / (sqrt(v) + self.epsilon), m, v


@picture("adagrad-oscillation", "AdaGrad against gradient descent that oscillates around the minimum")
def adagrad_oscillation(builder: FigureBuilder) -> str:
    """A rate near the limit: one keeps swinging, the other calms down."""
    lr = 0.98
    run = {"SGD": path("ravine", SGD(lr=lr), steps=40), "Adagrad": path("ravine", Adagrad(lr=lr), steps=40)}
    builder.race(run, "Ravine", height=4.0)
    return builder.caption(
        "Near its largest stable learning rate, gradient descent swings from wall to wall around the "
        "valley's floor for a long time. AdaGrad divides by the root of the sum of squared gradients: the "
        "steep direction, where gradients have been large, soon has short steps, and the swinging never "
        "starts.",
        "The learning rate is the same for both, 2% below the limit of gradient descent.",
    )


@picture("effective-rate", "AdaGrad's rate shrinks for ever; RMSprop's finds its level")
def effective_rate(builder: FigureBuilder) -> str:
    """The rate that each entry really has, on a surface whose gradients never vanish for their noise."""
    steps = 400
    race = compete("noisy", [Adagrad(), RMSprop()], steps=steps)
    left, right = builder.axes(1, 2, (10, 4.2))
    builder.loss(left, race.paths, "Loss after each step")
    curves = {
        label: (np.arange(1, steps + 1), np.exp(_smooth(np.log(one.step_sizes[:, 0] + 1e-300))))
        for label, one in race.paths.items()
    }
    styles = line_styles(race.paths, builder.theme)
    builder.curves(right, curves, "The rate in effect", styles)
    right.set(yscale="log", xscale="log", xlabel="step", ylabel="|step| / |gradient|, along x")
    builder.add_legend(left)
    return builder.caption(
        "AdaGrad's divisor only grows, so its rate in effect falls like 1/√t, whether or not it has "
        "arrived. RMSprop forgets old gradients: its rate finds a level and stays there, which goes on "
        "learning and goes on jittering. The rate in effect is smoothed over 21 steps.",
        race.how,
    )


def _smooth(y: Any) -> Any:
    wide = np.pad(y, 10, mode="edge")
    return np.convolve(wide, np.full(21, 1 / 21), mode="valid")


@picture("bias-correction", "Adam's bias correction on and off")
def bias_correction(builder: FigureBuilder) -> str:
    """The first steps, with and without correcting for starting at zero."""
    lr = tune("ravine", Adam(), steps=60).lr
    run = {
        "corrected": path("ravine", Adam(lr=lr), steps=60),
        "not corrected": path("ravine", UncorrectedAdam(lr=lr), steps=60),
    }
    left, right = builder.axes(1, 2, (10, 4.0), width_ratios=(1.35, 1))
    styles = line_styles(run, builder.theme)
    builder.map(left, run, "Ravine", styles)
    lengths = {label: (np.arange(1, 61), np.abs(one.moves[:, 0]) / lr) for label, one in run.items()}
    builder.curves(right, lengths, "Length of each step", styles)
    right.set(xlabel="step", ylabel="|step| / learning rate, along x", ylim=(0, None))
    builder.add_legend(right)
    first = {label: float(np.abs(one.moves[0, 0]) / lr) for label, one in run.items()}
    return builder.caption(
        "Both running means start at zero. Corrected, the first step is as long as the learning rate "
        f"({first['corrected']:.2f} of it); uncorrected, m is too small by 1 − β₁ and √v by √(1 − β₂), so "
        f"that it is {first['not corrected']:.2f} of it, and the steps after it are longer still: an "
        "unasked-for leap at the start.",
        "The learning rate is tuned for corrected Adam (the best of 61) and the same for both.",
    )


@picture("betas", "The effect of β₁ and of β₂")
def betas(builder: FigureBuilder) -> str:
    """Adam's two memories, one at a time."""
    lr = tune("ravine", Adam(), steps=80).lr
    axes = builder.axes(2, 2, (10, 6.6), width_ratios=(1.35, 1))
    for row, (name, symbol, values) in enumerate(
        [("beta_1", "β₁", (0.0, 0.5, 0.9, 0.97)), ("beta_2", "β₂", (0.5, 0.9, 0.99, 0.999))]
    ):
        rules = {f"{symbol} = {value:g}": Adam(lr=lr).replaced(**{name: value}) for value in values}
        run = {label: path("ravine", rule, steps=80) for label, rule in rules.items()}
        styles = builder.graded_styles(run)
        builder.map(axes[2 * row], run, f"Adam's {symbol}", styles)
        builder.loss(axes[2 * row + 1], run, "Loss after each step", styles)
        builder.theme.add_legend(axes[2 * row], loc="lower right", fontsize=8, ncols=2)
    return builder.caption(
        "β₁ is how long gradients are remembered: none (0) and the path is jagged, too long and it swings "
        "past the minimum in wide curves. β₂ is how long their size is remembered: with a short memory "
        "every step is as long as the learning rate, and near the minimum it never comes to rest; with a "
        "long one the first, large gradients keep steps short.",
        "The learning rate is tuned for Adam's defaults (the best of 61) and the same for all.",
    )


@picture("epsilon", "What ε does: from Adam to momentum")
def epsilon(builder: FigureBuilder) -> str:
    """Four sizes of ε, the learning rate scaled along with it where it rules."""
    base = tune("ravine", Adam(), steps=80).lr
    rules = {f"ε = {e:g}": Adam(lr=base, epsilon=e) for e in (1e-8, 0.1, 1.0, 10.0)}
    builder.race(
        {label: path("ravine", rule, steps=80) for label, rule in rules.items()},
        "Adam",
        graded=True,
        height=4.0,
    )
    return builder.caption(
        "Adam divides by √v + ε. Where ε is far below the gradients' size it does nothing, and every "
        "direction has steps of one length. Where it is far above, √v does nothing: steps are in "
        "proportion to gradients again, as with momentum, at a rate of lr/ε, here too small to arrive. ε "
        "is a choice between two rules, not a detail.",
        "The learning rate is tuned for the smallest ε (the best of 61) and the same for all.",
    )


@picture("dialects", "One name, five dialects: the same call on one surface")
def dialects_of_one(builder: FigureBuilder) -> str:
    """RMSprop with each framework's arithmetic and defaults."""
    run = {
        name: path("ravine", registry.get("rmsprop", dialect=name, lr=0.1), steps=60)
        for name in dialects.DIALECTS
    }
    left, right = builder.axes(1, 2, (10, 4.0), width_ratios=(1.35, 1))
    styles = line_styles(run, builder.theme)
    builder.map(left, run, "RMSprop with lr 0.1", styles)
    away = {name: np.linalg.norm(one.points - run["paper"].points, axis=-1) for name, one in run.items()}
    curves = {name: (np.arange(len(far)), np.where(far > 0, far, np.nan)) for name, far in away.items()}
    builder.curves(right, curves, "Distance from the paper's path", styles)
    right.set(yscale="log", xlabel="step", ylabel="distance", xlim=(0, 60))
    builder.add_legend(right)
    most = ", ".join(f"{name} {far.max():.2g}" for name, far in away.items() if name != "paper")
    return builder.caption(
        "RMSprop, called with one learning rate and nothing else, in the arithmetic and with the defaults "
        "of the paper and of four frameworks. Torch remembers longer (rho); TensorFlow 1 starts the mean "
        "of squares at 1, which makes its first steps short; where ε stands matters little here. Largest "
        f"distance from the paper's path: {most}.",
        "The learning rate is the same for all, everything else is the dialect's own.",
    )


@picture("sparse", "Sparse against dense features")
def sparse(builder: FigureBuilder) -> str:
    """One mean loss; its second feature always seen, and seen once in twenty steps."""
    rules, steps = [SGD(), Adagrad(), Adam()], 250
    seldom = surfaces.get("sparse")
    always = replace(seldom, name="dense", title="Dense features", noise=surfaces.Noise())
    axes = builder.axes(2, 2, (10, 8.0), width_ratios=(1.1, 1))
    races = [compete(surface, rules, steps=steps, seed=7) for surface in (always, seldom)]
    titles = "Dense: both always seen", "Sparse: y seen once in 20"
    for i, race in enumerate(races):
        builder.map(axes[2 * i], race.paths, titles[i])
        builder.loss(axes[2 * i + 1], race.paths, "Loss after each step")
        builder.paths |= {f"{label}, {race.surface.name}": one for label, one in race.paths.items()}
    builder.add_legend(axes[1])
    return builder.caption(
        "The mean loss is the same in both rows: y counts for a twentieth of x. Above, that is because "
        "its gradient is small; rules with a rate for each entry see no difference between x and y and go "
        "straight. Below, because it is rarely seen, as that of a weight whose word is rare, and then "
        "twenty times as large: all wait for it and move by leaps, but Adam, whose momentum carries on "
        "between. AdaGrad slows an entry down by how often it was seen, not by the clock. Dense: "
        f"{builder.arrivals(races[0])} Sparse: {builder.arrivals(races[1])}",
        races[1].how,
    )
