"""The optimizers of `keras.optimizers`, in its own spelling, and every other rule under its own name.

A constructor takes what Keras's takes, with Keras's defaults; the keywords of older Keras (`lr`,
`decay`, `schedule_decay`); and `dialect`: whose arithmetic, and whose default for every setting that is
not given. In the dialect of torch, weight decay is a penalty in the loss, as it is there (but for AdamW).
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, ClassVar

import keras
from keras.src.utils.naming import to_snake_case

from thalweg.dialects import DIALECTS
from thalweg.errors import UnknownDialectError, UnknownHyperparameterError, no_rule
from thalweg.keras.base import OPTIONS, ArrayOptimizer
from thalweg.keras.config import rule_from_config, rule_to_config, value_from_config, value_to_config
from thalweg.keras.loading import know
from thalweg.registry import name_of, rules, standard_name
from thalweg.rule import Rule
from thalweg.schedules import TimeDecay
from thalweg.treatments import L2, DecoupledDecay

if keras.backend.backend() == "torch":
    from thalweg.keras.fused import FusedOptimizer as BackendOptimizer
else:
    BackendOptimizer = ArrayOptimizer  # type: ignore[misc]

Settings = Mapping[str, Any]

# Keras's words for a rule's fields, where they differ.
_FIELDS = {"learning_rate": "lr", "initial_accumulator_value": "initial_accumulator"}
# The rules whose weight decay is beside the step in torch's own spelling too.
_DECOUPLED = ("AdamW", "AdaBelief")


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
    """A rule under its own name, with Keras's options: `thalweg.keras.RAdam(1e-3, clipnorm=1.0)`.

    Attributes:
        kind: the rule.
        parameters: what the constructor takes, with the defaults of the dialect of Keras.
        own: names of the parameters that are not options of every optimizer.
    """

    kind: ClassVar[type[Rule]]
    parameters: ClassVar[Mapping[str, Any]]
    own: ClassVar[Sequence[str]]

    def __init_subclass__(cls, twin: Any = None, **more: Any) -> None:
        """Take the signature from Keras's optimizer, or from the rule's fields."""
        super().__init_subclass__()
        if "kind" not in vars(cls):
            return  # someone's own optimizer, derived from one of ours
        if twin is None:
            own = [f.name for f in fields(cls.kind) if f.name not in ("lr", *OPTIONS)]
            cls.parameters = {"learning_rate": None, **dict.fromkeys(own), **OPTIONS}
            cls.parameters = {**cls.parameters, **_spoken(cls.kind, "keras", cls.parameters)}
        else:
            signature = inspect.signature(twin.__init__).parameters.values()
            cls.parameters = {p.name: p.default for p in signature if p.name not in ("self", "kwargs")}
        cls.parameters = {**cls.parameters, **more, "dialect": "keras"}
        cls.own = [p for p in cls.parameters if p not in ("learning_rate", "dialect", *OPTIONS)]
        last = (*more, "dialect")
        kinds = dict.fromkeys(last, inspect.Parameter.KEYWORD_ONLY)
        cls.__signature__ = inspect.Signature(
            [
                inspect.Parameter(p, kinds.get(p, inspect.Parameter.POSITIONAL_OR_KEYWORD), default=default)
                for p, default in cls.parameters.items()
            ]
        )
        for name in cls.own:
            setattr(cls, name, _setting(name))
        layout = tuple(tuple(group) for group in cls.layout) or (tuple(cls.kind._slots),)
        know(to_snake_case(cls.__name__), layout)
        registered(cls)

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
        decoupled = dialect != "torch" or standard_name(self.kind) in _DECOUPLED
        super().__init__(self.rule_of(settings), rate, DecoupledDecay if decoupled else L2, **options)
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
        return {} if dialect == "keras" else _spoken(cls.kind, dialect, cls.parameters)

    def rule_of(self, settings: Settings) -> Rule:
        """The rule that the settings mean."""
        return self._rule(self.kind, settings, {name: settings[name] for name in self.own})

    def _rule(self, kind: type[Rule], settings: Settings, values: Settings) -> Rule:
        """A rule in the settings' dialect, with these values."""
        spoken = DIALECTS[settings["dialect"]].get(standard_name(kind), {})
        return kind(**{**spoken, **{_FIELDS.get(name, name): value for name, value in values.items()}})

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


def _spoken(kind: type[Rule], dialect: str, names: Iterable[str]) -> dict[str, Any]:
    """What a dialect means by a rule's parameters of these names, as far as it says."""
    values = {f.name: f.default for f in fields(kind)} | DIALECTS[dialect].get(standard_name(kind), {})
    found = {name: values.get(_FIELDS.get(name, name)) for name in names}
    return {name: value for name, value in found.items() if value is not None and value is not MISSING}


class SGD(Named, twin=keras.optimizers.SGD):
    """Gradient descent, with momentum and Nesterov's look-ahead. See `keras.optimizers.SGD`."""

    kind = rules.SGD
    layout = ({"b": "momentum"},)

    def rule_of(self, settings: Settings) -> Rule:
        """SGD, Momentum or Nesterov, as the settings ask."""
        if not settings["momentum"]:
            return self._rule(rules.SGD, settings, {})
        kind = rules.Nesterov if settings["nesterov"] else rules.Momentum
        return self._rule(kind, settings, {"momentum": settings["momentum"]})


class Adagrad(Named, twin=keras.optimizers.Adagrad):
    """A rate that falls with the sum of squared gradients. See `keras.optimizers.Adagrad`."""

    kind = rules.Adagrad
    layout = ({"s": "accumulator"},)


class RMSprop(Named, twin=keras.optimizers.RMSprop):
    """A rate from the running mean of squares. See `keras.optimizers.RMSprop`."""

    kind = rules.RMSprop
    layout = ({"v": "velocity"}, {"b": "momentum"}, {"mean": "average_gradient"})

    def rule_of(self, settings: Settings) -> Rule:
        """RMSprop, plain, centered or with momentum."""
        values = {name: settings[name] for name in ("rho", "epsilon", "centered")}
        return self._rule(self.kind, settings, {**values, "momentum": settings["momentum"] or None})


class Adadelta(Named, twin=keras.optimizers.Adadelta):
    """A rate from the running size of its own steps. See `keras.optimizers.Adadelta`."""

    kind = rules.Adadelta
    layout = ({"v": "accumulated_grad", "u": "accumulated_delta_var"},)


class Adam(Named, twin=keras.optimizers.Adam):
    """Momentum over a running RMS, both bias-corrected. See `keras.optimizers.Adam`."""

    kind = rules.Adam
    layout = ({"m": "momentum", "v": "velocity"}, {"v_max": "velocity_hat"})

    def rule_of(self, settings: Settings) -> Rule:
        """Adam or AMSGrad."""
        values = {name: settings[name] for name in ("beta_1", "beta_2", "epsilon")}
        return self._rule(rules.AMSGrad if settings["amsgrad"] else self.kind, settings, values)


class AdamW(Adam, twin=keras.optimizers.AdamW):
    """Adam with decoupled weight decay. See `keras.optimizers.AdamW`."""

    kind = rules.AdamW


class Adamax(Named, twin=keras.optimizers.Adamax):
    """Adam with the largest recent gradient as divisor. See `keras.optimizers.Adamax`."""

    kind = rules.AdaMax
    layout = ({"m": "momentum", "u": "norm"},)


class Nadam(Named, twin=keras.optimizers.Nadam, schedule_decay=None):
    """Adam that looks ahead. See `keras.optimizers.Nadam`.

    `schedule_decay` of older Keras says how fast the momentum warms up; it was 0.004 there, and is 1 now.
    """

    kind = rules.Nadam
    layout = ({"m": "momentum", "v": "velocity"},)

    def rule_of(self, settings: Settings) -> Rule:
        """Nadam."""
        values = {name: settings[name] for name in ("beta_1", "beta_2", "epsilon")}
        if settings["schedule_decay"] is not None:
            values["psi"] = settings["schedule_decay"]
        return self._rule(self.kind, settings, values)


class Lion(Named, twin=keras.optimizers.Lion):
    """The sign of an interpolated momentum. See `keras.optimizers.Lion`."""

    kind = rules.Lion
    layout = ({"m": "momentum"},)


_classes: dict[type[Rule], type[Named]] = {
    kind.kind: kind for kind in (SGD, Adagrad, RMSprop, Adadelta, Adam, AdamW, Adamax, Nadam, Lion)
}


def _class_name(rule: type[Rule]) -> str:
    """What Keras knows the optimizer of a rule by: the rule's class, unless it was registered otherwise."""
    name = name_of(rule)
    return rule.__name__ if name == rule.__name__.lower() else name


def class_of(rule: type[Rule]) -> type[Named]:
    """The optimizer of a rule: Keras's namesake, or one made of the rule's own fields."""
    if rule not in _classes:
        members = {"kind": rule, "__doc__": rule.__doc__}
        _classes[rule] = type(_class_name(rule), (Named,), members)
    return _classes[rule]
