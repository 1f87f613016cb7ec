"""Penalties in front of layers that move, turn and stretch images at random."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr
from support.networks import batch


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.RandomTranslation(0.3, 0.3, seed=1),
        lambda: layers.RandomZoom(0.4, seed=1),
        lambda: layers.RandomRotation(0.2, fill_mode="constant", seed=1),
        lambda: layers.RandomShear(0.4, 0.4, seed=1),
        lambda: layers.RandomPerspective(1.0, 0.5, seed=1),
    ],
)
def test_the_penalty_on_images_that_change_at_random(layer, run_eagerly):
    inputs = keras.Input((6, 6, 2))
    outputs = layers.Dense(1)(layers.Flatten()(layer()(inputs)))
    model = gbr.GBRModel(inputs, outputs)
    penalties = [gbr.InputGradient(1.0, of="output")]
    model.compile(keras.optimizers.SGD(0.0), "mse", penalties=penalties, run_eagerly=run_eagerly)
    x, _ = batch((6, 6, 2))
    state = [(v, keras.ops.convert_to_numpy(v)) for v in model.non_trainable_variables]
    logs = model.train_on_batch(x, np.ones((4, 1)), return_dict=True)

    def values(x):
        for variable, value in state:  # the same random numbers
            variable.assign(value)
        return keras.ops.convert_to_numpy(model(x, training=True))[:, 0]

    # The model is linear: differences are exact but for roundings, at any step.
    start, square = values(0 * x), 0
    for index in np.ndindex(6, 6, 2):
        pixel = np.zeros((6, 6, 2), "float32")
        pixel[index] = 1
        square += (values(0 * x + pixel) - start) ** 2
    np.testing.assert_allclose(logs["input_gradient"], square.mean(), 1e-4)
