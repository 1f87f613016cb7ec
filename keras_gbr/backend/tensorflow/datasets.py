"""Datasets of `tf.data`."""

import math
from typing import Any

import tensorflow as tf


def is_dataset(x: Any) -> bool:
    """Whether `x` is a dataset of this backend, an iterable of batches."""
    return isinstance(x, tf.data.Dataset)


def num_batches(dataset: Any) -> float | None:
    """The number of batches of a dataset: `None` if it is not known, infinity without an end."""
    number = int(dataset.cardinality())
    if number == tf.data.UNKNOWN_CARDINALITY:
        return None
    return math.inf if number == tf.data.INFINITE_CARDINALITY else number
