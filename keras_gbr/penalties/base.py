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
        interval: Whole number >= 1: the penalty is part of every `interval`-th step alone, the
            first included, with `interval` times its weight ("lazy regularization"). The steps
            between cost what they cost without it, and the metric is the mean over the steps
            that have it.
        fraction: Float in (0, 1]: the penalty is taken on the first samples of each batch, this
            share of them (rounded, at least one). They run through the model once more, alone:
            batch normalisation takes the statistics of the part. On several replicas each
            takes the first samples of its own part of the batch.
        name: Name of the metric that tracks the unweighted value.

    Reference:
        Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", appendix B
        (lazy regularization).
    """

    default_name = "penalty"
    needs_loss = False
    needs_parameters = False

    def __init__(
        self,
        weight: float | LearningRateSchedule,
        interval: int = 1,
        fraction: float = 1.0,
        name: str | None = None,
    ) -> None:
        is_schedule = isinstance(weight, LearningRateSchedule)
        self.weight = weight if is_schedule else check.number("weight", weight)
        if name is not None and not (isinstance(name, str) and name):
            raise check.fail("`name` must be a non-empty string or None.", "name", name)
        self.name = name or self.default_name
        self.interval = check.integer("interval", interval)
        self.fraction = check.number("fraction", fraction, exclusive=True)
        if self.fraction > 1:
            raise check.fail("`fraction` must be in (0, 1].", "fraction", fraction)

    def __call__(self, forward: ForwardPass) -> Any:
        """The unweighted value.

        Args:
            forward: The forward pass of the step.

        Returns:
            Tensor `(batch_size,)`, one value a sample, or a scalar tensor.
        """
        raise TypeError(f"{type(self).__name__} must implement `__call__(forward)`.")

    def weight_at(self, step: Any) -> Any:
        """The weight of the value in a step that has it, `interval` times the given one.

        Args:
            step: Scalar integer tensor, the number of updates so far.

        Returns:
            A float, or a scalar tensor under a schedule.
        """
        if isinstance(self.weight, LearningRateSchedule):
            return self.interval * ops.convert_to_tensor(self.weight(step))
        return self.interval * self.weight

    def get_config(self) -> dict[str, Any]:
        weight = self.weight
        if isinstance(weight, LearningRateSchedule):
            weight = keras.saving.serialize_keras_object(weight)
        return {
            "weight": weight,
            "interval": self.interval,
            "fraction": self.fraction,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Penalty":
        weight = config["weight"]
        if isinstance(weight, dict):
            weight = keras.saving.deserialize_keras_object(weight)
        return cls(**{**config, "weight": weight})


class InputPenalty(Penalty):
    """Base of the penalties on gradients with respect to the input.

    Args:
        weight: See `Penalty`, as `name`, `interval` and `fraction`.
        at: The name of a layer, at any depth, whose output takes the place of the input: the
            embedding of a model whose inputs are integers. Several outputs, and several calls
            of a shared layer, count as one vector.
        **kwargs: As `Penalty`.
    """

    def __init__(
        self, weight: float | LearningRateSchedule, at: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(weight, **kwargs)
        if at is not None and not (isinstance(at, str) and at):
            raise check.fail("`at` must be the name of a layer or None.", "at", at)
        self.at = at

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "at": self.at}
