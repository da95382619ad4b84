"""What each framework means by a rule's name: the field values that make ours do the same.

A rule's own defaults are the `paper` dialect; a dialect lists only what differs from them. Where a
framework has no default, as Optax has none for a learning rate, the paper's stays.
"""

from typing import Any

DIALECTS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {},
    # torch.optim 2.13
    "torch": {
        "SGD": {"lr": 1e-3},
        "Momentum": {"lr": 1e-3},
        "Nesterov": {"lr": 1e-3},
        "RMSprop": {"rho": 0.99},
        "Adadelta": {"rho": 0.9},
    },
    # keras.optimizers 3.15
    "keras": {
        "Momentum": {"lr_in_velocity": True},
        "Nesterov": {"lr_in_velocity": True},
        "Adagrad": {"lr": 1e-3, "epsilon": 1e-7, "epsilon_in_root": True, "initial_accumulator": 0.1},
        "Adadelta": {"lr": 1e-3, "epsilon": 1e-7},
        "RMSprop": {"lr": 1e-3, "epsilon": 1e-7, "epsilon_in_root": True, "lr_in_velocity": True},
        "Adam": {"epsilon": 1e-7, "epsilon_hat": True},
        "AMSGrad": {"epsilon": 1e-7, "epsilon_hat": True},
        "AdamW": {"epsilon": 1e-7, "epsilon_hat": True, "weight_decay": 4e-3},
        "AdaMax": {"lr": 1e-3, "epsilon": 1e-7, "epsilon_in_divisor": True},
        "Nadam": {"lr": 1e-3, "epsilon": 1e-7, "psi": 1.0},
        "Lion": {"lr": 1e-3},
    },
    # tf.compat.v1.train, which TensorFlow 2 still carries
    "tf1": {
        "Adagrad": {"epsilon": 0.0, "initial_accumulator": 0.1},
        "Adadelta": {"lr": 1e-3, "epsilon": 1e-8},
        "RMSprop": {
            "epsilon": 1e-10,
            "initial_accumulator": 1.0,
            "epsilon_in_root": True,
            "lr_in_velocity": True,
        },
        "Adam": {"epsilon_hat": True},
    },
    # optax 0.2.8
    "optax": {
        "Adagrad": {"epsilon": 1e-7, "epsilon_in_root": True, "initial_accumulator": 0.1},
        "Adadelta": {"rho": 0.9},
        "RMSprop": {"epsilon_in_root": True, "lr_in_velocity": True},
        "AMSGrad": {"corrected_maximum": True},
        "AdamW": {"weight_decay": 1e-4},
        "Nadam": {"psi": None},
        "RAdam": {"epsilon_hat": False},
        "Adan": {"epsilon_root": 1e-8, "inverse_change": True, "decoupled_decay": True},
        "Lion": {"weight_decay": 1e-3},
    },
}

# How each framework spells a rule; one that is absent here, it does not have. Arguments that must be given
# stand bare, those that choose the rule with "=". Under a rule that it lacks, a dialect means the paper's.
SPELLINGS: dict[str, dict[str, str]] = {
    "torch": {
        "SGD": "torch.optim.SGD",
        "Momentum": "torch.optim.SGD(momentum=)",
        "Nesterov": "torch.optim.SGD(momentum=, nesterov=)",
        "Adagrad": "torch.optim.Adagrad",
        "RMSprop": "torch.optim.RMSprop",
        "Adadelta": "torch.optim.Adadelta",
        "Adam": "torch.optim.Adam",
        "AdamW": "torch.optim.AdamW",
        "AMSGrad": "torch.optim.Adam(amsgrad=)",
        "AdaMax": "torch.optim.Adamax",
        "Nadam": "torch.optim.NAdam",
        "RAdam": "torch.optim.RAdam",
    },
    "keras": {
        "SGD": "keras.optimizers.SGD",
        "Momentum": "keras.optimizers.SGD(momentum=)",
        "Nesterov": "keras.optimizers.SGD(momentum=, nesterov=)",
        "Adagrad": "keras.optimizers.Adagrad",
        "RMSprop": "keras.optimizers.RMSprop",
        "Adadelta": "keras.optimizers.Adadelta",
        "Adam": "keras.optimizers.Adam",
        "AdamW": "keras.optimizers.AdamW",
        "AMSGrad": "keras.optimizers.Adam(amsgrad=)",
        "AdaMax": "keras.optimizers.Adamax",
        "Nadam": "keras.optimizers.Nadam",
        "Lion": "keras.optimizers.Lion",
    },
    "tf1": {
        "SGD": "tf.compat.v1.train.GradientDescentOptimizer(learning_rate)",
        "Momentum": "tf.compat.v1.train.MomentumOptimizer(learning_rate, momentum)",
        "Nesterov": "tf.compat.v1.train.MomentumOptimizer(learning_rate, momentum, use_nesterov=)",
        "Adagrad": "tf.compat.v1.train.AdagradOptimizer(learning_rate)",
        "RMSprop": "tf.compat.v1.train.RMSPropOptimizer(learning_rate)",
        "Adadelta": "tf.compat.v1.train.AdadeltaOptimizer",
        "Adam": "tf.compat.v1.train.AdamOptimizer",
    },
    "optax": {
        "SGD": "optax.sgd(learning_rate)",
        "Momentum": "optax.sgd(learning_rate, momentum=)",
        "Nesterov": "optax.sgd(learning_rate, momentum=, nesterov=)",
        "Adagrad": "optax.adagrad(learning_rate)",
        "RMSprop": "optax.rmsprop(learning_rate)",
        "Adadelta": "optax.adadelta(learning_rate)",
        "Adam": "optax.adam(learning_rate)",
        "AdamW": "optax.adamw(learning_rate)",
        "AMSGrad": "optax.amsgrad(learning_rate)",
        "AdaMax": "optax.adamax(learning_rate)",
        "Nadam": "optax.nadam(learning_rate)",
        "RAdam": "optax.radam(learning_rate)",
        "AdaBelief": "optax.adabelief(learning_rate)",
        "Adan": "optax.adan(learning_rate)",
        "Lion": "optax.lion(learning_rate)",
    },
}
