"""Penalties on series with masked steps and a weight for each step."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_the_parameter_gradient_takes_the_weights_as_they_were_given(fraction, double_precision):
    # Under PyTorch, Keras' loss sets the weights of masked steps to zero, in place.
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((4, 5, 3)), rng.standard_normal((3, 1))
    y, weights = rng.standard_normal((4, 5, 1)), rng.uniform(0.5, 2, (4, 5))
    x[1:, 3:] = 0
    inputs = keras.Input((5, 3))
    model = gbr.GBRModel(inputs, layers.Dense(1, use_bias=False)(layers.Masking()(inputs)))
    model.set_weights([kernel])
    penalties = [gbr.ParameterGradient(0.1, fraction=fraction)]
    model.compile(keras.optimizers.SGD(0.1), "mse", penalties=penalties)
    logs = model.fit(x, y, sample_weight=weights, batch_size=4, shuffle=False, verbose=0).history
    size = round(4 * fraction)
    counts = np.any(x != 0, axis=-1)[..., None]
    slopes = (counts * 2 * (x @ kernel - y) * x).sum(1) / counts.sum(1)
    gradient = (slopes * weights.mean(1)[:, None])[:size].mean(0)
    np.testing.assert_allclose(logs["parameter_gradient"][0], (gradient**2).sum(), 1e-10)
