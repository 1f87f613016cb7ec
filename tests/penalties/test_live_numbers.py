"""Weights and epsilons can be set while a model trains; everything else cannot."""

import copy
import pickle

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr
from support.calls import BACKEND

pytestmark = pytest.mark.jax

X = np.random.default_rng(0).standard_normal((16, 4)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")
LOSS = "sparse_categorical_crossentropy"
GRAPHS = [{}, {"jit_compile": True}] if BACKEND != "torch" else [{}]


def network():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,))
    hidden = layers.Dense(5, activation="tanh")(inputs)
    return gbr.GBRModel(inputs, layers.Dense(2, activation="softmax")(hidden))


class Anneal(keras.callbacks.Callback):
    """Sets both numbers after each step, through the model that Keras gives."""

    def on_train_batch_end(self, batch, logs=None):
        self.model.penalties[0].weight = 0.3 * (batch + 1)
        self.model.penalties[1].epsilon = 0.1 * (batch + 1)


class FromOutside(keras.callbacks.Callback):
    """The same, through the penalties themselves."""

    def __init__(self, penalties):
        super().__init__()
        self.penalties = penalties

    def on_train_batch_end(self, batch, logs=None):
        self.penalties[0].weight = 0.3 * (batch + 1)
        self.penalties[1].epsilon = 0.1 * (batch + 1)


def annealed(callback=None, interval=1, start=1.0, **settings):
    model = network()
    penalties = [
        gbr.InputGradient(start, interval=interval),
        gbr.Adversarial(0.5, epsilon=0.2, norm=2),
    ]
    model.compile(
        keras.optimizers.SGD(0.1),
        LOSS,
        penalties=penalties,
        **settings,
    )
    callbacks = [Anneal() if callback is None else callback(penalties)]
    model.fit(X, Y, 4, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    return model


def by_hand(interval=1, start=1.0):
    """One model for each step, compiled with the numbers of that step."""
    model, numbers = network(), (start, 0.2)
    optimizer = keras.optimizers.SGD(0.1)
    for step in range(8):
        due = step % interval == 0
        penalties = [
            gbr.InputGradient(interval * numbers[0] if due else 0.0),
            gbr.Adversarial(0.5, epsilon=numbers[1], norm=2),
        ]
        model.compile(optimizer, LOSS, penalties=penalties)
        first = step % 4 * 4
        model.fit(X[first : first + 4], Y[first : first + 4], 4, shuffle=False, verbose=0)
        numbers = (0.3 * (step % 4 + 1), 0.1 * (step % 4 + 1))
    return model


@pytest.fixture(scope="module")
def expected():
    return {
        (interval, start): by_hand(interval, start).get_weights()
        for interval, start in ((1, 1.0), (2, 0.0))
    }


@pytest.mark.parametrize(("interval", "start"), [(1, 1.0), (2, 0.0)])
@pytest.mark.parametrize("settings", [{"run_eagerly": True}, *GRAPHS], ids=str)
def test_a_number_set_by_a_callback_counts_from_the_next_step(settings, interval, start, expected):
    found = annealed(interval=interval, start=start, **settings).get_weights()
    for one, other in zip(found, expected[interval, start], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_penalty_itself_may_be_set(expected):
    found = annealed(FromOutside).get_weights()
    for one, other in zip(found, expected[1, 1.0], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_nothing_is_traced_anew():
    traces = []

    class Counting(layers.Layer):
        def call(self, x):
            traces.append(1)
            return x

    inputs = keras.Input((4,))
    model = gbr.GBRModel(inputs, layers.Dense(2, activation="softmax")(Counting()(inputs)))
    penalties = [gbr.InputGradient(0.0), gbr.Adversarial(0.5, epsilon=0.2)]
    model.compile("sgd", LOSS, penalties=penalties)
    model.fit(X, Y, 4, verbose=0)
    before = len(traces)
    model.fit(X, Y, 4, verbose=0, callbacks=[Anneal()])
    steps = 4 * 2 if BACKEND == "torch" else 0  # operation by operation, two passes a step
    assert len(traces) - before <= steps


def test_weight_zero_leaves_training_as_it_is():
    weights = []
    for penalties in (None, [gbr.InputGradient(0.0), gbr.ParameterGradient(0.0)]):
        model = network()
        model.compile("sgd", LOSS, penalties=penalties)
        model.fit(X, Y, 4, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_the_number_as_it_is_now_is_saved(tmp_path):
    model = annealed()
    model.penalties[0].weight = 7.5
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [loaded.penalties[0].weight, loaded.penalties[1].epsilon] == [7.5, 0.4]
    loaded.penalties[0].weight = 2.0
    assert model.penalties[0].weight == 7.5


def test_one_penalty_of_two_models_is_one_number():
    penalty = gbr.InputGradient(0.1)
    models = [network(), network()]
    for model in models:
        model.compile(keras.optimizers.SGD(0.1), "mse", penalties=[penalty])
    for model in models:
        model.train_on_batch(X, np.eye(2)[Y])
    penalty.weight = 3.0
    for model in models:
        model.train_on_batch(X, np.eye(2)[Y])
    other = network()
    for weight in (0.1, 3.0):
        other.compile(keras.optimizers.SGD(0.1), "mse", penalties=[gbr.InputGradient(weight)])
        other.train_on_batch(X, np.eye(2)[Y])
    for model in models:
        np.testing.assert_allclose(model.get_weights()[0], other.get_weights()[0], atol=1e-6)


def test_everything_else_in_a_compiled_penalty_is_read_only():
    model = network()
    schedule = keras.optimizers.schedules.ExponentialDecay(1.0, 2, 0.5)
    penalties = [gbr.InputGradient(1.0), gbr.Jacobian(schedule)]
    penalties[0].norm = 1  # nothing is compiled yet
    model.compile("sgd", "mse", penalties=penalties)
    for name, value in (("norm", 2), ("interval", 3), ("name", "other"), ("at", "dense")):
        with pytest.raises(AttributeError, match=f"`{name}` of a compiled penalty is read-only"):
            setattr(penalties[0], name, value)
    for value in (-1.0, float("nan"), "much"):
        with pytest.raises(ValueError, match="`weight` must be a finite number"):
            penalties[0].weight = value
    with pytest.raises(ValueError, match="stays a number, or stays a schedule"):
        penalties[0].weight = schedule
    with pytest.raises(ValueError, match="stays a number, or stays a schedule"):
        penalties[1].weight = 1.0
    for twin in (copy.deepcopy(penalties[0]), pickle.loads(pickle.dumps(penalties[0]))):
        twin.norm = "inf"  # a copy belongs to no model
        assert penalties[0].norm == 1


def test_own_attributes_of_a_penalty_stay_its_own():
    class Counted(gbr.Penalty):
        calls = 0

        def __call__(self, forward):
            self.calls += 1
            return keras.ops.sum(keras.ops.square(forward.y_pred), axis=1)

    model, penalty = network(), Counted(1.0)
    model.compile("sgd", "mse", penalties=[penalty], run_eagerly=BACKEND != "jax")
    model.fit(X, np.eye(2)[Y], verbose=0)
    assert penalty.calls
