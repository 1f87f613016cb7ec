"""The class probabilities that the outputs of a model stand for.

The graph of the model shows what an output holds: probabilities after a softmax or a sigmoid,
logits after linear layers. If the graph does not show it, the loss may, by its `from_logits`.
"""

from collections.abc import Hashable
from typing import Any

import keras
from keras import layers, ops

from keras_gbr._keras.layer_tree import comes_with_keras, is_graph
from keras_gbr._keras.symbolic import producer
from keras_gbr._keras.transparent import Transparent, unwrapped
from keras_gbr.maths.precision import at_least_float32

PROBABILITIES, LOGITS = "probabilities", "logits"

# Layers and operations that move numbers to another place, or leave some out.
_REARRANGING = (
    *("Reshape", "Flatten", "Permute", "RepeatVector", "Identity", "ActivityRegularization"),
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
    *("Cropping1D", "Cropping2D", "Cropping3D", "UpSampling1D", "UpSampling2D", "UpSampling3D"),
    *("Transpose", "Squeeze", "ExpandDims", "GetItem", "Cast", "Copy"),
)
# Those that average or join their inputs.
_AVERAGING = (
    *("Average", "Mean", "Concatenate", "GlobalAveragePooling1D", "GlobalAveragePooling2D"),
    *("GlobalAveragePooling3D", "AveragePooling1D", "AveragePooling2D", "AveragePooling3D"),
)
# Those that return logits if their inputs are logits.
_LINEAR = (
    *("Add", "Subtract", "Multiply", "TrueDivide", "Divide", "Negative", "Rescaling"),
    *("BatchNormalization", "LayerNormalization", "GroupNormalization"),
)


def probabilities(model: keras.Model, index: int, output: Any) -> Any:
    """The probabilities that an output of a model stands for.

    Args:
        model: The model.
        index: The number of the output, from 0.
        output: Tensor `(batch_size, ..., units)`.

    Returns:
        Tensor of the same shape, in at least single precision: the output itself if it holds
        probabilities; otherwise the softmax over the last axis, or the sigmoid if there is one
        unit or the loss is a binary crossentropy.

    Raises:
        ValueError: Neither the graph of the model nor its loss tells what the output holds.
    """
    loss = _loss_of(model, index)
    held = _held(model, index) or _expected(loss)
    if held is None:
        raise ValueError(
            f"Output {index} of model {model.name!r} may hold probabilities or logits: its graph "
            "does not end in a softmax, a sigmoid or a linear layer, and its loss has no "
            '`from_logits`. Write of="output" if the model ends in probabilities, of="softmax" or '
            'of="sigmoid" if it ends in logits; for of="label_probability" compile a crossentropy '
            f"with `from_logits`. Received: loss={loss!r}"
        )
    if held == PROBABILITIES:
        return at_least_float32(output)
    return activated("sigmoid" if output.shape[-1] == 1 or _is_binary(loss) else "softmax", output)


def activated(activation: str, output: Any) -> Any:
    """The `"softmax"` over the last axis or the `"sigmoid"`, in at least single precision."""
    output = at_least_float32(output)
    return ops.sigmoid(output) if activation == "sigmoid" else ops.softmax(output, axis=-1)


def what_decides(model: keras.Model) -> Hashable:
    """Everything that the meaning of the outputs depends on, to compare two states of a model."""
    losses = [_get(loss) for loss in _losses(model)]
    held = tuple(_held(model, index) for index in range(len(getattr(model, "outputs", None) or ())))
    return held, tuple((_expected(loss), _is_binary(loss)) for loss in losses)


def _held(model: keras.Model, index: int) -> str | None:
    """What an output holds, by the graph of the model; `None` if the graph does not show it."""
    if not is_graph(model) or not getattr(model, "outputs", None):
        return None
    return _held_by(model.outputs[index])


def _held_by(tensor: Any) -> str | None:
    call = producer(tensor)
    operation = unwrapped(call.operation, (Transparent, layers.TimeDistributed))
    if isinstance(operation, keras.Model):
        return _held(operation, call.output_index)
    if isinstance(operation, (layers.Softmax, layers.Activation)) or _name(operation) in (
        "Softmax",
        "Sigmoid",
    ):
        return _held_after(operation)
    inputs = call.inputs if operation is call.operation else []
    if _name(operation) in (*_REARRANGING, *_AVERAGING, *_LINEAR):
        found = {_held_by(each) for each in inputs}
        allowed = {LOGITS} if _name(operation) in _LINEAR else {LOGITS, PROBABILITIES}
        return found.pop() if len(found) == 1 and found <= allowed else None
    return _held_after(operation) if hasattr(operation, "activation") else None


def _held_after(operation: Any) -> str | None:
    """What a layer that has an activation, or is one, returns."""
    function = getattr(operation, "activation", operation)
    if function in (None, keras.activations.linear):
        return LOGITS
    known = (keras.activations.softmax, keras.activations.sigmoid, ops.softmax, ops.sigmoid)
    is_known = function in known or isinstance(function, layers.Softmax)
    return PROBABILITIES if is_known or _name(function) in ("Softmax", "Sigmoid") else None


def _name(operation: Any) -> str:
    """The class name of an operation of Keras; "" for any other, which may have the same name."""
    cls = type(operation)
    return cls.__name__ if comes_with_keras(cls) else ""


def _losses(model: keras.Model) -> list[Any]:
    return keras.tree.flatten(getattr(model, "loss", None))


def _loss_of(model: keras.Model, index: int) -> Any:
    """The compiled loss of an output, `None` if it has none or it is not known which."""
    loss = getattr(model, "loss", None)
    names = getattr(model, "output_names", None) or ()
    if isinstance(loss, dict) and index < len(names) and names[index] in loss:
        return _get(loss[names[index]])
    losses = _losses(model)
    if len(losses) == 1:
        return _get(losses[0])
    return _get(losses[index]) if isinstance(loss, (list, tuple)) and index < len(losses) else None


def _get(loss: Any) -> Any:
    return None if loss is None else keras.losses.get(loss)


def _expected(loss: Any) -> str | None:
    """What a crossentropy expects, by its `from_logits`; `None` for other losses."""
    from_logits: Any = getattr(loss, "from_logits", None)
    if from_logits is None and loss in _FUNCTIONS:
        from_logits = False
    return None if from_logits is None else (LOGITS if from_logits else PROBABILITIES)


def _is_binary(loss: Any) -> bool:
    return loss in _BINARY_FUNCTIONS or isinstance(loss, _BINARY)


_BINARY = (keras.losses.BinaryCrossentropy, keras.losses.BinaryFocalCrossentropy)
_BINARY_FUNCTIONS = (keras.losses.binary_crossentropy, keras.losses.binary_focal_crossentropy)
_FUNCTIONS = (
    *_BINARY_FUNCTIONS,
    keras.losses.categorical_crossentropy,
    keras.losses.categorical_focal_crossentropy,
    keras.losses.sparse_categorical_crossentropy,
)
