"""Pullbacks by gradient tapes, random numbers and graphs."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_gbr.backend.tensorflow.distribution import replica_id

# Between the seeds of two replicas.
_REPLICA_STRIDE = 0x61C88647


def vjp(
    function: Callable[[Callable[[Any], Any]], Any], inputs: list[Any], parameters: bool = False
) -> tuple[Any, Callable[..., list[Any]]]:
    """Runs `function` and returns its output with its pullback.

    Args:
        function: Returns a tensor or a nested structure of them. It is given a function `watch`:
            what it computes with `watch(tensor)` instead of `tensor` has a gradient with respect
            to what that returned.
        inputs: Tensors that `function` reads.
        parameters: Whether the pullback also reaches the trainable variables that `function`
            reads.

    Returns:
        The output, and a function `pullback(cotangent, wrt)`: it takes a structure like the
        output and a list of `inputs`, watched tensors or variables, and returns a list of gradients, `None`
        where the output does not depend on one. It may be called several times, and what it
        computes is differentiable itself.
    """
    tape = tf.GradientTape(persistent=True, watch_accessed_variables=parameters)
    with tape, _TwiceDifferentiableMoments():

        def watch(tensor: Any) -> Any:
            tape.watch(tensor)
            return tensor

        tape.watch(inputs)
        output = function(watch)

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

    On several replicas each draws numbers of its own, and under XLA they are other ones.

    Args:
        shape: Tuple of whole numbers or scalar tensors.
        seed: Whole number.
        step: Scalar integer tensor or variable; another value gives independent numbers.

    Returns:
        Tensor of `shape`.
    """
    seeds = (tf.cast(seed, "int64") + _REPLICA_STRIDE * tf.cast(replica_id(), "int64")) % 2**31
    pair = tf.stack([tf.cast(seeds, "int32"), tf.cast(step, "int32")])
    return tf.random.stateless_normal(tf.stack(shape), pair)


def switch(index: Any, branches: Sequence[Callable[[], Any]]) -> Any:
    """What one of several functions returns; the others do not run.

    Args:
        index: Scalar integer tensor, the number of the function.
        branches: Functions that return structures of tensors of the same kind.
    """
    return branches[0]() if len(branches) == 1 else tf.switch_case(index, list(branches))


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of tensors as a graph, traced once for each rank of its arguments."""
    return tf.function(function, reduce_retracing=True)
