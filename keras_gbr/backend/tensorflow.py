"""TensorFlow: pullbacks by gradient tapes, and the train step around them."""

import threading
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_gbr.backend import numerics, second_derivatives


def vjp(
    function: Callable[[], Any], inputs: list[Any], parameters: bool = False
) -> tuple[Any, Callable[..., list[Any]]]:
    """Runs `function` and returns its output with its pullback.

    Args:
        function: Takes nothing and returns a tensor or a nested structure of them.
        inputs: Tensors that `function` reads.
        parameters: Whether the pullback also reaches the trainable variables that `function`
            reads.

    Returns:
        The output, and a function `pullback(cotangent, wrt)`: it takes a structure like the
        output and a list of `inputs` or variables, and returns a list of gradients, `None`
        where the output does not depend on one. It may be called several times, and what it
        computes is differentiable itself.
    """
    tape = tf.GradientTape(persistent=True, watch_accessed_variables=parameters)
    with tape, _TwiceDifferentiableMoments():
        tape.watch(inputs)
        output = function()

    def pullback(cotangent: Any, wrt: list[Any]) -> list[Any]:
        gradients = tape.gradient(output, wrt, output_gradients=cotangent)
        # An embedding has sparse gradients.
        return [None if g is None else tf.convert_to_tensor(g) for g in gradients]

    return output, pullback


class _TwiceDifferentiableMoments:
    """Mends the second derivative of `tf.nn.moments` inside a `with` block.

    TensorFlow computes the variance with the mean held constant. That leaves the first
    derivative right and takes a term from the second, and with it from the gradient of every
    penalty on a model with batch, group or layer normalisation. With c the constant,
    mean((x - c)^2) = variance + (mean - c)^2: subtracting the last term, whose value and first
    derivative are 0, restores what is missing.

    Blocks may overlap in several threads, as replicas do: the last one out restores.
    """

    _lock = threading.Lock()
    _open_blocks = 0
    _original = tf.nn.moments

    def __enter__(self) -> None:
        cls = type(self)
        with cls._lock:
            cls._open_blocks += 1
            tf.nn.moments = cls._moments

    def __exit__(self, *exception: object) -> None:
        cls = type(self)
        with cls._lock:
            cls._open_blocks -= 1
            if not cls._open_blocks:
                tf.nn.moments = cls._original

    @classmethod
    def _moments(cls, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        mean, variance = cls._original(*args, **kwargs)
        return mean, variance - tf.square(mean - tf.stop_gradient(mean))


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
    if tf.executing_eagerly() and model.penalties and not model._terms.traced:
        second_derivatives.require_of(lambda: _penalized(model, x, y, sample_weight)[1])
        model._terms.traced = True
    state = numerics.state(model) if model._terms.check_numerics else []
    with tf.GradientTape() as tape:
        forward, loss, values = _penalized(model, x, y, sample_weight)
        model._loss_tracker.update_state(loss, sample_weight=forward.batch_size)
        scaled_loss = model.optimizer.scale_loss(loss)
    weights = model.trainable_weights
    gradients = tape.gradient(scaled_loss, weights)
    checks = []
    if model._terms.check_numerics:
        checks = numerics.require_finite(gradients, values, model, state)
    with tf.control_dependencies(checks):
        model.optimizer.apply_gradients(zip(gradients, weights, strict=True))
    return model.compute_metrics(x, y, forward.y_pred, sample_weight=sample_weight)


def _penalized(model: Any, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, dict[str, Any]]:
    """The forward pass of a step, the loss with its penalties, and what that consists of."""
    forward = model.forward_pass(x, y, sample_weight, training=True)
    loss = model._compute_loss(x, y, forward.y_pred, sample_weight, training=True)
    values = {"the loss": loss}
    loss = model.penalized_loss(loss, forward, values)
    if model.penalties and not tf.executing_eagerly():
        second_derivatives.require(loss, model)
    return forward, loss, values
