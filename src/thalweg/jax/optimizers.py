"""Functions by the names and signatures of `optax`, and every other rule under its own, in lower case.

Each takes what Optax's takes, and `dialect`: whose arithmetic, and whose default for every argument that
is not given. A schedule counts the steps taken, from 0, as in Optax.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax

from thalweg import registry
from thalweg.dialects.optax import OPTAX
from thalweg.dialects.spelling import NOTHING, Spelling
from thalweg.errors import UnknownHyperparameterError
from thalweg.jax.base import FIELDS, GradientTransformation, constant, transformation
from thalweg.rule import Rule
from thalweg.schedules import BuiltInSchedule
from thalweg.treatments import chain

# The slot whose dtype an argument gives, and the arguments that say which parameters decay.
_DTYPES = {"mu_dtype": "m", "accumulator_dtype": "b"}
_MASKS = ("mask", "weight_decay_mask")


@cache
def named(name: str) -> Callable[..., GradientTransformation]:
    """The function of one of Optax's names."""
    return _function(OPTAX.named(name))


_functions: dict[type[Rule], Callable[..., GradientTransformation]] = {}


def function_of(rule: type[Rule]) -> Callable[..., GradientTransformation]:
    """The function of a rule: Optax's namesake, or one whose arguments are the rule's fields in its words."""
    known = OPTAX.native.get(rule)
    if known and all(name in known.defaults for name in known.choice) and known.is_chosen(known.defaults):
        return named(known.name)
    if rule not in _functions:
        _functions[rule] = _function([OPTAX.written(rule, registry.class_name(rule).lower())])
    return _functions[rule]


def _function(choices: list[Spelling]) -> Callable[..., GradientTransformation]:
    """The function that makes a transformation of the rule which its settings choose.

    Arguments that are given are the rule's fields; for the others the dialect decides.
    """
    usual = next(one for one in choices if one.is_chosen({**dict.fromkeys(one.choice), **one.defaults}))
    dialect = inspect.Parameter("dialect", inspect.Parameter.KEYWORD_ONLY, default="optax")
    signature = inspect.Signature(
        [*usual.signature.parameters.values(), dialect], return_annotation=GradientTransformation
    )
    name = usual.name

    def function(*args: Any, **kwargs: Any) -> GradientTransformation:
        for argument in kwargs.keys() - signature.parameters.keys():
            words = {field: word for word, field in FIELDS.items() if word in signature.parameters}
            raise UnknownHyperparameterError(name, argument, signature.parameters, words)
        bound = signature.bind(*args, **kwargs)
        given = {k: v for k, v in bound.arguments.items() if v is not None}
        bound.apply_defaults()
        settings = bound.arguments
        one = next(one for one in choices if one.is_chosen(settings))
        _check(one, given, settings["dialect"])
        values = one.values_of({k: _value(v) for k, v in given.items()})
        links = []
        if one.decay and not _is_nothing(one, settings["weight_decay"]):
            links = [one.decay(_value(settings["weight_decay"]))]
        rule = registry.get(one.rule, dialect=settings["dialect"], **values)
        dtypes = {s: settings[a] for a, s in _DTYPES.items() if a in settings and s in rule.slots}
        masks = [settings[argument] for argument in _MASKS if argument in settings]
        return transformation(chain(*links, rule), dtypes, *masks)

    function.__name__ = function.__qualname__ = name
    function.__module__ = "thalweg.jax"
    function.__doc__ = _about(usual)
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def _about(one: Spelling) -> str:
    first = inspect.cleandoc(one.rule.__doc__ or "").partition("\n")[0]
    theirs = f" See `optax.{one.name}`." if one.native else ""
    only = "; ".join(f"`{argument}` is always {value!r}" for argument, value in one.only.items())
    return first + theirs + (f" Here {only}." if only else "")


def _check(one: Spelling, given: Mapping[str, Any], dialect: str) -> None:
    """Refuse what there is not.

    Raises:
        ValueError: an argument has another value than the one that there is.
        TypeError: an array for an argument that has a default, in another dialect than Optax's.
    """
    for argument, admitted in one.only.items():
        value = given.get(argument)
        if value is not None and not (isinstance(value, bool | int | float) and value == admitted):
            raise ValueError(f"{one.name}: {argument} is always {admitted!r} here, got {value!r}")
    alike: dict[Any, list[str]] = {}
    for argument, meant in one.arguments.items():
        alike.setdefault(meant, []).append(argument)
        if dialect != "optax" and isinstance(given.get(argument), jax.Array) and argument in one.defaults:
            raise TypeError(
                f"{one.name}: in another dialect than Optax's, {argument} is a number or a schedule, since "
                "optax.inject_hyperparams passes Optax's defaults as arrays; inject a function of what "
                f"is to change: lambda learning_rate: {one.name}(learning_rate, dialect={dialect!r})"
            )
    for several in alike.values():
        first, *others = (given.get(argument, NOTHING) for argument in several)
        if not all(x is first or (isinstance(x, int | float) and x == first) for x in others):
            raise ValueError(f"{one.name}: {' and '.join(several)} are one number here: give both alike")


def _is_nothing(one: Spelling, decay: Any) -> bool:
    """Whether there is no decay, where that is the default."""
    return not one.defaults["weight_decay"] and isinstance(decay, float | int) and decay == 0


def _value(value: Any) -> Any:
    """A setting as a rule takes it: a schedule counts from 1, and an array is one too."""
    if isinstance(value, jax.Array):
        return constant(value)
    if callable(value) and not isinstance(value, BuiltInSchedule):
        return lambda t: value(t - 1)
    return value
