"""Kernels without a direction, which a map would set to zero and keep there, are refused."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr

pytestmark = pytest.mark.jax

SERIES, ONE, TWO = (5, 1), (1,), (2,)
REFUSED = {
    "a univariate series": (lambda: gbr.ENC(layers.LSTM(8)), SERIES, "`center=False`"),
    "one convolved": (lambda: gbr.ENC(layers.DepthwiseConv2D(1)), (4, 4, 3), "`center=False`"),
    "one in all": (lambda: gbr.ENC(layers.Dense(1), per_filter=False), ONE, "`center=False`"),
    "learnable": (lambda: gbr.ENC(layers.Dense(3), learnable_alpha=True), ONE, "`center=False`"),
    "embedded in one": (lambda: gbr.ENC(layers.Embedding(9, 1)), SERIES, "`center=False`"),
    "standardised": (lambda: gbr.WeightStandardization(layers.GRU(3)), SERIES, "`WeightNorm`"),
    "zeros": (
        lambda: gbr.WeightNorm(layers.Dense(3, kernel_initializer="zeros")), TWO, "initializer",
    ),
    "recurrent zeros": (
        lambda: gbr.ENC(layers.GRU(3, recurrent_initializer="zeros"), center=False),
        (5, 2),
        "initializer",
    ),
    "ones": (lambda: gbr.ENC(layers.Dense(3, kernel_initializer="ones")), TWO, "initializer"),
}  # fmt: skip
TAKEN = {
    "a univariate series": (lambda: gbr.ENC(layers.LSTM(8), center=False), SERIES),
    "the whole kernel": (lambda: gbr.ENC(layers.LSTM(8), per_filter=False), SERIES),
    "the length of one": (lambda: gbr.WeightNorm(layers.Dense(3)), ONE),
    "ones": (lambda: gbr.ENC(layers.Dense(3, kernel_initializer="ones"), center=False), TWO),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_kernel_without_direction_is_refused_when_it_is_built(case):
    make, shape, way_out = REFUSED[case]
    with pytest.raises(ValueError, match=rf"{way_out}.*Received: .*="):
        make()(keras.Input(shape))


@pytest.mark.parametrize("case", TAKEN)
def test_a_kernel_with_a_direction_is_taken(case):
    make, shape = TAKEN[case]
    wrapper = make()
    wrapper(np.ones((1, *shape), "float32"))
    assert all(np.any(keras.ops.convert_to_numpy(k)) for k in wrapper.kernels.values())


def test_the_constraint_refuses_a_kernel_without_direction_when_called():
    with pytest.raises(ValueError, match=r"`center=False`.*Received: w=\(1, 3\)"):
        gbr.EqualNorm()(np.ones((1, 3), "float32"))
    assert np.any(
        keras.ops.convert_to_numpy(gbr.EqualNorm(center=False)(np.ones((1, 3), "float32")))
    )


def test_apply_enc_leaves_a_kernel_without_direction_alone():
    model = keras.Sequential([keras.Input(SERIES), layers.LSTM(4, name="lstm"), layers.Dense(3)])
    left, changed = gbr.list_kernels(model)
    assert changed.left_alone == ""
    assert left.path == "lstm"
    assert "left alone: Filters of one entry" in str(left)
    assert type(gbr.apply_enc(model).layers[0]) is layers.LSTM
    assert isinstance(gbr.apply_enc(model, center=False).layers[0], gbr.ENC)
    with pytest.raises(ValueError, match="'lstm' cannot be changed"):
        gbr.apply_enc(model, layers="lstm")
