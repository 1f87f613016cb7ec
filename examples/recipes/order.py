"""Which images come when."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np


def order(samples: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Indices of the images in the whole batches of an epoch, shape `(steps, batch_size)`.

    The order depends only on seed and epoch: a training that resumes sees the batches that an
    uninterrupted one sees.
    """
    steps = samples // batch_size
    shuffled = np.random.default_rng((seed, epoch)).permutation(samples)
    return shuffled[: steps * batch_size].reshape(steps, batch_size).astype("int32")


def index_batches(samples: int, batch_size: int, seed: int, epochs: range) -> Any:
    """The batches of indices of some epochs, as `fit` takes them on the backend in use.

    Under `tf.distribute` each replica takes its part of each batch.
    """
    if keras.backend.backend() == "tensorflow":
        return _dataset(samples, batch_size, seed, epochs)
    return _generator(samples, batch_size, seed, epochs)


def _generator(
    samples: int, batch_size: int, seed: int, epochs: range
) -> Iterator[tuple[np.ndarray]]:
    for epoch in epochs:
        for batch in order(samples, batch_size, seed, epoch):
            yield (batch,)


def _dataset(samples: int, batch_size: int, seed: int, epochs: range) -> Any:
    import tensorflow as tf

    def of_epoch(epoch: Any) -> Any:
        steps = samples // batch_size
        indices = tf.numpy_function(
            lambda epoch: order(samples, batch_size, seed, int(epoch)), [epoch], tf.int32
        )
        indices = tf.ensure_shape(indices, (steps, batch_size))
        return tf.data.Dataset.from_tensor_slices((indices,))

    dataset = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(of_epoch)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)
