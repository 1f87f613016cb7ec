"""Whether TensorFlow has the gradient of an operation."""

import re
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph
from tensorflow.python.framework.function import _DefinedFunction
from tensorflow.python.framework.ops import get_gradient_function
from tensorflow.python.ops.script_ops import _py_funcs

_BACKWARD = re.compile("Grad|Backprop")
# The files that take gradients. One of them is in the traceback of each operation they create.
_TAKERS = ("eager/backprop.py", "ops/gradients_util.py")
# Operations whose outputs do not depend on the values of their inputs.
_VALUE_FREE = ("ZerosLike", "OnesLike", "LinSpace", "Range")


def is_missing(op: Any, dependent: list[Any]) -> bool:
    """Whether TensorFlow leaves out the gradient of an operation, or raises an error.

    Args:
        op: An operation on a path of the gradient.
        dependent: The inputs of `op` that are on the path.
    """
    if op.type in ("PyFunc", "PyFuncStateless"):
        return True
    if op.type == "EagerPyFunc":
        # TensorFlow differentiates a Python function only once.
        return _is_gradient_of_python(op)
    if any(isinstance(function, _DefinedFunction) for function in called_functions(op)):
        # A function without a graph: TensorFlow differentiates it only while it runs, and has few
        # gradients for that.
        return True
    try:
        gradient = get_gradient_function(op)
    except LookupError:
        return bool(_BACKWARD.search(op.type)) or _is_of_a_gradient(op)
    if gradient is not None:
        if "_gradient_op_type" in op.node_def.attr and _is_of_a_gradient(op):
            return _is_cut(op, gradient, dependent)
        # Other registered gradients that are missing raise an error of their own when called.
        return op.type == "PreventGradient"
    if "Resize" in op.type:
        # The operation is linear in its first input and reads only the shapes of the others.
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
    """Whether an operation was created while a gradient was taken.

    A `stop_gradient` in the forward pass is intended. In a gradient it cuts off the second
    derivative.
    """
    return any(frame.filename.endswith(_TAKERS) for frame in op.traceback or ())


def _is_gradient_of_python(op: Any) -> bool:
    function = _py_funcs.get(op.get_attr("token").decode())
    return bool(getattr(function, "_is_grad_func", False))


def _is_cut(op: Any, gradient: Any, dependent: list[Any]) -> bool:
    """Whether the custom gradient of a gradient fails, or returns `None` for a dependent input.

    To find out, it is called once in a graph that is thrown away.
    """
    names = {tensor.name for tensor in dependent}
    with op.graph.as_default(), FuncGraph("second_derivative").as_default():
        try:
            found = gradient(op, *[tf.zeros_like(output) for output in op.outputs])
        except Exception as error:
            # A sum over replicas cannot run in that graph, which says nothing about its gradient.
            return "merge_call" not in str(error)
    # The inputs are the results of the function, which have no gradient here, and then its
    # arguments.
    results = next((i for i, g in enumerate(found) if g is not None), len(found))
    pairs = list(zip(op.inputs, found, strict=True))[results:]
    return any(each is None and tensor.name in names for tensor, each in pairs)
