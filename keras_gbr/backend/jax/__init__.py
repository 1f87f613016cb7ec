"""JAX, as `keras_gbr.backend.contract` describes a backend."""

from keras_gbr.backend.jax.autodiff import (
    compiled,
    record,
    repeatable,
    require_second_derivatives,
)
from keras_gbr.backend.jax.devices import on_accelerator
from keras_gbr.backend.no_graphs import current_trace, held_numbers
from keras_gbr.backend.one_replica import num_replicas, replica_id, replica_mean

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
