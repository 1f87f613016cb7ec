"""The gradient of the loss, or of the label's probability, with respect to the input."""

from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_gbr import _validation as check
from keras_gbr.forward_pass import ForwardPass, squared_norms
from keras_gbr.penalties.base import Penalty
from keras_gbr.penalties.probabilities import probabilities


@keras.saving.register_keras_serializable("keras_gbr")
class InputGradient(Penalty):
    r"""Penalises the squared Euclidean norm of the gradient with respect to the input.

    With `of="loss"` its value is the mean over the samples of $\|\partial \ell_b / \partial
    x_b\|^2$ ("double backpropagation"), $\ell_b$ the compiled loss of sample $b$ alone: all
    outputs with their loss weights, without activity regularizers and `add_loss` terms, further
    axes of the loss averaged. It depends neither on the batch size nor on the reduction of the
    loss. With `of="label_probability"` it is the mean of $\|\partial p_b / \partial x_b\|^2$,
    $p_b$ the probability of the true label.

    Several inputs count as one vector; integer inputs are left out. Sample and class weights
    weight the mean as they weight that of the loss.

    Batch normalisation in training mode couples the samples of a batch: the gradient of a
    sample's loss then includes its effect through the statistics of the others.

    Args:
        weight: Float >= 0 or a `LearningRateSchedule`; see `Penalty`.
        of: `"loss"` or `"label_probability"`. The latter needs one output `(batch_size,
            classes)`, of logits unless the compiled loss takes probabilities, or
            `(batch_size, 1)` for two classes, and labels that are integers `(batch_size,)` or
            `(batch_size, 1)`, or shaped as the output.
        name: Name of the metric.

    Raises:
        ValueError: An argument is out of its range; the model is compiled without a loss; it
            has no floating-point input; or the labels do not fit.

    Example:

    ```python
    model.compile("sgd", "mse", penalties=[keras_gbr.InputGradient(0.05)])
    ```

    Reference:
        Drucker & LeCun 1992, "Improving Generalization Performance Using Double
        Backpropagation"; Li, Chen & Yang, theorem 2 (the label's probability).
    """

    default_name = "input_gradient"
    needs_loss = True

    def __init__(
        self, weight: float | LearningRateSchedule, of: str = "loss", name: str | None = None
    ) -> None:
        super().__init__(weight, name)
        self.of = check.choice("of", of, ("loss", "label_probability"))
        self.needs_loss = self.of == "loss"

    def __call__(self, forward: ForwardPass) -> Any:
        def total(y_pred: Any) -> Any:
            # The sum, not the mean: each sample's gradient is that of its own loss.
            values = forward.losses if self.of == "loss" else _label_probabilities(forward)
            return ops.sum(values(y_pred))

        return squared_norms(forward.input_gradients(total))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "of": self.of}


def _label_probabilities(forward: ForwardPass) -> Any:
    output = forward.outputs[0]
    if len(forward.outputs) != 1 or len(output.shape) != 2:
        raise ValueError(
            'InputGradient(of="label_probability") needs a model with one output of shape '
            '(batch_size, classes). Use of="loss". Received: outputs of shapes '
            f"{[tuple(output.shape) for output in forward.outputs]}"
        )
    labels = _one_hot(forward.y, output)

    def values(y_pred: Any) -> Any:
        probability = probabilities(forward, keras.tree.flatten(y_pred)[0])
        if output.shape[1] == 1:
            probability = ops.concatenate([1 - probability, probability], axis=1)
        return ops.sum(ops.cast(labels, probability.dtype) * probability, axis=1)

    return values


def _one_hot(y: Any, output: Any) -> Any:
    """Labels `(batch_size,)`, `(batch_size, 1)` or `(batch_size, classes)` as the last."""
    shapes = [tuple(leaf.shape) for leaf in keras.tree.flatten(y) if leaf is not None]
    classes = output.shape[1]
    if len(shapes) == 1:
        (label,) = (leaf for leaf in keras.tree.flatten(y) if leaf is not None)
        if shapes[0][1:] in ((), (1,)):
            return ops.one_hot(ops.reshape(ops.cast(label, "int32"), (-1,)), max(classes, 2))
        if shapes[0][1:] == (classes,):
            return label
    raise ValueError(
        'InputGradient(of="label_probability") needs labels of shape (batch_size,), '
        f"(batch_size, 1) or (batch_size, {classes}). Received: labels of shapes {shapes}"
    )
