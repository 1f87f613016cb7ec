"""Figures of training runs and trained models, drawn by matplotlib, the extra `plots`.

Each function draws on `ax`, or on a new figure without it, and returns the `Axes`. Nothing is
shown or saved, and no setting of matplotlib is changed.
"""

from keras_gbr.plots.curves import gbr_curves, learning_curves
from keras_gbr.plots.kernels import kernel_norms
from keras_gbr.plots.landscape import loss_landscape

__all__ = ["gbr_curves", "kernel_norms", "learning_curves", "loss_landscape"]
