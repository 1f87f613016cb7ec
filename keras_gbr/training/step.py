"""What the train steps of all backends share."""

import warnings
from typing import Any, NamedTuple

import keras

from keras_gbr import backend
from keras_gbr._keras.calls import track_loss, training_loss
from keras_gbr.penalties import ForwardPass
from keras_gbr.training.compile_penalties import CompilePenalties


class StepLoss(NamedTuple):
    """The loss of a step.

    Attributes:
        forward: The forward pass of the step.
        total: The loss with its penalties, a scalar tensor.
        values: The loss and the unweighted penalties, scalar tensors, by the words that name them
            in errors.
    """

    forward: ForwardPass
    total: Any
    values: dict[str, Any]


def step_loss(model: Any, penalties: CompilePenalties, data: Any) -> StepLoss:
    """Runs the model on a batch and computes the loss with its penalties.

    Args:
        model: A `GBRMixin` model.
        penalties: Those that it was compiled with.
        data: The batch, as a train step gets it.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    forward = model.forward_pass(x, y, sample_weight, training=True)
    loss = training_loss(model, x, y, forward.y_pred, sample_weight)
    total, values = penalties(loss, forward)
    return StepLoss(forward, total, {"the loss": loss, **values})


def step_logs(model: Any, data: Any, loss: StepLoss) -> dict[str, Any]:
    """Updates the metrics after a step and returns their results."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    # The loss of a replica is its share of the whole.
    track_loss(model, loss.total * backend.num_replicas(), loss.forward.batch_size)
    return model.compute_metrics(x, y, loss.forward.y_pred, sample_weight=sample_weight)


def has_trainable_weights(model: Any) -> bool:
    """Whether the model has weights to update. If not, warns as Keras does."""
    if not model.trainable_weights:
        warnings.warn("The model does not have any trainable weights.", stacklevel=2)
    return bool(model.trainable_weights)
