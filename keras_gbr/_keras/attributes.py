"""The attributes of layers: where Keras keeps what it shows under another name."""

from collections.abc import Iterator
from typing import Any

import keras

from keras_gbr._keras.layer_tree import children


def stored_name(layer: keras.Layer, name: str) -> str:
    """The instance attribute behind what a layer shows as `name`.

    `kernel` is a read-only property on some layers, the attribute itself on others.
    """
    return name if name in vars(layer) else f"_{name}"


def stored(layer: keras.Layer, name: str) -> Any:
    """The value of the instance attribute behind what a layer shows as `name`, or `None`."""
    return vars(layer).get(stored_name(layer, name))


def with_layers(model: keras.Model) -> list[tuple[str, Any]]:
    """The attributes of a model that hold layers, in the order in which it got the layers.

    Returns:
        Their names and values: layers, or structures of them.
    """
    # PyTorch keeps layers apart from the other attributes.
    held = {**vars(model), **getattr(model, "_modules", {})}
    order = [id(layer) for layer in children(model)]
    found = []
    for name, value in held.items():
        # Keras, TensorFlow and PyTorch make these records from the other attributes.
        if name not in ("_layers", "_modules") and not name.startswith("_self_"):
            places = [order.index(id(layer)) for layer in _layers_in(value) if id(layer) in order]
            if places:
                found.append((min(places), name, value))
    return [(name, value) for _, name, value in sorted(found, key=lambda each: each[0])]


def _layers_in(value: Any) -> Iterator[keras.Layer]:
    if isinstance(value, keras.Layer):
        yield value
    elif isinstance(value, (dict, list, tuple, set)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _layers_in(part)


def forget_layers(model: keras.Model) -> None:
    """Makes a model forget the layers that it tracks. It can then take others, even if built."""
    model._tracker.unlock()
    for layer in list(children(model)):
        model._tracker.untrack(layer)
