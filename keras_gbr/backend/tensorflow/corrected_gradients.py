"""Corrections of gradients that TensorFlow has wrong or lacks.

When TensorFlow takes a derivative, it looks up the gradient of an operation by its type. It
therefore finds the corrections below wherever the operation is: in a function that was traced
before, in a loop, in a model that was loaded. First derivatives stay the same to the last digit,
except those of image transformations, which TensorFlow approximates.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.ops import gradient_registry
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from keras_gbr.backend.tensorflow.image_transforms import transposed_transform
from keras_gbr.backend.tensorflow.max_pooling import at_largest

_Gradient = Callable[[Any, Any], Any]


def install() -> None:
    """Registers the corrections in place of TensorFlow's gradients, once for the process."""
    for name, correction in _CORRECTIONS.items():
        entry = gradient_registry._registry[name]
        if not isinstance(entry["type"], _Corrected):
            entry["type"] = _Corrected(correction, entry["type"])


class _Corrected:
    """The gradient of an operation by a correction, which gets TensorFlow's own too."""

    def __init__(
        self, correction: Callable[[_Gradient, Any, Any], Any], original: _Gradient
    ) -> None:
        self.correction, self.original = correction, original

    def __call__(self, op: Any, gradient: Any) -> Any:
        return self.correction(self.original, op, gradient)


def _squared_difference(original: _Gradient, op: Any, gradient: Any) -> Any:
    """The gradient of (x - y)^2 where y is the mean of x, held constant.

    `tf.nn.moments` computes the variance that way. The first derivative is right, but the second
    lacks a term, and so does the gradient of every penalty on a model with batch, group or layer
    normalisation. This gradient depends on the mean, so its derivative has the term. The gradient
    with respect to the mean is 0 and is left out.
    """
    mean = _mean_held_constant(*op.inputs)
    if mean is None:
        return original(op, gradient)
    return tf.convert_to_tensor(gradient) * 2 * (op.inputs[0] - mean), None


def _mean_held_constant(x: Any, y: Any) -> Any:
    """The mean of `x`, if `y` is that mean held constant; otherwise `None`.

    Eager tensors do not know what they were computed from; see `TwiceDifferentiable`.
    """
    if not tf.is_symbolic_tensor(y) or y.op.type != "StopGradient":
        return None
    mean = y.op.inputs[0]
    is_of_x = mean.op.type == "Mean" and mean.op.inputs[0].name == x.name
    return mean if is_of_x else None


def _max_pooling(original: _Gradient, op: Any, gradient: Any) -> Any:
    """The gradient of the gradient of max pooling, exact in every precision and mode.

    XLA's own exists only in single precision and compares only the first 16 bits of the inputs:
    for normally distributed inputs it is wrong in one window of a thousand. TensorFlow's other
    kernels overwrite inputs that they still need if the outputs have the size of the inputs.
    """
    inputs, outputs = op.inputs[:2]
    padding, strides = _padding(op), op.get_attr("strides")
    keeps_size = padding != "VALID" and all(stride == 1 for stride in strides)
    if padding in ("SAME", "VALID") and not keeps_size and not _may_be_compiled(op):
        return original(op, gradient)
    shape = tf.shape(outputs)
    return None, None, at_largest(inputs, gradient, shape, op.get_attr("ksize"), strides, padding)


def _image_transform(original: _Gradient, op: Any, gradient: Any) -> Any:
    """The exact gradient; none with respect to the transformation, as in TensorFlow's own."""
    return transposed_transform(op, gradient), *[None] * (len(op.inputs) - 1)


def _padding(op: Any) -> str | Sequence[int]:
    padding: str = tf.compat.as_str(op.get_attr("padding"))
    return op.get_attr("explicit_paddings") if padding == "EXPLICIT" else padding


def _may_be_compiled(op: Any) -> bool:
    """Whether XLA may compile the gradient of an operation.

    The gradient of a function is kept and used by every caller, compiled or not. There an
    operation is a `tf.Operation`; on a tape it is a record of one.
    """
    if tf.executing_eagerly():
        return False
    is_of_function = isinstance(op, tf.Operation)
    graph = tf.compat.v1.get_default_graph()
    return (
        is_of_function or GraphOrParentsInXlaContext(graph) or bool(tf.config.optimizer.get_jit())
    )


_CORRECTIONS = {
    "SquaredDifference": _squared_difference,
    "MaxPoolGrad": _max_pooling,
    "MaxPool3DGrad": _max_pooling,
    "ImageProjectiveTransformV3": _image_transform,
}


class TwiceDifferentiable:
    """Corrects the second derivatives of eager operations inside a `with` block.

    An eager operation does not know what its inputs were computed from, so the block replaces
    `tf.nn.moments` itself. With c the mean that is held constant, mean((x - c)^2) = variance +
    (mean - c)^2. The last term has value 0 and first derivative 0; subtracting it restores the
    second derivative.

    Blocks may be nested and may overlap in several threads, as replicas do. The last one to end
    restores `tf.nn.moments`.
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
        if tf.executing_eagerly():
            variance -= tf.square(mean - tf.stop_gradient(mean))
        return mean, variance
