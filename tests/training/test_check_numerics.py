"""`check_numerics`: a step with NaN stops training before a weight changes."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr
from support.calls import LOOPS, NOT_FINITE, STEPS, number, tensorflow_only, to_numpy

pytestmark = pytest.mark.jax

X, Y = np.random.default_rng(0).standard_normal((8, 4)), np.ones((8, 2))


class Root(layers.Layer):
    """The absolute value as a root, whose derivative at 0 is 0 times infinity."""

    def call(self, x):
        return keras.ops.sqrt(keras.ops.square(x))


class Broken(gbr.Jacobian):
    def __call__(self, forward):
        return super().__call__(forward) * float("nan")


def network(penalties=None, body=None, check_numerics=True, **settings):
    """A model with a moving average, which the forward pass itself changes."""
    inputs = keras.Input((4,))
    x = layers.BatchNormalization()(layers.Dense(3, "tanh", name="first")(inputs))
    model = gbr.GBRModel(inputs, layers.Dense(2)(body(x) if body else x))
    optimizer = settings.pop("optimizer", keras.optimizers.SGD(0.1, momentum=0.9))
    model.compile(optimizer, "mse", penalties=penalties, check_numerics=check_numerics, **settings)
    return model


def with_nan():
    x = X.copy()
    x[5, 1] = np.nan
    return x


def assert_stops(model, x, message):
    model.fit(X, Y, batch_size=4, verbose=0)
    before = [to_numpy(v) for v in model.weights + model.optimizer.variables]
    with pytest.raises(NOT_FINITE, match=message):
        model.fit(x, Y, batch_size=8, verbose=0)
    for old, variable in zip(before, model.weights + model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(old, to_numpy(variable))
    assert all(np.isfinite(value).all() for value in before)


@pytest.mark.parametrize("mode", [mode for mode in LOOPS if mode != "xla"])
@pytest.mark.parametrize("penalties", [None, [gbr.Jacobian(0.1)]], ids=["plain", "penalty"])
def test_a_loss_that_is_not_finite_stops_training(mode, penalties):
    assert_stops(network(penalties, **LOOPS[mode]), with_nan(), "`check_numerics`: the loss is NaN")


@pytest.mark.parametrize("mode", [mode for mode in STEPS if mode != "xla"])
@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_the_penalty_is_named(mode, weight):
    model = network([gbr.Jacobian(0.1), Broken(weight, name="broken")], **STEPS[mode])
    before = model.get_weights()
    with pytest.raises(NOT_FINITE, match="the penalty `broken` is NaN"):
        model.fit(X, Y, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("mode", [mode for mode in STEPS if mode != "xla"])
def test_the_gradient_is_named(mode):
    """An input of zeros, where the root is finite and its derivative is not."""
    inputs = keras.Input((4,))
    outputs = Root()(layers.Dense(2, name="first")(inputs))
    model = gbr.GBRModel(inputs, outputs)
    model.compile("sgd", "mse", check_numerics=True, **STEPS[mode])
    with pytest.raises(NOT_FINITE, match="the gradient of `first/kernel` is"):
        model.fit(np.zeros((4, 4)), np.ones((4, 2)), verbose=0)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.parametrize("penalties", [None, [gbr.Jacobian(0.1, seed=1)]], ids=["plain", "penalty"])
def test_finite_steps_are_those_without_the_check(penalties):
    weights = []
    for check in (False, True):
        keras.utils.set_random_seed(4)
        model = network(penalties, check_numerics=check)
        model.fit(X, Y, batch_size=3, epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for without, checked in zip(*weights, strict=True):
        np.testing.assert_array_equal(without, checked)


def test_loss_scaling_skips_an_overflow_and_goes_on():
    keras.config.set_dtype_policy("mixed_float16")
    model = network([gbr.Jacobian(0.1)])
    model.optimizer.initial_scale = 2.0**40  # overflows float16 many times over
    model.optimizer.build(model.trainable_variables)
    model.optimizer.dynamic_scale.assign(2.0**40)
    before = model.get_weights()[0]
    model.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], before)
    assert number(model.optimizer.dynamic_scale) == 2.0**39
    with pytest.raises(NOT_FINITE, match="the loss is NaN"):
        model.fit(with_nan(), Y, verbose=0)


@tensorflow_only
def test_the_step_runs_without_xla():
    with pytest.raises(ValueError, match=r"XLA drops the checks.*Received: jit_compile=True"):
        network(jit_compile=True)
    model = network([gbr.Jacobian(0.1)])
    assert model.jit_compile is False
    model.compile("sgd", "mse", None, None, None, False, 1, "auto", check_numerics=True)
    assert model.jit_compile is False


def test_it_is_saved(tmp_path):
    with pytest.raises(ValueError, match="`check_numerics` must be True or False"):
        network(check_numerics=1)
    model = network([gbr.Jacobian(0.1)], optimizer="sgd")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    with pytest.raises(NOT_FINITE, match="the loss is NaN"):
        loaded.fit(with_nan(), Y, verbose=0)


def test_terminate_on_nan_works_as_usual():
    model = network([gbr.Jacobian(0.1)], check_numerics=False)
    history = model.fit(
        with_nan(), Y, epochs=3, verbose=0, callbacks=[keras.callbacks.TerminateOnNaN()]
    ).history
    assert len(history["loss"]) == 1
    assert np.isnan(history["loss"][0])
