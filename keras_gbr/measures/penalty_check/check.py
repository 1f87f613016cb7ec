"""Checks whether a penalty has the right value, and trains with its gradient."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_gbr import _checks as check
from keras_gbr._keras.layer_tree import all_layers, check_built, own_weights, walk
from keras_gbr._keras.per_sample_losses import compiled_loss
from keras_gbr.measures.data import single_batch
from keras_gbr.measures.penalty_check.finite_differences import Slopes, value
from keras_gbr.measures.penalty_check.plain_model import Plain
from keras_gbr.measures.penalty_check.report import PenaltyCheck
from keras_gbr.measures.progress import Progress, check_verbose
from keras_gbr.measures.restored import unchanged
from keras_gbr.penalties import Penalty

# The spacing of numbers at 1.
_EPSILONS = {"float32": 2.0**-23, "float64": 2.0**-52}


def check_penalty(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    penalty: Penalty | Sequence[Penalty] | None = None,
    num_directions: int = 2,
    step: float | None = None,
    seed: int = 0,
    verbose: str | int = "auto",
) -> PenaltyCheck:
    """Compares the gradients of penalties with central differences, layer by layer.

    Use it for models that you do not trust: an operation whose second derivative is wrong or
    missing makes a penalty train with a wrong gradient. The value of each penalty on one batch, in
    training mode, is differentiated as `fit` does. The same slopes are computed from differences
    of values, with the weights of one layer at a time changed along the gradient and along random
    directions. Every evaluation starts from the same state, so dropout draws the same units. The
    model is left as it was, bit for bit.

    The parts of the value are compared with the plain model, called as Keras' own train step calls
    it. They are the last rows of the table, in parentheses. The gradients that the penalty takes
    by inputs and parameters are compared with differences at moved inputs and weights, of the loss
    or of whatever else it differentiates. The outputs at moved inputs are compared with those of
    the model, and the mean loss of the samples with the compiled loss. If a model stops a gradient
    on purpose, its gradients are not differences, and these rows are off.

    Differences have errors from rounding and from curvature. Both are estimated: from values that
    lie close together, and from a step twice as long. Only a difference ten times larger counts as
    an error. With ReLU and max pooling a penalty jumps where a unit switches, and its gradient does
    not contain the jump. Visible jumps count as noise. Rows with much noise ("noisy" in the table)
    tell nothing. To be sure, build the model in float64: its short steps avoid both. It shows
    errors of 1e-7; float32 shows errors of about 1 % in smooth networks.

    A penalty may hold something constant on purpose, by `stop_gradient`. Its gradient is then not
    the slope of its value. What `penalty.constants(forward)` returns is therefore computed once,
    from the given weights, and used in all compared values.

    Args:
        model: A built model, compiled if a penalty needs the loss.
        x: One batch: array `(samples, ...)`, or a list or dict of arrays.
        y: Labels of the batch.
        sample_weight: Weights of the samples.
        penalty: A penalty or a list of penalties; by default those that a `GBRModel` was compiled
            with. Their weights do not matter.
        num_directions: Number of random directions per layer, at least one.
        step: Length of the change, relative to the norm of the weights of the layer. By default
            the cube root of the relative rounding of the penalty.
        seed: Seed of the directions.
        verbose: See `gbr`.

    Returns:
        A `PenaltyCheck`; `print` it for a table.

    Raises:
        ValueError: The model is not built, has no trainable weights, computes in half
            precision, or lacks the loss that a penalty needs; there is no penalty, or one has no
            gradient at all; the data do not fit; or another argument is out of its range.

    Example:

    ```python
    model.compile("sgd", loss, penalties=[keras_gbr.Jacobian(0.01)])
    report = keras_gbr.measures.check_penalty(model, x_train[:8], y_train[:8])
    assert report.ok(tolerance=0.05), str(report)
    ```
    """
    check_built(model)
    check.integer("num_directions", num_directions)
    check.integer("seed", seed, minimum=0)
    check_verbose(verbose)
    if step is not None:
        check.number("step", step, exclusive=True)
    epsilon = _epsilon(model)
    penalties, layers = _penalties(model, penalty, y), _trainable_layers(model)
    batch = single_batch(x, y, sample_weight)
    progress = Progress(len(penalties) * len(layers), verbose)
    rows, parts, reasons = [], [], []
    with unchanged(model, trainable=True) as restore:
        for each in penalties:
            slopes = Slopes(model, each, batch, restore)
            slopes.choose_step(step, epsilon, np.random.default_rng(seed))
            rng = np.random.default_rng(seed)
            for path, variables in layers:
                rows.append(slopes.compared(each.name, path, variables, rng, num_directions))
                progress.advance()
            reasons += [f"{each.name}: {slopes.reason}"] if slopes.reason else []
            restore()
            parts += Plain(model, each, batch, restore, epsilon).compared(rng, num_directions)
    return PenaltyCheck(tuple(rows), tuple(reasons), tuple(parts))


def require(model: keras.Model, x: Any, y: Any, sample_weight: Any) -> None:
    """Refuses what `check_penalty` cannot check, without taking the time of a check.

    Raises:
        ValueError: As `check_penalty`. Data that do not fit raise the error of Keras.
    """
    check_built(model)
    _epsilon(model)
    _trainable_layers(model)
    batch = single_batch(x, y, sample_weight)
    with unchanged(model):
        for penalty in _penalties(model, None, y):
            value(model, penalty, batch, None)


def _penalties(model: keras.Model, penalty: Any, y: Any) -> list[Penalty]:
    """The penalties to check."""
    given = getattr(model, "penalties", ()) if penalty is None else penalty
    penalties = list(given) if isinstance(given, (list, tuple)) else [given]
    if not penalties or not all(isinstance(each, Penalty) for each in penalties):
        raise check.error(
            "`penalty` must be a penalty or a list of them; only a GBRModel that is compiled "
            "with penalties needs none.",
            "penalty",
            penalty,
        )
    for each in penalties:
        if each.needs_loss and compiled_loss(model) is None:
            raise check.error(
                f"{type(each).__name__} penalises a gradient of the loss: compile the model with "
                "a `loss`.",
                "loss",
                None,
            )
        if each.needs_loss and y is None:
            raise check.error(
                f"{type(each).__name__} penalises a gradient of the loss, which needs labels.",
                "y",
                None,
            )
    return penalties


def _trainable_layers(model: keras.Model) -> list[tuple[str, list[Any]]]:
    """The layers with trainable weights of their own, by their paths, with these weights."""
    left = {id(weight): weight for weight in model.trainable_weights}
    found = []
    for path, layer in walk(model):
        own = [left.pop(id(v)) for v in own_weights(layer) if id(v) in left]
        if own:
            found.append((path or model.name, own))
    if not found:
        raise check.error("`model` must have trainable weights.", "model", model)
    return found


def _epsilon(model: keras.Model) -> float:
    """The relative rounding of the precision that the model computes in."""
    dtypes = {layer.name: layer.compute_dtype for layer in all_layers(model)}
    half = [name for name, dtype in dtypes.items() if dtype in ("float16", "bfloat16")]
    if half:
        raise check.error(
            "Differences in half precision tell nothing. Check the same model built in float32, "
            "or better float64: `keras.config.set_dtype_policy(...)`, without `dtype=`.",
            "layers in half precision",
            half[:5],
        )
    return max(_EPSILONS.get(dtype, 0.0) for dtype in dtypes.values()) or _EPSILONS["float32"]
