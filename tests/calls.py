"""Ways to call a function of tensors: its gradients, and eager, as a graph or compiled."""

import numpy as np
import tensorflow as tf

MODES = {
    "eager": lambda function: function,
    "graph": tf.function,
    "xla": lambda function: tf.function(function, jit_compile=True),
}


def random_kernel(*shape, seed=0, dtype="float64"):
    """Gaussian entries with a mean other than zero, so that centring is seen."""
    return (np.random.default_rng(seed).standard_normal(shape) + 0.3).astype(dtype)


def with_gradients(function, mode="eager"):
    """A callable: arrays -> the value of `function` and its gradients, as NumPy."""

    def run(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
        return value, tape.gradient(value, tensors)

    run = MODES[mode](run)

    def call(*arrays):
        value, gradients = run(*[tf.constant(array) for array in arrays])
        return value.numpy(), [gradient.numpy() for gradient in gradients]

    return call


def value_and_gradients(function, *arrays, mode="eager"):
    """The value of a function and its gradient with respect to each array, as NumPy."""
    return with_gradients(function, mode)(*arrays)


def gradient(function, array, mode="eager"):
    """The gradient of a function of one array, as NumPy."""
    return value_and_gradients(function, array, mode=mode)[1][0]


def deviation(actual, expected):
    """The largest difference relative to the largest expected entry."""
    expected = np.asarray(expected, dtype="float64")
    return np.max(np.abs(np.asarray(actual, dtype="float64") - expected)) / np.max(np.abs(expected))
