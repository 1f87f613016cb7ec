"""Where tensors are."""

from typing import Any

import keras


def on_accelerator(x: Any) -> bool:
    """Whether a tensor or variable is on a GPU or TPU.

    Args:
        x: Tensor, `keras.Variable` or array; an array is where Keras would put it.
    """
    value = x.value if isinstance(x, keras.Variable) else keras.ops.convert_to_tensor(x)
    return value.device.type not in ("cpu", "meta")
