"""PyTorch, as `keras_gbr.backend.contract` describes a backend."""

from keras_gbr.backend.no_graphs import current_trace, held_numbers
from keras_gbr.backend.one_replica import num_replicas, replica_id, replica_mean
from keras_gbr.backend.repeatable_pass import repeatable
from keras_gbr.backend.torch.autodiff import compiled, record, require_second_derivatives
from keras_gbr.backend.torch.devices import on_accelerator

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
