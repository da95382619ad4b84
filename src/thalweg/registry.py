"""Rules by name."""

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from thalweg.dialects import spoken
from thalweg.errors import UnknownHyperparameterError, UnknownRuleError, nearest, no_attribute
from thalweg.hyperparameters import fold, spellings
from thalweg.rule import Rule
from thalweg.rules import RULES
from thalweg.treatments import TREATMENTS, Treatment

T = TypeVar("T")

# Further names of the built-in rules.
ALIASES = {
    "gd": "SGD",
    "gradient_descent": "SGD",
    "heavy_ball": "Momentum",
    "sgd_momentum": "Momentum",
    "nag": "Nesterov",
    "nesterov_momentum": "Nesterov",
    "adam_amsgrad": "AMSGrad",
}

# Rules by name: the built-in ones, then those that were registered.
_rules: dict[str, type[Rule]] = {kind.__name__: kind for kind in RULES}
_standard: dict[str, type] = {kind.__name__: kind for kind in (*RULES, *TREATMENTS)}


class Rules:
    """All rules that have a name: `rules()` lists these as `get` takes them; `rules.Adam` is one."""

    def __call__(self) -> list[str]:
        """Names of the built-in rules, then of those registered."""
        return [name.lower() for name in _rules]

    def __getattr__(self, name: str) -> type[Rule]:
        if name not in _rules:
            raise AttributeError(f"no rule is named {name!r}; {nearest(name, _rules)}")
        return _rules[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *_rules]


rules = Rules()


def register(rule: type[Rule], name: str | None = None) -> type[Rule]:
    """Give a rule of one's own a name, by which `get`, files and every front end know it from here on.

    Args:
        rule: the class.
        name: None: the class's own.

    Returns:
        the class, so that it may stand as a decorator.

    Raises:
        TypeError: `rule` is not a class of rules.
        ValueError: another rule has the name, or it has neither letters nor digits.
    """
    if not (isinstance(rule, type) and issubclass(rule, Rule) and rule is not Rule):
        raise TypeError(f"register takes a class of rules, such as class Mine(thalweg.Rule); got {rule!r}")
    name = rule.__name__ if name is None else name
    holder = _folded().get(fold(name))
    again = holder is not None and _place(holder) == _place(rule)  # the same class, defined anew
    if not fold(name) or ":" in name:
        raise ValueError(f"a rule's name is made of letters, digits and underscores, got {name!r}")
    if holder is not None and (not again or standard_name(holder)):
        raise ValueError(
            f"the name {name!r} is taken by {holder.__module__}.{holder.__qualname__}; give another, as "
            f'register({rule.__name__}, name="my_{name.lower()}")'
        )
    for known in [known for known in _rules if fold(known) == fold(name)]:
        del _rules[known]
    _rules[name] = rule
    return rule


def find(name: str | type[Rule], *, importing: bool = True) -> type[Rule]:
    """The rule of a name; capitals, underscores, hyphens and spaces make no difference.

    Args:
        name: of a built-in or registered rule; "module:Name" or "FILE.py:Name" of one's own; or a class,
            which is returned.
        importing: whether the module is imported; a name that stands in a file imports nothing.

    Raises:
        TypeError: `name` is neither.
        UnknownRuleError: no rule has the name; the message names the nearest.
    """
    if isinstance(name, type) and issubclass(name, Rule):
        return name
    if not isinstance(name, str):
        raise TypeError(
            f"{name!r} is a rule already: use it as it is"
            if isinstance(name, Rule)
            else f"a rule is named by a string, such as 'adam', or by its class; got {name!r}"
        )
    if ":" in name:
        try:
            return class_named(name, Rule, importing)
        except ValueError as error:
            raise UnknownRuleError(name, why=str(error)) from None
    known = _folded()
    if fold(name) not in known:
        own = next((kind for kind in _subclasses(Rule) if fold(kind.__name__) == fold(name)), None)
        why = (
            ""
            if own is None
            else (
                f"{_place(own)} is known by its place only: give the class or {_place(own)!r}, or call "
                f"thalweg.register({own.__name__}) first"
            )
        )
        raise UnknownRuleError(name, rules(), why)
    return known[fold(name)]


def front_end(
    module: str, names: Iterable[str], class_of: Callable[[type[Rule]], type[T]]
) -> tuple[Callable[[str], type[T]], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a front end's module, in which every rule has its own name.

    Args:
        module: its name.
        names: what else it has.
        class_of: its optimizer of a rule.
    """
    names = list(names)

    def listed() -> list[str]:
        return [*names, *(class_of(find(name)).__name__ for name in rules())]

    def attribute(name: str) -> type[T]:
        try:
            return class_of(find(name))
        except UnknownRuleError:
            raise no_attribute(module, name, listed()) from None

    return attribute, listed


def find_treatment(name: str) -> type[Treatment]:
    """The treatment that a file names; nothing is imported.

    Raises:
        ValueError: there is none.
    """
    if ":" in name:
        try:
            return class_named(name, Treatment, importing=False)
        except ValueError as error:
            raise ValueError(f"no treatment is named {name!r}; {error}") from None
    known = {kind.__name__: kind for kind in TREATMENTS}
    if name not in known:
        raise ValueError(f"no treatment is named {name!r}; {nearest(name, known)}")
    return known[name]


def name_of(kind: type[Rule] | type[Treatment]) -> str:
    """The name by which a rule or a treatment is found again: its own, or "module:Name"."""
    named = next((name.lower() for name, known in _rules.items() if known is kind), "")
    return named or standard_name(kind) or _place(kind)


def class_name(kind: type[Rule]) -> str:
    """What front ends call a rule's optimizer: as its class, unless it is registered otherwise."""
    name = name_of(kind)
    return kind.__name__ if name == kind.__name__.lower() or ":" in name else name


def standard_name(kind: type) -> str:
    """The name under which dialects, spellings and guides know a rule or a treatment; "" for one's own."""
    return kind.__name__ if _standard.get(kind.__name__) is kind else ""


def class_named(name: str, base: type[T], importing: bool) -> type[T]:
    """The class "module:Name" or, where it may be imported, "FILE.py:Name".

    Raises:
        ValueError: there is none, of that base.
    """
    place, _, path = name.rpartition(":")
    module = module_named(place) if importing else None
    found = [kind for kind in _subclasses(base) if _place(kind) == name]
    if found:
        return found[-1]  # of those that were defined there one after the other
    if module is None:
        raise ValueError(f"import {place} first, which defines it: a file imports nothing")
    own = {k: v for k, v in vars(module).items() if isinstance(v, type) and issubclass(v, base) and v != base}
    if path not in own:
        raise ValueError(f"{place} has no class {path!r} of {base.__name__}s; {nearest(path, own)}")
    return own[path]


def module_named(place: str) -> ModuleType:
    """A module by its name, or a file "FILE.py", run once: what is in it is one object whenever asked for.

    Raises:
        ValueError: it cannot be had.
    """
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        path = Path(place).absolute()
        name = f"thalweg_optimizers_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None, "a .py file"
            assert spec.loader is not None, "a .py file"
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            sys.modules[name] = module
        return sys.modules[name]
    except Exception as error:  # whatever the user's code may raise
        raise ValueError(f"{place} cannot be loaded: {type(error).__name__}: {error}") from None


def _place(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _subclasses(kind: type[T]) -> Iterator[type[T]]:
    for own in kind.__subclasses__():
        yield own
        yield from _subclasses(own)


def _folded() -> dict[str, type[Rule]]:
    """Every rule that has a name, by its names, folded."""
    aliases = {fold(alias): _rules[known] for alias, known in ALIASES.items()}
    return {fold(known): rule for known, rule in _rules.items()} | aliases


def get(name: str | type[Rule], *, dialect: str = "paper", **hyperparameters: Any) -> Rule:
    """A rule by name: `get("adam", lr=0.01)`, `get("NAdam", dialect="keras")`.

    Args:
        name: as in `rules()`, in any spelling ("ada_grad", "NAdam"); "module:Name" or "FILE.py:Name" of a
            rule of one's own, which is imported; or a class of rules.
        dialect: whose arithmetic and defaults: "paper", "torch", "keras", "tf1" or "optax".
        hyperparameters: values other than the dialect's; spellings such as `beta1`, `eps` and
            `learning_rate` are understood.

    Raises:
        UnknownRuleError, UnknownDialectError, UnknownHyperparameterError: naming the nearest name.
        TypeError, ValueError: a value of the wrong type, outside its range, or given twice.
    """
    rule = find(name)
    return rule(**{**spoken(dialect, rule), **spelled(rule, hyperparameters)})


def spelled(rule: type[Rule], hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters by the names that a rule has for them.

    Raises:
        UnknownHyperparameterError: it has none of such a name; the message names the nearest.
        TypeError: one is given twice.
    """
    known = [f.name for f in fields(rule)]
    chosen: dict[str, Any] = {}
    for given, value in hyperparameters.items():
        field = known_as(given, known)
        if field is None:
            raise UnknownHyperparameterError(rule.__name__, given, known)
        if field in chosen:
            raise TypeError(f"{rule.__name__}: {field} is given twice")
        chosen[field] = value
    return chosen


def known_as(name: str, known: Iterable[str]) -> str | None:
    """Which of the known names `name` is another spelling of, `SYNONYMS` included; None if of none."""
    return spellings(known).get(fold(name))


def meant_by(name: str, known: Iterable[str]) -> str | None:
    """Which of the known names is meant by another one: it, differently spelled or a slip of the pen away.

    A known name with further words is a name of its own: `weight_decay_scale` is no slip for `weight_decay`.

    Returns:
        the known name; None where `name` is not near any.
    """
    names = spellings(known)
    words = [fold(word) for word in name.split("_")]
    runs = {"".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
    for close in difflib.get_close_matches(fold(name), names, 5, 0.8):
        if close == fold(name) or close not in runs:
            return names[close]
    return None
