"""Every rule has its own name in every front end, one of the user's too."""

import copy
import inspect
import pickle
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
import torch

import thalweg
import thalweg.jax
import thalweg.keras
import thalweg.numpy
import thalweg.torch
from helpers import copies, descend_torch, difference, gradients, parameters, train
from thalweg import Rule, Scalar, convert, registry
from thalweg.rules import RULES


@pytest.fixture
def mine() -> Iterator[type[Rule]]:
    """A registered rule of the user's."""

    class Mine(Rule):
        lr: Scalar = 0.1
        beta_1: Scalar = 0.8
        beta_2: Scalar = 0.5
        epsilon: Scalar = 1e-3
        twice: bool = False

        def update(self, t: Any, g: Any, m: Any = 0, v: Any = 0) -> Any:
            m = self.beta_1 * m + g
            v = self.beta_2 * v + abs(g)
            step = self.lr * m / (v + self.epsilon)
            return 2 * step if self.twice else step, m, v

    thalweg.register(Mine)
    yield Mine
    del registry._rules["Mine"]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("dialect", ["torch", "keras"])
def test_torch_has_every_rule_under_its_own_name(rule: type[Rule], dialect: str) -> None:
    kind = getattr(thalweg.torch, rule.__name__)
    params = parameters((3, 2))
    grads = gradients(params, 5)
    optimizer = kind(copies(params), dialect=dialect)
    wanted = thalweg.get(rule, dialect=dialect)
    own = optimizer.rule_of(optimizer.param_groups[0])
    if rule is not thalweg.AdamW:  # which is Adam and a decay in torch
        assert own == wanted
    (p,) = optimizer.param_groups[0]["params"]
    train(optimizer, [p], grads)
    assert difference(p, descend_torch(wanted, params[0], [g for (g,) in grads])) <= 1e-12
    assert pickle.loads(pickle.dumps(kind)) is kind
    again = copy.deepcopy(optimizer)
    again.load_state_dict(optimizer.state_dict())
    assert again.rule_of(again.param_groups[0]) == own


@pytest.mark.usefixtures("float64")
def test_torch_has_a_rule_of_the_users_in_its_words(mine: type[Rule]) -> None:
    kind: Any = thalweg.torch.Mine
    assert [*inspect.signature(kind).parameters] == [
        *("params", "lr", "betas", "eps", "twice"),
        *("weight_decay", "decoupled_weight_decay", "maximize", "dialect"),
    ]
    params = parameters((4,))
    grads = gradients(params, 6)
    (p,) = copies(params)
    optimizer = kind([p], lr=0.3, betas=(0.5, 0.25), twice=True, weight_decay=0.1)
    train(optimizer, [p], grads)
    rule = thalweg.chain(thalweg.L2(0.1), mine(0.3, 0.5, 0.25, twice=True))
    assert difference(p, descend_torch(rule, params[0], [g for (g,) in grads])) <= 1e-12
    assert {*optimizer.state_dict()["state"][0]} == {"step", "m", "v"}
    assert "Mine" in dir(thalweg.torch)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("dialect", ["optax", "keras"])
def test_jax_has_every_rule_under_its_own_name_in_lower_case(rule: type[Rule], dialect: str) -> None:
    wanted = thalweg.get(rule, dialect=dialect, lr=0.3)
    p = np.ones(3, np.float32)
    values = {"momentum": wanted.values["momentum"]} if rule in (thalweg.Momentum, thalweg.Nesterov) else {}
    states = [
        getattr(thalweg.jax, rule.__name__.lower())(0.3, dialect=dialect, **values).init(p),
        thalweg.jax.optimizer(wanted).init(p),
    ]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    assert all(np.array_equal(*leaves) for leaves in zip(*map(jax.tree.leaves, states), strict=True))


def test_jax_has_a_rule_of_the_users_in_its_words(mine: type[Rule]) -> None:
    made: Any = thalweg.jax.mine
    assert [*inspect.signature(made).parameters] == ["learning_rate", "b1", "b2", "eps", "twice", "dialect"]
    p, g = np.ones(3), np.full(3, 0.5)
    optimizer = made(lambda count: 0.1 * (count + 1), b1=0.25, twice=True)
    update, _ = optimizer.update(g, optimizer.init(p), p)
    np.testing.assert_allclose(update, -2 * 0.1 * 0.5 / (0.5 + 1e-3), rtol=1e-6)
    assert "mine" in dir(thalweg.jax)
    with pytest.raises(AttributeError, match="did you mean 'adam'"):
        thalweg.jax.Adam  # noqa: B018


def test_keras_has_a_rule_of_the_users(mine: type[Rule]) -> None:
    made: Any = thalweg.keras.Mine
    assert [*inspect.signature(made).parameters][:5] == [
        *("learning_rate", "beta_1", "beta_2", "epsilon", "twice")
    ]
    assert made(0.5, twice=True).rule == mine(0.5, twice=True)


def test_torchs_optimizers_take_torchs_words_alone() -> None:
    with pytest.raises(thalweg.UnknownHyperparameterError, match="did you mean 'betas'"):
        thalweg.torch.Adam([torch.zeros(1)], beta=0.9)
    assert issubclass(thalweg.torch.AdamW, thalweg.torch.Adam), "as in torch"
    assert thalweg.torch.Adamax is thalweg.torch.AdaMax
    assert thalweg.torch.NAdam is thalweg.torch.Nadam
    with pytest.raises(AttributeError, match="did you mean 'Adam'"):
        thalweg.torch.Adamm  # noqa: B018


def test_numpy_has_every_rule_and_one_of_the_users(mine: type[Rule]) -> None:
    for rule in (*RULES, mine):
        kind = getattr(thalweg.numpy, rule.__name__)
        assert (kind().rule, kind.__name__, kind.__module__) == (rule(), rule.__name__, "thalweg.numpy")
        assert pickle.loads(pickle.dumps(kind)) is kind


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("told", ["optimizer", "rule"])
@pytest.mark.parametrize("name", ["AMSGrad", "Momentum", "Mine"])
def test_conversion_reads_torchs_optimizers_of_a_rules_own_name(
    name: str, told: str, mine: type[Rule]
) -> None:
    params = parameters((3, 2))
    grads = gradients(params, 8)
    (p,) = copies(params)
    optimizer = getattr(thalweg.torch, name)([("w", p)], lr=0.1)
    train(optimizer, [p], grads[:4])
    given = optimizer if told == "optimizer" else optimizer.state_dict()
    rule = {"rule": name.lower()} if told == "rule" else {}
    moved = convert.state(given, source="thalweg.torch", target="thalweg.numpy", **rule)
    assert (moved.rule, moved.step) == (optimizer.rule_of(optimizer.param_groups[0]), 4)
    w, ours = {"w": p.detach().numpy().copy()}, moved.optimizer()
    for (g,) in grads[4:]:
        ours.update(w, {"w": g.numpy()})
    train(optimizer, [p], grads[4:])
    assert difference(w["w"], p) <= 1e-12
