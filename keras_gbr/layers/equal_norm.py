"""Wrapper layers that fix the norms of kernels."""

import math
from typing import Any

import keras
from keras import ops

from keras_gbr import _checks as check
from keras_gbr.kernels import CONVOLUTIONS, DENSE, Kernel, check_start
from keras_gbr.layers.reparametrized import Reparametrized
from keras_gbr.maths.equal_norm import check_direction, equal_norm
from keras_gbr.maths.filters import Axes


def check_kernel(kernel: Kernel, per_filter: bool = True, center: bool = True) -> None:
    """Refuses a kernel that `ENC` would turn into zeros.

    Args:
        kernel: The kernel.
        per_filter: See `ENC`.
        center: See `ENC`.

    Raises:
        ValueError: The kernel starts as zeros or, with `center`, with the same number everywhere;
            or what is centred has one entry.
    """
    check_start(kernel, center)
    if center:
        axes = kernel.filter_axis if per_filter else ()
        check_direction(tuple(kernel.variable.shape), axes, "Set `center=False`.", kernel.name)


@keras.saving.register_keras_serializable("keras_gbr")
class ENC(Reparametrized):
    r"""Equal norm constraint: the wrapped layer's kernel has $\|W\|_F^2 = \alpha$.

    The layer computes with a rescaled kernel, and the gradient flows through the rescaling. The
    variable holds the raw kernel. Unlike the constraint `EqualNorm`, which overwrites the variable
    after each update, `ENC` is a reparametrization. By default each of the $m$ filters is centred
    and scaled,

    $$\hat W_j = \sqrt{\alpha / m}\,(W_j - \bar W_j) / \|W_j - \bar W_j\| .$$

    | per_filter | center | equation |
    |---|---|---|
    | False | False | 20 |
    | True | False | 21 |
    | True | True | 22 (default) |
    | False | True | 23 |

    Kernels of norm 1 make small activations. Put batch normalisation behind the layer, as the
    paper does even for the classifier, or do not wrap the classifier. Weight decay would shrink
    the raw kernel without bound: use `ShiftedL2` instead.

    A filter of zeros has no direction: it stays zero, and its gradient is zero. With `center` the
    same holds for a filter of one entry. `build` refuses kernels that consist of such filters.

    Args:
        layer: A layer with kernels; see `Reparametrized`.
        alpha: Float > 0, the squared Frobenius norm of each kernel.
        per_filter: Whether each filter is scaled, to the squared norm `alpha / filters`. Otherwise
            the kernel is scaled as a whole.
        center: Whether the mean (of each filter, or of the whole kernel) is subtracted.
        learnable_alpha: Whether alpha is trained, through its logarithm, starting at `alpha`.
        **kwargs: Those of `keras.layers.Layer`.

    Call arguments:
        As the wrapped layer.

    Input shape:
        As the wrapped layer.

    Output shape:
        As the wrapped layer.

    Raises:
        ValueError: `layer` has no kernel, is wrapped already, quantized or has LoRA enabled,
            or another argument is out of its range.

    Example:

    ```python
    inputs = keras.Input((8, 8, 3))
    conv = keras_gbr.ENC(keras.layers.Conv2D(32, 3, use_bias=False))
    outputs = keras.layers.BatchNormalization()(conv(inputs))
    kernel = keras.ops.convert_to_numpy(conv.kernel)
    assert abs(np.sum(kernel**2) - 1.0) < 1e-5
    ```

    Reference:
        Li, Chen & Yang 2021, "Generalization Bound Regularizer: A Unified Perspective for
        Understanding Weight Decay", Chinese Journal of Computers, equations 20 to 23.
    """

    def __init__(
        self,
        layer: keras.Layer,
        alpha: float = 1.0,
        per_filter: bool = True,
        center: bool = True,
        learnable_alpha: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, **kwargs)
        self.alpha = check.number("alpha", alpha, exclusive=True)
        self.per_filter = check.boolean("per_filter", per_filter)
        self.center = check.boolean("center", center)
        self.learnable_alpha = check.boolean("learnable_alpha", learnable_alpha)

    def check_kernel(self, kernel: Kernel) -> None:
        check_kernel(kernel, self.per_filter, self.center)

    def build_parameter(self, kernel: Kernel, prefix: str) -> Any:
        if not self.learnable_alpha:
            return None
        return self.add_weight(
            name=f"{prefix}log_alpha",
            shape=(),
            initializer=keras.initializers.Constant(math.log(self.alpha)),
        )

    def reparametrize(self, kernel: Any, filter_axis: Axes, parameter: Any) -> Any:
        alpha = ops.exp(parameter) if self.learnable_alpha else self.alpha
        return equal_norm(kernel, alpha, self.per_filter, self.center, filter_axis)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "per_filter": self.per_filter,
            "center": self.center,
            "learnable_alpha": self.learnable_alpha,
        }


@keras.saving.register_keras_serializable("keras_gbr")
class ENCConv(ENC):
    """`ENC` for convolutions only; every other layer is refused.

    Args:
        layer: A convolution: `Conv1D` to `Conv3D`, their transposes, `DepthwiseConv1D`,
            `DepthwiseConv2D`, `SeparableConv1D` or `SeparableConv2D`.
        alpha: See `ENC`.
        per_filter: See `ENC`.
        center: See `ENC`.
        learnable_alpha: See `ENC`.
        **kwargs: See `ENC`.

    Raises:
        ValueError: `layer` is not a convolution; otherwise as `ENC`.

    Example:

    ```python
    layer = keras_gbr.ENCConv(keras.layers.DepthwiseConv2D(3))
    assert layer(np.zeros((2, 8, 8, 3), "float32")).shape == (2, 6, 6, 3)
    ```

    Reference:
        See `ENC`.
    """

    layer_classes = CONVOLUTIONS


@keras.saving.register_keras_serializable("keras_gbr")
class ENCDense(ENC):
    """`ENC` for dense layers only; every other layer is refused.

    Args:
        layer: A `Dense` or `EinsumDense` layer.
        alpha: See `ENC`.
        per_filter: See `ENC`.
        center: See `ENC`.
        learnable_alpha: See `ENC`.
        **kwargs: See `ENC`.

    Raises:
        ValueError: `layer` is not a dense layer; otherwise as `ENC`.

    Example:

    ```python
    layer = keras_gbr.ENCDense(keras.layers.Dense(4), alpha=4.0)
    assert layer(np.zeros((2, 3), "float32")).shape == (2, 4)
    ```

    Reference:
        See `ENC`.
    """

    layer_classes = DENSE
