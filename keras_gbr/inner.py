"""Reaches a tensor inside a model: what a layer gives to the layers after it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_gbr import _validation as check
from keras_gbr.precision import is_float
from keras_gbr.replacing import replaced


def layer_named(model: keras.Model, name: str) -> keras.Layer:
    """The layer of a model, at any depth, that `at=` names.

    Raises:
        ValueError: There is none, or more than one, of that name.
    """
    layers = list(dict.fromkeys(model._flatten_layers(include_self=False)))
    found = [layer for layer in layers if layer.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        expected = f"`at` must name one layer of model {model.name!r}; {len(found)} have this name."
    else:
        names = ", ".join(repr(layer.name) for layer in layers)
        expected = f"`at` must name a layer of model {model.name!r}, one of {names}."
    raise check.fail(expected, "at", name)


@contextmanager
def replaced_outputs(layer: keras.Layer, replace: Callable[[Any], Any]) -> Iterator[None]:
    """Puts a function between a layer and what comes after it, in this thread.

    Args:
        layer: The layer. Its mask and losses stay as they are.
        replace: Takes a floating-point output of the layer and returns a tensor like it. Called
            for each of them, in the order in which they are computed.
    """
    call = layer.call

    def hooked(*args: Any, **kwargs: Any) -> Any:
        return keras.tree.map_structure(
            lambda leaf: replace(leaf) if is_float(leaf) else leaf,
            call(*args, **kwargs),
            none_is_leaf=False,
        )

    with replaced(layer, {"call": hooked}):
        yield
