"""What all penalties share: a weight, a name and a configuration."""

from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_gbr import _validation as check
from keras_gbr.forward_pass import ForwardPass


class Penalty:
    """Base of the penalties: adds `weight * value` to the training loss.

    A subclass implements `__call__`. It chooses a scalar function of the outputs, takes its
    gradient from the forward pass, and returns a norm of it.

    Args:
        weight: Float >= 0, or a `keras.optimizers.schedules.LearningRateSchedule` of the number
            of updates. With the float 0 the value is tracked and training is left as it is.
        name: Name of the metric that tracks the unweighted value.
    """

    default_name = "penalty"
    needs_loss = False
    needs_parameters = False

    def __init__(self, weight: float | LearningRateSchedule, name: str | None = None) -> None:
        is_schedule = isinstance(weight, LearningRateSchedule)
        self.weight = weight if is_schedule else check.number("weight", weight)
        if name is not None and not (isinstance(name, str) and name):
            raise check.fail("`name` must be a non-empty string or None.", "name", name)
        self.name = name or self.default_name

    def __call__(self, forward: ForwardPass) -> Any:
        """The unweighted value.

        Args:
            forward: The forward pass of the step.

        Returns:
            Tensor `(batch_size,)`, one value a sample, or a scalar tensor.
        """
        raise TypeError(f"{type(self).__name__} must implement `__call__(forward)`.")

    def weight_at(self, step: Any) -> Any:
        """The weight after `step` updates: a float, or a scalar tensor under a schedule."""
        if isinstance(self.weight, LearningRateSchedule):
            return ops.convert_to_tensor(self.weight(step))
        return self.weight

    def get_config(self) -> dict[str, Any]:
        weight = self.weight
        if isinstance(weight, LearningRateSchedule):
            weight = keras.saving.serialize_keras_object(weight)
        return {"weight": weight, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Penalty":
        weight = config["weight"]
        if isinstance(weight, dict):
            weight = keras.saving.deserialize_keras_object(weight)
        return cls(**{**config, "weight": weight})
