"""What tests read from figures, and a small run to draw."""

import keras
import matplotlib
import numpy as np

import keras_gbr as gbr
from support.networks import batch, dense_network, logits_loss

matplotlib.use("Agg")


def lines(ax):
    """The lines of an axes as lists x and y, by labels."""
    return {line.get_label(): tuple(map(list, line.get_data())) for line in ax.get_lines()}


def legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def ink(ax):
    """The share of the pixels of the figure that are not background."""
    ax.figure.canvas.draw()
    pixels = np.asarray(ax.figure.canvas.buffer_rgba())[..., :3]
    return float((pixels != 255).any(axis=-1).mean())


def trained(epochs=2):
    """A compiled classifier of five features, and what `fit` returned."""
    model = dense_network()
    model.compile(keras.optimizers.SGD(0.3), logits_loss(), metrics=["accuracy"])
    x, y = batch((5,), samples=32)
    history = model.fit(
        x, y, epochs=epochs, validation_split=0.5, verbose=0, callbacks=[gbr.GBRMonitor(x)]
    )
    return model, history
