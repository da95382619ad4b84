"""An update rule, traced: what is computed once a step, once a tensor, and once an entry.

Tracing calls a rule's `update` once, with symbols. A norm ends a sweep over the entries, since what
follows depends on all of them: first come the norms, in the order in which they need one another, and
then the step. A slot whose next value depends on scalars alone (Nadam's product of momenta) is one
number, not an array.
"""

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import FrameType
from typing import Any, Literal, Protocol, Self, TypeAlias, runtime_checkable

from thalweg.errors import no_rule
from thalweg.hyperparameters import Hyperparameter
from thalweg.program.printing import LATEX, PYTHON, UNICODE, Notation
from thalweg.program.simplify import without
from thalweg.program.sweeps import NormSweep, StepSweep, Sweep, free_names, function_on_arrays
from thalweg.program.symbols import (
    NORMS,
    OPERATIONS,
    Expr,
    Line,
    Rewriter,
    apply,
    intern,
    is_number,
    symbol,
    walk,
)

Stage = Literal["scalar", "tensor", "element"]
STAGES: tuple[Stage, ...] = ("scalar", "tensor", "element")

# Over some of a model's tensors, the sum of the squares of what a norm is taken of; keeps each tensor's norm
# where it is read later. Called with the norm and the norms of the model that are known by now.
SumOfSquares: TypeAlias = Callable[[NormSweep, Mapping[str, Any]], Any]


@runtime_checkable
class Traceable(Protocol):
    """What is asked of a rule to trace it: `thalweg.rule.Rule` has it, which this module need not import."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def form(self) -> tuple[Any, ...]:
        """What is settled before tracing; rules of one form have one Program."""

    @property
    def hyperparameters(self) -> Mapping[str, Hyperparameter]:
        """What each hyperparameter in use means, by name."""

    @property
    def values(self) -> Mapping[str, Any]:
        """Each hyperparameter's number or schedule, by name."""

    @property
    def slots(self) -> Mapping[str, float | str]:
        """The state slots, by name."""

    @property
    def guarded(self) -> bool:
        """Whether a step with a gradient that is not finite is skipped whole."""

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """The same with other values of the hyperparameters, symbols among them."""

    def values_at(self, t: int) -> Mapping[str, float]:
        """Each hyperparameter's number at a step."""

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """The formula, whose local variables lend their names to lines."""

    def compute(self, t: Any, g: Any, p: Any, state: Mapping[str, Any], norm: Any, global_norm: Any) -> Any:
        """The step to subtract, and each slot's next value."""


@dataclass(frozen=True, eq=False)
class Program(StepSweep):
    """What one step of a rule computes: the norms that it asks for, then the step itself.

    Attributes:
        hyperparameters: those that scalar lines read.
        norms: what is measured before the step, in this order.
        guard: which norm of the model, that of its gradient, must be finite for a step to be taken.
        formulas: the rule as written, for print: lines in the order of the paper.
        formulas_step: the step, over `formulas`.
    """

    hyperparameters: Mapping[str, Hyperparameter]
    norms: tuple[NormSweep, ...]
    guard: str | None
    formulas: tuple[Line, ...]
    formulas_step: Any

    @cached_property
    def needs_p(self) -> bool:
        """Whether the step depends on the parameters."""
        return any("p" in sweep.reads for sweep in (*self.norms, self))

    def measure(self, sums: Sequence[SumOfSquares], sqrt: Callable[[Any], Any] = math.sqrt) -> dict[str, Any]:
        """The norms of the model that the step asks for, by name.

        Args:
            sums: what computes the sum of squares over some of the tensors; together over all of them.
            sqrt: the square root of a sum of squares.
        """
        model_norms: dict[str, Any] = {}
        for norm in self.norms:
            squares = sum(of_some(norm, model_norms) for of_some in sums)
            if norm.of_model:
                model_norms[norm.of_model] = sqrt(squares)
        return model_norms

    def array_norms(
        self, namespace: Mapping[str, Callable[..., Any]]
    ) -> Callable[[Sequence[dict[str, Any]]], dict[str, Any]]:
        """The norms over whole arrays, for a library that compiles or differentiates on its own.

        Args:
            namespace: as for `array_function`, and `sum_of_squares` of an array's entries.

        Returns:
            a function of the model's tensors, each as what `array_function` returns is called with. It puts
            each tensor's norms among these, and returns those of the model.
        """
        functions = {norm: norm.array_function(namespace) for norm in self.norms}
        sqrt, sum_of_squares = namespace["sqrt"], namespace["sum_of_squares"]

        def norms(tensors: Sequence[dict[str, Any]]) -> dict[str, Any]:
            def sum_over_all(norm: NormSweep, model_norms: Mapping[str, Any]) -> Any:
                squares = [sum_of_squares(*functions[norm](**{**given, **model_norms})) for given in tensors]
                if norm.of_tensor:
                    for given, square in zip(tensors, squares, strict=True):
                        given[norm.of_tensor] = sqrt(square)
                return sum(squares)

            return self.measure([sum_over_all], sqrt)

        return norms

    def formula_function(self, namespace: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
        """What each formula comes to over whole arrays: called as what `array_function` returns.

        Args:
            namespace: as for `array_function`, and `norm` and `global_norm` of an array.
        """
        values = [symbol(line.name) for line in self.formulas]
        return function_on_arrays("formulas", self.formulas, values, namespace)

    def scalars_at(
        self, t: int, rule: Traceable, state: Mapping[str, float], norms: Mapping[str, float] | None = None
    ) -> tuple[tuple[float, ...], dict[str, float]]:
        """The values of `kernel_scalars` at step `t` (from 1), and the scalar slots' next values.

        Args:
            t: number of the step, from 1.
            rule: one of this program's form; its hyperparameters are used.
            state: the scalar slots' values.
            norms: the norms of the model, as `measure` returns them.
        """
        kernel, new = self.scalar_function(t=t, **state, **rule.values_at(t), **(norms or {}))
        return kernel, dict(zip(self.scalar_slots, new, strict=True))

    def bytes_per_entry(self, itemsize: int = 4) -> int:
        """Bytes that one step must move for each entry: p and slots read and written, g read, and what
        norms are taken of.
        """
        measured = sum(name in norm.reads for norm in self.norms for name in ("g", "p"))
        return itemsize * (3 + 2 * len(self.slots) + measured)

    def latex(self, rule: Traceable | None = None) -> str:
        """The rule as an `aligned` block of LaTeX.

        Args:
            rule: one of this program's form; what does nothing at its settings is left out. By default the
                formula of all rules of the form.
        """
        return self._formula(LATEX, rule)

    def unicode(self, rule: Traceable | None = None) -> str:
        """The rule as lines of text for a terminal.

        Args:
            rule: see `latex`.
        """
        return self._formula(UNICODE, rule)

    def _formula(self, notation: Notation, rule: Traceable | None) -> str:
        lines, step = self.formulas_of(rule) if rule else (self.formulas, self.formulas_step)
        return notation.formulas(lines, step, (*self.slots, *self.scalar_slots), self.symbols)

    def formulas_of(self, rule: Traceable) -> tuple[tuple[Line, ...], Any]:
        """The `formulas` without what does nothing at the settings of a rule of this form, and their step."""
        kept = [f"{slot}_new" for slot in (*self.slots, *self.scalar_slots)]
        return without(_zeros(rule), self.formulas, self.formulas_step, kept)

    def left_out(self, rule: Traceable) -> list[str]:
        """The hyperparameters of 0 that stand in the `formulas` and not in those of the rule."""
        lines, step = self.formulas_of(rule)
        gone = {*free_names(self.formulas, [self.formulas_step])} - {*free_names(lines, [step])}
        return [name for name in _zeros(rule) if name in gone]

    @property
    def symbols(self) -> dict[str, str]:
        """The LaTeX symbol of each hyperparameter; two that share one are distinguished by their names."""
        uses = Counter(h.symbol for h in self.hyperparameters.values())
        escaped = {name: name.replace("_", r"\_") for name in self.hyperparameters}
        return {
            name: rf"{h.symbol}_{{\mathrm{{{escaped[name]}}}}}" if uses[h.symbol] > 1 else h.symbol
            for name, h in self.hyperparameters.items()
        }

    def __str__(self) -> str:
        def show(title: str, lines: Iterable[str]) -> str:
            return "\n".join([f"{title}:", *(f"    {line}" for line in lines)])

        def lines_of(sweep: Sweep) -> list[str]:
            return [
                show(f"{stage} lines", [f"{ln.name} = {PYTHON.write(ln.value)}" for ln in lines])
                for stage, lines in zip(STAGES, (sweep.scalars, sweep.tensors, sweep.elements), strict=True)
                if lines
            ]

        paragraphs = [self.name]
        for norm in self.norms:
            names = " and ".join(
                f"{name}, of {what}"
                for name, what in ((norm.of_tensor, "each tensor"), (norm.of_model, "the model"))
                if name
            )
            paragraphs += [*lines_of(norm), show("norm", [f"{names} = ‖{PYTHON.write(norm.value)}‖"])]
        writes = [f"p -= {PYTHON.write(self.step)}"]
        writes += [f"{n} = {PYTHON.write(v)}" for n, v in {**self.slots, **self.scalar_slots}.items()]
        return "\n".join([*paragraphs, *lines_of(self), show("writes", writes)])

    def _repr_latex_(self) -> str:
        return f"$${self.latex()}$$"


def _zeros(rule: Traceable) -> list[str]:
    return [name for name, value in rule.values.items() if not callable(value) and float(value) == 0]


def trace(rule: Traceable) -> Program:
    """The Program of a rule. Rules of one form share one.

    Raises:
        TypeError: `rule` is not a rule, or its `update` branches on a symbol or returns the wrong number of
            slots.
    """
    program = _programs.get(getattr(rule, "form", None))
    if program is None:
        if isinstance(rule, type) or not isinstance(rule, Traceable):
            raise no_rule("trace", rule)
        program = _programs[rule.form] = _trace(rule)
    return program


_programs: dict[Any, Program] = {}


def _trace(rule: Traceable) -> Program:
    inputs = {name: symbol(name) for name in ("t", "g", "p")}
    slots = {name: symbol(name) for name in rule.slots}
    symbolic = rule.with_values({name: symbol(name) for name in rule.hyperparameters})
    norm, global_norm = map(_norm, NORMS)
    (step, new), names = _with_names(
        symbolic, lambda: symbolic.compute(**inputs, state=slots, norm=norm, global_norm=global_norm)
    )
    # A slot that this form never reads and never changes is not part of it.
    read = {e.name for e in walk(step, *(v for k, v in new.items() if v is not slots[k])) if e.op == "symbol"}
    new = {k: v for k, v in new.items() if v is not slots[k] or k in read}

    measured = _Norms({*inputs, *slots, *rule.hyperparameters})
    roots = [measured(root) for root in (step, *new.values())]
    guard = measured(global_norm(inputs["g"])).name if rule.guarded else None
    of_tensors, of_model = ([found[op] for found in measured.found.values() if op in found] for op in NORMS)
    value_of = dict(zip(new, roots[1:], strict=True))
    scalar = _scalar_slots(value_of, {"g", "p", *of_tensors})
    stage = _Stages({"t", *rule.hyperparameters, *scalar, *of_model}, of_tensors)
    fast = _Hoisted(stage)
    called = {fast(measured.done[e]): name for e, name in names.items() if e in measured.done}
    taken = measured.taken | {*NORMS}

    def sweep(roots: list[Any], scalar_roots: list[Any]) -> tuple[dict[str, Any], list[Any]]:
        """The lines of a sweep, and each root over them."""
        lines, refs = _schedule([fast(root) for root in roots + scalar_roots], stage, called, taken)
        scalars, tensors, elements = (tuple(ln for ln, at in lines if at == wanted) for wanted in STAGES)
        known = {*stage.scalars, *(line.name for line in scalars)}
        passed = [x for x in free_names((*tensors, *elements), refs[: len(roots)]) if x in known]
        made = {"scalars": scalars, "tensors": tensors, "elements": elements, "kernel_scalars": tuple(passed)}
        return made, refs

    norms: list[NormSweep] = []
    for argument, found in measured.found.items():
        if stage(argument) != "element":
            raise TypeError(
                f"{rule.name}: norm and global_norm take what has a value for each entry, such as g; "
                f"{PYTHON.write(argument)} is one number"
            )
        lines, (value,) = sweep([argument], [])
        known = tuple(n.of_tensor for n in norms if n.of_tensor)
        norms.append(
            NormSweep(
                **lines,
                tensor_norms=known,
                value=value,
                of_tensor=found.get(NORMS[0]),
                of_model=found.get(NORMS[1]),
            )
        )
    arrays = {name: value for name, value in value_of.items() if name not in scalar}
    numbers = {name: value for name, value in value_of.items() if name in scalar}
    lines, (step_ref, *refs) = sweep([roots[0], *arrays.values()], [*numbers.values()])
    writes = dict(zip((*arrays, *numbers), refs, strict=True))

    formulas, formulas_step = _as_written(step, new, names, taken)
    return Program(
        **lines,
        tensor_norms=tuple(of_tensors),
        name=rule.name,
        hyperparameters=rule.hyperparameters,
        norms=tuple(norms),
        guard=guard,
        step=step_ref,
        slots={name: writes[name] for name in arrays},
        scalar_slots={name: writes[name] for name in numbers},
        formulas=formulas,
        formulas_step=formulas_step,
    )


def _as_written(
    step: Any, new: Mapping[str, Any], names: Mapping[Expr, str], taken: set[str]
) -> tuple[tuple[Line, ...], Any]:
    """The rule as it is written: a line for each name that `update` gives and for each slot; then the step.

    Args:
        step: the step to subtract.
        new: each slot's next value.
        names: what `update` calls its intermediate results.
        taken: names in use.
    """
    given = {e: name for e, name in names.items() if e.op not in NORMS}
    found, (step, *values) = _schedule([step, *new.values()], None, given, taken)
    lines = {line.name: line for line, _ in found}
    for slot, value in zip(new, values, strict=True):  # it may be returned without a name, or under another
        lines.setdefault(f"{slot}_new", Line(f"{slot}_new", value))
    return tuple(lines.values()), step


def _norm(op: str) -> Callable[[Any], Expr]:
    """What a rule is given to take norms with while it is traced."""

    def norm(g: Any) -> Expr:
        if not isinstance(g, Expr):
            raise TypeError(
                f"norm and global_norm take what has a value for each entry, such as g; got {g!r}"
            )
        return intern(op, g.args if g.op == "neg" else (g,))

    return norm


class _Norms(Rewriter):
    """Puts a symbol in place of each norm.

    Attributes:
        taken: names in use.
        found: for each expression that a norm is taken of, the symbols' names by the kind of the norm.
    """

    def __init__(self, taken: set[str]) -> None:
        super().__init__()
        self.taken = taken
        self.found: dict[Expr, dict[str, str]] = {}

    def rewrite(self, op: str, args: tuple[Any, ...]) -> Any:
        """The symbol that stands for a norm; another operation as it is."""
        if op not in NORMS:
            return intern(op, args)
        names = self.found.setdefault(args[0], {})
        if op not in names:
            names[op] = _fresh(op, self.taken, False)
            self.taken.add(names[op])
        return symbol(names[op])


def _with_names(rule: Traceable, call: Callable[[], Any]) -> tuple[Any, dict[Expr, str]]:
    """What `call` returns, and what the rule's `update` calls its intermediate results.

    So kernels and formulas speak the rule's own language. A profile hook sees the local variables of
    `update` as it returns; it is set in a thread of its own, where it meets no one else's profiler.
    """
    from concurrent.futures import ThreadPoolExecutor  # here: importing thalweg stays quick

    codes = {type(r).update.__code__ for r in (rule, getattr(rule, "rule", rule))}
    names: dict[Expr, str] = {}

    def hook(frame: FrameType, event: str, _: Any) -> None:
        if event == "return" and frame.f_code in codes:
            for name, value in frame.f_locals.items():
                if isinstance(value, Expr) and value.op != "symbol":
                    names.setdefault(value, name)

    def watched() -> Any:
        sys.setprofile(hook)
        return call()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(watched).result(), names


def _scalar_slots(new: Mapping[str, Any], varying: set[str]) -> frozenset[str]:
    """The slots whose next value depends on scalars alone: suppose all, drop until it holds.

    Args:
        new: each slot's next value.
        varying: what differs between tensors or entries.
    """
    scalar = set(new)
    while True:
        fixed = {
            name
            for name in scalar
            if not any(
                e.op == "symbol" and (e.name in varying or (e.name in new and e.name not in scalar))
                for e in walk(new[name])
            )
        }
        if fixed == scalar:
            return frozenset(scalar)
        scalar = fixed


class _Stages:
    """The stage at which an expression is known.

    Args:
        scalars: the symbols of what is known once a step.
        tensors: the symbols of what is known once a tensor.
    """

    def __init__(self, scalars: Iterable[str], tensors: Iterable[str] = ()) -> None:
        self.scalars, self.tensors = frozenset(scalars), frozenset(tensors)
        self.known: dict[Expr, Stage] = {}

    def __call__(self, x: Any) -> Stage:
        if not isinstance(x, Expr):
            return "scalar"
        if x not in self.known:
            for e in walk(x):
                self.known[e] = self._of(e)
        return self.known[x]

    def _of(self, e: Expr) -> Stage:
        if e.op == "symbol":
            if e.name in self.scalars:
                return "scalar"
            return "tensor" if e.name in self.tensors else "element"
        return max((self(a) for a in e.args), key=STAGES.index)


class _Hoisted(Rewriter):
    """Work moved from elements to scalars: factors gather, division by a scalar multiplies.

    Each rewriting changes a result by a rounding at most.
    """

    def __init__(self, stage: _Stages) -> None:
        super().__init__()
        self.stage = stage

    def _early(self, x: Any) -> bool:
        return self.stage(x) != "element"

    def rewrite(self, op: str, args: tuple[Any, ...]) -> Any:
        """The operation, or one that comes to the same."""
        match op, args:
            case ("div", (a, b)) if self._early(b) and not self._early(a):
                return self.rewrite("mul", (a, apply("div", 1.0, b)))
            case ("div", (a, b)) if not self._early(b):
                factor, rest = self._split(a)
                if factor is not None and rest is not None:
                    return apply("div", apply("mul", rest, factor), b)
            case ("mul", (a, b)):
                (fa, ra), (fb, rb) = self._split(a), self._split(b)
                if ra is None or rb is None:  # one side is a scalar altogether
                    rest, factor = (rb if ra is None else ra), self._times(fa, fb)
                    return factor if rest is None else apply("mul", rest, factor)
            case ("pow", (a, b)) if not (isinstance(b, Expr) or self._early(a)) and b in _WHOLE:
                return _whole_power(a, int(b))
            case ("pow", (a, b)) if is_number(b, 0.5):
                return apply("sqrt", a)
        return apply(op, *args)

    def _split(self, x: Any) -> tuple[Any, Any]:
        """`x` as (scalar factor or None, element factor or None)."""
        if self._early(x):
            return x, None
        if x.op == "mul" and self._early(x.args[1]):
            return x.args[1], x.args[0]
        return None, x

    @staticmethod
    def _times(a: Any, b: Any) -> Any:
        if a is None or b is None:
            return b if a is None else a
        return apply("mul", a, b)


# Powers that are done by multiplying: at most six times.
_WHOLE = range(2, 17)


def _whole_power(a: Any, n: int) -> Any:
    if n == 1:
        return a
    root = _whole_power(a, n // 2)
    square = apply("mul", root, root)
    return apply("mul", square, a) if n % 2 else square


def in_lines(roots: Sequence[Any], constants: Iterable[str] = ()) -> tuple[list[Line], list[Any]]:
    """Expressions as lines in which nothing is computed twice, then each root over these lines.

    Args:
        roots: expressions, or numbers.
        constants: the symbols that stand for numbers; what depends on them alone has lines of its own.
    """
    stage = _Stages(constants)
    fast = _Hoisted(stage)
    taken = {e.name for e in walk(*roots) if e.op == "symbol"}
    lines, references = _schedule([fast(root) for root in roots], stage, {}, taken)
    return [line for line, _ in lines], references


def _schedule(
    roots: list[Any], stage: _Stages | None, names: Mapping[Any, str], taken: set[str]
) -> tuple[list[tuple[Line, Stage]], list[Any]]:
    """Order expressions into lines.

    A line of its own gets what the rule named and, where there are stages, what is used more than
    once and every scalar that an element line reads; the rest is written where it is used.
    """
    order = list(walk(*roots))
    uses = Counter(a for e in order for a in e.args if isinstance(a, Expr))
    crosses = {
        a
        for e in order
        for a in e.args
        if stage is not None and isinstance(a, Expr) and a.op != "symbol" and stage(a) != stage(e)
    }
    crosses |= {r for r in roots if isinstance(r, Expr) and stage is not None and stage(r) == "scalar"}
    lines: list[tuple[Line, Stage]] = []
    ref: dict[Expr, Any] = {}
    used = {*taken, *OPERATIONS}
    for e in order:
        if e.op == "symbol":
            ref[e] = e
            continue
        value = intern(e.op, tuple(ref[a] if isinstance(a, Expr) else a for a in e.args))
        if e in names or e in crosses or (stage is not None and uses[e] > 1):
            base = names.get(e)
            name = _fresh(base, used, base is not None and base in taken)
            used.add(name)
            lines.append((Line(name, value), stage(e) if stage else "element"))
            ref[e] = symbol(name)
        else:
            ref[e] = value
    return lines, [ref[r] if isinstance(r, Expr) else r for r in roots]


def _fresh(base: str | None, used: set[str], is_new_state: bool) -> str:
    base = base and base.strip("_")
    if base:
        name = f"{base}_new" if is_new_state else base
        if name not in used:
            return name
        base = name
    counter = 1
    stem = base or "x"
    while f"{stem}_{counter}" in used:
        counter += 1
    return f"{stem}_{counter}"
