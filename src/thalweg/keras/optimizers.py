"""Optimizers by the names and signatures of `keras.optimizers`, and every other rule under its own.

A constructor takes what Keras's takes, with Keras's defaults; the keywords of older Keras (`lr`,
`decay`, `schedule_decay`); and `dialect`: whose arithmetic, and whose default for every setting that is
not given. In the dialect of torch, weight decay is a penalty in the loss, as it is there (but for AdamW).
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
from keras.src.utils.naming import to_snake_case

from thalweg.dialects import DIALECTS, FRAMEWORKS, Spelling, spoken
from thalweg.dialects.keras import KERAS
from thalweg.errors import UnknownDialectError, UnknownHyperparameterError, no_rule
from thalweg.keras.base import OPTIONS, ArrayOptimizer
from thalweg.keras.config import rule_from_config, rule_to_config, value_from_config, value_to_config
from thalweg.keras.loading import know
from thalweg.registry import class_name, get
from thalweg.rule import Rule
from thalweg.schedules import TimeDecay
from thalweg.treatments import DecoupledDecay

if keras.backend.backend() == "torch":
    from thalweg.keras.fused import FusedOptimizer as BackendOptimizer
else:
    BackendOptimizer = ArrayOptimizer  # type: ignore[misc]

Settings = Mapping[str, Any]

# Keywords that older Keras has besides, by class.
_OLDER: dict[str, dict[str, Any]] = {"Nadam": {"schedule_decay": None}}


def registered(kind: type["BackendOptimizer"]) -> type["BackendOptimizer"]:
    """Let Keras find an optimizer by the name "thalweg>Class", in strings and in files."""
    kind.__module__ = "thalweg.keras"  # files name it, for who has not imported it yet
    keras.saving.register_keras_serializable("thalweg", kind.__name__)(kind)
    return kind


@registered
class Optimizer(BackendOptimizer):
    """Any rule as a Keras optimizer.

    Args:
        rule: a rule, within treatments or not, with schedules or not.
        learning_rate: in place of the rule's: a number, a schedule of Keras's or of t.
        options: Keras's for every optimizer: `clipnorm`, `weight_decay`, `use_ema`, `name`, …

    Raises:
        TypeError: `rule` is not a rule, or an option is none of Keras's.
        ValueError: a value outside its range.

    Attributes:
        rule: the rule; replace it, or set one of its hyperparameters by name (`optimizer.beta_1 = 0.8`), to
            change it between steps (what JAX or TensorFlow has compiled stays as it was).
    """

    weight_decay: Any

    def __init__(self, rule: Rule, learning_rate: Any = None, **options: Any) -> None:
        if not isinstance(rule, Rule):
            raise no_rule("Optimizer", rule)
        super().__init__(rule, learning_rate, DecoupledDecay, **options)
        if "weight_decay" in rule.values:  # which the option then is a name of
            given = self.weight_decay
            del self.weight_decay
            if given is not None:
                self.weight_decay = given

    def __getattr__(self, name: str) -> Any:
        own = vars(self).get("_own")
        if own is None or name not in own.rule.values:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return own.rule.values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        own = vars(self).get("_own")
        if own is None or name not in own.rule.values or hasattr(type(self), name):
            super().__setattr__(name, value)
        else:
            self._replace(own.rule.replaced(**{name: value}))

    @property
    def rule(self) -> Rule:
        """The rule, without what Keras's options add; `learning_rate` holds its learning rate."""
        return self._own.rule

    @rule.setter
    def rule(self, rule: Rule) -> None:
        self._replace(rule)

    def get_config(self) -> dict[str, Any]:
        """Keras's options and the rule, as what JSON can hold."""
        of_the_rule = {"weight_decay": None} if "weight_decay" in self.rule.values else {}
        return {**super().get_config(), **of_the_rule, "rule": rule_to_config(self.rule)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Optimizer":
        """The optimizer that `get_config` described."""
        made: Optimizer = super().from_config(
            {**config, "rule": rule_from_config(config["rule"])}, custom_objects
        )
        return made


class Named(BackendOptimizer):
    """A rule by the name that Keras has for it, or by its own, with Keras's options.

    `thalweg.keras.RAdam(1e-3, clipnorm=1.0)`. `schedule_decay` of an older Keras's Nadam says how fast the
    momentum warms up; it was 0.004 there, and is 1 now.

    Attributes:
        spelling: what the constructor takes, and what it means.
        choices: all that its settings may mean.
        parameters: what the constructor takes, with the defaults of the dialect of Keras.
        own: names of the parameters that are not options of every optimizer.
    """

    spelling: ClassVar[Spelling]
    choices: ClassVar[list[Spelling]]
    parameters: ClassVar[Mapping[str, Any]]
    own: ClassVar[Sequence[str]]
    __signature__: ClassVar[inspect.Signature]

    def __init__(self, *args: Any, **given: Any) -> None:
        decay = None if "decay" in self.parameters else given.pop("decay", None)
        given = self._in_new_words(given)
        settings = dict(self.__signature__.bind(*args, **given).arguments)
        dialect = settings.get("dialect", "keras")
        if dialect not in DIALECTS:
            raise UnknownDialectError(dialect, DIALECTS)
        if settings.get("epsilon", 0) is None:
            settings["epsilon"] = keras.config.epsilon()
        settings = {**self.parameters, **self._defaults(dialect), **settings}
        rate = settings["learning_rate"]
        if decay:
            if callable(rate):
                raise TypeError(f"{type(self).__name__}: decay is for a learning rate that is a number")
            if decay < 0:
                raise ValueError(f"{type(self).__name__}: decay must lie in [0, ∞), got {decay!r}")
            rate = TimeDecay(float(rate), float(decay))
        settings = {name: settings[name] for name in (*self.own, "dialect", *OPTIONS)}
        options = {name: settings.pop(name) for name in OPTIONS}
        if options["weight_decay"] is None and self.parameters["weight_decay"] is not None:
            raise ValueError(f"{type(self).__name__}: weight_decay is a number, got None")
        theirs = FRAMEWORKS[dialect].decay_of(self.spelling.rule) if dialect in FRAMEWORKS else None
        super().__init__(self.rule_of(settings), rate, theirs or DecoupledDecay, **options)
        self._own.named = settings

    def _in_new_words(self, given: dict[str, Any]) -> dict[str, Any]:
        """Keywords with `lr` for `learning_rate`; names the nearest where one is unknown."""
        if "lr" in given:
            if "learning_rate" in given:
                raise TypeError(f"{type(self).__name__}: lr and learning_rate are the same; give one")
            given["learning_rate"] = given.pop("lr")
        for name in given:
            if name not in self.parameters:
                known = (*self.parameters, "lr", "decay")
                raise UnknownHyperparameterError(type(self).__name__, name, known)
        return given

    @classmethod
    def _defaults(cls, dialect: str) -> dict[str, Any]:
        """What a dialect means by a parameter that is not given; for its own, Keras says so itself."""
        if dialect == "keras":
            return {}
        rule = get(cls.spelling.rule, dialect=dialect)
        decay = {"weight_decay": rule.values["weight_decay"]} if "weight_decay" in rule.values else {}
        return {**decay, **cls.spelling.settings_for(rule)}

    def rule_of(self, settings: Settings) -> Rule:
        """The rule that the settings mean, in their dialect."""
        one = next(one for one in self.choices if one.is_chosen(settings))
        values = one.values_of({name: settings[name] for name in self.own})
        if settings.get("schedule_decay") is not None:
            values["psi"] = settings["schedule_decay"]
        return one.rule(**{**spoken(settings["dialect"], one.rule), **values})

    def get_config(self) -> dict[str, Any]:
        """All settings, as Keras's optimizer of that name gives them; `dialect` where it is another."""
        named = {name: value_to_config(self._own.named[name]) for name in self.own}
        dialect = self._own.named["dialect"]
        return {**super().get_config(), **named, **({} if dialect == "keras" else {"dialect": dialect})}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Named":
        """The optimizer that `get_config` described."""
        values = {k: value_from_config(v) if k in cls.own else v for k, v in config.items()}
        made: Named = super().from_config(values, custom_objects)
        return made


def _setting(name: str) -> property:
    """A setting as an attribute, which may be set as long as the rule's form stays."""

    def get(self: Named) -> Any:
        return self._own.named[name]

    def put(self: Named, value: Any) -> None:
        settings = {**self._own.named, name: value}
        self._replace(self.rule_of(settings))
        self._own.named = settings

    return property(get, put)


_classes: dict[type[Rule], type[Named]] = {}


def class_of(rule: type[Rule]) -> type[Named]:
    """The optimizer of a rule: Keras's namesake, or one made of the rule's own fields."""
    if rule not in _classes:
        known = KERAS.native.get(rule)
        namesake = known is not None and known.is_chosen(known.defaults)
        _classes[rule] = _made(known if namesake and known else KERAS.written(rule, class_name(rule)))
    return _classes[rule]


def _made(one: Spelling) -> type[Named]:
    choices = KERAS.named(one.name) or [one]
    more = _OLDER.get(one.name, {})
    parameters = {p.name: p.default for p in one.signature.parameters.values()}
    last = {**more, "dialect": "keras"}
    parameters = {**parameters, **{k: v for k, v in OPTIONS.items() if k not in parameters}, **last}
    own = [p for p in parameters if p not in ("learning_rate", "dialect", *OPTIONS)]
    kinds = dict.fromkeys(last, inspect.Parameter.KEYWORD_ONLY)
    shown = [
        inspect.Parameter(p, kinds.get(p, inspect.Parameter.POSITIONAL_OR_KEYWORD), default=default)
        for p, default in parameters.items()
    ]
    layout = max((other.slots for other in choices), key=len) if one.native else ()
    members = {
        "spelling": one,
        "choices": choices,
        "parameters": parameters,
        "own": own,
        "layout": layout,
        "__signature__": inspect.Signature(shown),
        "__doc__": (one.rule.__doc__ or "")
        + (f"\n    See `keras.optimizers.{one.name}`." if one.native else ""),
        **{name: _setting(name) for name in own},
    }
    made: type[Named] = type(one.name, (Named,), members)
    know(to_snake_case(one.name), tuple(map(tuple, layout)) or (tuple(one.rule._slots),))
    return registered(made)
