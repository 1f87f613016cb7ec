"""DropBlock, which drops out blocks of neighbouring activations."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("recipes")
class DropBlock(keras.layers.Layer):
    """Sets blocks of activations to zero in training, each channel on its own as in the paper.

    The blocks are drawn with the probability gamma of the paper's equation 1, and only where a
    whole block fits. The kept activations are scaled up to keep the mean.

    Args:
        probability: Share of the activations that is dropped, about, in [0, 1).
        size: Height and width of a block; in a smaller map, the smaller of the map's.
        **kwargs: Those of `keras.layers.Layer`.

    Raises:
        ValueError: An argument is out of its range.

    Input shape:
        `(batch_size, height, width, channels)`.

    Reference:
        Ghiasi, Lin & Le 2018, https://arxiv.org/abs/1810.12890
    """

    def __init__(self, probability: float, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(probability, (int, float)) or not 0 <= probability < 1:
            raise ValueError(f"probability must be a number in [0, 1). Received: {probability!r}")
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"size must be a whole number >= 1. Received: {size!r}")
        self.probability, self.size = probability, size
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, x: Any, training: bool = False) -> Any:
        if not training or not self.probability:
            return x
        _, height, width, channels = x.shape
        size = min(self.size, height, width)
        inside = (height - size + 1, width - size + 1)
        gamma = self.probability * height * width / (size**2 * inside[0] * inside[1])
        shape = (ops.shape(x)[0], *inside, channels)
        drawn = keras.random.uniform(shape, seed=self.seed_generator)
        corners = ops.cast(drawn < gamma, "float32")
        rest = size - 1
        corners = ops.pad(corners, ((0, 0), (rest, rest), (rest, rest), (0, 0)))
        kept = 1 - ops.max_pool(corners, size, 1, "valid")
        kept = kept * ops.cast(ops.size(kept), "float32") / ops.maximum(ops.sum(kept), 1.0)
        return x * ops.cast(kept, x.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "probability": self.probability, "size": self.size}
