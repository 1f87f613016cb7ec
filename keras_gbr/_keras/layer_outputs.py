"""Reaches a tensor inside a model: what a layer gives to the layers after it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_gbr import _checks as check
from keras_gbr._keras.layer_tree import layers_of, walk
from keras_gbr._keras.patching import replaced
from keras_gbr._keras.transparent import unwrapped, wrappers_of
from keras_gbr.maths.precision import is_float


def layer_at(model: keras.Model, at: str | keras.Layer) -> keras.Layer:
    """The layer of a model, at any depth, that `at=` stands for.

    If a wrapper of this package has the name of the layer inside it, the name means the wrapper.

    Args:
        model: The model.
        at: The layer, or its name, or its path: its name after those of the layers around it.

    Raises:
        ValueError: No layer, or more than one, has that name.
    """
    paths = _paths(model)
    if isinstance(at, keras.Layer):
        if not any(layer is at for layer in paths.values()):
            raise check.error(f"`at` must be a layer of model {model.name!r}.", "at", at)
        return at
    found = {path: layer for path, layer in paths.items() if f"/{path}".endswith(f"/{at}")}
    layers = list({id(layer): layer for layer in found.values()}.values())
    if len(layers) == 1:
        return layers[0]
    if layers:
        expected = (
            f"`at` must name one layer of model {model.name!r}; {len(layers)} have this name. "
            f"Give the layer itself, or one of the paths {check.quoted(found)}."
        )
    else:
        near = check.closest(at, [*paths, *(path.rsplit("/", 1)[-1] for path in paths)])
        expected = (
            f"`at` must name a layer or an input of model {model.name!r}. The closest names are "
            f"{check.quoted(near)}."
        )
    raise check.error(expected, "at", at)


def _paths(model: keras.Model) -> dict[str, keras.Layer]:
    """The layers inside a model by their paths.

    A wrapper and the layer inside it are one entry if they have the same name.
    """
    found = {}
    inside = walk(model, lambda part: layers_of(unwrapped(part)))
    next(inside)  # the model itself
    for path, layer in inside:
        found[path] = layer
        for wrapper in wrappers_of(layer):
            if wrapper.layer.name != layer.name:
                found[f"{path}/{wrapper.layer.name}"] = wrapper.layer
    return found


def input_index(model: keras.Model, x: Any, at: Any) -> int | None:
    """The place, in the flat inputs, of the input that `at=` names; `None` if it names no input.

    Args:
        model: The model.
        x: The inputs of a batch: a tensor, or a list or dict of them.
        at: As `layer_at`; or the key in a dict of inputs, or the name of a `keras.Input`.
    """
    name = at.name if isinstance(at, keras.layers.InputLayer) else at
    if isinstance(name, keras.Layer):
        return None
    paths = [path for path, leaf in keras.tree.flatten_with_path(x) if leaf is not None]
    names = ["/".join(map(str, path)) for path in paths]
    if not isinstance(x, dict):
        names = [tensor.name for tensor in getattr(model, "inputs", None) or ()]
    return names.index(name) if name in names else None


def require_batched(at: Any, tensor: Any, batch: Any) -> None:
    """Refuses a tensor inside a model if its first axis is not that of the batch.

    Args:
        at: As `layer_at`, for the message.
        tensor: The output of the layer.
        batch: An input of the model.

    Raises:
        ValueError: The first axes of `tensor` and `batch` have different lengths.
    """
    rows, size = (tuple(each.shape)[:1] or (0,) for each in (tensor, batch))
    if rows != size and (rows[0] in (0, 1) or None not in (rows[0], size[0])):
        raise check.error(
            "`at` must name a layer whose output has the samples of the batch along its first "
            f"axis, {size[0] or 'as many as there are'} of them: gradients are taken for each "
            f"sample. Name a layer after {getattr(at, 'name', at)!r}.",
            "shape of its output",
            tuple(tensor.shape),
        )


@contextmanager
def replaced_outputs(layer: keras.Layer, replace: Callable[[Any], Any]) -> Iterator[None]:
    """Puts a function between a layer and the layers after it, in this thread.

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
