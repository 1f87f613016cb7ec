"""The norms of the kernels of a model."""

import keras
from keras import ops

from keras_gbr._keras.layer_tree import check_built
from keras_gbr.layers.reparametrized import kernels_in_use
from keras_gbr.maths.filters import as_matrix
from keras_gbr.maths.matrix_norms import frobenius_norm


def kernel_norms(model: keras.Model) -> dict[str, float]:
    """The Frobenius norms of the kernels that a model computes with.

    Under `ENC` each is the root of alpha.

    Args:
        model: A built model.

    Returns:
        Floats by the name of the layer, followed by `/<kernel>` in a layer with several kernels:
        `{"conv2d": 3.1, "lstm/lstm_cell/kernel": 1.9, ...}`.

    Raises:
        ValueError: The model is not built, or a layer is quantized or has LoRA enabled.

    Example:

    ```python
    norms = keras_gbr.measures.kernel_norms(keras_gbr.apply_enc(model, alpha=4.0))
    assert all(abs(norm - 2.0) < 1e-5 for norm in norms.values())
    ```
    """
    check_built(model)
    return {
        name: float(ops.convert_to_numpy(frobenius_norm(as_matrix(kernel, ()))))
        for name, kernel in kernels_in_use(model)
    }
