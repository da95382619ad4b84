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
