"""The trainer of the backend in use."""

import importlib
from typing import Any

import keras

_chosen: Any = importlib.import_module(f"keras_gbr.training.{keras.backend.backend()}_trainer")

# Between the `GBRMixin` and `keras.Model`: the train step, and what training needs around it.
Trainer = _chosen.Trainer
# Whether to compile the steps of `fit`, given what is asked for.
jit_compile = _chosen.jit_compile

__all__ = ["Trainer", "jit_compile"]
