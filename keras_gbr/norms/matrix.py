r"""Norms of a matrix.

The spectral norm of $W$ is found in two steps. A *method* finds a unit vector close to a
leading singular vector, which is then held constant; the value is what $W$ makes of it,

$$\sigma^2 \approx \|W v\|^2 \quad\text{or}\quad \|W^T u\|^2 .$$

The value never exceeds the true $\sigma^2$, its error is the square of the error of the
vector, and its gradient is $2 W v v^T = 2 \sigma u v^T$ (Yoshida & Miyato 2017, section 3)
without a derivative of the iteration. No method keeps state: the start depends on the shape
alone, so every replica, process and run sees the same number.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras import ops
from keras.backend import standardize_dtype

# Up to this smaller side the Gram matrix is solved whole: it costs less than the iteration.
_SMALL = 128
# A new direction this much shorter than the vector it came from is rounding, not information.
_EXHAUSTED = 100.0


class _Products(NamedTuple):
    """The two products with a matrix, seen from its smaller side.

    `forward` maps a vector of length `small` to one of length `large`; `backward` is its
    transpose.
    """

    forward: Callable[[Any], Any]
    backward: Callable[[Any], Any]
    small: int
    dtype: str


def frobenius_norm(matrix: Any) -> Any:
    r"""The Frobenius norm $\|W\|_F = \sqrt{\sum w^2}$, with gradient 0 at 0.

    Args:
        matrix: Tensor of any shape.

    Returns:
        Scalar tensor.
    """
    total = ops.sum(ops.square(matrix))
    positive = total > 0
    return ops.where(positive, ops.sqrt(ops.where(positive, total, 1.0)), 0.0)


def squared_spectral_norm(matrix: Any, method: str = "lanczos", num_iterations: int = 8) -> Any:
    r"""The squared spectral norm $\sigma(W)^2$, differentiable in `matrix`.

    Args:
        matrix: Tensor `(rows, columns)`, float32 or float64.
        method: `"lanczos"` (Golub-Kahan-Lanczos with full re-orthogonalisation), `"power"`
            or `"svd"` (exact; slow).
        num_iterations: Number of times that the iteration multiplies with the matrix and with
            its transpose. Without a role for `"svd"`.

    Returns:
        Scalar tensor, at most the exact value. 0 with gradient 0 for a matrix of zeros.

    Reference:
        Golub & Kahan 1965 (the bidiagonalisation); Yoshida & Miyato 2017, algorithm 1
        (the power iteration).
    """
    products = _products(matrix)
    vector = METHODS[method](matrix, products, num_iterations)
    return ops.sum(ops.square(products.backward(ops.stop_gradient(vector))))


def _products(matrix: Any) -> _Products:
    rows, columns = matrix.shape

    def right(v: Any) -> Any:
        return ops.reshape(ops.matmul(matrix, ops.reshape(v, (columns, 1))), (rows,))

    def left(u: Any) -> Any:
        return ops.reshape(ops.matmul(ops.reshape(u, (1, rows)), matrix), (columns,))

    dtype = standardize_dtype(matrix.dtype)
    if rows >= columns:
        return _Products(right, left, columns, dtype)
    return _Products(left, right, rows, dtype)


def _power(matrix: Any, products: _Products, num_iterations: int) -> Any:
    v = _start(products)
    u = _unit(products.forward(v))
    for _ in range(num_iterations - 1):
        v = _unit(products.backward(u))
        u = _unit(products.forward(v))
    return u


def _lanczos(matrix: Any, products: _Products, num_iterations: int) -> Any:
    if products.small <= max(num_iterations, _SMALL):
        images = ops.transpose(matrix) if products.small == matrix.shape[1] else matrix
        return _leading_combination(images)
    v = _start(products)
    basis, images = [v], [products.forward(v)]
    for _ in range(num_iterations - 1):
        v = _new_direction(_scaled(products.backward(images[-1])), ops.stack(basis))
        basis.append(v)
        images.append(products.forward(v))
    return _leading_combination(ops.stack(images))


def _svd(matrix: Any, products: _Products, num_iterations: int) -> Any:
    left, _, right = ops.svd(_scaled(ops.stop_gradient(matrix)), full_matrices=False)
    return left[:, 0] if products.small == matrix.shape[1] else right[0]


METHODS = {"lanczos": _lanczos, "power": _power, "svd": _svd}


def _start(products: _Products) -> Any:
    """A pseudo-random unit vector. All ones would be orthogonal to every centred kernel."""
    vector = np.random.default_rng(products.small).standard_normal(products.small)
    return ops.convert_to_tensor(vector / np.linalg.norm(vector), dtype=products.dtype)


def _scaled(x: Any) -> Any:
    """`x` divided by its largest entry, so that squares neither overflow nor vanish."""
    return x / ops.maximum(ops.max(ops.abs(x)), float(np.finfo("float32").tiny))


def _unit(x: Any) -> Any:
    """`x` divided by its length; zeros stay zeros."""
    x = _scaled(x)
    return x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x)), 0.5))


def _new_direction(w: Any, basis: Any) -> Any:
    """The unit vector along the part of `w` orthogonal to the rows of `basis`, or zeros.

    `w` has largest entry 1, hence a length between 1 and the root of its size.
    """
    length = w.shape[0]
    along = ops.matmul(basis, ops.reshape(w, (length, 1)))
    w = w - ops.reshape(ops.matmul(ops.reshape(along, (1, -1)), basis), (length,))
    remainder = ops.sum(ops.square(w))
    noise = (_EXHAUSTED * float(np.finfo(standardize_dtype(w.dtype)).eps)) ** 2 * length
    return w * ops.where(remainder > noise, ops.rsqrt(ops.maximum(remainder, noise)), 0.0)


def _leading_combination(images: Any) -> Any:
    """The unit combination of the rows of `images` along their leading singular vector.

    The rows are the images $W v_j$ of an orthonormal basis, so their Gram matrix is the
    projection of $W^T W$ and its leading eigenvector gives the best vector of the subspace
    (Rayleigh-Ritz). The eigenvector is a column of a high power of that small matrix:
    products alone, which every device has and which let a NaN through instead of failing.
    """
    images = _scaled(ops.stop_gradient(images))
    gram = ops.matmul(images, ops.transpose(images))
    for _ in range(4):
        gram = gram / ops.maximum(ops.trace(gram), float(np.finfo("float32").tiny))
        gram = ops.matmul(gram, gram)
        gram = ops.matmul(gram, gram)
    weights = ops.take(gram, ops.argmax(ops.diagonal(gram)), axis=0)
    weights = ops.reshape(_scaled(weights), (1, -1))
    return _unit(ops.reshape(ops.matmul(weights, images), (-1,)))
