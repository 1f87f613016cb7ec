"""Figures of training runs and trained models. They need matplotlib, the extra `plots`.

Each function draws on `ax`, or on a new figure if there is none, and returns the `Axes`. It shows
and saves nothing, and changes no setting of matplotlib.
"""

from keras_gbr.plots.curves import gbr_curves, learning_curves
from keras_gbr.plots.kernels import kernel_norms
from keras_gbr.plots.landscape import loss_landscape

__all__ = ["gbr_curves", "kernel_norms", "learning_curves", "loss_landscape"]
