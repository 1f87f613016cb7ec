"""Datasets of other packages, which Keras takes under every backend."""

import math
import sys
from typing import Any


def is_dataset(x: Any) -> bool:
    """Whether `x` is a dataset of `tf.data`, PyTorch or `grain`, an iterable of batches."""
    return _is_tf_dataset(x) or _is_of(x, "torch.utils.data", "DataLoader") or _is_of_grain(x)


def num_batches(dataset: Any) -> float | None:
    """The number of batches of a dataset: `None` if it is not known, infinity without an end."""
    if _is_tf_dataset(dataset):
        number = int(dataset.cardinality())
        return {-1: math.inf, -2: None}.get(number, number)
    try:
        number = len(dataset)
        # One that repeats for ever has the largest length that there is.
        return math.inf if number >= sys.maxsize else number
    except TypeError:  # of an iterable of unknown length
        return None


def _is_tf_dataset(x: Any) -> bool:
    return _is_of(x, "tensorflow", "data", "Dataset")


def _is_of_grain(x: Any) -> bool:
    return any(_is_of(x, "grain", name) for name in ("MapDataset", "IterDataset", "DataLoader"))


def _is_of(x: Any, module: str, *path: str) -> bool:
    """Whether `x` is of a class, without importing what has not been imported."""
    found: Any = sys.modules.get(module)
    for name in path:
        found = getattr(found, name, None)
    return found is not None and isinstance(x, found)
