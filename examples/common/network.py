"""The small network that the comparisons train, its recipe, and the batches that it gets."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import keras_gbr as gbr
from common.images import Data

BATCH_SIZE = 128
LEARNING_RATE = 0.1
MOMENTUM = 0.9
FILTERS = ((16, 1), (32, 2), (64, 2))  # with strides


def network(
    data: Data,
    epochs: int,
    wrap: Callable[[keras.Layer], keras.Layer] = lambda layer: layer,
    regularizer: Any = None,
    penalties: list[Any] | None = None,
    batch_size: int = BATCH_SIZE,
) -> keras.Model:
    """The compiled network.

    Regularizers see all kernels. Wrappers leave the classifier out: with a kernel of norm 1 and
    no normalisation behind it, its logits would be tiny.
    """
    images = data.train[0]
    x = inputs = keras.Input(images.shape[1:])
    for filters, strides in FILTERS:
        convolution = keras.layers.Conv2D(
            filters, 3, strides, "same", use_bias=False, kernel_regularizer=regularizer
        )
        x = keras.layers.BatchNormalization(momentum=0.9)(wrap(convolution)(x))
        x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Dense(data.classes, kernel_regularizer=regularizer)(x)
    model = gbr.GBRModel(inputs, logits)
    steps = epochs * steps_an_epoch(data, batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    model.compile(
        keras.optimizers.SGD(schedule, momentum=MOMENTUM),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        penalties=penalties,
    )
    return model


def steps_an_epoch(data: Data, batch_size: int) -> int:
    """The number of whole batches: one shape of batch is one trace of the training step."""
    return max(1, len(data.train[0]) // batch_size)


class Batches(keras.utils.PyDataset):
    """The training images in whole batches, in a new order each epoch."""

    def __init__(self, data: Data, batch_size: int = BATCH_SIZE) -> None:
        super().__init__()
        self._images, self._labels = data.train
        self._steps, self._size = steps_an_epoch(data, batch_size), batch_size
        self.on_epoch_end()

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        batch = self._order[step * self._size : (step + 1) * self._size]
        return self._images[batch], self._labels[batch]

    def on_epoch_end(self) -> None:
        self._order = np.random.permutation(len(self._images))
