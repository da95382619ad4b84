"""Optax's names for a rule's hyperparameters and slots: what its functions take, and what its states hold.

The functions of Optax's names, states and conversion all read them here.
"""

from collections.abc import Iterable

from thalweg.registry import standard_name
from thalweg.rule import Rule

# Optax's argument for a field of any rule; then where a rule's own function has another.
_ARGUMENTS = {
    "lr": "learning_rate",
    "beta_1": "b1",
    "beta_2": "b2",
    "beta_3": "b3",
    "epsilon": "eps",
    "epsilon_root": "eps_root",
}
_ARGUMENTS_OF = {
    "RMSprop": {
        "rho": "decay",
        "initial_accumulator": "initial_scale",
        "epsilon_in_root": "eps_in_sqrt",
    },
    "Adagrad": {"initial_accumulator": "initial_accumulator_value"},
}

_ADAM = {"count": "", "mu": "m", "nu": "v"}
# The states of Optax by rule: the fields of each, with the rule's slot where a field holds one ("-" for its
# negative), and nothing where it counts steps.
STATES: dict[str, list[dict[str, str]]] = {
    "SGD": [],
    "Momentum": [{"trace": "b"}],
    "Nesterov": [{"trace": "b"}],
    "Adagrad": [{"sum_of_squares": "s"}],
    "RMSprop": [{"nu": "v"}, {"mu": "mean", "nu": "v"}, {"trace": "-b"}],
    "Adadelta": [{"e_g": "v", "e_x": "u"}],
    "Adam": [_ADAM],
    "AdamW": [_ADAM],
    "AMSGrad": [{**_ADAM, "nu_max": "v_max"}],
    "AdaMax": [{"count": "", "mu": "m", "nu": "u"}],
    "Nadam": [_ADAM],
    "RAdam": [_ADAM],
    "AdaBelief": [{"count": "", "mu": "m", "nu": "s"}],
    "Adan": [{"m": "m", "v": "v", "n": "n", "g": "g_last", "t": ""}],
    "Lion": [{"count": "", "mu": "m"}],
}

# The rules and treatments whose arithmetic on complex parameters is Optax's. Its Lion, Adadelta and Adan are
# not made for them, and bounds have no meaning there.
COMPLEX = STATES.keys() - {"Lion", "Adadelta", "Adan"} | {
    "ClipByNorm",
    "ClipByGlobalNorm",
    "DecoupledDecay",
    "L2",
    "Maximize",
    "SkipNonFinite",
}

# A hyperparameter's field by Optax's argument; the others have one name in both.
FIELDS = {
    argument: field for words in (_ARGUMENTS, *_ARGUMENTS_OF.values()) for field, argument in words.items()
}


def arguments_of(rule: type[Rule], fields: Iterable[str]) -> dict[str, str]:
    """Optax's argument for each of these fields of a rule; a field that it has no word for keeps its name."""
    words = {**_ARGUMENTS, **_ARGUMENTS_OF.get(standard_name(rule), {})}
    return {field: words.get(field, field) for field in fields}


def slots_of(rule: type[Rule], slots: Iterable[str]) -> dict[str, str]:
    """Optax's name for each of these slots of a rule; one that Optax does not hold as it is keeps its own."""
    words = {slot: name for fields in STATES.get(standard_name(rule), ()) for name, slot in fields.items()}
    return {slot: words.get(slot, slot) for slot in slots}
