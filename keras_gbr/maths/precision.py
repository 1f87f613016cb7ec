"""Enough precision for norms, and absolute values with the same derivative everywhere."""

from typing import Any

from keras import ops
from keras.backend import standardize_dtype


def at_least_float32(x: Any) -> Any:
    """`x` in single precision, or in its own precision if that is higher.

    Squares of numbers above 256 overflow float16, and sums in bfloat16 keep less than three digits.

    Args:
        x: Floating-point tensor or variable.

    Returns:
        Tensor of the same shape, float32 or float64.
    """
    x = ops.convert_to_tensor(x)
    return x if standardize_dtype(x.dtype) in ("float32", "float64") else ops.cast(x, "float32")


def is_float(x: Any) -> bool:
    """Whether a tensor or array has a floating-point type."""
    return "float" in standardize_dtype(x.dtype)


def magnitudes(x: Any) -> Any:
    """The absolute values of a tensor, with derivative 0 at 0, where JAX has 1."""
    return x * ops.stop_gradient(ops.sign(x))
