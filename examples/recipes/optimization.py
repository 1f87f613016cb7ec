"""The optimizer and its learning rates, and weight decay, as in the ENC paper."""

from typing import Any

import keras

import keras_gbr as gbr
from recipes.config import Config

MILESTONES = (0.3, 0.6, 0.9)  # of the epochs; the paper has 30, 60 and 90 of 100
NORMALISING = (gbr.ENC, gbr.WeightNorm, gbr.WeightStandardization)
SHIFT = 1e-3


@keras.saving.register_keras_serializable("recipes")
class Steps(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that falls to a tenth at milestones, after a linear rise.

    Args:
        learning_rate: The largest one.
        steps: Steps of the whole training.
        warmup: Steps of the rise.
    """

    def __init__(self, learning_rate: float, steps: int, warmup: int = 0) -> None:
        self.learning_rate, self.steps, self.warmup = learning_rate, steps, warmup
        rates = [learning_rate * 0.1**i for i in range(len(MILESTONES) + 1)]
        self._falls = keras.optimizers.schedules.PiecewiseConstantDecay(
            [int(share * steps) for share in MILESTONES], rates
        )

    def __call__(self, step: Any) -> Any:
        rate = self._falls(step)
        if not self.warmup:
            return rate
        step = keras.ops.cast(step, "float32")
        return rate * keras.ops.minimum(1.0, (step + 1) / self.warmup)

    def get_config(self) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            "warmup": self.warmup,
        }


def optimizer(config: Config, steps_an_epoch: int) -> keras.optimizers.Optimizer:
    """SGD with momentum and the schedule of the configuration."""
    steps, warmup = config.epochs * steps_an_epoch, int(config.warmup * steps_an_epoch)
    if config.schedule == "steps":
        schedule: Any = Steps(config.learning_rate, steps, warmup)
    elif warmup:
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0, steps - warmup, warmup_target=config.learning_rate, warmup_steps=warmup
        )
    else:
        schedule = keras.optimizers.schedules.CosineDecay(config.learning_rate, steps)
    return keras.optimizers.SGD(schedule, momentum=config.momentum)


def with_decay(model: keras.Model, decay: float, shifted: bool) -> keras.Model:
    """The model with decay of its kernels, whose gradient is `decay * W`.

    Args:
        model: The model, with its wrappers.
        decay: The factor of the gradient; Keras' `L2` has half of it.
        shifted: Whether kernels inside a wrapper that normalises them get shifted L2 instead:
            they would shrink without bound (Li, Chen, Xia & Yang 2019).
    """
    if not decay:
        return model

    normalised = {layer.name for layer in model.layers if isinstance(layer, NORMALISING)}
    if not shifted:
        normalised = set()
    if normalised:
        model = gbr.apply_regularizer(model, gbr.ShiftedL2(decay / 2, SHIFT), list(normalised))
    rest = [each.path for each in gbr.list_kernels(model) if each.path not in normalised]
    return gbr.apply_regularizer(model, keras.regularizers.L2(decay / 2), rest) if rest else model
