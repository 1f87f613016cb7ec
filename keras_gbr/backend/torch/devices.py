"""Which device a tensor is on."""

from typing import Any

import keras


def on_accelerator(x: Any) -> bool:
    """Whether `x` is on a GPU or TPU, see `keras_gbr.backend.contract`.

    An array counts as where Keras would put it.
    """
    value = x.value if isinstance(x, keras.Variable) else keras.ops.convert_to_tensor(x)
    return value.device.type not in ("cpu", "meta")
