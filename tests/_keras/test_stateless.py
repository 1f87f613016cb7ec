"""Layers that assign trainable weights when they are called: a pass is repeated as it was."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr
from support.networks import logits_loss, use_float64

pytestmark = pytest.mark.jax


class Shrinking(layers.Dense):
    """A layer that halves its kernel before it computes with it."""

    def call(self, inputs, training=False):
        if training:
            self._kernel.assign(0.5 * self._kernel)
        return super().call(inputs)


LAYERS = {
    "spectral normalization": lambda: layers.SpectralNormalization(layers.Dense(4)),
    "shrinking": lambda: Shrinking(4),
}
ALIKE = {
    "input gradient": (gbr.InputGradient(1.0), gbr.InputGradient(1.0, fraction=0.5), 1e-10),
    "jacobian": (gbr.Jacobian(1.0, None), gbr.Jacobian(1.0, None, fraction=0.5), 1e-10),
    "parameter gradient": (
        gbr.ParameterGradient(1.0), gbr.ParameterGradient(1.0, fraction=0.5), 1e-10,
    ),
    # Central or one-sided differences: the error is of the order of the square or the step.
    "finite difference": (
        gbr.InputGradient(1.0), gbr.InputGradient(1.0, method="finite_difference"), 1e-3,
    ),
}  # fmt: skip


def trained(make, penalties, learning_rate=0.01):
    """The weights before and after a step on a batch whose second half repeats the first."""
    use_float64()
    keras.utils.set_random_seed(3)
    inputs = keras.Input((3,))
    hidden = keras.activations.tanh(make()(inputs))
    model = gbr.GBRModel(inputs, layers.Dense(3)(hidden))
    model.set_weights([weight + 0.1 for weight in model.get_weights()])
    before = model.get_weights()
    sgd = keras.optimizers.SGD(learning_rate)
    model.compile(sgd, logits_loss(), penalties=penalties)
    x = np.tile(np.random.default_rng(0).standard_normal((2, 3)), (2, 1))
    y = np.array([0, 2, 0, 2])
    history = model.fit(x, y, batch_size=4, shuffle=False, verbose=0).history
    return before, model.get_weights(), history


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", ALIKE)
def test_a_repetition_computes_the_same_function(name, layer):
    direct, repeated, tolerance = ALIKE[name]
    _, expected, _ = trained(LAYERS[layer], [direct])
    _, actual, _ = trained(LAYERS[layer], [repeated])
    for one, other in zip(expected, actual, strict=True):
        np.testing.assert_allclose(other, one, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("layer", LAYERS)
def test_with_almost_unmoved_inputs_the_loss_counts_twice(layer):
    """The penalty adds the gradient of the loss, with which plain Keras trains, once more."""
    _, expected, plain = trained(LAYERS[layer], [], learning_rate=0.02)
    _, actual, logs = trained(LAYERS[layer], [gbr.Adversarial(1.0, 1e-12)])
    assert logs["adversarial"][0] == pytest.approx(plain["loss"][0], rel=1e-9)
    for one, other in zip(expected, actual, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-9)
