"""A wrapper layer that trains the lengths of the filters apart from their directions."""

from typing import Any

import keras
from keras import ops

from keras_gbr.kernels import Kernel, check_start
from keras_gbr.layers.reparametrized import Reparametrized
from keras_gbr.maths.equal_norm import filter_lengths, weight_norm
from keras_gbr.maths.filters import Axes


@keras.saving.register_keras_serializable("keras_gbr")
class WeightNorm(Reparametrized):
    r"""Weight normalisation: the layer computes with $g_j W_j / \|W_j\|$.

    The length $g_j$ and the direction of each filter become separate parameters. The gains start
    at the lengths of the filters, so wrapping does not change what the layer computes.

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
    layer = keras_gbr.WeightNorm(keras.layers.Dense(64))
    assert layer(np.ones((2, 3), "float32")).shape == (2, 64)
    assert layer.kernel_parameters[0].shape == (64,)  # the gains
    ```

    Reference:
        Salimans & Kingma 2016, "Weight Normalization: A Simple Reparameterization to Accelerate
        Training of Deep Neural Networks", https://arxiv.org/abs/1602.07868, equation 2.
    """

    def check_kernel(self, kernel: Kernel) -> None:
        check_start(kernel, center=False)

    def build_parameter(self, kernel: Kernel, prefix: str) -> Any:
        dtype = kernel.variable.dtype

        def lengths(*args: Any, **kwargs: Any) -> Any:
            return ops.cast(filter_lengths(kernel.variable, kernel.filter_axis), dtype)

        # Called when variables get their values. In a model that is built from shapes, as by
        # `fit`, the kernel has no value yet.
        return self.add_weight(
            name=f"{prefix}gain", shape=lengths().shape, dtype=dtype, initializer=lengths
        )

    def reparametrize(self, kernel: Any, filter_axis: Axes, parameter: Any) -> Any:
        return weight_norm(kernel, parameter, filter_axis)
