"""What differs between the backends of Keras, behind one door.

Each backend is a package here, with the names below.
"""

import importlib
from typing import Any

import keras

from keras_gbr.backend.datasets import is_dataset, num_batches

_BACKENDS = ("tensorflow", "jax", "torch")

if keras.backend.backend() not in _BACKENDS:
    raise ImportError(
        f"keras_gbr runs on the backends {', '.join(_BACKENDS)} of Keras. Set the environment "
        "variable KERAS_BACKEND to one of them before Keras is imported. "
        f"Received: backend={keras.backend.backend()!r}"
    )
_chosen: Any = importlib.import_module(f"keras_gbr.backend.{keras.backend.backend()}")

# A function of tensors that reads a model, compiled where the backend compiles.
compiled = _chosen.compiled
# What is being traced, if what is read there stays there.
current_trace = _chosen.current_trace
# Variables for numbers that change between steps, where steps cannot read them from Python.
held_numbers = _chosen.held_numbers
# The replicas that take a step together, this one's number, and means over them.
num_replicas = _chosen.num_replicas
replica_id = _chosen.replica_id
replica_mean = _chosen.replica_mean
# Whether the values of a tensor or variable are on a GPU or TPU.
on_accelerator = _chosen.on_accelerator
# Notes what a pass assigns, so that it can be repeated.
repeatable = _chosen.repeatable
# Refuses a loss whose gradient the backend would get wrong.
require_second_derivatives = _chosen.require_second_derivatives
# Runs a function and returns its output with the gradients of what is computed from it.
record = _chosen.record

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
