"""Restoring a model after a measure."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras
import numpy as np
from keras import ops

from keras_gbr._keras.noted_losses import kept_losses


@contextmanager
def unchanged(model: keras.Model, trainable: bool = False) -> Iterator[Callable[[], None]]:
    """Restores a model at the end of a `with` block, also after an error.

    A forward pass may change moving averages, states, the seeds of random layers, and the losses
    that layers collect. A traced pass leaves losses without values.

    Args:
        model: A built model.
        trainable: Whether the block changes trainable weights too.

    Yields:
        A function that restores the variables at once.
    """
    variables = model.variables if trainable else model.non_trainable_variables
    values = [np.array(ops.convert_to_numpy(variable.value)) for variable in variables]

    def restore() -> None:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    with kept_losses(model):
        try:
            yield restore
        finally:
            restore()
