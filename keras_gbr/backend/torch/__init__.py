"""PyTorch."""

from keras_gbr.backend.assigned_in_place import repeatable
from keras_gbr.backend.one_replica import (
    current_trace,
    held_numbers,
    num_replicas,
    replica_id,
    replica_mean,
)
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
