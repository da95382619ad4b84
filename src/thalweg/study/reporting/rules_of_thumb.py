"""The field's rules of thumb, each with where it comes from: what to try first, before any comparison."""

from __future__ import annotations

from typing import NamedTuple


class RuleOfThumb(NamedTuple):
    """One rule of thumb and its source."""

    text: str
    source: str


# Features of a problem that a user may name, and what each means.
FEATURES = {
    "sparse": "inputs of which most entries are zero, such as bags of words or one-hot categories",
    "rnn": "a recurrent network",
    "transformer": "a transformer, or other attention",
    "cnn": "a convolutional network on images",
    "convex": "a convex problem, such as logistic regression",
    "autoencoder": "a deep autoencoder",
    "gan": "two networks trained against each other",
    "reinforcement": "reinforcement learning",
    "fine-tuning": "a pretrained model that is trained on",
    "large-batch": "batches of thousands of examples",
    "little-memory": "a model that hardly fits into memory",
    "little-time": "no time to tune",
}

ALWAYS = (
    RuleOfThumb(
        "Tune the learning rate before anything else: no other hyperparameter matters as much.",
        "Goodfellow, Bengio & Courville 2016, Deep Learning, section 11.4.1",
    ),
    RuleOfThumb(
        "Given a fair search, a more general optimizer is never much worse than one that it contains: Adam "
        "falls behind momentum only where too little of it is tuned.",
        "Choi et al. 2019, https://arxiv.org/abs/1910.05446",
    ),
)

BY_FEATURE: dict[str, tuple[RuleOfThumb, ...]] = {
    "sparse": (
        RuleOfThumb(
            "Adagrad, or Adam: an entry that is seldom seen keeps a large step.",
            "Duchi, Hazan & Singer 2011, https://jmlr.org/papers/v12/duchi11a.html; "
            "Kingma & Ba 2015, section 6.1, https://arxiv.org/abs/1412.6980",
        ),
    ),
    "rnn": (
        RuleOfThumb(
            "Clip the gradient's norm (1 or 5 are usual), whatever the optimizer: its explosions are what "
            "ends training.",
            "Pascanu, Mikolov & Bengio 2013, https://arxiv.org/abs/1211.5063",
        ),
        RuleOfThumb(
            "RMSprop or Adam; momentum close to 1 does as well with careful initial weights.",
            "Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13.html",
        ),
    ),
    "transformer": (
        RuleOfThumb(
            "AdamW with a warm-up and a decay to zero; SGD falls far behind here.",
            "Zhang et al. 2020, https://arxiv.org/abs/1912.03194; "
            "Zhang et al. 2024, https://arxiv.org/abs/2402.16788",
        ),
        RuleOfThumb(
            "With layer normalisation inside the residual branches, the warm-up may be short or left out.",
            "Xiong et al. 2020, https://arxiv.org/abs/2002.04745",
        ),
    ),
    "cnn": (
        RuleOfThumb(
            "Momentum or Nesterov (0.9) with a decaying learning rate; it often generalises a little better "
            "than Adam as it comes.",
            "Wilson et al. 2017, https://arxiv.org/abs/1705.08292",
        ),
    ),
    "convex": (
        RuleOfThumb(
            "SGD with a falling learning rate, or Adagrad; where all data fit into memory, a batch method "
            "such as L-BFGS.",
            "Bottou, Curtis & Nocedal 2018, https://arxiv.org/abs/1606.04838",
        ),
    ),
    "autoencoder": (
        RuleOfThumb(
            "Nesterov with momentum up to 0.99 or more, raised over the first steps.",
            "Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13.html",
        ),
    ),
    "gan": (
        RuleOfThumb(
            "Adam with beta_1 = 0.5 and a learning rate of 0.0002: at 0.9 training swings.",
            "Radford, Metz & Chintala 2016, https://arxiv.org/abs/1511.06434",
        ),
    ),
    "reinforcement": (
        RuleOfThumb(
            "Adam with a large epsilon (1.5e-4 for images), as gradients are small and their scale wanders.",
            "Hessel et al. 2018, table 4, https://arxiv.org/abs/1710.02298",
        ),
    ),
    "fine-tuning": (
        RuleOfThumb(
            "AdamW at 2e-5 to 5e-5 with a short warm-up and a linear decay, for a few epochs.",
            "Devlin et al. 2019, appendix A.3, https://arxiv.org/abs/1810.04805",
        ),
    ),
    "large-batch": (
        RuleOfThumb(
            "Raise the learning rate with the batch and warm it up over the first epochs.",
            "Goyal et al. 2017, https://arxiv.org/abs/1706.02677",
        ),
        RuleOfThumb(
            "Beyond a size that depends on the problem, larger batches save no more steps: find it with "
            "--vary batch_size.",
            "Shallue et al. 2019, https://arxiv.org/abs/1811.03600",
        ),
    ),
    "little-memory": (
        RuleOfThumb(
            "SGD keeps no state, momentum and Lion one number a parameter, Adam two.",
            "Chen et al. 2023, https://arxiv.org/abs/2302.06675",
        ),
    ),
    "little-time": (
        RuleOfThumb(
            "Adam at its default learning rate of 0.001; trying two or three other optimizers at their "
            "defaults gains about as much as tuning one.",
            "Schmidt, Schneider & Hennig 2021, https://arxiv.org/abs/2007.01547",
        ),
    ),
}
