"""Wrapper layers that hold the norms of kernels, or regularize them."""

import math
from typing import Any

import keras
from keras import ops

from keras_gbr import _validation as check
from keras_gbr.equal_norm import (
    check_direction,
    equal_norm,
    filter_lengths,
    weight_norm,
    weight_standardization,
)
from keras_gbr.kernels import (
    CONVOLUTIONS,
    DENSE,
    Axes,
    Kernel,
    check_kernels,
    check_layer,
    check_start,
)
from keras_gbr.regularizers import Sum, fitted_to, resolved
from keras_gbr.wrapping import Reparametrized, Transparent

PACKAGE = "keras_gbr"


def check_shape(kernel: Kernel, per_filter: bool = True, center: bool = True) -> None:
    """Refuses a kernel of which `ENC` would leave nothing but zeros.

    Args:
        kernel: The kernel.
        per_filter: See `ENC`.
        center: See `ENC`.

    Raises:
        ValueError: What is centred has one entry.
    """
    if center:
        axes = kernel.filter_axis if per_filter else ()
        check_direction(tuple(kernel.variable.shape), axes, "Set `center=False`.", kernel.name)


@keras.saving.register_keras_serializable(PACKAGE)
class ENC(Reparametrized):
    r"""Equal norm constraint: the wrapped layer's kernel has $\|W\|_F^2 = \alpha$.

    The layer computes with a rescaled kernel; the gradient flows through the rescaling. With
    the default switches each of the $m$ filters is centred and scaled,

    $$\hat W_j = \sqrt{\alpha / m}\,(W_j - \bar W_j) / \|W_j - \bar W_j\| .$$

    | per_filter | center | equation |
    |---|---|---|
    | False | False | 20 |
    | True | False | 21 |
    | True | True | 22 (default) |
    | False | True | 23 |

    Kernels of norm 1 make small activations: follow the layer with batch normalisation, as the
    paper does, also behind the classifier, or leave the classifier out. Weight decay on the raw
    kernel has nothing to hold it back; use `ShiftedL2`.

    A filter of zeros stays one: it has no direction, and neither value nor gradient. So does, with
    `center`, a filter of one entry; `build` refuses kernels that consist of either.

    Args:
        layer: A layer with kernels; see `Reparametrized`.
        alpha: Float > 0, the squared Frobenius norm of each kernel.
        per_filter: Whether every filter gets the same norm, instead of the whole kernel.
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
    x = keras_gbr.ENC(keras.layers.Conv2D(32, 3, use_bias=False))(x)
    x = keras.layers.BatchNormalization()(x)
    ```

    Reference:
        Li, Chen & Yang, "Generalization Bound Regularizer: A Unified Perspective for
        Understanding Weight Decay", equations 20 to 23.
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
        check_start(kernel, self.center)
        check_shape(kernel, self.per_filter, self.center)

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


@keras.saving.register_keras_serializable(PACKAGE)
class ENCConv(ENC):
    """`ENC` for convolutions alone; every other layer is refused.

    Args:
        layer: A convolution: `Conv1D` to `Conv3D`, their transposes, `DepthwiseConv1D`,
            `DepthwiseConv2D`, `SeparableConv1D` or `SeparableConv2D`.
        alpha: See `ENC`, as all further arguments.
        per_filter: See `ENC`.
        center: See `ENC`.
        learnable_alpha: See `ENC`.
        **kwargs: See `ENC`.
    """

    kinds = CONVOLUTIONS


@keras.saving.register_keras_serializable(PACKAGE)
class ENCDense(ENC):
    """`ENC` for dense layers alone; every other layer is refused.

    Args:
        layer: A `Dense` or `EinsumDense` layer.
        alpha: See `ENC`, as all further arguments.
        per_filter: See `ENC`.
        center: See `ENC`.
        learnable_alpha: See `ENC`.
        **kwargs: See `ENC`.
    """

    kinds = DENSE


@keras.saving.register_keras_serializable(PACKAGE)
class WeightNorm(Reparametrized):
    r"""Weight normalisation: the layer computes with $g_j W_j / \|W_j\|$.

    Length and direction of each filter become separate parameters. The gains start at the
    lengths of the filters, so wrapping does not change what the layer computes.

    Args:
        layer: A layer with kernels; see `Reparametrized`.
        **kwargs: Those of `keras.layers.Layer`.

    Raises:
        ValueError: `layer` has no kernel, is wrapped already, quantized, or has LoRA enabled.

    Example:

    ```python
    x = keras_gbr.WeightNorm(keras.layers.Dense(64))(x)
    ```

    Reference:
        Salimans & Kingma 2016, equation 2.
    """

    def check_kernel(self, kernel: Kernel) -> None:
        check_start(kernel, center=False)

    def build_parameter(self, kernel: Kernel, prefix: str) -> Any:
        dtype = kernel.variable.dtype

        def lengths(*args: Any, **kwargs: Any) -> Any:
            return ops.cast(filter_lengths(kernel.variable, kernel.filter_axis), dtype)

        # Called when variables get their values: in a model that is built by shapes alone, such as
        # by `fit`, the kernel has none yet.
        return self.add_weight(
            name=f"{prefix}gain", shape=lengths().shape, dtype=dtype, initializer=lengths
        )

    def reparametrize(self, kernel: Any, filter_axis: Axes, parameter: Any) -> Any:
        return weight_norm(kernel, parameter, filter_axis)


@keras.saving.register_keras_serializable(PACKAGE)
class WeightStandardization(Reparametrized):
    r"""Weight standardisation: the layer computes with $(W_j - \bar W_j) / s_j$.

    Each filter has mean 0 and variance 1 over its fan-in, hence large activations: follow the
    layer with a normalisation.

    Args:
        layer: A layer with kernels; see `Reparametrized`.
        **kwargs: Those of `keras.layers.Layer`.

    Raises:
        ValueError: `layer` has no kernel, is wrapped already, quantized, or has LoRA enabled.

    Example:

    ```python
    x = keras_gbr.WeightStandardization(keras.layers.Conv2D(32, 3, use_bias=False))(x)
    x = keras.layers.GroupNormalization(8)(x)
    ```

    Reference:
        Qiao et al. 2019, equation 9.
    """

    def check_kernel(self, kernel: Kernel) -> None:
        check_start(kernel, center=True)
        check_direction(
            tuple(kernel.variable.shape),
            kernel.filter_axis,
            "Take `WeightNorm` or `ENC(layer, center=False)`, or leave the layer as it is.",
            kernel.name,
        )

    def reparametrize(self, kernel: Any, filter_axis: Axes, parameter: Any) -> Any:
        return weight_standardization(kernel, filter_axis)


@keras.saving.register_keras_serializable(PACKAGE)
class Regularized(Transparent):
    """Regularizes the kernels of a layer whose constructor does not offer it.

    The regularizer is added to the one that a kernel may have already. Biases, and what is no
    kernel, are left alone. `keras_gbr.apply_regularizer` wraps the layers of a whole model.

    Args:
        layer: A layer as `Reparametrized` takes it, or such a wrapper: the raw kernels are
            regularized.
        regularizer: A `keras.regularizers.Regularizer`, or what `keras.regularizers.get`
            understands. Its `filter_axis`, where it has one, is set for each kernel.
        **kwargs: Those of `keras.layers.Layer`.

    Call arguments:
        As the wrapped layer.

    Raises:
        ValueError: `layer` has no kernel, is quantized or has LoRA enabled, or `regularizer`
            is none.

    Example:

    ```python
    x = keras_gbr.Regularized(SomeBlock(64), keras_gbr.Spectral(0.01))(x)
    ```
    """

    def __init__(self, layer: keras.Layer, regularizer: Any, **kwargs: Any) -> None:
        check_layer(layer)
        super().__init__(layer, **kwargs)
        self.regularizer = resolved("regularizer", regularizer)

    def build(self, *args: Any, **kwargs: Any) -> None:
        super().build(*args, **kwargs)
        for kernel in check_kernels(self.layer):
            fitted = fitted_to(self.regularizer, kernel)
            own = kernel.variable.regularizer
            kernel.variable.regularizer = Sum([own, fitted]) if own else fitted

    def get_config(self) -> dict[str, Any]:
        regularizer = keras.saving.serialize_keras_object(self.regularizer)
        return {**super().get_config(), "regularizer": regularizer}
