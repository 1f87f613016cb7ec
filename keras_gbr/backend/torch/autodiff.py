"""Recorded functions and gradients by `torch.autograd.grad`."""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import keras
import torch
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

from keras_gbr._keras.masks import mask_of, with_mask
from keras_gbr.backend.contract import Recording, Watch
from keras_gbr.backend.errors import MissingSecondDerivativeError


def record(
    function: Callable[[list[Any], Watch], Any],
    inputs: list[Any],
    watches: bool = False,
    parameters: Sequence[keras.Variable] | None = None,
    layers: Sequence[keras.Layer] = (),
) -> Recording:
    """See `keras_gbr.backend.contract`. The gradients are differentiable only in grad mode."""
    watched: dict[Hashable, list[Any]] = {}
    # The other kernels of attention have no second derivative.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        sources = [_source(tensor) for tensor in inputs]

        def watch(key: Hashable, tensor: Any) -> Any:
            watched.setdefault(key, []).append(_source(tensor))
            return watched[key][-1]

        output = function(sources, watch)

    def gradients_of_function(
        function: Callable[[Any], Any], wrt: list[Any], strict: bool = True
    ) -> list[Any]:
        replaced = {id(each): source for each, source in zip(inputs, sources, strict=True)}
        tensors = [each.value if isinstance(each, keras.Variable) else each for each in wrt]
        records = torch.is_grad_enabled()
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            value = function(output)
        ones = torch.ones_like(value)
        return gradients(
            [value],
            [replaced.get(id(each), each) for each in tensors],
            # As constants they would hide a gradient that cannot be recorded.
            [ones.requires_grad_() if records else ones],
            create_graph=records,
        )

    return Recording(output, watched, gradients_of_function)


def _source(tensor: Any) -> Any:
    """A new tensor to take gradients at. No gradient passes through to the given one."""
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
    """The gradients of the sum of `outputs`, `None` for tensors that it does not depend on.

    Args:
        outputs: Tensors.
        wrt: Tensors that they were computed from.
        cotangents: Tensors like `outputs`; ones by default.
        create_graph: Whether the gradients are differentiable themselves.
        retain_graph: Whether other gradients of `outputs` will be taken. If not, memory is freed
            while these are taken.

    Raises:
        MissingSecondDerivativeError: The path of a gradient has an operation without a second
            derivative.
    """
    cotangents = (
        [torch.ones_like(output) for output in outputs] if cotangents is None else cotangents
    )
    pairs = [pair for pair in zip(outputs, cotangents, strict=True) if pair[0].requires_grad]
    reachable = [tensor for tensor in wrt if tensor.requires_grad]
    if not pairs or not reachable:
        return [None] * len(wrt)
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
        if "derivative" not in str(error):
            raise
        raise _missing(str(error)) from error
    return [next(found) if tensor.requires_grad else None for tensor in wrt]


def compiled(function: Callable[..., Any], model: keras.Model) -> Callable[..., Any]:
    """Leaves the function uncompiled, without gradients."""

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        with torch.no_grad():
            return function(*args)

    return run


def require_second_derivatives(loss: Any, model: keras.Model) -> None:
    """Refuses a loss that depends on the gradient of a function marked `once_differentiable`.

    In place of that derivative PyTorch records a node that raises an error. No path leads from the
    node to a weight, so `torch.autograd.grad` silently skips it. Other missing derivatives raise an
    error of PyTorch's own.
    """
    nodes = _nodes_of(loss.grad_fn)
    if any(node.name().endswith("::Error") for node in nodes):
        functions = {getattr(type(node), "_forward_cls", None) for node in nodes}
        names = sorted(f.__name__ for f in functions if f and _is_differentiable_once(f))
        words = ", ".join(names) or "a function"
        raise _missing(f"{words}, marked with once_differentiable, in model {model.name!r}")


def _nodes_of(root: Any) -> set[Any]:
    """The operation `root` and all operations that it depends on."""
    found, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting.extend(following for following, _ in node.next_functions)
    return found


def _is_differentiable_once(function: Any) -> bool:
    return getattr(function.backward, "__code__", None) is _ONCE_DIFFERENTIABLE


# Every function that `once_differentiable` decorates has this code.
_ONCE_DIFFERENTIABLE = once_differentiable(lambda context: None).__code__


def _missing(received: str) -> MissingSecondDerivativeError:
    return MissingSecondDerivativeError(
        "A penalty needs second derivatives, and PyTorch has none for an operation of the "
        "model. Replace the operation by one that has them, or take "
        f'InputGradient(method="finite_difference"), which needs none. Received: {received}'
    )
