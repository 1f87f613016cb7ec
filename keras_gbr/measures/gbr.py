"""GBR, the mean squared Frobenius norm of the Jacobian of a model."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, overload

import keras
import numpy as np
from keras import ops

from keras_gbr import _checks as check
from keras_gbr._keras.layer_tree import check_built
from keras_gbr.measures.compile_cache import traced
from keras_gbr.measures.data import Data
from keras_gbr.measures.progress import Progress, check_verbose
from keras_gbr.measures.restored import unchanged
from keras_gbr.penalties.forward_pass import ForwardPass
from keras_gbr.penalties.jacobian import (
    OF,
    jacobian_row_squared_norms,
    jacobian_squared_norms,
    output_size,
)
from keras_gbr.penalties.output_probabilities import what_decides

# The most rows of the Jacobian that share one forward pass. More would save little, and make a
# graph that is slow to trace.
_ROWS_A_CALL = 8


class Estimate(NamedTuple):
    """A mean over samples with its standard error, as `gbr` returns it.

    Attributes:
        value: The mean.
        standard_error: Its standard error, in the same unit.

    Example:

    ```python
    value, error = keras_gbr.measures.gbr(model, x_val, standard_error=True)
    assert error < value
    ```
    """

    value: float
    standard_error: float


@overload
def gbr(
    model: keras.Model,
    x: Any,
    of: str = ...,
    num_projections: int | None = ...,
    batch_size: int = ...,
    seed: int = ...,
    standard_error: Literal[False] = ...,
    verbose: str | int = ...,
    at: Any = ...,
) -> float: ...


@overload
def gbr(
    model: keras.Model,
    x: Any,
    of: str = ...,
    num_projections: int | None = ...,
    batch_size: int = ...,
    seed: int = ...,
    *,
    standard_error: Literal[True],
    verbose: str | int = ...,
    at: Any = ...,
) -> Estimate: ...


def gbr(
    model: keras.Model,
    x: Any,
    of: str = "output",
    num_projections: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    standard_error: bool = False,
    verbose: str | int = "auto",
    at: Any = None,
) -> float | Estimate:
    r"""The GBR of a model: the mean of $\|\partial f / \partial x\|_F^2$ over samples.

    The generalization bound regularizer is the mean squared Frobenius norm of the Jacobian of
    the output with respect to the input, also known as geometric complexity. The model is in
    inference mode. The unit is that of the output squared over that of the input squared: for
    pixels in 0 to 1 the GBR is 255 squared times as large as for the same pixels in 0 to 255.

    As with `model.predict`, the model is traced at the first call. Later calls use the current
    weights, but do not see other changes of the model.

    Args:
        model: A built model.
        x: Array `(samples, ...)`, or a list or dict of arrays, as `model.predict` takes; or a
            dataset that `fit` takes, of `tf.data`, `grain`, PyTorch or Keras. Its batches are `x`,
            `(x, y)` or `(x, y, sample_weight)`; only the inputs are used.
        of: `"output"`, `"probabilities"`, `"softmax"` or `"sigmoid"`; see `Jacobian`.
        num_projections: `None` for the exact value, which takes one pullback per output; or the
            number of random directions of an unbiased estimate.
        batch_size: Samples at a time. It bounds the memory and does not change the exact result.
            Larger batches of a dataset are cut, smaller ones are taken as they are.
        seed: Seed of the directions.
        standard_error: Whether the standard error is returned too. It is the sample standard
            deviation of the squared norms of the samples, divided by the root of their number. It
            covers the choice of the samples, if they are independent, and of the directions. It
            covers neither other data nor another training of the model. NaN for one sample.
        verbose: 0 for silence, 1 for a progress bar, `"auto"` for one after two seconds.
        at: The layer whose output takes the place of the input, such as the embedding of a model
            of tokens: a layer, or its name or path. See `Penalty`.

    Returns:
        A float; with `standard_error=True` an `Estimate(value, standard_error)`.

    Raises:
        ValueError: The model is not built or has no floating-point input, `x` does not fit
            it or has no end, or another argument is out of its range.

    Example:

    ```python
    exact = keras_gbr.measures.gbr(model, x_val)
    value, error = keras_gbr.measures.gbr(model, x_val, num_projections=20, standard_error=True)
    assert exact > 0 and value > 0
    ```

    Reference:
        Li, Chen & Yang 2021, "Generalization Bound Regularizer: A Unified Perspective for
        Understanding Weight Decay", Chinese Journal of Computers, equation 2.
        Dherin et al. 2022, "Why neural networks find simple solutions: the many regularizers of
        geometric complexity", https://arxiv.org/abs/2209.13083.
        Hoffman, Roberts & Yaida 2019, "Robust Learning with Jacobian Regularization",
        https://arxiv.org/abs/1908.02729 (the estimate).
    """
    check_settings(of, num_projections, seed, standard_error, verbose)
    data = Data(x, batch_size=batch_size)
    check_built(model)
    with unchanged(model):
        if num_projections is None:
            norms = _exact(model, data, of, at, verbose)
        else:
            norms = _estimated(model, data, of, num_projections, seed, at, verbose)
    value = float(np.mean(norms))
    if not standard_error:
        return value
    error = np.std(norms, ddof=1) / math.sqrt(len(norms)) if len(norms) > 1 else math.nan
    return Estimate(value, float(error))


def check_settings(
    of: str, num_projections: int | None, seed: int, standard_error: bool, verbose: str | int
) -> None:
    """Refuses arguments that `gbr` cannot use; see there.

    Raises:
        ValueError: An argument is out of its range.
    """
    check.choice("of", of, OF)
    if num_projections is not None:
        check.integer("num_projections", num_projections)
    check.integer("seed", seed, minimum=0)
    check.boolean("standard_error", standard_error)
    check_verbose(verbose)


def _exact(model: keras.Model, data: Data, of: str, at: Any, verbose: str | int) -> np.ndarray:
    """The squared norm of each sample's Jacobian, from some of its rows at a time."""
    settings = (of, what_decides(model), _key(at))
    plans: dict[Any, tuple[int, int]] = {}
    progress = Progress(data.num_batches, verbose)
    norms = []
    for batch in data:
        shapes = tuple(tuple(leaf.shape[1:]) for leaf in keras.tree.flatten(batch.x))
        if shapes not in plans:
            plans[shapes] = _plan(model, shapes, batch.x)
            progress.refine(plans[shapes][0])
        calls, count = plans[shapes]
        # Sequences of another length have other rows.
        function = traced(model, ("gbr", shapes, count, *settings), _rows(of, count, at))
        total = np.zeros(1)
        for call in range(calls):
            total = total + _float64(function(batch.x, ops.convert_to_tensor(call * count)))
            progress.advance(batch.share / calls)
        norms.append(total)
    progress.finish()
    return np.concatenate(norms)


def _plan(model: keras.Model, shapes: Any, x: Any) -> tuple[int, int]:
    """The number of calls that compute the Jacobian, and of rows in each call."""
    # The compiled function does not run the model: the trace already knows the size.
    size = traced(model, ("size", shapes), lambda model, x: output_size(ForwardPass(model, x)))
    rows = int(size(x))
    calls = max(1, math.ceil(rows / _ROWS_A_CALL))
    return calls, math.ceil(rows / calls)


def _rows(of: str, count: int, at: Any) -> Callable[..., Any]:
    def squared_norms(model: keras.Model, x: Any, first: Any) -> Any:
        forward = _forward_pass(model, x, at)
        return sum(jacobian_row_squared_norms(forward, of, first + row, at) for row in range(count))

    return squared_norms


def _estimated(
    model: keras.Model,
    data: Data,
    of: str,
    num_projections: int,
    seed: int,
    at: Any,
    verbose: str | int,
) -> np.ndarray:
    """An unbiased estimate of the squared norm of each sample's Jacobian."""

    def squared_norms(model: keras.Model, x: Any, first: Any, seed: Any) -> Any:
        forward = _forward_pass(model, x, at)
        # Each batch has directions of its own.
        forward.step = first
        return jacobian_squared_norms(forward, of, num_projections, seed, at)

    key = ("gbr", of, what_decides(model), num_projections, _key(at))
    function = traced(model, key, squared_norms)
    # Only the low bits are used.
    seeds = ops.convert_to_tensor(seed % 2**31, "int32")
    progress = Progress(data.num_batches, verbose)
    norms: list[np.ndarray] = []
    samples = 0
    for batch in data:
        norms.append(_float64(function(batch.x, ops.convert_to_tensor(samples), seeds)))
        samples += len(norms[-1])
        progress.advance(batch.share)
    progress.finish()
    return np.concatenate(norms)


def _forward_pass(model: keras.Model, x: Any, at: Any) -> ForwardPass:
    return ForwardPass(model, x, at=[] if at is None else [at])


def _key(at: Any) -> Any:
    return at if at is None or isinstance(at, str) else id(at)


def _float64(values: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(values), dtype="float64")
