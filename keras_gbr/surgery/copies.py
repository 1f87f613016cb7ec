"""Copies of single layers and operations."""

import inspect
import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any

import keras

from keras_gbr import _validation as check
from keras_gbr.surgery.state import children


def clone(
    layer: keras.Layer, edit: Callable[[dict[str, Any]], dict[str, Any]] = dict
) -> keras.Layer:
    """A new layer of the same configuration.

    Args:
        layer: The layer.
        edit: Takes the configuration, gives the one to use.

    Raises:
        ValueError: Keras cannot make one.
    """
    cls = type(layer)
    try:
        config = _config(layer)
        config = {**_unbuilt(edit(config)), **_lambdas(layer, config)}
        parameters = inspect.signature(cls.__init__).parameters
        if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
            # Keras adds these to every configuration, and not every constructor takes them.
            for name in {"trainable", "dtype"} - parameters.keys():
                config.pop(name, None)
        with keras.saving.custom_object_scope(_own_objects(layer)):
            # Keras takes a `Lambda` for untrusted, whatever it is made from.
            is_lambda = isinstance(layer, keras.layers.Lambda)
            new = cls(**config) if is_lambda else cls.from_config(config)
    except Exception as error:
        raise check.fail(
            f"Keras cannot copy {layer.name!r}: `{cls.__name__}.from_config(get_config())` fails "
            f"with {type(error).__name__}. Give the class a `get_config()` that returns the "
            "arguments of its constructor, and write functions in it with `def`, not `lambda`.",
            "layer",
            layer,
        ) from error
    _name_alike(layer, new)
    _check_is_new(layer, new)
    if new.dtype_policy != layer.dtype_policy:
        new.dtype_policy = layer.dtype_policy
    return new


def _name_alike(old: keras.Layer, new: keras.Layer) -> None:
    """Gives a copy the names of the layers inside, which a constructor may not fix."""
    new.name = old.name
    inner = children(old), children(new)
    if len(inner[0]) == len(inner[1]):
        for pair in zip(*inner, strict=True):
            _name_alike(*pair)


def _check_is_new(old: keras.Layer, new: keras.Layer) -> None:
    held = {id(part) for part in old._flatten_layers()}
    for part in new._flatten_layers():
        if id(part) in held:
            raise check.fail(
                f"`{type(old).__name__}.get_config()` must return layers serialized, by "
                "`keras.saving.serialize_keras_object(layer)`: a copy made from the layer "
                f"{part.name!r} itself would share it with the given model.",
                "layer",
                old,
            )


def _unbuilt(config: Any) -> Any:
    """A configuration by which no layer is built before it is called.

    Keras builds layers that have no `build` of their own without the layers inside them.
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
    """The user's classes and functions in a layer, by which Keras finds unregistered ones."""
    parts = layer._flatten_layers()
    functions = [value for part in parts for value in vars(part).values() if _is_function(value)]
    found = [type(part) for part in parts] + functions
    return {one.__name__: one for one in found if one.__module__.split(".")[0] != "keras"}


def _config(layer: keras.Layer) -> dict[str, Any]:
    with warnings.catch_warnings():
        # A `lambda` in a file is unsafe to load; here it stays in the process.
        warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
        return layer.get_config()


def _lambdas(layer: keras.Layer, config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a layer that are functions without a name, which none can be found by."""
    held = {key: vars(layer).get(key) for key in config}
    return {
        key: value
        for key, value in held.items()
        if _is_function(value)
        and (value.__name__ == "<lambda>" or isinstance(layer, keras.layers.Lambda))
    }


def _is_function(value: Any) -> bool:
    return isinstance(value, FunctionType)


def same_operation(old: keras.Operation) -> keras.Operation:
    """The same operation on tensors, with no memory of those that it was applied to.

    Not every operation has a configuration; none has a state.
    """
    new = object.__new__(type(old))
    vars(new).update(vars(old), _inbound_nodes=[], _outbound_nodes=[])
    return new
