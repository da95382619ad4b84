"""`check_rule`: every registered rule keeps every promise, and a rule that breaks one is told which."""

import pytest

import thalweg
from thalweg import (
    L2,
    Adam,
    ClipByGlobalNorm,
    ClipByNorm,
    DecoupledDecay,
    Rule,
    Scalar,
    chain,
    hyper,
    schedules,
)
from thalweg.ops import abs
from thalweg.testing import check_rule


@pytest.mark.parametrize("dialect", ["paper", "keras"])
@pytest.mark.parametrize("name", thalweg.rules())
def test_registered_rules_keep_every_promise(name, dialect):
    check_rule(thalweg.get(name, dialect=dialect))


@pytest.mark.parametrize(
    "rule",
    [
        thalweg.RMSprop(momentum=0.9, centered=True),
        chain(ClipByNorm(1.0), L2(0.1), DecoupledDecay(0.1), Adam()),
        chain(ClipByGlobalNorm(1.0), thalweg.Nadam(lr=schedules.WarmUp(5, schedules.Cosine(0.1, 100)))),
    ],
    ids=["forms", "treatments", "schedules"],
)
def test_forms_treatments_and_schedules_too(rule):
    check_rule(rule)


def test_what_is_no_rule_is_refused():
    with pytest.raises(TypeError, match="takes a rule"):
        check_rule("adam")


class Uphill(Rule):
    lr: Scalar = 0.1

    def update(self, t, g):
        return -self.lr * g


class Unnamed(Rule):
    gamma: Scalar = 0.5

    def update(self, t, g):
        return self.gamma * g


class ZeroByZero(Rule):
    lr: Scalar = 0.1

    def update(self, t, g):
        return self.lr * g / abs(g)


class OutOfRange(Rule):
    gamma: Scalar = hyper(0.5, symbol="c", meaning="a share", low=0, high=1, search=(0.5, 2.0))

    def update(self, t, g):
        return self.gamma * g


class Unwritten(Rule):
    lr: Scalar = 0.1

    def update(self, g, m=0):
        m_new = 0.9 * m + g
        return self.lr * m_new, m


class Untouched(Rule):
    lr: Scalar = 0.1

    def update(self, g, m=0):
        return self.lr * g, m


class Still(Rule):
    lr: Scalar = 0.1

    def update(self, g, m=0):
        return self.lr * m, m


@pytest.mark.parametrize(
    ("rule", "promise"),
    [
        (
            Unwritten(),
            "^unwritten: The state changes with the steps. m stays as it is: return its next value",
        ),
        (Untouched(), "m stays as it is: return its next value or leave it out"),
        (Still(), "m stays as it is: return its next value"),
        (Uphill(), "lead downhill"),
        (Unnamed(), "gamma has no meaning"),
        (OutOfRange(), r"search range of gamma ends outside \[0, 1\]"),
        (ZeroByZero(), "stay finite"),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Rule) else "",
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")
def test_a_broken_promise_is_named(rule, promise):
    with pytest.raises(AssertionError, match=promise):
        check_rule(rule)
