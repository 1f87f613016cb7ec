"""TensorFlow."""

from keras_gbr.backend.in_place import repeatable
from keras_gbr.backend.tensorflow import mends
from keras_gbr.backend.tensorflow.autodiff import compiled, record
from keras_gbr.backend.tensorflow.devices import on_accelerator
from keras_gbr.backend.tensorflow.distribution import num_replicas, replica_id, replica_mean
from keras_gbr.backend.tensorflow.live import held_numbers
from keras_gbr.backend.tensorflow.second_derivatives import (
    require as require_second_derivatives,
)
from keras_gbr.backend.tensorflow.traces import current_trace
from keras_gbr.backend.tensorflow.training import Trainer, jit_compile

mends.install()

__all__ = [
    "Trainer",
    "compiled",
    "current_trace",
    "held_numbers",
    "jit_compile",
    "num_replicas",
    "on_accelerator",
    "record",
    "repeatable",
    "replica_id",
    "replica_mean",
    "require_second_derivatives",
]
