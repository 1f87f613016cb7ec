"""Where tensors are."""

from typing import Any

import keras


def on_accelerator(x: Any) -> bool:
    """Whether a tensor or variable is on a GPU or TPU.

    Args:
        x: Tensor or `keras.Variable`.
    """
    value = x.value if isinstance(x, keras.Variable) else x
    return value.device.type not in ("cpu", "meta")
