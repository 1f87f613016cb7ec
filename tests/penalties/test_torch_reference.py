"""The penalties against PyTorch: values, and gradients with respect to every parameter.

The references come from references/torch_penalties.py, and hold twelve digits. Here a
gradient is what a step of plain gradient descent with learning rate 1 subtracts from the weights,
so that the whole training step is compared.
"""

import functools
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr
from support.networks import logits_loss, use_float64

REFERENCES = json.loads((Path(__file__).parent / "references" / "torch_penalties.json").read_text())
NETWORKS = REFERENCES["networks"]


def by_differences(**kwargs):
    step = REFERENCES["step"]
    return gbr.InputGradient(1.0, method="finite_difference", step=step, **kwargs)


def adversarial(norm):
    return gbr.Adversarial(1.0, REFERENCES["epsilon"], norm)


PENALTIES = {
    "Jacobian": gbr.Jacobian(1.0, num_projections=None),
    "Jacobian of probabilities": gbr.Jacobian(1.0, num_projections=None, of="probabilities"),
    "InputGradient": gbr.InputGradient(1.0),
    "InputGradient, norm 1": gbr.InputGradient(1.0, norm=1),
    "InputGradient, norm inf": gbr.InputGradient(1.0, norm="inf"),
    "InputGradient, target 1": gbr.InputGradient(1.0, target=1.0),
    "InputGradient, norm 1, target 1": gbr.InputGradient(1.0, norm=1, target=1.0),
    "InputGradient of the label's probability": gbr.InputGradient(1.0, of="label_probability"),
    "InputGradient at the first layer": gbr.InputGradient(1.0, at="first"),
    "InputGradient, fraction 1/2": gbr.InputGradient(1.0, fraction=0.5),
    "InputGradient by differences": by_differences(),
    "InputGradient by differences, norm 1": by_differences(norm=1),
    "InputGradient by differences, norm inf": by_differences(norm="inf"),
    "InputGradient by differences, target 1": by_differences(target=1.0),
    "ParameterGradient": gbr.ParameterGradient(1.0),
    "Adversarial, norm inf": adversarial("inf"),
    "Adversarial, norm 2": adversarial(2),
    "Adversarial, norm 1": adversarial(1),
    "Adversarial, no norm": adversarial(None),
    "InputGradient of the output": gbr.InputGradient(1.0, of="output"),
    "InputGradient of the output, target 1": gbr.InputGradient(1.0, of="output", target=1.0),
}
CASES = [(network, name) for network in NETWORKS for name in NETWORKS[network]["penalties"]]


def dense_network(outputs=3):
    inputs = keras.Input((5,))
    hidden = layers.Dense(7, activation="tanh", name="first")(inputs)
    return gbr.GBRModel(inputs, layers.Dense(outputs)(hidden))


def conv_network():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(3, 3, activation="tanh", name="first")(inputs)
    x = layers.Conv2D(4, 2, strides=2, activation="tanh")(x)
    return gbr.GBRModel(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


MODELS = {"dense": dense_network, "conv": conv_network, "critic": lambda: dense_network(1)}


def from_torch(array):
    """Kernels `(out, in, ...)` to `(..., in, out)`; vectors stay."""
    array = np.array(array)
    return array.transpose(*range(2, array.ndim), 1, 0) if array.ndim > 1 else array


def images(array):
    """`(samples, channels, height, width)` to `(samples, height, width, channels)`."""
    array = np.array(array)
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


@functools.cache
def data(network):
    """The inputs, the labels and the weights of a network, as Keras has them."""
    reference = NETWORKS[network]
    weights = [from_torch(array) for array in reference["parameters"].values()]
    return images(reference["x"]), np.array(reference["y"]), weights


def step(network, penalties):
    """What one step with learning rate 1 logs, and what it subtracts from each weight."""
    x, y, weights = data(network)
    model = MODELS[network]()
    loss = logits_loss() if model.output_shape[-1] > 1 else "mse"
    optimizer = keras.optimizers.SGD(1.0)
    # Without XLA, whose compiler would take most of the time.
    model.compile(optimizer, loss, penalties=penalties, jit_compile=False)
    model.set_weights(weights)
    logs = model.train_on_batch(x, y, return_dict=True)
    return logs, [a - b for a, b in zip(weights, model.get_weights(), strict=True)]


@functools.cache
def loss_gradients(network):
    return step(network, [])[1]


def test_every_penalty_has_a_reference():
    assert {name for _, name in CASES} == set(PENALTIES)


@pytest.mark.parametrize(("network", "penalty"), CASES)
def test_values_and_gradients(network, penalty):
    use_float64()
    expected = NETWORKS[network]["penalties"][penalty]
    part = PENALTIES[penalty]
    logs, together = step(network, [part])
    assert logs[part.name] == pytest.approx(expected["value"], rel=1e-9)
    gradients = [from_torch(array) for array in expected["gradients"].values()]
    # Weights near 1 are rounded to 1e-16; differences divide such errors by their step.
    for loss, both, gradient in zip(loss_gradients(network), together, gradients, strict=True):
        np.testing.assert_allclose(both - loss, gradient, rtol=1e-8, atol=1e-11)
