"""What Keras saves of an object: its configuration, or the arguments of its constructor."""

from typing import Any

import keras

# Under PyTorch Keras replaces its optimizers by private classes, and saves the names of these.
# Another backend would load them and fail in the first step.
_OWN_OPTIMIZERS = "keras.src.backend.torch.optimizers."


def portable(config: Any) -> Any:
    """A serialized object with the public classes of Keras in place of those of a backend.

    Args:
        config: A configuration, of dicts, lists and plain values.
    """
    if isinstance(config, list):
        return [portable(item) for item in config]
    if not isinstance(config, dict):
        return config
    config = {key: portable(value) for key, value in config.items()}
    if str(config.get("module")).startswith(_OWN_OPTIMIZERS):
        config |= {"module": "keras.optimizers", "registered_name": None}
    return config


def constructor_arguments(layer: keras.Layer) -> dict[str, Any] | None:
    """The arguments that a layer was made with, if they are all numbers and strings.

    Keras remembers them for classes that have no `get_config` of their own.
    """
    remembered = getattr(layer, "_auto_config", None)
    return None if remembered is None else dict(remembered.config)
