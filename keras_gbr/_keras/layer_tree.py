"""The layers inside a model: how to walk over them, and whether it is built or is a graph."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from keras_gbr import _checks as check


def children(layer: keras.Layer) -> list[keras.Layer]:
    """The layers directly inside a layer or model: all that Keras tracks.

    They include the input layer of a `Sequential`, and layers in attributes of a functional model
    that its graph does not use.
    """
    return layer._layers


def layers_of(layer: keras.Layer) -> list[keras.Layer]:
    """The `layers` of a model, which it computes with; the `children` of any other layer."""
    return layer.layers if isinstance(layer, keras.Model) else children(layer)


def all_layers(layer: keras.Layer) -> list[keras.Layer]:
    """A layer or model and all layers inside it, at any depth, each once."""
    return layer._flatten_layers()


def walk(
    layer: keras.Layer,
    inside: Callable[[keras.Layer], Sequence[keras.Layer]] = children,
    path: str = "",
) -> Iterator[tuple[str, keras.Layer]]:
    """A layer or model and the layers inside it, at any depth, with the paths to them.

    Args:
        layer: The layer or model.
        inside: Takes a layer, returns the layers directly inside it to walk over.
        path: The path of the layer itself.

    Yields:
        Path and layer, the outer before the inner. A path is the name of the layer after those of
        the layers around it, joined by "/". A layer that is in two places comes twice.
    """
    yield path, layer
    for child in inside(layer):
        yield from walk(child, inside, f"{path}/{child.name}" if path else child.name)


def own_variables(layer: keras.Layer) -> list[Any]:
    """The variables that a layer holds itself, random state included, without the layers inside."""
    inherited = {id(variable) for child in children(layer) for variable in child.variables}
    return [variable for variable in layer.variables if id(variable) not in inherited]


def own_weights(layer: keras.Layer) -> list[Any]:
    """The weights of a layer itself that were created as trainable, even if the layer is frozen.

    A weight that the layer shares with a layer inside is among them.
    """
    return layer._trainable_variables


def check_built(model: Any) -> None:
    """Refuses a model without weights.

    Raises:
        ValueError: `model` is not a built `keras.Model`.
    """
    if not isinstance(model, keras.Model) or not model.built:
        raise check.error(
            "`model` must be a built `keras.Model`. Call it on a batch, or `model.build(shape)`, "
            "first.",
            "model",
            model,
        )


def is_graph(model: keras.Model) -> bool:
    """Whether the graph of its layers shows everything that a model computes."""
    owner = next(cls for cls in type(model).__mro__ if "call" in vars(cls))
    return is_built_from_graph(model) and comes_with_keras(owner)


def is_built_from_graph(layer: Any) -> bool:
    """Whether a model is functional or sequential, even if it overrides `call`."""
    return isinstance(layer, (keras.Function, keras.Sequential))


def comes_with_keras(thing: Any) -> bool:
    """Whether a class or function comes with Keras."""
    return thing.__module__.split(".")[0] == "keras"
