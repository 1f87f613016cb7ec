"""TensorFlow."""

from keras_gbr.backend.tensorflow.autodiff import compiled, normal, switch, vjp
from keras_gbr.backend.tensorflow.datasets import is_dataset, num_batches
from keras_gbr.backend.tensorflow.distribution import num_replicas, replica_mean
from keras_gbr.backend.tensorflow.second_derivatives import (
    require as require_second_derivatives,
)
from keras_gbr.backend.tensorflow.training import Trainer

__all__ = [
    "Trainer",
    "compiled",
    "is_dataset",
    "normal",
    "num_batches",
    "num_replicas",
    "replica_mean",
    "require_second_derivatives",
    "switch",
    "vjp",
]
