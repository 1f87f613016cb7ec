"""Datasets of other packages, which Keras accepts under every backend."""

import math
import sys
from typing import Any

_GRAIN = ("MapDataset", "IterDataset", "DataLoader")


def is_dataset(x: Any) -> bool:
    """Whether `x` is a dataset of `tf.data`, PyTorch or `grain`, an iterable of batches."""
    return (
        _is_tf_dataset(x)
        or _is_instance(x, "torch.utils.data", "DataLoader")
        or any(_is_instance(x, "grain", name) for name in _GRAIN)
    )


def num_batches(dataset: Any) -> float | None:
    """The number of batches of a dataset: `None` if unknown, infinity if it repeats for ever."""
    if _is_tf_dataset(dataset):
        number = int(dataset.cardinality())
        return {-1: math.inf, -2: None}.get(number, number)
    try:
        number = len(dataset)
        # A dataset that repeats for ever has the largest possible length.
        return math.inf if number >= sys.maxsize else number
    except TypeError:  # the length is unknown
        return None


def _is_tf_dataset(x: Any) -> bool:
    return _is_instance(x, "tensorflow", "data", "Dataset")


def _is_instance(x: Any, module: str, *path: str) -> bool:
    """Whether `x` is an instance of a class. The module of the class is not imported for that."""
    found: Any = sys.modules.get(module)
    for name in path:
        found = getattr(found, name, None)
    return found is not None and isinstance(x, found)
