"""Adam and its kin: momentum over a running size of the gradients."""

from thalweg.hyperparameters import hyper
from thalweg.ops import abs, maximum, sqrt, where
from thalweg.rule import Rule, Scalar


class Adam(Rule):
    """Momentum over a running RMS, both corrected for starting at zero.

    Kingma & Ba 2015, Algorithm 1, https://arxiv.org/abs/1412.6980
    With `epsilon_hat` the form at the end of the paper's section 2, where ε is added before √v is
    corrected: larger at first. Keras and TensorFlow have it.
    """

    lr: Scalar = 1e-3
    beta_1: Scalar = 0.9
    beta_2: Scalar = 0.999
    epsilon: Scalar = 1e-8
    epsilon_hat: bool = False

    def update(self, t, g, m=0, v=0):
        m = self.beta_1 * m + (1 - self.beta_1) * g
        v = self.beta_2 * v + (1 - self.beta_2) * g**2
        m_hat = m / (1 - self.beta_1**t)
        v_hat = v / (1 - self.beta_2**t)
        epsilon = self.epsilon / sqrt(1 - self.beta_2**t) if self.epsilon_hat else self.epsilon
        return self.lr * m_hat / (sqrt(v_hat) + epsilon), m, v


class AdamW(Rule):
    """Adam whose weights decay at their own pace, untouched by the adaptive rate.

    Loshchilov & Hutter 2019, Algorithm 2, https://arxiv.org/abs/1711.05101 (with α inside the
    schedule, as all frameworks have it: the decay is lr·λ)
    """

    lr: Scalar = 1e-3
    beta_1: Scalar = 0.9
    beta_2: Scalar = 0.999
    epsilon: Scalar = 1e-8
    weight_decay: Scalar = 1e-2
    epsilon_hat: bool = False

    def update(self, t, g, p, m=0, v=0):
        m = self.beta_1 * m + (1 - self.beta_1) * g
        v = self.beta_2 * v + (1 - self.beta_2) * g**2
        m_hat = m / (1 - self.beta_1**t)
        v_hat = v / (1 - self.beta_2**t)
        epsilon = self.epsilon / sqrt(1 - self.beta_2**t) if self.epsilon_hat else self.epsilon
        return self.lr * (m_hat / (sqrt(v_hat) + epsilon) + self.weight_decay * p), m, v


class AMSGrad(Rule):
    """Adam whose divisor never shrinks, so that a rare large gradient is not forgotten.

    Reddi, Kale & Kumar 2018, Algorithm 2, https://openreview.net/forum?id=ryQu7f-RZ
    The paper has neither Adam's corrections nor ε; torch and Keras correct after the maximum, as here,
    Optax before it (`corrected_maximum`).
    """

    lr: Scalar = 1e-3
    beta_1: Scalar = 0.9
    beta_2: Scalar = 0.999
    epsilon: Scalar = 1e-8
    epsilon_hat: bool = False
    corrected_maximum: bool = False

    def update(self, t, g, m=0, v=0, v_max=0):
        m = self.beta_1 * m + (1 - self.beta_1) * g
        v = self.beta_2 * v + (1 - self.beta_2) * g**2
        m_hat = m / (1 - self.beta_1**t)
        if self.corrected_maximum:
            v_max = v_hat = maximum(v_max, v / (1 - self.beta_2**t))
        else:
            v_max = maximum(v_max, v)
            v_hat = v_max / (1 - self.beta_2**t)
        epsilon = self.epsilon / sqrt(1 - self.beta_2**t) if self.epsilon_hat else self.epsilon
        return self.lr * m_hat / (sqrt(v_hat) + epsilon), m, v, v_max


class AdaMax(Rule):
    """Adam with the largest recent gradient in place of the root mean square.

    Kingma & Ba 2015, Algorithm 2, https://arxiv.org/abs/1412.6980
    The paper has no ε (0/0 where a gradient has always been zero); torch adds it to |g|, Keras to
    the divisor (`epsilon_in_divisor`).
    """

    lr: Scalar = 2e-3
    beta_1: Scalar = 0.9
    beta_2: Scalar = 0.999
    epsilon: Scalar = 1e-8
    epsilon_in_divisor: bool = False

    def update(self, t, g, m=0, u=0):
        m = self.beta_1 * m + (1 - self.beta_1) * g
        m_hat = m / (1 - self.beta_1**t)
        if self.epsilon_in_divisor:
            u = maximum(self.beta_2 * u, abs(g))
            return self.lr * m_hat / (u + self.epsilon), m, u
        u = maximum(self.beta_2 * u, abs(g) + self.epsilon)
        return self.lr * m_hat / u, m, u


class Nadam(Rule):
    """Adam that looks ahead, under a momentum that warms up.

    Dozat 2016, Algorithm 2 and section 3.2, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ
    The momentum at step t is β₁(1 − ½·0.96^(ψt)): ψ = 0.004 in the paper and torch, 1 in Keras; β₁
    throughout where ψ is None, as in Optax.
    """

    lr: Scalar = 2e-3
    beta_1: Scalar = 0.9
    beta_2: Scalar = 0.999
    epsilon: Scalar = 1e-8
    psi: Scalar | None = 4e-3

    def update(self, t, g, m=0, v=0, mu_product=1):
        mu = mu_next = self.beta_1
        if self.psi is not None:
            mu = self.beta_1 * (1 - 0.5 * 0.96 ** (self.psi * t))
            mu_next = self.beta_1 * (1 - 0.5 * 0.96 ** (self.psi * (t + 1)))
        mu_product = mu_product * mu
        m = self.beta_1 * m + (1 - self.beta_1) * g
        v = self.beta_2 * v + (1 - self.beta_2) * g**2
        m_hat = mu_next * m / (1 - mu_product * mu_next) + (1 - mu) * g / (1 - mu_product)
        v_hat = v / (1 - self.beta_2**t)
        return self.lr * m_hat / (sqrt(v_hat) + self.epsilon), m, v, mu_product


class RAdam(Rule):
    """Adam that trusts its divisor only once enough gradients stand behind it.

    Liu et al. 2020, Algorithm 2, https://arxiv.org/abs/1908.03265
    The paper switches at ρ > 4 and has no ε; the authors' code and torch switch at ρ > 5 and add ε
    before √v is corrected (`epsilon_hat`), Optax after.
    """

    lr: Scalar = 1e-3
    beta_1: Scalar = 0.9
    beta_2: Scalar = 0.999
    epsilon: Scalar = 1e-8
    epsilon_hat: bool = True

    def update(self, t, g, m=0, v=0):
        m = self.beta_1 * m + (1 - self.beta_1) * g
        v = self.beta_2 * v + (1 - self.beta_2) * g**2
        m_hat = m / (1 - self.beta_1**t)
        rho_inf = 2 / (1 - self.beta_2) - 1
        rho = rho_inf - 2 * t * self.beta_2**t / (1 - self.beta_2**t)
        r = sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
        v_hat = v / (1 - self.beta_2**t)
        epsilon = self.epsilon / sqrt(1 - self.beta_2**t) if self.epsilon_hat else self.epsilon
        return self.lr * m_hat * where(rho > 5, r / (sqrt(v_hat) + epsilon), 1), m, v


class AdaBelief(Rule):
    """Adam that takes large steps where gradients come as expected.

    Zhuang et al. 2020, Algorithm 2, https://arxiv.org/abs/2010.07468
    """

    lr: Scalar = 1e-3
    beta_1: Scalar = 0.9
    beta_2: Scalar = 0.999
    epsilon: Scalar = 1e-16

    def update(self, t, g, m=0, s=0):
        m = self.beta_1 * m + (1 - self.beta_1) * g
        s = self.beta_2 * s + (1 - self.beta_2) * (g - m) ** 2 + self.epsilon
        m_hat = m / (1 - self.beta_1**t)
        s_hat = s / (1 - self.beta_2**t)
        return self.lr * m_hat / (sqrt(s_hat) + self.epsilon), m, s


class Adan(Rule):
    """Adam with Nesterov's look-ahead taken from the change of the gradient.

    Xie et al. 2022, Algorithm 1, https://arxiv.org/abs/2208.06677
    β are shares kept, as in the authors' code; the paper's are one minus these. Optax keeps the share of
    the change that the paper takes out (`inverse_change`), has a second ε in the root, and decays the
    weights beside the step (`decoupled_decay`) where the paper's decay is proximal.
    """

    lr: Scalar = 1e-3
    beta_1: Scalar = 0.98
    beta_2: Scalar = hyper(0.92, meaning="memory of the running mean of the gradient's change")
    beta_3: Scalar = 0.99
    epsilon: Scalar = 1e-8
    weight_decay: Scalar = 0.0
    epsilon_root: Scalar = 0.0
    inverse_change: bool = False
    decoupled_decay: bool = False

    def update(self, t, g, p, m=0, v=0, n=0, g_last=0):
        change = where(t == 1, 0, g - g_last)
        share = 1 - self.beta_2 if self.inverse_change else self.beta_2
        m = self.beta_1 * m + (1 - self.beta_1) * g
        v = self.beta_2 * v + (1 - self.beta_2) * change
        n = self.beta_3 * n + (1 - self.beta_3) * (g + share * change) ** 2
        m_hat = m / (1 - self.beta_1**t)
        v_hat = v / (1 - self.beta_2**t)
        n_hat = n / (1 - self.beta_3**t)
        step = self.lr * (m_hat + share * v_hat) / (sqrt(n_hat + self.epsilon_root) + self.epsilon)
        decay = self.lr * self.weight_decay
        if not self.decoupled_decay:  # p ← (p − step) / (1 + decay), as a step to subtract
            step, decay = step / (1 + decay), decay / (1 + decay)
        return step + decay * p, m, v, n, g
