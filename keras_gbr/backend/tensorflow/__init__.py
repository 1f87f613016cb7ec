"""TensorFlow, as `keras_gbr.backend.contract` describes a backend."""

from keras_gbr.backend.repeatable_pass import repeatable
from keras_gbr.backend.tensorflow import corrected_gradients
from keras_gbr.backend.tensorflow.autodiff import compiled, record
from keras_gbr.backend.tensorflow.devices import on_accelerator
from keras_gbr.backend.tensorflow.graphs import current_trace, held_numbers
from keras_gbr.backend.tensorflow.replicas import num_replicas, replica_id, replica_mean
from keras_gbr.backend.tensorflow.second_derivatives import require_second_derivatives

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
