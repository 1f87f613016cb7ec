"""The functions of the outputs, one number a sample, whose gradients are penalised."""

import math
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_gbr import _checks as check
from keras_gbr._keras.per_sample_losses import require_separate_samples
from keras_gbr.penalties.forward_pass import ForwardPass
from keras_gbr.penalties.output_probabilities import probabilities

OF = ("loss", "label_probability", "output")


@dataclass(frozen=True)
class SampleValues:
    """A function of the outputs of a forward pass; equal ones share their pullback.

    Attributes:
        forward: The forward pass.
        of: `"loss"`, the compiled loss of each sample alone; `"label_probability"`, the
            probability of its label; or `"output"`, its only output number.
    """

    forward: ForwardPass
    of: str

    def __call__(self, y_pred: Any) -> Any:
        """The values of the samples.

        Args:
            y_pred: A structure like that of the forward pass.

        Returns:
            Tensor `(batch_size,)`.
        """
        if self.of == "loss":
            require_separate_samples(getattr(self.forward.model, "loss", None))
            return self.forward.losses(y_pred)
        if self.of == "output":
            return _only_numbers(self.forward, y_pred)
        return _label_probabilities(self.forward, y_pred)


def _only_numbers(forward: ForwardPass, y_pred: Any) -> Any:
    shapes = [tuple(output.shape) for output in forward.outputs]
    if len(shapes) != 1 or math.prod(size or 0 for size in shapes[0][1:]) != 1:
        raise check.error(
            'of="output" needs a model with one output number a sample. Use Jacobian for more.',
            "shapes of outputs",
            shapes,
        )
    return ops.reshape(keras.tree.flatten(y_pred)[0], (-1,))


def _label_probabilities(forward: ForwardPass, y_pred: Any) -> Any:
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


def _one_hot(y: Any, classes: int) -> Any:
    """Labels `(batch_size,)`, `(batch_size, 1)` or `(batch_size, classes)` as the last."""
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
