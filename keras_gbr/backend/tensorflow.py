"""TensorFlow: pullbacks by gradient tapes, and the train step around them."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def vjp(function: Callable[[], Any], sources: list[Any]) -> tuple[Any, Callable[..., list[Any]]]:
    """Runs `function` and returns its output with the pullback to `sources`.

    Args:
        function: Takes nothing and returns a tensor or a nested structure of them.
        sources: Tensors and variables that `function` reads.

    Returns:
        The output, and a function `pullback(cotangent, wrt)`: it takes a structure like the
        output and a list of some of `sources`, and returns a list of gradients, `None` where
        the output does not depend on a source. It may be called several times, and what it
        computes is differentiable itself.
    """
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(sources)
        output = function()

    def pullback(cotangent: Any, wrt: list[Any]) -> list[Any]:
        return list(tape.gradient(output, wrt, output_gradients=cotangent))

    return output, pullback


def normal(shape: tuple[Any, ...], seed: int, step: Any) -> Any:
    """Standard normal float32 numbers that depend on `shape`, `seed` and `step` alone.

    Args:
        shape: Tuple of whole numbers or scalar tensors.
        seed: Whole number.
        step: Scalar integer tensor or variable; another value gives independent numbers.

    Returns:
        Tensor of `shape`.
    """
    pair = tf.stack([tf.cast(seed % 2**31, "int32"), tf.cast(step, "int32")])
    return tf.random.stateless_normal(tf.stack(shape), pair)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of tensors as a graph, traced once for each rank of its arguments."""
    return tf.function(function, reduce_retracing=True)


def train_step(model: Any, data: Any) -> dict[str, Any]:
    """One step of `fit`: one forward pass for the loss and all penalties, one update.

    Args:
        model: A compiled model with the `GBRMixin`.
        data: A batch `x`, `(x, y)` or `(x, y, sample_weight)`.

    Returns:
        The logs of the step.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        raise ValueError(
            "Penalties run on one replica so far. Train under a strategy with one device, or "
            "compile with `penalties=None`. Received: num_replicas_in_sync="
            f"{tf.distribute.get_strategy().num_replicas_in_sync}"
        )
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    weights = model.trainable_weights
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([weight.value for weight in weights])
        forward = model.forward_pass(x, y, sample_weight, training=True)
        loss = model._compute_loss(x, y, forward.y_pred, sample_weight, training=True)
        loss = model.penalized_loss(loss, forward)
        model._loss_tracker.update_state(loss, sample_weight=forward.batch_size)
        scaled_loss = model.optimizer.scale_loss(loss)
    gradients = tape.gradient(scaled_loss, weights)
    model.optimizer.apply_gradients(zip(gradients, weights, strict=True))
    return model.compute_metrics(x, y, forward.y_pred, sample_weight=sample_weight)
