"""Stops training at the first number that is not finite, before it reaches a weight."""

from typing import Any

import keras
import tensorflow as tf


def state(model: Any) -> list[tuple[Any, Any]]:
    """The weights that a forward pass itself may change, such as moving averages, with values."""
    weights = [weight.value for weight in model.non_trainable_weights]
    return [(weight, tf.identity(weight)) for weight in weights if weight.dtype.is_floating]


def require_finite(
    gradients: list[Any], values: dict[str, Any], model: Any, before: list[tuple[Any, Any]]
) -> list[Any]:
    """Checks that gradients and other values are finite.

    Args:
        gradients: One tensor or `None` for each trainable weight of `model`.
        values: Tensors by what they are, for the message.
        model: The model.
        before: Its `state` before the step, which is restored if a number is not finite.

    Returns:
        What must have run before anything else changes, for `tf.control_dependencies`.

    Raises:
        tf.errors.InvalidArgumentError: In the step: a number is not finite.
    """
    # Under loss scaling, gradients that overflow are the optimizer's business: it skips the step.
    if not isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        pairs = zip(model.trainable_weights, gradients, strict=True)
        values = values | {f"the gradient of `{weight.path}`": g for weight, g in pairs}
    values = {name: value for name, value in values.items() if value is not None}
    flags = tf.stack(
        [tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(v))) for v in values.values()]
    )
    finite = tf.reduce_all(flags)
    messages = tf.constant(
        [
            f"`check_numerics`: {name} is NaN or infinite. The step is not taken and the weights "
            "are those before it. Look at the batch, or lower the learning rate or the weight "
            "of the penalty."
            for name in values
        ]
    )
    restored = [
        weight.assign(tf.where(finite, weight, value), read_value=False) for weight, value in before
    ]
    eager = tf.executing_eagerly()
    with tf.control_dependencies([] if eager else restored):
        first = tf.argmin(tf.cast(flags, "int32"))
        assertion = tf.debugging.Assert(finite, [tf.gather(messages, first)])
    return [] if eager else [assertion]
