"""JAX."""

from keras_gbr.backend.jax.autodiff import (
    compiled,
    record,
    repeatable,
    require_second_derivatives,
)
from keras_gbr.backend.jax.devices import on_accelerator
from keras_gbr.backend.jax.training import Trainer, jit_compile
from keras_gbr.backend.single import (
    current_trace,
    held_numbers,
    num_replicas,
    replica_id,
    replica_mean,
)

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
