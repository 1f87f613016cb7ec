"""Checks of the first step: whether the weights stay finite, and penalties are computed."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_gbr.training.compile_penalties import CompilePenalties


class FirstStep:
    """A train function whose first call is undone if it makes weights NaN or infinite.

    The gradient of a penalty contains second derivatives. These may be infinite where the first
    derivatives are finite: those of x^1.5 at 0, for example. The loss and the penalties of the step
    that ruins the weights are then finite.
    """

    def __init__(self, function: Callable[..., Any], model: Any) -> None:
        self.function, self.model, self.is_first = function, model, True

    def __call__(self, *args: Any) -> Any:
        if not self.is_first:
            return self.function(*args)
        self.is_first = False
        model = self.model
        before = [(v, _numpy(v)) for v in [*model.variables, *model.optimizer.variables]]
        logs = self.function(*args)
        weights = {id(weight) for weight in model.trainable_weights}
        ruined = [
            v.path
            for v, old in before
            if id(v) in weights and np.isfinite(old).all() and not np.isfinite(_numpy(v)).all()
        ]
        if ruined and all(np.isfinite(_numpy(value)).all() for value in logs.values()):
            for variable, old in before:
                variable.assign(old)
            raise no_numbers(ruined)
        return logs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.function, name)


def no_numbers(names: list[str]) -> ValueError:
    """The error for gradients that are not finite.

    Args:
        names: Paths of the weights.
    """
    return ValueError(
        "The loss and the penalties of the first step are finite, but their gradient is not: an "
        "operation of the model has no second derivative where the data are, such as x ** 1.5 "
        "at 0 or a norm of zeros. Replace it, keep away from such places, or take "
        'InputGradient(method="finite_difference"), which needs no second derivatives. No weight '
        f"was changed. Received: gradients of {', '.join(names)} that are not finite"
    )


def warns_without_penalties(
    function: Callable[..., Any], name: str, penalties: CompilePenalties
) -> Callable[..., Any]:
    """A train function that warns if its first step has computed no penalty.

    Args:
        function: The train function of a model, whose train step may be a custom one.
        name: The name of its class.
        penalties: The penalties that it was compiled with.
    """

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        result = function(*args)
        if not penalties.computed:
            penalties.computed = True
            warnings.warn(
                f"`{name}.train_step` computes no penalty, so the model trains "
                "without those that it was compiled with. Take the outputs from "
                "`forward = self.forward_pass(x, y, training=True)` as `forward.y_pred`, and "
                "minimise `self.penalized_loss(loss, forward)`.",
                stacklevel=2,
            )
        return result

    return run


def _numpy(value: Any) -> Any:
    array = np.asarray(keras.ops.convert_to_numpy(keras.ops.copy(value)))
    return array.astype("float32") if array.dtype.name == "bfloat16" else array
