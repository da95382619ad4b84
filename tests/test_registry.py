"""Names: the built-in rules keep theirs; a rule of one's own is found by class, by place, or registered."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import thalweg
import thalweg.jax
import thalweg.keras
import thalweg.numpy
import thalweg.torch
from helpers import output, python
from thalweg import Rule, Scalar, Treatment, UnknownRuleError, chain, convert, register
from thalweg.cli import main as cli
from thalweg.explain.page import dialects_of, explain
from thalweg.keras.config import rule_from_config, rule_to_config
from thalweg.registry import find, name_of
from thalweg.statefile import State
from thalweg.study.contestant import Contestant


class Adam(Rule):
    """No Adam: a step of one's own."""

    lr: Scalar = 7.0
    loud: bool = False

    def update(self, g: Any, m: Any = 0) -> Any:
        """A hundred times too far."""
        return self.lr * 100 * g, m + g


class ClipByNorm(Treatment):
    """No clipping."""

    clip_norm: Scalar
    up: bool = False

    def gradient(self, g: Any, given: Any) -> Any:
        """Up or down."""
        return (g if self.up else -g) * self.clip_norm


def test_a_class_of_a_built_in_name_replaces_nothing() -> None:
    assert thalweg.get("adam") == thalweg.Adam()
    assert thalweg.rules.Adam is thalweg.Adam
    p = torch.ones(2, requires_grad=True)
    p.grad = torch.ones(2)
    thalweg.torch.Adam([p], lr=0.1).step()
    assert p.tolist() == pytest.approx([0.9, 0.9])
    assert thalweg.numpy.Adam(lr=0.1).rule == thalweg.Adam(0.1)
    assert isinstance(thalweg.keras.get("adam").rule, thalweg.Adam)
    assert Contestant("adam").rule == thalweg.get("adam", dialect="keras")
    updates, _ = (made := thalweg.jax.get("adam", lr=0.1)).update(jnp.ones(2), made.init(jnp.ones(2)))
    np.testing.assert_allclose(updates, -0.1, rtol=1e-5)


def test_what_the_house_knows_of_adam_is_not_said_of_another() -> None:
    assert dialects_of(Adam) == ["paper"]
    assert thalweg.get(Adam, dialect="torch") == Adam()
    text = explain(Adam())
    assert "torch.optim.Adam" not in text
    assert "keras.optimizers" not in text
    optimizer = thalweg.numpy.Optimizer(Adam())
    optimizer.update({"a": np.ones(2, "f4")}, {"a": np.ones(2, "f4")})
    for target in ("optax", "keras", "torch"):
        with pytest.raises(convert.Refused, match="has no Adam"):
            convert.state(optimizer, source="thalweg.numpy", target=target)
    assert convert.state(optimizer, source="thalweg.numpy", target="thalweg.torch").rule == Adam()


def test_a_rule_is_found_by_its_class_and_its_place() -> None:
    assert find(Adam) is find(f"{__name__}:Adam") is Adam
    assert thalweg.get(Adam, learning_rate=2.0) == thalweg.get(f"{__name__}:Adam", lr=2.0) == Adam(2.0)
    assert Contestant(f"{__name__}:Adam").rule == Adam()
    assert thalweg.keras.get(f"{__name__}:Adam").rule == Adam(lr=7.0)
    assert name_of(Adam) == f"{__name__}:Adam"


def test_a_bare_name_says_how_a_rule_of_ones_own_is_found() -> None:
    class Lonely(Rule):
        def update(self, g: Any) -> Any:
            return g

    for ask in (thalweg.get, thalweg.jax.get, thalweg.keras.get):
        with pytest.raises(UnknownRuleError, match=r"give the class or .*thalweg\.register\(Lonely\)"):
            ask("lonely")
    assert "lonely" not in thalweg.rules()
    assert name_of(Lonely).endswith(":test_a_bare_name_says_how_a_rule_of_ones_own_is_found.<locals>.Lonely")


@pytest.mark.usefixtures("names")
def test_a_registered_rule_is_known_everywhere() -> None:
    register(Adam, "my_adam")
    assert "my_adam" in thalweg.rules()
    assert thalweg.get("My Adam", lr=1.0) == Adam(1.0)
    assert thalweg.get("adam") == thalweg.Adam()
    assert thalweg.rules.my_adam is Adam
    assert isinstance(thalweg.numpy.my_adam(lr=1.0), thalweg.numpy.Optimizer)
    optimizer = thalweg.keras.get("my_adam")
    assert (optimizer.rule, type(optimizer).__name__) == (Adam(7.0), "my_adam")
    assert type(thalweg.keras.get("adam")) is thalweg.keras.Adam
    assert State.of(Adam(), 0, {}, {}).rule == name_of(Adam) == "my_adam"
    register(Adam, "my_adam")  # once more, as when a notebook's cell runs again


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("name", [None, "adam", "A_D_A_M", "heavy_ball", "sgd_momentum", "Lion"])
def test_a_name_that_is_taken_is_refused(name: str | None) -> None:
    with pytest.raises(ValueError, match=r"is taken by thalweg\.rules\.\w+\.\w+; .* register\(Adam, name="):
        register(Adam, name)


@pytest.mark.usefixtures("names")
def test_a_class_defined_anew_takes_over_its_name() -> None:
    def define() -> type[Rule]:
        @register
        class Again(Rule):
            def update(self, g: Any) -> Any:
                return g

        return Again

    define()
    last = define()
    assert find("again") is last
    assert find(name_of(last)) is last

    class Other(Rule):
        def update(self, g: Any) -> Any:
            return g

    with pytest.raises(ValueError, match="the name 'again' is taken by"):
        register(Other, "again")


@pytest.mark.parametrize("rule", ["adam", thalweg.Adam(), int, Rule])
def test_only_classes_of_rules_are_registered(rule: Any) -> None:
    with pytest.raises(TypeError, match="register takes a class of rules"):
        register(rule)


@pytest.mark.parametrize("name", ["", "__", "a:b"])
def test_names_are_words(name: str) -> None:
    with pytest.raises(ValueError, match="made of letters, digits and underscores"):
        register(Adam, name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_module:Mine", "no_such_module cannot be loaded: ModuleNotFoundError"),
        ("json:Mine", "json has no class 'Mine' of Rules; known: none"),
        ("json:JSONDecoder", "json has no class 'JSONDecoder' of Rules"),
        (":Mine", "cannot be loaded"),
        ("none.py:Mine", "none.py cannot be loaded: FileNotFoundError"),
    ],
)
def test_a_place_without_a_rule(name: str, why: str) -> None:
    with pytest.raises(UnknownRuleError, match=why):
        thalweg.get(name)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module on the path that says when it is imported."""
    source = (
        "import pathlib\n"
        f"pathlib.Path({str(tmp_path / 'imported')!r}).touch()\n"
        "import thalweg\n"
        "class Mine(thalweg.Rule):\n"
        "    lr: thalweg.Scalar = 0.1\n"
        "    def update(self, g):\n"
        "        return self.lr * g\n"
    )
    (tmp_path / "planted_rules.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "imported"
    sys.modules.pop("planted_rules", None)


def test_a_file_imports_nothing(planted: Path) -> None:
    state = State("planted_rules:Mine", 1, {"lr": 0.1}, {}, {})
    with pytest.raises(
        UnknownRuleError, match="import planted_rules first, which defines it: a file imports nothing"
    ):
        state.rebuilt()
    with pytest.raises(UnknownRuleError, match="a file imports nothing"):
        rule_from_config({"name": "planted_rules:Mine", "values": {"lr": 0.1}})
    treated = {
        "treatments": [{"name": "planted_rules:Mine", "values": {}}],
        "rule": {"name": "sgd", "values": {}},
    }
    with pytest.raises(ValueError, match="a file imports nothing"):
        rule_from_config(treated)
    assert not planted.exists()
    assert thalweg.get("planted_rules:Mine", lr=0.5).values == {"lr": 0.5}  # typed by the user
    assert planted.exists()
    assert state.rebuilt().values == {"lr": 0.1}


def test_states_of_rules_and_treatments_of_ones_own_are_rebuilt(tmp_path: Path) -> None:
    rule = chain(ClipByNorm(0.5, up=True), thalweg.ClipByValue(1.0), Adam(0.25, loud=True))
    optimizer, p = thalweg.numpy.Optimizer(rule), np.ones(3)
    optimizer.update(p, np.ones(3))
    optimizer.save(tmp_path / "state.npz")
    again = thalweg.numpy.Optimizer(rule)
    again.load(tmp_path / "state.npz")
    state = again.state()
    assert state.rule == f"{__name__}:Adam"
    assert state.treatments == [f"{__name__}:ClipByNorm", "ClipByValue"]
    assert state.flags == {"up": True, "loud": True}
    assert state.rebuilt() == rule
    assert rule_from_config(json.loads(json.dumps(rule_to_config(rule)))) == rule


@pytest.mark.parametrize(
    "other",
    [
        chain(ClipByNorm(0.5, up=False), Adam(loud=True)),
        chain(ClipByNorm(0.5, up=True), Adam(loud=False)),
        chain(thalweg.ClipByNorm(0.5), Adam(loud=True)),
        chain(thalweg.ClipByValue(0.5), ClipByNorm(0.5, up=True), Adam(loud=True)),
        chain(ClipByNorm(0.5, up=True), thalweg.Adam()),
        Adam(loud=True),
    ],
    ids=str,
)
def test_a_state_is_loaded_only_where_it_is_equal_in_form(other: Rule) -> None:
    state = thalweg.numpy.Optimizer(chain(ClipByNorm(0.5, up=True), Adam(loud=True))).state()
    with pytest.raises(ValueError, match="the state was written by"):
        thalweg.numpy.Optimizer(other).load(state)


def test_names_at_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "own_rules.py").write_text(
        "import thalweg\n"
        "class Mine(thalweg.Rule):\n"
        '    """The gradient, doubled."""\n'
        "    lr: thalweg.Scalar = 0.1\n"
        "    def update(self, g):\n"
        "        return 2 * self.lr * g\n"
    )
    source = "from thalweg.cli.main import main; main(['explain', 'own_rules:Mine'])"
    assert "The gradient, doubled." in output(python(source, PYTHONPATH=f"{tmp_path}:{':'.join(sys.path)}"))


def test_a_rule_in_a_file_is_taken_wherever_a_name_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "filed_rules.py"
    file.write_text(
        "import thalweg\n"
        "class Filed(thalweg.Rule):\n"
        '    """The gradient, trebled."""\n'
        "    lr: thalweg.Scalar = 0.1\n"
        "    def update(self, g):\n"
        "        return 3 * self.lr * g\n"
    )
    assert cli.main(["explain", f"{file}:Filed"]) == 0
    assert "The gradient, trebled." in capsys.readouterr().out
    assert cli.main(["kernel", f"{file}:Filed"]) == 0
    assert '"""filed: one step' in capsys.readouterr().out
    assert type(Contestant(f"{file}:Filed").rule) is find(f"{file}:Filed")
    with pytest.raises(UnknownRuleError, match=r"filed_rules\.py has no class 'Filled' .* mean 'Filed'"):
        thalweg.get(f"{file}:Filled")
    with pytest.raises(UnknownRuleError, match="a file imports nothing"):
        find(f"{file}:Other", importing=False)


@pytest.mark.parametrize("given", [thalweg.Adam, "adam", None])
def test_a_class_or_a_name_is_no_rule(given: Any) -> None:
    for taker in (thalweg.trace, thalweg.numpy.Optimizer, thalweg.keras.Optimizer, thalweg.jax.optimizer):
        with pytest.raises(TypeError, match=r"takes a rule, got .*: give a rule, such as thalweg\.Adam\(\)"):
            taker(given)


def test_what_names_no_rule_is_said() -> None:
    with pytest.raises(TypeError, match=r"Adam\(.*\) is a rule already: use it as it is"):
        thalweg.get(thalweg.Adam())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a rule is named by a string, such as 'adam', or by its class"):
        thalweg.get(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("module", "name", "meant"),
    [
        ("", "adam", "Adam"),
        ("", "compar", "compare"),
        (".numpy", "Adma", "Adam"),
        (".numpy", "optimizer", "Optimizer"),
        (".keras", "AdamWW", "AdamW"),
        (".jax", "Adam", "adam"),
        (".jax", "Optimizer", "optimizer"),
    ],
)
def test_what_a_module_has_not_is_near_to_what_it_has(module: str, name: str, meant: str) -> None:
    asked = sys.modules[f"thalweg{module}"]
    with pytest.raises(AttributeError, match=f"'thalweg{module}' has no attribute .* mean '{meant}'"):
        getattr(asked, name)
    with pytest.raises(AttributeError, match=f"^module 'thalweg{module}' has no attribute 'qqqq'$"):
        asked.qqqq  # noqa: B018
