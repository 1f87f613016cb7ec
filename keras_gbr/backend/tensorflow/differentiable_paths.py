"""The paths of a graph that a derivative may take.

TensorFlow returns `None` as the gradient with respect to a tensor in two cases: the value does not
depend on the tensor, or it depends on it through an operation that TensorFlow cannot
differentiate. In the first case the gradient is zero, in the second it is wrong. The graph tells
the cases apart.
"""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from keras_gbr.backend.errors import MissingDerivativeError

# Operations whose derivative is zero wherever there is one, or is declared to be.
_CONSTANT = (
    *("StopGradient", "ZerosLike", "OnesLike", "Fill"),
    *("Floor", "Ceil", "Round", "Rint", "Sign"),
)


def require_independence(value: Any, sources: list[Any]) -> None:
    """Refuses a gradient of `None` that stands for a missing derivative.

    Eager operations leave no graph to look at. An eager step is therefore traced once, before the
    first one runs.

    Args:
        value: Tensor.
        sources: Tensors or variables for which the gradient of `value` is `None`.

    Raises:
        MissingDerivativeError: `value` depends on one of `sources` through floating-point tensors.
    """
    if not sources or tf.executing_eagerly():
        return
    needed = needed_tensors([value])
    for source in sources:
        if _names(source, value.graph) & needed:
            raise MissingDerivativeError(
                "A penalty needs the derivative of the loss or the output by everything that it "
                "depends on, and TensorFlow has none for an operation on the way. Replace the "
                "operation by one that has it (`tf.py_function` and `tf.numpy_function` do not), "
                "or stop the gradient on purpose with `keras.ops.stop_gradient`. Received: no "
                f"gradient by {source.name!r}"
            )


def needed_tensors(targets: Iterable[Any]) -> set[str]:
    """The names of the tensors that `targets` are computed from by differentiable paths."""
    needed: set[str] = set()
    stack = list(targets)
    while stack:
        tensor = stack.pop()
        if tensor.name not in needed and carries_gradient(tensor):
            needed.add(tensor.name)
            stack.extend(_differentiated(tensor.op))
    return needed


def _differentiated(op: Any) -> list[Any]:
    """The inputs of an operation that its gradient goes to.

    A function with a custom gradient ends in an operation whose inputs are the results and the
    arguments of the function. It passes the results on; its gradient goes to the arguments.
    """
    if op.type in _CONSTANT:
        return []
    if op.type == "IdentityN" and "_gradient_op_type" in op.node_def.attr:
        pairs = zip(op.inputs, op.outputs, strict=True)
        return [tensor for tensor, output in pairs if not output.consumers()]
    return list(op.inputs)


def carries_gradient(tensor: Any) -> bool:
    """Whether a derivative may pass. Resources are variables; variants are a loop's stacks."""
    dtype = tensor.dtype.base_dtype
    return dtype.is_floating or dtype.is_complex or dtype in (tf.resource, tf.variant)


def origin(tensor: Any) -> Any:
    """The tensor outside of all functions that a tensor was captured from."""
    captures = getattr(getattr(tensor, "graph", None), "captures", ())
    outer = next((outer for outer, inner in captures if inner is tensor), None)
    return tensor if outer is None else origin(outer)


def _names(source: Any, graph: Any) -> set[str]:
    """The names of a tensor or variable in a graph."""
    outermost = getattr(source, "handle", source)
    names = {inner.name for outer, inner in graph.captures if origin(outer) is outermost}
    return names | {source.name} if getattr(source, "graph", None) is graph else names
