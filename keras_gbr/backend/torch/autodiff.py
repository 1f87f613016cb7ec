"""Pullbacks by `torch.autograd.grad`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from keras_gbr.backend.masks import mask_of, with_mask


class MissingSecondDerivativeError(ValueError):
    """A loss whose gradient PyTorch does not have."""


def vjp(
    function: Callable[[list[Any], Callable[[str, Any], Any]], Any],
    inputs: list[Any],
    watches: bool = False,
    parameters: Sequence[keras.Variable] = (),
    layers: Sequence[keras.Layer] = (),
) -> tuple[Any, dict[str, list[Any]], Callable[..., list[Any]]]:
    """Runs a function and returns its output with its pullback.

    See `keras_gbr.backend.tensorflow.autodiff.vjp` for the arguments and what is returned. What
    the pullback computes is differentiable where PyTorch records gradients.
    """
    watched: dict[str, list[Any]] = {}
    # The other kernels of attention have no second derivative.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        sources = [_source(tensor) for tensor in inputs]

        def watch(name: str, tensor: Any) -> Any:
            watched.setdefault(name, []).append(_source(tensor))
            return watched[name][-1]

        output = function(sources, watch)

    def pullback(cotangent: Any, wrt: list[Any]) -> list[Any]:
        replaced = {id(each): source for each, source in zip(inputs, sources, strict=True)}
        tensors = [each.value if isinstance(each, keras.Variable) else each for each in wrt]
        return gradients(
            keras.tree.flatten(output),
            [replaced.get(id(each), each) for each in tensors],
            keras.tree.flatten(cotangent),
            create_graph=torch.is_grad_enabled(),
        )

    return output, watched, pullback


def _source(tensor: Any) -> Any:
    """A tensor that gradients are taken at: another one, so that none pass through it."""
    if tensor.requires_grad:
        return with_mask(tensor.view_as(tensor), mask_of(tensor))
    return with_mask(tensor.detach().requires_grad_(), mask_of(tensor))


def gradients(
    outputs: list[Any],
    wrt: list[Any],
    cotangents: list[Any] | None = None,
    create_graph: bool = False,
    retain_graph: bool = True,
) -> list[Any]:
    """The gradients of tensors, `None` where they do not depend on one.

    Args:
        outputs: Tensors.
        wrt: Tensors that they were computed from.
        cotangents: Tensors like `outputs`; ones by default.
        create_graph: Whether the gradients are differentiable themselves.
        retain_graph: Whether other gradients of `outputs` are to follow. If not, the memory of
            what they were computed from is free while these are taken.

    Raises:
        MissingSecondDerivativeError: They pass an operation that has none.
    """
    cotangents = (
        [torch.ones_like(output) for output in outputs] if cotangents is None else cotangents
    )
    pairs = [pair for pair in zip(outputs, cotangents, strict=True) if pair[0].requires_grad]
    if not pairs:
        return [None] * len(wrt)
    reachable = [tensor for tensor in wrt if tensor.requires_grad]
    try:
        found = iter(
            torch.autograd.grad(
                [output for output, _ in pairs],
                reachable,
                [cotangent for _, cotangent in pairs],
                retain_graph=retain_graph,
                create_graph=create_graph,
                allow_unused=True,
            )
        )
    except RuntimeError as error:
        if "derivative" not in str(error) and "once_differentiable" not in str(error):
            raise
        raise MissingSecondDerivativeError(
            "A penalty needs second derivatives, and PyTorch has none for an operation of the "
            "model. Replace the operation by one that has, or take "
            'InputGradient(method="finite_difference"), which needs none. '
            f"Received: {error}"
        ) from error
    return [next(found) if tensor.requires_grad else None for tensor in wrt]


def compiled(function: Callable[..., Any], model: keras.Model) -> Callable[..., Any]:
    """`function` of tensors, which reads `model`, as it is; its results have no gradient."""

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        with torch.no_grad():
            return function(*args)

    return run


def require_second_derivatives(loss: Any, model: keras.Model) -> None:
    """Nothing: PyTorch says itself, in the gradient of a step, what it cannot differentiate."""
