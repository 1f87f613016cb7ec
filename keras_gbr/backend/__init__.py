"""The functions that differ between the backends of Keras.

Each backend is a package here. `contract` describes the functions that it provides.
"""

import importlib
from typing import cast

import keras

from keras_gbr.backend.contract import Backend
from keras_gbr.backend.datasets import is_dataset, num_batches

_BACKENDS = ("tensorflow", "jax", "torch")

if keras.backend.backend() not in _BACKENDS:
    raise ImportError(
        f"keras_gbr runs on the backends {', '.join(_BACKENDS)} of Keras. Set the environment "
        "variable KERAS_BACKEND to one of them before Keras is imported. "
        f"Received: backend={keras.backend.backend()!r}"
    )
_chosen = cast(Backend, importlib.import_module(f"keras_gbr.backend.{keras.backend.backend()}"))

compiled = _chosen.compiled
current_trace = _chosen.current_trace
held_numbers = _chosen.held_numbers
num_replicas = _chosen.num_replicas
on_accelerator = _chosen.on_accelerator
record = _chosen.record
repeatable = _chosen.repeatable
replica_id = _chosen.replica_id
replica_mean = _chosen.replica_mean
require_second_derivatives = _chosen.require_second_derivatives

__all__ = [
    "compiled",
    "current_trace",
    "held_numbers",
    "is_dataset",
    "num_batches",
    "num_replicas",
    "on_accelerator",
    "record",
    "repeatable",
    "replica_id",
    "replica_mean",
    "require_second_derivatives",
]
