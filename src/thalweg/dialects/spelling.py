"""A framework's name for a rule, and what follows from it, both ways: settings to rule, rule to settings."""

import ast
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from typing import Any, TypeAlias

from thalweg.rule import Rule
from thalweg.treatments import DecoupledDecay, Treatment

Settings: TypeAlias = Mapping[str, Any]
# The rule's field that an argument sets; several where the argument is a tuple, such as torch's `betas`.
Meant: TypeAlias = str | tuple[str, ...]

NOTHING: Any = inspect.Parameter.empty
DECOUPLED = "decoupled_weight_decay"  # torch's argument that says what its weight decay is


def parsed(call: str) -> tuple[str, inspect.Signature]:
    """The name and the signature of a function, from how its documentation shows it."""
    definition = ast.parse(f"def {call}: ...").body[0]
    assert isinstance(definition, ast.FunctionDef)
    given = definition.args
    defaults = [None] * (len(given.args) - len(given.defaults)) + [*given.defaults]
    parameters = [
        inspect.Parameter(a.arg, kind, default=NOTHING if d is None else ast.literal_eval(d))
        for kind, several, values in (
            (inspect.Parameter.POSITIONAL_OR_KEYWORD, given.args, defaults),
            (inspect.Parameter.KEYWORD_ONLY, given.kwonlyargs, given.kw_defaults),
        )
        for a, d in zip(several, values, strict=True)
    ]
    return definition.name, inspect.Signature(parameters)


@dataclass(frozen=True)
class Spelling:
    """One rule as one framework has it.

    Attributes:
        rule: ours.
        name: of the framework's class or function.
        signature: what it takes, and its defaults.
        choice: the settings that choose this rule where several have one name: True or False for what counts
            as such, None for what is not given, ... for what is.
        slots: the framework's name for each slot, in the order in which it keeps them, and in the groups;
            "" is the number of steps taken, "-name" a slot that is kept negated.
        values: of fields that no argument sets, where they are not the rule's own defaults: how the
            framework's arithmetic differs.
        words: the arguments whose field has another name, beyond those of the whole framework.
        only: arguments for which the rule admits one value.
        decay: what the argument `weight_decay` means, where it is no field of the rule.
        of: the name whose settings these are, with `fixed`: torch's AdamW is an Adam.
        fixed: see `of`.
        native: whether the framework has it; if not, it is spelt as the framework would.
    """

    rule: type[Rule]
    name: str
    signature: inspect.Signature
    choice: Settings = field(default_factory=dict)
    slots: tuple[Mapping[str, str], ...] = ()
    values: Settings = field(default_factory=dict)
    words: Mapping[str, Meant] = field(default_factory=dict)
    only: Settings = field(default_factory=dict)
    decay: type[Treatment] | None = None
    of: str = ""
    fixed: Settings = field(default_factory=dict)
    native: bool = True

    @property
    def settings_of(self) -> str:
        """The name by whose settings the rule is chosen."""
        return self.of or self.name

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The framework's default for each argument that has one."""
        return {p.name: p.default for p in self.signature.parameters.values() if p.default is not NOTHING}

    @cached_property
    def arguments(self) -> dict[str, Meant]:
        """What each argument that sets a field of the rule sets."""
        known = {f.name for f in fields(self.rule)}
        found: dict[str, Meant] = {}
        for argument in self.signature.parameters:
            meant = self.words.get(argument, argument)
            if isinstance(meant, tuple):
                meant = tuple(name for name in meant if name in known)
            if meant and (isinstance(meant, tuple) or meant in known) and argument not in self.only:
                found[argument] = meant
        return found

    @cached_property
    def covered(self) -> set[str]:
        """The rule's fields that arguments set."""
        return {name for m in self.arguments.values() for name in (m if isinstance(m, tuple) else (m,))}

    @cached_property
    def dialect(self) -> dict[str, Any]:
        """The values by which the framework's own differ from the rule's defaults."""
        said = {k: v for k, v in self.defaults.items() if v is not None and k not in self.choice}
        found = {**self.values_of(said), **self.values}
        own = {f.name: f.default for f in fields(self.rule)}
        return {name: found[name] for name in own if name in found and found[name] != own[name]}

    @cached_property
    def unset(self) -> dict[str, Any]:
        """The value that each field has here that no argument sets."""
        own = {f.name: self.values.get(f.name, f.default) for f in fields(self.rule)}
        return {name: value for name, value in own.items() if name not in self.covered}

    def shown(self, place: str) -> str:
        """As documentation names it: what must be given stands bare, what chooses the rule with "="."""
        bare = [
            name
            for name, p in self.signature.parameters.items()
            if p.default is NOTHING or (p.default is None and self.arguments.get(name) == "lr")
        ]
        chosen = [
            f"{name}="
            for name, wanted in self.choice.items()
            if name not in bare and not _fits(wanted, self.defaults[name])
        ]
        return f"{place}.{self.name}" + (f"({', '.join(bare + chosen)})" if bare + chosen else "")

    def is_chosen(self, settings: Settings) -> bool:
        """Whether the settings choose this rule among those of its name."""
        return all(_fits(wanted, settings[name]) for name, wanted in self.choice.items())

    def fits(self, settings: Settings) -> bool:
        """Whether each tuple among the settings is as long as it is for this rule."""
        several = {k: m for k, m in self.arguments.items() if isinstance(m, tuple) and k in settings}
        return all(len(settings[k]) == len(m) for k, m in several.items())

    def values_of(self, settings: Settings) -> dict[str, Any]:
        """The rule's fields, from those of its arguments that are among the settings.

        Raises:
            ValueError: a tuple has another length.
        """
        found: dict[str, Any] = {}
        for argument, meant in self.arguments.items():
            if argument in settings:
                value = settings[argument]
                if isinstance(meant, tuple):
                    found.update(zip(meant, value, strict=True))
                else:
                    found[meant] = None if self._is_without(argument, meant, value) else value
        return found

    def settings_for(self, rule: Rule) -> dict[str, Any]:
        """The arguments under which this is the rule, but for what it may have in `unset`: see `missing`."""
        found: dict[str, Any] = {}
        for argument, wanted in self.choice.items():
            if argument in self.defaults and _fits(wanted, self.defaults[argument]):
                found[argument] = self.defaults[argument]
            elif isinstance(wanted, bool):
                found[argument] = wanted
        for argument, meant in self.arguments.items():
            if isinstance(meant, tuple):
                found[argument] = tuple(getattr(rule, name) for name in meant)
            else:
                value = getattr(rule, meant)
                found[argument] = self.defaults[argument] if self._is_none(meant) and value is None else value
        return found

    def missing(self, rule: Rule) -> dict[str, Any]:
        """The fields that keep `settings_for` from being exact, with their values here."""
        return {name: value for name, value in self.unset.items() if getattr(rule, name) != value}

    def _is_none(self, name: str) -> bool:
        return any(f.name == name and f.default is None for f in fields(self.rule))

    def _is_without(self, argument: str, name: str, value: Any) -> bool:
        """Whether a setting stands for None: a framework's default where the rule's is None."""
        default = self.defaults.get(argument, NOTHING)
        return self._is_none(name) and (value is None or (not default and value == default))


def _fits(wanted: Any, value: Any) -> bool:
    """Whether a setting is what chooses a rule; see `Spelling.choice`."""
    if wanted is None or wanted is ...:
        return (value is None) == (wanted is None)
    return bool(value) is wanted


@dataclass(frozen=True)
class Framework:
    """All rules as one framework has them.

    Attributes:
        name: such as "torch".
        place: the module of its optimizers.
        spellings: by rule, simplest first; where a rule has several, the usual one first.
        words: the arguments whose field has another name, in any rule.
        decay: what the option `weight_decay` is that every optimizer has; None where there is none.
        tail: what else an optimizer takes that is made of a rule's own fields: see `written`.
    """

    name: str
    place: str
    spellings: tuple[Spelling, ...]
    words: Mapping[str, Meant] = field(default_factory=dict)
    decay: type[Treatment] | None = None
    tail: str = ""

    @cached_property
    def native(self) -> dict[type[Rule], Spelling]:
        """How the framework itself has each rule that it has."""
        found: dict[type[Rule], Spelling] = {}
        for one in self.spellings:
            if one.native:
                found.setdefault(one.rule, one)
        return found

    @cached_property
    def known(self) -> dict[type[Rule], Spelling]:
        """As `native`, with the rules that are spelt as the framework would."""
        found: dict[type[Rule], Spelling] = {}
        for one in self.spellings:
            found.setdefault(one.rule, one)
        return found

    def named(self, name: str) -> list[Spelling]:
        """All that the class or function of a name may mean; empty where there is none."""
        return [one for one in self.spellings if one.name == name]

    def chosen(self, name: str, settings: Settings) -> Spelling:
        """What the class or function of a name means under all its settings."""
        return next(one for one in self.named(name) if one.is_chosen(settings))

    def decay_of(self, rule: type[Rule]) -> type[Treatment] | None:
        """What the option `weight_decay` is for a rule that has no field of this name."""
        one = self.known.get(rule)
        return DecoupledDecay if one and {**one.defaults, **one.fixed}.get(DECOUPLED) else self.decay

    @cached_property
    def fields(self) -> dict[str, Meant]:
        """What each argument that some rule has in this framework sets; the words of all rules win."""
        of_rules = {argument: meant for one in self.spellings for argument, meant in one.words.items()}
        return {**of_rules, **self.words}

    def arguments_for(self, rule: type[Rule], names: Iterable[str]) -> dict[str, str]:
        """The argument that alone sets each of these fields of a rule; a field without one keeps its name."""
        one = self.known.get(rule)
        found: dict[str, str] = {}
        for argument, meant in [*self.words.items(), *(one.arguments.items() if one else ())]:
            if isinstance(meant, str):
                found.setdefault(meant, argument)
        return {name: found.get(name, name) for name in names}

    def slots_for(self, rule: type[Rule], slots: Iterable[str]) -> dict[str, str]:
        """The name of each of these slots of a rule; one that is not kept as it is keeps its own."""
        groups = self.known[rule].slots if rule in self.known else ()
        words = {s: name for group in groups for s, name in group.items() if not name.startswith("-")}
        return {slot: words.get(slot, slot) for slot in slots}

    def written(self, rule: type[Rule], name: str = "") -> Spelling:
        """A rule under its own name: its fields are the arguments, in the framework's words.

        Args:
            rule: any, one of the user's included.
            name: other than its class's.
        """
        known = self.known.get(rule)
        words = {meant: argument for argument, meant in self.words.items() if isinstance(meant, str)}
        several = {f: (argument, m) for argument, m in self.words.items() if isinstance(m, tuple) for f in m}
        own = {f.name: f.default for f in fields(rule)} | (known.dialect if known and known.native else {})
        order = sorted(own, key=lambda f: (f != "lr", own[f] is not MISSING and f != "lr"))
        parameters: dict[str, Any] = {}
        for f in order:
            if f in several and sum(f in own for f in several[f][1]) > 1:
                argument, together = several[f]
                parameters[argument] = tuple(own[f] for f in together if f in own)
            else:
                parameters[words.get(f, f)] = NOTHING if own[f] is MISSING else own[f]
        made = [
            inspect.Parameter(k, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=v)
            for k, v in parameters.items()
        ]
        tail = parsed(f"_({self.tail})")[1].parameters.values()
        signature = inspect.Signature([*made, *(p for p in tail if p.name not in parameters)])
        slots = known.slots if known else ()
        return Spelling(rule, name or rule.__name__, signature, slots=slots, words=self.words, native=False)
