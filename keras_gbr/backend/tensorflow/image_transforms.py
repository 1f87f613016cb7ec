"""The gradient of rotating, moving and stretching images.

TensorFlow approximates it by the inverse transformation of the output gradient. Penalties on the
input of `RandomTranslation`, `RandomZoom` and similar layers are then off by up to 18 %. Each
output is a weighted sum of at most four neighbouring inputs; the exact gradient is the transposed
sum.
"""

from typing import Any

import tensorflow as tf


def transposed_transform(op: Any, gradient: Any) -> Any:
    """The gradient of a transformation of images with respect to the images.

    The four neighbours differ in the parity of their row and column. For each parity, an image
    that is 1 at its places and 0 elsewhere is transformed. The result is the weight of the
    neighbour of that parity. The same image times the row, or times the column, gives the weight
    times the place of that neighbour.

    Args:
        op: The operation, or the record of one on a tape. Its first inputs are the images
            `(samples, height, width, channels)` and the transformations.
        gradient: Derivatives with respect to the outputs, `(samples, rows, columns, channels)`.

    Returns:
        A tensor with the shape of the images.
    """
    images, transforms = op.inputs[:2]
    gradient = tf.convert_to_tensor(gradient)
    samples, height, width, channels = tf.unstack(tf.shape(images))
    dtype = tf.float64 if images.dtype == tf.float64 else tf.float32
    planes = _planes(height, width, dtype)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.broadcast_to(planes, tf.concat([[samples], tf.shape(planes)], 0)),
        transforms=transforms,
        output_shape=tf.shape(gradient)[1:3],
        fill_value=0.0,
        interpolation=op.get_attr("interpolation"),
        fill_mode=op.get_attr("fill_mode"),
    )
    weights, *places = tf.split(moved, 3, -1)
    row, column = (
        tf.cast(tf.round(tf.math.divide_no_nan(place, weights)), tf.int32) for place in places
    )
    sample = tf.reshape(tf.range(samples), (-1, 1, 1, 1))
    pixel = (sample * height + row) * width + column
    shares = weights[..., None] * tf.cast(gradient, dtype)[..., None, :]
    total = tf.math.unsorted_segment_sum(
        tf.reshape(shares, (-1, channels)), tf.reshape(pixel, (-1,)), samples * height * width
    )
    return tf.cast(tf.reshape(total, tf.shape(images)), gradient.dtype)


def _planes(height: Any, width: Any, dtype: Any) -> Any:
    """Twelve images as channels: 1, the row and the column, each at the places of one parity."""
    rows, columns = tf.meshgrid(tf.range(height), tf.range(width), indexing="ij")
    parity = tf.one_hot(2 * (rows % 2) + columns % 2, 4, dtype=dtype)
    places = [tf.cast(place, dtype)[..., None] for place in (rows, columns)]
    return tf.concat([parity, *(parity * place for place in places)], -1)
