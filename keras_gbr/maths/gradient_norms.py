"""Norms of gradients, and the directions in which a function grows fastest."""

from typing import Any

from keras import ops

from keras_gbr import _checks as check
from keras_gbr.maths.precision import at_least_float32, magnitudes

NORMS = (1, 2, "inf")
# A step of length 1 in one norm makes a function grow at most by the dual norm of its gradient.
DUAL: dict[int | str, int | str] = {1: "inf", 2: 2, "inf": 1}


def check_norm(name: str, norm: Any) -> int | str:
    """One of 1, 2 and "inf"."""
    if isinstance(norm, (int, str)) and not isinstance(norm, bool) and norm in NORMS:
        return norm
    raise check.error(f"`{name}` must be 1, 2 or 'inf'.", name, norm)


def squared_norms(gradients: list[Any]) -> Any:
    """The squared Euclidean norm of each sample's part of a list of gradients.

    Args:
        gradients: Tensors `(batch_size, ...)`.

    Returns:
        Tensor `(batch_size,)`, at least single precision.
    """
    return sum(ops.sum(ops.square(flat), axis=1) for flat in flattened(gradients))


def flattened(gradients: list[Any]) -> list[Any]:
    """Gradients as tensors `(batch_size, size)` in at least single precision."""
    return [
        at_least_float32(ops.reshape(gradient, (ops.shape(gradient)[0], -1)))
        for gradient in gradients
    ]


def gradient_norms(gradients: list[Any], norm: int | str) -> Any:
    """The norm of each sample's gradient.

    Args:
        gradients: Tensors `(batch_size, ...)`, which count as one vector per sample.
        norm: 1, 2 or "inf".

    Returns:
        Tensor `(batch_size,)`. The derivative is zero where the gradient is zero.
    """
    if norm == 2:
        squares = squared_norms(gradients)
        positive = squares > 0
        # The root has no derivative at zero, and `where` alone would multiply it by zero.
        roots = ops.sqrt(ops.where(positive, squares, ops.ones_like(squares)))
        return ops.where(positive, roots, ops.zeros_like(squares))
    lengths = [magnitudes(flat) for flat in flattened(gradients)]
    if norm == 1:
        return sum(ops.sum(flat, axis=1) for flat in lengths)
    return ops.max(ops.concatenate(lengths, axis=1), axis=1)


def steepest_steps(gradients: list[Any], norm: int | str) -> list[Any]:
    """The steps of length 1 along which a function with these gradients grows fastest.

    Their inner product with the gradients is the dual norm of the gradients.

    Args:
        gradients: Tensors `(batch_size, ...)`, which count as one vector per sample.
        norm: The norm in which the steps have length 1. "inf": the signs; 2: the scaled gradients;
            1: the sign of the largest entry (the mean, if several are equal).

    Returns:
        Tensors like `gradients`, in at least single precision; zero where those are zero.
    """
    flats = flattened(gradients)
    if norm == "inf":
        steps = [ops.sign(flat) for flat in flats]
    elif norm == 2:
        lengths = gradient_norms(gradients, 2)[:, None]
        steps = [_divided(flat, lengths) for flat in flats]
    else:
        largest = gradient_norms(gradients, "inf")[:, None]
        steps = [ops.where(ops.abs(flat) == largest, ops.sign(flat), 0.0) for flat in flats]
        counts = sum(ops.sum(ops.abs(step), axis=1, keepdims=True) for step in steps)
        steps = [_divided(step, counts) for step in steps]
    return [
        ops.reshape(step, ops.shape(gradient))
        for step, gradient in zip(steps, gradients, strict=True)
    ]


def _divided(a: Any, b: Any) -> Any:
    return ops.divide_no_nan(a, ops.broadcast_to(b, ops.shape(a)))
