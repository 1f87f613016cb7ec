"""The norms of the kernels of a model."""

import keras
from keras import ops

from keras_gbr.kernels import as_matrix
from keras_gbr.norms import frobenius_norm
from keras_gbr.structure import check_built
from keras_gbr.wrapping import kernels_in_use


def kernel_norms(model: keras.Model) -> dict[str, float]:
    """The Frobenius norms of the kernels that a model computes with.

    Under `ENC` that is the root of alpha.

    Args:
        model: A built model.

    Returns:
        Floats by the name of the layer, followed by `/<kernel>` in a layer with several.

    Raises:
        ValueError: The model is not built, quantized, or has LoRA enabled.

    Example:

    ```python
    keras_gbr.measures.kernel_norms(model)  # {"conv2d": 3.1, "lstm/lstm_cell/kernel": 1.9, ...}
    ```
    """
    check_built(model)
    return {
        name: float(ops.convert_to_numpy(frobenius_norm(as_matrix(kernel, ()))))
        for name, kernel in kernels_in_use(model)
    }
