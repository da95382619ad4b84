import functools
import itertools
import math
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import thalweg
from thalweg import schedules
from thalweg.dialects import DIALECTS
from thalweg.study.contestant import Contestant, Range, schedule
from thalweg.study.errors import StudyError


class Halving(torch.optim.Optimizer):
    """An optimizer of the user's own."""

    def __init__(self, params, lr=0.5, boost=2.0, verbose=False):
        super().__init__(params, {"lr": lr, "boost": boost})

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data -= group["lr"] * group["boost"] * p.grad


def stepped(contestant, steps=1, total=None, **hyperparameters):
    """Where a parameter of three ones is after steps against a gradient of ones."""
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    optimizer = contestant.setting(hyperparameters, total, 8).torch([p])
    for _ in range(steps):
        optimizer.step()
    return p.data


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", thalweg.rules())
def test_every_rule_competes_in_every_dialect(name, dialect):
    found = Contestant(f"{name}@{dialect}")
    rule = thalweg.get(name, dialect=dialect)
    assert (found.name, found.dialect, found.rule) == (f"{name}@{dialect}", dialect, rule)
    assert found.defaults == rule.values
    assert found.space == {"lr": Range(*rule.hyperparameters["lr"].search, "log")}
    setting = found.setting({"lr": 0.0625}, None, 32)
    assert setting.rule() == thalweg.get(name, dialect=dialect, lr=0.0625)
    assert (setting.contestant, setting.batch_size) == (found.name, 32)


@pytest.mark.parametrize("name", thalweg.rules())
def test_every_described_hyperparameter_can_be_searched_by_its_name_alone(name):
    rule = thalweg.get(name)
    wanted = [key for key, about in rule.hyperparameters.items() if about.search]
    found = Contestant(name, space=wanted)
    assert [*found.space] == wanted
    for key, one in found.space.items():
        about = rule.hyperparameters[key]
        values = [one.at(share) for share in (0, 0.25, 0.5, 0.75, 1)]
        assert (values[0], values[-1]) == pytest.approx(about.search)
        assert values == sorted(values)
        assert all(about.admits(value) for value in values)
        towards = [1 - v for v in values] if about.complement else values
        ratios = [b / a for a, b in itertools.pairwise(towards)]
        assert ratios == pytest.approx([ratios[0]] * 4, rel=0.02), "evenly by the logarithm"


def test_a_space_is_given_in_code():
    space = {
        "lr": (1e-4, 1e-1),
        "beta_1": [0.8, 0.9, 0.95],
        "beta_2": None,
        "epsilon": Range(0.0, 1.0, "linear"),
    }
    found = Contestant("adam", space=space, fixed={"epsilon_hat": False}).space
    assert found["lr"] == Range(1e-4, 1e-1, "log")
    assert [found["beta_1"].at(share) for share in (0, 0.3, 0.34, 0.7, 0.99)] == [0.8, 0.8, 0.9, 0.95, 0.95]
    assert (found["beta_2"].low, found["beta_2"].high, found["beta_2"].scale) == (0.9, 0.9999, "complement")
    assert found["epsilon"].at(0.25) == 0.25


def test_what_is_fixed_is_everywhere_and_a_fixed_rate_is_the_only_one():
    found = Contestant("nadam", fixed={"lr": 0.03, "beta_1": 0.7})
    assert found.space["lr"].values == (0.03,)
    assert (found.defaults["lr"], found.defaults["beta_1"]) == (0.03, 0.7)
    assert found.setting({}, None, 1).rule() == thalweg.get("nadam", dialect="keras", lr=0.03, beta_1=0.7)


def test_one_that_is_absent_unless_given_can_be_searched_and_stays_absent_in_the_default():
    found = Contestant("rmsprop", space=["momentum"])
    assert found.space["momentum"].scale == "complement"
    assert "momentum" not in found.defaults
    assert found.setting({}, None, 1).rule().momentum is None
    assert found.setting({"momentum": 0.9}, None, 1).rule().momentum == 0.9


def test_rules_come_by_object_class_and_within_treatments():
    chained = thalweg.chain(thalweg.ClipByGlobalNorm(1.0), thalweg.Adam(lr=0.1))
    assert Contestant(thalweg.Lion(lr=0.02)).defaults["lr"] == 0.02
    assert Contestant(thalweg.Lion).rule == thalweg.Lion()
    found = Contestant(chained, name="clipped", space={"clip_global_norm": (0.1, 10.0)})
    assert found.space["clip_global_norm"].at(0.5) == 1
    rule = found.setting({"clip_global_norm": 0.5, "lr": 0.3}, None, 1).rule()
    assert (rule.values["clip_global_norm"], rule.values["lr"]) == (0.5, 0.3)
    assert found.identity != Contestant("adam").identity


def test_an_optimizer_of_the_users_own_competes():
    found = Contestant(Halving, space={"boost": (1.0, 4.0)})
    assert (found.name, found.dialect, found.rule) == ("Halving", "own", None)
    assert found.defaults == {"lr": 0.5, "boost": 2.0}
    assert found.setting({}, None, 1).rule() is None
    torch.testing.assert_close(stepped(found, lr=0.125, boost=4), torch.full((3,), 0.5))
    with pytest.raises(StudyError, match=r"Halving makes PyTorch optimizers"):
        found.setting({}, None, 1).keras()


def test_a_factory_follows_a_schedule_as_a_rule_does():
    own = Contestant(functools.partial(torch.optim.SGD, lr=0.1), schedule="warmup+linear")
    ours = Contestant("sgd@torch+warmup+linear")
    assert own.name == "SGD+warmup+linear"
    for steps in (1, 3, 39, 40):
        torch.testing.assert_close(stepped(own, steps, 40, lr=0.2), stepped(ours, steps, 40, lr=0.2))
    assert not torch.equal(stepped(own, 3, 40, lr=0.2), stepped(own, 3, None, lr=0.2)), "the schedule acts"


def test_keras_gets_the_same_rule():
    pytest.importorskip("keras")
    setting = Contestant("adam").setting({"lr": 0.01, "beta_1": 0.7}, 100, 32)
    assert setting.keras().rule.values == pytest.approx(setting.rule().values)
    scheduled = Contestant("adam+cosine").setting({"lr": 0.01}, 100, 32).keras()
    assert float(scheduled.learning_rate) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cosine", schedules.Cosine(0.3, 200)),
        ("linear", schedules.Polynomial(0.3, 200)),
        ("warmup", schedules.WarmUp(10, 0.3)),
        ("warmup+cosine", schedules.WarmUp(10, schedules.Cosine(0.3, 190))),
        ("warmup+linear", schedules.WarmUp(10, schedules.Polynomial(0.3, 190))),
        ("wsd", schedules.WarmUpStableDecay(0.3, 10, 150, 40)),
    ],
)
def test_a_schedule_is_scaled_to_the_trials_steps(name, expected):
    assert schedule(name, 0.3, 200) == expected
    for total in (1, 2, 3, 50):
        rates = [schedule(name, 0.3, total)(t) for t in range(1, total + 1)]
        assert all(0 <= rate <= 0.3 for rate in rates)
        assert rates[0] > 0
    found = Contestant(f"adam+{name}")
    assert (found.name, found.schedule) == (f"adam+{name}", name)
    assert found.setting({"lr": 0.3}, 200, 1).rule().lr == expected
    assert Contestant("adam", schedule=name).schedule == name


def test_the_order_of_a_schedules_parts_makes_no_other_schedule():
    assert Contestant("adam+cosine+warmup").name == "adam+warmup+cosine"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optimizer": "adam+cosin"}, r"no schedule is named 'cosin'; did you mean 'cosine'"),
        ({"optimizer": "adam+cosine+linear"}, "not a schedule: it is one of"),
        ({"optimizer": "adam+wsd+warmup"}, "which has a warm-up"),
        ({"optimizer": "adam+cosine", "schedule": "linear"}, "a second"),
        ({"optimizer": "admw"}, r"no rule is named 'admw'"),
        ({"optimizer": "adam@pytroch"}, r"no dialect is named 'pytroch'"),
        ({"optimizer": 3}, "an optimizer is"),
        ({"optimizer": "torch.optim:Adma"}, "did you mean 'Adamax'|did you mean 'Adam'"),
        ({"optimizer": "nowhere.py:Mine"}, r"nowhere\.py cannot be loaded: FileNotFoundError"),
        ({"optimizer": lambda params, lr: None}, "no default learning rate.*partial"),
        ({"optimizer": thalweg.Adam(lr=schedules.Cosine(0.1, 9))}, "its schedule given by name"),
        ({"space": {"lr": (-1.0, 1.0)}}, r"lr reaches -1; lr must lie in \[0, ∞\)"),
        ({"space": {"lr": (0.0, 1.0)}}, "logarithmic, so it begins above 0"),
        ({"space": {"lr": [0.1, math.nan]}}, "a list of numbers"),
        ({"space": {"lr": []}}, "a list of numbers"),
        ({"space": {"lr": (0.1, 0.2, 0.3)}}, "a tuple is"),
        ({"space": {"lr": (0.1, 0.1)}}, "must be below"),
        ({"space": {"beta_1": (0.5, 1.5)}}, r"beta_1 reaches 1.5; beta_1 must lie in \[0, 1\)"),
        ({"space": {"beta_1": [0.5, 1.5]}}, r"beta_1 reaches 1.5"),
        ({"space": {"beta1": None}}, "did you mean 'beta_1'"),
        ({"optimizer": "momentum", "space": ["dampening"]}, "dampening has no default"),
        ({"optimizer": "momentum", "space": {"momentum": (0.5, 1.0)}}, "it ends below 1"),
        ({"space": ["beta_1"], "fixed": {"beta_1": 0.8}}, "fixed and searched at once"),
        ({"fixed": {"beta_1": 1.8}}, "beta_1 must lie in"),
    ],
)
def test_what_is_wrong_is_named(given, message):
    with pytest.raises((StudyError, ValueError), match=message):
        Contestant(**{"optimizer": "adam", **given})


FILE = """
import torch
import thalweg

class Mine(torch.optim.SGD):
    pass

class Drift(thalweg.Rule):
    lr: float = 0.1

    def update(self, t, g):
        return self.lr * g / t
"""


@pytest.mark.parametrize("name", ["Mine", "Drift"])
def test_a_file_of_the_users_own_is_found_by_other_processes_too(tmp_path, name):
    (tmp_path / "own.py").write_text(FILE)
    found = Contestant(f"{tmp_path}/own.py:{name}+cosine")
    sent = pickle.dumps(found)
    code = (
        "import pickle, sys; c = pickle.loads(sys.stdin.buffer.read()); "
        "print(c.name, c.identity['source'], c.setting({'lr': 0.5}, 10, 1).hyperparameters['lr'])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], input=sent, capture_output=True, check=True, cwd=tmp_path
    )
    assert answer.stdout.decode().split() == [found.name, found.identity["source"], "0.5"]


def test_identity_is_what_is_computed(tmp_path):
    adam = Contestant("adam").identity
    assert adam == Contestant("adam", space=["beta_1"], name="other", fixed={"beta_2": 0.9}).identity
    others = [
        "amsgrad",
        "adam@torch",
        thalweg.chain(thalweg.SkipNonFinite(), thalweg.get("adam", dialect="keras")),
    ]
    for other in others:
        assert Contestant(other).identity["source"] != adam["source"]
    texts = [FILE, FILE.replace("g / t", "g / (t + 1)"), FILE.replace("    pass", "    lazy = True")]
    found = []
    for i, text in enumerate(texts):
        (tmp_path / f"own{i}.py").write_text(text)
        found.append(
            [Contestant(f"{tmp_path}/own{i}.py:{name}").identity["source"] for name in ("Drift", "Mine")]
        )
    assert found[0][0] != found[1][0]
    assert found[0][0] == found[2][0]
    assert found[0][1] != found[2][1]


def test_the_specification_has_every_hyperparameter():
    found = Contestant(thalweg.Adam(beta_1=schedules.Step(0.9, 10)))
    values = found.specification({"lr": 0.5})
    assert values == {
        "lr": 0.5,
        "beta_1": "Step(initial=0.9, every=10, factor=0.1)",
        "beta_2": 0.999,
        "epsilon": 1e-8,
    }
    own = Contestant(thalweg.Adam(beta_1=lambda t: 0.9)).specification({})["beta_1"]
    assert own.startswith("<lambda> ")
    assert " at 0x" not in own


def test_the_module_names_no_framework():
    source = Path(thalweg.__file__).with_name("study") / "contestant.py"
    assert not [
        line for line in source.read_text().splitlines() if line.startswith(("import torch", "import keras"))
    ]
