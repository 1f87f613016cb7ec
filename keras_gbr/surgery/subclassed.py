"""Puts other layers into a model with a `call` of its own."""

import warnings
from collections.abc import Callable
from typing import Any

import keras

from keras_gbr import _checks as check
from keras_gbr._keras.attributes import forget_layers, with_layers
from keras_gbr._keras.layer_tree import children, is_built_from_graph

Replace = Callable[[keras.Layer], keras.Layer]


def check_class(model: keras.Model) -> None:
    """Refuses a model that is made from a graph but has a `call` of its own.

    Raises:
        ValueError: `model` has both a graph and a `call` of its own.
    """
    if is_built_from_graph(model):
        raise check.error(
            f"Model {model.name!r} must not have both a graph of layers and a `call` of its own, "
            "which the graph does not show. Without that `call` it is "
            "`keras.Model(model.input, model.output)`.",
            "model",
            type(model),
        )


def swapped(old: keras.Model, new: keras.Model, replace: Replace) -> keras.Model:
    """The copy of a model, with the layers in its attributes replaced, and built.

    Args:
        old: A built model.
        new: Its copy, built or not.
        replace: Takes a layer of `old`, returns the layer for `new`.

    Returns:
        `new`.

    Raises:
        ValueError: The model keeps a layer where it cannot be replaced, or cannot be built.
    """
    forget_layers(new)
    replaced: dict[int, keras.Layer] = {}

    def put(layer: keras.Layer) -> keras.Layer:
        replaced[id(layer)] = replace(layer)
        return replaced[id(layer)]

    for name, value in with_layers(old):
        setattr(new, name, _mapped(value, put))
    if not new.built:
        build_like(old, new)
    expected = {id(replaced.get(id(layer))) for layer in children(old)}
    if expected != {id(layer) for layer in children(new)}:
        raise check.error(
            f"Model {old.name!r} must create its layers in its constructor and keep them in "
            "attributes, or in lists and dicts there. Layers elsewhere cannot be replaced: write "
            "the changed layers into the code of the model instead.",
            "model",
            type(old),
        )
    return new


def build_like(old: keras.Model, new: keras.Model) -> None:
    """Builds a copy of a model as the original was built, as far as Keras noted that.

    Layers may be left unbuilt.
    """
    with warnings.catch_warnings():
        # Keras warns if it cannot. The layers are then built one by one.
        warnings.simplefilter("ignore")
        new.build_from_config(old.get_build_config())
    new.built = True


def cannot_build(layer: keras.Layer) -> ValueError:
    """The error for a layer that Keras cannot build from the shapes that it has noted."""
    return check.error(
        f"Layer {layer.name!r} cannot be built from the shapes that Keras noted when it was "
        "built. Give its class a `build(input_shape)`, or the model `get_build_config()` and "
        "`build_from_config()`.",
        "layer",
        layer,
    )


def _mapped(value: Any, replace: Replace) -> Any:
    """A structure of layers and other things with the layers replaced."""
    if isinstance(value, keras.Layer):
        return replace(value)
    if isinstance(value, dict):
        return {key: _mapped(part, replace) for key, part in value.items()}
    if isinstance(value, tuple):
        parts = [_mapped(part, replace) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, (list, set)):
        kind = list if isinstance(value, list) else set
        return kind(_mapped(part, replace) for part in value)
    return value
