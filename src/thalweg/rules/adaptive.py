"""A learning rate for each entry, from the size of its past gradients."""

from thalweg.hyperparameters import hyper
from thalweg.ops import sqrt
from thalweg.rule import Rule, Scalar


class Adagrad(Rule):
    """Each entry's rate falls with the root of the sum of its squared gradients.

    Duchi, Hazan & Singer 2011, Figure 1, https://jmlr.org/papers/v12/duchi11a.html
    The paper has δ beside the root; Keras has ε inside it (`epsilon_in_root`) and starts the sum at 0.1.
    """

    lr: Scalar = 0.01
    epsilon: Scalar = 1e-10
    initial_accumulator: Scalar = 0.0
    epsilon_in_root: bool = False

    def update(self, t, g, s="initial_accumulator"):
        s = s + g**2
        root = sqrt(s + self.epsilon) if self.epsilon_in_root else sqrt(s) + self.epsilon
        return self.lr * g / root, s


class RMSprop(Rule):
    """Adagrad that forgets: a running mean of squares in place of the sum.

    Tieleman & Hinton 2012, lecture 6.5; `centered` and `momentum` as in Graves 2013, equations 38-45,
    https://arxiv.org/abs/1308.0850 (there, the root also holds ε: `epsilon_in_root`). With `nesterov` the
    velocity looks ahead, as Optax offers. TensorFlow 1 starts the mean at 1.
    """

    lr: Scalar = 0.01
    rho: Scalar = 0.9
    epsilon: Scalar = 1e-8
    momentum: Scalar | None = None
    initial_accumulator: Scalar = 0.0
    centered: bool = False
    epsilon_in_root: bool = False
    lr_in_velocity: bool = False
    nesterov: bool = False

    def update(self, t, g, v="initial_accumulator", mean=0, b=0):
        v = self.rho * v + (1 - self.rho) * g**2
        power = v
        if self.centered:
            mean = self.rho * mean + (1 - self.rho) * g
            power = v - mean**2
        root = sqrt(power + self.epsilon) if self.epsilon_in_root else sqrt(power) + self.epsilon
        if self.momentum is None:
            return self.lr * g / root, v, mean, b
        inner, outer = (self.lr, 1) if self.lr_in_velocity else (1, self.lr)
        b = self.momentum * b + inner * g / root
        ahead = self.momentum * b + inner * g / root if self.nesterov else b
        return outer * ahead, v, mean, b


class Adadelta(Rule):
    """RMSprop whose rate is the running size of its own steps, so that units agree.

    Zeiler 2012, Algorithm 1, https://arxiv.org/abs/1212.5701 (there lr = 1)
    """

    lr: Scalar = hyper(1.0, search=(1e-2, 100.0))
    rho: Scalar = 0.95
    epsilon: Scalar = 1e-6

    def update(self, t, g, v=0, u=0):
        v = self.rho * v + (1 - self.rho) * g**2
        delta = sqrt(u + self.epsilon) / sqrt(v + self.epsilon) * g
        u = self.rho * u + (1 - self.rho) * delta**2
        return self.lr * delta, v, u
