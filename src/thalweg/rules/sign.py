"""Steps of one size: only the sign of the direction counts."""

from thalweg.hyperparameters import hyper
from thalweg.ops import sign
from thalweg.rule import Rule, Scalar


class Lion(Rule):
    """The sign of an interpolated momentum; half of Adam's state.

    Chen et al. 2023, Program 1, https://arxiv.org/abs/2302.06675
    """

    lr: Scalar = hyper(1e-4, search=(1e-5, 1e-1))
    beta_1: Scalar = hyper(0.9, meaning="share of the running mean in the direction")
    beta_2: Scalar = hyper(0.99, meaning="memory of the running mean of gradients")
    weight_decay: Scalar = 0.0

    def update(self, t, g, p, m=0):
        c = self.beta_1 * m + (1 - self.beta_1) * g
        m = self.beta_2 * m + (1 - self.beta_2) * g
        return self.lr * (sign(c) + self.weight_decay * p), m
