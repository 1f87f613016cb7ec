r"""Norms of a matrix.

The spectral norm of $W$ is found in two steps. A *method* finds a unit vector close to a leading
singular vector. That is held constant, and the value is the length of its image:

$$\sigma^2 \approx \|W v\|^2 \quad\text{or}\quad \|W^T u\|^2 .$$

The value never exceeds the true $\sigma^2$. Its error is the square of the error of the vector. Its
gradient is $2 W v v^T = 2 \sigma u v^T$ (Yoshida & Miyato 2017, section 3), without a derivative of
the iteration. No method keeps state: the start depends only on the shape, so every replica,
process and run gets the same number.

`"lanczos"` is for CPUs, where the cost is reading the matrix; `"gram"` is for accelerators, where
it is the number of operations. Products in low precision (TF32 has 10 bits) give a slightly
different vector; the value changes only by the square of that error.

In the iterations vectors are rows, so several of them form a matrix. `wide` is the matrix with its
smaller side first, `tall` is its transpose.
"""

from typing import Any

import numpy as np
from keras import ops
from keras.backend import standardize_dtype

# Up to this smaller side the whole Gram matrix is solved: that costs less than the iteration.
_SMALL = 128
# Up to this smaller side the Gram matrix is squared by `"gram"`; its cost grows with the cube.
_LARGEST_GRAM = 1024
# How often the Gram matrix is squared after each division by its largest entry. Its leading
# eigenvalue is then at most 1024, and the eighth power of that is in the range of float32.
_SQUARINGS = (3, 3, 3, 2)
# Vectors that the Lanczos iteration carries at once. Two cost hardly more than one, because the
# cost is reading the matrix, and both starts rarely miss the leading vector.
_BLOCK = 2
# A direction whose length is at most this many roundings of the vector it came from is noise.
_EXHAUSTED = 100.0
_TINY = float(np.finfo("float32").tiny)


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
        method: `"lanczos"` (block Lanczos with full re-orthogonalisation), `"gram"` (a row of
            the 2048th power of the Gram matrix of the smaller side; `"lanczos"` where that side
            is above 1024), `"power"` or `"svd"` (exact; slow).
        num_iterations: Number of times that the iteration multiplies with the matrix and with
            its transpose. `"gram"` and `"svd"` do not use it.

    Returns:
        Scalar tensor, at most the exact value. 0 with gradient 0 for a matrix of zeros.

    Reference:
        Golub & Underwood 1977 (the block Lanczos method). Yoshida & Miyato 2017,
        https://arxiv.org/abs/1705.10941, algorithm 1 (the power iteration). Delattre et al. 2023,
        https://arxiv.org/abs/2305.16173 (the squared Gram matrix).
    """
    rows, columns = matrix.shape
    if method == "gram":
        if min(rows, columns) <= _LARGEST_GRAM:
            return _squared_norm_by_gram(matrix)
        method = "lanczos"
    transpose = ops.transpose(matrix)
    wide, tall = (transpose, matrix) if rows >= columns else (matrix, transpose)
    vector = ops.stop_gradient(_ITERATIONS[method](wide, tall, num_iterations))
    # With `matrix` itself: the gradient through a transpose would be one more pass over it.
    if rows >= columns:
        return ops.sum(ops.square(ops.matmul(vector, matrix)))
    return ops.sum(ops.square(ops.matmul(matrix, ops.transpose(vector))))


def _squared_norm_by_gram(matrix: Any) -> Any:
    """The squared norm by the vector of the smaller side, in as few operations as possible."""
    by_columns = matrix.shape[0] >= matrix.shape[1]
    fixed = ops.stop_gradient(matrix)
    fixed = ops.divide_no_nan(fixed, ops.max(ops.abs(fixed)))
    transpose = ops.transpose(fixed)
    gram = ops.matmul(transpose, fixed) if by_columns else ops.matmul(fixed, transpose)
    vector = _leading_eigenvector(gram)
    # Products with a vector as sums: in full precision on devices that round in `matmul`.
    if by_columns:
        return ops.sum(ops.square(ops.sum(matrix * vector, axis=1)))
    return ops.sum(ops.square(ops.sum(matrix * ops.reshape(vector, (-1, 1)), axis=0)))


def _leading_eigenvector(gram: Any) -> Any:
    """The unit eigenvector `(n,)` of the largest eigenvalue; zeros for a matrix of zeros.

    It is the row of a high power of `gram` that has the largest entry on the diagonal, because this
    row cannot be orthogonal to the eigenvector. The largest entry of a positive semidefinite matrix
    is on its diagonal, so the largest of the row maxima finds it. The factors break ties.
    """
    for squarings in _SQUARINGS:
        gram = ops.divide_no_nan(gram, ops.max(gram))
        for _ in range(squarings):
            gram = ops.matmul(gram, gram)
    factors = 1.0 - 2.0**-20 * np.arange(gram.shape[0])
    largest = ops.max(gram, axis=1, keepdims=True) * _constant(factors[:, None], gram)
    chosen = ops.cast(largest >= ops.max(largest), gram.dtype)
    row = ops.sum(gram * chosen, axis=0)
    return ops.divide_no_nan(row, ops.sqrt(ops.sum(ops.square(row))))


def _power(wide: Any, tall: Any, num_iterations: int) -> Any:
    u = _unit(ops.matmul(_start(wide, 1), wide))
    for _ in range(num_iterations - 1):
        v = _unit(ops.matmul(u, tall))
        u = _unit(ops.matmul(v, wide))
    return u


def _lanczos(wide: Any, tall: Any, num_iterations: int) -> Any:
    if wide.shape[0] <= max(_BLOCK * num_iterations, _SMALL):
        return _leading_combination(wide)
    basis = _start(wide, _BLOCK)
    images = [ops.matmul(basis, wide)]
    for _ in range(num_iterations - 1):
        block = _new_directions(ops.matmul(_scaled(images[-1]), tall), basis)
        basis = ops.concatenate([basis, block])
        images.append(ops.matmul(block, wide))
    return _leading_combination(ops.concatenate(images))


def _svd(wide: Any, tall: Any, num_iterations: int) -> Any:
    wide = _scaled(ops.stop_gradient(wide))
    # PyTorch refuses to decompose a NaN. The later product with the matrix still has it.
    wide = ops.where(ops.isfinite(wide), wide, 0.0)
    _, _, right = ops.svd(wide, full_matrices=False)
    return right[:1]


_ITERATIONS = {"lanczos": _lanczos, "power": _power, "svd": _svd}
METHODS = ("lanczos", "gram", "power", "svd")


def _constant(array: np.ndarray, like: Any) -> Any:
    """An array as a tensor of the same type as `like`."""
    return ops.convert_to_tensor(array, standardize_dtype(like.dtype))


def _start(wide: Any, count: int) -> Any:
    """Pseudo-random orthonormal rows. All ones would be orthogonal to every centred kernel."""
    length = wide.shape[0]
    vectors = np.random.default_rng(length).standard_normal((count, length))
    return _constant(np.linalg.qr(vectors.T)[0].T, wide)


def _scaled(x: Any) -> Any:
    """`x` divided by its largest entry, so that squares neither overflow nor vanish."""
    return x / ops.maximum(ops.max(ops.abs(x)), _TINY)


def _unit(x: Any) -> Any:
    """`x` divided by its length; zeros stay zeros."""
    x = _scaled(x)
    return x * ops.rsqrt(ops.maximum(ops.sum(ops.square(x)), 0.5))


def _new_directions(pair: Any, basis: Any) -> Any:
    """The unit vectors along the parts of two rows orthogonal to `basis` and to each other.

    A row with no such part becomes zeros.
    """
    pair = _scaled(pair)
    for _ in range(2):  # once leaves rounding behind that doubles with every direction
        pair = pair - ops.matmul(ops.matmul(pair, ops.transpose(basis)), basis)
    first, second = pair[:1], pair[1:]
    along = ops.sum(first * second) / ops.maximum(ops.sum(ops.square(first)), _TINY)
    pair = ops.concatenate([first, second - along * first])
    remainders = ops.sum(ops.square(pair), axis=1, keepdims=True)
    noise = (_EXHAUSTED * float(np.finfo(standardize_dtype(pair.dtype)).eps)) ** 2 * pair.shape[1]
    scale = ops.rsqrt(ops.maximum(remainders, noise))
    return pair * ops.where(remainders > noise, scale, 0.0)


def _leading_combination(images: Any) -> Any:
    """The unit combination of the rows of `images` along their leading singular vector.

    The rows are the images of an orthonormal basis, so their Gram matrix is the projection of
    $W^T W$ and its leading eigenvector gives the best vector of the subspace (Rayleigh-Ritz).
    The eigenvector is a row of a high power of that small matrix. Products are available on every
    device, and pass on a NaN instead of failing.
    """
    images = _scaled(ops.stop_gradient(images))
    gram = ops.matmul(images, ops.transpose(images))
    for _ in range(4):
        gram = gram / ops.maximum(ops.trace(gram), _TINY)
        gram = ops.matmul(gram, gram)
        gram = ops.matmul(gram, gram)
    weights = ops.take(gram, ops.argmax(ops.diagonal(gram)), axis=0)
    return _unit(ops.matmul(ops.reshape(_scaled(weights), (1, -1)), images))
