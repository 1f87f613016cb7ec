"""Where tensors are."""

from typing import Any

import keras
import tensorflow as tf


def on_accelerator(x: Any) -> bool:
    """Whether a tensor or variable is on a GPU or TPU.

    Args:
        x: Tensor or `keras.Variable`. Where a graph has not placed it yet, it will be on the
            first accelerator that there is.
    """
    value = x.value if isinstance(x, keras.Variable) else x
    place = tf.DeviceSpec.from_string(getattr(value, "device", None) or "").device_type
    if place is not None:
        return place != "CPU"
    return any(tf.config.list_logical_devices(kind) for kind in ("GPU", "TPU"))
