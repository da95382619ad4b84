"""Rules as what JSON can hold, and back: for `get_config`, `model.save` and `load_model`."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import keras

from thalweg import schedules
from thalweg.errors import nearest
from thalweg.registry import find, find_treatment, name_of
from thalweg.rule import Rule
from thalweg.statefile import apart
from thalweg.treatments import Treatment, chain

Config = dict[str, Any]


def rule_to_config(rule: Rule) -> Config:
    """A rule, within treatments or not, by names and numbers."""
    links, inner = apart(rule)
    if links:
        return {"treatments": [_named(link) for link in links], "rule": _named(inner)}
    return _named(inner)


def rule_from_config(config: Mapping[str, Any]) -> Rule:
    """The rule that `rule_to_config` described; nothing is imported.

    Raises:
        ValueError: it names a rule, a treatment or a schedule that does not exist or is not imported.
    """
    treatments = [find_treatment(tr["name"])(**_values(tr)) for tr in config.get("treatments", ())]
    own = config["rule"] if "treatments" in config else config
    return chain(*treatments, find(own["name"], importing=False)(**_values(own)))


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
    values = {f.name: value_to_config(getattr(x, f.name)) for f in fields(x)}
    return {"name": name_of(type(x)), "values": values}


def _values(config: Mapping[str, Any]) -> Config:
    return {name: value_from_config(value) for name, value in config["values"].items()}
