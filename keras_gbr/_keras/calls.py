"""What a train step calls on a model: methods that may not take `training`, the metric "loss"."""

from typing import Any

import keras


def call(model: keras.Model, x: Any, training: bool) -> Any:
    """The outputs of a model. `training` is passed on if its `call` takes it."""
    if "training" in model.call_signature_parameters:
        return model(x, training=training)
    return model(x)


def training_loss(model: keras.Model, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> Any:
    """The loss of a batch by `compute_loss`, which may not take `training`."""
    return model._compute_loss(x, y, y_pred, sample_weight, training=True)


def track_loss(model: keras.Model, loss: Any, count: Any) -> None:
    """Updates the metric "loss" of a compiled model with the mean loss of `count` samples."""
    model._loss_tracker.update_state(loss, sample_weight=count)
