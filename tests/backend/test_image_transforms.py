"""Gradients of turned, moved and stretched images under TensorFlow: the transpose."""

import numpy as np
import pytest
import tensorflow as tf

import keras_gbr  # noqa: F401  puts the gradient in place

SHAPE = (5, 6)
# Rows of eight numbers, as the operation takes them: moved, turned, stretched, in perspective.
TRANSFORMS = np.array(
    [
        [1, 0, 1.3, 0, 1, -0.6, 0, 0],
        [0.8, -0.6, 1.9, 0.6, 0.8, -1.1, 0, 0],
        [1.7, 0.2, -0.4, 0.1, 0.6, 0.3, 0, 0],
        [1.1, 0.1, 0.2, -0.2, 0.9, 0.7, 0.03, -0.05],
    ],
    "float32",
)


def transform(images, row, interpolation, fill_mode):
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=TRANSFORMS[row : row + 1],
        output_shape=[4, 7],
        fill_value=0.0,
        interpolation=interpolation,
        fill_mode=fill_mode,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("fill_mode", ["CONSTANT", "REFLECT", "WRAP", "NEAREST"])
@pytest.mark.parametrize("interpolation", ["BILINEAR", "NEAREST"])
@pytest.mark.parametrize("row", range(len(TRANSFORMS)))
def test_the_gradient_is_the_transpose(row, interpolation, fill_mode, dtype):
    # The transformation is linear: the image of each unit pixel is a column of its matrix.
    size = np.prod(SHAPE)
    pixels = np.eye(size, dtype="float32").reshape(size, *SHAPE, 1)
    matrix = transform(pixels, row, interpolation, fill_mode).numpy().reshape(size, -1)
    rng = np.random.default_rng(0)
    images = tf.constant(rng.standard_normal((2, *SHAPE, 3)), dtype)
    weights = rng.standard_normal((2, 4, 7, 3))
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = transform(images, row, interpolation, fill_mode)
        value = tf.reduce_sum(outputs * tf.cast(weights, dtype))
    expected = np.einsum("io,soc->sic", matrix, weights.reshape(2, -1, 3)).reshape(images.shape)
    # Roundings of sums of some ten terms.
    tolerance = 1e-2 if dtype == "float16" else 1e-5
    np.testing.assert_allclose(tape.gradient(value, images), expected, tolerance, tolerance)
