"""Recorded functions, branches and graphs: what TensorFlow differentiates and compiles."""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_gbr.backend.contract import Recording, Watch
from keras_gbr.backend.tensorflow.corrected_gradients import TwiceDifferentiable
from keras_gbr.backend.tensorflow.differentiable_paths import require_independence


def record(
    function: Callable[[list[Any], Watch], Any],
    inputs: list[Any],
    watches: bool = False,
    parameters: Sequence[keras.Variable] | None = None,
    layers: Sequence[keras.Layer] = (),
) -> Recording:
    """See `keras_gbr.backend.contract`."""
    tape = tf.GradientTape(persistent=True, watch_accessed_variables=parameters is not None)
    watched: dict[Hashable, list[Any]] = {}
    with tape, TwiceDifferentiable():

        def watch(key: Hashable, tensor: Any) -> Any:
            tape.watch(tensor)
            watched.setdefault(key, []).append(tensor)
            return tensor

        tape.watch(inputs)
        output = function(inputs, watch)

    def gradients(function: Callable[[Any], Any], wrt: list[Any], strict: bool = True) -> list[Any]:
        sources = [each.value if isinstance(each, keras.Variable) else each for each in wrt]
        # On the same tape, because a loss may use the logits behind the output.
        with tape, TwiceDifferentiable():
            value = function(output)
        found = tape.gradient(value, sources)
        if strict:
            missing = [source for source, g in zip(sources, found, strict=True) if g is None]
            require_independence(value, missing)
        # Gradients of an embedding are sparse.
        return [None if g is None else tf.convert_to_tensor(g) for g in found]

    return Recording(output, watched, gradients)


def switch(index: Any, branches: Sequence[Callable[[], Any]]) -> Any:
    """Runs one of several functions and returns what it returns.

    Args:
        index: Scalar integer tensor, the number of the function.
        branches: Functions that return the same structure of tensors, with the same dtypes.
    """
    return branches[0]() if len(branches) == 1 else tf.switch_case(index, list(branches))


def compiled(function: Callable[..., Any], model: keras.Model) -> Callable[..., Any]:
    """Makes a graph, which is traced again at most once for each length that varies."""
    # TensorFlow counts traces by the code of a function, and would warn of one that is traced for
    # many models. A partial has a count of its own.
    return tf.function(functools.partial(function), autograph=False, reduce_retracing=True)
