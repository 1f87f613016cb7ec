"""Where tensors are."""

from typing import Any

import jax
import keras


def on_accelerator(x: Any) -> bool:
    """Whether a tensor or variable is on a GPU or TPU.

    Args:
        x: Tensor or `keras.Variable`. What is traced is where JAX puts things by default.
    """
    value = x.value if isinstance(x, keras.Variable) else x
    if isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer):
        return any(device.platform != "cpu" for device in value.devices())
    default = jax.config.jax_default_device
    platform = getattr(default, "platform", default) or jax.default_backend()
    return platform != "cpu"
