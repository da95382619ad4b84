"""Recordings of the frameworks' own optimizers, and of rules, are recognised; and no more is claimed."""

import dataclasses
import math
from typing import Any

import numpy as np
import optax
import pytest
import torch

import thalweg
from thalweg.dialects import DIALECTS
from thalweg.eager import Driver
from thalweg.explain import page, recognise
from thalweg.explain.recognise import Candidate, candidates, conclusion, from_arrays
from thalweg.schedules import Step

SIZES = 10.0 ** -np.arange(0, 6, 0.5)  # of the gradients' entries: only tiny ones tell where ε stands


def recorded(update: Any, dtype: str = "float64", steps: int = 40, start: float = 1.0) -> dict[str, Any]:
    """A recording of `update(t, p, g)`, which returns the next parameter."""
    generator = np.random.default_rng(0)
    p = (start * generator.standard_normal(SIZES.size)).astype(dtype)
    params, grads = [p], []
    for t in range(1, steps + 1):
        g = (SIZES * (p + 0.3 * generator.standard_normal(SIZES.size))).astype(dtype)
        p = np.array(update(t, p.copy(), g), dtype)
        params.append(p)
        grads.append(g)
    return {"params": np.array(params), "grads": np.array(grads)}


def of_rule(rule: thalweg.Rule, **settings: Any) -> dict[str, Any]:
    driver = Driver(rule)
    return recorded(lambda t, p, g: p - driver.step(p, g), **settings)


def of_torch(kind: str, dtype: str = "float32", start: float = 1.0, **settings: Any) -> dict[str, Any]:
    tensor = torch.zeros(SIZES.size, dtype=getattr(torch, dtype), requires_grad=True)
    optimizer = getattr(torch.optim, kind)([tensor], **settings)

    def update(t: int, p: Any, g: Any) -> Any:
        tensor.data.copy_(torch.from_numpy(p))
        tensor.grad = torch.from_numpy(g)
        optimizer.step()
        return tensor.detach().numpy()

    return recorded(update, dtype, start=start)


def of_optax(kind: str, start: float = 1.0, **settings: Any) -> dict[str, Any]:
    optimizer = getattr(optax, kind)(**settings)
    state = optimizer.init(np.zeros(SIZES.size, "float32"))

    def update(t: int, p: Any, g: Any) -> Any:
        nonlocal state
        updates, state = optimizer.update(g, state, p)
        return optax.apply_updates(p, updates)

    return recorded(update, "float32", start=start)


def followed(found: list[Candidate]) -> set[str]:
    return {str(c) for c in found if c.follows}


@pytest.mark.parametrize(
    ("record", "kind", "settings", "wanted", "lr"),
    [
        (of_torch, "SGD", {}, "sgd (paper, torch, keras, tf1, optax)", 1e-3),
        (of_torch, "Adagrad", {}, "adagrad (paper, torch)", 1e-2),
        (of_torch, "RMSprop", {}, "rmsprop (torch)", 1e-2),
        (of_torch, "Adadelta", {}, "adadelta (torch, optax)", 1.0),
        (of_torch, "Adam", {"dtype": "float64"}, "adam (paper, torch, optax)", 1e-3),
        (of_torch, "AdamW", {}, "adamw (paper, torch)", 1e-3),
        (of_torch, "Adamax", {}, "adamax (paper, torch, optax)", 2e-3),
        (of_torch, "NAdam", {}, "nadam (paper, torch)", 2e-3),
        (of_torch, "RAdam", {}, "radam (paper, torch)", 1e-3),
        *(
            (of_optax, kind, {"learning_rate": 0.02}, wanted, 0.02)
            for kind, wanted in {
                "rmsprop": "rmsprop (optax)",
                "adam": "adam (paper, torch, optax)",
                "adamw": "adamw (optax)",
                "amsgrad": "amsgrad (optax)",
                "nadam": "nadam (optax)",
                "adabelief": "adabelief (paper, optax)",
                "adan": "adan (optax)",
                "lion": "lion (optax)",
            }.items()
        ),
    ],
)
@pytest.mark.parametrize("start", [1.0, 1e-3])
def test_a_frameworks_own_optimizer_is_recognised_with_its_rate(
    record: Any, kind: str, settings: dict[str, Any], wanted: str, lr: float, start: float
) -> None:
    """Near zero, parameters round away little, and what the framework itself rounds shows."""
    rules = [wanted.split()[0]] if start < 1 else None
    found = candidates(from_arrays(record(kind, start=start, **settings)), rules)
    assert followed(found) == {wanted}
    assert str(found[0]) == wanted
    assert found[0].rule.values["lr"] == pytest.approx(lr, rel=1e-4)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", thalweg.rules())
def test_every_rule_and_dialect_is_recognised_among_its_own(name: str, dialect: str) -> None:
    """Forms that differ by nothing else than the place of lr are told apart by a recorded rate that falls."""
    rule = thalweg.get(name, dialect=dialect, lr=Step(0.01, 20, 0.3))
    rates = [rule.values["lr"](t) for t in range(1, 41)]
    found = candidates(from_arrays(of_rule(rule) | {"lr": np.array(rates)}), [name])
    (only,) = [c for c in found if c.follows]
    assert dialect in only.dialects or dialect not in page.dialects_of(type(rule))
    assert only.deviation <= 1e-12
    assert all(c.deviation > 1e-10 for c in found[1:])
    assert [c.deviation for c in found] == sorted(c.deviation for c in found)


def test_forms_that_part_only_when_the_rate_changes_are_called_indistinguishable() -> None:
    recording = from_arrays(of_torch("SGD", momentum=0.9))
    found = candidates(recording)
    assert followed(found) == {"momentum (paper, torch, tf1, optax)", "momentum (keras)"}
    said = conclusion(found, recording)
    assert said.startswith(
        "Several are indistinguishable here, all within the rounding of float32: momentum ("
    )
    assert "follows" not in said


def test_a_weak_decay_hides_in_float32() -> None:
    """Of which Optax's 1e-4 is one; in float64 it does not."""
    found = candidates(from_arrays(of_torch("Adam")))
    assert str(found[0]) == "adam (paper, torch, optax)"
    assert followed(found) == {"adam (paper, torch, optax)", "adamw (optax)"}


def test_what_no_rule_does_follows_none() -> None:
    recording = from_arrays(of_torch("Adam", weight_decay=0.1))
    found = candidates(recording)
    assert not followed(found)
    said = conclusion(found, recording)
    assert said.startswith(f"None of these is followed: the nearest, {found[0]}, deviates by ")
    assert f"at step {found[0].step}." in said


def test_one_wrong_step_is_enough_and_is_named() -> None:
    recording = of_rule(thalweg.Adam(lr=0.01))
    recording["params"][31:] += 1e-10
    found = candidates(from_arrays(recording), ["adam"], lr=0.01)
    assert not followed(found)
    assert found[0].step == 31
    assert found[0].deviation == pytest.approx(1e-10 / 0.01, rel=0.5)


def test_what_a_framework_rounds_in_its_scalars_is_no_deviation() -> None:
    """Optax computes 1 − β₂ᵗ in float32: at β₂ = 0.9999 it is off by 1e-4 at first."""
    recording = from_arrays(of_optax("adam", start=1e-3, learning_rate=0.02, b2=0.9999))
    found = candidates(recording, ["adam"], beta_2=0.9999, lr=0.02)
    assert found[0].deviation > 2e-5
    assert followed(found) == {"adam (paper, torch, optax)"}


@pytest.mark.parametrize(("roundings", "follows"), [(30, True), (1000, False)])
def test_some_roundings_are_allowed_in_a_step_and_no_more(roundings: int, follows: bool) -> None:
    off = 1 + roundings * np.finfo(np.float64).eps
    recording = recorded(lambda t, p, g: p - 0.01 * g * off, start=1e-3)
    (found,) = candidates(from_arrays(recording), [thalweg.SGD(lr=0.01)])
    assert found.follows == follows


def test_what_is_no_number_deviates_beyond_all_numbers() -> None:
    """0/0 where a gradient has always been zero."""
    recording = of_rule(thalweg.SGD(lr=0.01))
    recording["grads"][:, 3] = 0
    found = candidates(from_arrays(recording), ["adagrad"], epsilon=0.0)
    assert found[-1].deviation == math.inf
    assert not found[-1].follows
    assert found[-1].step == 1
    assert recognise.table(found).splitlines()[-1].split()[-2:] == ["–", "1"]


def test_a_step_that_was_left_out_is_a_deviation_of_one() -> None:
    rule, recording = thalweg.SGD(lr=0.01), of_rule(thalweg.SGD(lr=0.01))
    moved = recording["params"][5] - recording["params"][4]
    recording["params"][5:] -= moved
    (found,) = candidates(from_arrays(recording), [rule])
    assert (found.step, found.deviation) == (5, pytest.approx(1))


def test_a_rate_that_was_fitted_is_known_no_better_than_the_parameters() -> None:
    """One entry of 1000 in float32 blurs the rate; the other entry sees that."""
    generator = np.random.default_rng(0)
    params, grads = [np.array([1000, 0], "float32")], []
    for _ in range(20):
        grads.append(generator.standard_normal(2).astype("float32"))
        params.append((params[-1] - np.float32(1e-3) * grads[-1]).astype("float32"))
    (found,) = candidates(from_arrays({"params": np.array(params), "grads": np.array(grads)}), ["sgd"])
    assert found.deviation > 1e-4
    assert found.follows


def test_a_conclusion_gives_every_value() -> None:
    recording = from_arrays(of_rule(thalweg.Adagrad(lr=0.03)))
    assert conclusion(candidates(recording), recording) == (
        "It follows adagrad (paper, torch) with lr = 0.03, epsilon = 1e-10, initial_accumulator = 0: "
        "what remains is within the rounding of float64."
    )


def test_known_hyperparameters_are_used_and_rules_without_them_left_out() -> None:
    recording = from_arrays(of_rule(thalweg.RMSprop(lr=0.02, rho=0.7, momentum=0.6, centered=True)))
    assert not followed(candidates(recording))
    found = candidates(recording, momentum=0.6, rho=0.7, centered=True)
    assert followed(found) == {"rmsprop (paper, torch)"}
    assert {c.rule.name for c in found} == {"rmsprop"}
    assert {c.rule.name for c in candidates(recording, momentum=0.6)} == {"momentum", "nesterov", "rmsprop"}


@pytest.mark.parametrize("name", ["lr", "learning_rate", "eta"])
def test_a_rate_that_is_given_is_not_fitted(name: str) -> None:
    recording = from_arrays(of_rule(thalweg.SGD(lr=0.02)))
    (found,) = candidates(recording, ["sgd"], **{name: 0.01})
    assert found.rule.values["lr"] == 0.01
    assert found.deviation == pytest.approx(0.5)
    (found,) = candidates(recording, ["sgd"])
    assert found.rule.values["lr"] == pytest.approx(0.02, rel=1e-12)


def test_a_rate_that_is_not_proportional_to_the_step_is_fitted_too() -> None:
    rule = thalweg.Adan(lr=0.2, weight_decay=0.5)
    (found,) = candidates(from_arrays(of_rule(rule)), ["adan"], weight_decay=0.5)[:1]
    assert found.follows
    assert found.rule.values["lr"] == pytest.approx(0.2, rel=1e-10)


def test_uphill_no_rate_fits() -> None:
    recording = from_arrays(of_rule(thalweg.chain(thalweg.Maximize(), thalweg.SGD(lr=0.01))))
    (found,) = candidates(recording, ["sgd"])
    assert found.rule.values["lr"] == 0
    assert found.deviation == pytest.approx(1)


def test_one_recorded_rate_serves_all_steps() -> None:
    (found,) = candidates(from_arrays(of_rule(thalweg.SGD(lr=0.02)) | {"lr": np.array(0.02)}), ["sgd"])
    assert found.follows
    assert found.rule.values["lr"](7) == 0.02


def test_rules_of_ones_own_and_several_parameters_with_norms() -> None:
    """Norms are of each parameter, and of all together; the second is of what the first has clipped."""
    adam = thalweg.Adam(lr=0.01)
    clipped = thalweg.chain(thalweg.ClipByNorm(0.5), thalweg.ClipByGlobalNorm(0.6), adam)
    generator = np.random.default_rng(3)
    params: dict[str, Any] = {"w": np.ones((2, 3)), "b": np.ones(2)}
    drivers = {name: Driver(adam) for name in params}
    arrays: dict[str, Any] = {f"{kind}/{name}": [] for kind in ("params", "grads") for name in params}
    for _ in range(20):
        grads = {name: generator.standard_normal(p.shape) for name, p in params.items()}
        short = {name: g * min(1, 0.5 / np.linalg.norm(g)) for name, g in grads.items()}
        whole = math.sqrt(sum(float((g**2).sum()) for g in short.values()))
        for name, g in grads.items():
            arrays[f"params/{name}"].append(params[name])
            arrays[f"grads/{name}"].append(g)
            g = short[name] * min(1, 0.6 / whole)
            params[name] = params[name] - drivers[name].step(params[name], g)
    recording = from_arrays(arrays)
    assert recording.steps == 19, "without the last parameter, one step less can be checked"
    found = candidates(recording, [clipped, "adam"])
    assert followed(found) == {"adam (yours)"}
    assert candidates(recording, [thalweg.Adam(lr=0.5)])[0].rule.values["lr"] == 0.5, (
        "a rule is held as it is"
    )


def test_the_order_of_parameters_and_their_shape_make_no_difference() -> None:
    whole = of_rule(thalweg.Adam(lr=0.01))
    split = {
        f"{kind}/{name}": array[:, half].reshape(len(array), 2, 3)
        for kind, array in whole.items()
        for name, half in (("z", slice(6, None)), ("a", slice(None, 6)))
    }
    one, two = (candidates(from_arrays(a), ["adam", "lion"]) for a in (whole, split))
    for c, d in zip(one, two, strict=True):
        assert (str(c), c.follows) == (str(d), d.follows)
        assert c.deviation == pytest.approx(d.deviation, rel=1e-6, abs=1e-13)


def test_a_step_that_rounding_swallows_is_no_deviation() -> None:
    """Steps of 1e-7 beside parameters of 1 in float32: little can be said, so little is excluded."""
    recording = from_arrays(of_rule(thalweg.SGD(lr=1e-7), dtype="float32"))
    assert candidates(recording, ["sgd"], lr=1.05e-7)[0].follows
    assert not candidates(recording, ["sgd"], lr=1e-5)[0].follows


@pytest.mark.parametrize(
    ("arrays", "dtype"),
    [
        (of_rule(thalweg.SGD(), dtype="float32"), "float32"),
        ({k: a.astype("float64") for k, a in of_rule(thalweg.SGD(), dtype="float32").items()}, "float32"),
        (of_rule(thalweg.SGD()), "float64"),
        ({k: a.astype("float16") for k, a in of_rule(thalweg.SGD()).items()}, "float16"),
        (of_rule(thalweg.SGD()) | {"grads": of_rule(thalweg.SGD())["grads"].astype("float32")}, "float32"),
    ],
)
def test_the_precision_is_the_one_that_the_numbers_have(arrays: Any, dtype: str) -> None:
    assert from_arrays(arrays).dtype == dtype


def test_half_precision_does_not_excuse_any_deviation() -> None:
    recording = from_arrays(of_rule(thalweg.SGD(lr=0.5), dtype="float16"))
    found = candidates(recording)
    assert "sgd (paper, torch, keras, tf1, optax)" in followed(found)
    assert not all(c.follows for c in found)
    (other,) = candidates(recording, ["sgd"], lr=0.46)
    assert 0.05 < other.deviation < 0.1
    assert not other.follows


GOOD = of_rule(thalweg.SGD(), steps=5)


def with_nan(array: Any, step: int) -> Any:
    array = array.copy()
    array[step - 1, 0] = np.nan
    return array


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "params and grads missing, found: nothing"),
        ({"grads": GOOD["grads"]}, "params missing, found: grads"),
        ({"params": GOOD["params"], "gradients": GOOD["grads"]}, "grads missing, found: gradients, params"),
        ({"params/a": GOOD["params"], "grads/b": GOOD["grads"]}, "grads/a and params/b missing"),
        (
            GOOD | {"params": GOOD["params"][:4]},
            "params has 4 rows and grads 5: a recording of 5 steps has 6",
        ),
        (GOOD | {"grads": GOOD["grads"][:, :3]}, r"a row of params has shape \(12,\), one of grads \(3,\)"),
        (GOOD | {"grads": with_nan(GOOD["grads"], 4)}, "grads is NaN or infinite at step 4"),
        (GOOD | {"params": with_nan(GOOD["params"], 2) * np.inf}, "params is NaN or infinite at step 1"),
        ({k: a[:3] for k, a in GOOD.items()}, "2 steps can be checked; it takes 3 at least"),
        ({k: a[:0] for k, a in GOOD.items()}, "0 steps can be checked"),
        ({k: a.astype(int) for k, a in GOOD.items()}, "params is int64; a recording is float16, float32 or"),
        (GOOD | {"grads": np.array(1.0)}, "grads is one number; its first axis must count the steps"),
        (
            GOOD | {"params/b": GOOD["params"][:4], "grads/b": GOOD["grads"][:3]},
            r"numbers of steps: \[3, 5\]",
        ),
        ({k: np.ones_like(a) for k, a in GOOD.items()}, "the parameters never change"),
        (GOOD | {"lr": np.ones(4)}, r"lr has shape \(4,\); it is one number or one for each of the 5 steps"),
        (GOOD | {"lr": np.array(np.nan)}, "lr must be numbers, and finite"),
        (GOOD | {"lr": np.array("fast")}, "lr must be numbers, and finite"),
    ],
)
def test_what_is_no_recording_is_refused_with_the_reason(arrays: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_arrays(arrays)


def test_a_recording_without_the_last_parameter_is_one_step_shorter() -> None:
    short = from_arrays(GOOD | {"params": GOOD["params"][:-1], "lr": np.full(5, 0.01)})
    assert short.steps == 4
    assert short.lr is not None
    assert short.lr.shape == (4,)


def test_a_recording_is_read_from_a_file(tmp_path: Any) -> None:
    np.savez(tmp_path / "run.npz", **GOOD, note=np.array("ignored"))
    read, made = recognise.read(tmp_path / "run.npz"), from_arrays(GOOD)
    for field in dataclasses.fields(read):
        np.testing.assert_equal(getattr(read, field.name), getattr(made, field.name))


def test_what_is_no_npz_file_is_refused(tmp_path: Any) -> None:
    np.save(tmp_path / "one.npy", GOOD["params"])
    np.savez(tmp_path / "objects.npz", params=np.array([{}]), grads=GOOD["grads"])
    (tmp_path / "text.npz").write_text("params")
    (tmp_path / "empty.npz").write_text("")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04" + b"\0" * 40)
    for name in ("one.npy", "objects.npz", "text.npz", "empty.npz", "cut.npz"):
        with pytest.raises(ValueError, match=rf"{name} is not an \.npz file of numbers"):
            recognise.read(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        recognise.read(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("rules", "values", "message"),
    [
        (["adm"], {}, "no rule is named 'adm'; did you mean 'adam'"),
        ([], {}, "no rule is named"),
        (["adam"], {"momentum": 0.9}, "Adam has no hyperparameter 'momentum'"),
        (None, {"momentm": 0.9}, "no rule has a hyperparameter 'momentm'; did you mean 'momentum'"),
        (None, {"momentum": 0.9, "beta1": 0.9}, "no rule has all of momentum, beta1"),
        (None, {"rho": 3.0}, "rho must lie in"),
    ],
)
def test_what_cannot_be_tried_is_refused(rules: Any, values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        candidates(from_arrays(GOOD), rules, **values)


def test_the_table_shows_every_candidate() -> None:
    found = candidates(from_arrays(GOOD), ["sgd", "adam"])
    lines = recognise.table(found).splitlines()
    assert lines[0].split() == ["rule", "dialects", "lr", "deviation", "at", "step"]
    assert len(lines) == 1 + len(found) == 5
    assert lines[1].startswith("sgd   paper, torch, keras, tf1, optax  ")
    assert len({len(line) for line in lines}) == 1
    assert "0.01" in lines[1]
    rated = candidates(from_arrays(GOOD | {"lr": np.array(0.01)}), ["sgd"])
    assert "recorded" in recognise.table(rated)
