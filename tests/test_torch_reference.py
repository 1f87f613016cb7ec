"""The penalties against PyTorch: values, and gradients with respect to every parameter.

The references come from tests/references/torch_penalties.py, and hold twelve digits. Here a
gradient is what a step of plain gradient descent with learning rate 1 takes off the weights, so
that the whole training step is compared.
"""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from networks import logits_loss, use_float64

import keras_gbr as gbr

REFERENCES = json.loads((Path(__file__).parent / "references" / "torch_penalties.json").read_text())
NETWORKS = REFERENCES["networks"]


PENALTIES = {
    "jacobian of the output": gbr.Jacobian(1.0, num_projections=None),
    "jacobian of the probabilities": gbr.Jacobian(1.0, num_projections=None, of="probabilities"),
    "gradient of the loss": gbr.InputGradient(1.0),
    "gradient of the label's probability": gbr.InputGradient(1.0, of="label_probability"),
    "gradient by the parameters": gbr.ParameterGradient(1.0),
}


def dense_network():
    inputs = keras.Input((5,))
    hidden = layers.Dense(7, activation="tanh")(inputs)
    return gbr.GBRModel(inputs, layers.Dense(3)(hidden))


def conv_network():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(3, 3, activation="tanh")(inputs)
    x = layers.Conv2D(4, 2, strides=2, activation="tanh")(x)
    return gbr.GBRModel(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def from_torch(array):
    """Kernels `(out, in, ...)` to `(..., in, out)`; vectors stay."""
    array = np.array(array)
    return array.transpose(*range(2, array.ndim), 1, 0) if array.ndim > 1 else array


def images(array):
    """`(samples, channels, height, width)` to `(samples, height, width, channels)`."""
    array = np.array(array)
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def step(model, weights, x, y, penalties):
    """What one step with learning rate 1 logs, and what it takes off each weight."""
    model.compile(keras.optimizers.SGD(1.0), logits_loss(), penalties=penalties)
    model.set_weights(weights)
    logs = model.train_on_batch(x, y, return_dict=True)
    return logs, [a - b for a, b in zip(weights, model.get_weights(), strict=True)]


def test_all_references_are_compared():
    for network in NETWORKS.values():
        assert network["penalties"].keys() >= PENALTIES.keys()


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("network", [dense_network, conv_network])
def test_values_and_gradients(network, penalty):
    use_float64()
    reference = NETWORKS[network.__name__.removesuffix("_network")]
    expected = reference["penalties"][penalty]
    x, y = images(reference["x"]), np.array(reference["y"])
    weights = [from_torch(array) for array in reference["parameters"].values()]
    model = network()

    _, of_the_loss = step(model, weights, x, y, [])
    part = PENALTIES[penalty]
    logs, together = step(model, weights, x, y, [part])
    assert logs[part.name] == pytest.approx(expected["value"], rel=1e-9)
    gradients = [from_torch(array) for array in expected["gradients"].values()]
    # Both steps are near 1 and rounded to 1e-16 of that.
    for loss, both, gradient in zip(of_the_loss, together, gradients, strict=True):
        np.testing.assert_allclose(both - loss, gradient, rtol=1e-8, atol=1e-12)
