"""What a trained model is like: measures that read it and never change it."""

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gbr import _validation as check
from keras_gbr import backend
from keras_gbr.forward_pass import ForwardPass
from keras_gbr.penalties.jacobian import (
    OF,
    jacobian_row_squared_norms,
    jacobian_squared_norms,
    output_size,
)

# Rows of the Jacobian that share one forward pass: bounds the size of the graph.
_ROWS_A_CALL = 16
# Seconds after which a progress bar appears.
_PATIENCE = 2.0


def gbr(
    model: keras.Model,
    x: Any,
    of: str = "output",
    num_projections: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    verbose: str | int = "auto",
) -> float:
    r"""The GBR of a model: the mean of $\|\partial f / \partial x\|_F^2$ over samples.

    The generalization bound regularizer is the mean squared Frobenius norm of the Jacobian of
    the output with respect to the input, here in inference mode; also known as geometric
    complexity. Its unit is that of the output squared over that of the input squared: the same
    function of pixels in 0 to 1 has 255 squared times the GBR that it has of 0 to 255.

    Args:
        model: A built model.
        x: Array `(samples, ...)`, or a list or dict of arrays, as `model.predict` takes.
        of: `"output"`, or `"probabilities"` for the softmax (one unit: the sigmoid) of an
            output of logits.
        num_projections: `None` for the exact value, which takes one pullback for each output;
            or the number of random directions of an unbiased estimate.
        batch_size: Samples at a time; bounds the memory, does not change the result.
        seed: Seed of the directions.
        verbose: 0 for silence, 1 for a progress bar, `"auto"` for one after two seconds.

    Returns:
        A float.

    Raises:
        ValueError: The model is not built or has no floating-point input, `x` does not fit
            it, or another argument is out of its range.

    Example:

    ```python
    keras_gbr.measures.gbr(model, x_test[:500])
    ```

    Reference:
        Li, Chen & Yang, equation 2; Dherin et al. 2022; Hoffman, Roberts & Yaida 2019.
    """
    return gbr_measure(model, of, num_projections, batch_size, seed, verbose)(x)


def gbr_measure(
    model: keras.Model,
    of: str = "output",
    num_projections: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    verbose: str | int = "auto",
) -> Callable[[Any], float]:
    """`gbr` of one model as a function of `x`, compiled once for repeated use.

    Args:
        model: See `gbr`, as all further arguments.
        of: See `gbr`.
        num_projections: See `gbr`.
        batch_size: See `gbr`.
        seed: See `gbr`.
        verbose: See `gbr`.

    Returns:
        A function `x -> float`.
    """
    check_arguments(of, num_projections, batch_size, seed, verbose)

    @backend.compiled
    def total(batch: Any, start: Any) -> Any:
        forward = ForwardPass(model, batch)
        if num_projections is not None:
            # `start` is the first sample of the batch: each batch has directions of its own.
            forward.step = start
            return ops.sum(jacobian_squared_norms(forward, of, num_projections, seed))
        rows = range(min(_ROWS_A_CALL, output_size(forward)))
        return ops.sum(sum(jacobian_row_squared_norms(forward, of, start + row) for row in rows))

    def measure(x: Any) -> float:
        check_built(model)
        x = as_arrays(x)
        samples = len(keras.tree.flatten(x)[0])
        starts = range(0, samples, batch_size)
        size = 1 if num_projections else output_size(ForwardPass(model, _slice(x, 0, 1)))
        blocks = [(first, row) for first in starts for row in range(0, size, _ROWS_A_CALL)]
        progress = _Progress(len(blocks), verbose)
        sums = []
        for first, row in blocks:
            batch = _slice(x, first, first + batch_size)
            start = ops.convert_to_tensor(first if num_projections else row, "int32")
            sums.append(float(total(batch, start)))
            progress.advance()
        return float(np.sum(sums, dtype="float64") / samples)

    return measure


def check_arguments(
    of: str, num_projections: int | None, batch_size: int, seed: int, verbose: str | int
) -> None:
    """Refuses what `gbr` cannot use, see there.

    Raises:
        ValueError: An argument is out of its range.
    """
    check.choice("of", of, OF)
    if num_projections is not None:
        check.integer("num_projections", num_projections)
    check.integer("batch_size", batch_size)
    check.integer("seed", seed, minimum=0)
    if verbose not in ("auto", 0, 1):
        raise check.fail("`verbose` must be 'auto', 0 or 1.", "verbose", verbose)


def check_built(model: keras.Model) -> None:
    """Refuses a model without weights.

    Raises:
        ValueError: `model` is no built `keras.Model`.
    """
    if not isinstance(model, keras.Model) or not model.built:
        raise check.fail(
            "`model` must be a built `keras.Model`. Call it on a batch, or `model.build(shape)`, "
            "first.",
            "model",
            model,
        )


def as_arrays(x: Any) -> Any:
    """`x` as NumPy arrays with one number of samples.

    Raises:
        ValueError: `x` is no array or structure of arrays, is empty, or its arrays differ in
            length.
    """
    expected = "`x` must be an array (samples, ...) or a list or dict of such arrays."
    try:
        arrays = keras.tree.map_structure(np.asarray, x)
    except (TypeError, ValueError) as error:
        raise check.fail(expected, "x", type(x)) from error
    leaves = keras.tree.flatten(arrays)
    if not leaves or any(leaf.dtype == object or leaf.ndim == 0 for leaf in leaves):
        raise check.fail(expected, "x", type(x))
    if len({len(leaf) for leaf in leaves}) != 1 or len(leaves[0]) == 0:
        shapes = [leaf.shape for leaf in leaves]
        raise check.fail(
            "The arrays of `x` must have the same number of samples, at least one.", "x", shapes
        )
    return arrays


def _slice(x: Any, first: int, last: int) -> Any:
    return keras.tree.map_structure(
        lambda leaf: ops.convert_to_tensor(
            leaf[first:last],
            keras.config.floatx() if leaf.dtype.kind == "f" else None,
        ),
        x,
    )


class _Progress:
    """A progress bar that appears once the work has taken longer than `_PATIENCE`."""

    def __init__(self, total: int, verbose: str | int) -> None:
        self.total, self.done = total, 0
        self.bar = None if verbose == 0 else keras.utils.Progbar(total, unit_name="batch")
        self.visible_from = time.monotonic() + (_PATIENCE if verbose == "auto" else 0.0)
        self.shown = False

    def advance(self) -> None:
        self.done += 1
        ends_unseen = self.done == self.total and not self.shown
        if self.bar and not ends_unseen and time.monotonic() >= self.visible_from:
            self.shown = True
            self.bar.update(self.done)
