"""Which device a tensor is on."""

from typing import Any

import jax
import keras


def on_accelerator(x: Any) -> bool:
    """Whether `x` is on a GPU or TPU, see `keras_gbr.backend.contract`.

    A traced array counts as on the default device.
    """
    value = x.value if isinstance(x, keras.Variable) else x
    if isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer):
        return any(device.platform != "cpu" for device in value.devices())
    default = jax.config.jax_default_device
    platform = getattr(default, "platform", default) or jax.default_backend()
    return platform != "cpu"
