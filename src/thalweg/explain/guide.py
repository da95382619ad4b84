"""What a lecturer says of each rule beside its formula: how it works, where it serves well, where badly."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Guide:
    """Prose about one rule.

    Attributes:
        how: one sentence on how it works; the rule's own first line says what it does.
        well, badly: when it tends to serve well, and when badly.
    """

    how: str
    well: str
    badly: str


# What each switch of a rule does when it is on.
SWITCHES: dict[str, str] = {
    "lr_in_velocity": "the velocity holds steps, so it keeps the old lr when a schedule changes it",
    "epsilon_in_root": "ε is added under the root rather than beside it",
    "epsilon_hat": "ε is added before √v is corrected for its start: larger at first",
    "epsilon_in_divisor": "ε is added to the divisor rather than to each |g|",
    "corrected_maximum": "the maximum is over corrected v̂ rather than over v",
    "centered": "divides by the standard deviation rather than by the root mean square",
    "nesterov": "the velocity looks one step ahead",
    "inverse_change": "the change of the gradient counts with 1 − β₂ rather than β₂",
    "decoupled_decay": "weights decay beside the step rather than by division",
}

GUIDES: dict[str, Guide] = {
    "SGD": Guide(
        how="Every entry moves against its gradient, at one learning rate for all.",
        well=(
            "Where the curvature is much the same in all directions, where memory is short (it keeps no "
            "state), and as the yardstick for every other rule: what does not beat a tuned SGD is not "
            "worth its state."
        ),
        badly=(
            "In ravines: the steepest direction limits the learning rate, so the flat ones take about as "
            "many steps as the condition number says. It also wants its learning rate tuned anew for each "
            "problem and crawls on parameters whose gradients are rare or tiny, such as embeddings."
        ),
    ),
    "Momentum": Guide(
        how=(
            "What gradients agree on adds up to 1/(1 − μ) times a single step; what alternates from step "
            "to step cancels."
        ),
        well=(
            "Smooth, ill-conditioned valleys, where about the square root of the condition number is "
            "enough steps; with a falling learning rate still the standard for convolutional networks on "
            "images."
        ),
        badly=(
            "With μ near 1 it overshoots and circles the minimum. A learning rate that suits SGD is about "
            "1/(1 − μ) times too large here, and the rate still needs tuning for each problem; "
            "transformers usually train better with an adaptive rule."
        ),
    ),
    "Nesterov": Guide(
        how=(
            "The gradient is taken to act at the point that the velocity leads to, so a velocity that is "
            "about to overshoot is braked one step earlier."
        ),
        well=(
            "Wherever momentum does, with less swinging at large μ; on smooth convex losses, with the "
            "right μ, its rate is the best that gradients alone allow."
        ),
        badly=(
            "With noisy gradients of small batches its advantage over plain momentum mostly disappears; "
            "its learning rate needs tuning as SGD's does."
        ),
    ),
    "Adagrad": Guide(
        how=(
            "Entries with small or rare gradients keep a large rate, entries with large or frequent ones "
            "soon have a small one."
        ),
        well=(
            "Sparse features, such as bags of words, click logs and embeddings, and convex online "
            "learning, where its regret bound holds. It forgives a learning rate that is somewhat too "
            "large."
        ),
        badly=(
            "In long training of networks: the sum only grows, so the rate decays even where there is far "
            "to go. A first gradient that is very large spoils its entry for good."
        ),
    ),
    "RMSprop": Guide(
        how=(
            "Dividing by the recent root mean square gives every entry steps of about the learning rate, "
            "whatever the size of its gradient."
        ),
        well=(
            "Recurrent networks, reinforcement learning and other problems that change as they are "
            "learned, where Adagrad's long memory hurts; it needs one array of state where Adam needs "
            "two."
        ),
        badly=(
            "Near a minimum its steps do not shrink with the gradient, so without a falling learning rate "
            "it jitters at about lr. Without a correction for starting at zero its first step is large, "
            "1/√(1 − ρ) times lr."
        ),
    ),
    "Adadelta": Guide(
        how=(
            "The size of its recent steps over the size of recent gradients is the rate, so it finds the "
            "scale on its own and lr = 1 is the paper's only setting."
        ),
        well=(
            "Where nothing is known about the right learning rate; the scale of the loss makes no difference."
        ),
        badly=(
            "It starts slowly: the first steps are only a few times √ε long and must grow from there. "
            "Keras's default lr of 0.001 makes it a thousand times slower still, which is why it looks "
            "broken there."
        ),
    ),
    "Adam": Guide(
        how=(
            "The running mean gives the direction, the running root mean square gives each entry its "
            "scale, so that steps are mostly at most the learning rate."
        ),
        well=(
            "The first thing to try: transformers, generative models, noisy or sparse gradients, layers "
            "of very different scale. Its default settings work over a wide range of problems."
        ),
        badly=(
            "Without a falling learning rate it does not settle; on images a tuned SGD with momentum "
            "often generalises as well or better. L2 in the loss is divided by √v̂ too, so weights with "
            "large gradients hardly feel it: use AdamW. With tiny gradients the size and the place of ε "
            "decide how fast it moves."
        ),
    ),
    "AdamW": Guide(
        how=(
            "Adam's step is taken as it is, and beside it every weight shrinks by the factor 1 − lr·λ, "
            "however large its gradients are."
        ),
        well=(
            "The standard for transformers and for fine-tuning; learning rate and decay can be tuned "
            "nearly independently, which L2 within Adam does not allow."
        ),
        badly=(
            "As Adam, without a falling learning rate. Biases and normalisation weights should usually be "
            "left out of the decay. The defaults differ by a factor of 100 between frameworks (1e-4 to "
            "1e-2), so state λ."
        ),
    ),
    "AMSGrad": Guide(
        how=(
            "The divisor is the largest running mean of squares seen so far, so the rate of an entry, but "
            "for the correction at the start, never rises again."
        ),
        well=(
            "Problems with rare, large and informative gradients, on which Adam can be shown to go the "
            "wrong way; where a proof of convergence matters."
        ),
        badly=(
            "One large gradient early on slows its entry for good. In practice it is seldom "
            "distinguishable from Adam, for half as much state again."
        ),
    ),
    "AdaMax": Guide(
        how=(
            "The divisor is the largest of the recent |g|, faded by β₂ a step, so no single step exceeds "
            "about lr and no root is taken."
        ),
        well=(
            "Gradients with bursts, such as those of embeddings: a burst fades from the divisor at a "
            "known pace."
        ),
        badly=(
            "The maximum overestimates the usual size of noisy gradients, so it moves more slowly than "
            "Adam at the same learning rate (the paper's default is twice Adam's)."
        ),
    ),
    "Nadam": Guide(
        how=(
            "Nesterov's look-ahead replaces Adam's momentum: the newest gradient counts once more, at "
            "today's share, while the momentum rises slowly from β₁/2 to β₁."
        ),
        well=(
            "Wherever Adam does, often a little faster early in training; recurrent networks in its paper."
        ),
        badly=(
            "As Adam. And the name stands for three schedules: the momentum is warmed up over thousands "
            "of steps (the paper, torch), within a hundred (Keras) or not at all (Optax)."
        ),
    ),
    "RAdam": Guide(
        how=(
            "While too few gradients stand behind v (five steps at β₂ = 0.999) it is momentum alone; then "
            "the divisor is let in by a factor r that rises to 1."
        ),
        well="Where Adam needs a warm-up of its learning rate, as transformers do: it brings its own.",
        badly=(
            "Beside an Adam with a tuned warm-up it gains little. Its first five steps are not divided by "
            "anything: with large gradients they are large."
        ),
    ),
    "AdaBelief": Guide(
        how=(
            "The divisor measures how far gradients stray from their running mean, not how large they "
            "are: steady gradients mean large steps, surprising ones small steps."
        ),
        well=(
            "Narrow valleys with a steady slope along them, and generative adversarial networks in its "
            "paper; aims at Adam's speed with the generalisation of SGD."
        ),
        badly=(
            "Its ε of 1e-16 hardly bounds the divisor: where gradients hardly vary, steps become very "
            "large. Results depend on ε more than Adam's do."
        ),
    ),
    "Adan": Guide(
        how=(
            "It keeps running means of the gradient, of its change from step to step, and of the square "
            "of both together, and steps along gradient plus change."
        ),
        well=(
            "Large-batch training of vision transformers and language models, at learning rates larger "
            "than Adam's; in its paper it reaches Adam's loss in fewer epochs."
        ),
        badly=(
            "Four arrays of state, one of them the last gradient: twice Adam's memory. The change of the "
            "gradient is noise where batches are small."
        ),
    ),
    "Lion": Guide(
        how=(
            "Every entry moves by exactly lr, against the weighted mean of its recent gradients, however "
            "small that is."
        ),
        well=(
            "Large models and large batches where memory is short: one array of state, no root, no "
            "division. Use a learning rate 3 to 10 times smaller than Adam's, and a decay as much larger."
        ),
        badly=(
            "With small batches the sign of a noisy gradient says little, and it needs a falling learning "
            "rate to settle at all. Entries that never have a gradient do not move, but those with the "
            "tiniest one move by lr."
        ),
    ),
}
