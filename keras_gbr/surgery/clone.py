"""Copies single layers and operations, by the first way that gives a true copy."""

import inspect
import warnings
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import keras

from keras_gbr import _checks as check
from keras_gbr._keras.attributes import stored
from keras_gbr._keras.layer_tree import all_layers, comes_with_keras, layers_of
from keras_gbr._keras.saved_config import constructor_arguments
from keras_gbr._keras.structural_copy import structural_copy
from keras_gbr.surgery.likeness import check_like, is_custom

Edit = Callable[[dict[str, Any]], dict[str, Any]]


def clone(
    layer: keras.Layer, edit: Edit = dict, replace: Callable[[Any], Any] = lambda part: part
) -> keras.Layer:
    """A new layer that computes the same, apart from its weights.

    It is made in the first of these ways that gives a true copy: `from_config` or the constructor
    with its configuration; Keras' serialization; the arguments of the constructor as Keras
    remembers them; a copy of the object itself, part by part. A copy made part by part is built and
    has the weights too.

    Args:
        layer: The layer.
        edit: Takes the configuration, returns the one to use.
        replace: As `edit`, for the objects that the layer holds.

    Raises:
        ValueError: No way gives a true copy.
    """
    errors = []
    for way in (_from_config, _from_functions, _reserialized, _from_constructor):
        try:
            new = _made(way, layer, edit)
            if not isinstance(layer, keras.Model) and is_custom(layer):
                check_like(layer, new, partial(_made, way, layer, edit))
        except Exception as error:
            errors.append(error)
            continue
        return new
    if isinstance(layer, keras.Model) and layer.compiled:
        raise _cannot_copy(layer, errors[0], "; and it is compiled") from errors[0]
    try:
        new = structural_copy(layer, replace)
    except Exception as error:
        raise _cannot_copy(layer, errors[0], f"; and copied part by part, {error}") from errors[0]
    _check_is_new(layer, new)
    return new


def _cannot_copy(layer: keras.Layer, error: Exception, also: str = "") -> ValueError:
    cls = type(layer).__name__
    reason = str(error).strip().split("\n")[0].rstrip(".")[:200]
    return check.error(
        f"Keras cannot copy {layer.name!r}: `{cls}.from_config(get_config())` fails with "
        f"{type(error).__name__}, {reason}{also}. Give the class a `get_config()` that returns the "
        "arguments of its constructor, and write functions in it with `def`, not `lambda`.",
        "layer",
        layer,
    )


def _made(way: Callable[..., keras.Layer], layer: keras.Layer, edit: Edit) -> keras.Layer:
    with keras.saving.custom_object_scope(_own_objects(layer)):
        new = way(layer, edit)
    if type(new) is not type(layer):
        raise TypeError(f"the configuration makes a {type(new).__name__}")
    _name_alike(layer, new)
    _check_is_new(layer, new)
    if new.dtype_policy != layer.dtype_policy:
        new.dtype_policy = layer.dtype_policy
    return new


def _from_config(layer: keras.Layer, edit: Edit) -> keras.Layer:
    if isinstance(layer, keras.layers.Lambda):
        raise TypeError("Keras does not trust a `Lambda`, whatever it is made from")
    config = _config(layer)
    config = {**_unbuilt(edit(config)), **_lambdas(layer, config)}
    return type(layer).from_config(_taken(type(layer), config))


def _from_functions(layer: keras.Layer, edit: Edit) -> keras.Layer:
    """By the constructor, where `from_config` takes only serialized functions."""
    config = _config(layer)
    lambdas = _lambdas(layer, config)
    if not lambdas:
        raise TypeError("the configuration holds no functions")
    return type(layer)(**_taken(type(layer), {**_unbuilt(edit(config)), **lambdas}))


def _reserialized(layer: keras.Layer, edit: Edit) -> keras.Layer:
    with warnings.catch_warnings():
        # Keras rightly refuses to make a layer from a `lambda`: it would lose its globals.
        warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
        serialized = keras.saving.serialize_keras_object(layer)
    config = _taken(type(layer), _unbuilt(edit(serialized["config"])))
    serialized = {**_unbuilt(serialized), "config": config}
    return keras.saving.deserialize_keras_object(serialized)


def _from_constructor(layer: keras.Layer, edit: Edit) -> keras.Layer:
    """By the arguments that Keras remembers, which are only numbers and strings."""
    arguments = constructor_arguments(layer)
    if arguments is None:
        raise TypeError("the constructor takes more than numbers and strings")
    return type(layer)(**edit(arguments))


def _taken(cls: type, config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that a constructor takes.

    Keras adds `name`, `trainable` and `dtype` to every configuration, but not every constructor
    takes them.
    """
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return config
    spare = {"name", "trainable", "dtype"} - parameters.keys()
    return {key: value for key, value in config.items() if key not in spare}


def _name_alike(old: keras.Layer, new: keras.Layer) -> None:
    """Gives a copy the names of the layers inside, which a constructor may not fix."""
    new.name = old.name
    inner = layers_of(old), layers_of(new)
    if len(inner[0]) == len(inner[1]):
        for pair in zip(*inner, strict=True):
            _name_alike(*pair)


def _check_is_new(old: keras.Layer, new: keras.Layer) -> None:
    held = {id(part) for part in all_layers(old)}
    for part in all_layers(new):
        if id(part) in held:
            raise check.error(
                f"`{type(old).__name__}.get_config()` must return layers serialized, by "
                "`keras.saving.serialize_keras_object(layer)`: a copy made from the layer "
                f"{part.name!r} itself would share it with the given model.",
                "layer",
                old,
            )


def _unbuilt(config: Any) -> Any:
    """A configuration without the shapes by which Keras would build layers before their call.

    Keras would build a layer without a `build` of its own, but not the layers inside it.
    """
    if isinstance(config, (list, tuple)):
        return type(config)(_unbuilt(part) for part in config)
    if not isinstance(config, dict):
        return config
    return {
        key: _unbuilt(part)
        for key, part in config.items()
        if not (key == "build_config" and "class_name" in config)
    }


def _own_objects(layer: keras.Layer) -> dict[str, Any]:
    """The user's classes and functions in a layer, so that Keras finds the unregistered ones."""
    parts = all_layers(layer)
    held = [value for part in parts for value in vars(part).values()]
    functions = [value for value in held if _is_function(value)]
    found = [type(value) for value in (*parts, *held) if hasattr(value, "get_config")] + functions
    return {one.__name__: one for one in found if not comes_with_keras(one)}


def _config(layer: keras.Layer) -> dict[str, Any]:
    with warnings.catch_warnings():
        # A `lambda` in a file is unsafe to load. This one stays in the process.
        warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
        return layer.get_config()


def _lambdas(layer: keras.Layer, config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a layer that are unnamed functions, which cannot be looked up by name."""
    held = {key: stored(layer, key) for key in config}
    return {
        key: value
        for key, value in held.items()
        if _is_function(value)
        and (value.__name__ == "<lambda>" or isinstance(layer, keras.layers.Lambda))
    }


def _is_function(value: Any) -> bool:
    return isinstance(value, FunctionType)
