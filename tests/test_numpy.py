"""The NumPy front end: the idiom of courses, in place, with state in files."""

import json

import ml_dtypes
import numpy as np
import pytest

import thalweg
import thalweg.numpy
from helpers import FORMS
from thalweg.numpy import Optimizer
from thalweg.statefile import read


def eager(rule, p, gradients):
    state = dict(rule.initial_state())
    for t, g in enumerate(gradients, 1):
        step, state = rule.at(t).advance(t, g, p, state)
        p = p - step
    return p


@pytest.fixture
def gradients():
    return list(np.random.default_rng(1).standard_normal((12, 4, 3)))


@pytest.mark.parametrize("name", thalweg.rules())
def test_update_takes_the_steps_of_the_rule_as_written(name, gradients):
    rule = thalweg.get(name)
    p = np.ones((4, 3))
    optimizer = getattr(thalweg.numpy, name)()
    for g in gradients:
        optimizer.update(p, g)
    np.testing.assert_allclose(p, eager(rule, np.ones((4, 3)), gradients), rtol=1e-12)
    assert optimizer.t == len(gradients)


@pytest.mark.parametrize("spelling", ["AdaGrad", "Adagrad", "ADAGRAD", "ada_grad"])
def test_names_as_courses_spell_them(spelling):
    assert getattr(thalweg.numpy, spelling)(lr=0.5).rule == thalweg.Adagrad(lr=0.5)


def test_unknown_name_says_the_nearest():
    with pytest.raises(AttributeError, match="did you mean 'adam'"):
        thalweg.numpy.Adm  # noqa: B018


@pytest.mark.parametrize("container", [dict, list, tuple])
def test_dictionaries_lists_and_arrays_give_the_same(container, gradients):
    params = {"w": np.ones((4, 3)), "b": np.zeros(2)}
    grads = {"w": gradients[0], "b": np.array([1.0, -2.0])}
    if container is dict:
        thalweg.numpy.Adam().update(params, grads)
    else:
        thalweg.numpy.Adam().update(container(params.values()), container(grads.values()))
    single = np.ones((4, 3))
    thalweg.numpy.Adam().update(single, gradients[0])
    np.testing.assert_array_equal(params["w"], single)
    assert params["b"][0] < 0 < params["b"][1]


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a[::-1],
        lambda a: a[:, ::2],
        lambda a: a[1:3],
        lambda a: a[1, 1:2].reshape(()),
    ],
    ids=["transposed", "reversed", "gaps", "slice", "0-d"],
)
def test_strided_parameters_are_updated_in_place(view):
    base = np.arange(24.0).reshape(4, 6)
    whole, p = base.copy(), view(base)
    start, g = p.copy(), np.linspace(1, 2, p.size).reshape(p.shape)
    thalweg.numpy.SGD(lr=0.5).update(p, np.array(g, order="F"))
    np.testing.assert_allclose(p, start - 0.5 * g)
    view(whole)[...] = p
    np.testing.assert_array_equal(base, whole)  # nothing beside the view has changed


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_dtypes_are_kept_and_half_types_round_once(dtype):
    p = np.linspace(-1, 1, 33).astype(dtype)
    wanted = p.astype(np.float64) - 0.5 * np.linspace(1, 2, 33).astype(dtype).astype(np.float64)
    thalweg.numpy.SGD(lr=0.5).update(p, np.linspace(1, 2, 33))
    assert p.dtype == dtype
    compute = np.float64 if dtype is np.float64 else np.float32
    np.testing.assert_array_equal(p, wanted.astype(compute).astype(dtype))


def test_mixed_dtypes_step_together():
    params = {"a": np.ones(3, np.float32), "b": np.ones(3), "c": np.ones(3, np.float16)}
    optimizer = Optimizer(thalweg.chain(thalweg.ClipByGlobalNorm(1.0), thalweg.SGD(lr=1.0)))
    optimizer.update(params, {k: np.full(3, 2.0) for k in params})
    for p in params.values():  # nine entries of 2 have norm 6
        np.testing.assert_allclose(p, 1 - 2 / 6, rtol=1e-3)


def test_the_gradient_may_be_the_parameter_itself():
    p = np.linspace(-1, 1, 101)
    start = p.copy()
    thalweg.numpy.Nesterov(lr=0.1).update(p, p)
    np.testing.assert_allclose(p, start - 0.19 * start)


def test_empty_parameters_and_empty_models():
    optimizer = thalweg.numpy.Adam()
    optimizer.update({"a": np.ones((0, 3))}, {"a": np.ones((0, 3))})
    assert optimizer.t == 1
    thalweg.numpy.Adam().update({}, {})


def test_threads_change_nothing():
    g = np.random.default_rng(0).standard_normal(1_500_001).astype(np.float32)
    results = []
    for threads in (1, 2, 3):
        p = np.ones_like(g)
        rule = thalweg.chain(thalweg.ClipByGlobalNorm(1.0), thalweg.Adam(lr=0.1))
        Optimizer(rule, threads=threads).update(p, g)
        results.append(p)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_skipped_step_changes_nothing():
    optimizer = Optimizer(thalweg.chain(thalweg.SkipNonFinite(), thalweg.Nadam(lr=0.1)))
    p, q = np.ones(5), np.ones(3)
    optimizer.update([p, q], [np.ones(5), np.ones(3)])
    before, p0 = optimizer.state(), p.copy()
    optimizer.update([p, q], [np.ones(5), np.array([1.0, np.nan, 1.0])])
    np.testing.assert_array_equal(p, p0)
    after = optimizer.state()
    assert (after.t, after.scalars) == (before.t, before.scalars) == (1, before.scalars)
    np.testing.assert_array_equal(after.slots["m"]["0"], before.slots["m"]["0"])


# -- state ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("name", ["sgd", "nadam", "adan", "amsgrad"])
def test_a_saved_run_goes_on_exactly(name, ending, tmp_path, gradients):
    params = {"w/1": np.ones((4, 3)), "h": np.ones((4, 3), ml_dtypes.bfloat16)}
    optimizer = getattr(thalweg.numpy, name)(lr=0.05)
    for g in gradients[:6]:
        optimizer.update(params, dict.fromkeys(params, g))
    path = tmp_path / f"state.{ending}"
    optimizer.save(path)
    copies = {k: p.copy() for k, p in params.items()}
    for g in gradients[6:]:
        optimizer.update(params, dict.fromkeys(params, g))
    resumed = getattr(thalweg.numpy, name)()  # the learning rate comes with the state
    resumed.load(path)
    for g in gradients[6:]:
        resumed.update(copies, dict.fromkeys(copies, g))
    for k, p in params.items():
        np.testing.assert_array_equal(copies[k], p)


def test_state_shares_nothing():
    optimizer = thalweg.numpy.Momentum(lr=0.1)
    p = np.ones(3)
    optimizer.update(p, np.ones(3))
    state = optimizer.state()
    state.slots["b"][""][:] = 99
    other = thalweg.numpy.Momentum()
    other.load(state)
    state.slots["b"][""][:] = 77
    assert optimizer.state().slots["b"][""][0] == 1
    assert other.state().slots["b"][""][0] == 99


def test_a_schedule_survives_loading():
    schedule = thalweg.schedules.Exponential(1.0, 0.5)
    first = thalweg.numpy.SGD(lr=schedule)
    p = np.zeros(1)
    first.update(p, np.ones(1))
    second = thalweg.numpy.SGD(lr=schedule)
    second.load(first.state())
    second.update(p, np.ones(1))
    assert p[0] == -1.5


def test_files_are_replaced_whole_and_never_pickled(tmp_path, monkeypatch):
    path = tmp_path / "state.npz"
    optimizer = thalweg.numpy.Adam()
    optimizer.update(np.ones(3), np.ones(3))
    optimizer.save(path)
    good = path.read_bytes()
    monkeypatch.setattr(np, "savez", _full_disk)
    with pytest.raises(OSError, match="disk full"):
        optimizer.save(path)
    assert path.read_bytes() == good
    assert [f.name for f in tmp_path.iterdir()] == ["state.npz"]
    with np.load(path, allow_pickle=False) as file:
        assert json.loads(str(file[""]))["rule"] == "adam"


def _full_disk(*_args, **_kwargs):
    raise OSError("disk full")


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_damaged_files_are_named(ending, tmp_path):
    path = tmp_path / f"state.{ending}"
    optimizer = thalweg.numpy.Adam()
    optimizer.update(np.ones(300), np.ones(300))
    optimizer.save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=f"state.{ending} is not a state"):
        read(path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / f"absent.{ending}")
    with pytest.raises(ValueError, match=r"npz or \.safetensors"):
        optimizer.save(tmp_path / "state.pkl")


def test_loading_another_rule_or_form_is_refused_and_changes_nothing():
    momentum, adam = thalweg.numpy.Momentum(), thalweg.numpy.Adam()
    p = np.ones(3)
    momentum.update(p, np.ones(3))
    with pytest.raises(ValueError, match="written by 'momentum'"):
        adam.load(momentum.state())
    centered = thalweg.numpy.RMSprop(centered=True)
    centered.update(p, np.ones(3))
    plain = thalweg.numpy.RMSprop()
    with pytest.raises(ValueError, match="rmsprop with centered=True; this optimizer has centered=False"):
        plain.load(centered.state())
    clip, decay = thalweg.ClipByValue(1.0), thalweg.DecoupledDecay(0.1)
    clipped = Optimizer(thalweg.chain(clip, decay, thalweg.Adam()))
    clipped.update(p, np.ones(3))
    with pytest.raises(ValueError, match=r"adam with ClipByValue, .*clip_value.*; this optimizer has less"):
        adam.load(clipped.state())
    with pytest.raises(ValueError, match="adam with another order; this optimizer has another order"):
        Optimizer(thalweg.chain(decay, clip, thalweg.Adam())).load(clipped.state())
    odd = momentum.state()
    odd.slots["c"] = odd.slots.pop("b")
    with pytest.raises(ValueError, match="slots c; this form of momentum has b"):
        momentum.load(odd)
    assert plain.t == adam.t == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_a_state_tells_the_rule_that_wrote_it(form, ending, tmp_path):
    rule = thalweg.chain(thalweg.ClipByNorm(2.0), thalweg.Maximize(), FORMS[form])
    optimizer = Optimizer(rule)
    optimizer.update(np.ones(3), np.ones(3))
    optimizer.save(tmp_path / f"state.{ending}")
    assert read(tmp_path / f"state.{ending}").rebuilt() == rule


def test_what_a_state_cannot_tell_is_asked_for(tmp_path):
    schedule = thalweg.schedules.Exponential(1.0, 0.5)
    state = Optimizer(thalweg.chain(thalweg.L2(0.1), thalweg.SGD(lr=schedule))).state()
    with pytest.raises(ValueError, match=r"sgd: a schedule gives lr.*: give lr="):
        state.rebuilt()
    assert state.rebuilt(lr=schedule) == thalweg.chain(thalweg.L2(0.1), thalweg.SGD(lr=schedule))
    state.treatments[0] = "L3"
    with pytest.raises(ValueError, match="no treatment is named 'L3'"):
        state.rebuilt(lr=1.0)


def test_a_treatment_of_a_users_own_is_found_again():
    class Halved(thalweg.Treatment):
        share: float = 0.5

        def gradient(self, g, given):
            return self.share * g

    rule = thalweg.chain(Halved(0.25), thalweg.SGD())
    assert Optimizer(rule).state().rebuilt() == rule


# -- bad input -------------------------------------------------------------------------------------


def read_only():
    p = np.ones(3)
    p.flags.writeable = False
    return p


@pytest.mark.parametrize(
    ("params", "grads", "error", "message"),
    [
        ({"a": np.ones(3)}, {"b": np.ones(3)}, ValueError, "no gradient for a; no parameter for b"),
        ([np.ones(3)], [], ValueError, "no gradient for 0"),
        ({"a": np.ones(3)}, {"a": np.ones(4)}, ValueError, r"'a' has shape \(3,\), its gradient \(4,\)"),
        (np.ones(3, int), np.ones(3), TypeError, "int64"),
        (np.ones(3, complex), np.ones(3), TypeError, "complex128"),
        (np.ones(3, ">f4"), np.ones(3), TypeError, ">f4"),
        (read_only(), np.ones(3), TypeError, "read-only"),
        ({"a": 1.0}, {"a": 1.0}, TypeError, "must be a NumPy array"),
        (np.float64(1.0), np.float64(1.0), TypeError, "must be a NumPy array"),
        ("ab", "cd", TypeError, "dictionary, a list or an array"),
    ],
)
def test_bad_input_is_named(params, grads, error, message):
    optimizer = thalweg.numpy.Adam()
    with pytest.raises(error, match=message):
        optimizer.update(params, grads)
    assert optimizer.t == 0


def test_other_parameters_later_are_refused():
    optimizer = thalweg.numpy.Adam()
    optimizer.update({"a": np.ones(3)}, {"a": np.ones(3)})
    with pytest.raises(ValueError, match="not those of the steps before: a, b"):
        optimizer.update({"b": np.ones(3)}, {"b": np.ones(3)})
    with pytest.raises(ValueError, match=r"has shape \(4,\), its state \(3,\)"):
        optimizer.update({"a": np.ones(4)}, {"a": np.ones(4)})


def test_optimizer_wants_a_rule():
    with pytest.raises(TypeError, match="takes a rule"):
        Optimizer("adam")
