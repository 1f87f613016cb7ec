"""JAX."""

from keras_gbr.backend.jax.autodiff import (
    compiled,
    record,
    repeatable,
    require_second_derivatives,
)
from keras_gbr.backend.jax.devices import on_accelerator
from keras_gbr.backend.one_replica import (
    current_trace,
    held_numbers,
    num_replicas,
    replica_id,
    replica_mean,
)

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
