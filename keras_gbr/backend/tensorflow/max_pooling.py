"""Picks the entries of a tensor where another one is largest, window by window."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def at_largest(
    x: Any,
    values: Any,
    output_shape: Any,
    sizes: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[int],
) -> Any:
    """The entry of `values` where `x` is largest, in each window of a pooling.

    Of several equal entries the first one counts, as in max pooling. The axes are reduced one
    after the other, the last one first, each by a running maximum over the slices of a window.
    This only selects, so it is exact in every precision. XLA makes one loop of it.

    Args:
        x: Tensor.
        values: Tensor of the shape of `x`.
        output_shape: Integer tensor, the shape of the result of the pooling.
        sizes: The size of a window along each axis.
        strides: The stride along each axis.
        padding: "SAME", "VALID", or the numbers of entries before and after each axis.

    Returns:
        Tensor of the shape `output_shape`.
    """
    axes = [axis for axis in range(len(sizes)) if sizes[axis] > 1 or strides[axis] > 1]
    for axis in reversed(axes):
        size, stride, count = sizes[axis], strides[axis], output_shape[axis]
        ends = _ends(tf.shape(x)[axis], size, stride, count, padding, axis)
        if padding != "VALID":
            widths = tf.one_hot(axis, len(sizes), dtype=tf.int32)[:, None] * tf.stack(ends)
            x = tf.pad(x, widths, constant_values=x.dtype.min)
            values = tf.pad(values, widths)
        largest, chosen = _slice(x, axis, 0, stride, count), _slice(values, axis, 0, stride, count)
        for offset in range(1, size):
            candidate = _slice(x, axis, offset, stride, count)
            is_larger = candidate > largest
            largest = tf.where(is_larger, candidate, largest)
            chosen = tf.where(is_larger, _slice(values, axis, offset, stride, count), chosen)
        x, values = largest, chosen
    return values


def _ends(length: Any, size: int, stride: int, count: Any, padding: Any, axis: int) -> list[Any]:
    """The numbers of entries that pad an axis before and after."""
    if padding == "SAME":
        missing = tf.maximum((count - 1) * stride + size - length, 0)
        return [missing // 2, missing - missing // 2]
    return [0, 0] if padding == "VALID" else list(padding[2 * axis : 2 * axis + 2])


def _slice(tensor: Any, axis: int, offset: int, stride: int, count: Any) -> Any:
    """Every `stride`-th entry along an axis, `count` of them, from `offset` on."""
    part = slice(offset, offset + (count - 1) * stride + 1, stride)
    sliced = tensor[(slice(None),) * axis + (part,)]
    shape = sliced.shape.as_list()
    static = tf.get_static_value(count)
    shape[axis] = None if static is None else int(static)
    return tf.ensure_shape(sliced, shape) if static is not None else sliced
