"""Images that fit in memory, and their labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common.images import Split, read

from recipes.order import index_batches
from recipes.streams import Stream, has_many_sizes

_PART = 10_000
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class Images:
    """Images of one size, shape `(samples, height, width, channels)`, and their labels.

    Pixels are `uint8`, or float32 in [0, 1]; labels are `int32`.
    """

    name: str
    classes: int
    train: Split
    test: Split

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self.train[0].shape[1:]

    @property
    def num_train(self) -> int:
        """Number of training images."""
        return len(self.train[0])

    @property
    def kept(self) -> Split:
        """What `Batches` keeps on the device: the training images."""
        return self.train

    def batches(self, batch_size: int, seed: int, epochs: range) -> Any:
        """The batches of some epochs, as indices."""
        return index_batches(self.num_train, batch_size, seed, epochs)

    def parts(self, split: str, count: int | None = None) -> Iterator[Split]:
        """The first images of a split, in parts that fit in memory as floating point numbers.

        Args:
            split: "train" or "test".
            count: How many images; all by default.
        """
        images, labels = self.first(split, count)
        for start in range(0, len(images), _PART):
            yield images[start : start + _PART], labels[start : start + _PART]

    def first(self, split: str, count: int | None) -> Split:
        """The first images of a split."""
        images, labels = getattr(self, split)
        return images[:count], labels[:count]

    def validation(self) -> Split:
        """The test images as floats in [0, 1] with one-hot labels."""
        return one_hot(self.test, self.classes)


def one_hot(split: Split, classes: int) -> Split:
    """Images as floats in [0, 1], and one-hot labels."""
    images, labels = split
    return as_pixels(images), np.eye(classes, dtype="float32")[labels]


def as_pixels(images: np.ndarray) -> np.ndarray:
    """Images as floats in [0, 1]."""
    return images if images.dtype.kind == "f" else images.astype("float32") / np.float32(255)


def load(
    name: str, samples: int | None = None, image_size: int = 224, seed: int = 0
) -> Images | Stream:
    """Loads a data set, or opens it if its images have many sizes.

    Args:
        name: "digits" (in scikit-learn, 8 x 8), "FILE.npz" with the arrays x_train, y_train,
            x_test and y_test, or the name of a TFDS image classification set.
        samples: At most so many training images, drawn once for every seed of a training.
        image_size: Height and width that images of many sizes get.
        seed: Seed of that draw.

    Raises:
        ValueError: There is no such set, or it does not hold labelled images of one size.
    """
    if name.endswith(".npz"):
        train, test = _npz(Path(name))
    elif name != "digits" and has_many_sizes(name):
        return Stream(name, image_size, samples)
    else:
        train, test = read(name)
    train, test = _checked(name, "train", *train), _checked(name, "test", *test)
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            f"{name} must have training and test images of one size. "
            f"Received: {train[0].shape[1:]} and {test[0].shape[1:]}"
        )
    classes = 1 + max(int(train[1].max()), int(test[1].max()))
    if samples is not None and samples < len(train[0]):
        chosen = np.sort(np.random.default_rng(seed).permutation(len(train[0]))[:samples])
        train = train[0][chosen], train[1][chosen]
    return Images(name, classes, train, test)


def _npz(path: Path) -> tuple[Split, Split]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
    except Exception as error:  # A damaged archive raises errors of many classes.
        raise ValueError(f"Cannot read {path}: {error}") from None
    if not set(ARRAYS) <= set(arrays):
        raise ValueError(
            f"{path} must hold the arrays {', '.join(ARRAYS)}. Received: {', '.join(arrays)}"
        )
    parts = [arrays[name] for name in ARRAYS]
    return (parts[0], parts[1]), (parts[2], parts[3])


def _checked(name: str, part: str, images: np.ndarray, labels: np.ndarray) -> Split:
    """Images with an axis of channels and integer labels of shape `(samples,)`."""
    labels = np.asarray(labels).reshape(len(labels), -1)
    images = images[..., None] if images.ndim == 3 else images
    good = images.ndim == 4 and labels.shape == (len(images), 1) and len(images) > 0
    if not good or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(
            f"{name} must hold {part} images (samples, height, width, channels) and a whole number "
            f">= 0 for each. Received: images {images.shape}, labels {labels.shape} "
            f"{labels.dtype}"
        )
    if images.dtype.kind == "f":
        if not (images.min() >= 0 and images.max() <= 1):
            raise ValueError(
                f"{name} must hold pixels in [0, 1], or whole numbers 0 to 255. Received: "
                f"{part} images in [{images.min():g}, {images.max():g}]"
            )
        images = images.astype("float32")
    elif images.dtype != np.uint8:
        raise ValueError(
            f"{name} must hold pixels as uint8 or floats in [0, 1]. Received: {images.dtype}"
        )
    return images, labels[:, 0].astype("int32")
