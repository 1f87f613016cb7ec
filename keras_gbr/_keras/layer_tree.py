"""What is known of a model before it runs: whether it is built, and whether it is a graph."""

from typing import Any

import keras

from keras_gbr import _checks as check


def check_built(model: Any) -> None:
    """Refuses a model without weights.

    Raises:
        ValueError: `model` is no built `keras.Model`.
    """
    if not isinstance(model, keras.Model) or not model.built:
        raise check.error(
            "`model` must be a built `keras.Model`. Call it on a batch, or `model.build(shape)`, "
            "first.",
            "model",
            model,
        )


def is_graph(model: keras.Model) -> bool:
    """Whether the layers and connections are all there is to know about how a model computes."""
    owner = next(cls for cls in type(model).__mro__ if "call" in vars(cls))
    is_built_up = isinstance(model, (keras.Function, keras.Sequential))
    return is_built_up and owner.__module__.split(".")[0] == "keras"
