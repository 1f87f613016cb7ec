"""The masks that Keras attaches to tensors: which time steps count."""

from typing import Any

from keras.src.backend.common.masking import get_keras_mask, set_keras_mask


def mask_of(tensor: Any) -> Any:
    """The mask of a tensor, or `None`."""
    return get_keras_mask(tensor)


def with_mask(tensor: Any, mask: Any) -> Any:
    """`tensor`, with this mask unless it is `None`."""
    if mask is not None:
        set_keras_mask(tensor, mask)
    return tensor
