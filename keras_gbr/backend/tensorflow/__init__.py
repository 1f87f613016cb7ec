"""TensorFlow."""

from keras_gbr.backend.assigned_in_place import repeatable
from keras_gbr.backend.tensorflow import corrected_gradients
from keras_gbr.backend.tensorflow.autodiff import compiled, record
from keras_gbr.backend.tensorflow.devices import on_accelerator
from keras_gbr.backend.tensorflow.live import held_numbers
from keras_gbr.backend.tensorflow.replicas import num_replicas, replica_id, replica_mean
from keras_gbr.backend.tensorflow.second_derivatives import (
    require as require_second_derivatives,
)
from keras_gbr.backend.tensorflow.traces import current_trace

corrected_gradients.install()

__all__ = [
    "compiled",
    "current_trace",
    "held_numbers",
    "num_replicas",
    "on_accelerator",
    "record",
    "repeatable",
    "replica_id",
    "replica_mean",
    "require_second_derivatives",
]
