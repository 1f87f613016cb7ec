"""The functions of the outputs, one number per sample, whose gradients are penalised.

Each is called as `function(forward, y_pred)`, see `ForwardPass`, and returns `(batch_size,)`.
"""

import math
from typing import Any

import keras
from keras import ops

from keras_gbr import _checks as check
from keras_gbr._keras.per_sample_losses import require_separate_samples
from keras_gbr.penalties.forward_pass import ForwardPass, OutputFunction
from keras_gbr.penalties.output_probabilities import probabilities


def sample_losses(forward: ForwardPass, y_pred: Any) -> Any:
    """The compiled loss of each sample alone.

    Raises:
        ValueError: The loss of a sample depends on the other samples.
    """
    require_separate_samples(getattr(forward.model, "loss", None))
    return forward.losses(y_pred)


def label_probabilities(forward: ForwardPass, y_pred: Any) -> Any:
    """The probability of the label of each sample.

    Raises:
        ValueError: The model does not have one output `(batch_size, classes)`, or the labels do
            not fit.
    """
    shapes = [tuple(output.shape) for output in forward.outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise check.error(
            'of="label_probability" needs a model with one output of shape (batch_size, '
            'classes). Use of="loss".',
            "shapes of outputs",
            shapes,
        )
    probability = probabilities(forward.model, 0, keras.tree.flatten(y_pred)[0])
    if shapes[0][1] == 1:
        probability = ops.concatenate([1 - probability, probability], axis=1)
    labels = _one_hot(forward.y, shapes[0][1])
    return ops.sum(ops.cast(labels, probability.dtype) * probability, axis=1)


def single_outputs(forward: ForwardPass, y_pred: Any) -> Any:
    """The output of each sample, which must be one number.

    Raises:
        ValueError: The model has another number of outputs.
    """
    shapes = [tuple(output.shape) for output in forward.outputs]
    if len(shapes) != 1 or math.prod(size or 0 for size in shapes[0][1:]) != 1:
        raise check.error(
            'of="output" needs a model with one output number per sample. Use Jacobian for more.',
            "shapes of outputs",
            shapes,
        )
    return ops.reshape(keras.tree.flatten(y_pred)[0], (-1,))


# By the argument `of` of a penalty.
OUTPUT_FUNCTIONS: dict[str, OutputFunction] = {
    "loss": sample_losses,
    "label_probability": label_probabilities,
    "output": single_outputs,
}


def _one_hot(y: Any, classes: int) -> Any:
    """Labels as `(batch_size, classes)`, from that, `(batch_size,)` or `(batch_size, 1)`."""
    labels = [leaf for leaf in keras.tree.flatten(y) if leaf is not None]
    shapes = [tuple(label.shape) for label in labels]
    if len(labels) == 1:
        if shapes[0][1:] in ((), (1,)):
            return ops.one_hot(ops.reshape(ops.cast(labels[0], "int32"), (-1,)), max(classes, 2))
        if shapes[0][1:] == (classes,):
            return labels[0]
    raise check.error(
        'of="label_probability" needs labels of shape (batch_size,), (batch_size, 1) or '
        f"(batch_size, {classes}).",
        "shapes of labels",
        shapes,
    )
