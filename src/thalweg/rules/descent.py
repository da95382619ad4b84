"""Down the gradient, with and without velocity."""

from thalweg.hyperparameters import hyper
from thalweg.ops import where
from thalweg.rule import Rule, Scalar


class SGD(Rule):
    """Straight down the gradient.

    Robbins & Monro 1951, https://doi.org/10.1214/aoms/1177729586
    """

    lr: Scalar = hyper(0.01, search=(1e-3, 10.0))

    def update(self, t, g):
        return self.lr * g


class Momentum(Rule):
    """A velocity that remembers past gradients carries on through noise and ravines.

    Polyak 1964, equation 9, https://doi.org/10.1016/0041-5553(64)90137-5
    The velocity holds gradients; with `lr_in_velocity` it is that of Sutskever et al. 2013, which holds
    steps downhill and so keeps the old learning rate when a schedule changes it.
    """

    lr: Scalar = 0.01
    momentum: Scalar = 0.9
    dampening: Scalar = 0.0
    lr_in_velocity: bool = False

    def update(self, t, g, b=0):
        inner, outer = (-self.lr, -1) if self.lr_in_velocity else (1, self.lr)
        fresh = where(t == 1, 1.0, 1 - self.dampening)  # torch starts the velocity at g, undamped
        b = self.momentum * b + fresh * (inner * g)
        return outer * b, b


class Nesterov(Rule):
    """Momentum that looks ahead: the gradient acts where the velocity is about to lead.

    Nesterov 1983; in this form Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13.html,
    shifted to the point looked ahead to, as all frameworks have it.
    """

    lr: Scalar = 0.01
    momentum: Scalar = 0.9
    lr_in_velocity: bool = False

    def update(self, t, g, b=0):
        inner, outer = (-self.lr, -1) if self.lr_in_velocity else (1, self.lr)
        b = self.momentum * b + inner * g
        return outer * (self.momentum * b + inner * g), b
