"""The losses that layers note when they are called: `add_loss` and activity regularizers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras

from keras_gbr._keras.layer_tree import all_layers


@contextmanager
def kept_losses(model: keras.Model) -> Iterator[None]:
    """Restores, at the end of the block, the losses that layers of a model noted before it."""
    noted = [(layer, list(layer._losses)) for layer in all_layers(model)]
    try:
        yield
    finally:
        for layer, losses in noted:
            layer._losses.clear()
            layer._losses.extend(losses)


def losses_of(layer: keras.Layer, losses: Sequence[Any]) -> list[Any]:
    """Those of `losses` that a layer has noted, within a scope that collects them."""
    return [loss for loss in losses if id(loss) in layer._loss_ids]


def note_again(layer: keras.Layer, losses: Sequence[Any]) -> None:
    """Lets a layer note the losses of a call whose scope is closed."""
    # The tensors of that call are gone, so a new tensor may have the `id` of one of them.
    layer._loss_ids.clear()
    if losses:
        layer.add_loss(losses)
