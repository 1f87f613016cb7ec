"""Refuses penalties on operations whose second derivative TensorFlow does not have.

The gradient of a penalty passes through the gradient operations that the penalty has created. If
such an operation is registered as not differentiable, TensorFlow leaves the path out and trains
with a wrong gradient. If it is not registered, TensorFlow raises an error that names no layer. The
graph of the traced step shows both in advance and costs the steps nothing.
"""

import re
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from keras_gbr._keras.layer_tree import all_layers
from keras_gbr.backend.errors import MissingDerivativeError, MissingSecondDerivativeError
from keras_gbr.backend.tensorflow.differentiable_paths import (
    carries_gradient,
    needed_tensors,
    origin,
)
from keras_gbr.backend.tensorflow.missing_gradients import called_functions, is_missing

_WAYS_OUT = {
    "Resize|ScaleAndTranslate": 'UpSampling2D(interpolation="nearest") or Conv2DTranspose',
    "CudnnRNN": "the same layer with `use_cudnn=False`",
    "Softsign": 'an activation that has one, such as "tanh"',
    "PyFunc": "operations of TensorFlow",
    "StopGradient": "a gradient that holds nothing constant",
    "IdentityN": "one without a custom gradient (`tf.custom_gradient`, `keras.remat`)",
    "": "an operation that has one",
}
_BACKWARD = re.compile("(?<!Stop)Grad|Backprop")
_TAPE = "gradient_tape"
_LOOPS = ("While", "StatelessWhile")


def require_by_tracing(step: Callable[[], Any]) -> None:
    """Traces an eager step once, because eager operations leave no graph to look at.

    Args:
        step: Calls `require_second_derivatives`. It is traced and not run, so it changes nothing.

    Raises:
        MissingSecondDerivativeError: As `require_second_derivatives`.
        MissingDerivativeError: As `differentiable_paths.require_independence`.
    """
    try:
        tf.function(step, autograph=False).get_concrete_function()
    except (MissingSecondDerivativeError, MissingDerivativeError):
        raise
    except Exception as error:
        if _is_refusal(error):
            return  # the step itself will raise the same error
        # The model may run eagerly because it cannot be traced.
        warnings.warn(
            "The second derivatives that the penalties need are not checked: the model runs "
            "eagerly only. A layer without them, such as bilinear resizing, would train with a "
            f"wrong gradient. Tracing the step failed with {type(error).__name__}: {error}",
            stacklevel=2,
        )


def _is_refusal(error: Exception) -> bool:
    """Whether an error is one that this package raises for wrong arguments."""
    frames = list(traceback.walk_tb(error.__traceback__))
    module = frames[-1][0].f_globals.get("__name__", "")
    return isinstance(error, ValueError) and module.split(".")[0] == "keras_gbr"


@contextmanager
def explained(model: Any) -> Iterator[None]:
    """Explains errors of TensorFlow that occur while gradients of penalties are taken.

    Raises:
        MissingSecondDerivativeError: In place of any other error.
    """
    try:
        yield
    except MissingSecondDerivativeError:
        raise
    except Exception as error:
        raise MissingSecondDerivativeError(
            f"The gradient of the loss and the penalties of model {model.name!r} cannot be taken: "
            "an operation of the model or the loss is at fault. Replace it, or take "
            'InputGradient(method="finite_difference"), which needs no second derivatives. '
            f"Received: {type(error).__name__}: {error}"
        ) from error


def require_second_derivatives(loss: Any, model: Any) -> None:
    """Searches the graph for missing second derivatives, see `keras_gbr.backend.contract`."""
    # A variable that is not known to be constant counts as trainable: better a false alarm.
    constants = {id(weight.value.handle) for weight in model.non_trainable_variables}
    graph = loss.graph
    variables = [inner for outer, inner in graph.captures if id(origin(outer)) not in constants]
    for calls in _missing(graph, [loss], [v for v in variables if v.dtype == tf.resource]):
        operation = calls[-1].type
        way = next(way for part, way in _WAYS_OUT.items() if re.search(part, operation))
        layer = _place(calls, model)
        raise MissingSecondDerivativeError(
            f"A penalty needs second derivatives, and TensorFlow has none for the operation "
            f"{_BACKWARD.split(operation)[0]} of {layer}. Replace it by {way}, or take "
            'InputGradient(method="finite_difference"), which needs none. '
            f"Received: {operation} without a gradient at {calls[-1].name}"
        )


def _missing(graph: Any, targets: Iterable[Any], sources: Iterable[Any]) -> Iterator[list[Any]]:
    """Finds the operations without a gradient on a path from `sources` to `targets`.

    Yields:
        A list: the calls of the functions around the operation, then the operation itself.
    """
    needed = needed_tensors(targets)
    dependent = {tensor.name for tensor in sources}
    for op in graph.get_operations():
        inputs = [tensor for tensor in op.inputs if tensor.name in dependent]
        if not inputs:
            continue
        outputs = [tensor for tensor in op.outputs if tensor.name in needed]
        if outputs and is_missing(op, inputs):
            yield [op]
        if op.type == "StopGradient":
            continue
        dependent |= {tensor.name for tensor in op.outputs if carries_gradient(tensor)}
        for body in _bodies(op) if outputs else ():
            for calls in _missing(body, *_ends(op, body, outputs, inputs)):
                yield [op, *calls]


def _bodies(op: Any) -> list[Any]:
    """The graphs of the functions that an operation calls."""
    graphs = [getattr(function, "graph", None) for function in called_functions(op)]
    return [graph for graph in graphs if graph is not None]


def _ends(op: Any, body: Any, outputs: list[Any], inputs: list[Any]) -> tuple[list[Any], list[Any]]:
    """Maps the outputs and inputs of a call to those of the called function."""
    if op.type in _LOOPS:
        # Any input of a loop may affect any output.
        return list(body.outputs), list(body.inputs)
    # The first input of a conditional is its condition.
    offset = len(op.inputs) - len(body.inputs)
    given = {tensor.name for tensor in inputs}
    pairs = zip(list(op.inputs)[offset:], body.inputs, strict=True)
    return (
        [body.outputs[tensor.value_index] for tensor in outputs],
        [inner for outer, inner in pairs if outer.name in given],
    )


def _place(calls: list[Any], model: Any) -> str:
    """The layer or loss that an operation belongs to, by the scopes in the names of its calls.

    An operation of a custom gradient has no scope. Its inputs are then followed back to the first
    one in a scope; gradients of other layers are not followed.
    """
    layers = {layer.name for layer in all_layers(model) if layer is not model}
    waiting, seen = list(calls[-1].inputs), {tensor.name for tensor in calls[-1].inputs}
    names = [call.name for call in calls]
    while True:
        scopes = [scope for name in names for scope in name.split("/")[:-1]]
        # When a scope is used again, it gets a number.
        plain = [re.sub(r"_\d+$", "", scope) for scope in scopes]
        if "compile_loss" in plain[:-1]:
            return f"loss {plain[plain.index('compile_loss') + 1]!r}"
        path = "/".join(dict.fromkeys(_layers_of(scopes, layers)))
        if path:
            return f"layer {path!r}" + ("" if names[0] == calls[0].name else " or what follows it")
        if not waiting:
            return f"model {model.name!r}"
        tensor = waiting.pop(0)
        is_forward = _TAPE not in tensor.name
        names = [tensor.name] if is_forward else []
        is_passed = is_forward or not _layers_of(tensor.name.split("/"), layers)
        new = [each for each in tensor.op.inputs if each.name not in seen and is_passed]
        seen |= {each.name for each in new}
        waiting.extend(new)


def _layers_of(scopes: list[str], layers: set[str]) -> list[str]:
    """The names of the layers that scopes belong to."""
    # Keras opens the scope of a layer twice, to build and to call it. The second has a number.
    candidates = ((re.sub(r"_\d+$", "", scope), scope) for scope in scopes)
    found = (next((name for name in pair if name in layers), None) for pair in candidates)
    return [name for name in found if name]
