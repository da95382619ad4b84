"""tf.compat.v1.train, which TensorFlow 2 still carries: its spellings of the rules, and their meaning."""

from typing import Any

from thalweg import rules
from thalweg.dialects.spelling import Framework, Spelling, parsed
from thalweg.rule import Rule

_WORDS = {
    "learning_rate": "lr",
    "beta1": "beta_1",
    "beta2": "beta_2",
    "initial_accumulator_value": "initial_accumulator",
}


def _tf1(rule: type[Rule], call: str, words: Any = None, **more: Any) -> Spelling:
    return Spelling(rule, *parsed(call), words={**_WORDS, **(words or {})}, **more)


_MOMENTUM = "MomentumOptimizer(learning_rate, momentum, use_nesterov=False)"

TF1 = Framework(
    "tf1",
    "tf.compat.v1.train",
    (
        _tf1(rules.SGD, "GradientDescentOptimizer(learning_rate)"),
        _tf1(rules.Momentum, _MOMENTUM, choice={"use_nesterov": False}),
        _tf1(rules.Nesterov, _MOMENTUM, choice={"use_nesterov": True}),
        _tf1(
            rules.Adagrad,
            "AdagradOptimizer(learning_rate, initial_accumulator_value=0.1)",
            values={"epsilon": 0.0},
        ),
        _tf1(
            rules.RMSprop,
            "RMSPropOptimizer(learning_rate, decay=0.9, momentum=0.0, epsilon=1e-10, centered=False)",
            {"decay": "rho"},
            values={"initial_accumulator": 1.0, "epsilon_in_root": True, "lr_in_velocity": True},
        ),
        _tf1(rules.Adadelta, "AdadeltaOptimizer(learning_rate=0.001, rho=0.95, epsilon=1e-8)"),
        _tf1(
            rules.Adam,
            "AdamOptimizer(learning_rate=0.001, beta1=0.9, beta2=0.999, epsilon=1e-8)",
            values={"epsilon_hat": True},
        ),
    ),
    words=_WORDS,
)
