"""PyTorch."""

from keras_gbr.backend.in_place import repeatable
from keras_gbr.backend.single import num_replicas, replica_id, replica_mean
from keras_gbr.backend.torch.autodiff import compiled, require_second_derivatives, vjp
from keras_gbr.backend.torch.training import Trainer, jit_compile

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
