"""Functions of a model that are compiled once, however often a measure is called."""

import weakref
from collections.abc import Callable, Hashable
from typing import Any

import keras

from keras_gbr import backend

_functions: weakref.WeakKeyDictionary[keras.Model, dict[Hashable, "_Entry"]] = (
    weakref.WeakKeyDictionary()
)
# The variables that a function was traced with, and the function.
_Entry = tuple[list[Any], Callable[..., Any]]


def traced(model: keras.Model, key: Hashable, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(model, ...)` as a compiled function of its other arguments.

    It is kept as long as the model lives, and compiled anew when the model has other variables.
    Other changes of a model have no effect on a compiled function, as with `model.predict`. A
    model that runs eagerly is not compiled.

    Args:
        model: A built model.
        key: Identifies `function`: the name of the measure and the settings that it depends on.
        function: Takes the model and tensors, returns tensors. It must not hold the model.

    Returns:
        A function of tensors.
    """
    # A weak reference. Otherwise the compiled function would keep the key of its own entry alive.
    reference = weakref.ref(model)

    def call(*args: Any) -> Any:
        return function(reference(), *args)

    if model.run_eagerly:
        return call
    entries = _functions.setdefault(model, {})
    variables = model.variables
    if key not in entries or not _same(entries[key][0], variables):
        entries[key] = (variables, backend.compiled(call, model))
    return entries[key][1]


def compiled(function: Callable[..., Any], model: keras.Model) -> Callable[..., Any]:
    """Compiles a function that reads a model, unless the model runs eagerly. It is not kept."""
    return function if model.run_eagerly else backend.compiled(function, model)


def _same(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))
