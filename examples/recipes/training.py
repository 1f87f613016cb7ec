"""The model that trains: it makes its batches inside the compiled step."""

from typing import Any

import keras

import keras_gbr as gbr
from recipes.batches import Batches


class Trainee(gbr.GBRModel):
    """A `GBRModel` that is trained on what `Batches` makes of the data of `fit`.

    `evaluate` and `predict` take images in [0, 1] and one-hot labels, as usual.

    Args:
        network: The network, from images to logits.
        batches: What makes a batch.
    """

    def __init__(self, network: keras.Model, batches: Batches) -> None:
        super().__init__(network.inputs, network.outputs)
        self.batches = batches

    if keras.backend.backend() == "jax":

        def train_step(self, state: Any, data: Any) -> Any:
            trainable, non_trainable, *others = state
            variables = self.non_trainable_variables
            with keras.StatelessScope(list(zip(variables, non_trainable, strict=True))) as scope:
                batch = self.batches(data, training=True)
            # The random numbers of the next batch are others.
            after = [
                value if (new := scope.get_current_value(variable)) is None else new
                for variable, value in zip(variables, non_trainable, strict=True)
            ]
            return super().train_step((trainable, after, *others), batch)

    else:

        def train_step(self, data: Any) -> Any:
            return super().train_step(self.batches(data, training=True))
