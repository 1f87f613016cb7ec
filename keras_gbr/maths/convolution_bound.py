"""A bound on the norm of a convolution as an operator, not of its reshaped kernel."""

import itertools
import math
from typing import Any

from keras import ops

from keras_gbr.maths.matrix_norms import squared_spectral_norm


def squared_convolution_bound(kernel: Any, method: str = "lanczos", num_iterations: int = 8) -> Any:
    r"""A bound on the squared spectral norm of the convolution with `kernel`.

    The kernel becomes a matrix when each of its $d$ spatial axes is put on the side of the filters
    or on the side of the inputs. With $k$ the number of taps, the norm of the convolution is at
    most $\sqrt k$ times the spectral norm of any of these $2^d$ matrices; the smallest is taken.
    The bound holds for every input size, for zero and circular padding, strides, dilation and
    groups. It also holds for depthwise convolutions, and for transposed ones, whose kernel has the
    last two axes swapped. For a kernel without spatial axes it is the spectral norm.

    Args:
        kernel: Tensor `(*kernel_size, in, out)`.
        method: How the spectral norms are found, see `squared_spectral_norm`. An iteration that
            has not converged gives too small a value.
        num_iterations: See `squared_spectral_norm`.

    Returns:
        Scalar tensor.

    Reference:
        Singla & Feizi 2021, "Fantastic Four: Differentiable Bounds on Singular Values of
        Convolution Layers", https://arxiv.org/abs/1911.10258, theorem 1 (the four matrices of the
        two-dimensional case).
    """
    spatial = range(len(kernel.shape) - 2)
    taps = math.prod(kernel.shape[:-2])
    inputs, outputs = len(kernel.shape) - 2, len(kernel.shape) - 1
    norms = []
    for with_filters in itertools.product((False, True), repeat=len(spatial)):
        rows = [axis for axis in spatial if not with_filters[axis]] + [inputs]
        columns = [axis for axis in spatial if with_filters[axis]] + [outputs]
        matrix = ops.reshape(
            ops.transpose(kernel, rows + columns),
            (math.prod(kernel.shape[axis] for axis in rows), -1),
        )
        norms.append(squared_spectral_norm(matrix, method, num_iterations))
    return taps * ops.min(ops.stack(norms))
