"""The graph that is being traced, and the numbers that it reads when it runs.

The functions are those of `keras_gbr.backend.contract`.
"""

from typing import Any

import keras
import tensorflow as tf

# Graphs that are a part of the graph around them and traced with it.
_PARTS = ("CondBranchFuncGraph", "WhileCondFuncGraph", "WhileBodyFuncGraph")


def current_trace() -> Any:
    """Returns the graph, not that of a branch or loop in it, or `None` in eager execution."""
    if tf.executing_eagerly():
        return None
    graph = tf.compat.v1.get_default_graph()
    while type(graph).__name__ in _PARTS:
        graph = graph.outer_graph
    return graph


def held_numbers(values: list[float]) -> list[keras.Variable]:
    """Creates the variables for the strategy that is in scope."""
    dtype = "float64" if keras.config.floatx() == "float64" else "float32"
    return [keras.Variable(value, trainable=False, dtype=dtype) for value in values]
