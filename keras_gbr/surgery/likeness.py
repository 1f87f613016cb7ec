"""Checks that a copy of a layer is like the original: `get_config` may leave something out."""

import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any

import keras

from keras_gbr._keras.layer_tree import all_layers, layers_of, own_variables
from keras_gbr._keras.transparent import Transparent, unwrapped

SIMPLE = (bool, int, float, str, type(None))
KNOWN = ("keras", "keras_gbr")
# The caller sets the name of a copy; Keras sets the other attributes.
NO_SETTINGS = ("name", "built", "use_cudnn", "build", "quantize", "call")


class UnlikeError(ValueError):
    """A copy differs from its original."""


def is_custom(layer: keras.Layer) -> bool:
    """Whether a layer holds layers or settings from outside of Keras and this package."""
    parts = all_layers(layer)
    return any(_is_own(part) for part in parts) or any(
        _is_own(value) for part in parts for value in vars(part).values() if _is_object(value)
    )


def check_like(old: keras.Layer, new: keras.Layer, again: Callable[[], keras.Layer]) -> None:
    """Compares a copy with its original: the settings and, once both are built, the shapes.

    Args:
        old: A layer.
        new: Its copy, not built.
        again: Makes another such copy, to be built.

    Raises:
        UnlikeError: The two differ.
    """
    _compare(old, new, started=False)
    if not old.built or not _builds_itself(new):
        return
    probe = again()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probe.build_from_config(old.get_build_config())
    _compare(old, probe, started=True)


def _builds_itself(layer: keras.Layer) -> bool:
    """Whether the shapes of the inputs suffice to build a layer, without calling it."""
    has_build = type(layer).build is not keras.Layer.build
    return has_build and not isinstance(layer, (keras.Model, Transparent))


def _compare(old: keras.Layer, new: keras.Layer, started: bool) -> None:
    if not isinstance(new, Transparent):
        old = unwrapped(old)
    _compare_settings(old.name, vars(old), vars(new), started)
    if started and new.built:
        shapes = [sorted(tuple(v.shape) for v in own_variables(layer)) for layer in (old, new)]
        if not isinstance(old, Transparent) and shapes[0] != shapes[1]:
            raise UnlikeError(
                f"the variables of {old.name!r} would be {shapes[1]}, not {shapes[0]}"
            )
    inner = layers_of(old), layers_of(new)
    # Layers that only `build` makes are unknown to a wrapper until then.
    if len(inner[0]) != len(inner[1]) and (new.built or _is_own(old)):
        raise UnlikeError(f"{old.name!r} would hold {len(inner[1])} layers, not {len(inner[0])}")
    if len(inner[0]) == len(inner[1]):
        for pair in zip(*inner, strict=True):
            if started and new.built and pair[0].variables and not pair[1].built:
                raise UnlikeError(f"`build` of {old.name!r} would leave {pair[0].name!r} unbuilt")
            _compare(*pair, started and pair[1].built)


def _compare_settings(
    owner: str, old: dict[str, Any], new: dict[str, Any], started: bool, depth: int = 0
) -> None:
    """Compares attributes that are numbers, strings, functions or objects made of these."""
    for name, value in old.items():
        if name.startswith("_") or name in NO_SETTINGS:
            continue
        if name not in new:
            if started and _is_simple(value):
                raise UnlikeError(f"{name!r} of {owner!r} would be missing")
            continue
        other = new[name]
        if not started and (other is None or (isinstance(other, list) and not other)):
            # `build` sets it.
            continue
        is_same = True
        if _is_simple(value) and _is_simple(other):
            is_same = value == other or value != value
        elif isinstance(value, FunctionType) and isinstance(other, FunctionType):
            is_same = value is other or (value.__code__ is other.__code__ and not value.__closure__)
        elif _is_object(value) and _is_own(value) and depth < 3:
            is_same = type(value) is type(other)
            if is_same:
                _compare_settings(f"{owner}.{name}", vars(value), vars(other), started, depth + 1)
        if not is_same:
            raise UnlikeError(f"{name!r} of {owner!r} would be {other!r}, not {value!r}")


def _is_simple(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_simple(part) for part in value)
    return isinstance(value, SIMPLE)


def _is_object(value: Any) -> bool:
    """Whether something is a setting of a layer such as an initializer, not a layer."""
    settings = (
        keras.initializers.Initializer,
        keras.regularizers.Regularizer,
        keras.constraints.Constraint,
    )
    return isinstance(value, settings)


def _is_own(value: Any) -> bool:
    return type(value).__module__.split(".")[0] not in KNOWN
