"""The networks by name. A new one is one function in cifar.py or imagenet.py."""

import keras

from recipes.networks import cifar, imagenet  # noqa: F401, they register their networks
from recipes.networks.parts import NETWORKS, Settings, Shape, network

__all__ = ["NETWORKS", "Settings", "build", "network"]


def build(name: str, shape: Shape, classes: int, settings: Settings | None = None) -> keras.Model:
    """Builds a network.

    Args:
        name: A name in `NETWORKS`.
        shape: Height, width and channels of an image.
        classes: Number of classes.
        settings: What methods change.

    Raises:
        ValueError: There is no network of this name.
    """
    if name not in NETWORKS:
        raise ValueError(f"network must be one of {', '.join(NETWORKS)}. Received: {name!r}")
    return NETWORKS[name](shape, classes, settings or Settings())
