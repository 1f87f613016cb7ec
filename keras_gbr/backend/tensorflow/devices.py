"""Which device a tensor is on."""

from typing import Any

import keras
import tensorflow as tf


def on_accelerator(x: Any) -> bool:
    """Whether `x` is on a GPU or TPU, see `keras_gbr.backend.contract`.

    A tensor that a graph has not placed yet counts as on an accelerator if there is one.
    """
    value = x.value if isinstance(x, keras.Variable) else x
    place = tf.DeviceSpec.from_string(getattr(value, "device", None) or "").device_type
    if place is not None:
        return place != "CPU"
    return any(tf.config.list_logical_devices(name) for name in ("GPU", "TPU"))
