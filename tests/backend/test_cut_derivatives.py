"""Custom functions, and losses, whose second derivative is cut off somewhere."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_gbr as gbr

EAGER, GRAPH = {"run_eagerly": True}, {"jit_compile": False}
FLAT = (6,)


def in_python(x):
    return tf.ensure_shape(tf.py_function(tf.tanh, [x], x.dtype), x.shape)


@tf.custom_gradient
def from_numpy(x):
    y = tf.tanh(x)
    slope = tf.numpy_function(lambda y: 1 - y**2, [y], y.dtype)
    return y, lambda dy: dy * tf.ensure_shape(slope, y.shape)


@tf.custom_gradient
def slope_held_constant(x):
    y = tf.tanh(x)
    return y, lambda dy: dy * tf.stop_gradient(1 - y**2)


@tf.custom_gradient
def slope_without_slope(x):
    y = tf.tanh(x)

    @tf.custom_gradient
    def slope(dy, y):
        return dy * (1 - y**2), lambda d: (d * (1 - y**2), None)

    return y, lambda dy: slope(dy, y)


@tf.custom_gradient
def twice(x):
    return tf.tanh(x), lambda dy: dy * (1 - tf.tanh(x) ** 2)


@tf.custom_gradient
def reversed_gradient(x):
    return tf.identity(x), lambda dy: -dy


def rounded(x):
    return x + tf.stop_gradient(tf.round(x) - x)


CUT = {
    "py_function": in_python,
    "numpy_function": from_numpy,
    "stop_gradient": slope_held_constant,
    "None": slope_without_slope,
    "remat": keras.remat(lambda x: tf.tanh(x) ** 2),
    "recompute_grad": tf.recompute_grad(tf.tanh),
}
WHOLE = {"custom gradient": twice, "reversal": reversed_gradient, "straight through": rounded}


def network_of(function):
    """A network with a custom function in a layer."""
    inputs = keras.Input(FLAT)
    hidden = layers.Dense(4, "tanh")(inputs)
    outputs = layers.Lambda(function, output_shape=(4,), name="own")(hidden)
    return gbr.GBRModel(inputs, layers.Dense(2)(outputs))


@pytest.mark.parametrize("mode", [EAGER, GRAPH], ids=str)
@pytest.mark.parametrize("case", CUT)
def test_custom_functions_without_a_second_derivative_are_refused(case, mode):
    model = network_of(CUT[case])
    model.compile("sgd", "mse", penalties=[gbr.InputGradient(0.1)], **mode)
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"A penalty needs second derivatives.* of layer '"):
        model.fit(np.ones((4, *FLAT)), np.ones((4, 2)), verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("case", WHOLE)
def test_custom_functions_with_a_second_derivative_train(case):
    model = network_of(WHOLE[case])
    model.compile("sgd", "mse", penalties=[gbr.InputGradient(0.1)])
    assert np.isfinite(model.train_on_batch(np.ones((4, *FLAT)), np.ones((4, 2)))).all()


@pytest.mark.parametrize("mode", [EAGER, GRAPH], ids=str)
def test_ctc_is_refused_by_its_name(mode):
    inputs = keras.Input((6, 4))
    model = gbr.GBRModel(inputs, layers.Dense(5)(inputs))
    model.compile("sgd", keras.losses.CTC(), penalties=[gbr.InputGradient(0.1)], **mode)
    with pytest.raises(ValueError, match=r"A penalty needs second derivatives.* of loss 'ctc'"):
        model.fit(np.ones((2, 6, 4)), np.array([[1, 2], [2, 0]]), verbose=0)
