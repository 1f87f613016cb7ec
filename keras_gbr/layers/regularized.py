"""A wrapper layer that regularizes the kernels of the layer inside it."""

from typing import Any

import keras

from keras_gbr._keras.transparent import Transparent
from keras_gbr.kernels import check_kernels, check_layer
from keras_gbr.regularizers import Sum, fitted_to, resolved


@keras.saving.register_keras_serializable("keras_gbr")
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
