"""Model -> new model. The given model is never touched."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gbr import _validation as check
from keras_gbr.layers import PACKAGE
from keras_gbr.measures import check_built
from keras_gbr.wrapping import Reparametrized


def strip(model: keras.Model) -> keras.Model:
    """The same function out of plain Keras layers.

    Every wrapper of this package is replaced by the layer inside it, with the kernel that the
    wrapper computed written into it once; a `GBRModel` becomes a `keras.Model`; regularizers
    and constraints of this package are dropped. The result gives the same outputs at the speed
    of a model that was plain from the start, and loads where this package is not installed.

    Layer names and all other weights are kept. The result is not compiled: its optimizer would
    hold the state of other variables.

    Args:
        model: A built functional or sequential model; nested ones included.

    Returns:
        A new `keras.Model` or `keras.Sequential`.

    Raises:
        ValueError: The model is not built; is subclassed, so that Keras cannot take it apart;
            or holds a wrapper of this package inside another layer.

    Example:

    ```python
    keras_gbr.strip(model).save("plain.keras")
    ```
    """
    check_built(model)
    _check_can_be_taken_apart(model)
    pairs: list[tuple[keras.Layer, keras.Layer]] = []

    def replace(layer: keras.Layer) -> keras.Layer:
        if isinstance(layer, keras.Model):
            return strip(layer)
        inner = layer.layer if isinstance(layer, Reparametrized) else layer
        plain = type(inner).from_config(
            _without_package({**inner.get_config(), "name": layer.name})
        )
        if isinstance(layer, keras.Layer):  # not an operation on tensors, such as slicing
            pairs.append((layer, plain))
        return plain

    if isinstance(model, keras.Sequential):
        stack = [replace(layer) for layer in model.layers]
        clone = keras.Sequential([_same_input(model.inputs[0]), *stack], name=model.name)
    else:
        inputs = keras.tree.map_structure(_same_input, model.input)
        clone = keras.models.clone_model(model, input_tensors=inputs, clone_function=replace)
        clone = keras.Model(inputs, clone.output, name=model.name)
    for layer, plain in pairs:
        plain.set_weights(_plain_weights(layer))
        plain.trainable = layer.trainable
    clone.trainable = model.trainable
    return clone


def _same_input(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """A new input like that of a model, under the name of its input layer."""
    name = tensor._keras_history.operation.name
    return keras.Input(
        batch_shape=tensor.shape, dtype=tensor.dtype, sparse=tensor.sparse, name=name
    )


def _check_can_be_taken_apart(model: keras.Model) -> None:
    is_functional = hasattr(model, "operations") or isinstance(model, keras.Sequential)
    if not is_functional:
        raise check.fail(
            "`model` must be functional or sequential: Keras cannot rebuild a subclassed one "
            "from its layers. Rebuild it in code with plain layers.",
            "model",
            type(model),
        )
    for layer in model.layers:
        if isinstance(layer, (Reparametrized, keras.Model)):
            continue
        hidden = [part for part in _sublayers(layer) if isinstance(part, Reparametrized)]
        if hidden:
            raise check.fail(
                f"Layer {layer.name!r} holds wrappers of keras_gbr that it hides from the model. "
                "Wrap from outside, or rebuild the layer in code.",
                "layers",
                [part.name for part in hidden],
            )


def _sublayers(layer: keras.Layer) -> list[keras.Layer]:
    return [part for child in layer._layers for part in [child, *_sublayers(child)]]


def _plain_weights(layer: keras.Layer) -> list[np.ndarray]:
    """The weights of a layer, those of a wrapped one with the kernel that it computes with."""
    if not isinstance(layer, Reparametrized):
        return layer.get_weights()
    return [
        ops.convert_to_numpy(layer.kernel if weight is layer.layer.kernel else weight.value)
        for weight in layer.layer.weights
    ]


def _without_package(config: dict[str, Any]) -> dict[str, Any]:
    """A layer's configuration without serialized objects of this package."""
    return {key: None if _is_ours(value) else value for key, value in config.items()}


def _is_ours(value: Any) -> bool:
    name = value.get("registered_name") if isinstance(value, dict) else None
    return isinstance(name, str) and name.startswith(f"{PACKAGE}>")
