"""PyTorch."""

from keras_gbr.backend.in_place import repeatable
from keras_gbr.backend.single import (
    current_trace,
    held_numbers,
    num_replicas,
    replica_id,
    replica_mean,
)
from keras_gbr.backend.torch.autodiff import compiled, record, require_second_derivatives
from keras_gbr.backend.torch.devices import on_accelerator
from keras_gbr.backend.torch.training import Trainer, jit_compile

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
