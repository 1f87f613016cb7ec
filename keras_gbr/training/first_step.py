"""Looks at the first step with penalties, where a wrong second derivative shows."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np


class FirstStep:
    """A function that trains, whose first call is undone if weights come out as no numbers.

    The first derivatives of a model may be finite where the second ones, which the gradient of
    a penalty is made of, are not: that of x^1.5 at 0, say. Loss and penalty then look right in
    the step that ruins the weights.
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
    """The error of gradients that are no numbers."""
    return ValueError(
        "The loss and the penalties of the first step are numbers, and their gradient is none: "
        "an operation of the model has no second derivative where the data are, such as x ** 1.5 "
        "at 0 or a norm of zeros. Replace it, keep away from such places, or take "
        'InputGradient(method="finite_difference"), which needs no second derivatives. No weight '
        f"was changed. Received: gradients of {', '.join(names)} that are not finite"
    )


def _numpy(value: Any) -> Any:
    array = np.asarray(keras.ops.convert_to_numpy(keras.ops.copy(value)))
    return array.astype("float32") if array.dtype.name == "bfloat16" else array
