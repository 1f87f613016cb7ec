"""Recorded functions by gradient tapes, branches and graphs."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_gbr.backend.tensorflow.corrected_gradients import TwiceDifferentiable
from keras_gbr.backend.tensorflow.paths import require_independence


def record(
    function: Callable[[list[Any], Callable[[str, Any], Any]], Any],
    inputs: list[Any],
    watches: bool = False,
    parameters: Sequence[keras.Variable] | None = None,
    layers: Sequence[keras.Layer] = (),
) -> tuple[Any, dict[str, list[Any]], Callable[..., list[Any]]]:
    """Runs a function and records it, for gradients of functions of its output.

    Args:
        function: `function(inputs, watch)` returns a tensor or a nested structure of them. It
            computes with the `inputs` that it is given, and `watch(name, tensor)` returns what
            to compute with in place of `tensor` so that there is a gradient at it.
        inputs: Floating-point tensors.
        watches: Whether the function calls `watch`.
        parameters: The variables whose gradients may be asked for too, those included that the
            function makes, or `None`.
        layers: The layers that the function calls: what they update and add to the loss is
            left as if they had been called directly.

    Returns:
        The output; the watched tensors by their names, in the order in which they came; and a
        function `gradients(of, wrt, strict=True)`. That takes a function of the output that
        returns a tensor, whose sum is differentiated, and a list of `inputs`, watched tensors or
        `parameters`. It returns a list of tensors, `None` where the value is known not to depend
        on one; unless it is strict, also where the backend has no gradient. It may be called
        several times, and what it computes is differentiable itself.
    """
    tape = tf.GradientTape(persistent=True, watch_accessed_variables=parameters is not None)
    watched: dict[str, list[Any]] = {}
    with tape, TwiceDifferentiable():

        def watch(name: str, tensor: Any) -> Any:
            tape.watch(tensor)
            watched.setdefault(name, []).append(tensor)
            return tensor

        tape.watch(inputs)
        output = function(inputs, watch)

    def gradients(of: Callable[[Any], Any], wrt: list[Any], strict: bool = True) -> list[Any]:
        sources = [each.value if isinstance(each, keras.Variable) else each for each in wrt]
        # On the same tape: a loss may take the logits behind the output instead of the output.
        with tape, TwiceDifferentiable():
            value = of(output)
        found = tape.gradient(value, sources)
        if strict:
            missing = [source for source, g in zip(sources, found, strict=True) if g is None]
            require_independence(value, missing)
        # An embedding has sparse gradients.
        return [None if g is None else tf.convert_to_tensor(g) for g in found]

    return output, watched, gradients


def switch(index: Any, branches: Sequence[Callable[[], Any]]) -> Any:
    """What one of several functions returns; the others do not run.

    Args:
        index: Scalar integer tensor, the number of the function.
        branches: Functions that return structures of tensors of the same kind.
    """
    return branches[0]() if len(branches) == 1 else tf.switch_case(index, list(branches))


def compiled(function: Callable[..., Any], model: keras.Model) -> Callable[..., Any]:
    """`function` of tensors, which reads `model`, as a graph.

    It is traced again at most where another length varies, and reads the variables as they are.
    """
    # A partial has call statistics of its own. TensorFlow keeps those of a function by its
    # code, and takes one for many models for one that is traced over and over.
    return tf.function(functools.partial(function), autograph=False, reduce_retracing=True)
