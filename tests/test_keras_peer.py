"""What the tests of Keras's own optimizers ask, asked of ours, on whichever back end Keras was started with.

There: configurations, a first step and five more to four digits, weight decay and who is spared, clipping,
averages of weights, accumulated gradients, loss scaling, overwritten variables, sparse gradients, names.
`test_keras_backends.py` runs this file on the other back ends; equality with Keras's is in `test_keras.py`.

Left out, with the reason:
    Ftrl, Lamb, Adafactor, Muon, ScheduleFreeAdamW and MultiOptimizer, for which Thalweg has no rule;
    calls of the private `_clip_gradients`: clipping is part of the rule here, so its effect is looked at;
    that `assign` is called with sparse tensors: gradients are summed into dense ones first;
    the growth and fall of LossScaleOptimizer's scale, which is all Keras's: what it does with ours is here;
    configurations, `get`, constraints and stateless steps, which `test_keras.py` has for every rule.
"""

import pickle

import keras
import numpy as np
import pytest
from keras import ops

import thalweg
import thalweg.keras
from test_keras import BACKEND, NINE, numpy, on, take_statelessly

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

ONES = [[1.0, 1.0], [1.0, 1.0]]


def variable(values=((1.0, 2.0), (3.0, 4.0)), **settings):
    return keras.Variable(np.array(values, "float32"), **settings)


def step(optimizer, *pairs):
    optimizer.apply_gradients(
        [(None if g is None else ops.convert_to_tensor(np.array(g, "float32")), v) for g, v in pairs]
    )


def close(v, wanted, tolerance=1e-6):
    np.testing.assert_allclose(numpy(v), wanted, rtol=tolerance, atol=tolerance)


def test_the_first_step():
    first = {
        "SGD": [0.5, -1.0, -0.5, 3.0],
        "Adagrad": [0.5233, 1.5007, 2.5005, 3.5061],
        "Adadelta": [0.9993, 1.9993, 2.9993, 3.9993],
        "RMSprop": [-0.5811, 0.4189, 1.4189, 2.4189],
        "Adam": [0.5, 1.5, 2.5, 3.5],
        "AdamW": [0.4980, 1.4960, 2.494, 3.492],
        "Adamax": [0.5, 1.5, 2.5, 3.5],
        "Nadam": [0.4686, 1.4686, 2.4686, 3.4686],
        "Lion": [0.5, 1.5, 2.5, 3.5],
    }
    for name in NINE:
        v = variable([1.0, 2.0, 3.0, 4.0])
        step(getattr(thalweg.keras, name)(learning_rate=0.5), ([1.0, 6.0, 7.0, 2.0], v))
        close(v, first[name], 1e-4)


# Keras's golden values: where an entry of 1 is after gradients of 0.01 once and then of 0.1, or of 1.
GOLDEN = {
    "SGD": ({"nesterov": True}, [[0.9999, 0.9999], [0.9989, 0.9899], [0.9979, 0.9799], [0.9969, 0.9699]]),
    "Adagrad": (
        {"learning_rate": 0.2, "initial_accumulator_value": 0.3, "epsilon": 1e-6},
        [[0.9963, 0.9963], [0.9604, 0.8209], [0.9251, 0.6891], [0.8903, 0.579], [0.856, 0.4825]],
    ),
    "Adadelta": (
        {"learning_rate": 1.0, "rho": 0.8, "epsilon": 1e-6},
        [[0.9978, 0.9978], [0.9947, 0.9947], [0.9915, 0.9915], [0.9882, 0.9882], [0.9849, 0.9849]],
    ),
    "RMSprop": (
        {"centered": True},
        [[0.9967, 0.9967], [0.9933, 0.9933], [0.9908, 0.9908], [0.9885, 0.9885], [0.9864, 0.9864]],
    ),
    "Adam": (
        {"amsgrad": True},
        [[0.999, 0.999], [0.9982, 0.9982], [0.9974, 0.9974], [0.9965, 0.9965], [0.9955, 0.9955]],
    ),
    "AdamW": (
        {"learning_rate": 1.0, "weight_decay": 0.5, "epsilon": 2},
        [[0.4998, 0.4998], [0.2486, 0.2382], [0.1223, 0.1003], [0.0586, 0.0258], [0.0263, -0.0159]],
    ),
    "Adamax": (
        {"learning_rate": 0.2, "beta_1": 0.85, "beta_2": 0.95, "epsilon": 1e-6},
        [[0.8, 0.8], [0.6827, 0.691], [0.5333, 0.5466], [0.368, 0.3848], [0.1933, 0.2126]],
    ),
    "Nadam": (
        {"learning_rate": 0.5, "beta_1": 0.5, "beta_2": 0.67, "epsilon": 1e-5},
        [[0.4281, 0.4281], [-0.1738, -0.1717], [-0.7115, -0.7084], [-1.2335, -1.2299], [-1.7492, -1.7454]],
    ),
    "Lion": ({}, [[0.999, 0.999], [0.998, 0.998], [0.997, 0.997], [0.996, 0.996], [0.995, 0.995]]),
}


@pytest.mark.parametrize("name", NINE)
def test_golden_values(name):
    settings, golden = GOLDEN[name]
    optimizer, v = getattr(thalweg.keras, name)(**settings), variable([1.0, 1.0])
    for i, wanted in enumerate(golden):
        step(optimizer, ([0.1, 1.0] if i else [0.01, 0.01], v))
        close(v, wanted, 5e-4)


@pytest.mark.parametrize("name", NINE)
def test_weight_decay_and_who_is_spared(name):
    kind = getattr(thalweg.keras, name)
    decaying, named, listed = variable(2.0), variable(2.0, name="exclude"), variable(2.0)
    for spared in ({}, {"var_names": ["exclude"]}, {"var_list": [listed]}):
        optimizer = kind(learning_rate=1.0, weight_decay=0.004)
        optimizer.exclude_from_weight_decay(**spared)
        others = {"var_names": [named], "var_list": [listed]}.get(next(iter(spared), ""), [])
        step(optimizer, (0.0, decaying), *((0.0, v) for v in others))
    close(decaying, 1.9760959)  # three times
    close(named, 2.0)
    close(listed, 2.0)


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ({"clipnorm": 1}, [2**-0.5, 2**-0.5]),
        ({"clipvalue": 1}, [1.0, 1.0]),
        ({"global_clipnorm": 1}, [2**-0.5, 2**-0.5]),
    ],
)
def test_clipping(option, wanted):
    v = variable([0.0, 0.0])
    optimizer = thalweg.keras.SGD(1.0, **option)
    step(optimizer, ([100.0, 100.0], v))
    close(v, -np.array(wanted))
    (name,) = option
    assert getattr(optimizer, name) == 1


def test_averages_of_weights():
    v = variable([[3.0, 4.0], [5.0, 6.0]])
    optimizer = thalweg.keras.SGD(1.0, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=3)
    average = [[2.0, 1.9, 1.71], [3.0, 2.9, 2.71]]  # of the first row; the third step overwrites with it
    for i, first in enumerate((2.0, 1.0, 1.71)):
        step(optimizer, (ONES, v))
        close(optimizer._model_variables_moving_average[0], np.add([[0, 1], [2, 3]], average[0][i]))
        close(v, np.add([[0, 1], [2, 3]], first))


def test_fit_ends_on_the_average():
    layer = keras.layers.Dense(2, kernel_initializer="ones", use_bias=False)
    model = keras.Sequential([keras.Input((1,)), layer])
    optimizer = thalweg.keras.SGD(0.1, use_ema=True, ema_momentum=0.9)
    model.compile(loss="mse", optimizer=optimizer)
    model.fit(np.ones((1, 1)), np.zeros((1, 1)), batch_size=1, epochs=2, verbose=0)
    close(optimizer._model_variables_moving_average[0], [[0.891, 0.891]], 1e-5)
    close(model.trainable_variables[0], [[0.891, 0.891]], 1e-5)


def test_gradients_gather():
    v, optimizer = variable(), thalweg.keras.SGD(1.0, gradient_accumulation_steps=3)
    for gathered, moved, steps in ((1.0, 0, 0), (2.0, 0, 0), (0.0, 1, 1), (1.0, 1, 1)):
        step(optimizer, (ONES, v))
        close(v, np.array([[1.0, 2.0], [3.0, 4.0]]) - moved)
        close(optimizer._accumulated_gradients[0], np.full((2, 2), gathered))
        assert int(optimizer.iterations) == steps


@pytest.mark.parametrize("name", NINE)
def test_a_step_on_three_is_a_step_on_their_mean(name):
    kind = getattr(thalweg.keras, name)
    one, three = kind(weight_decay=0.05), kind(weight_decay=0.05, gradient_accumulation_steps=3)
    v, w = variable([[0.9], [0.5]]), variable([[0.9], [0.5]])
    for grads in np.random.default_rng(0).random((4, 3, 2, 1)):
        step(one, (grads.mean(axis=0), v))
        for g in grads:
            step(three, (g, w))
    close(v, numpy(w), 1e-5)


def test_a_variable_overwritten_by_its_gradient_while_gradients_gather():
    v, w = variable(), variable()
    v.overwrite_with_gradient = True
    optimizer = thalweg.keras.SGD(1.0, gradient_accumulation_steps=2)
    start = np.array([[1.0, 2.0], [3.0, 4.0]])
    for g, found_v, found_w in ((1.0, start, start), (2.0, 2.0, start - 1.5), (1.0, 2.0, start - 1.5)):
        step(optimizer, (np.multiply(g, ONES), v), (ONES if g == 1 else np.multiply(g, ONES), w))
        close(v, np.broadcast_to(found_v, (2, 2)))
        close(w, found_w)


def test_absent_gradients():
    v, w = variable(), variable()
    with pytest.raises(ValueError, match="No gradients provided for any variable"):
        step(thalweg.keras.SGD(1.0), (None, v))
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        step(thalweg.keras.SGD(1.0), (None, v), (ONES, w))
    close(v, [[1.0, 2.0], [3.0, 4.0]])
    close(w, [[0.0, 1.0], [2.0, 3.0]])


def test_a_static_scale_of_the_loss():
    v, optimizer = variable(), thalweg.keras.SGD(1.0, loss_scale_factor=1024.0)
    assert optimizer.scale_loss(1.0) == 1024.0
    step(optimizer, (1024 * np.array([[1.0, 2.0], [3.0, 4.0]]), v))
    close(v, np.zeros((2, 2)))


@pytest.mark.parametrize("settings", [{}, {"loss_scale_factor": 100}])
def test_within_a_loss_scale_optimizer(settings):
    outer = keras.optimizers.LossScaleOptimizer(thalweg.keras.SGD(0.5, **settings))
    v = variable([1.0, 2.0, 3.0, 4.0])
    outer.build([v])
    go = take_statelessly if BACKEND == "jax" else _apply
    go(outer, [v], [[np.array([1.0, 6.0, 7.0, 2.0]) * outer.initial_scale]])
    close(v, [0.5, -1.0, -0.5, 3.0], 1e-4)
    go(outer, [v], [[np.full(4, np.inf)]])
    close(v, [0.5, -1.0, -0.5, 3.0], 1e-4)
    assert int(outer.iterations) == 1
    again = keras.optimizers.deserialize(keras.optimizers.serialize(outer))
    assert type(again.inner_optimizer) is thalweg.keras.SGD
    assert again.get_config() == outer.get_config()


def _apply(optimizer, params, grads):
    for each in grads:
        step(optimizer, *zip(each, params, strict=True))


def test_weights_are_set_once_there_are_some():
    v, first, second = variable(), thalweg.keras.Adam(), thalweg.keras.Adam()
    step(first, (ONES, v))
    with pytest.raises(ValueError, match="You are calling"):
        second.set_weights(first.variables)
    second.build([v])
    second.set_weights(first.variables)
    for a, b in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(numpy(a), numpy(b))


def test_a_schedule_in_place_of_a_rate_unties_its_variable():
    optimizer = thalweg.keras.Adam(0.001)
    assert len(optimizer.variables) == 2
    optimizer.learning_rate = keras.optimizers.schedules.PolynomialDecay(0.001, 4)
    assert len(optimizer.variables) == 1
    with pytest.raises(TypeError, match="LearningRateSchedule"):
        optimizer.lr = 0.1


@pytest.mark.parametrize("name", thalweg.rules())
def test_pickles_of_optimizers(name):
    optimizer = getattr(thalweg.keras, name)()
    again = pickle.loads(pickle.dumps(optimizer))
    assert type(again) is type(optimizer)
    assert again.get_config() == optimizer.get_config()


def test_names():
    keras.backend.clear_session()
    kinds = (thalweg.keras.Adam, thalweg.keras.SGD, thalweg.keras.AdamW)
    assert [kind().name for kind in kinds for _ in range(2)] == [
        *("adam", "adam_1", "sgd", "sgd_1", "adam_w", "adam_w_1")
    ]
    mine = thalweg.keras.Adam(name="my_adam")
    assert keras.optimizers.deserialize(keras.optimizers.serialize(mine)).name == "my_adam"


# -- TensorFlow's own -----------------------------------------------------------------------------------


@on["tensorflow"]
def test_checkpoints_of_tensorflow(tmp_path):
    import tensorflow as tf

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    optimizer = thalweg.keras.Adam(0.1)
    model.compile(optimizer, "mse")
    x, y = np.ones((1, 2)), np.zeros((1, 2))
    model.train_on_batch(x, y)
    everything = (*model.variables, *optimizer.variables)
    wanted = [numpy(v) for v in everything]
    checkpoint = tf.train.Checkpoint(model, optimizer=optimizer)
    path = checkpoint.save(tmp_path / "checkpoint")
    model.train_on_batch(x, y)
    assert any(np.any(numpy(v) != w) for v, w in zip(everything, wanted, strict=True))
    checkpoint.restore(path)
    for v, w in zip(everything, wanted, strict=True):
        np.testing.assert_array_equal(numpy(v), w)


@on["tensorflow"]
def test_variables_of_tensorflow_among_keras():
    import tensorflow as tf

    v, w = variable(), tf.Variable([[1.0, 2.0], [3.0, 4.0]])
    optimizer = thalweg.keras.Adam(1.0)
    step(optimizer, (ONES, v), (ONES, w))
    close(w, numpy(v))
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        step(optimizer, (ONES, v), (None, w))
    assert int(optimizer.iterations) == 2


@on["tensorflow"]
def test_the_gradient_of_a_repeated_token_is_its_sum():
    """As on other back ends; on TensorFlow, Keras's own adds up the squares of a token's gradients."""

    import tensorflow as tf

    class Summed(keras.optimizers.Adam):
        def apply(self, grads, trainable_variables=None):
            super().apply([tf.convert_to_tensor(g) for g in grads], trainable_variables)

    results = []
    for kind in (thalweg.keras.Adam, Summed, keras.optimizers.Adam):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Embedding(10, 3), keras.layers.Flatten(), keras.layers.Dense(1)]
        )
        model.compile(optimizer=kind(0.01), loss="mse")
        model.fit(np.array([[1, 1, 1, 2], [2, 3, 3, 1]]), np.ones((2, 1)), epochs=3, verbose=0)
        results.append([numpy(v) for v in (*model.weights, *model.optimizer.variables)])
    ours, summed, squared = results
    assert max(np.abs(a - b).max() for a, b in zip(ours, summed, strict=True)) < 1e-6
    assert max(np.abs(a - b).max() for a, b in zip(ours, squared, strict=True)) > 1e-3


@on["tensorflow"]
def test_clipping_the_gradient_of_an_embedding():
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Embedding(10, 4), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    model.compile(optimizer=thalweg.keras.Adam(clipnorm=100), loss="mse")
    model.fit(np.ones((8, 5)), np.zeros((8, 2)), verbose=0)
