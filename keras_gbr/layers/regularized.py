"""A wrapper layer that regularizes the kernels of the layer inside it."""

from typing import Any

import keras

from keras_gbr._keras.transparent import Transparent
from keras_gbr.kernels import check_kernels, check_layer
from keras_gbr.regularizers import Sum, fitted_to, resolved


@keras.saving.register_keras_serializable("keras_gbr")
class Regularized(Transparent):
    """Regularizes the kernels of a layer whose constructor has no argument for it.

    If a kernel has a regularizer already, this one is added to it. Biases and other weights are
    left alone. `keras_gbr.apply_regularizer` wraps the layers of a whole model.

    Args:
        layer: A layer with kernels, see `Reparametrized`; or a wrapper such as `ENC`, whose raw
            kernels are regularized.
        regularizer: A `keras.regularizers.Regularizer`, or anything else that
            `keras.regularizers.get` understands. If it is one of this package, its `filter_axis`
            is set for each kernel.
        **kwargs: Those of `keras.layers.Layer`.

    Call arguments:
        As the wrapped layer.

    Raises:
        ValueError: `layer` has no kernel, is quantized or has LoRA enabled, or `regularizer` is
            not a regularizer.

    Example:

    ```python
    attention = keras.layers.MultiHeadAttention(num_heads=2, key_dim=4)
    layer = keras_gbr.Regularized(attention, keras_gbr.Spectral(0.01))
    x = np.ones((2, 5, 3), "float32")
    assert layer(x, x).shape == (2, 5, 3)
    assert len(layer.losses) == 4  # query, key, value and output
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
