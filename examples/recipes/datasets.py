"""Images that fit in memory, and their labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common.images import Split, read

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


def load(name: str, samples: int | None = None, seed: int = 0) -> Images:
    """Loads a data set.

    Args:
        name: "digits" (in scikit-learn, 8 x 8), "FILE.npz" with the arrays x_train, y_train,
            x_test and y_test, or the name of a TFDS image classification set.
        samples: At most so many training images, drawn once for every seed of a training.
        seed: Seed of that draw.

    Raises:
        ValueError: There is no such set, or it does not hold labelled images of one size.
    """
    if name.endswith(".npz"):
        train, test = _npz(Path(name))
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
