"""A norm is of the gradient as it stands where it is asked for: in every front end, over several tensors."""

from typing import Any

import numpy as np
import pytest

import thalweg.jax
import thalweg.numpy
import thalweg.torch
from helpers import (
    CLIPS,
    Normed,
    clipped_plainly,
    difference,
    gradients,
    largest_difference,
    parameters,
    train,
)
from thalweg import (
    L2,
    SGD,
    ClipByGlobalNorm,
    ClipByNorm,
    Maximize,
    Rule,
    SkipNonFinite,
    chain,
    trace,
)
from thalweg.kernels.cpu import CHUNK
from thalweg.surfaces.functions import get as surface

every = pytest.mark.parametrize("links", CLIPS.values(), ids=CLIPS)
SHAPES = ((4, 3), (), (5,))


def test_the_norm_of_what_came_before_is_clipped() -> None:
    p = np.array([3.0, 4.0])
    thalweg.numpy.Optimizer(chain(L2(10), ClipByNorm(1), SGD(1))).update(p, np.array([0.3, 0.4]))
    np.testing.assert_allclose(p, [3.0 - 0.6, 4.0 - 0.8], rtol=1e-15)


def test_torch_groups_each_with_its_own_values(path: str) -> None:
    a, b = parameters((4,), (3,))
    grads = gradients([a, b], 1)
    groups = [{"params": [a]}, {"params": [b], "l2": 0.0}]
    treated = [grads[0][0] + 2 * a.detach(), grads[0][1]]
    wanted = clipped_plainly([ClipByGlobalNorm(1)], [a.detach(), b.detach()], [treated], 0.1)
    train(thalweg.torch.Optimizer(groups, chain(L2(2), ClipByGlobalNorm(1), Normed(0.1))), [a, b], grads)
    assert largest_difference([a, b], wanted) <= 1e-12


@every
def test_a_path_whose_point_is_the_whole_model(links: Any) -> None:
    bowl = surface("ravine")
    found = thalweg.path(bowl, chain(*links, Normed(0.1)), steps=5)
    wanted = clipped_plainly(links, [bowl.start], [[found.gradients[0]]], 0.1)
    np.testing.assert_allclose(found.points[1], wanted[0], rtol=1e-12)
    many = thalweg.paths(bowl, chain(*links, Normed()), lr=[0.1, 0.2], steps=5)
    np.testing.assert_allclose(many[0].points, found.points, rtol=1e-12)


def test_intermediates_hold_what_was_clipped() -> None:
    found = thalweg.path("ravine", chain(L2(0.5), ClipByGlobalNorm(1), SGD(0.01)), steps=20)
    pulled = found.gradients[:-1] + 0.5 * found.points[:-1]
    wanted = pulled * np.minimum(1, 1 / np.linalg.norm(pulled, axis=1, keepdims=True))
    np.testing.assert_allclose(found.intermediates["g_new"], wanted, rtol=1e-12)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_sums_do_not_depend_on_threads(threads: int) -> None:
    generator = np.random.default_rng(0)
    shapes = [3 * CHUNK + 17, 1, 2 * CHUNK, 40 * CHUNK]
    params = [generator.standard_normal(n).astype(np.float32) for n in shapes]
    grads = [generator.standard_normal(n).astype(np.float32) for n in shapes]
    wanted = [p.copy() for p in params]
    rule = chain(L2(0.1), ClipByNorm(1), ClipByGlobalNorm(0.5), SGD(1))
    thalweg.numpy.Optimizer(rule, threads=1).update(wanted, grads)
    thalweg.numpy.Optimizer(rule, threads=threads).update(params, grads)
    assert all(map(np.array_equal, params, wanted))


def test_what_one_norm_serves_is_measured_once() -> None:
    program = trace(chain(SkipNonFinite(), ClipByNorm(1), Maximize(), SGD()))
    (norm,) = program.norms
    assert (norm.of_tensor, norm.of_model, program.guard) == ("norm", "global_norm", "global_norm")
    program = trace(chain(Maximize(), ClipByGlobalNorm(1), SGD()))
    assert [norm.reads for norm in program.norms] == [("g",)], "−g is as long as g"
    assert trace(chain(L2(0.1), Maximize(), SGD())).norms == ()


def test_the_guard_looks_at_the_raw_gradient() -> None:
    """A clip by value would bring an infinity back; the step is skipped all the same."""
    p = np.ones(3)
    rule = chain(thalweg.ClipByValue(1.0), SkipNonFinite(), ClipByGlobalNorm(1), SGD(0.1))
    optimizer = thalweg.numpy.Optimizer(rule)
    optimizer.update(p, np.array([1.0, np.inf, 1.0]))
    assert (p.tolist(), optimizer.t) == ([1.0] * 3, 0)


def test_parameters_are_asked_for_where_a_norm_needs_them() -> None:
    class Length(Rule):
        def update(self, g: Any, global_norm: Any) -> Any:
            return g * 0 + global_norm

    p = np.array([3.0, 4.0])
    transform = thalweg.jax.optimizer(chain(L2(1.0), Length()))
    with pytest.raises(ValueError, match="needs the parameters"):
        transform.update(p, transform.init(p))
    found = p.copy()
    thalweg.numpy.Optimizer(chain(L2(1.0), Length())).update(found, np.zeros(2))
    assert difference(found, p - 5) <= 1e-15


def test_a_norm_of_no_gradient_is_refused() -> None:
    class OfTime(thalweg.Treatment):
        def gradient(self, g: Any, given: Any) -> Any:
            return g * given["norm"](given["t"])

    with pytest.raises(
        TypeError,
        match="a value for each entry, such as g; t is one number",
    ):
        trace(chain(OfTime(), SGD()))


def test_formulas_show_the_norm_of_what_was_treated() -> None:
    def clip(*links: Any) -> Any:
        return trace(chain(*links, SGD()))

    pulled, both = clip(L2(0.1), ClipByNorm(1)), clip(L2(0.1), ClipByGlobalNorm(1))
    assert "max(‖gₜ + λ·θₜ₋₁‖, c)" in pulled.unicode()
    assert "max(‖Gₜ + λ·Θₜ₋₁‖, c)" in both.unicode()
    assert r"\lVert G_t + \lambda \, \Theta_{t-1} \rVert" in both.latex()
    assert "‖gₜ‖" in clip(ClipByNorm(1)).unicode()
    assert "‖g̃ₜ‖" in trace(chain(L2(0.1), Normed())).unicode()
    assert "‖G̃ₜ‖" in trace(chain(L2(0.1), Normed())).unicode()
