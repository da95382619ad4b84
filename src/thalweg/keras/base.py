"""One Keras optimizer for every rule, on the operations of any back end.

Keras's own machinery stays in charge: iterations, learning rates, gradient accumulation, averages of
weights, distribution. What is replaced is the step; clipping and weight decay are part of it, as
treatments of the rule.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import keras
from keras import ops

from thalweg.errors import UnknownHyperparameterError
from thalweg.keras.loading import check_state
from thalweg.keras.scheduled import NAMESPACE, is_traced, learning_rate, value_at
from thalweg.program.tracing import Program, trace
from thalweg.rule import Rule
from thalweg.treatments import ClipByGlobalNorm, ClipByNorm, ClipByValue, Treatment, chain

# Keras's keywords that every optimizer takes besides the learning rate, in Keras's order.
OPTIONS: dict[str, Any] = {
    "weight_decay": None,
    "clipnorm": None,
    "clipvalue": None,
    "global_clipnorm": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
    "name": None,
}
# The hyperparameters that are zero for a variable which weight decay spares.
DECAYS = ("weight_decay", "l2")
_TREATED_BY = ("weight_decay", "clipnorm", "clipvalue", "global_clipnorm")


# What weight decay is, at a given strength.
Decay = Callable[[float], Treatment]


@dataclass
class Own:
    """What an optimizer keeps besides Keras's own attributes, out of the sight of Keras's tracking.

    Attributes:
        rule: the rule without the treatments that Keras's options ask for.
        decay: what weight decay does where the rule has none of its own.
        settings: the settings that `treated` was made from.
        treated: the rule within its treatments.
        slots: the variables of each slot, one for each trainable variable (None where it has none).
        scalars: the variable of each slot that is one number.
        moment: what all variables share during one step.
        plans: what the torch back end prepared.
        lock: held during a step there: what is prepared for one is not for another thread's.
        named: the settings of an optimizer that has a rule's name.
    """

    rule: Rule
    decay: Decay
    settings: tuple[Any, ...] = ()
    treated: Rule | None = None
    slots: dict[str, list[Any]] = field(default_factory=dict)
    scalars: dict[str, Any] = field(default_factory=dict)
    moment: "Moment | None" = None
    plans: dict[Any, Any] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock)
    named: dict[str, Any] = field(default_factory=dict)


@dataclass
class Moment:
    """One step: numbers or tensors of no dimension.

    Attributes:
        program: what is computed.
        t: number of the step, from 1.
        values: the hyperparameters.
        scalars: the scalar slots.
        norms: by the index of each variable what its norms were taken with, and these.
        whole: the norms of the model that the program asks for.
    """

    program: Program
    t: Any
    values: dict[str, Any]
    scalars: dict[str, Any]
    norms: dict[int, dict[str, Any]] = field(default_factory=dict)
    whole: dict[str, Any] = field(default_factory=dict)


class ArrayOptimizer(keras.optimizers.Optimizer):  # type: ignore[misc]
    """A rule as a Keras optimizer whose step is made of the back end's operations.

    Attributes:
        layout: the slots in the order of their variables: of the groups one after the other; within a
            group, variable by variable. Each slot with its variables' name. Where it is empty, all slots
            are one group under their own names.
    """

    layout: ClassVar[Sequence[Mapping[str, str]]] = ()

    def __init__(self, rule: Rule, rate: Any, decay: Decay, /, **options: Any) -> None:
        for option in options:
            if option not in OPTIONS:
                known = ("learning_rate", *OPTIONS)
                raise UnknownHyperparameterError(type(self).__name__, option, known)
        if rate is None:
            rate = rule.values.get("lr", 1.0)
        if "lr" in rule.values:  # the learning rate is Keras's from here on; a number is checked once
            rule = rule.replaced(lr=0.0 if callable(rate) else rate)
        super().__init__(learning_rate=learning_rate(rate), **options)
        self._own = Own(rule, decay)

    @property
    def rule(self) -> Rule:
        """The rule, without what Keras's options add; `learning_rate` holds its learning rate."""
        return self._own.rule

    @property
    def lr(self) -> Any:
        """`learning_rate`, by its name in older Keras."""
        return self.learning_rate

    @lr.setter
    def lr(self, rate: Any) -> None:
        self.learning_rate = rate

    def _replace(self, rule: Rule) -> None:
        """Go on with another rule of the same form."""
        if self.built and trace(rule) is not trace(self._own.rule):
            raise ValueError(
                f"{type(self).__name__}: this changes the form of the rule, which is settled once the "
                "optimizer has state; make a new optimizer"
            )
        self._own.rule = rule

    def _treated(self) -> Rule:
        """The rule within the treatments that Keras's options ask for."""
        own = self._own
        settings = (own.rule, *(getattr(self, option) for option in _TREATED_BY))
        if own.treated is None or settings != own.settings:
            own.settings, own.treated = settings, self._around(own.rule)
            own.plans.clear()
        return own.treated

    def _around(self, rule: Rule) -> Rule:
        links: list[Treatment] = []
        if self.clipnorm:
            links.append(ClipByNorm(self.clipnorm))
        elif self.global_clipnorm:
            links.append(ClipByGlobalNorm(self.global_clipnorm))
        elif self.clipvalue:
            links.append(ClipByValue(self.clipvalue))
        if self.weight_decay is not None:
            if "weight_decay" in rule.hyperparameters:
                rule = rule.replaced(weight_decay=self.weight_decay)
            else:
                links.append(self._own.decay(self.weight_decay))
        return chain(*links, rule)

    # -- variables -------------------------------------------------------------------------------

    def build(self, variables: Sequence[Any]) -> None:
        """Create the variables of the optimizer's state."""
        if self.built:
            return
        super().build(variables)
        own = self._own
        program, initial = trace(own.rule), own.rule.initial_state()
        for group in self.layout or [{slot: slot for slot in program.slots}]:
            slots = {slot: name for slot, name in group.items() if slot in program.slots}
            if slots:
                start = [_full(initial[slot]) for slot in slots]
                found = self.add_optimizer_variables(variables, list(slots.values()), start)
                own.slots.update(zip(slots, found, strict=True))
        dtype = keras.backend.standardize_dtype(variables[0].dtype) if variables else keras.config.floatx()
        for slot in program.scalar_slots:
            own.scalars[slot] = self.add_variable(
                (), _full(initial[slot]), dtype, "only_first_replica", name=slot
            )

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Let these variables, or those in whose name one of these words occurs, not decay."""
        super().exclude_from_weight_decay(var_list, var_names)
        self._own.plans.clear()

    # -- the step --------------------------------------------------------------------------------

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Take one step; none where the rule skips gradients that are not finite and one is."""
        if not self._own.rule.guarded:
            super().apply(grads, trainable_variables)
            return
        grads = list(grads)
        finite = ops.all(ops.stack([ops.all(ops.isfinite(_dense(g))) for g in grads if g is not None]))
        if not is_traced(finite):
            if finite:
                super().apply(grads, trainable_variables)
            return
        if not self.built:
            with keras.name_scope(self.name, caller=self):
                self.build(list(trainable_variables))
        variables = [*self._trainable_variables, *self.variables]
        before = [ops.copy(ops.convert_to_tensor(v)) for v in variables]
        super().apply(grads, trainable_variables)
        for v, old in zip(variables, before, strict=True):
            v.assign(ops.where(finite, ops.convert_to_tensor(v), old))

    def _clip_gradients(self, grads: Any) -> Any:
        return grads  # the rule's treatments do

    def _apply_weight_decay(self, variables: Any) -> None:
        pass  # the rule's treatments do

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        own, rule = self._own, self._treated()
        program = trace(rule)
        grads = [_dense(g) for g in grads]
        if program.norms and getattr(self, "_distribution_strategy", None) is not None:
            replicas = self._distribution_strategy.num_replicas_in_sync
            if replicas > 1:
                raise ValueError(
                    f"{type(self).__name__}: what takes a norm needs the whole gradient, which none of "
                    f"{replicas} replicas has; clip by value instead, or train on one replica"
                )
        t = ops.convert_to_tensor(self.iterations) + 1
        values = {k: value_at(v, t) if callable(v) else v for k, v in rule.values.items()}
        own.moment = Moment(
            program,
            t,
            {**values, "lr": learning_rate} if "lr" in values else values,
            {slot: ops.convert_to_tensor(v) for slot, v in own.scalars.items()},
        )
        if program.norms:
            self._measure(grads, trainable_variables)
        super()._backend_update_step(grads, trainable_variables, learning_rate)
        if own.scalars:
            nothing = dict.fromkeys(("g", "p", *program.slots, *program.tensor_norms), 0.0)
            first = next(iter(own.scalars.values()))
            given = self._given(_wide_name(first.dtype), **nothing)
            new = _function(program)(**given)[1 + len(program.slots) :]
            for variable, value in zip(own.scalars.values(), new, strict=True):
                self.assign(variable, value)
        own.moment = None

    def _measure(self, grads: Sequence[Any], variables: Sequence[Any]) -> None:
        """Take the norms that the rule asks for."""
        moment = self._own.moment
        assert moment is not None
        for g, variable in zip(grads, variables, strict=True):
            wide = _wide_name(variable.dtype)
            given = self._given(wide, g=ops.cast(g, wide), p=ops.cast(variable, wide))
            moment.norms[self._get_variable_index(variable)] = given | self._spared(variable)
        moment.whole = _norms(moment.program)([*moment.norms.values()])

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable and its slots."""
        own, dtype = self._own, keras.backend.standardize_dtype(variable.dtype)
        index, wide = self._get_variable_index(variable), _wide_name(dtype)
        slots = {slot: of_slot[index] for slot, of_slot in own.slots.items()}
        arrays = {name: ops.cast(x, wide) for name, x in {"g": gradient, "p": variable, **slots}.items()}
        assert own.moment is not None
        program = own.moment.program
        arrays |= {name: own.moment.norms[index][name] for name in program.tensor_norms}
        step, *new = _function(program)(**self._given(wide, **arrays) | self._spared(variable))
        if wide == dtype:
            self.assign_sub(variable, step)
        else:
            self.assign(variable, arrays["p"] - step)
        for slot, value in zip(program.slots, new, strict=False):
            self.assign(slots[slot], value)

    def _given(self, dtype: str, **arrays: Any) -> dict[str, Any]:
        """What the program is called with, in floats of one type."""
        moment = self._own.moment
        assert moment is not None
        shared = {"t": moment.t, **moment.whole, **moment.scalars, **moment.values}
        return {k: x if _is_number(x) else ops.cast(x, dtype) for k, x in shared.items()} | arrays

    def _spared(self, variable: Any) -> dict[str, float]:
        """No decay for a variable that is excluded from it."""
        decays = [name for name in DECAYS if name in self._treated().hyperparameters]
        return dict.fromkeys(decays, 0.0) if decays and not self._use_weight_decay(variable) else {}

    # -- state -----------------------------------------------------------------------------------

    def load_own_variables(self, store: Any) -> None:
        """Load what `save_own_variables` of this optimizer or of its Keras namesake wrote.

        Raises:
            ValueError: it does not fit; nothing has been changed.
        """
        stored, without_slots = len(store.keys()), 1 + isinstance(self._learning_rate, keras.Variable)
        if stored != len(self.variables) and (not self.built or stored <= without_slots):
            super().load_own_variables(store)  # one of the two has no state yet: Keras warns, and goes on
            return
        check_state(self, store)
        for i, variable in enumerate(self.variables):
            variable.assign(store[str(i)])

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set the values of all of the optimizer's variables.

        Raises:
            ValueError: they are too few, too many, or of other shapes, or there are none yet; nothing has
                been changed.
        """
        if self.built:
            check_state(self, {str(i): w for i, w in enumerate(weights)})
        super().set_weights(weights)


@cache
def _function(program: Program) -> Any:
    return program.array_function(NAMESPACE)


@cache
def _norms(program: Program) -> Any:
    return program.array_norms(NAMESPACE)


def _dense(grad: Any) -> Any:
    """A gradient as a tensor, in which a row that was not touched is zero."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.convert_to_tensor(grad)
    if getattr(grad, "is_sparse", False):  # torch's
        return grad.to_dense()
    return ops.convert_to_tensor(grad, sparse=False)


def _full(value: float) -> Callable[..., Any]:
    """An initializer; Keras's own rounds to float32 on TensorFlow."""
    return lambda shape, dtype: ops.full(shape, value, dtype)


def _wide_name(dtype: Any) -> str:
    name: str = keras.backend.standardize_dtype(dtype)
    return "float32" if name in ("float16", "bfloat16") else name


def _wide(x: Any) -> Any:
    return ops.cast(x, _wide_name(x.dtype))


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float)
