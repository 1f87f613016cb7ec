"""The numbers that `check_numerics` looks at, and its message."""

from typing import Any

import keras


def checked_values(model: Any, gradients: list[Any], values: dict[str, Any]) -> dict[str, Any]:
    """The numbers that must be finite for a step, each by the words that the error names it with.

    Args:
        model: The model.
        gradients: One tensor or `None` for each trainable weight.
        values: The loss and the penalties, by these words.
    """
    # Under loss scaling gradients may overflow. The optimizer then skips the step.
    if not isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        pairs = zip(model.trainable_weights, gradients, strict=True)
        values = values | {f"the gradient of `{weight.path}`": g for weight, g in pairs}
    return {name: value for name, value in values.items() if value is not None}


def not_finite(name: str) -> str:
    """The message of the error. `name` is a key of `checked_values`."""
    return (
        f"`check_numerics`: {name} is NaN or infinite. The step is not taken, and no weight "
        "changes. Look at the batch, or lower the learning rate or the weight of the penalty."
    )
