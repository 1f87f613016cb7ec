"""JAX."""

from keras_gbr.backend.jax.autodiff import (
    compiled,
    repeatable,
    require_second_derivatives,
    vjp,
)
from keras_gbr.backend.jax.training import Trainer, jit_compile
from keras_gbr.backend.single import num_replicas, replica_id, replica_mean

__all__ = [
    "Trainer",
    "compiled",
    "jit_compile",
    "num_replicas",
    "repeatable",
    "replica_id",
    "replica_mean",
    "require_second_derivatives",
    "vjp",
]
