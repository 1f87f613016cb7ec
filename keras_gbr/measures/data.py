"""Samples in batches of bounded size, from arrays or a dataset as `fit` takes them."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_gbr import _checks as check
from keras_gbr import backend


class Batch(NamedTuple):
    """Tensors of some samples.

    Attributes:
        x: Inputs: a tensor `(samples, ...)` or a structure of them.
        y: Labels likewise, or `None`.
        sample_weight: Weights likewise, or `None`.
        share: The share of a batch of the dataset that this is; 1 if the batch was not cut.
    """

    x: Any
    y: Any
    sample_weight: Any
    share: float


class Data:
    """Samples, however they are given, in batches of at most `batch_size`.

    Args:
        x: Array `(samples, ...)`, list or dict of arrays, or a dataset of `tf.data`, `grain`,
            PyTorch or Keras (`PyDataset`). A dataset yields batches `x`, `(x, y)` or
            `(x, y, sample_weight)`; those larger than `batch_size` are cut.
        y: Labels, if `x` is not a dataset.
        sample_weight: Weights of the samples, if `x` is not a dataset.
        batch_size: Whole number >= 1.

    Raises:
        ValueError: The data are of an unsupported type, empty, endless, or of different lengths.
    """

    def __init__(
        self, x: Any, y: Any = None, sample_weight: Any = None, batch_size: int = 32
    ) -> None:
        self.batch_size = check.integer("batch_size", batch_size)
        self._dataset = x if is_dataset(x) else None
        if self._dataset is None:
            self._arrays = _aligned(x, y, sample_weight)
            self.num_batches: int | None = math.ceil(_length(self._arrays[0]) / batch_size)
            return
        if y is not None or sample_weight is not None:
            raise check.error(
                "A dataset brings its labels and weights with it: batches `(x, y)` or "
                "`(x, y, sample_weight)`. Leave out `y` and `sample_weight`.",
                "x",
                type(x),
            )
        self.num_batches = _num_batches(x)

    def __iter__(self) -> Iterator[Batch]:
        """Yields `Batch`es.

        Raises:
            ValueError: A dataset yields nothing, or something other than batches.
        """
        if self._dataset is None:
            yield from self._cut(self._arrays, whole=False)
            return
        empty = True
        for element in _elements(self._dataset):
            empty = False
            yield from self._cut(_aligned(*keras.utils.unpack_x_y_sample_weight(element)), True)
        if empty:
            raise check.error("`x` must hold at least one batch.", "x", self._dataset)

    def _cut(self, arrays: tuple[Any, ...], whole: bool) -> Iterator[Batch]:
        starts = range(0, _length(arrays[0]), self.batch_size)
        for first in starts:
            x, y, weight = (_tensors(part, first, first + self.batch_size) for part in arrays)
            yield Batch(x, y, weight, 1 / len(starts) if whole else 1.0)


def single_batch(x: Any, y: Any = None, sample_weight: Any = None) -> tuple[Any, Any, Any]:
    """Arrays as one batch of tensors: inputs, labels and weights.

    Raises:
        ValueError: `x` is a dataset, or the data are not arrays of the same length.
    """
    if is_dataset(x):
        raise check.error(
            "`x` must be the arrays of one batch. Give the parts of one: "
            "`*next(iter(dataset))`, or `*dataset[0]` of a PyDataset.",
            "x",
            type(x),
        )
    arrays = _aligned(x, y, sample_weight)
    x, y, sample_weight = (_tensors(part, 0, _length(arrays[0])) for part in arrays)
    return x, y, sample_weight


def is_dataset(x: Any) -> bool:
    """Whether `x` is a dataset that yields batches."""
    return isinstance(x, keras.utils.PyDataset) or backend.is_dataset(x)


def _num_batches(dataset: Any) -> int | None:
    """The number of batches of a dataset, `None` if it is unknown."""
    if isinstance(dataset, keras.utils.PyDataset):
        number = dataset.num_batches
        number = math.inf if number is None else number
    else:
        number = backend.num_batches(dataset)
    if number == math.inf:
        raise check.error(
            "`x` must be a dataset that ends. Take a part of it: `dataset.take(n)`, or a number "
            "as `num_batches` of a PyDataset.",
            "x",
            dataset,
        )
    return None if number is None else int(number)


def _elements(dataset: Any) -> Iterator[Any]:
    if isinstance(dataset, keras.utils.PyDataset):
        return (dataset[index] for index in range(dataset.num_batches))
    return iter(dataset)


def _aligned(x: Any, y: Any = None, sample_weight: Any = None) -> tuple[Any, Any, Any]:
    """Inputs, labels and weights as arrays with one number of samples."""
    x = as_arrays(x)
    parts = {"y": y, "sample_weight": sample_weight}
    arrays = [None if v is None else as_arrays(v, name) for name, v in parts.items()]
    for (name, _), array in zip(parts.items(), arrays, strict=True):
        if array is not None and _length(array) != _length(x):
            raise check.error(
                f"`{name}` must have one entry for each of the {_length(x)} samples of `x`.",
                f"samples of {name}",
                _length(array),
            )
    return (x, *arrays)


def as_arrays(x: Any, name: str = "x") -> Any:
    """`x` as NumPy arrays with one number of samples.

    Args:
        x: An array, or a list or dict of arrays.
        name: Its name in errors.

    Raises:
        ValueError: `x` is not an array or a structure of arrays, is empty, or its arrays differ
            in length.
    """
    expected = f"`{name}` must be an array (samples, ...) or a list or dict of such arrays."
    if name == "x":
        expected = expected.replace(" or a list", ", a dataset, or a list")
    try:
        arrays = keras.tree.map_structure(_as_array, x)
    except (TypeError, ValueError) as error:
        raise check.error(expected, name, type(x)) from error
    leaves = keras.tree.flatten(arrays)
    if not leaves or any(_is_of_objects(leaf) or leaf.ndim == 0 for leaf in leaves):
        raise check.error(expected, name, type(x))
    if len({len(leaf) for leaf in leaves}) != 1 or len(leaves[0]) == 0:
        shapes = [leaf.shape for leaf in leaves]
        raise check.error(
            f"The arrays of `{name}` must have the same number of samples, at least one.",
            name,
            shapes,
        )
    return arrays


def _as_array(leaf: Any) -> np.ndarray:
    # Sparse matrices of SciPy become dense.
    return np.asarray(leaf.toarray() if hasattr(leaf, "toarray") else leaf)


def _is_of_objects(array: np.ndarray) -> bool:
    """Whether an array holds anything but numbers and texts."""
    return array.dtype == object and not all(isinstance(s, (str, bytes)) for s in array.flat)


def _length(arrays: Any) -> int:
    return len(keras.tree.flatten(arrays)[0])


def _tensors(arrays: Any, first: int, last: int) -> Any:
    """Some samples as tensors, floating-point numbers in the precision of Keras."""

    def convert(leaf: Any) -> Any:
        dtype = keras.config.floatx() if leaf.dtype.kind == "f" else None
        return ops.convert_to_tensor(leaf[first:last], dtype)

    return None if arrays is None else keras.tree.map_structure(convert, arrays)
