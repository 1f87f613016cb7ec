"""Copies the state of a layer: weights, random state, vocabularies and flags."""

from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

import keras
from keras import ops

from keras_gbr import _checks as check
from keras_gbr._keras.layer_tree import layers_of, own_variables
from keras_gbr._keras.transparent import Transparent, unwrapped, wrappers_of
from keras_gbr.kernels import kernels_of
from keras_gbr.layers.reparametrized import Reparametrized


def copy_state(source: keras.Layer, target: keras.Layer) -> None:
    """Copies the state of a built layer, and of the layers inside it, to its copy.

    If `source` is a wrapper of this package and `target` the layer inside it, `target` gets the
    kernels that the wrapper computes with.

    Args:
        source: A built layer.
        target: A built layer of the same configuration, apart from wrappers of this package.

    Raises:
        ValueError: The two do not have the same layers and variables.
    """
    wrappers = [] if isinstance(target, Transparent) else wrappers_of(source)
    source = unwrapped(source) if wrappers else source
    # The flag goes down to all inner layers, so it is set before theirs.
    target.trainable = all(layer.trainable for layer in (*wrappers, source))
    copy_own_state(source, target)
    for pair in _aligned(source, layers_of(source), layers_of(target)):
        copy_state(*pair)
    for wrapper in wrappers:
        if isinstance(wrapper, Reparametrized):
            for raw, value in zip(kernels_of(target), wrapper.kernels.values(), strict=True):
                raw.variable.assign(value)


def copy_own_state(source: keras.Layer, target: keras.Layer) -> None:
    """`copy_state` without the layers inside."""
    for old, new in _matched(source, own_variables(source), own_variables(target)):
        if tuple(old.shape) != tuple(new.shape):
            raise _unlike(source, tuple(old.shape), tuple(new.shape))
        # A copy: under JAX two variables may hold one array, and training one of them deletes it.
        new.assign(ops.copy(old.value))
        if new.trainable != old.trainable:
            new.trainable = old.trainable
    if hasattr(source, "use_cudnn"):  # not in the configuration
        target.use_cudnn = source.use_cudnn
    if hasattr(source, "save_assets"):  # an adapted vocabulary
        with TemporaryDirectory() as folder:
            source.save_assets(folder)
            target.load_assets(folder)
    if hasattr(target, "finalize_state"):  # what a preprocessing layer derives from its weights
        target.finalize_state()


def _matched(layer: keras.Layer, old: Sequence[Any], new: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Pairs variables by name, or by order if two have the same name.

    The order may differ: a layer that is quantized later has its variables in another order than
    one that is built quantized.
    """
    by_name = {variable.name: variable for variable in new}
    if len(by_name) == len(new) and by_name.keys() == {variable.name for variable in old}:
        new = [by_name[variable.name] for variable in old]
    return _aligned(layer, old, new)


def _aligned(layer: keras.Layer, old: Sequence[Any], new: Sequence[Any]) -> list[tuple[Any, Any]]:
    if len(old) != len(new):
        raise _unlike(layer, *([part.name for part in parts] for parts in (old, new)))
    return list(zip(old, new, strict=True))


def _unlike(layer: keras.Layer, expected: Any, found: Any) -> ValueError:
    return check.error(
        f"The configuration of layer {layer.name!r} must describe all of it: a copy that was "
        f"made from `get_config()` has {found} in place of {expected}. Complete `get_config()`.",
        "layer",
        layer,
    )
