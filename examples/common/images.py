"""The images that the comparisons train on, split once with a fixed seed."""

import difflib
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

SPLIT_SEED = 0
TEST_SHARE = 0.3
VALIDATION_SHARE = 2 / 7  # of the images left after the test split: half of the digits train

Split = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Data:
    """Images scaled to [0, 1], shape `(samples, height, width, channels)`, and their labels."""

    name: str
    classes: int
    train: Split
    validation: Split
    test: Split


def load(name: str = "digits", samples: int | None = None) -> Data:
    """Loads a data set and splits it; the parts have equal shares of each class.

    Args:
        name: `"digits"` (in scikit-learn, 8 x 8), or the name of a TFDS image classification
            set, with its own test split if it has one.
        samples: The largest number of training images, or `None` for all.

    Raises:
        ValueError: There is no such set, it does not hold labelled images of one size, or what
            reads it is missing.
    """
    (images, labels), test = read(name)
    (images, labels), validation = _split(images, labels, VALIDATION_SHARE)
    train = images[:samples], labels[:samples]
    parts = [(_scaled(x), y) for x, y in (train, validation, test)]
    return Data(name, int(labels.max()) + 1, *parts)


def read(name: str) -> tuple[Split, Split]:
    """The training and the test images of a set; a set without a test split is split.

    Args:
        name: As in `load`.

    Raises:
        ValueError: As in `load`.
    """
    if find_spec("sklearn") is None:
        raise ValueError(
            "scikit-learn holds the digits and splits data sets. Install it: pip install "
            f"scikit-learn. Received: {name!r}"
        )
    if name == "digits":
        return _split(*_digits(), TEST_SHARE)
    train, test = _tfds(name)
    return (train, test) if test else _split(*train, TEST_SHARE)


def _digits() -> Split:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return (pixels / 16).astype("float32").reshape(-1, 8, 8, 1), labels


def tfds_builder(name: str) -> Any:
    """The prepared builder of a TFDS image classification set.

    Raises:
        ValueError: There is no such set, it cannot be prepared, it has no training images with
            labels, or TFDS is missing.
    """
    if find_spec("tensorflow") is None:
        raise ValueError(
            "TFDS reads its data sets with TensorFlow, whatever the backend of Keras. Install it: "
            f"pip install tensorflow. Received: {name!r}"
        )
    if find_spec("tensorflow_datasets") is None:
        raise ValueError(
            f"TFDS is missing. Install it: pip install tensorflow-datasets. Received: {name!r}"
        )
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name)
        builder.download_and_prepare()
    except Exception as error:  # TFDS raises errors of many unrelated classes.
        known, base = tfds.list_builders(), name.split("/")[0].split(":")[0]
        if base not in known:
            near = ", ".join(difflib.get_close_matches(base, known)) or "none"
            raise ValueError(
                f"TFDS has no data set {name!r}. The closest names are: {near}"
            ) from None
        said = " ".join(str(error).split())
        raise ValueError(
            f"Cannot load the TFDS data set {name!r}. If it is prepared, set TFDS_DATA_DIR to its "
            f"folder. TFDS says: {said[:300]}"
        ) from error
    features = builder.info.features
    if not {"image", "label"} <= set(features):
        raise ValueError(
            f"{name!r} is no image classification set. Received: features {dict(features)}"
        )
    return builder


def _tfds(name: str) -> tuple[Split, Split | None]:
    builder = tfds_builder(name)
    import tensorflow_datasets as tfds

    features, splits = builder.info.features, builder.info.splits
    if "train" not in splits:
        raise ValueError(f"{name!r} has no training split. Received: splits {list(splits)}")
    if None in features["image"].shape:
        raise ValueError(
            f"{name!r} is no image classification set with images of one size. "
            f"Received: features {dict(features)}"
        )
    wanted = [split for split in ("train", "test") if split in splits]
    parts = builder.as_dataset(split=wanted, as_supervised=True, batch_size=-1)
    train, *test = tfds.as_numpy(parts)
    return train, test[0] if test else None


def _split(images: np.ndarray, labels: np.ndarray, share: float) -> tuple[Split, Split]:
    """The rest, and the share."""
    from sklearn.model_selection import train_test_split

    parts = train_test_split(
        images, labels, test_size=share, stratify=labels, random_state=SPLIT_SEED
    )
    return (parts[0], parts[2]), (parts[1], parts[3])


def _scaled(images: np.ndarray) -> np.ndarray:
    if images.dtype.kind == "f":
        return images
    return images.astype("float32") / np.iinfo(images.dtype).max
