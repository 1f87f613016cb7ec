"""What becomes of a batch inside the compiled step."""

from typing import Any

import keras
import numpy as np
from common.images import Split
from keras import ops

from recipes.methods import Parts

PADDING = 4


class PadCrop(keras.layers.Layer):
    """Crops of the original size out of padded images, at another place in each image.

    `keras.layers.RandomCrop` takes one place for the whole batch.

    Args:
        padding: Black pixels on each side.

    Input shape:
        `(batch_size, height, width, channels)`.
    """

    def __init__(self, padding: int = PADDING, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.padding = padding
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, images: Any, training: bool = False) -> Any:
        if not training:
            return images
        height, width = images.shape[1:3]
        size, sides = ops.shape(images)[0], (self.padding, self.padding)
        padded = ops.pad(images, ((0, 0), sides, sides, (0, 0)))
        top, left = (
            keras.random.randint((size, 1), 0, 2 * self.padding + 1, seed=self.seed_generator)
            for _ in range(2)
        )
        rows = (top + ops.arange(height))[:, :, None, None]
        columns = (left + ops.arange(width))[:, None, :, None]
        padded = ops.take_along_axis(padded, ops.broadcast_to(rows, (size, height, 1, 1)), axis=1)
        return ops.take_along_axis(padded, columns, axis=2)


class Batches(keras.layers.Layer):
    """Turns what `fit` is given into images and labels, on the device, inside the step.

    Images that fit in memory stay on the device: `fit` is given their indices. Otherwise it is
    given images and labels.

    Args:
        classes: Number of classes.
        kept: The training images and their labels, or `None` if `fit` is given them.
        parts: What methods add: layers that change images, or mix them with their labels.
        pad_crop: Whether images are cropped and flipped.
    """

    def __init__(
        self, classes: int, kept: Split | None, parts: list[Parts], pad_crop: bool
    ) -> None:
        super().__init__(trainable=False, dtype="float32", name="batches")
        self.classes, self.images = classes, None
        if kept is not None:
            self.images, self.labels = (self._kept(array) for array in kept)
        moves = [PadCrop(dtype="float32"), keras.layers.RandomFlip("horizontal", dtype="float32")]
        self.changes = moves if pad_crop else []
        self.changes += [layer for part in parts if not part.mixes for layer in part.augment]
        self.mixes = [layer for part in parts if part.mixes for layer in part.augment]
        for layer in (self, *self.changes, *self.mixes):
            layer.built = True  # No weights depend on a shape, and `fit` builds by the images.

    def _kept(self, array: np.ndarray) -> keras.Variable:
        variable = self.add_weight(
            shape=array.shape, dtype=array.dtype.name, initializer="zeros", trainable=False
        )
        variable.assign(array)
        return variable

    def call(self, data: tuple[Any, ...], training: bool = False) -> tuple[Any, Any]:
        """The images `(batch_size, height, width, channels)` in [0, 1], and one-hot labels.

        Args:
            data: A tuple of indices, or one of images and labels.
            training: Whether images are changed at random.
        """
        if len(data) == 1:
            images, labels = (ops.take(v, data[0], axis=0) for v in (self.images, self.labels))
        else:
            images, labels = data
        labels = ops.one_hot(labels, self.classes, dtype="float32")
        images = scaled(images)
        if training:
            for layer in self.changes:
                images = layer(images, training=True)
            for layer in self.mixes:
                mixed = layer({"images": images, "labels": labels}, training=True)
                images, labels = mixed["images"], mixed["labels"]
        return images, labels


def scaled(images: Any) -> Any:
    """Images with pixels in [0, 1], float32."""
    is_integer = "int" in keras.backend.standardize_dtype(images.dtype)
    images = ops.cast(images, "float32")
    return images / 255.0 if is_integer else images
