r"""Maps of a kernel onto the kernels of a given norm: pure functions, kernel -> kernel.

`equal_norm` with `center` and `weight_standardization` first subtract the mean of each filter $W_j$
(or of the whole kernel). All maps divide by the Euclidean length. They differ in the length of the
result:

| map | length of a filter |
|---|---|
| `equal_norm` | $\sqrt{\alpha / m}$ with $m$ filters; $\sqrt\alpha$ for the whole kernel |
| `weight_norm` | a gain for each filter |
| `weight_standardization` | $\sqrt n$ with $n$ the fan-in |

A filter of zeros has no direction, nor has a constant filter whose mean is subtracted. It is mapped
to zeros, with gradient zero.
"""

import math
from typing import Any

import numpy as np
from keras import ops
from keras.backend import standardize_dtype

from keras_gbr import _checks as check
from keras_gbr.maths.filters import Axes, as_matrix, from_matrix


def equal_norm(
    kernel: Any,
    alpha: Any = 1.0,
    per_filter: bool = True,
    center: bool = True,
    filter_axis: Axes = -1,
) -> Any:
    r"""The equal norm map: scales `kernel` to $\|W\|_F^2 = \alpha$.

    The two switches give the four published forms: `(False, False)` is equation 20,
    `(True, False)` 21, `(True, True)` 22 (as corrected: its denominator is the length of the
    centred filter) and `(False, True)` 23.

    Args:
        kernel: Tensor or variable `(..., filters)`.
        alpha: The squared Frobenius norm of the result: a float > 0 or a scalar tensor.
        per_filter: Whether each filter is scaled, to the squared norm `alpha / filters`. Otherwise
            the kernel is scaled as a whole.
        center: Whether the mean (of each filter, or of the whole kernel) is subtracted first.
        filter_axis: The axis, or tuple of axes, that numbers the filters, if not the last.

    Returns:
        Tensor of the shape and dtype of `kernel`. A filter without direction contributes 0 to
        the norm.

    Reference:
        Li, Chen & Yang 2021, "Generalization Bound Regularizer: A Unified Perspective for
        Understanding Weight Decay", Chinese Journal of Computers, equations 20 to 23.
    """
    filter_axis = filter_axis if per_filter else ()
    matrix = as_matrix(kernel, filter_axis)
    filters = matrix.shape[1]
    if isinstance(alpha, (int, float)):
        matrix = _scale_columns(matrix, (alpha / filters) ** 0.5, center)
    else:
        length = ops.sqrt(ops.cast(alpha, matrix.dtype) / filters)
        matrix = _scale_columns(matrix, 1.0, center) * length
    return _like(matrix, kernel, filter_axis)


def check_direction(
    shape: tuple[int, ...], filter_axis: Axes, way_out: str, name: str = "kernel"
) -> None:
    """Refuses a kernel whose filters have one entry: centring would make them zero.

    Args:
        shape: The shape of the kernel.
        filter_axis: See `equal_norm`; an empty tuple where the whole kernel is centred.
        way_out: The last sentence of the error: what to do instead.
        name: The name of the kernel in the error.

    Raises:
        ValueError: The filters have one entry.
    """
    axes = filter_axis if isinstance(filter_axis, tuple) else (filter_axis,)
    rank = len(shape)
    if any(not -rank <= axis < rank for axis in axes):
        return  # `as_matrix` refuses such axes
    filters = math.prod(shape[axis] for axis in {axis % rank for axis in axes})
    if math.prod(shape) == filters:
        raise check.error(
            f"Filters of one entry are zero once their mean is subtracted. {way_out}",
            name,
            shape,
        )


def weight_norm(kernel: Any, gain: Any, filter_axis: Axes = -1) -> Any:
    r"""Weight normalisation: $g_j W_j / \|W_j\|$.

    Args:
        kernel: Tensor or variable `(..., filters)`.
        gain: Tensor or variable `(filters,)`, the length of each filter.
        filter_axis: See `equal_norm`.

    Returns:
        Tensor of the shape and dtype of `kernel`.

    Reference:
        Salimans & Kingma 2016, https://arxiv.org/abs/1602.07868, equation 2.
    """
    matrix = _scale_columns(as_matrix(kernel, filter_axis), 1.0, center=False)
    return _like(matrix * ops.cast(gain, matrix.dtype), kernel, filter_axis)


def weight_standardization(kernel: Any, filter_axis: Axes = -1) -> Any:
    r"""Weight standardisation: $(W_j - \bar W_j) / s_j$, each filter with mean 0, variance 1.

    Args:
        kernel: Tensor or variable `(..., filters)`. $s_j$ is the standard deviation over the
            fan-in $n$, with divisor $n$.
        filter_axis: See `equal_norm`.

    Returns:
        Tensor of the shape and dtype of `kernel`.

    Reference:
        Qiao et al. 2019, "Micro-Batch Training with Batch-Channel Normalization and Weight
        Standardization", https://arxiv.org/abs/1903.10520, equation 9.
    """
    matrix = as_matrix(kernel, filter_axis)
    matrix = _scale_columns(matrix, matrix.shape[0] ** 0.5, center=True)
    return _like(matrix, kernel, filter_axis)


def filter_lengths(kernel: Any, filter_axis: Axes = -1) -> Any:
    """The Euclidean length of each filter.

    Args:
        kernel: Tensor or variable `(..., filters)`.
        filter_axis: See `equal_norm`.

    Returns:
        Tensor `(filters,)`.
    """
    return ops.sqrt(ops.sum(ops.square(as_matrix(kernel, filter_axis)), axis=0))


def _like(matrix: Any, kernel: Any, filter_axis: Axes) -> Any:
    result = from_matrix(matrix, tuple(kernel.shape), filter_axis)
    return ops.cast(result, standardize_dtype(kernel.dtype))


def _scale_columns(matrix: Any, length: float, center: bool) -> Any:
    r"""Each column of `matrix`, centred where asked, scaled to the Euclidean `length`.

    The gradient has a closed form here. It needs half as many passes over memory as the derivative
    of the forward pass, and passes over memory are the cost of this map. With $\ell$ the `length`,
    $u$ the unit column, $r$ the inverse of the length of the (centred) column, and $g$ the gradient
    of the result, it is the projection $\ell r (g - \bar g - u \langle u, g\rangle)$. It is made of
    differentiable operations, so second derivatives exist.
    """

    def scaled(matrix: Any) -> tuple[Any, Any]:
        centred, inverse = _direction(matrix, center)
        return centred * (length * inverse), inverse

    @ops.custom_gradient
    def scale(matrix: Any) -> Any:
        result, inverse = scaled(matrix)

        def gradient(*args: Any, upstream: Any = None) -> Any:
            # PyTorch also passes the matrix: second derivatives flow through it only.
            g, parts = (args[0], (result, inverse)) if upstream is None else (upstream, None)
            unit, factor = parts or scaled(*args)
            along = _column_sums(g * unit) * (factor / length)
            if not center:
                return g * (length * factor) - unit * along
            mean = _column_sums(g) / matrix.shape[0]
            return g * (length * factor) - (unit * along + mean * (length * factor))

        return result, gradient

    return scale(ops.convert_to_tensor(matrix))


def _direction(matrix: Any, center: bool) -> tuple[Any, Any]:
    """The (centred) columns and the inverses of their lengths, 0 for a column of zeros."""
    rows = matrix.shape[0]
    noise: Any = 0.0
    if center:
        limits = np.finfo(standardize_dtype(matrix.dtype))
        mean = _column_sums(matrix) / rows
        # Where the sum overflows, so do the squares, and the column counts as zero.
        mean = ops.where(ops.abs(mean) < float(limits.max) / 16, mean, 0.0)
        matrix = matrix - mean
        # A centred constant column holds the rounding of its mean. This is the worst case:
        # adding n equal numbers one by one loses n / 4 units in the last place.
        chunk = _chunk(rows)
        units = 4 + (rows // chunk + chunk) / 4
        noise = rows * ops.square(min(units * float(limits.eps), 1e-4) * mean)
    squares = _column_sums(ops.square(matrix))
    has_length = squares > noise
    return matrix, ops.where(has_length, ops.rsqrt(ops.where(has_length, squares, 1.0)), 0.0)


def _column_sums(matrix: Any) -> Any:
    """The sums over the rows, `(1, columns)`, in two stages.

    Summing long rows first is nearly twice as fast on a CPU as one sum over many short rows,
    and rounds less. A product with ones would be faster still, but rounds to 10 bits on GPUs
    that multiply in TensorFloat-32.
    """
    rows, columns = matrix.shape
    chunk = _chunk(rows)
    whole = rows // chunk * chunk
    main = matrix if whole == rows else matrix[:whole]
    chunks = ops.reshape(main, (rows // chunk, chunk * columns))
    partial = ops.reshape(ops.sum(chunks, axis=0), (chunk, columns))
    total = ops.sum(partial, axis=0, keepdims=True)
    return total + ops.sum(matrix[whole:], axis=0, keepdims=True) if whole < rows else total


def _chunk(rows: int) -> int:
    """The number of partial sums: near the root of `rows`, at least 64, a divisor if possible."""
    most = min(rows, max(64, math.isqrt(rows)))
    return next((c for c in range(most, most // 4, -1) if rows % c == 0), most)
