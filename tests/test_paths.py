"""Paths: what the front ends would do, step by step; many at once; solvers, basins and maps."""

import sys
from typing import Any

import numpy as np
import pytest
import torch

import thalweg
import thalweg.numpy
import thalweg.torch
from helpers import FORMS, difference, takes_signs
from thalweg import Adam, Momentum, Rule, schedules, surfaces
from thalweg.dialects import DIALECTS
from thalweg.eager import Driver
from thalweg.surfaces import solvers
from thalweg.surfaces.functions import Noise, Surface
from thalweg.surfaces.maps import Theory, basins, rate_map
from thalweg.surfaces.paths import Path, path, paths

RAVINE = surfaces.get("ravine")
BEALE = surfaces.get("beale")
CHAIN = thalweg.chain(
    thalweg.ClipByGlobalNorm(3.0), thalweg.L2(0.01), thalweg.DecoupledDecay(0.1), thalweg.Adam(lr=0.1)
)


def eager_path(surface: Surface, rule: Rule, start: Any, steps: int) -> tuple[Any, list[dict[str, Any]]]:
    """The rule as written, step by step."""
    p, driver = np.array(start, np.float64), Driver(rule)
    points, states = [p], [driver.states[0]]
    for _ in range(steps):
        with np.errstate(all="ignore"):  # RAdam takes a root that it does not use
            p = p - driver.step(p, surface.gradient(p))
        points.append(p)
        states.append(driver.states[0])
    return np.array(points), states


# -- equal to what runs elsewhere ----------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_path_is_the_rule_as_written(form: str) -> None:
    rule = FORMS[form].replaced(lr=0.1)
    found = path(RAVINE, rule, steps=40)
    points, states = eager_path(RAVINE, rule, RAVINE.start, 40)
    assert difference(found.points, points) <= 1e-12
    for slot in found.state:
        for t, state in enumerate(states):
            np.testing.assert_allclose(
                found.state[slot][t], state[slot] + 0 * found.state[slot][t], 1e-11, 1e-11
            )


@pytest.mark.parametrize("name", [*thalweg.rules(), "chain"])
def test_a_path_is_what_the_front_ends_do(name: str) -> None:
    rule = CHAIN if name == "chain" else thalweg.get(name, lr=0.1)
    found = path(RAVINE, rule, steps=30)
    p, q = (np.array(RAVINE.start) for _ in range(2))
    tensor = torch.tensor(q, requires_grad=True)
    ours, torchs = thalweg.numpy.Optimizer(rule), thalweg.torch.Optimizer([tensor], rule)
    for t in range(1, 31):
        ours.update(p, RAVINE.gradient(p))
        tensor.grad = torch.tensor(RAVINE.gradient(tensor.detach().numpy()))
        torchs.step()
        for reached in (p, tensor.detach().numpy()):
            assert difference(found.points[t], reached) <= 1e-12


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", ["momentum", "rmsprop", "adam"])
def test_dialects_are_honoured(name: str, dialect: str) -> None:
    rule = thalweg.get(name, dialect=dialect, lr=0.1)
    points, _ = eager_path(RAVINE, rule, RAVINE.start, 20)
    assert difference(path(RAVINE, rule, steps=20).points, points) <= 1e-12


@pytest.mark.parametrize("lr", [schedules.Cosine(0.1, 20), lambda t: 0.1 / t])
def test_schedules_are_honoured(lr: Any) -> None:
    for rule in (Adam(lr=lr), thalweg.chain(thalweg.ClipByNorm(1.0), Momentum(lr=lr))):
        points, _ = eager_path(RAVINE, rule, RAVINE.start, 30)
        assert difference(path(RAVINE, rule, steps=30).points, points) <= 1e-12
    many = paths(RAVINE, "adam", lr=lr, beta_1=[0.5, 0.9], steps=30)
    assert difference(many[1].points, path(RAVINE, Adam(lr=lr), steps=30).points) <= 1e-12


@pytest.mark.parametrize("name", [*thalweg.rules(), "chain"])
@pytest.mark.parametrize("surface", [BEALE, surfaces.ill_conditioned(5)], ids=["beale", "quadratic"])
def test_many_paths_are_the_single_ones(name: str, surface: Surface) -> None:
    rule = CHAIN if name == "chain" else thalweg.get(name)
    rates = np.array([[0.0002], [0.002]])
    starts = np.array(surface.start) + 0.3 * np.random.default_rng(0).standard_normal((3, surface.dimensions))
    many = paths(surface, rule, starts=starts, lr=rates, steps=25)
    assert many.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        one = path(surface, rule.replaced(lr=float(rates[i, 0])), starts[j], 25)
        if not (takes_signs(rule) and surface is not BEALE):  # rounding decides a sign where terms cancel
            assert difference(many[i, j].points, one.points) <= 1e-12
            assert many.state.keys() == one.state.keys()
            for slot in one.state:
                np.testing.assert_allclose(many[i, j].state[slot], one.state[slot], 1e-10, 1e-10)
        assert many[i, j].hyperparameters["lr"] == rates[i, 0]


def test_any_hyperparameter_may_differ() -> None:
    shape = {"beta_1": (0.5, 0.9), "beta_2": (0.99, 0.9), "epsilon": (1e-8, 1e-2), "weight_decay": (0.1, 0.0)}
    many = paths(RAVINE, "adamw", lr=[0.1, 0.2], steps=20, **shape)
    for i in range(2):
        own = {name: values[i] for name, values in shape.items()}
        one = path(RAVINE, thalweg.AdamW(lr=[0.1, 0.2][i], **own), steps=20)
        assert difference(many[i].points, one.points) <= 1e-12
    # A slot that starts at a hyperparameter, a slot that is one number, and a treatment's value.
    starts = paths(RAVINE, "adagrad", lr=0.5, initial_accumulator=[0.1, 1.0], steps=3)
    assert starts.state["s"][0].tolist() == [[0.1, 0.1], [1, 1]]
    product = paths(RAVINE, "nadam", beta_1=[0.5, 0.9], steps=3).state["mu_product"]
    assert product.shape == (4, 2)
    assert product[0].tolist() == [1, 1]
    clipped = paths(RAVINE, CHAIN, clip_global_norm=[0.1, 100.0], steps=3)
    assert (
        difference(clipped[1].end, path(RAVINE, CHAIN.replaced(clip_global_norm=100.0), steps=3).end) <= 1e-12
    )


# -- what a path knows ---------------------------------------------------------------------------


def test_a_path_s_figures() -> None:
    found = path("ravine", "sgd", [2.0, 1.0], steps=3)
    assert found.steps == 3
    assert found.shape == ()
    np.testing.assert_allclose(found.points[1], [2 - 0.01 * 0.2, 1 - 0.01 * 2])
    np.testing.assert_allclose(found.values, [p[0] ** 2 / 20 + p[1] ** 2 for p in found.points])
    np.testing.assert_allclose(found.gradients, RAVINE.gradient(found.points))
    np.testing.assert_allclose(found.gradient_norms, np.linalg.norm(found.gradients, axis=1))
    np.testing.assert_allclose(found.moves, np.diff(found.points, axis=0))
    np.testing.assert_allclose(found.step_sizes, 0.01)
    assert found.evaluations["gradient"].tolist() == [0, 1, 2, 3]
    assert found.diverged_at == -1
    assert not found.diverged
    assert found.end is not None
    assert path("ravine", "adam", steps=3).state["m"].shape == (4, 2)
    assert np.isnan(path(RAVINE, "sgd", [0.0, 1.0], steps=2).step_sizes[0, 0])


@pytest.mark.parametrize("form", FORMS)
def test_what_the_formulas_came_to_is_what_the_rule_kept(form: str) -> None:
    rule = FORMS[form].replaced(lr=0.1)
    found = path(RAVINE, rule, steps=20)
    came = found.intermediates
    assert [*came] == [line.name for line in thalweg.trace(rule).formulas]
    for slot, numbers in found.state.items():
        kept = came.get(f"{slot}_new")
        if kept is not None:
            after = np.broadcast_to(numbers[1:].reshape(20, -1), kept.shape)
            np.testing.assert_allclose(kept, after, 1e-11, 1e-11, err_msg=slot)


def test_what_the_formulas_came_to_on_many_paths_with_a_schedule() -> None:
    lr, beta_2 = schedules.Cosine(0.1, 10), np.array([[0.9], [0.99]])
    found = paths(BEALE, "adam", starts=[[1.0, 1.0], [0.5, 2.0], [2.0, 0.1]], lr=lr, beta_2=beta_2, steps=10)
    t = np.arange(1, 11).reshape(10, 1, 1, 1)
    m_hat = found.state["m"][1:] / (1 - 0.9**t)
    v_hat = found.state["v"][1:] / (1 - beta_2[..., None] ** t)
    np.testing.assert_allclose(found.intermediates["m_hat"], m_hat)
    np.testing.assert_allclose(found.intermediates["v_hat"], v_hat)
    clipped = path("ravine", thalweg.chain(thalweg.ClipByNorm(1.0), Momentum(lr=lr)), steps=10)
    assert clipped.intermediates["fresh"].shape == (10, 1)
    lengths = np.linalg.norm(clipped.intermediates["g_new"], axis=-1)
    np.testing.assert_allclose(lengths, np.minimum(1, clipped.gradient_norms[:-1]))
    assert path("ravine", "bfgs").intermediates == {}


def test_one_of_many_paths() -> None:
    many = paths(BEALE, "adam", lr=np.geomspace(1e-3, 1, 6).reshape(2, 3), steps=5)
    assert isinstance(many[1], Path)
    assert many[1].shape == (3,)
    assert many[1, 2].shape == ()
    assert many[:, 0].shape == (2,)
    np.testing.assert_array_equal(many[1, 2].values, many.values[:, 1, 2])
    np.testing.assert_array_equal(many[1, 2].state["v"], many.state["v"][:, 1, 2])
    for wrong in ((0, 0, 0), ...):
        with pytest.raises(IndexError, match="at most 2 indices"):
            many[wrong]


def test_divergence_is_told_without_a_warning() -> None:
    many = paths(RAVINE, "sgd", lr=[0.5, 1.01, 1.5, 1e200], steps=600)
    assert many.diverged.tolist() == [False, True, True, True]
    at = many.diverged_at
    assert at[0] == -1
    assert at[1] > at[2] > at[3] == 1
    assert np.isnan(many.values[-1, 3]) or np.isinf(many.values[-1, 3])
    cubic = path(BEALE, "momentum", steps=200)
    assert cubic.diverged
    assert not np.isfinite(cubic.end).any()
    assert np.isnan(cubic.step_sizes[-1]).all()


def test_a_guarded_rule_stays_where_the_gradient_is_not_finite() -> None:
    edge = surfaces.parse("sqrt(x) + y**2", window=[(-1, 2), (-1, 1)])
    rule = thalweg.chain(thalweg.SkipNonFinite(), Momentum(lr=0.5))
    found = path(edge, rule, [1.0, 0.5], steps=6)
    lost = int(found.diverged_at)
    assert 0 < lost < 6
    assert (found.points[lost:] == found.points[lost]).all()
    assert np.isfinite(found.state["b"]).all()
    assert not np.isfinite(path(edge, Momentum(lr=0.5), [1.0, 0.5], steps=6).end).all()
    many = paths(edge, rule, starts=[[1.0, 0.5], [900.0, 0.5]], steps=6)
    np.testing.assert_array_equal(many[0].points, found.points)
    assert (many[1].moves[:, 0] != 0).all()


# -- noise ---------------------------------------------------------------------------------------


def test_noise_is_the_seed_s() -> None:
    one, same, other = (path("noisy", "sgd", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.points, same.points)
    assert (one.points[1:] != other.points[1:]).all()
    np.testing.assert_array_equal(path("noisy", "sgd", steps=10).points, one.points[:11])
    surface = surfaces.get("noisy")
    seen = one.gradients - surface.gradient(one.points)
    np.testing.assert_allclose(seen, 0.5 * np.random.default_rng([0, 1]).standard_normal((101, 2)))
    np.testing.assert_allclose(path("noisy", "sgd", noise=0).gradients[0], surface.gradient(surface.start))


def test_seeds_are_an_axis_like_any_other() -> None:
    many = paths("noisy", "adam", lr=[[0.1], [0.2]], seed=np.arange(3), steps=20)
    assert many.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        one = path("noisy", Adam(lr=[0.1, 0.2][i]), seed=j, steps=20)
        assert difference(many[i, j].points, one.points) <= 1e-12


def test_a_sparse_feature_is_seldom_seen() -> None:
    seen = path("sparse", "sgd", steps=2000).gradients
    assert (seen[:, 0] != 0).all()
    assert (seen[:, 1] != 0).mean() == pytest.approx(0.05, abs=0.01)
    noisy = path("ravine", "sgd", noise=Noise(0.1, (0.5, 1.0)), steps=50)
    assert 0 < (np.abs(noisy.gradients[:, 0]) < 0.3).mean() < 1


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: path("beal", "adam"), "did you mean 'beale'"),
        (lambda: path("beale", "adm"), "did you mean 'adam'"),
        (lambda: path("beale", "adam", [1.0, 2.0, 3.0]), "one point of 2 entries"),
        (lambda: path("beale", "adam", steps=0), "steps is a whole number"),
        (lambda: path("beale", "adam", noise=-1.0), "deviation of noise"),
        (lambda: path("beale", "bfgs", noise=1.0), "without noise"),
        (lambda: paths("beale", "adam", starts=[[1.0, 2.0, 3.0]]), r"starts on beale are arrays \(…, 2\)"),
        (lambda: paths("beale", "adam", lr=[0.1, -0.1]), r"every lr must lie in \[0, ∞\)"),
        (lambda: paths("beale", "adam", lr=[0.1, np.nan]), "every lr must lie"),
        (lambda: paths("beale", "adam", lr=[]), "every lr must lie"),
        (lambda: paths("beale", "adam", lr=-1.0), "lr must lie"),
        (lambda: paths("beale", "adam", beta1=[0.1]), "did you mean 'beta_1'"),
        (lambda: paths("beale", "adam", lr=[1, 2], beta_1=[0.1, 0.2, 0.3]), r"lr \(2,\), beta_1 \(3,\)"),
        (lambda: paths("noisy", "adam", seed=0.5), "seeds are whole numbers"),
        (lambda: paths("noisy", "adam", seed=-1), "seeds are whole numbers"),
        (lambda: rate_map("saddle", "sgd", lr=[0.1]), "no minimum of saddle"),
        (lambda: rate_map("ravine", "sgd"), "one or two hyperparameters"),
        (lambda: rate_map("ravine", "sgd", lr=[[0.1]]), "1-D"),
        (lambda: rate_map("ravine", "sgd", lr=[0.1], seed=[1, 2], noise=1.0), "one start and one seed"),
        (lambda: Theory.of("beale"), "beale is no quadratic"),
        (lambda: Theory(2.0, 1.0), "curvatures are positive"),
        (lambda: solvers.get("bfg"), "did you mean 'bfgs'"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "call", [lambda: path(3, "adam"), lambda: path("beale", Adam), lambda: paths("beale", "bfgs")]
)
def test_what_is_neither_surface_nor_rule(call: Any) -> None:
    with pytest.raises(TypeError, match=r"got|is a solver"):
        call()


# -- solvers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", solvers.names())
@pytest.mark.parametrize("surface", surfaces.names())
def test_solvers_go_down(surface: str, name: str) -> None:
    found = path(surface, name, steps=60)
    assert 1 <= len(found.points) <= 61
    assert np.isfinite(found.points).all()
    np.testing.assert_array_equal(found.points[0], found.surface.start)
    with np.errstate(invalid="ignore"):
        assert (np.diff(found.values) <= 1e-12 * np.abs(found.values[:-1])).all() or found.diverged
    asked = {what: counts[-1] > 0 for what, counts in found.evaluations.items()}
    needs = solvers.get(name).needs
    assert asked == {"value": True, "gradient": needs != "", "hessian": needs == "hessian"} or not found.steps
    for counts in found.evaluations.values():
        assert counts[0] == 0
        assert (np.diff(counts) >= 0).all()


@pytest.mark.parametrize("name", solvers.names())
@pytest.mark.parametrize("surface", ["ravine", "booth", "himmelblau"])
def test_solvers_arrive(surface: str, name: str) -> None:
    found = path(surface, name, steps=300)
    away = np.linalg.norm(found.end - np.array(found.surface.minima), axis=1).min()
    assert away <= 1e-4
    assert found.steps < 300


def test_newton_reaches_the_banana_s_end_where_descent_has_hardly_begun() -> None:
    assert path("rosenbrock", "newton_cg", steps=100).values[-1] < 1e-12
    assert path("rosenbrock", "line_search", steps=100).values[-1] > 1e-3


def test_solvers_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match="bfgs needs scipy: pip install scipy"):
        path("ravine", "bfgs")
    assert path("ravine", "line_search").values[-1] < 1e-9


# -- basins --------------------------------------------------------------------------------------


def test_each_minimum_of_himmelblau_has_its_basin() -> None:
    found = basins("himmelblau", Adam(lr=0.1), 20, steps=300)
    assert found.labels.shape == (20, 20)
    assert (found.labels >= 0).all()
    assert not found.diverged.any()
    assert found.shares.sum() == pytest.approx(1)
    # Whoever starts near a minimum ends there.
    for i, minimum in enumerate(found.minima):
        near = np.linalg.norm(found.starts - minimum, axis=-1) < 0.8
        assert near.any()
        assert (found.labels[near] == i).all()


def test_lost_starts_belong_to_no_basin() -> None:
    found = basins("himmelblau", thalweg.SGD(lr=0.04), 12, steps=200)
    assert found.diverged.any()
    assert (found.labels[found.diverged] == -1).all()
    saddle = basins("saddle", thalweg.SGD(lr=0.1), 6, steps=100)
    assert len(saddle.minima) == 0
    assert (saddle.labels == -1).all()


def test_minima_that_are_not_known_are_found() -> None:
    known = surfaces.get("styblinski_tang")
    typed = surfaces.parse("(x**4 - 16*x**2 + 5*x + y**4 - 16*y**2 + 5*y)/2", window=known.window)
    found = basins(typed, Adam(lr=0.2), 14, steps=400)
    assert len(found.minima) == 4
    for minimum in known.minima:
        assert np.linalg.norm(found.minima - minimum, axis=1).min() < 1e-3
    np.testing.assert_allclose(found.minima[0], known.minima[0], atol=1e-3)  # the lowest first


def test_basins_of_a_solver_and_of_chosen_starts() -> None:
    found = basins("double_well", "bfgs", [[-1.0], [0.9], [1.0]])
    assert found.labels.tolist() == [0, 1, 1]


# -- maps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ravine", "booth", "ill_conditioned"])
@pytest.mark.parametrize("rule", ["sgd", "momentum", "nesterov"])
def test_rules_diverge_where_theory_has_it(name: str, rule: str) -> None:
    highest = Theory.of(name).highest
    axes = {} if rule == "sgd" else {"momentum": np.linspace(0, 0.9, 10)}
    found = rate_map(name, rule, lr=np.linspace(0.02, 4.2, 210) / highest, steps=400, **axes)
    assert found.limit is not None
    assert found.limit.shape == found.boundary.shape
    np.testing.assert_allclose(found.boundary * highest, found.limit * highest, atol=0.041)
    assert (found.boundary >= found.limit * (1 - 1e-12)).all()
    assert (found.steps[found.diverged] == -1).all()


def test_theory_of_the_ravine() -> None:
    theory = Theory.of("ravine")
    assert (theory.lowest, theory.highest, theory.condition) == pytest.approx((0.1, 2, 20))
    assert theory.limit() == pytest.approx(1)
    assert theory.limit(0.9) == pytest.approx(1.9)
    assert theory.nesterov_limit([0, 1]).tolist() == pytest.approx([1, 2 / 3])
    assert theory.best_lr == pytest.approx(2 / 2.1)
    lr, beta = theory.polyak
    assert theory.rate(lr, beta) == pytest.approx(beta**0.5)
    assert theory.rate(theory.best_lr) == pytest.approx(19 / 21)
    assert theory.rate(theory.limit(0.5), 0.5) == pytest.approx(1)
    # No other pair is faster.
    rates = theory.rate(np.linspace(0.01, 4, 200)[:, None], np.linspace(0, 0.99, 100))
    assert rates.min() >= theory.rate(lr, beta)
    assert rates.min() == pytest.approx(float(theory.rate(lr, beta)), abs=0.02)
    assert theory.nesterov == pytest.approx((0.5, (20**0.5 - 1) / (20**0.5 + 1)))


def test_polyak_s_parameters_arrive_at_the_rate_foretold() -> None:
    theory = Theory.of("ravine")
    lr, beta = theory.polyak
    found = path(RAVINE, Momentum(lr=lr, momentum=beta), steps=60)
    away = np.linalg.norm(found.points, axis=1)
    assert (away[60] / away[20]) ** (1 / 40) == pytest.approx(beta**0.5, abs=0.03)
    best = path(RAVINE, thalweg.SGD(lr=theory.best_lr), steps=60)
    away = np.linalg.norm(best.points, axis=1)
    assert (away[60] / away[20]) ** (1 / 40) == pytest.approx(19 / 21, abs=1e-6)


def test_a_map_counts_the_steps_until_a_path_stays() -> None:
    found = rate_map("ravine", "momentum", lr=[0.05, 0.5, 3.0], momentum=[0.0, 0.9], steps=300)
    assert found.steps.shape == (3, 2)
    for i, j in np.ndindex(3, 2):
        rule = Momentum(lr=[0.05, 0.5, 3.0][i], momentum=[0.0, 0.9][j])
        values = path(RAVINE, rule, steps=300).values
        above = ~(values <= 1e-3 * values[0])
        wanted = np.flatnonzero(above)[-1] + 1
        assert found.steps[i, j] == (wanted if wanted <= 300 else -1)
    assert found.diverged.tolist() == [[False, False], [False, False], [True, True]]
    best = found.best
    assert found.steps[[0.05, 0.5, 3.0].index(best["lr"]), [0.0, 0.9].index(best["momentum"])] == min(
        s for s in found.steps.flat if s >= 0
    )


def test_maps_of_other_rules_have_no_theory() -> None:
    found = rate_map("rosenbrock", "adam", lr=[0.01, 0.3], beta_1=[0.5, 0.9, 0.99], steps=400)
    assert found.steps.shape == (2, 3)
    assert found.theory is None
    assert found.limit is None
    adam = rate_map("ravine", "adam", beta_1=[0.5, 0.9])
    assert adam.limit is None
    assert adam.best == {}
    with pytest.raises(ValueError, match="not over lr"):
        _ = adam.boundary
    scheduled = rate_map("ravine", Momentum(momentum=lambda t: 0.5), lr=[0.1, 0.2])
    assert scheduled.limit is None
    damped = rate_map("ravine", Momentum(dampening=0.5, momentum=0.5), lr=np.linspace(0.1, 5, 99))
    assert damped.limit == pytest.approx(3)
    assert damped.boundary == pytest.approx(3, abs=0.051)
