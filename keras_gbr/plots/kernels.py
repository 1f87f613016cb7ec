"""The figure of kernel norms."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_gbr import _checks as check
from keras_gbr import measures
from keras_gbr.plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The share of the space of a layer that its bars fill, and the inches per bar.
_FILLED = 0.8
_INCHES = 0.16


def kernel_norms(
    models: keras.Model | Mapping[Any, keras.Model], ax: "Axes | None" = None
) -> "Axes":
    """Draws the Frobenius norm of the kernel that each layer of a model computes with.

    Under `ENC` each is the root of alpha. Bars are grouped by the names of the layers, which
    `apply_enc` keeps.

    Args:
        models: A built model, or a dict of built models by label.
        ax: The `matplotlib.axes.Axes` to draw on, or `None` for a new figure.

    Returns:
        The `Axes`, with a horizontal bar for each kernel, the first layer on top.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: `models` is empty, holds something else or a model without kernels; or `ax` is
            not an `Axes`.

    Example:

    ```python
    ax = keras_gbr.plots.kernel_norms({"plain": model, "ENC": keras_gbr.apply_enc(model)})
    ```
    """
    canvas.check_axes(ax)
    table = models if isinstance(models, Mapping) else {"": models}
    if not table:
        raise check.error("`models` must hold a model.", "models", models)
    norms = {str(label): _norms(model) for label, model in table.items()}
    names = list(dict.fromkeys(name for of_model in norms.values() for name in of_model))
    thickness = _FILLED / len(norms)
    room = len(names) * max(len(norms), 1.5) * _INCHES / _FILLED
    ax = canvas.axes_or_new(ax, 6.4, 1.0 + room)
    hues = canvas.colors(norms)
    for index, (label, of_model) in enumerate(norms.items()):
        offset = (index - (len(norms) - 1) / 2) * thickness
        places = [row + offset for row, name in enumerate(names) if name in of_model]
        ax.barh(places, list(of_model.values()), thickness, color=hues[label], label=label or None)
    ax.set_yticks(np.arange(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel(r"Frobenius norm of the kernel, $\|W\|_F$")
    canvas.quiet_frame(ax, "x")
    if isinstance(models, Mapping):
        canvas.legend(ax)
    return ax


def _norms(model: keras.Model) -> dict[str, float]:
    norms = measures.kernel_norms(model)
    if not norms:
        raise check.error("The models must have a layer with a kernel.", "model", model)
    return norms
