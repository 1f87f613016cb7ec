"""A kernel as a matrix with one filter per column, and back."""

import math
from typing import Any

from keras import ops

from keras_gbr import _checks as check
from keras_gbr.maths.precision import at_least_float32

Axes = int | tuple[int, ...]


def as_matrix(kernel: Any, filter_axis: Axes = -1) -> Any:
    """The kernel as a matrix of at least single precision, one filter per column.

    Args:
        kernel: Tensor or variable of any shape. A vector is one row.
        filter_axis: The axis, or tuple of axes, that numbers the filters. With an empty tuple the
            whole kernel is one filter.

    Returns:
        Tensor `(fan_in, filters)`; float32 or float64.

    Raises:
        ValueError: `kernel` has no such axis.
    """
    kernel = at_least_float32(kernel)
    order, columns = _order(len(kernel.shape), filter_axis)
    filters = math.prod(kernel.shape[axis] for axis in order[len(order) - columns :])
    if order != sorted(order):
        kernel = ops.transpose(kernel, order)
    return ops.reshape(kernel, (-1, filters))


def from_matrix(matrix: Any, shape: tuple[int, ...], filter_axis: Axes = -1) -> Any:
    """The inverse of `as_matrix`.

    Args:
        matrix: Tensor `(fan_in, filters)`.
        shape: The shape of the kernel.
        filter_axis: See `as_matrix`.

    Returns:
        Tensor of `shape`.
    """
    order, _ = _order(len(shape), filter_axis)
    kernel = ops.reshape(matrix, [shape[axis] for axis in order])
    if order == sorted(order):
        return kernel
    return ops.transpose(kernel, [order.index(axis) for axis in range(len(order))])


def _order(rank: int, filter_axis: Axes) -> tuple[list[int], int]:
    """All axes of a kernel, those of the filters last, and the number of the latter."""
    axes = filter_axis if isinstance(filter_axis, tuple) else (filter_axis,)
    if rank == 0:
        return [], 0
    if any(not -rank <= axis < rank for axis in axes):
        raise check.error(
            f"`filter_axis` must name axes of the kernel, which has {rank}.",
            "filter_axis",
            filter_axis,
        )
    last = [axis % rank for axis in axes]
    return [axis for axis in range(rank) if axis not in last] + last, len(last)
