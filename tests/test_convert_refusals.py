"""What cannot be converted exactly: the reason, what would do instead, and how near the nearest is."""

from typing import Any

import jax.numpy as jnp
import keras
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
    KERAS_WARNS,
    SIDES,
    Side,
    all_in_float64,  # noqa: F401
    gradients,
    moved_to,
    start,
)
from helpers import largest_difference
from thalweg import convert
from thalweg.schedules import Exponential
from thalweg.statefile import State

pytestmark = KERAS_WARNS


def run_of(rule: thalweg.Rule, steps: int = 20) -> Side:
    side = SIDES["thalweg.numpy"](lambda _: thalweg.numpy.Optimizer(rule), start())
    side.run(gradients(steps))
    return side


def rule(name: str, dialect: str, **values: Any) -> thalweg.Rule:
    return thalweg.get(name, dialect=dialect, **{"lr": 0.01, **values})


L2, DECAY, SKIP = thalweg.L2(0.1), thalweg.DecoupledDecay(0.1), thalweg.SkipNonFinite()
CLIP, CLIP_NORM, CLIP_ALL = thalweg.ClipByValue(5.0), thalweg.ClipByNorm(9.0), thalweg.ClipByGlobalNorm(9.0)

# The rule, the target, what the refusal says, and how far the nearest may part in 20 steps, as a share of the
# way; 0 where there is none.
APPROXIMATE: list[tuple[thalweg.Rule, str, str, float]] = [
    (
        rule("adam", "torch"),
        "keras",
        r"adds ε to √v after the bias correction, the target before it.*6\.9",
        1e-5,
    ),
    (rule("adam", "keras"), "optax", "adds ε to √v before the bias correction, the target after it", 1e-5),
    (rule("radam", "torch"), "optax", "adds ε to √v before the bias correction", 1e-5),
    (rule("adagrad", "keras"), "torch", r"divides by √\(v \+ ε\).*by √v \+ ε.*below about √ε = 0.0003", 1e-5),
    (rule("rmsprop", "torch"), "keras", r"divides by √v \+ ε \(ε = 1e-08\), the target by √\(v \+ ε\)", 1e-5),
    (rule("adamax", "torch"), "keras", r"divides by the maximum of \|g\| \+ ε and the past.*1e-08", 1e-5),
    (rule("adamax", "keras"), "optax", r"maximum of \|g\| and the past, with ε added", 1e-5),
    (
        rule("amsgrad", "torch", epsilon=0),
        "optax",
        "takes the maximum before the bias",
        0.4,
    ),
    (rule("amsgrad", "optax", epsilon=0), "torch", "takes the maximum after the bias", 0.4),
    (
        rule("nadam", "torch"),
        "keras",
        r"warms it up with ψ = 0.004, the target .* ψ = 1.*0.4\d+ and 0.7\d+",
        0.8,
    ),
    (rule("nadam", "torch"), "optax", "warms it up with ψ = 0.004, the target keeps it constant", 0.8),
    (rule("nadam", "optax"), "keras", "keeps it constant, the target warms it up with ψ = 1", 0.8),
    (
        rule("momentum", "torch", lr=Exponential(0.1, 0.999)),
        "keras",
        "a schedule gives lr, and Keras has its own: give the number to go on with, as lr=",
        0,
    ),
    (
        rule("momentum", "keras", lr=Exponential(0.1, 0.999)),
        "optax",
        "a schedule moves the learning rate, and the source's velocity holds steps",
        0.05,
    ),
    (
        rule("adam", "torch", lr=Exponential(0.1, 0.9)),
        "torch",
        "torch keeps schedules beside the optimizer",
        0,
    ),
    (rule("adam", "torch", beta_1=lambda t: 0.9), "keras", "a schedule gives beta_1", 0),
    (
        rule("rmsprop", "optax", momentum=0.9, nesterov=True),
        "torch",
        "velocity looks ahead, the target's does",
        0.9,
    ),
    (
        rule("rmsprop", "optax", momentum=0.9, nesterov=True),
        "keras",
        "velocity looks ahead, the target's does",
        0.9,
    ),
    (
        rule("adan", "paper"),
        "optax",
        "weighs the change of the gradient with one minus the target's share",
        0.9,
    ),
    (rule("adan", "paper", beta_2=0.5, weight_decay=0.1), "optax", "decay is proximal", 0.05),
    (thalweg.chain(CLIP, rule("adam", "torch")), "torch", "clipped.*clip_grad_value_ before each step", 1e-9),
    (thalweg.chain(CLIP_NORM, rule("adam", "torch")), "torch", "clipped.*clip_grad_norm_", 1e-9),
    (thalweg.chain(CLIP_ALL, rule("adam", "torch")), "torch", "clipped.*clip_grad_norm_", 1e-9),
    (thalweg.chain(SKIP, rule("adam", "torch")), "torch", "skips a step.*GradScaler", 1e-9),
    (
        thalweg.chain(SKIP, rule("adam", "keras")),
        "keras",
        "skips a step whose gradients are not finite",
        1e-9,
    ),
    (
        thalweg.chain(CLIP, rule("adam", "optax")),
        "optax",
        r"clips the gradient.*put optax.clip\(c\) before",
        1e-9,
    ),
    (thalweg.chain(CLIP_ALL, rule("adam", "optax")), "optax", "optax.clip_by_global_norm", 1e-9),
    (thalweg.chain(CLIP_NORM, rule("adam", "optax")), "optax", "clips the gradient of each tensor", 1e-9),
    (thalweg.chain(SKIP, rule("adam", "optax")), "optax", "apply_if_finite", 1e-9),
    (
        thalweg.chain(L2, rule("adam", "keras")),
        "keras",
        r"L2 penalty 0.1.*keras.regularizers.L2\(0.05\)",
        0.9,
    ),
    (thalweg.chain(L2, rule("adam", "optax")), "optax", r"L2 penalty.*add_decayed_weights", 0.9),
    (
        thalweg.chain(DECAY, rule("adagrad", "torch")),
        "torch",
        "no decoupled weight decay, the source has 0.1",
        0.9,
    ),
    (thalweg.chain(DECAY, rule("adagrad", "optax")), "optax", "has no weight decay, the source has 0.1", 0.9),
]


@pytest.mark.parametrize(("rule", "target", "message", "near"), APPROXIMATE)
def test_what_is_not_exact_is_refused_and_the_nearest_says_how(
    rule: thalweg.Rule, target: str, message: str, near: float
) -> None:
    run = run_of(rule)
    here, state = run.params, run.state
    with pytest.raises(convert.Refused, match=message) as refusal:
        convert.state(state, source="thalweg.numpy", target=target)
    instead = {"optax": "thalweg.jax"}.get(target, f"thalweg.{target}")
    assert f"target={instead!r} goes on exactly" in str(refusal.value)
    exact = convert.state(state, source="thalweg.numpy", target=instead, target_params=here)
    if not near:
        with pytest.raises(convert.Refused):
            convert.state(state, source="thalweg.numpy", target=target, approximate=True)
        return
    assert "approximate=True accepts the difference" in str(refusal.value)
    moved = convert.state(state, source="thalweg.numpy", target=target, approximate=True, target_params=here)
    assert moved.lost[0] in str(refusal.value)
    steps = gradients(20, seed=2)
    wanted, found = run.run(steps), moved_to(target, moved, here).run(steps)
    moves = [wanted[k] - here[k] for k in here]
    apart = largest_difference([found[k] - here[k] for k in here], moves)
    assert (1e-15 if near > 1e-9 else 0) <= apart <= near
    assert (
        largest_difference([moved_to(instead, exact, here).run(steps)[k] - here[k] for k in here], moves)
        <= 1e-10
    )


IMPOSSIBLE: list[tuple[thalweg.Rule, str, str]] = [
    (rule("lion", "keras"), "torch", "torch.optim has no Lion"),
    (rule("adabelief", "paper"), "keras", "keras.optimizers has no AdaBelief"),
    (rule("radam", "torch"), "keras", "keras.optimizers has no RAdam"),
    (
        thalweg.chain(thalweg.Maximize(), rule("adam", "keras")),
        "keras",
        "has no Maximize: negate the loss there",
    ),
    (thalweg.chain(thalweg.Maximize(), rule("adam", "optax")), "optax", r"goes up the gradient.*optax.scale"),
    (thalweg.chain(L2, thalweg.Maximize(), rule("adam", "torch")), "torch", "has no Maximize in this place"),
    (thalweg.chain(L2, DECAY, rule("adam", "torch")), "torch", "has no L2 in this place"),
    (thalweg.chain(CLIP, CLIP_ALL, rule("adam", "keras")), "keras", "has no ClipByGlobalNorm"),
    (rule("momentum", "torch", lr=0.0), "keras", "learning rate of 0: give the rate .* as lr="),
    (rule("momentum", "torch", dampening=1.0), "keras", "a dampening of 1"),
]


@pytest.mark.parametrize(("rule", "target", "message"), IMPOSSIBLE)
def test_what_has_no_counterpart_is_refused_even_approximately(
    rule: thalweg.Rule, target: str, message: str
) -> None:
    state = run_of(rule, 3).state
    for approximate in (False, True):
        with pytest.raises(convert.Refused, match=message):
            convert.state(state, source="thalweg.numpy", target=target, approximate=approximate)
    convert.state(
        state, source="thalweg.numpy", target={"optax": "thalweg.jax"}.get(target, f"thalweg.{target}")
    )


@pytest.mark.parametrize("target", ["keras", "thalweg.keras", "optax", "thalweg.jax", "thalweg.numpy"])
def test_groups_with_rules_of_their_own_are_torchs_alone(target: str) -> None:
    params = [torch.zeros(2, requires_grad=True), torch.zeros(3, requires_grad=True)]
    optimizer = torch.optim.Adam([{"params": params[:1], "lr": 0.1}, {"params": params[1:], "lr": 0.2}])
    with pytest.raises(convert.Refused, match=r"differ: lr is 0.1 and 0.2.*keeps groups") as refusal:
        convert.state(optimizer, source="torch", target=target, approximate=True)
    assert target in str(refusal.value)
    optimizer.param_groups[1]["amsgrad"] = True
    with pytest.raises(convert.Refused, match="one has Adam, one has AMSGrad"):
        convert.state(optimizer, source="torch", target=target)


def test_step_numbers_of_their_own_are_torchs_alone() -> None:
    params = [torch.zeros(2, requires_grad=True), torch.zeros(3, requires_grad=True)]
    optimizer = torch.optim.Adam(params)
    for steps in range(4):
        params[0].grad = torch.ones(2)
        params[1].grad = torch.ones(3) if steps else None
        optimizer.step()
    message = "thalweg.numpy counts the steps of all parameters together, and 1 took 3, others 4"
    with pytest.raises(convert.Refused, match=message):
        convert.state(optimizer, source="torch", target="thalweg.numpy")
    moved = convert.state(optimizer, source="torch", target="thalweg.numpy", approximate=True)
    assert moved.state.t == 4
    assert message in moved.lost[0]


def test_optax_takes_nadams_product_of_momenta_to_be_a_power() -> None:
    m = {"w": np.ones(3)}
    state = State.of(rule("nadam", "optax"), 4, {"mu_product": 0.9**4}, {"m": m, "v": m})
    assert not convert.state(state, source="thalweg.numpy", target="optax").lost
    state.scalars["mu_product"] = 0.5
    with pytest.raises(convert.Refused, match="product of momenta is not β₁ to the number of steps"):
        convert.state(state, source="thalweg.numpy", target="optax")


@pytest.mark.parametrize("target", ["keras", "optax"])
def test_torch_does_not_dampen_its_first_step(target: str) -> None:
    fresh = torch.optim.SGD([("w", torch.zeros(3, requires_grad=True))], momentum=0.9, dampening=0.3)
    asked: dict[str, Any] = {"source": "torch", "target": target, "target_params": {"w": np.zeros(3)}}
    with pytest.raises(convert.Refused, match="does not dampen its first step, which is still to come"):
        convert.state(fresh, **asked)
    assert "first step" in convert.state(fresh, **asked, approximate=True).lost[1]


def test_kerass_own_extras_stay_behind_only_if_told_to() -> None:
    variable = keras.Variable(np.ones(2), dtype="float64", name="w")
    settings = {"use_ema": True, "loss_scale_factor": 2.0, "gradient_accumulation_steps": 2}
    optimizer = keras.optimizers.Adam(**settings)
    optimizer.build([variable])
    optimizer.apply([jnp.ones(2)], [variable])
    optimizer.apply([jnp.ones(2)], [variable])
    with pytest.raises(convert.Refused, match=r"use_ema.*loss_scale_factor.*gradient_accumulation_steps"):
        convert.state(optimizer, source="keras", target="thalweg.numpy")
    moved = convert.state(optimizer, source="keras", target="thalweg.numpy", approximate=True)
    assert (moved.state.t, len(moved.lost)) == (1, 3)


def test_float64_does_not_become_float32_in_silence() -> None:
    import jax

    state = run_of(rule("adam", "optax"), 3).state
    with jax.enable_x64(False):
        for target in ("optax", "thalweg.jax"):
            with pytest.raises(convert.Refused, match=r"JAX computes in float32.*jax_enable_x64"):
                convert.state(state, source="thalweg.numpy", target=target)


# -- what a state does not tell ----------------------------------------------------------------------


def test_what_torch_does_not_tell_is_asked_for() -> None:
    params = [torch.zeros(2, requires_grad=True)]
    fresh = thalweg.torch.Adamax(params).state_dict()
    with pytest.raises(convert.Refused, match=r"may be that of .*: say which, as rule='"):
        convert.state(fresh, source="thalweg.torch", target="thalweg.numpy")
    assert convert.state(fresh, source="torch", target="thalweg.numpy", rule="adamax").rule.name == "adamax"
    params[0].grad = torch.ones(2)
    old = torch.optim.AdamW(params)
    old.step()
    state = old.state_dict()
    del state["param_groups"][0]["decoupled_weight_decay"]  # as before torch 2.7
    with pytest.raises(convert.Refused, match="Adam or AdamW: say which, as rule='adam'"):
        convert.state(state, source="torch", target="thalweg.numpy")
    moved = convert.state(state, source="torch", target="thalweg.torch", rule="adamw")
    assert moved.kind == "thalweg.torch.AdamW"


def test_an_optimizer_that_thalweg_has_not_is_named() -> None:
    params = [torch.zeros(2, requires_grad=True)]
    with pytest.raises(convert.Refused, match=r"the settings lr, lambd.* not those of ASGD"):
        convert.state(torch.optim.ASGD(params), source="torch", target="thalweg.numpy")
    with pytest.raises(convert.Refused, match="not those of an optimizer that Thalweg has"):
        convert.state(torch.optim.ASGD(params).state_dict(), source="torch", target="thalweg.numpy")
    with pytest.raises(convert.Refused, match="not those of Adagrad"):
        convert.state(torch.optim.Adam(params), source="torch", target="thalweg.numpy", rule="adagrad")
    with pytest.raises(ValueError, match="not the state_dict of a torch optimizer"):
        convert.state({"w": params[0]}, source="torch", target="thalweg.numpy")
    variable = keras.Variable(np.ones(2), name="w")
    ftrl = keras.optimizers.Ftrl()
    ftrl.build([variable])
    with pytest.raises(convert.Refused, match=r"keras.optimizers.Ftrl, and Thalweg has no rule of that name"):
        convert.state(ftrl, source="keras", target="torch")


@pytest.mark.parametrize(
    ("more", "slots"),
    [({"bias_correction": False}, ()), ({}, ("compensation",)), ({"nesterov": True}, ())],
    ids=["another setting", "another slot", "another's setting"],
)
def test_an_optimizer_from_elsewhere_is_not_taken_for_one_that_looks_like_it(
    more: dict[str, Any], slots: tuple[str, ...]
) -> None:
    """All that RAdam has, and something besides that may change what it means."""
    group = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, **more, "params": [0]}
    state = {"step": 3, **{k: torch.ones(2) for k in ("exp_avg", "exp_avg_sq", *slots)}}
    with pytest.raises(convert.Refused, match="not those of an optimizer that Thalweg has"):
        convert.state({"state": {0: state}, "param_groups": [group]}, source="torch", target="thalweg.numpy")


def test_optaxs_state_tells_neither_rule_nor_rate() -> None:
    state = optax.adam(0.1).init({"w": jnp.ones(2)})
    with pytest.raises(
        convert.Refused, match='does not tell which rule it follows: give rule=, such as "adam"'
    ):
        convert.state(state, source="optax", target="torch")
    with pytest.raises(convert.Refused, match="does not hold the lr of adam: give lr="):
        convert.state(state, source="optax", target="torch", rule="adam")
    with pytest.raises(convert.Refused, match="no state with the fields sum_of_squares"):
        convert.state(state, source="optax", target="torch", rule="adagrad", lr=0.1)
    with pytest.raises(
        convert.Refused, match="Optax's adam has epsilon_hat=False, the rule that is given has not"
    ):
        convert.state(state, source="optax", target="torch", rule=rule("adam", "keras"))
    two = optax.chain(optax.adam(0.1), optax.adam(0.1)).init({"w": jnp.ones(2)})
    with pytest.raises(convert.Refused, match=r"2 states with the fields count, mu, nu.*\(0/0, 1/0\)"):
        convert.state(two, source="optax", target="torch", rule="adam", lr=0.1)
    injected = optax.inject_hyperparams(optax.adam)(0.1, eps_root=1e-3).init({"w": jnp.ones(2)})
    with pytest.raises(convert.Refused, match=r"adam has no epsilon_root, which is 0.001 in the state"):
        convert.state(injected, source="optax", target="torch", rule="adam")
    velocity = optax.sgd(0.1, momentum=0.9).init({"w": jnp.ones(2)})
    with pytest.raises(convert.Refused, match="does not hold the momentum of momentum: give momentum="):
        convert.state(velocity, source="optax", target="torch", rule="momentum", lr=0.1)


def test_other_state_in_an_optax_tree_is_not_forgotten() -> None:
    tree = optax.chain(optax.adam(0.1), optax.ema(0.9)).init({"w": jnp.ones(2)})
    asked: dict[str, Any] = {"source": "optax", "target": "torch", "rule": "adam", "lr": 0.1}
    with pytest.raises(convert.Refused, match="other state beside it: 1/ema/w"):
        convert.state(tree, **asked)
    assert "1/ema/w" in convert.state(tree, **asked, approximate=True).lost[0]


def test_what_thalweg_jax_does_not_tell_is_asked_for() -> None:
    params = {"w": jnp.ones(2)}
    state = thalweg.jax.amsgrad(lambda count: 0.1).init(params)
    with pytest.raises(convert.Refused, match="does not hold the lr of amsgrad: give lr="):
        convert.state(state, source="thalweg.jax", target="torch", rule="amsgrad")
    with pytest.raises(convert.Refused, match="slots mu, nu, nu_max; adam in this form has mu, nu"):
        convert.state(state, source="thalweg.jax", target="torch", rule="adam", lr=0.1)
    with pytest.raises(convert.Refused, match=r"holds 0 states of thalweg.jax"):
        convert.state(params, source="thalweg.jax", target="torch", rule="adam", lr=0.1)


def test_kerass_variables_alone_do_not_tell_their_rule() -> None:
    variable = keras.Variable(np.ones((2, 3)), dtype="float64", name="w")
    optimizer = keras.optimizers.Nadam(0.1)
    optimizer.build([variable])
    values = [np.array(v) for v in optimizer.variables]
    with pytest.raises(convert.Refused, match="does not tell which rule it follows"):
        convert.state((None, values), source="keras", target="torch")
    moved = convert.state((None, values), source="keras", target="thalweg.numpy", rule="nadam", step=0)
    assert moved.rule == thalweg.get("nadam", dialect="keras", lr=0.1)
    with pytest.raises(
        ValueError, match="has 3 variables besides iteration and learning rate; Adam keeps 2 for"
    ):
        convert.state((None, values), source="keras", target="torch", rule="adam")
    with pytest.raises(TypeError, match="an optimizer, or a pair"):
        convert.state(values[:1], source="keras", target="torch", rule="nadam")
    with pytest.raises(ValueError, match="step=3, but the state says 0"):
        convert.state(optimizer, source="keras", target="thalweg.numpy", step=3)
    with pytest.raises(ValueError, match="no state yet: call its build"):
        convert.state(keras.optimizers.Adam(), source="keras", target="torch")


def test_a_schedule_of_kerass_own_is_asked_for() -> None:
    variable = keras.Variable(np.ones(2), dtype="float64", name="w")
    optimizer = keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 100), momentum=0.9)
    optimizer.build([variable])
    with pytest.raises(convert.Refused, match=r"CosineDecay gives the learning rate.*as lr="):
        convert.state(optimizer, source="keras", target="torch")
    moved = convert.state(optimizer, source="keras", target="torch", lr=0.05)
    assert moved.settings["lr"] == 0.05


def test_a_schedule_that_a_numpy_state_does_not_hold_is_asked_for() -> None:
    state = run_of(rule("adam", "torch", lr=Exponential(0.1, 0.9)), 2).optimizer.state()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="a schedule gives lr, and a state holds no schedules: give lr="):
        convert.state(state, source="thalweg.numpy", target="torch")
    assert convert.state(state, source="thalweg.numpy", target="torch", lr=0.05).settings["lr"] == 0.05
    with pytest.raises(TypeError, match="a State or an Optimizer, got dict"):
        convert.state({}, source="thalweg.numpy", target="torch")
    for other in ("sgd", thalweg.SGD()):
        with pytest.raises(ValueError, match='rule="sgd", but the state says adam'):
            convert.state(state, source="thalweg.numpy", target="torch", rule=other, lr=0.05)


def test_a_scheduler_of_torchs_moves_the_rate_of_kerass_velocity() -> None:
    run = SIDES["torch"](lambda params: torch.optim.SGD(params, 0.1, momentum=0.9), start())
    torch.optim.lr_scheduler.StepLR(run.optimizer, 3)  # type: ignore[attr-defined]
    run.run(gradients(2))
    with pytest.raises(
        convert.Refused, match="schedule moves the learning rate, and the source's velocity holds g"
    ):
        convert.state(run.state, source="torch", target="keras")


def test_shapes_that_are_needed_are_asked_for() -> None:
    fresh = torch.optim.Adam([torch.zeros(2, requires_grad=True)], eps=0)
    with pytest.raises(convert.Refused, match="parameter '0' has no state yet, so its shape is not known"):
        convert.state(fresh, source="torch", target="keras", rule="adam")
    with pytest.raises(convert.Refused, match="shape of parameter '0' is not known: give target_params="):
        convert.state(fresh, source="torch", target="optax", rule="adam")


def test_names_of_frameworks_and_hyperparameters_are_checked() -> None:
    state = State.of(thalweg.Adam(), 0, {}, {})
    with pytest.raises(ValueError, match="target='kears': there is no such framework; did you mean 'keras'"):
        convert.state(state, source="thalweg.numpy", target="kears")
    with pytest.raises(
        ValueError, match=r"source='numpy': there is no such framework; did you mean 'thalweg.numpy'"
    ):
        convert.state(state, source="numpy", target="torch")
    with pytest.raises(thalweg.UnknownHyperparameterError, match="'rho'"):
        convert.state(state, source="thalweg.numpy", target="torch", rho=0.9)


def test_parameters_given_to_optimizer_must_be_those_of_the_state() -> None:
    m = {"w": np.ones((2, 3))}
    moved = convert.state(
        State.of(thalweg.Adam(epsilon=0.0), 1, {}, {"m": m, "v": m}), source="thalweg.numpy", target="torch"
    )
    with pytest.raises(ValueError, match="the state is of the parameters w; given are x"):
        moved.optimizer([("x", torch.zeros(2, 3))])
    with pytest.raises(ValueError, match="2 parameters are given, the state is of 1"):
        moved.optimizer([torch.zeros(2, 3), torch.zeros(2, 3)])
    moved = convert.state(
        State.of(thalweg.Adam(epsilon=0.0), 1, {}, {"m": m, "v": m}), source="thalweg.numpy", target="keras"
    )
    with pytest.raises(ValueError, match=r"w_momentum has shape \(3, 2\), the state \(2, 3\)"):
        moved.optimizer([keras.Variable(np.zeros((3, 2)), name="w")])
    with pytest.raises(ValueError, match="given are v: give state"):
        moved.optimizer([keras.Variable(np.zeros((2, 3)), name="v")])
