"""An update rule, traced: what is computed once a step, once a tensor, and once an entry.

Tracing calls a rule's `update` once, with symbols. What depends only on hyperparameters and the
step number becomes **scalar lines**, done once a step on the host in float64; what depends also on
a tensor's norm, **tensor lines**; everything else, **element lines**. A slot whose next value
depends on scalars alone (Nadam's product of momenta) is one number, not an array.
"""

import operator
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import FrameType
from typing import Any, Literal

from thalweg.hyperparameters import Hyperparameter
from thalweg.printing import Line, latex, to_python, unicode
from thalweg.rule import Rule
from thalweg.sources import cpu_source
from thalweg.symbols import OPERATIONS, Expr, apply, intern, is_number, symbol, walk

# On the host, division and powers are calls that follow IEEE 754, as they do in an array: no exception.
_HOST = ("div", "pow")

# Names that kernels are written with, besides those of operations.
_SOURCE_NAMES = ("float32", "float64", "kernel", "run", "stream")

Stage = Literal["scalar", "tensor", "element"]
STAGES: tuple[Stage, ...] = ("scalar", "tensor", "element")

# The stage of each input; hyperparameters and scalar slots are scalars, other slots elements.
_INPUT_STAGE: dict[str, Stage] = {
    "t": "scalar",
    "global_norm": "scalar",
    "norm": "tensor",
    "g": "element",
    "p": "element",
}


@dataclass(frozen=True, eq=False)
class Program:
    """What one step of a rule computes.

    Attributes:
        rule: the rule traced; only its form and its name matter.
        scalars: lines done once a step.
        tensors: lines done once a tensor.
        elements: lines done once an entry.
        step: the step to subtract: an expression over lines and inputs.
        slots: arrays of state: the name of each and the expression of its next value.
        scalar_slots: likewise for state that is one number for all entries.
        formulas: the rule as written, for print: lines in the order of the paper.
        formulas_step: the step, over `formulas`.
    """

    rule: Rule
    scalars: tuple[Line, ...]
    tensors: tuple[Line, ...]
    elements: tuple[Line, ...]
    step: Any
    slots: Mapping[str, Any]
    scalar_slots: Mapping[str, Any]
    formulas: tuple[Line, ...]
    formulas_step: Any

    @property
    def hyperparameters(self) -> Mapping[str, Hyperparameter]:
        """The hyperparameters that scalar lines read."""
        return self.rule.hyperparameters

    @cached_property
    def kernel_scalars(self) -> tuple[str, ...]:
        """The scalars that tensor and element lines read, in the order in which kernels take them."""
        stage = dict.fromkeys((line.name for line in self.scalars), True)
        stage |= dict.fromkeys((*self.hyperparameters, *self.scalar_slots, "t", "global_norm"), True)
        roots = [line.value for line in (*self.tensors, *self.elements)]
        used = [e.name for e in walk(*roots, self.step, *self.slots.values()) if e.op == "symbol"]
        return tuple(dict.fromkeys(name for name in used if name in stage))

    @cached_property
    def scalar_function(self) -> Callable[..., tuple[tuple[float, ...], tuple[float, ...]]]:
        """Compute the scalar lines in float64.

        Called with `t`, `global_norm`, the scalar slots and every hyperparameter by keyword; returns
        the values of `kernel_scalars`, then the next values of the scalar slots.
        """
        return self._compiled("scalars", self.scalar_source, OPERATIONS)

    def array_function(self, namespace: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
        """One step over whole arrays, for a library that compiles or differentiates on its own.

        Args:
            namespace: the library's functions by the names that `thalweg.ops` has; arithmetic is left to
                the operators of its arrays, but for what stands here ("mul"). What depends on numbers alone
                is computed as numbers.

        Returns:
            a function to be called by keyword with `t`, `g`, `p`, `norm`, `global_norm`, every slot and
            every hyperparameter, each an array or a number; it returns the step to subtract, then the
            slots' next values in the order of `slots`, then those of `scalar_slots`.
        """
        lines = (*self.scalars, *self.tensors, *self.elements)
        results = (self.step, *self.slots.values(), *self.scalar_slots.values())
        return self._on_arrays("step", lines, results, namespace)

    def formula_function(self, namespace: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
        """What each formula comes to over whole arrays: called as what `array_function` returns."""
        values = [symbol(line.name) for line in self.formulas]
        return self._on_arrays("formulas", self.formulas, values, namespace)

    def _on_arrays(
        self, name: str, lines: Iterable[Line], results: Iterable[Any], namespace: Mapping[str, Any]
    ) -> Callable[..., Any]:
        arguments = ("t", "g", "p", "norm", "global_norm", *self.slots, *self.scalar_slots)
        head = f"def {name}(*, {', '.join((*arguments, *self.hyperparameters))}):"
        calls = (*_HOST, *namespace)
        body = [f"    {line.name} = {to_python(line.value, functions=calls)}" for line in lines]
        out = "".join(f"{to_python(value, functions=calls)}, " for value in results)
        source = "\n".join([head, *body, f"    return ({out})", ""])
        return self._compiled(name, source, {op: _on_arrays(op, namespace.get(op)) for op in OPERATIONS})

    def _compiled(self, name: str, source: str, functions: Mapping[str, Any]) -> Callable[..., Any]:
        namespace = dict(functions)
        exec(compile(source, f"<{name} of {self.rule.name}>", "exec"), namespace)
        return namespace[name]  # type: ignore[no-any-return]

    def scalars_at(
        self, t: int, rule: Rule, state: Mapping[str, float], global_norm: float = 0.0
    ) -> tuple[tuple[float, ...], dict[str, float]]:
        """What the kernel is told at step `t` (from 1), and the scalar slots' next values.

        Args:
            t: number of the step, from 1.
            rule: one of this program's form; its hyperparameters are used.
            state: the scalar slots' values.
            global_norm: norm of the model's gradient, where the rule asks for it.
        """
        kernel, new = self.scalar_function(t=t, global_norm=global_norm, **state, **rule.values_at(t))
        return kernel, dict(zip(self.scalar_slots, new, strict=True))

    @cached_property
    def scalar_source(self) -> str:
        """Source of the function that computes the scalar lines."""
        arguments = ", ".join(("t", "global_norm", *self.scalar_slots, *self.hyperparameters))
        lines = [f"    {line.name} = {to_python(line.value, functions=_HOST)}" for line in self.scalars]
        out = ", ".join(self.kernel_scalars) + ("," if self.kernel_scalars else "")
        new = "".join(f"{to_python(value, functions=_HOST)}, " for value in self.scalar_slots.values())
        return "\n".join([f"def scalars({arguments}, **_):", *lines, f"    return ({out}), ({new})", ""])

    def bytes_per_entry(self, itemsize: int = 4) -> int:
        """Bytes that one step must move for each entry: p and slots read and written, g read."""
        return itemsize * (3 + 2 * len(self.slots))

    @cached_property
    def operations(self) -> Counter[str]:
        """Arithmetic operations for each entry, by name; the subtraction from p included."""
        roots = [line.value for line in self.elements]
        counted = Counter(e.op for e in walk(*roots, self.step, *self.slots.values()) if e.op != "symbol")
        return counted + Counter(sub=1)

    def latex(self) -> str:
        """The rule as an `aligned` block of LaTeX."""
        return latex(self.formulas, self.formulas_step, (*self.slots, *self.scalar_slots), self.symbols)

    def unicode(self) -> str:
        """The rule as lines of text for a terminal."""
        return unicode(self.formulas, self.formulas_step, (*self.slots, *self.scalar_slots), self.symbols)

    @property
    def symbols(self) -> dict[str, str]:
        """The LaTeX symbol of each hyperparameter; two that share one are told apart by their names."""
        uses = Counter(h.symbol for h in self.hyperparameters.values())
        words = {name: name.replace("_", r"\_") for name in self.hyperparameters}
        return {
            name: rf"{h.symbol}_{{\mathrm{{{words[name]}}}}}" if uses[h.symbol] > 1 else h.symbol
            for name, h in self.hyperparameters.items()
        }

    def source(self, dtype: str = "float32") -> str:
        """Source of the CPU kernel for parameters, gradients and state of one dtype."""
        return cpu_source(self, (dtype,) * (2 + len(self.slots)))

    def __str__(self) -> str:
        def show(title: str, lines: Iterable[str]) -> str:
            return "\n".join([f"{title}:", *(f"    {line}" for line in lines)])

        parts = [
            show(f"{stage} lines", [f"{ln.name} = {to_python(ln.value)}" for ln in lines])
            for stage, lines in zip(STAGES, (self.scalars, self.tensors, self.elements), strict=True)
            if lines
        ]
        writes = [f"p -= {to_python(self.step)}"]
        writes += [f"{n} = {to_python(v)}" for n, v in {**self.slots, **self.scalar_slots}.items()]
        return "\n".join([f"{self.rule.name}", *parts, show("writes", writes)])

    def _repr_latex_(self) -> str:
        return f"$${self.latex()}$$"


def _on_arrays(name: str, function: Callable[..., Any] | None) -> Callable[..., Any]:
    """An operation that is the library's for arrays, and for numbers the host's."""
    on_numbers = OPERATIONS[name]
    on_arrays = function or getattr(operator, {"div": "truediv"}.get(name, name), None)

    def operation(*args: Any) -> Any:
        if all(isinstance(a, int | float) for a in args):
            return on_numbers(*args)
        if on_arrays is None:
            raise TypeError(f"the library brings no {name}")
        return on_arrays(*args)

    return operation


def trace(rule: Rule) -> Program:
    """The Program of a rule. Rules of one form share one.

    Raises:
        TypeError: `update` branches on a symbol, or returns the wrong number of slots.
    """
    program = _programs.get(rule.form)
    if program is None:
        program = _programs[rule.form] = _trace(rule)
    return program


_programs: dict[Any, Program] = {}


def _trace(rule: Rule) -> Program:
    symbols = {name: symbol(name) for name in ("t", "g", "p", "norm", "global_norm")}
    slots = {name: symbol(name) for name in rule.slots}
    symbolic = rule.with_values({name: symbol(name) for name in rule.hyperparameters})
    (step, new), names = _with_names(symbolic, lambda: symbolic.advance(**symbols, state=slots))
    # A slot that this form never reads and never changes is not part of it.
    read = {e.name for e in walk(step, *(v for k, v in new.items() if v is not slots[k])) if e.op == "symbol"}
    new = {k: v for k, v in new.items() if v is not slots[k] or k in read}

    scalar = _scalar_slots(new)
    stage = _Stages(frozenset((*rule.hyperparameters, *scalar)))
    taken = {*symbols, *slots, *rule.hyperparameters}
    roots = [step, *new.values()]
    fast = _Rewriter(stage)
    step_fast, *new_fast = (fast(root) for root in roots)
    lines, (step_ref, *new_refs) = _schedule(
        [step_fast, *new_fast], stage, {fast(e): n for e, n in names.items()}, taken
    )
    writes = dict(zip(new, new_refs, strict=True))
    formulas, (formulas_step, *formula_refs) = _schedule(roots, None, names, taken)
    shown = [line for line, _ in formulas]
    for slot, value in zip(new, formula_refs, strict=True):
        if not any(line.name == f"{slot}_new" for line in shown):  # returned without a name, or under another
            shown.append(Line(f"{slot}_new", value))
    return Program(
        rule=rule,
        scalars=tuple(ln for ln, st in lines if st == "scalar"),
        tensors=tuple(ln for ln, st in lines if st == "tensor"),
        elements=tuple(ln for ln, st in lines if st == "element"),
        step=step_ref,
        slots={k: v for k, v in writes.items() if k not in scalar},
        scalar_slots={k: v for k, v in writes.items() if k in scalar},
        formulas=tuple(shown),
        formulas_step=formulas_step,
    )


def _with_names(rule: Rule, call: Callable[[], Any]) -> tuple[Any, dict[Expr, str]]:
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


def _scalar_slots(new: Mapping[str, Any]) -> frozenset[str]:
    """The slots whose next value depends on scalars alone: suppose all, drop until it holds."""
    scalar = set(new)
    while True:
        fixed = {
            name
            for name in scalar
            if not any(
                e.op == "symbol"
                and (e.name in ("g", "p", "norm") or (e.name in new and e.name not in scalar))
                for e in walk(new[name])
            )
        }
        if fixed == scalar:
            return frozenset(scalar)
        scalar = fixed


class _Stages:
    """The stage at which an expression is known."""

    def __init__(self, scalars: frozenset[str]) -> None:
        self.scalars = scalars
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
            return "scalar" if e.name in self.scalars else _INPUT_STAGE.get(e.name, "element")
        return max((self(a) for a in e.args), key=STAGES.index)


class _Rewriter:
    """Moves work from elements to scalars: factors gather, division by a scalar multiplies.

    Each rewriting changes a result by a rounding at most.
    """

    def __init__(self, stage: _Stages) -> None:
        self.stage = stage
        self.done: dict[Expr, Any] = {}

    def __call__(self, x: Any) -> Any:
        for e in walk(x):
            if e not in self.done:
                args = tuple(self.done[a] if isinstance(a, Expr) else a for a in e.args)
                self.done[e] = self._rewrite(e.op, args) if e.args else e
        return self.done[x] if isinstance(x, Expr) else x

    def _early(self, x: Any) -> bool:
        return self.stage(x) != "element"

    def _rewrite(self, op: str, args: tuple[Any, ...]) -> Any:
        match op, args:
            case ("div", (a, b)) if self._early(b) and not self._early(a):
                return self._rewrite("mul", (a, apply("div", 1.0, b)))
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
    stage = _Stages(frozenset(constants))
    fast = _Rewriter(stage)
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
