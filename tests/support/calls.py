"""Ways to call a function of tensors: its gradients, and eager, as a graph or compiled.

The gradients are those of the backend itself, not those that keras_gbr makes of them.
"""

import keras
import numpy as np
import pytest
from keras import ops

BACKEND = keras.backend.backend()

if BACKEND == "tensorflow":
    import tensorflow as tf

    MODES = {
        "eager": lambda function: function,
        "graph": tf.function,
        "xla": lambda function: tf.function(function, jit_compile=True),
    }
elif BACKEND == "jax":
    import jax

    MODES = {"eager": lambda function: function, "jit": jax.jit}
else:
    import torch

    MODES = {"eager": lambda function: function}
# Eagerly, JAX compiles each operation alone, and again for every shape.
USUAL = "jit" if BACKEND == "jax" else "eager"

# Settings of `compile` that make different kinds of step. Under PyTorch steps with penalties
# cannot be compiled, and JAX compiles by itself.
STEPS = {"eager": {"run_eagerly": True}, "usual": {}}
if BACKEND == "tensorflow":
    STEPS["xla"] = {"jit_compile": True}

# These also change the loop around the steps. Keras has only one loop for PyTorch.
LOOPS = STEPS if BACKEND == "torch" else STEPS | {"several": {"steps_per_execution": 2}}

# What `check_numerics` raises.
NOT_FINITE = tf.errors.InvalidArgumentError if BACKEND == "tensorflow" else FloatingPointError
tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="Only for TensorFlow.")
# Arrays of float64 are then tensors of float64 under every backend.
in_double_precision = pytest.mark.usefixtures("double_precision")


def random_kernel(*shape, seed=0, dtype="float64"):
    """Gaussian entries with a mean other than zero, so that centring is seen."""
    return (np.random.default_rng(seed).standard_normal(shape) + 0.3).astype(dtype)


def differentiated(function, variables, mode=USUAL):
    """A callable: arrays -> the loss, other parts and the gradients of the loss, as NumPy.

    Args:
        function: Takes tensors and returns a loss and a list of other tensors.
        variables: Keras variables that it reads; one that the loss does not depend on has zeros.
        mode: One of `MODES`.
    """
    run = MODES[mode](_DIFFERENTIATED[BACKEND](function, variables))

    def call(*arrays):
        values = [v.value for v in variables] if BACKEND == "jax" else []
        loss, parts, gradients = run(values, *map(ops.convert_to_tensor, arrays))
        return to_numpy(loss), [to_numpy(p) for p in parts], [to_numpy(g) for g in gradients]

    return call


def _with_tape(function, variables):
    def run(_, *tensors):
        with tf.GradientTape() as tape:
            loss, parts = function(*tensors)
        sources = [v.value for v in variables]
        gradients = tape.gradient(loss, sources, unconnected_gradients="zero")
        return loss, parts, [tf.convert_to_tensor(gradient) for gradient in gradients]

    return run


def _with_jax_grad(function, variables):
    def run(values, *tensors):
        def pure(values):
            pairs = list(zip(variables, values, strict=True))
            with keras.StatelessScope(pairs, collect_losses=True):
                return function(*tensors)

        (loss, parts), gradients = jax.value_and_grad(pure, has_aux=True)(values)
        return loss, parts, gradients

    return run


def _with_torch_grad(function, variables):
    def run(_, *tensors):
        loss, parts = function(*tensors)
        sources = [v.value for v in variables]
        gradients = torch.autograd.grad(loss, sources, allow_unused=True, materialize_grads=True)
        return loss, parts, gradients

    return run


_DIFFERENTIATED = {"tensorflow": _with_tape, "jax": _with_jax_grad, "torch": _with_torch_grad}


def variable_gradients(total, variables):
    """The gradients of the scalar `total()` with respect to Keras variables, as NumPy."""
    return differentiated(lambda: (total(), []), variables)()[2]


def with_gradients(function, mode=USUAL):
    """A callable: arrays -> the value of `function` and its gradients, as NumPy."""
    run = MODES[mode](_GRADIENTS[BACKEND](function))

    def call(*arrays):
        value, gradients = run(*map(ops.convert_to_tensor, arrays))
        return to_numpy(value), [to_numpy(gradient) for gradient in gradients]

    return call


def _input_tape(function):
    def run(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
        return value, tape.gradient(value, tensors)

    return run


def _input_vjp(function):
    def run(*tensors):
        value, pullback = jax.vjp(function, *tensors)
        return value, pullback(jax.numpy.ones_like(value))

    return run


def _input_grad(function):
    def run(*tensors):
        tensors = [tensor.requires_grad_() for tensor in tensors]
        value = function(*tensors)
        return value, torch.autograd.grad(value.sum(), tensors, create_graph=True)

    return run


_GRADIENTS = {"tensorflow": _input_tape, "jax": _input_vjp, "torch": _input_grad}


def value_and_gradients(function, *arrays, mode=USUAL):
    """The value of a function and its gradient with respect to each array, as NumPy."""
    return with_gradients(function, mode)(*arrays)


def gradient(function, array, mode=USUAL):
    """The gradient of a function of one array, as NumPy."""
    return value_and_gradients(function, array, mode=mode)[1][0]


def slopes_of(function):
    """The gradient of a function of one tensor, as a function that can be differentiated again."""
    run = _GRADIENTS[BACKEND](function)
    return lambda tensor: run(tensor)[1][0]


def deviation(actual, expected):
    """The largest difference relative to the largest expected entry."""
    expected = np.asarray(expected, dtype="float64")
    return np.max(np.abs(np.asarray(actual, dtype="float64") - expected)) / np.max(np.abs(expected))


def to_numpy(tensor):
    """A tensor as an array, even if PyTorch records gradients for it."""
    return ops.convert_to_numpy(tensor)


def assert_close(actual, expected, **tolerances):
    """As `numpy.testing.assert_allclose`, of tensors and variables too."""
    np.testing.assert_allclose(to_numpy(actual), to_numpy(expected), **tolerances)


def assert_equal(actual, expected):
    """As `numpy.testing.assert_array_equal`, of tensors and variables too."""
    np.testing.assert_array_equal(to_numpy(actual), to_numpy(expected))


def number(tensor):
    """A scalar tensor or variable as a Python number."""
    return to_numpy(tensor).item()
