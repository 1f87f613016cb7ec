"""The trainer of the backend in use.

A trainer is a module with three names:

- `Trainer`, a class between `GBRMixin` and `keras.Model` in the order of bases. It overrides
  `train_step`, `test_step` and whatever else penalties need from Keras' own trainer.
- `TrainerState`, a dataclass of what the steps of a compiled model note for later steps. Each
  `compile` makes a new one, `model._trainer_state`.
- `jit_compile(asked, penalties, check_numerics)`, which decides whether steps are compiled. Its
  arguments are the `jit_compile` of `compile`, whether there are penalties, and whether a number
  that is not finite ends training. It returns the `jit_compile` for Keras, or raises a
  `ValueError` if the backend cannot do what is asked.
"""

import importlib
from typing import Any

import keras

_chosen: Any = importlib.import_module(f"keras_gbr.training.{keras.backend.backend()}_trainer")

Trainer = _chosen.Trainer
TrainerState = _chosen.TrainerState
jit_compile = _chosen.jit_compile

__all__ = ["Trainer", "TrainerState", "jit_compile"]
