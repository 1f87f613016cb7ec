"""A first step that would ruin the weights is undone."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_first_step_whose_gradient_is_not_finite_is_undone(run_eagerly):
    inputs = keras.Input((3,))
    hidden = layers.Dense(4, "tanh")(inputs)
    # The second derivative of x^1.5 is infinite at 0.
    hidden = layers.Lambda(lambda x: keras.ops.power(0 * x, 1.5) + x)(hidden)
    model = gbr.GBRModel(inputs, layers.Dense(2)(hidden))
    penalties = [gbr.InputGradient(0.1)]
    model.compile("adam", "mse", penalties=penalties, run_eagerly=run_eagerly)
    before = [keras.ops.convert_to_numpy(v) for v in model.variables]
    with pytest.raises(ValueError, match=r"their gradient is not.*Received: gradients of"):
        model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(new))
    assert np.isfinite(model.predict(np.ones((4, 3)), verbose=0)).all()
