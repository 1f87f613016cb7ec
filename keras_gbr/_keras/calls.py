"""What a train step calls of a model: methods without an argument of Keras, the metric "loss"."""

from typing import Any

import keras


def call(model: keras.Model, x: Any, training: bool) -> Any:
    """The outputs of a model, in training mode or not, if its `call` knows the difference."""
    if "training" in model.call_signature_parameters:
        return model(x, training=training)
    return model(x)


def training_loss(model: keras.Model, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> Any:
    """The loss of a batch by `compute_loss`, which may know nothing of `training`."""
    return model._compute_loss(x, y, y_pred, sample_weight, training=True)


def track_loss(model: keras.Model, loss: Any, count: Any) -> None:
    """Updates the metric "loss" of a compiled model by the mean loss of `count` samples."""
    model._loss_tracker.update_state(loss, sample_weight=count)
