"""Turns a model back into plain Keras layers."""

from typing import Any

import keras

from keras_gbr import _checks as check
from keras_gbr._keras.layer_tree import all_layers
from keras_gbr._keras.transparent import Transparent, unwrapped
from keras_gbr.regularizers import PACKAGE
from keras_gbr.surgery.clone import clone
from keras_gbr.surgery.rebuild import rebuilt
from keras_gbr.training.model import GBRModel


def strip(model: keras.Model) -> keras.Model:
    """Makes a new model of plain Keras layers that computes the same function.

    Every wrapper of this package is replaced by the layer inside it, and the kernels that the
    wrapper computed are written into that layer once. A `GBRModel` becomes a `keras.Model`.
    Regularizers and constraints of this package are dropped. The result gives the same outputs,
    is as fast as a model that was plain from the start, and loads where this package is not
    installed.

    Layer names, `trainable` flags and all other weights are kept. The given model is not touched
    and shares nothing with the result. The result is not compiled: an optimizer would hold the
    state of other variables.

    A subclassed model keeps its class, and needs this package if that class does.

    Args:
        model: A built model: functional, sequential, or a subclassed one that Keras can copy
            (`get_config`). Models in it are stripped as well.

    Returns:
        A new `keras.Model` or `keras.Sequential`; for a subclassed model, one of its class.

    Raises:
        ValueError: The model is not built, cannot be copied, or has a layer that creates a
            wrapper of this package in its code.

    Example:

    ```python
    constrained = keras_gbr.apply_enc(model)
    plain = keras_gbr.strip(constrained)
    plain.save("plain.keras")  # loads without keras_gbr
    a, b = (each.predict(x_val, verbose=0) for each in (constrained, plain))
    np.testing.assert_allclose(a, b, atol=1e-5)
    ```
    """
    return rebuilt(model, _plain, lambda model, plain: plain)


def _plain(layer: keras.Layer) -> tuple[keras.Layer, keras.Layer]:
    plain = clone(unwrapped(layer), _without_package, _plain_object)
    plain.name = layer.name
    hidden = [part.name for part in all_layers(plain) if isinstance(part, Transparent)]
    if hidden:
        raise check.error(
            f"Layer {layer.name!r} must not create wrappers of keras_gbr in its code: they "
            "cannot be taken out. Wrap the layer from outside, or give it the wrapped layer as "
            "an argument that its `get_config()` returns.",
            "layers",
            hidden,
        )
    return plain, plain


def _plain_object(value: Any) -> Any:
    """The replacement of a part of a layer, without anything of this package."""
    value = unwrapped(value)
    is_setting = isinstance(value, (keras.regularizers.Regularizer, keras.constraints.Constraint))
    is_of_package = type(value).__module__.split(".")[0] == __name__.split(".")[0]
    return None if is_setting and is_of_package else value


def _without_package(value: Any) -> Any:
    """A configuration without anything of this package."""
    if isinstance(value, (list, tuple)):
        return type(value)(_without_package(part) for part in value)
    if not isinstance(value, dict):
        return value
    name = value.get("registered_name")
    cls = keras.saving.get_registered_object(name) if isinstance(name, str) else None
    if isinstance(cls, type) and issubclass(cls, Transparent):
        inner = value["config"]["layer"]
        config = {**inner["config"], "name": value["config"]["name"]}
        return _without_package({**value, **inner, "config": config})
    if cls is GBRModel:
        plain = {"module": "keras", "class_name": "Model", "registered_name": None}
        return _without_package({**value, **plain, "compile_config": None})
    if isinstance(name, str) and name.startswith(f"{PACKAGE}>"):
        return None
    return {key: _without_package(part) for key, part in value.items()}
