"""Tracing: what is computed once a step, and what once an entry."""

import math
import re
from collections import Counter
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import thalweg
from helpers import FORMS, difference
from thalweg import Program, Rule, Scalar, trace
from thalweg.eager import Driver, descend, numpy_functions
from thalweg.kernels.source import cpu_source
from thalweg.ops import exp, sqrt, where
from thalweg.program.printing import PYTHON
from thalweg.program.symbols import OPERATIONS, Expr, walk

forms = pytest.mark.parametrize("form", FORMS)


def element_work(program: Program) -> list[Expr]:
    """Every operation that is done once an entry."""
    roots = [line.value for line in program.elements]
    return [e for e in walk(*roots, program.step, *program.slots.values()) if e.op != "symbol"]


def run(program: Program, rule: Rule, p: float, grads: list[float]) -> float:
    """The program, line by line, on one entry."""
    state = rule.initial_state()
    slots = {k: state[k] for k in program.slots}
    scalar_slots = {k: state[k] for k in program.scalar_slots}
    for t, g in enumerate(grads, 1):
        kernel, new_scalars = program.scalars_at(t, rule, scalar_slots)
        known = {**OPERATIONS, **slots, **dict(zip(program.kernel_scalars, kernel, strict=True))}
        known |= {"p": p, "g": g}
        for line in (*program.tensors, *program.elements):
            known[line.name] = eval(PYTHON.write(line.value), known)
        p, slots = (
            p - eval(PYTHON.write(program.step), known),
            {k: eval(PYTHON.write(v), known) for k, v in program.slots.items()},
        )
        scalar_slots = new_scalars
    return p


def written(rule: Rule, p: float, grads: list[float]) -> float:
    """The rule as written, on one entry."""
    return float(descend(rule, np.float64(p), map(np.float64, grads)))


@given(data=st.data())
@forms
def test_a_program_computes_what_the_rule_says(form: str, data: Any) -> None:
    rule = FORMS[form]
    drawn = {}
    for name, about in rule.hyperparameters.items():
        low, high = about.search or (0.1, 0.9)
        drawn[name] = data.draw(
            st.floats(1 - high, 1 - low) if about.complement else st.floats(low, high), name
        )
        drawn[name] = 1 - drawn[name] if about.complement else drawn[name]
    rule = rule.replaced(**drawn)
    sizes = st.floats(0.1, 10.0) | st.floats(-10.0, -0.1)
    grads = data.draw(st.lists(sizes, min_size=1, max_size=8), "gradients")
    wanted = written(rule, 1.5, grads)
    assert run(trace(rule), rule, 1.5, grads) == pytest.approx(wanted, rel=1e-9)


@forms
def test_nothing_is_done_for_each_entry_that_could_be_done_once(form: str) -> None:
    program = trace(FORMS[form])
    scalars = {*program.kernel_scalars}
    for e in element_work(program):
        reads = {x.name for x in walk(e) if x.op == "symbol"}
        assert reads - scalars, f"{e!r} depends on scalars alone"


@forms
def test_scalar_lines_come_before_their_use(form: str) -> None:
    program = trace(FORMS[form])
    known = {*program.hyperparameters, *program.scalar_slots, "t"}
    for line in program.scalars:
        assert {x.name for x in walk(line.value) if x.op == "symbol"} <= known
        known.add(line.name)
    assert {*program.kernel_scalars} <= known


@forms
def test_rules_of_one_form_share_a_program(form: str) -> None:
    rule = FORMS[form]
    assert trace(rule) is trace(rule.replaced(lr=0.123))


def test_other_forms_have_other_programs() -> None:
    programs = [trace(rule) for rule in FORMS.values()]
    assert len({id(program) for program in programs}) == len(FORMS)


def test_adam_corrects_its_bias_once_a_step() -> None:
    program = trace(thalweg.Adam())
    work = Counter(e.op for e in element_work(program))
    assert (work["pow"], work["sqrt"], work["div"]) == (0, 1, 1)
    assert any("**" in PYTHON.write(line.value) for line in program.scalars)
    assert program.operations.total() <= 13


def test_scalar_lines_are_computed_in_float64() -> None:
    t = 3
    names = trace(thalweg.Adam()).kernel_scalars
    kernel, _ = trace(thalweg.Adam()).scalars_at(t, thalweg.Adam(), {})
    known = dict(zip(names, kernel, strict=True))
    assert 1 - 0.9 in known.values()
    assert any(
        math.isclose(x, 1 / (1 - 0.999**t), rel_tol=1e-15) or math.isclose(x, 1 - 0.999**t, rel_tol=1e-15)
        for x in kernel
    )


class Twice(Rule):
    lr: Scalar = 0.1
    squared: bool = True

    def update(self, g, m=0, unused=0):  # type: ignore[no-untyped-def]
        m = 0.5 * m + exp(g) * exp(g)
        return self.lr * 2 * 3 * (exp(g) if self.squared else m), m, unused


def test_what_is_written_twice_is_computed_once() -> None:
    assert trace(Twice()).operations["exp"] == 1


def test_constants_are_folded() -> None:
    class Folds(Rule):
        def update(self, g):  # type: ignore[no-untyped-def]
            return 2 * g * sqrt(4.0) * 0.5 + 0 * 2.0

    program = trace(Folds())
    assert (program.scalars, program.elements, program.kernel_scalars) == ((), (), ())
    assert PYTHON.write(program.step) in ("2 * g", "g * 2")


def test_a_slot_that_a_form_does_not_use_is_no_state() -> None:
    assert [*trace(thalweg.RMSprop()).slots] == ["v"]
    assert [*trace(thalweg.RMSprop(centered=True)).slots] == ["v", "mean"]
    assert [*trace(thalweg.RMSprop(momentum=0.9)).slots] == ["v", "b"]
    assert [*trace(Twice()).slots] == ["m"]


def test_a_slot_that_depends_on_scalars_alone_is_one_number() -> None:
    program = trace(thalweg.Nadam())
    assert [*program.slots] == ["m", "v"]
    assert [*program.scalar_slots] == ["mu_product"]
    rule, state = thalweg.Nadam(psi=0.5), {"mu_product": 1.0}
    wanted = 1.0
    for t in range(1, 4):
        _, state = program.scalars_at(t, rule, state)
        wanted *= 0.9 * (1 - 0.5 * 0.96 ** (0.5 * t))
        assert state["mu_product"] == pytest.approx(wanted, rel=1e-15)


def test_scalar_slots_that_lean_on_each_other_are_found() -> None:
    class Leans(Rule):
        def update(self, t, g, a=1, b=2, c=0, d=0):  # type: ignore[no-untyped-def]
            return g * a * c, b, a + t, c + d, d + g

    program = trace(Leans())
    assert {*program.scalar_slots} == {"a", "b"}
    assert {*program.slots} == {"c", "d"}


@pytest.mark.parametrize(
    ("rule", "float32", "half"),
    [
        (thalweg.SGD(), 12, 6),
        (thalweg.Momentum(), 20, 10),
        (thalweg.Adam(), 28, 14),
        (thalweg.Nadam(), 28, 14),
        (thalweg.AMSGrad(), 36, 18),
        (thalweg.Adan(), 44, 22),
        (thalweg.RMSprop(), 20, 10),
        (thalweg.RMSprop(centered=True, momentum=0.9), 36, 18),
    ],
    ids=lambda x: x.name if isinstance(x, Rule) else "",
)
def test_bytes_per_entry(rule: Rule, float32: int, half: int) -> None:
    assert trace(rule).bytes_per_entry() == float32
    assert trace(rule).bytes_per_entry(2) == half


@pytest.mark.parametrize(
    ("rule", "operations"),
    [
        (thalweg.SGD(), {"mul": 1, "sub": 1}),
        (thalweg.Nesterov(), {"mul": 3, "add": 2, "sub": 1}),
        (thalweg.Lion(), {"mul": 6, "add": 3, "sub": 1, "sign": 1}),
    ],
    ids=lambda x: x.name if isinstance(x, Rule) else "",
)
def test_operations_per_entry(rule: Rule, operations: dict[str, int]) -> None:
    assert trace(rule).operations == Counter(operations)


def test_lines_are_called_what_the_rule_calls_them() -> None:
    class Named(Rule):
        def update(self, g, p, m=0):  # type: ignore[no-untyped-def]
            pull = g + 0.1 * p
            m = 0.9 * m + pull
            return m * pull, m

    program = trace(Named())
    assert [line.name for line in program.elements] == ["pull", "m_new"]
    source = cpu_source(program)
    assert "pull = " in source
    assert re.search(r"store_m\(\w+, \w+, m_new\)", source)


def test_names_of_a_rule_never_meet_the_kernels_own() -> None:
    class Meets(Rule):
        lr: Scalar = 0.1
        c: Scalar = 0.5

        def update(self, g, k=0, rows=0):  # type: ignore[no-untyped-def]
            tensor = g * g
            chunks = tensor + k * self.c
            first = chunks * tensor
            row = first + rows
            at_p = row * row
            load_g = at_p + chunks
            _k = load_g * load_g
            _c = _k + load_g
            return self.lr * (_c + _k * _c), first, row

    check_on_arrays(Meets())


def test_names_of_a_rule_never_meet_functions() -> None:
    class Meets(Rule):
        float64: Scalar = 0.5

        def update(self, t, g, m=0):  # type: ignore[no-untyped-def]
            div, pow = self.float64**t / (1 - 0.25**t), exp(t * 0.1)
            sign = g * div
            float32 = m * m + sign * sign
            m = sqrt(float32)
            maximum = m + abs(sign)
            flush_subnormals = where(sign > 0, maximum * pow, -maximum * pow * div) + 0.5 * float32
            return flush_subnormals * self.float64, m

    check_on_arrays(Meets())


def check_on_arrays(rule: Rule) -> None:
    from thalweg.numpy import Optimizer

    found = np.linspace(-1, 1, 9)
    p, driver, optimizer = found.copy(), Driver(rule), Optimizer(rule)
    for t in (1, 2, 3):
        g = np.cos(found * t)
        p = p - driver.step(p, g)
        optimizer.update(found, g)
    np.testing.assert_allclose(found, p, rtol=1e-12)


def test_an_error_in_update_leaves_no_profiler_behind() -> None:
    import sys

    class Fails(Rule):
        def update(self, g):  # type: ignore[no-untyped-def]
            raise RuntimeError("from the rule")

    before = sys.getprofile()
    with pytest.raises(RuntimeError, match="from the rule"):
        trace(Fails())
    assert sys.getprofile() is before


@forms
def test_a_program_shows_itself(form: str) -> None:
    program = trace(FORMS[form])
    shown = str(program)
    assert shown.startswith(program.name)
    assert "p -= " in shown
    assert all(f"{slot} = " in shown for slot in (*program.slots, *program.scalar_slots))


@pytest.mark.parametrize("traced", [False, True], ids=["numbers", "arrays"])
@forms
def test_a_program_runs_on_whole_arrays(form: str, traced: bool) -> None:
    """`traced`: the step number and the hyperparameters are arrays too, as under a compiler's tracing."""
    rule = FORMS[form]
    program = trace(rule)
    step = program.array_function(numpy_functions())
    p, *grads = np.random.default_rng(0).standard_normal((21, 4))
    number = np.asarray if traced else float
    initial = rule.initial_state()
    state = {name: number(initial[name]) for name in (*program.slots, *program.scalar_slots)}
    found = p
    for t, g in enumerate(grads, 1):
        known = {name: number(value) for name, value in rule.values_at(t).items()}
        with np.errstate(all="ignore"):
            taken, *new = step(t=number(t), g=g, p=found, **state, **known)
        found, state = found - taken, dict(zip(state, new, strict=True))
    assert difference(found, descend(rule, p, grads)) <= 1e-12


def test_a_program_says_which_function_a_library_lacks() -> None:
    rule = thalweg.Lion()
    step = trace(rule).array_function({})
    with pytest.raises(TypeError, match="no sign"):
        step(t=1.0, g=np.ones(2), p=np.ones(2), m=0.0, **rule.values)
