"""Layers whose own `build` leaves layers inside to the first call."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_gbr as gbr

pytestmark = pytest.mark.jax


class Half(layers.Layer):
    """Builds one of two layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Dense(3, name="first"), layers.Dense(2, name="second")

    def build(self, shape):
        self.first.build(shape)

    def call(self, x):
        return self.second(self.first(x))


class Neither(Half):
    """Builds neither."""

    def build(self, shape):
        pass


class OfTwo(Half):
    """Takes two tensors."""

    def build(self, x_shape, other_shape):
        self.first.build(x_shape)

    def call(self, x, other):
        return self.second(self.first(x) + self.first(other))


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize(("block", "count"), [(Half, 1), (Neither, 1), (OfTwo, 2)])
def test_every_kernel_is_wrapped_at_the_first_call(block, count, symbolic):
    x = [keras.Input((4,)) if symbolic else np.ones((2, 4), "float32")] * count
    wrapper = gbr.ENC(block())
    wrapper(*x)
    wrapper(*x)
    assert list(wrapper.kernels) == ["first/kernel", "second/kernel"]
    regularized = gbr.Regularized(block(), "l2")
    regularized(*x)
    assert sum(weight.regularizer is not None for weight in regularized.weights) == 2


def test_the_kernels_are_listed():
    model = keras.Sequential([keras.Input((4,)), Half(name="half")])
    (listed,) = gbr.list_kernels(model)
    assert listed.kernels == (("first/kernel", (4, 3)), ("second/kernel", (3, 2)))


class Own(layers.Layer):
    """Makes a kernel itself and says which axis numbers its filters."""

    gbr_kernels = {"weight": 0}  # noqa: RUF012

    def build(self, shape):
        self.weight = self.add_weight(shape=(3, shape[-1]), name="weight")

    def call(self, x):
        return keras.ops.matmul(x, keras.ops.transpose(self.weight))


def test_a_kernel_that_its_author_declares_is_replaced():
    wrapper = gbr.ENC(Own())
    x = np.random.default_rng(0).standard_normal((2, 4)).astype("float32")
    outputs = keras.ops.convert_to_numpy(wrapper(x))
    raw = keras.ops.convert_to_numpy(wrapper.layer.weight)
    centred = raw - raw.mean(axis=1, keepdims=True)
    used = centred / np.linalg.norm(centred, axis=1, keepdims=True) / np.sqrt(3)
    np.testing.assert_allclose(outputs, x @ used.T, atol=1e-6)
    model = keras.Sequential([keras.Input((4,)), Own(name="own")])
    (listed,) = gbr.list_kernels(model)
    assert listed.kernels == (("weight", (3, 4)),)
    Own.gbr_kernels, before = {"weights_": 0}, Own.gbr_kernels
    try:
        with pytest.raises(ValueError, match=r"`gbr_kernels` .*Received: gbr_kernels="):
            gbr.ENC(Own())(x)
    finally:
        Own.gbr_kernels = before
