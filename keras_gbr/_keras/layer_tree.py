"""The layers inside of a model: the one walk over them, and what is known before it runs."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from keras_gbr import _checks as check


def children(layer: keras.Layer) -> list[keras.Layer]:
    """The layers directly inside of a layer or model: all that Keras tracks.

    They include the input layer of a `Sequential`, and layers in attributes of a functional model
    that its graph does not use.
    """
    return layer._layers


def layers_of(layer: keras.Layer) -> list[keras.Layer]:
    """Those of a model that it computes with, its `layers`; of another layer its `children`."""
    return layer.layers if isinstance(layer, keras.Model) else children(layer)


def all_layers(layer: keras.Layer) -> list[keras.Layer]:
    """A layer or model and all layers inside of it, at any depth, each once."""
    return layer._flatten_layers()


def walk(
    layer: keras.Layer,
    inside: Callable[[keras.Layer], Sequence[keras.Layer]] = children,
    path: str = "",
) -> Iterator[tuple[str, keras.Layer]]:
    """A layer or model and the layers inside of it, at any depth, with the paths to them.

    Args:
        layer: The layer or model.
        inside: The layers directly inside of one; an empty list where the walk is not to go on.
        path: The path of the layer itself.

    Yields:
        Path and layer, the outer before the inner. A path is the names of what the layer is in
        and its own, joined by "/". A layer that is in two places comes twice.
    """
    yield path, layer
    for child in inside(layer):
        yield from walk(child, inside, f"{path}/{child.name}" if path else child.name)


def own_variables(layer: keras.Layer) -> list[Any]:
    """All state that a layer itself holds, and no layer inside, that of random generators too."""
    inherited = {id(variable) for child in children(layer) for variable in child.variables}
    return [variable for variable in layer.variables if id(variable) not in inherited]


def own_weights(layer: keras.Layer) -> list[Any]:
    """The weights in attributes of a layer that were made to be trained, also where it is frozen.

    A weight that the layer shares with one inside is among them.
    """
    return layer._trainable_variables


def check_built(model: Any) -> None:
    """Refuses a model without weights.

    Raises:
        ValueError: `model` is no built `keras.Model`.
    """
    if not isinstance(model, keras.Model) or not model.built:
        raise check.error(
            "`model` must be a built `keras.Model`. Call it on a batch, or `model.build(shape)`, "
            "first.",
            "model",
            model,
        )


def is_graph(model: keras.Model) -> bool:
    """Whether the layers and connections are all there is to know about how a model computes."""
    owner = next(cls for cls in type(model).__mro__ if "call" in vars(cls))
    return is_built_from_graph(model) and comes_with_keras(owner)


def is_built_from_graph(layer: Any) -> bool:
    """Whether a model is functional or sequential, whatever its `call` does."""
    return isinstance(layer, (keras.Function, keras.Sequential))


def comes_with_keras(thing: Any) -> bool:
    """Whether a class or function is one of Keras."""
    return thing.__module__.split(".")[0] == "keras"
