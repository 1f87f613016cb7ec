"""Where a tensor may be used: in the graph that it was computed for."""

from typing import Any

import tensorflow as tf

# Graphs that are a part of the one around them, made anew with it.
_PARTS = ("CondBranchFuncGraph", "WhileCondFuncGraph", "WhileBodyFuncGraph")


def current_trace() -> Any:
    """The graph that is being traced, `None` where operations run at once.

    A branch or the body of a loop counts as the graph that it is in.
    """
    if tf.executing_eagerly():
        return None
    graph = tf.compat.v1.get_default_graph()
    while type(graph).__name__ in _PARTS:
        graph = graph.outer_graph
    return graph
