"""Gradient descent and momentum."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from thalweg import surfaces
from thalweg.gallery.registry import FigureBuilder, picture
from thalweg.plot import rate_map as draw_rate_map
from thalweg.plot.paths import line_styles
from thalweg.rules import SGD, Momentum, Nesterov
from thalweg.surfaces.functions import Surface
from thalweg.surfaces.maps import Theory, rate_map
from thalweg.surfaces.paths import path


@picture("learning-rate", "Gradient descent with a learning rate too small, right and too large")
def learning_rate(builder: FigureBuilder) -> str:
    """Three learning rates on one ravine."""
    theory = Theory.of("ravine")
    rates = {
        "too small": 0.03 * theory.best_lr,
        "right": theory.best_lr,
        "too large": 1.02 * float(theory.limit()),
    }
    run = {f"{name}: {lr:.3g}": path("ravine", SGD(lr=lr), steps=40) for name, lr in rates.items()}
    axes = builder.axes(2, 2, (10, 6.4))
    for (label, one), ax in zip(run.items(), axes, strict=False):
        builder.map(ax, {label: one}, f"Learning rate {label}", line_styles(run, builder.theme))
    builder.loss(axes[-1], run, "Loss after each step")
    builder.theme.add_legend(axes[-1])
    return builder.caption(
        "Too small a learning rate is safe and slow; the right one is the fastest for both directions at "
        "once; one that is too large overshoots the steep walls by more each time, and the loss grows "
        "without end.",
        f"The right rate is theory's best for a quadratic, 2/(λ_min + λ_max) = {theory.best_lr:.3g}; "
        f"too small is 3% of it, too large 2% over the limit 2/λ_max = {float(theory.limit()):.3g}.",
    )


@picture("momentum-escapes", "Momentum leaves a local minimum in which gradient descent stays")
def momentum_escapes(builder: FigureBuilder) -> str:
    """One start, one learning rate, two fates."""
    lr = 0.02
    rules = {"Momentum": Momentum(lr=lr), "SGD": SGD(lr=lr)}
    run = {label: path("double_well", rule, steps=120) for label, rule in rules.items()}
    left, right = builder.axes(1, 2)
    styles = line_styles(run, builder.theme)
    builder.map(left, run, "Double well", styles)
    curves = {label: (np.arange(121), one.points[:, 0]) for label, one in run.items()}
    builder.curves(right, curves, "Where each is after each step", styles)
    right.set(xlabel="step", ylabel="x", xlim=(0, 120))
    builder.add_legend(right)
    ends = {name: f"{float(one.end[0]):.2f}".replace("-", "−") for name, one in run.items()}
    return builder.caption(
        "From one start and with one learning rate, gradient descent stops in the shallower well, at x = "
        f"{ends['SGD']}; momentum arrives there with speed, rolls over the hump and settles in the deeper "
        f"one, at x = {ends['Momentum']}. Momentum does not look for deeper minima: it only carries past "
        "some.",
        "The learning rate is the same for both, small enough for a smooth descent.",
    )


@picture("nesterov", "Nesterov's look-ahead against momentum")
def nesterov(builder: FigureBuilder) -> str:
    """The same learning rate and momentum, the gradient taken where the velocity is going."""
    lr, share = Theory.of("ravine").nesterov[0] / 2, 0.9
    run = {
        "Momentum": path("ravine", Momentum(lr=lr, momentum=share), steps=60),
        "Nesterov": path("ravine", Nesterov(lr=lr, momentum=share), steps=60),
    }
    builder.race(run, "Ravine", height=4.0)
    return builder.caption(
        "Both build up speed along the valley. Nesterov's gradient is taken where the velocity leads, so "
        "it brakes before a wall instead of after it: it swings less from side to side and settles "
        "sooner.",
        "Learning rate and momentum are the same for both: half of Nesterov's usual 1/λ_max, and the "
        "usual 0.9.",
    )


@picture("stability", "Where gradient descent with momentum arrives, and where theory has it diverge")
def stability(builder: FigureBuilder) -> str:
    """Steps to arrive over learning rate and momentum."""
    count = max(20, int(120 * builder.detail))
    found = rate_map(
        "ravine",
        "momentum",
        steps=300,
        lr=np.linspace(0.01, 2.1, count),
        momentum=np.linspace(0, 0.99, count),
    )
    (ax,) = builder.axes(1, 1, (6.6, 4.8))
    draw_rate_map(found, ax=ax, theme=builder.theme)
    builder.set_title(ax, "Momentum on the ravine")
    theory = Theory.of("ravine")
    lr, share = theory.polyak
    return (
        "How many steps momentum needs from the start to stay within 0.1% of the way down; white is where "
        "it does not within 300, or diverges. The dashed line is theory's limit 2(1 + β)/λ_max. The star "
        f"is the best that was tried: lr {found.best['lr']:.3g}, momentum {found.best['momentum']:.3g}; "
        f"theory's best in the long run is lr {lr:.3g}, momentum {share:.3g}. {found.surface.title}: "
        f"{found.surface.unicode()}; {count} × {count} settings, each a descent of the production rule."
    )


@picture("best-step", "The best step is |f′|/f″, and gradients of two directions cannot be compared")
def best_step(builder: FigureBuilder) -> str:
    """Two parabolas of different curvature, and the step each asks for."""
    a, b = (
        surfaces.parse("x²", window=[(-3, 3)], start=[-2]),
        surfaces.parse("x²/8", window=[(-3, 3)], start=[-2]),
    )
    axes = builder.axes(1, 3, (11, 3.9))
    for i, (surface, ax) in enumerate(zip((a, b), axes, strict=False)):
        best = _newton(builder, ax, surface, i)
        builder.set_title(ax, f"f″ = {1 / best:g}: the best rate is {best:g}")
    both = surfaces.parse("x²/8 + y²", window=[(-3, 3), (-3, 3)], start=[-2, -2])
    run = {f"lr {lr:g}": path(both, SGD(lr=lr), steps=12) for lr in (0.5, 0.9)}
    builder.map(axes[2], run, "Both at once")
    builder.theme.add_legend(axes[2], loc="upper right")
    return builder.caption(
        "On a parabola one step of |f′|/f″ lands on the minimum (arrow). From the same place x = −2 the "
        "flat one has the smaller slope and yet the same way to go, so the slope alone does not say how "
        "far: it must be divided by the curvature. With one learning rate for two directions at once, the "
        "rate that is right for the steep one crawls along the flat one, and a larger one oscillates.",
        "The learning rates are 1/f″ of the steep direction, and nearly its limit of 2/f″.",
    )


def _newton(builder: FigureBuilder, ax: Axes, surface: Surface, i: int) -> float:
    """Draws a parabola with the step |f′|/f″ from its start; returns the learning rate that takes it."""
    lr = 1 / float(surface.hessian(surface.start)[0, 0])
    one = path(surface, SGD(lr=lr), steps=1)
    label, style = f"{surface.title}, lr {lr:g}", builder.theme.line_style(i)
    builder.map(ax, {label: one}, styles={label: style})
    slope = float(surface.gradient(surface.start)[0])
    height = float(surface.value(surface.start))
    x = np.array([-2.9, -1.1])
    tangent: Any = {"color": builder.theme.muted, "linestyle": ":", "linewidth": 1.4}
    ax.plot(x, height + slope * (x - surface.start[0]), **tangent)
    ax.annotate(
        f"f′ = {slope:g}",
        (surface.start[0], height),
        (8, 6),
        textcoords="offset points",
        color=builder.theme.text,
    )
    arrow = {"arrowstyle": "-|>", "color": style.colour, "linewidth": 1.6}
    ax.annotate("", (0, -0.3), (surface.start[0], -0.3), arrowprops=arrow)
    ax.annotate(
        f"|f′|/f″ = {abs(slope) * lr:g}",
        (-1, -0.42),
        ha="center",
        va="top",
        color=builder.theme.text,
        fontsize=9,
    )
    ax.set_ylim(-1.4, 9)
    return lr


@picture("basins", "Which start ends in which minimum")
def basins(builder: FigureBuilder) -> str:
    """Himmelblau's four minima under gradient descent and under momentum."""
    from thalweg.plot import basins as draw
    from thalweg.surfaces.maps import basins as basins_of

    count, steps = max(20, int(160 * builder.detail)), 500
    rules = [SGD(lr=0.005), Momentum(lr=0.005)]
    shares = []
    for rule, ax in zip(rules, builder.axes(1, 2, (10, 5.2)), strict=True):
        found = basins_of("himmelblau", rule, count, steps)
        draw(found, ax=ax, theme=builder.theme)
        builder.set_title(ax, f"{type(rule).__name__}, lr {rule.values['lr']:g}")
        shares.append(
            f"{type(rule).__name__} (lr {rule.values['lr']:g}) {', '.join(f'{s:.0%}' for s in found.shares)}"
        )
    return (
        "Each point has the colour of the minimum in which a descent from there ends. Gradient descent "
        "mostly takes the nearest valley; momentum carries over ridges, and its borders fold into bands: "
        "there, a small change of the start changes the end. Shares of the four minima: "
        f"{'; '.join(shares)}. Himmelblau's function, {count} × {count} starts, {steps} steps each. The "
        "learning rate is the same for both, small enough for nearly all to arrive."
    )
