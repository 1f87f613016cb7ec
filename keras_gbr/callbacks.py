"""A callback that watches the GBR and the kernel norms of a model in training."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gbr import _validation as check
from keras_gbr.kernels import as_matrix
from keras_gbr.measures import as_arrays, check_arguments, check_built, gbr_measure
from keras_gbr.norms import frobenius_norm
from keras_gbr.wrapping import kernels_in_use


class GBRMonitor(keras.callbacks.Callback):
    """Adds the GBR and the kernel norms to the logs at the end of each epoch.

    The progress bar, `History`, `CSVLogger` and `TensorBoard` then have them: `gbr` for
    `measures.gbr(model, x)`, and `kernel_norm/<layer>` for the Frobenius norm of the kernel
    that each layer computes with (under `ENC` that is the root of alpha). Put it before
    callbacks that write logs.

    Args:
        x: Inputs to measure on, as `measures.gbr` takes them; a few hundred samples do.
        of: See `measures.gbr`.
        num_projections: See `measures.gbr`.
        batch_size: See `measures.gbr`.
        kernel_norms: Whether the kernel norms are added.
        verbose: See `measures.gbr`.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    ```python
    history = model.fit(x, y, callbacks=[keras_gbr.GBRMonitor(x_val[:200])])
    history.history["gbr"]
    ```
    """

    def __init__(
        self,
        x: Any,
        of: str = "output",
        num_projections: int | None = None,
        batch_size: int = 32,
        kernel_norms: bool = True,
        verbose: str | int = "auto",
    ) -> None:
        super().__init__()
        self.x = as_arrays(x)
        self.kernel_norms = check.boolean("kernel_norms", kernel_norms)
        self._settings = (of, num_projections, batch_size, 0, verbose)
        check_arguments(*self._settings)
        self._measure: Callable[[Any], float] | None = None

    def set_model(self, model: keras.Model) -> None:
        """Takes the model that `fit` trains; called by Keras."""
        super().set_model(model)
        self._measure = gbr_measure(model, *self._settings)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures and adds to `logs`; called by Keras."""
        if logs is None or self._measure is None:
            return
        check_built(self.model)
        logs["gbr"] = self._measure(self.x)
        if self.kernel_norms:
            logs.update(kernel_norms(self.model))


def kernel_norms(model: keras.Model) -> dict[str, float]:
    """The Frobenius norms of the kernels that a model computes with.

    Args:
        model: A built model.

    Returns:
        Floats by `kernel_norm/<layer name>`, followed by `/<kernel>` in a layer with several.
    """
    return {
        f"kernel_norm/{name}": float(ops.convert_to_numpy(frobenius_norm(as_matrix(kernel, ()))))
        for name, kernel in kernels_in_use(model)
    }
