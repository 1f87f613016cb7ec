"""Derivatives that TensorFlow has wrong or lacks, and what takes their place.

TensorFlow looks the gradient of an operation up, by its type, when a derivative is taken. What
is put in place here is therefore found however the operation came about: in a function that was
traced earlier, in a loop, in a model that was loaded. First derivatives stay as they are, to the
last digit, but for those of image transformations, which TensorFlow approximates.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.ops import gradient_registry
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from keras_gbr.backend.tensorflow.image_transforms import transposed_transform
from keras_gbr.backend.tensorflow.pooling_windows import at_largest

_Gradient = Callable[[Any, Any], Any]


def install() -> None:
    """Puts the gradients below in the place of TensorFlow's, once for the process."""
    for name, mend in _MENDS.items():
        entry = gradient_registry._registry[name]
        if not isinstance(entry["type"], _Mended):
            entry["type"] = _Mended(mend, entry["type"])


class _Mended:
    """The gradient of an operation: a mend, which is given TensorFlow's own."""

    def __init__(self, mend: Callable[[_Gradient, Any, Any], Any], original: _Gradient) -> None:
        self.mend, self.original = mend, original

    def __call__(self, op: Any, gradient: Any) -> Any:
        return self.mend(self.original, op, gradient)


def _squared_difference(original: _Gradient, op: Any, gradient: Any) -> Any:
    """The gradient of (x - y)^2, whose own gradient knows that y is the mean of x.

    `tf.nn.moments` takes the variance with the mean held constant. That leaves the first
    derivative right and takes a term from the second, and with it from the gradient of every
    penalty on a model with batch, group or layer normalisation. The gradient with respect to
    the mean is 0 and stays out.
    """
    mean = _mean_held_constant(*op.inputs)
    if mean is None:
        return original(op, gradient)
    return tf.convert_to_tensor(gradient) * 2 * (op.inputs[0] - mean), None


def _mean_held_constant(x: Any, y: Any) -> Any:
    """The mean of `x` that `y` is, without a gradient; None where it is something else.

    Eager tensors do not tell where they come from: see `TwiceDifferentiable`.
    """
    if not tf.is_symbolic_tensor(y) or y.op.type != "StopGradient":
        return None
    mean = y.op.inputs[0]
    is_of_x = mean.op.type == "Mean" and mean.op.inputs[0].name == x.name
    return mean if is_of_x else None


def _max_pooling(original: _Gradient, op: Any, gradient: Any) -> Any:
    """The gradient of the gradient of max pooling, exact in every precision and way of running.

    XLA's own exists in single precision alone, and there it looks at the first 16 bits of the
    inputs: of the windows of Gaussian numbers it mistakes one in a thousand. TensorFlow's other
    kernels write into what they still read where outputs have the size of the inputs.
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
    """Whether XLA may come to run the gradient of an operation.

    The gradient of a function, which is where operations are themselves and not their records
    on a tape, is kept and used again by whoever calls the function, compiled or not.
    """
    if tf.executing_eagerly():
        return False
    is_of_function = isinstance(op, tf.Operation)
    graph = tf.compat.v1.get_default_graph()
    return (
        is_of_function or GraphOrParentsInXlaContext(graph) or bool(tf.config.optimizer.get_jit())
    )


_MENDS = {
    "SquaredDifference": _squared_difference,
    "MaxPoolGrad": _max_pooling,
    "MaxPool3DGrad": _max_pooling,
    "ImageProjectiveTransformV3": _image_transform,
}


class TwiceDifferentiable:
    """Mends the second derivatives of what runs eagerly inside of a `with` block.

    There the gradient of an operation cannot tell what its inputs are, and `tf.nn.moments` is
    mended itself. With c the mean that is held constant, mean((x - c)^2) = variance +
    (mean - c)^2: subtracting the last term, whose value and first derivative are 0, restores
    what is missing.

    A block may be entered again, within itself and after it, and blocks may overlap in several
    threads, as replicas do: the last one out restores.
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
