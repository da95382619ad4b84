"""Rules as what JSON can hold, and back: for `get_config`, `model.save` and `load_model`."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import keras

from thalweg import schedules
from thalweg.errors import nearest
from thalweg.registry import find
from thalweg.rule import REGISTRY, Rule
from thalweg.treatments import Chain, Treatment, chain

Config = dict[str, Any]


def rule_to_config(rule: Rule) -> Config:
    """A rule, within treatments or not, by names and numbers.

    Raises:
        ValueError: the rule is not registered, so that nothing could find it by its name.
    """
    if isinstance(rule, Chain):
        return {"treatments": [_named(tr) for tr in rule.treatments], "rule": rule_to_config(rule.rule)}
    if REGISTRY.get(type(rule).__name__) is not type(rule):
        raise ValueError(f"{type(rule).__name__} cannot be saved: it is not registered (register=False)")
    return _named(rule)


def rule_from_config(config: Mapping[str, Any]) -> Rule:
    """The rule that `rule_to_config` described.

    Raises:
        ValueError: it names a rule, a treatment or a schedule that does not exist.
    """
    if "treatments" in config:
        known = {kind.__name__: kind for kind in Treatment.__subclasses__()}
        treatments = []
        for tr in config["treatments"]:
            if tr["name"] not in known:
                raise ValueError(f"no treatment is named {tr['name']!r}; {nearest(tr['name'], known)}")
            treatments.append(known[tr["name"]](**_values(tr)))
        return chain(*treatments, rule_from_config(config["rule"]))
    return find(config["name"])(**_values(config))


def value_to_config(value: Any) -> Any:
    """A hyperparameter's value: a flag, None, a number or a schedule."""
    if value is None or isinstance(value, bool):
        return value
    if not callable(value):
        return float(value)
    if is_dataclass(value) and type(value).__module__ == schedules.__name__:
        arguments = {f.name: getattr(value, f.name) for f in fields(value)}
        whole = {k: v if isinstance(v, int) else value_to_config(v) for k, v in arguments.items()}
        return {"schedule": type(value).__name__, **whole}
    return keras.saving.serialize_keras_object(value)


def value_from_config(config: Any) -> Any:
    """The value that `value_to_config` described."""
    if not isinstance(config, Mapping):
        return config
    if "schedule" not in config:
        return keras.saving.deserialize_keras_object(dict(config))
    arguments = {k: value_from_config(v) for k, v in config.items() if k != "schedule"}
    if config["schedule"] not in schedules.__all__:
        raise ValueError(
            f"no schedule is named {config['schedule']!r}; {nearest(config['schedule'], schedules.__all__)}"
        )
    return getattr(schedules, config["schedule"])(**arguments)


def _named(x: Rule | Treatment) -> Config:
    values = {f.name: value_to_config(getattr(x, f.name)) for f in fields(x)}  # type: ignore[arg-type]
    return {"name": type(x).__name__, "values": values}


def _values(config: Mapping[str, Any]) -> Config:
    return {name: value_from_config(value) for name, value in config["values"].items()}
