"""Regularizers of one kernel, for `kernel_regularizer=`.

A regularizer gets the variable of the layer. Under a reparametrizing wrapper (`ENC`, `WeightNorm`,
...) that is the raw kernel. It keeps no state: its value depends only on the kernel.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_gbr import _checks as check
from keras_gbr.backend import on_accelerator
from keras_gbr.kernels import CONVOLUTIONS, Kernel
from keras_gbr.maths.convolution_bound import squared_convolution_bound
from keras_gbr.maths.filters import Axes, as_matrix
from keras_gbr.maths.matrix_norms import METHODS, squared_spectral_norm
from keras_gbr.maths.precision import at_least_float32, magnitudes

PACKAGE = "keras_gbr"


class _Addable(keras.regularizers.Regularizer):
    """A regularizer that `+` joins with another one into a `Sum`."""

    def __add__(self, other: Any) -> "Sum":
        if not isinstance(other, keras.regularizers.Regularizer):
            return NotImplemented
        return Sum([self, other])

    def __radd__(self, other: Any) -> "Sum":
        if not isinstance(other, keras.regularizers.Regularizer):
            return NotImplemented
        return Sum([other, self])


@keras.saving.register_keras_serializable(PACKAGE)
class Spectral(_Addable):
    r"""Spectral norm regularization: adds `factor * sigma(W)**2` to the loss.

    $\sigma(W)$ is the largest singular value of the kernel reshaped to `(fan_in, filters)`. A small
    $\sigma$ limits how far the layer can stretch a perturbation of its input.

    The paper writes $\frac\lambda2 \sum \sigma(W)^2$: `factor` is $\lambda / 2$. The gradient is
    $2\,\text{factor}\,\sigma u v^T$, with $u$ and $v$ the singular vectors of $\sigma$.

    Args:
        factor: Float >= 0.
        method: `"auto"`, `"lanczos"`, `"gram"`, `"power"` or `"svd"`. `"auto"` is `"gram"` where
            the kernel is on a GPU or TPU, which are fast at its few large products, and
            `"lanczos"` on a CPU. Errors of $\sigma$ over the kernels of a freshly initialised
            ResNet-50, compared with the singular value decomposition: eight Lanczos steps are
            0.3 % low on average and 1.6 % at worst; eight power iterations 4 % and 8 %; `"gram"`
            is within 3e-6, the rounding of float32. (Its $\sigma^2$ is off by less than 0.4 % where
            twenty singular values lie within 0.1 % of the largest.)
        num_iterations: Whole number >= 1, the steps of `"lanczos"` and `"power"`. Lanczos
            solves kernels with at most 128 filters or a fan-in of at most 128 directly. `"gram"`
            uses it only for kernels above 1024 on both sides, which it leaves to Lanczos.
        operator: `"kernel"`, or `"convolution"` for an upper bound on the norm of the
            convolution itself. The norm of the reshaped kernel is not an upper bound.
        filter_axis: The axis, or tuple of axes, that numbers the filters: -1 for dense,
            convolutional and recurrent kernels, -2 for transposed convolutions, (-2, -1) for
            depthwise kernels, 0 for an `Embedding`.

    Call arguments:
        x: The kernel, in the shape of its layer. A vector counts as a matrix of one row.

    Returns:
        Scalar tensor.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    ```python
    layer = keras.layers.Dense(10, kernel_regularizer=keras_gbr.Spectral(0.01))
    assert layer(x_train).shape[-1] == 10
    assert len(layer.losses) == 1
    ```

    Reference:
        Yoshida & Miyato 2017, "Spectral Norm Regularization for Improving the
        Generalizability of Deep Learning", https://arxiv.org/abs/1705.10941, equation 3.
        Delattre et al. 2023, "Efficient Bound of Lipschitz Constant for Convolutional Layers by
        Gram Iteration", https://arxiv.org/abs/2305.16173 (`"gram"`).
        Singla & Feizi 2021, "Fantastic Four: Differentiable Bounds on Singular Values of
        Convolution Layers", https://arxiv.org/abs/1911.10258, theorem 1 (`"convolution"`).
    """

    def __init__(
        self,
        factor: float = 0.01,
        method: str = "auto",
        num_iterations: int = 8,
        operator: str = "kernel",
        filter_axis: Axes = -1,
    ) -> None:
        self.factor = check.number("factor", factor)
        self.method = check.choice("method", method, ("auto", *METHODS))
        self.num_iterations = check.integer("num_iterations", num_iterations)
        self.operator = check.choice("operator", operator, ("kernel", "convolution"))
        self.filter_axis = check.axes("filter_axis", filter_axis)

    def __call__(self, x: Any) -> Any:
        method = self.method
        if method == "auto":
            method = "gram" if on_accelerator(x) else "lanczos"
        settings = method, self.num_iterations
        if self.operator == "convolution" and len(x.shape) > 2:
            return self.factor * squared_convolution_bound(at_least_float32(x), *settings)
        return self.factor * squared_spectral_norm(as_matrix(x, self.filter_axis), *settings)

    def get_config(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "method": self.method,
            "num_iterations": self.num_iterations,
            "operator": self.operator,
            "filter_axis": self.filter_axis,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class WEISSI(_Addable):
    r"""Weight-scale-shift-invariant regularization: a logarithmic norm.

    Adds `log_factor * log(||W||) + l1_factor * ||W / ||W|| ||_1`, with $\|W\|$ the Euclidean
    norm of all entries. The sum of the first part over the layers is the logarithm of the product
    of the norms. It does not change when layers are rescaled by factors with product 1, which
    leaves the output of a homogeneous network as it is. The second part lies between 1 and the
    root of the number of entries. It favours sparse kernels at any scale.

    Batch normalisation after a layer removes its scale. The first part then only shrinks the
    kernel.

    Args:
        log_factor: Float >= 0.
        l1_factor: Float >= 0.
        epsilon: Float > 0, added to the squared norm. It keeps the loss bounded below and the
            gradient finite as the kernel goes to zero.

    Call arguments:
        x: The kernel, of any shape.

    Returns:
        Scalar tensor.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    ```python
    regularizer = keras_gbr.WEISSI(1e-3, l1_factor=1e-4)
    layer = keras.layers.Dense(10, kernel_regularizer=regularizer)
    assert regularizer(keras.ops.ones((3, 2))).shape == ()
    ```

    Reference:
        Liu, Cui & Chan 2020, "Improve Generalization and Robustness of Neural Networks via
        Weight Scale Shifting Invariant Regularizations", https://arxiv.org/abs/2008.02965.
    """

    def __init__(
        self, log_factor: float = 1e-4, l1_factor: float = 0.0, epsilon: float = 1e-12
    ) -> None:
        self.log_factor = check.number("log_factor", log_factor)
        self.l1_factor = check.number("l1_factor", l1_factor)
        self.epsilon = check.number("epsilon", epsilon, exclusive=True)

    def __call__(self, x: Any) -> Any:
        matrix = as_matrix(x)
        squared_norm = ops.sum(ops.square(matrix)) + self.epsilon
        total = 0.5 * self.log_factor * ops.log(squared_norm)
        if self.l1_factor:
            total += self.l1_factor * ops.sum(magnitudes(matrix)) * ops.rsqrt(squared_norm)
        return total

    def get_config(self) -> dict[str, Any]:
        return {
            "log_factor": self.log_factor,
            "l1_factor": self.l1_factor,
            "epsilon": self.epsilon,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class ShiftedL2(_Addable):
    r"""Epsilon-shifted L2 regularization, weight decay for normalised kernels.

    If a kernel is normalised before use, only the weight decay depends on its length, and shrinks
    it without bound. The shift moves the minimum from a standard deviation of 0 to one of
    `epsilon`. Adds

    $$\text{factor} \sum_j \left[ (n-1)(s_j - \epsilon)^2 + n \mu_j^2 \right]$$

    with $\mu_j$ the mean and $s_j$ the sample standard deviation (divisor $n - 1$) of the
    $n$ entries of filter $j$. With `epsilon=0` it is `keras.regularizers.L2(factor)`.

    Args:
        factor: Float >= 0. The authors' $\lambda$ is twice this.
        epsilon: Float >= 0, the standard deviation that each filter is pulled towards. The
            authors use 1e-3 to 1e-8.
        filter_axis: The axis, or tuple of axes, that numbers the filters: -1 for dense,
            convolutional and recurrent kernels, -2 for transposed convolutions, (-2, -1) for
            depthwise kernels, 0 for an `Embedding`.

    Call arguments:
        x: The kernel, in the shape of its layer.

    Returns:
        Scalar tensor.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    ```python
    layer = keras_gbr.ENCConv(
        keras.layers.Conv2D(32, 3, kernel_regularizer=keras_gbr.ShiftedL2(1e-4))
    )
    ```

    Reference:
        Li, Chen, Xia & Yang 2019, "Understanding the Disharmony between Weight Normalization
        Family and Weight Decay: epsilon-shifted L2 Regularizer",
        https://arxiv.org/abs/1911.05920.
    """

    def __init__(self, factor: float = 1e-4, epsilon: float = 1e-3, filter_axis: Axes = -1) -> None:
        self.factor = check.number("factor", factor)
        self.epsilon = check.number("epsilon", epsilon)
        self.filter_axis = check.axes("filter_axis", filter_axis)

    def __call__(self, x: Any) -> Any:
        matrix = as_matrix(x, self.filter_axis)
        total = ops.sum(ops.square(matrix))
        free = matrix.shape[0] - 1
        if self.epsilon and free:
            # The square expanded: (n-1) s^2 + n mu^2 is the plain sum of squares.
            deviations = _sample_standard_deviations(matrix)
            shift = self.epsilon**2 * matrix.shape[1] - 2 * self.epsilon * ops.sum(deviations)
            total = total + free * shift
        return self.factor * total

    def get_config(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "epsilon": self.epsilon,
            "filter_axis": self.filter_axis,
        }


def _sample_standard_deviations(matrix: Any) -> Any:
    """The standard deviation of each column, divisor `rows - 1`. Its gradient is 0 at 0."""
    centred = matrix - ops.mean(matrix, axis=0, keepdims=True)
    variance = ops.sum(ops.square(centred), axis=0) / (matrix.shape[0] - 1)
    positive = variance > 0
    return ops.where(positive, ops.sqrt(ops.where(positive, variance, 1.0)), 0.0)


@keras.saving.register_keras_serializable(PACKAGE)
class Sum(_Addable):
    """The sum of several regularizers; `a + b` builds one.

    Args:
        regularizers: A list of one or more regularizers of this package or of Keras, or of
            anything else that `keras.regularizers.get` understands.

    Call arguments:
        x: The kernel, in the shape of its layer.

    Returns:
        Scalar tensor.

    Raises:
        ValueError: The list is empty or holds something that is not a regularizer.

    Example:

    ```python
    regularizer = keras_gbr.Spectral(0.01) + keras.regularizers.L1(1e-5)
    assert isinstance(regularizer, keras_gbr.Sum)
    ```
    """

    def __init__(self, regularizers: Sequence[Any]) -> None:
        expected = "`regularizers` must be a list of one or more regularizers."
        if not isinstance(regularizers, (list, tuple)) or not regularizers:
            raise check.error(expected, "regularizers", regularizers)
        try:
            items = [resolved("regularizers", item) for item in regularizers]
        except ValueError as error:
            raise check.error(expected, "regularizers", regularizers) from error
        self.regularizers = [part for item in items for part in _parts(item)]

    def __call__(self, x: Any) -> Any:
        x = at_least_float32(x)
        return sum(regularizer(x) for regularizer in self.regularizers)

    def get_config(self) -> dict[str, Any]:
        return {
            "regularizers": [
                keras.saving.serialize_keras_object(item) for item in self.regularizers
            ]
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Sum":
        return cls([keras.saving.deserialize_keras_object(c) for c in config["regularizers"]])


def _parts(regularizer: Any) -> list[Any]:
    return regularizer.regularizers if isinstance(regularizer, Sum) else [regularizer]


def resolved(name: str, regularizer: Any) -> keras.regularizers.Regularizer:
    """The regularizer that `keras.regularizers.get` makes of an argument.

    Raises:
        ValueError: The argument is not a regularizer.
    """
    try:
        found = keras.regularizers.get(regularizer)
    except (TypeError, ValueError):
        found = None
    if not isinstance(found, keras.regularizers.Regularizer):
        raise check.error(
            f"`{name}` must be a regularizer, such as keras_gbr.Spectral(0.01).", name, regularizer
        )
    return found


def fitted_to(regularizer: keras.regularizers.Regularizer, kernel: Kernel) -> Any:
    """A regularizer with the settings that fit a kernel.

    Args:
        regularizer: Any regularizer; it is not changed.
        kernel: The kernel.

    Returns:
        A copy of a regularizer of this package, with the `filter_axis` of the kernel. Its
        `operator` is `"kernel"` unless the layer is a convolution. Any other regularizer is
        returned itself.
    """
    if isinstance(regularizer, Sum):
        return Sum([fitted_to(part, kernel) for part in regularizer.regularizers])
    if not isinstance(regularizer, _Addable):
        return regularizer
    config = regularizer.get_config()
    if "filter_axis" in config:
        config["filter_axis"] = kernel.filter_axis
    if "operator" in config and not isinstance(kernel.layer, CONVOLUTIONS):
        config["operator"] = "kernel"
    return type(regularizer).from_config(config)
