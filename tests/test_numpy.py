"""The NumPy front end: the idiom of courses, in place, with state in files."""

import copy
import json
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest

import thalweg
import thalweg.numpy
from helpers import FORMS
from thalweg.eager import descend
from thalweg.numpy import Optimizer
from thalweg.statefile import read


@pytest.fixture
def gradients():
    return list(np.random.default_rng(1).standard_normal((12, 4, 3)))


@pytest.mark.parametrize("spelling", ["AdaGrad", "Adagrad", "ADAGRAD", "ada_grad"])
def test_names_as_courses_spell_them(spelling):
    assert getattr(thalweg.numpy, spelling)(lr=0.5).rule == thalweg.Adagrad(lr=0.5)


def test_unknown_name_says_the_nearest():
    with pytest.raises(AttributeError, match="did you mean 'Adam'"):
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


# -- hyperparameters as attributes ------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_every_hyperparameter_is_read_and_set(form):
    optimizer = Optimizer(thalweg.chain(thalweg.ClipByValue(0.5), FORMS[form]))
    for name, value in optimizer.rule.values.items():
        assert getattr(optimizer, name) == value
        setattr(optimizer, name, value / 2)
        assert getattr(optimizer, name) == value / 2 == optimizer.rule.values[name]
        assert name in dir(optimizer)


def test_the_decay_idiom_of_courses():
    optimizer, p = thalweg.numpy.SGD(lr=1.0), np.zeros(1)
    for _ in range(4):
        optimizer.update(p, np.ones(1))
        optimizer.lr *= 0.5
    assert p[0] == -1.875
    assert optimizer.rule == thalweg.SGD(lr=0.0625)


def test_setting_goes_on_with_the_state(gradients):
    optimizer, p = thalweg.numpy.Adam(), np.ones((4, 3))
    for k, g in enumerate(gradients):
        optimizer.beta_1 = 0.9 - 0.05 * k
        optimizer.lr = thalweg.schedules.Exponential(0.1, 0.9)
        optimizer.update(p, g)
    q = np.ones((4, 3))
    falling = thalweg.Adam(thalweg.schedules.Exponential(0.1, 0.9), beta_1=lambda t: 0.9 - 0.05 * (t - 1))
    q = descend(falling, q, gradients)
    np.testing.assert_allclose(p, q, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "synonym", "field"),
    [
        ("Adam", "learning_rate", "lr"),
        ("Adam", "eps", "epsilon"),
        ("Adam", "beta1", "beta_1"),
        ("RMSprop", "decay_rate", "rho"),
        ("Momentum", "mu", "momentum"),
    ],
)
def test_synonyms_name_the_same_hyperparameter(name, synonym, field):
    optimizer = getattr(thalweg.numpy, name)(**{synonym: 0.5})
    assert getattr(optimizer.rule, field) == getattr(optimizer, synonym) == getattr(optimizer, field) == 0.5
    setattr(optimizer, synonym, 0.25)
    assert getattr(optimizer.rule, field) == 0.25
    with pytest.raises(TypeError, match=f"{field} is given twice"):
        getattr(thalweg.numpy, name)(**{synonym: 0.5, field: 0.5})


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (lambda n: n.SGD(learning_rate=0.1), {"lr": 0.1}),
        (lambda n: n.SGD(0.1), {"lr": 0.1}),
        (lambda n: n.Momentum(lr=0.01, momentum=0.9), {"lr": 0.01, "momentum": 0.9}),
        (lambda n: n.Nesterov(lr=0.01, momentum=0.9), {"lr": 0.01, "momentum": 0.9}),
        (lambda n: n.AdaGrad(lr=0.01), {"lr": 0.01}),
        (lambda n: n.RMSprop(lr=0.01, decay_rate=0.99), {"lr": 0.01, "rho": 0.99}),
        (lambda n: n.RMSProp(learning_rate=0.01, epsilon=1e-6), {"lr": 0.01, "epsilon": 1e-6}),
        (
            lambda n: n.Adam(lr=0.001, beta1=0.9, beta2=0.999, eps=1e-7),
            {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
        ),
    ],
)
def test_the_signatures_of_courses(make, values):
    assert values.items() <= make(thalweg.numpy).rule.values.items()


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("learning_rte", 0.1, AttributeError, "adam has no hyperparameter 'learning_rte'; did you mean 'lr'"),
        ("beta_3", 0.1, AttributeError, "did you mean 'beta_"),
        ("lr", -1.0, ValueError, r"lr must lie in \[0, ∞\), got -1.0"),
        ("lr", float("nan"), ValueError, "lr must lie in"),
        ("lr", True, TypeError, "lr is a number or a schedule"),
        ("lr", None, TypeError, "lr is a number or a schedule"),
        ("beta1", 1.0, ValueError, r"beta_1 must lie in \[0, 1\)"),
        ("epsilon_hat", 1, TypeError, "epsilon_hat is True or False"),
        ("epsilon_hat", True, ValueError, "after 1 steps the state is that of .*: make a new Optimizer"),
        ("rule", thalweg.RMSprop(), ValueError, r"after 1 steps the state is that of Adam\(.*RMSprop"),
        ("rule", "adam", TypeError, "takes a rule"),
    ],
)
def test_a_setting_that_is_refused_changes_nothing(name, value, error, message):
    optimizer = thalweg.numpy.Adam()
    optimizer.update(np.ones(3), np.ones(3))
    with pytest.raises(error, match=message):
        setattr(optimizer, name, value)
    assert optimizer.rule == thalweg.Adam()
    assert not hasattr(optimizer, "learning_rte")


def test_a_form_is_chosen_before_the_first_step_and_treatments_at_any_time():
    optimizer, p = thalweg.numpy.RMSprop(), np.zeros(2)
    optimizer.momentum = 0.5
    optimizer.centered = True
    assert optimizer.rule == thalweg.RMSprop(momentum=0.5, centered=True)
    optimizer.rule = thalweg.Momentum(1.0)
    optimizer.update(p, np.ones(2))
    optimizer.rule = thalweg.chain(thalweg.ClipByValue(0.25), optimizer.rule)
    optimizer.clip_value = 0.5
    optimizer.update(p, np.ones(2))
    np.testing.assert_allclose(p, -1 - 0.9 - 0.5)


def test_an_attribute_of_ones_own():
    optimizer = thalweg.numpy.SGD()
    optimizer.note = "the second run"
    assert optimizer.note == "the second run"
    assert optimizer.rule == thalweg.SGD()


# -- copies ------------------------------------------------------------------------------------------


def unpickled(x):
    return pickle.loads(pickle.dumps(x))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, unpickled])
@pytest.mark.parametrize("steps", [0, 5])
@pytest.mark.parametrize(
    "make",
    [
        lambda: thalweg.numpy.Nadam(lr=0.05),
        lambda: Optimizer(thalweg.chain(thalweg.ClipByGlobalNorm(1.0), thalweg.AMSGrad(0.1)), threads=1),
    ],
    ids=["named", "within a treatment"],
)
def test_a_copy_goes_its_own_way(duplicate, steps, make, gradients):
    optimizer, p = make(), {"w": np.ones((4, 3)), "h": np.ones((4, 3), np.float16)}
    for g in gradients[:steps]:
        optimizer.update(p, dict.fromkeys(p, g))
    q, other = {k: a.copy() for k, a in p.items()}, duplicate(optimizer)
    assert type(other) is type(optimizer)
    for g in gradients[5:]:
        optimizer.update(p, dict.fromkeys(p, g))
    for g in gradients[5:]:
        other.update(q, dict.fromkeys(q, g))
    for k, a in p.items():
        np.testing.assert_array_equal(q[k], a)
    other.lr = 0.7
    assert optimizer.lr != other.lr
    assert optimizer.t == other.t


# -- containers --------------------------------------------------------------------------------------


def test_nested_containers_are_those_of_courses():
    params = {
        "layer1": {"W": np.ones((2, 3)), "b": np.zeros(3)},
        "layer2": [np.ones(3), (np.zeros(()), {("a", 1): np.ones(2)})],
        3: {},
    }
    grads = {
        "layer2": (np.ones(3), [2.0, {("a", 1): [1.0, -1.0]}]),  # numbers stand for an array
        "layer1": {"b": np.ones(3), "W": np.ones((2, 3))},
        3: {},
    }
    optimizer = thalweg.numpy.Momentum(lr=1.0)
    for _ in range(2):
        optimizer.update(params, grads)
    for found, start, g in [
        (params["layer1"]["W"], 1, 1),
        (params["layer1"]["b"], 0, 1),
        (params["layer2"][0], 1, 1),
        (params["layer2"][1][0], 0, 2),
        (params["layer2"][1][1][("a", 1)], 1, np.array([1, -1])),
    ]:
        np.testing.assert_allclose(found, start - 2.9 * np.broadcast_to(g, found.shape))
    assert [*optimizer.state().slots["b"]] == [
        "layer1/W",
        "layer1/b",
        "layer2/0",
        "layer2/1/0",
        "layer2/1/1/('a', 1)",
    ]


def test_a_key_is_itself_and_not_its_spelling(tmp_path):
    params = {1: np.zeros(2), "1": np.zeros(2), (1,): np.zeros(2)}
    optimizer = thalweg.numpy.Momentum(lr=1.0)
    for _ in range(2):
        optimizer.update(params, {1: np.ones(2), "1": 2 * np.ones(2), (1,): 3 * np.ones(2)})
    assert [p[0] for p in params.values()] == pytest.approx([-2.9, -5.8, -8.7])
    for use in (optimizer.state, lambda: optimizer.save(tmp_path / "state.npz")):
        with pytest.raises(
            ValueError, match=r"two parameters are named '1', by the keys \(1,\) and \('1',\)"
        ):
            use()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "key", ["a\0b", "\ud800", object(), frozenset({"a"})], ids=["null", "surrogate", "object", "set"]
)
def test_a_key_without_a_lasting_name_is_refused_when_saving(key):
    optimizer, p = thalweg.numpy.Adam(lr=0.1), np.ones(2)
    optimizer.update({key: p}, {key: np.ones(2)})
    np.testing.assert_allclose(p, 0.9)
    with pytest.raises(ValueError, match="has no name that a file can keep"):
        optimizer.state()


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_a_saved_run_of_nested_parameters_goes_on(ending, tmp_path):
    def make():
        return {"layer1": {"W": np.ones(2), "b": np.zeros(3)}, "rest": [np.ones(1)]}

    params, grads = make(), make()
    optimizer = thalweg.numpy.Adam()
    optimizer.update(params, grads)
    optimizer.save(tmp_path / f"state.{ending}")
    again = thalweg.numpy.Adam()
    again.load(tmp_path / f"state.{ending}")
    assert again.state().slots.keys() == {"m", "v"}  # named as they were before a step tells the keys
    other = copy.deepcopy(params)
    with pytest.raises(ValueError, match="not those of the steps before: layer1/b, layer1/c"):
        again.update(
            {**other, "layer1": {"W": np.ones(2), "c": np.zeros(3)}},
            {**grads, "layer1": {"W": np.ones(2), "c": np.zeros(3)}},
        )
    optimizer.update(params, grads)
    again.update(other, grads)
    np.testing.assert_array_equal(other["layer1"]["W"], params["layer1"]["W"])
    np.testing.assert_array_equal(other["rest"][0], params["rest"][0])


# -- arrays of every kind ----------------------------------------------------------------------------


def start(*shape):
    return np.linspace(-1, 1, int(np.prod(shape))).reshape(shape)


def unaligned():
    memory = np.zeros(25, np.uint8)[1:].view(np.float64)
    memory[...] = start(3)
    return memory


def mapped(tmp_path, mode):
    path = tmp_path / "weights.npy"
    np.save(path, start(3))
    return np.load(path, mmap_mode=mode)


def matrix():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.matrix(start(2, 3))


ARRAYS = {
    "reversed": lambda _: start(6)[::-1],
    "0-d": lambda _: np.array(0.5),
    "zero-size": lambda _: start(0, 3),
    "in columns": lambda _: np.asfortranarray(start(2, 3)),
    "every second": lambda _: start(4, 6)[::2, 1::2],
    "unaligned": lambda _: unaligned(),
    "matrix": lambda _: matrix(),
    "record array": lambda _: start(3).view(np.recarray),
    "mapped": lambda tmp_path: mapped(tmp_path, "r+"),
    "mapped, copied on write": lambda tmp_path: mapped(tmp_path, "c"),
    "one entry, expanded": lambda _: np.lib.stride_tricks.as_strided(start(1), (1, 1, 1), (0, -8, 8)),
}


@pytest.mark.parametrize("array", ARRAYS)
def test_parameters_of_every_kind_take_the_step(array, tmp_path):
    p = ARRAYS[array](tmp_path)
    plain = np.array(p, copy=True, subok=False)
    grads = [np.linspace(1, 2 + k, p.size).reshape(p.shape) for k in range(3)]
    optimizer = thalweg.numpy.Adam(lr=0.1)
    for g in grads:
        optimizer.update({"first": p}, {"first": g})
    np.testing.assert_allclose(np.asarray(p), descend(thalweg.Adam(lr=0.1), plain, grads), rtol=1e-12)


def test_a_mapped_file_holds_the_step(tmp_path):
    p = mapped(tmp_path, "r+")
    thalweg.numpy.SGD(lr=0.5).update(p, np.ones(3))
    p.flush()
    np.testing.assert_allclose(np.load(tmp_path / "weights.npy"), start(3) - 0.5)


GRADIENTS = {
    "big-endian": lambda g: g.astype(">f8"),
    "big-endian float16": lambda g: g.astype(">f2"),
    "read-only": lambda g: np.broadcast_to(g, g.shape),
    "expanded": lambda g: np.broadcast_to(g[:1], g.shape),
    "reversed": lambda g: g[::-1],
    "integers": lambda g: g.astype(np.int8),
    "truth values": lambda g: g > 2,
    "bfloat16": lambda g: g.astype(ml_dtypes.bfloat16),
    "list": lambda g: g.tolist(),
    "matrix": lambda g: g.view(np.matrix),
    "long double": lambda g: g.astype(np.longdouble),
}


@pytest.mark.parametrize("kind", GRADIENTS)
def test_gradients_of_every_kind_take_the_step(kind):
    p, q = start(2, 3), start(2, 3)
    given = GRADIENTS[kind](np.arange(6.0).reshape(2, 3))
    thalweg.numpy.Momentum(lr=0.5).update(p, given)
    np.testing.assert_allclose(p, q - 0.5 * np.asarray(given, np.float64))


def overlapping():
    flat = start(5)
    return [flat[:3], flat[2:]]


def structured():
    return np.zeros(3, [("a", "f4"), ("b", "f4")])


@pytest.mark.parametrize(
    ("p", "message"),
    [
        (start(3).astype(">f8"), ">f8; parameters have float64, .* this machine's byte order"),
        (structured(), "parameter 'w' has entries of .*'a'"),
        (start(3).astype(object), "entries of object"),
        (np.ma.masked_array(start(3), [True, False, False]), "masked array"),
        (np.broadcast_to(start(3), (2, 3)), "read-only"),
        (start(3).astype(np.longdouble), "longdouble|float128|float96"),
        (start(3).astype("M8[s]"), "datetime64"),
        ([1.0, 2.0], "must be a NumPy array"),
    ],
)
def test_parameters_that_cannot_be_updated_are_named(p, message):
    with pytest.raises(TypeError, match=message):
        thalweg.numpy.SGD().update({"w": p}, {"w": p})


@pytest.mark.parametrize(
    ("g", "message"),
    [
        (start(3) + 1j, "complex128, not real"),
        (np.ma.masked_array(start(3), [True, False, False]), "fill it"),
        (start(3).astype(str), "not real numbers"),
        (start(3).astype(object), "object, not real"),
        (np.zeros(3, [("a", "f4")]), "not real numbers"),
        (None, "object, not real"),
    ],
)
def test_gradients_that_are_not_real_are_named(g, message):
    p = start(3)
    with pytest.raises(TypeError, match=f"the gradient of parameter 'w'.*{message}"):
        thalweg.numpy.SGD().update({"w": p}, {"w": g})
    np.testing.assert_array_equal(p, start(3))


def expanded():
    return np.lib.stride_tricks.as_strided(start(3), (2, 3), (0, 8))


def windows():
    return np.lib.stride_tricks.sliding_window_view(start(5), 3, writeable=True)


SHARING = {
    "given twice": (lambda: [start(3)] * 2, "parameters '0' and '1' share memory"),
    "overlapping": (overlapping, "share memory"),
    "transposed": (lambda: [w := start(2, 2), w.T], "share memory"),
    "expanded": (lambda: [expanded()], "parameter '0' has one entry in several places"),
    "windows": (lambda: [windows()], "parameter '0' has one entry in several places"),
}


@pytest.mark.parametrize("case", SHARING)
def test_parameters_that_share_memory_are_refused(case):
    make, message = SHARING[case]
    params = make()
    before = [p.copy() for p in params]
    optimizer = thalweg.numpy.SGD()
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            optimizer.update(params, [np.ones(p.shape) for p in params])
    assert optimizer.t == 0
    for p, was in zip(params, before, strict=True):
        np.testing.assert_array_equal(p, was)


def halves(w):
    return [w[:, :2], w[:, 2:], w[0:0]]


def interleaved(w):
    return [w[:, ::2], w[:, 1::2]]


@pytest.mark.parametrize("split", [halves, interleaved])
def test_parts_of_one_array_that_share_no_entry_are_parameters(split):
    w, plain = start(3, 4), start(3, 4)
    optimizer, grads = thalweg.numpy.Adam(lr=0.1), [np.linspace(1, 2, 12).reshape(3, 4) for _ in range(3)]
    for g in grads:
        optimizer.update(split(w), split(g))
    np.testing.assert_allclose(w, descend(thalweg.Adam(lr=0.1), plain, grads), rtol=1e-12)


def test_parameters_that_come_to_share_memory_are_noticed():
    optimizer, memory = thalweg.numpy.SGD(), start(6)
    optimizer.update([memory[:3], memory[3:]], [np.ones(3)] * 2)
    with pytest.raises(ValueError, match="share memory"):
        optimizer.update([memory[:3], memory[2:5]], [np.ones(3)] * 2)


@pytest.mark.parametrize("kind", ["Nesterov", "Adam", "AdamW"])
@pytest.mark.parametrize(
    ("grads", "params"),
    [
        (lambda m: [m[0:3], m[3:6]], lambda m: [m[0:3], m[3:6]]),
        (lambda m: [m[3:6], m[0:3]], lambda m: [m[0:3], m[3:6]]),
        (lambda m: [m[5:2:-1], m[1:4]], lambda m: [m[0:3], m[3:6]]),
        (lambda m: [m[2:5], m[1:4]], lambda m: [m[0:6:2], m[1:6:2]]),
    ],
    ids=["its own", "another's", "across", "interleaved"],
)
def test_gradients_in_the_memory_of_parameters_are_read_before_it_is_written(grads, params, kind):
    memory, rule = start(6), thalweg.get(kind, lr=0.1)
    expected = [
        descend(rule, p.copy(), [g.copy()]) for p, g in zip(params(memory), grads(memory), strict=True)
    ]
    Optimizer(rule).update(params(memory), grads(memory))
    for found, wanted in zip(params(memory), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


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
    with pytest.raises(ValueError, match=r"has centered=True, which .* lacks centered=False, which"):
        plain.load(centered.state())
    clip, decay = thalweg.ClipByValue(1.0), thalweg.DecoupledDecay(0.1)
    clipped = Optimizer(thalweg.chain(clip, decay, thalweg.Adam()))
    clipped.update(p, np.ones(3))
    with pytest.raises(ValueError, match=r"adam: it has ClipByValue, .*clip_value.*, which .* has not; thal"):
        adam.load(clipped.state())
    with pytest.raises(ValueError, match=r"adam: it lacks ClipByValue, .*clip_value.*, which .* has; thal"):
        clipped.load(thalweg.numpy.Adam().state())
    with pytest.raises(ValueError, match="adam: it has its treatments in another order; thal"):
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


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*nowhere'$"):
        thalweg.numpy.Adam().save(tmp_path / "nowhere" / "state.npz")


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
        ({"a": np.ones(3)}, {"b": np.ones(3)}, ValueError, "differ: no gradient for a; no parameter for b$"),
        ({"a": np.ones(3)}, {"a": np.ones(3), "b": 1}, ValueError, "differ: no parameter for b$"),
        ([np.ones(3)], [], ValueError, "differ: no gradient for 0$"),
        ({"a": np.ones(3)}, {"a": np.ones(4)}, ValueError, r"'a' has shape \(3,\), its gradient \(4,\)"),
        (np.ones(3, int), np.ones(3), TypeError, "int64"),
        (np.ones(3, complex), np.ones(3), TypeError, "complex128"),
        (np.ones(3, ">f4"), np.ones(3), TypeError, ">f4"),
        (read_only(), np.ones(3), TypeError, "read-only"),
        ({"a": 1.0}, {"a": 1.0}, TypeError, "must be a NumPy array"),
        (np.float64(1.0), np.float64(1.0), TypeError, "must be a NumPy array"),
        ("ab", "cd", TypeError, "must be a NumPy array.* got str"),
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


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("step", "did you mean 'update'"),
        ("apply_gradients", "did you mean 'update'"),
        ("state_dict", "did you mean 'state'"),
        ("lrr", "did you mean 'lr'"),
        ("learning_rat", "did you mean 'lr'"),
        ("zero_grad", "known: .*, update, lr, beta_1"),
    ],
)
def test_what_an_optimizer_has_not_is_named(name, meant):
    with pytest.raises(AttributeError, match=f"the optimizer has no attribute '{name}'; {meant}"):
        getattr(thalweg.numpy.Adam(), name)


def test_optimizer_wants_a_rule():
    with pytest.raises(TypeError, match="takes a rule"):
        Optimizer("adam")


@pytest.mark.parametrize(("name", "value"), [("t", -5), ("t", 1.5), ("t", True), ("t", None), ("threads", 0)])
def test_counts_that_are_none_are_named(name, value):
    optimizer = thalweg.numpy.Adam()
    with pytest.raises(ValueError, match=f"{name} is a whole number from "):
        setattr(optimizer, name, value)


def test_threads_may_update_with_one_optimizer():
    """One after the other: the arrays of one step are not another's."""
    p, optimizer = np.zeros(2000), thalweg.numpy.SGD(lr=1.0)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(optimizer.update, p, np.ones(2000)) for _ in range(400)]:
            done.result()
    assert optimizer.t == 400
    np.testing.assert_array_equal(p, -400)
