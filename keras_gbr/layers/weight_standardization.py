"""A wrapper layer whose filters have mean 0 and variance 1."""

from typing import Any

import keras

from keras_gbr.kernels import Kernel, check_start
from keras_gbr.layers.reparametrized import Reparametrized
from keras_gbr.maths.equal_norm import check_direction, weight_standardization
from keras_gbr.maths.filters import Axes


@keras.saving.register_keras_serializable("keras_gbr")
class WeightStandardization(Reparametrized):
    r"""Weight standardisation: the layer computes with $(W_j - \bar W_j) / s_j$.

    Each filter has mean 0 and variance 1 over its fan-in. That makes large activations: follow
    the layer with a normalisation.

    Args:
        layer: A layer with kernels; see `Reparametrized`.
        **kwargs: Those of `keras.layers.Layer`.

    Call arguments:
        As the wrapped layer.

    Input shape:
        As the wrapped layer.

    Output shape:
        As the wrapped layer.

    Raises:
        ValueError: `layer` has no kernel, is wrapped already, quantized, or has LoRA enabled.

    Example:

    ```python
    inputs = keras.Input((8, 8, 3))
    x = keras_gbr.WeightStandardization(keras.layers.Conv2D(32, 3, use_bias=False))(inputs)
    outputs = keras.layers.GroupNormalization(8)(x)
    ```

    Reference:
        Qiao et al. 2019, "Micro-Batch Training with Batch-Channel Normalization and Weight
        Standardization", https://arxiv.org/abs/1903.10520, equation 9.
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
