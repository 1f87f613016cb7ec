"""What the train steps of the backends share."""

import warnings
from abc import abstractmethod
from typing import Any

from keras_gbr._keras.calls import training_loss


class StatefulTrainer:
    """A `Trainer` where the variables hold their values while a step runs."""

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step of `fit`, see `keras.Model.train_step`."""
        if self.penalties or self._terms.check_numerics:  # type: ignore[attr-defined]
            return self.penalized_step(data)
        return super().train_step(data)  # type: ignore[misc]

    def test_step(self, data: Any) -> dict[str, Any]:
        """One step of `evaluate`; the penalties are no part of it."""
        return self.without_penalties(super().test_step(data))  # type: ignore[attr-defined, misc]

    @abstractmethod
    def penalized_step(self, data: Any) -> dict[str, Any]:
        """One forward pass for the loss and the penalties of this step, one update."""


def penalized(model: Any, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, dict[str, Any]]:
    """The forward pass of a step, the loss with its penalties, and what that consists of."""
    forward = model.forward_pass(x, y, sample_weight, training=True)
    loss = training_loss(model, x, y, forward.y_pred, sample_weight)
    values = {"the loss": loss}
    return forward, model.penalized_loss(loss, forward, values), values


def has_trainable_weights(model: Any) -> bool:
    """Whether there is anything to update; warns as Keras does where there is not."""
    if not model.trainable_weights:
        warnings.warn("The model does not have any trainable weights.", stacklevel=2)
    return bool(model.trainable_weights)
