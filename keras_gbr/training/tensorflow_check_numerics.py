"""Ends training at the first number that is not finite, before it changes a weight."""

from typing import Any

import tensorflow as tf

from keras_gbr.training.check_numerics import checked_values, not_finite


def state(model: Any) -> list[tuple[Any, Any]]:
    """Pairs of a weight that a forward pass may update, such as a moving average, and its value."""
    weights = [weight.value for weight in model.non_trainable_weights]
    return [(weight, tf.identity(weight)) for weight in weights if weight.dtype.is_floating]


def require_finite(
    gradients: list[Any], values: dict[str, Any], model: Any, before: list[tuple[Any, Any]]
) -> list[Any]:
    """Checks that gradients and other values are finite.

    Args:
        gradients: One tensor or `None` for each trainable weight of `model`.
        values: Scalar tensors by the words that name them in the message.
        model: The model.
        before: Its `state` before the step, which is restored if a number is not finite.

    Returns:
        Operations that must run before the update, for `tf.control_dependencies`.

    Raises:
        tf.errors.InvalidArgumentError: In the step: a number is not finite.
    """
    values = checked_values(model, gradients, values)
    flags = tf.stack(
        [tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(v))) for v in values.values()]
    )
    finite = tf.reduce_all(flags)
    messages = tf.constant([not_finite(name) for name in values])
    restored = [
        weight.assign(tf.where(finite, weight, value), read_value=False) for weight, value in before
    ]
    eager = tf.executing_eagerly()
    with tf.control_dependencies([] if eager else restored):
        first = tf.argmin(tf.cast(flags, "int32"))
        assertion = tf.debugging.Assert(finite, [tf.gather(messages, first)])
    return [] if eager else [assertion]
