"""What TensorFlow would do to take the gradient of an operation."""

import re
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph
from tensorflow.python.framework.function import _DefinedFunction
from tensorflow.python.framework.ops import get_gradient_function
from tensorflow.python.ops.script_ops import _py_funcs

_BACKWARD = re.compile("Grad|Backprop")
# Gradients are taken by these files; what they make stands below one of them in its traceback.
_TAKERS = ("eager/backprop.py", "ops/gradients_util.py")
# Their outputs are the same whatever the values of their inputs are.
_VALUE_FREE = ("ZerosLike", "OnesLike", "LinSpace", "Range")


def is_missing(op: Any, dependent: list[Any]) -> bool:
    """Whether a gradient through an operation is left out, or is an error.

    Args:
        op: An operation on a path of the gradient.
        dependent: Those of its inputs that the path comes from.
    """
    if op.type in ("PyFunc", "PyFuncStateless"):
        return True
    if op.type == "EagerPyFunc":
        # TensorFlow differentiates a function of Python once.
        return _is_gradient_of_python(op)
    if any(isinstance(function, _DefinedFunction) for function in called_functions(op)):
        # Of a function without a graph TensorFlow takes the gradient while it runs, and has
        # few to take it with.
        return True
    try:
        gradient = get_gradient_function(op)
    except LookupError:
        return bool(_BACKWARD.search(op.type)) or _is_of_a_gradient(op)
    if gradient is not None:
        if "_gradient_op_type" in op.node_def.attr and _is_of_a_gradient(op):
            return _is_cut(op, gradient, dependent)
        # What stands here raises an error of its own when it is called.
        return op.type == "PreventGradient"
    if "Resize" in op.type:
        # Linear in its first input, and reads the others' shapes alone.
        return any(op.inputs[0] is tensor for tensor in dependent)
    if _BACKWARD.search(op.type) and op.type != "StopGradient":
        return True
    is_smooth = op.type not in _VALUE_FREE and any(t.dtype.is_floating for t in op.outputs)
    return is_smooth and _is_of_a_gradient(op)


def called_functions(op: Any) -> list[Any]:
    """The functions that an operation calls."""
    attributes = op.node_def.attr.values()
    named = [attribute.func.name for attribute in attributes]
    named += [branch.name for attribute in attributes for branch in attribute.list.func]
    return [op.graph._get_function(name) for name in named if name]


def _is_of_a_gradient(op: Any) -> bool:
    """Whether an operation came about while a gradient was taken.

    A `stop_gradient` of the forward pass is what its author wants; within a gradient it cuts the
    second derivative off.
    """
    return any(frame.filename.endswith(_TAKERS) for frame in op.traceback or ())


def _is_gradient_of_python(op: Any) -> bool:
    function = _py_funcs.get(op.get_attr("token").decode())
    return bool(getattr(function, "_is_grad_func", False))


def _is_cut(op: Any, gradient: Any, dependent: list[Any]) -> bool:
    """Whether a custom gradient of a gradient fails or returns None where a path comes in.

    It is called once for that, in a graph that is thrown away.
    """
    names = {tensor.name for tensor in dependent}
    with op.graph.as_default(), FuncGraph("second_derivative").as_default():
        try:
            found = gradient(op, *[tf.zeros_like(output) for output in op.outputs])
        except Exception as error:
            # Replicas cannot meet in a graph that is thrown away: the gradient of a sum over them
            # is another one.
            return "merge_call" not in str(error)
    # The operation stands for the results and the arguments of the function, and the results
    # have no gradient there. They come first.
    results = next((i for i, g in enumerate(found) if g is not None), len(found))
    pairs = list(zip(op.inputs, found, strict=True))[results:]
    return any(each is None and tensor.name in names for tensor, each in pairs)
