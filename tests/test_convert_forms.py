"""What changes its form on the way, what is kept, and where state is found."""

from typing import Any

import jax.numpy as jnp
import keras
import ml_dtypes
import numpy as np
import optax
import pytest
import torch

import thalweg
import thalweg.jax
import thalweg.keras
import thalweg.numpy
import thalweg.torch
from convert_cases import (
    AFTER,
    BEFORE,
    KERAS_WARNS,
    SHAPES,
    SIDES,
    Params,
    Side,
    all_in_float64,  # noqa: F401
    gradients,
    moved_to,
    start,
)
from helpers import largest_difference
from thalweg import convert
from thalweg.schedules import Exponential, TimeDecay
from thalweg.statefile import State

pytestmark = KERAS_WARNS
THALWEG = ["thalweg.torch", "thalweg.keras", "thalweg.jax", "thalweg.numpy"]


def same_steps(found: Params, wanted: Params, here: Params) -> bool:
    moves = [wanted[k] - here[k] for k in here]
    return largest_difference([found[k] - here[k] for k in here], moves) <= 1e-10


def go_on(side: Side, source: str, target: str, **asked: Any) -> None:
    """Convert what a side has come to, and see both go on together."""
    here = side.run(gradients(BEFORE))
    moved = convert.state(side.state, source=source, target=target, target_params=here, **asked)
    other = moved_to(target, moved, here)
    assert same_steps(other.run(gradients(AFTER, seed=2)), side.run(gradients(AFTER, seed=2)), here), moved


def variables(params: Params) -> list[keras.Variable]:
    return [keras.Variable(p, dtype=p.dtype.name, name=name) for name, p in params.items()]


# -- forms that become others ------------------------------------------------------------------------


def keras_run(optimizer: Any) -> Side:
    return SIDES["keras"](lambda _: optimizer, start())


def torch_run(kind: str, **settings: Any) -> Side:
    return SIDES["torch"](lambda params: getattr(torch.optim, kind)(params, **settings), start())


def numpy_run(rule: thalweg.Rule) -> Side:
    return SIDES["thalweg.numpy"](lambda _: thalweg.numpy.Optimizer(rule), start())


def optax_run(optimizer: Any) -> Side:
    return SIDES["optax"](lambda _: optimizer, start())


def test_optaxs_nadam_is_torchs_with_a_momentum_that_is_warm_at_once() -> None:
    run = optax_run(optax.nadam(0.05, b1=0.8))
    go_on(run, "optax", "torch", rule=thalweg.get("nadam", dialect="optax", lr=0.05, beta_1=0.8))


@pytest.mark.parametrize("target", ["keras", "optax"])
def test_a_momentum_that_has_warmed_up_is_constant(target: str) -> None:
    first = numpy_run(thalweg.Nadam(lr=0.05, beta_1=0.8, psi=0.9 if target == "keras" else 1.0))
    first.optimizer.t = 900
    first.optimizer._scalars = {"mu_product": 0.8**900}
    go_on(first, "thalweg.numpy", target)


@pytest.mark.parametrize("name", ["adam", "adamw", "amsgrad"])
def test_where_epsilon_stands_makes_no_difference_once_the_correction_has_gone(name: str) -> None:
    first = numpy_run(thalweg.get(name, dialect="torch", lr=0.05, epsilon=1e-3))
    first.optimizer.t = 30_000
    go_on(first, "thalweg.numpy", "keras")


@pytest.mark.parametrize("target", ["keras", "optax"])
def test_a_dampened_velocity_is_a_smaller_rate(target: str) -> None:
    go_on(torch_run("SGD", lr=0.1, momentum=0.9, dampening=0.3), "torch", target, step=BEFORE)


def test_a_decay_beside_a_dampened_velocity_keeps_its_rate() -> None:
    momentum = thalweg.Momentum(lr=0.1, momentum=0.9, dampening=0.3)
    go_on(numpy_run(thalweg.chain(thalweg.DecoupledDecay(0.2), momentum)), "thalweg.numpy", "keras")


@pytest.mark.parametrize("target", ["torch", "thalweg.torch", "optax"])
def test_kerass_velocity_may_have_seen_other_rates(target: str) -> None:
    """What was is in the velocity; only what comes must be constant."""
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)
    run = keras_run(optimizer)
    run.run(gradients(5))
    optimizer.learning_rate = 0.03
    go_on(run, "keras", target)


def test_rmsprop_of_tensorflow_1_goes_on_with_its_initial_accumulator() -> None:
    go_on(numpy_run(thalweg.get("rmsprop", dialect="tf1", lr=0.01)), "thalweg.numpy", "keras")


@pytest.mark.parametrize("target", convert.FRAMEWORKS)
def test_adagrads_accumulator_lives_on(target: str) -> None:
    go_on(torch_run("Adagrad", lr=0.1, initial_accumulator_value=0.3, eps=0.0), "torch", target)


@pytest.mark.parametrize("target", convert.FRAMEWORKS)
def test_adagrads_time_decay_is_a_schedule_everywhere(target: str) -> None:
    go_on(torch_run("Adagrad", lr=0.1, lr_decay=0.05, eps=0.0), "torch", target)


def test_kerass_time_decay_is_torchs() -> None:
    schedule = keras.optimizers.schedules.InverseTimeDecay(0.1, 4, 0.2)
    go_on(keras_run(keras.optimizers.Adagrad(schedule, epsilon=0.0)), "keras", "torch")


@pytest.mark.parametrize(
    "target", ["thalweg.torch", "thalweg.keras", "thalweg.jax", "thalweg.numpy", "optax"]
)
@pytest.mark.parametrize("source", ["thalweg.keras", "thalweg.numpy"])
def test_schedules_go_along_where_the_target_has_them(source: str, target: str) -> None:
    rule = thalweg.get("adam", dialect="optax", lr=Exponential(0.1, 0.9))
    if source == "thalweg.keras":
        go_on(SIDES[source](lambda _: thalweg.keras.Optimizer(rule), start()), source, target)
    else:
        go_on(numpy_run(rule), source, target)


@pytest.mark.parametrize("target", [t for t in convert.FRAMEWORKS if t != "optax"])
def test_plain_sgds_weight_decay_is_both_kinds(target: str) -> None:
    go_on(torch_run("SGD", lr=0.1, weight_decay=0.2), "torch", target)


@pytest.mark.parametrize("target", ["torch", "optax", *THALWEG])
@pytest.mark.parametrize("kind", ["Adam", "Nadam"])
def test_kerass_decay_of_any_optimizer(kind: str, target: str) -> None:
    if (kind, target) == ("Nadam", "optax"):
        pytest.skip("Optax's Nadam is another")
    make = getattr(keras.optimizers, kind)
    go_on(keras_run(make(0.05, epsilon=0.0, weight_decay=0.2)), "keras", target)


@pytest.mark.parametrize("target", THALWEG)
@pytest.mark.parametrize("clip", [{"clipnorm": 0.4}, {"clipvalue": 0.4}, {"global_clipnorm": 0.4}], ids=str)
def test_kerass_clipping_goes_along(clip: dict[str, float], target: str) -> None:
    go_on(keras_run(keras.optimizers.Adam(0.05, **clip)), "keras", target)


def test_keras_clips_like_thalweg() -> None:
    rule = thalweg.chain(thalweg.ClipByNorm(0.4), thalweg.Lion(lr=0.01, weight_decay=0.1))
    go_on(numpy_run(rule), "thalweg.numpy", "keras")


@pytest.mark.parametrize(
    "target", [t for t in convert.FRAMEWORKS if not t.endswith("keras") and t != "optax"]
)
def test_torchs_l2_and_maximize(target: str) -> None:
    go_on(torch_run("RMSprop", lr=0.01, weight_decay=0.1, maximize=True), "torch", target)


def test_optaxs_adadelta_has_an_l2_penalty() -> None:
    go_on(torch_run("Adadelta", lr=0.5, weight_decay=0.1), "torch", "optax")


@pytest.mark.parametrize("target", ["torch", "thalweg.torch"])
def test_parameter_groups_stay(target: str) -> None:
    def make(params: Any) -> Any:
        (w, p), (b, q) = params
        groups = [{"params": [(w, p)], "lr": 0.1, "weight_decay": 0.1}, {"params": [(b, q)], "lr": 0.01}]
        return torch.optim.NAdam(groups, decoupled_weight_decay=True)

    go_on(SIDES["torch"](make, start()), "torch", target)


@pytest.mark.parametrize("target", ["keras", "thalweg.keras"])
def test_a_group_without_decay_is_excluded_from_it_in_keras(target: str) -> None:
    def make(params: Any) -> Any:
        (w, p), (b, q) = params
        return torch.optim.AdamW([{"params": [(w, p)]}, {"params": [(b, q)], "weight_decay": 0}], 0.1, eps=0)

    run = SIDES["torch"](make, start())
    go_on(run, "torch", target)
    assert convert.state(run.state, source="torch", target=target).undecayed == ("b",)


@pytest.mark.parametrize("target", ["torch", "thalweg.torch", "keras", "thalweg.keras"])
def test_what_keras_excludes_from_decay_stays_excluded(target: str) -> None:
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.3, epsilon=0.0)
    optimizer.exclude_from_weight_decay(var_names=["b"])
    go_on(keras_run(optimizer), "keras", target)


def test_a_layer_thawed_late_has_a_step_number_of_its_own() -> None:
    run = torch_run("Adam", lr=0.1)
    for step in gradients(7):
        run.tensors["w"].grad = torch.tensor(step["w"])
        run.optimizer.step()
    go_on(run, "torch", "thalweg.torch")


@pytest.mark.parametrize("target", convert.FRAMEWORKS)
def test_where_no_step_number_counts_a_layer_may_be_thawed_late(target: str) -> None:
    run = torch_run("RMSprop", lr=0.1, eps=0.0)
    for step in gradients(7):
        run.tensors["w"].grad = torch.tensor(step["w"])
        run.optimizer.step()
    here, state = run.params, run.state
    moved = convert.state(state, source="torch", target=target, target_params=here)
    other = moved_to(target, moved, here)
    steps = gradients(AFTER, seed=2)
    assert same_steps(other.run(steps), run.run(steps), here)


@pytest.mark.parametrize("target", convert.FRAMEWORKS)
def test_a_run_that_has_not_begun_begins_the_same(target: str) -> None:
    run = torch_run("Adam", lr=0.1, eps=0.0)
    moved = convert.state(run.state, source="torch", target=target, target_params=start(), rule="adam")
    steps = gradients(5)
    assert same_steps(moved_to(target, moved, start()).run(steps), run.run(steps), start())


# -- what is kept ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("target", convert.FRAMEWORKS)
def test_dtypes_are_kept_and_nothing_is_shared(target: str, dtype: str) -> None:
    m = np.linspace(-1, 1, 6).reshape(3, 2).astype(dtype)
    state = State.of(thalweg.Adam(epsilon=0.0), 4, {}, {"m": {"w": m}, "v": {"w": m**2}})
    moved = convert.state(state, source="thalweg.numpy", target=target)
    state.slots["m"]["w"][:] = 7
    asked = {} if "keras" in target else {"rule": moved.rule}
    given = moved.optimizer([keras.Variable(m, dtype=dtype, name="w")]) if "keras" in target else moved.state
    back = convert.state(given, source=target, target="thalweg.numpy", target_params={"w": m}, **asked)
    found = back.state.slots["m"]["w"]
    assert found.dtype.name == dtype
    np.testing.assert_array_equal(found, m)
    found[:] = 7
    again = convert.state(given, source=target, target="thalweg.numpy", target_params={"w": m}, **asked)
    np.testing.assert_array_equal(again.state.slots["m"]["w"], m)


@pytest.mark.parametrize("target", convert.FRAMEWORKS)
def test_two_optimizers_of_one_conversion_go_their_own_ways(target: str) -> None:
    m = {name: np.ones(shape) for name, shape in SHAPES.items()}
    state = State.of(thalweg.Adam(epsilon=0.0), 4, {}, {"m": m, "v": m})
    moved = convert.state(state, source="thalweg.numpy", target=target)
    steps = gradients(3)
    first = moved_to(target, moved, start()).run(steps)
    again = moved_to(target, moved, start()).run(steps)
    for name, p in first.items():
        np.testing.assert_array_equal(again[name], p)


def test_bfloat16_of_ml_dtypes_is_torchs() -> None:
    m = np.linspace(-1, 1, 6).astype(ml_dtypes.bfloat16)
    state = State.of(thalweg.Momentum(), 4, {}, {"b": {"w": m}})
    found = convert.state(state, source="thalweg.numpy", target="torch").state["state"][0]["momentum_buffer"]
    assert found.dtype == torch.bfloat16
    np.testing.assert_array_equal(found.float().numpy(), m.astype(np.float32))


def test_a_kernel_is_transposed_on_the_way() -> None:
    run = torch_run("Adam", lr=0.1)
    here = run.run(gradients(BEFORE))
    names = {"w": ("layer/kernel", (1, 0)), "b": "layer/bias"}
    moved = convert.state(run.state, source="torch", target="thalweg.numpy", names=names)
    assert (moved.names, dict(moved.map)) == (("layer/kernel", "layer/bias"), names)
    params = convert.arrays(here, names)
    optimizer = moved.optimizer()
    steps = gradients(AFTER, seed=2)
    for grads in steps:
        optimizer.update(params, convert.arrays(grads, names))
    assert same_steps(convert.arrays(params, convert.inverted(names)), run.run(steps), here)


def test_names_may_be_given_in_order_or_proposed() -> None:
    run = torch_run("Adam", lr=0.1)
    run.run(gradients(2))
    target = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(2)}
    for names in ("propose", {"w": ("kernel", (1, 0)), "b": "bias"}):
        moved = convert.state(run.state, source="torch", target="optax", names=names, target_params=target)
        assert moved.state[0].mu["kernel"].shape == (2, 3)
        assert moved.map["w"] == ("kernel", (1, 0))
    moved = convert.state(run.state, source="torch", target="thalweg.numpy", names=["x", "y"])
    assert moved.names == ("x", "y")


def test_nameless_parameters_are_numbered_or_named_by_the_user() -> None:
    params = [torch.zeros(3, 2, requires_grad=True), torch.zeros(2, requires_grad=True)]
    optimizer = torch.optim.Adam(params)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert convert.state(optimizer, source="torch", target="thalweg.numpy").names == ("0", "1")
    for named in (["w", "b"], {"w": params[0], "b": params[1]}, [("w", params[0]), ("b", params[1])]):
        moved = convert.state(optimizer, source="torch", target="thalweg.numpy", source_params=named)
        assert moved.names == ("w", "b")
    moved = convert.state(optimizer, source="torch", target="thalweg.torch")
    assert "param_names" not in moved.state["param_groups"][0]


def test_torch_settings_that_are_not_arithmetic_are_torchs_defaults() -> None:
    state = State.of(thalweg.Adam(), 1, {}, {"m": {"w": np.ones(2)}, "v": {"w": np.ones(2)}})
    moved = convert.state(state, source="thalweg.numpy", target="torch")
    own = torch.optim.Adam([torch.zeros(2)]).state_dict()["param_groups"][0]
    assert set(own) | {"param_names"} == set(moved.state["param_groups"][0])


def test_a_schedulers_own_entries_stay_within_torch() -> None:
    run = torch_run("Adam", lr=0.1)
    torch.optim.lr_scheduler.StepLR(run.optimizer, 3)
    run.run(gradients(2))
    moved = convert.state(run.state, source="torch", target="thalweg.torch")
    assert moved.state["param_groups"][0]["initial_lr"] == 0.1


@pytest.mark.parametrize("given", ["optimizer", "state_dict"])
@pytest.mark.parametrize("module", [torch.optim, thalweg.torch], ids=lambda m: m.__name__)
@pytest.mark.parametrize("kind", ["Adam", "AdamW", "SGD", "NAdam", "RMSprop", "Adagrad"])
def test_keys_and_entries_of_the_users_own_are_no_hindrance(kind: str, module: Any, given: str) -> None:
    p = torch.ones(3, requires_grad=True)
    settings = {"momentum": 0.9} if kind == "SGD" else {}
    key = {"Adam": "alpha", "RMSprop": "nesterov"}.get(kind, "rho")  # settings of other optimizers
    groups = [{"params": [p], "lr_scale": 0.5, key: 0.1, 3: "x"}]
    optimizer = getattr(module, kind)(groups, lr=0.01, **settings)
    p.grad = torch.ones(3)
    optimizer.step()
    optimizer.state[p]["old"] = torch.ones(3)
    optimizer.state["whole"] = {"seen": 3}
    source = optimizer if given == "optimizer" else optimizer.state_dict()
    for target in ("torch", "thalweg.torch", "thalweg.numpy"):
        step = 1 if kind == "SGD" else None
        moved = convert.state(source, source="torch", target=target, step=step)
        assert "entries of your own in the state stay behind: old, whole" in moved.lost
        if target != "thalweg.numpy":
            assert {"lr_scale": 0.5, key: 0.1, 3: "x"}.items() <= moved.state["param_groups"][0].items()
            again = moved.optimizer([torch.ones(3, requires_grad=True)])
            assert (again.param_groups[0]["lr_scale"], again.param_groups[0]["lr"]) == (0.5, 0.01)
    assert moved.state.t == 1


def test_own_keys_beside_a_rule_of_any_kind() -> None:
    p = torch.ones(3, requires_grad=True)
    rule = thalweg.chain(thalweg.ClipByNorm(1.0), thalweg.Adam(0.1))
    optimizer = thalweg.torch.Optimizer([{"params": [p], "lr_scale": 0.5}], rule)
    p.grad = torch.ones(3)
    optimizer.step()
    moved = convert.state(optimizer, source="torch", target="thalweg.torch")
    assert moved.state["param_groups"][0]["lr_scale"] == 0.5
    assert convert.state(optimizer, source="torch", target="thalweg.numpy").rule == rule


@pytest.mark.parametrize(("target", "file"), [("keras", "optimizer"), ("thalweg.keras", "pair")])
def test_kerass_averages_and_accumulators_stay_within_keras(target: str, file: str) -> None:
    settings = {"use_ema": True, "gradient_accumulation_steps": 2}
    run = keras_run(keras.optimizers.Adam(0.1, **settings))
    run.run(gradients(3))
    state: Any = run.optimizer
    if file == "pair":
        state = keras.optimizers.serialize(run.optimizer), [np.array(v) for v in run.optimizer.variables]
    moved = convert.state(state, source="keras", target=target, source_params=start())
    assert len(moved.state) == len(run.optimizer.variables)
    for a, v in zip(moved.state, run.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, v)
    here = run.params
    found = moved_to(target, moved, here).run(gradients(3, seed=2))
    assert same_steps(found, run.run(gradients(3, seed=2)), here)


def test_values_to_go_on_with_may_be_given() -> None:
    run = torch_run("Adam", lr=0.1)
    run.run(gradients(2))
    moved = convert.state(run.state, source="torch", target="thalweg.numpy", lr=0.5)
    assert moved.rule == thalweg.Adam(lr=0.5)


def test_torchs_sgd_keeps_no_step_number() -> None:
    run = torch_run("SGD", lr=0.1, momentum=0.9)
    run.run(gradients(4))
    moved = convert.state(run.state, source="torch", target="keras")
    assert (int(moved.state[0]), len(moved.lost)) == (1, 1)
    assert "torch.optim.SGD keeps none: give it" in moved.lost[0]
    moved = convert.state(run.state, source="torch", target="keras", step=4)
    assert (int(moved.state[0]), moved.lost) == (4, ())
    back = convert.state(moved.optimizer(variables(start())), source="keras", target="torch")
    assert "torch.optim.SGD keeps none" in back.lost[0]


# -- Optax's trees -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: optax.chain(optax.clip(1e9), optax.adam(0.05)),
        lambda: optax.inject_hyperparams(optax.adam)(0.05),
        lambda: optax.masked(optax.adam(0.05), {"w": True, "b": True}),
        lambda: optax.adam(lambda count: 0.05),
        lambda: optax.MultiSteps(optax.adam(0.05), 1),
    ],
    ids=["chain", "inject", "masked", "schedule", "multi"],
)
def test_the_state_is_found_wherever_it_stands(make: Any) -> None:
    run = optax_run(make())
    here = run.run(gradients(BEFORE))
    tree = run.state
    asked: dict[str, Any] = {"rule": "adam", "lr": 0.05}
    if hasattr(tree, "hyperparams"):
        del asked["lr"]
    if hasattr(tree, "acc_grads"):
        tree = tree.inner_opt_state
    moved = convert.state(tree, source="optax", target="torch", **asked)
    steps = gradients(AFTER, seed=2)
    assert same_steps(moved_to("torch", moved, here).run(steps), run.run(steps), here)


@pytest.mark.parametrize("name", [n for n in thalweg.rules() if n not in ("momentum", "nesterov")])
def test_injected_hyperparameters_are_read(name: str) -> None:
    params = {"w": jnp.ones(3)}
    optimizer = optax.inject_hyperparams(getattr(optax, name))(0.1)
    _, state = optimizer.update(params, optimizer.init(params), params)
    moved = convert.state(state, source="optax", target="thalweg.numpy", rule=name, target_params=params)
    assert moved.rule == thalweg.get(name, dialect="optax", lr=0.1)


def test_one_of_several_transformations_is_converted_alone() -> None:
    two = {"x": optax.adam(0.05), "y": optax.sgd(0.1)}
    run = optax_run(optax.multi_transform(two, {"w": "x", "b": "y"}))
    run.run(gradients(3))
    moved = convert.state(run.state, source="optax", target="thalweg.numpy", rule="adam", lr=0.05)
    assert (moved.names, moved.state.t) == (("w",), 3)


def test_a_single_array_has_no_name() -> None:
    p, g = jnp.ones(3), jnp.arange(3.0)
    optimizer = optax.lion(0.1)
    _, state = optimizer.update(g, optimizer.init(p), p)
    moved = convert.state(state, source="optax", target="thalweg.numpy", rule="lion", lr=0.1)
    assert list(moved.state.slots["m"]) == [""]
    back = convert.state(moved.state, source="thalweg.numpy", target="optax", target_params=p)
    np.testing.assert_array_equal(back.state[0].mu, state[0].mu)


def test_a_state_of_thalweg_jax_may_stand_in_a_chain() -> None:
    run = optax_run(optax.chain(optax.clip(1e9), thalweg.jax.adam(0.05)))
    here = run.run(gradients(BEFORE))
    moved = convert.state(run.state, source="thalweg.jax", target="torch", rule="adam")
    steps = gradients(AFTER, seed=2)
    assert same_steps(moved_to("torch", moved, here).run(steps), run.run(steps), here)


def test_time_decay_reads_the_same_in_every_word() -> None:
    run = torch_run("Adagrad", lr=0.1, lr_decay=0.05)
    run.run(gradients(2))
    moved = convert.state(run.state, source="torch", target="thalweg.numpy")
    assert moved.rule.values["lr"] == TimeDecay(0.1, 0.05)
