"""GBR: the squared Frobenius norm of the Jacobian of the output with respect to the input."""

import math
import random
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_gbr import _checks as check
from keras_gbr import backend
from keras_gbr.maths.gradient_norms import squared_norms
from keras_gbr.maths.precision import at_least_float32
from keras_gbr.maths.random_normal import normal
from keras_gbr.penalties.base import InputPenalty
from keras_gbr.penalties.forward_pass import ForwardPass
from keras_gbr.penalties.output_probabilities import activated, probabilities

OF = ("output", "probabilities", "softmax", "sigmoid")
# How far the draws of two replicas are apart: more than a replica draws in a step.
_DRAWS = 2**16


@keras.saving.register_keras_serializable("keras_gbr")
class Jacobian(InputPenalty):
    r"""The generalization bound regularizer: penalises $\|\partial f / \partial x\|_F^2$.

    Its value is the mean over the samples of the squared Frobenius norm of the Jacobian of the
    output $f$ with respect to the input $x$, also known as geometric complexity. Outputs of any
    shape, and several outputs, count as one vector of $C$ numbers per sample. Several inputs count
    as one vector too.

    The exact value takes $C$ pullbacks through the model. The estimate is $C$ times the mean of
    $\|J^T v\|^2$ over `num_projections` directions $v$, which are drawn uniformly from the unit
    sphere of $R^C$ for every sample and step. It is unbiased; with one projection its relative
    variance is below 2.

    Batch normalisation in training mode couples the samples of a batch: the gradient of a
    sample's output then includes its effect through the statistics of the others.

    Args:
        weight: Float >= 0 or a `LearningRateSchedule`; see `Penalty`. Hoffman et al.'s
            $\lambda$ is twice this.
        num_projections: Whole number >= 1, or `None` for the exact value.
        of: `"output"`; `"probabilities"`; or `"softmax"` or `"sigmoid"`, that function of the
            output. The probabilities are the output itself if the model ends in a softmax or
            sigmoid. Otherwise they are the softmax of logits, or the sigmoid if there is one unit
            or the loss is a binary crossentropy.
        at: The layer, or one of several inputs, that takes the place of the inputs; see
            `Penalty`.
        interval: See `Penalty`.
        fraction: See `Penalty`.
        seed: Whole number >= 0. The directions depend on it and on the number of updates. If
            `None`, it is drawn from Python's `random`.
        name: Name of the metric.

    Raises:
        ValueError: An argument is out of its range; the model has no floating-point input; with
            `num_projections=None`, the size of the output is not known; or, with
            `of="probabilities"`, neither the graph of the model nor the `from_logits` of its loss
            tells whether the output holds probabilities.

    Example:

    ```python
    model.compile("sgd", "mse", penalties=[keras_gbr.Jacobian(0.01)])
    ```

    Reference:
        Li, Chen & Yang, equations 2 and 18; Dherin et al. 2022 (geometric complexity),
        https://arxiv.org/abs/2209.13083; Hoffman, Roberts & Yaida 2019, equation 8 (the
        estimate), https://arxiv.org/abs/1908.02729.
    """

    default_name = "jacobian"

    def __init__(
        self,
        weight: float | LearningRateSchedule,
        num_projections: int | None = 1,
        of: str = "output",
        at: str | keras.Layer | None = None,
        interval: int = 1,
        fraction: float = 1.0,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, at, name=name, interval=interval, fraction=fraction)
        if num_projections is not None:
            num_projections = check.integer("num_projections", num_projections)
        self.num_projections = num_projections
        self.of = check.choice("of", of, OF)
        seed = random.randrange(2**31) if seed is None else seed
        self.seed = check.integer("seed", seed, minimum=0)

    def __call__(self, forward: ForwardPass) -> Any:
        return jacobian_squared_norms(forward, self.of, self.num_projections, self.seed, self.at)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_projections": self.num_projections,
            "of": self.of,
            "seed": self.seed,
        }


def jacobian_squared_norms(
    forward: ForwardPass,
    of: str = "output",
    num_projections: int | None = None,
    seed: int = 0,
    at: str | keras.Layer | None = None,
) -> Any:
    """The squared Frobenius norm of each sample's Jacobian, exact or estimated.

    Args:
        forward: The forward pass.
        of: See `Jacobian`.
        num_projections: Number of random directions, or `None` for the exact value.
        seed: Seed of the directions.
        at: The inner layer whose output takes the place of the inputs.

    Returns:
        Tensor `(batch_size,)`.
    """
    if num_projections is None:
        rows = range(output_size(forward))
        return sum(jacobian_row_squared_norms(forward, of, row, at) for row in rows)
    estimates = [
        squared_norms(forward.input_gradients(_projection(forward, of, seed, draw), at))
        for draw in range(num_projections)
    ]
    total = sum(estimates)
    size = sum(ops.shape(flat)[1] for flat in _flat_outputs(forward))
    return ops.cast(size, total.dtype) * total / num_projections


def jacobian_row_squared_norms(
    forward: ForwardPass, of: str, row: Any, at: str | keras.Layer | None = None
) -> Any:
    """The squared norm of one row of each sample's Jacobian.

    Args:
        forward: The forward pass.
        of: See `Jacobian`.
        row: Whole number or scalar integer tensor, from 0. A row beyond the last is 0.
        at: The inner layer whose output takes the place of the inputs.

    Returns:
        Tensor `(batch_size,)`.
    """

    def entry(forward: ForwardPass, y_pred: Any) -> Any:
        offset, total = 0, 0.0
        for flat in _flatten(forward, of, y_pred):
            selected = ops.equal(ops.arange(flat.shape[1]), row - offset)
            total = total + ops.sum(flat * ops.cast(selected, flat.dtype))
            offset += flat.shape[1]
        return total

    return squared_norms(forward.input_gradients(entry, at))


def output_size(forward: ForwardPass) -> int:
    """The number of output numbers per sample, over all outputs of the model.

    Raises:
        ValueError: An axis of an output has no fixed length.
    """
    shapes = [tuple(output.shape[1:]) for output in forward.outputs]
    if any(None in shape for shape in shapes):
        raise ValueError(
            "The exact Jacobian needs outputs of fixed size. Set `num_projections` to a number "
            f"for the estimate. Received: outputs of shapes {shapes}"
        )
    return sum(math.prod(shape) for shape in shapes)


def _projection(forward: ForwardPass, of: str, seed: int, draw: int) -> Any:
    """The function of the outputs that projects each sample onto a random direction."""
    shapes = [ops.shape(flat) for flat in _flat_outputs(forward)]
    first = _DRAWS * backend.replica_id()
    directions = [
        normal((shape[0], shape[1]), seed, first + draw * len(shapes) + index, forward.step)
        for index, shape in enumerate(shapes)
    ]
    lengths = ops.sqrt(sum(ops.sum(ops.square(d), axis=1, keepdims=True) for d in directions))

    def along(forward: ForwardPass, y_pred: Any) -> Any:
        flats = _flatten(forward, of, y_pred)
        return sum(
            ops.sum(flat * ops.cast(d / lengths, flat.dtype))
            for flat, d in zip(flats, directions, strict=True)
        )

    return along


def _flat_outputs(forward: ForwardPass) -> list[Any]:
    return _flatten(forward, "output", forward.y_pred)


def _flatten(forward: ForwardPass, of: str, y_pred: Any) -> list[Any]:
    """The outputs (or their probabilities), each as a tensor `(batch_size, size)`."""
    outputs = [at_least_float32(output) for output in keras.tree.flatten(y_pred)]
    if of == "probabilities":
        outputs = [probabilities(forward.model, *pair) for pair in enumerate(outputs)]
    elif of != "output":
        outputs = [activated(of, output) for output in outputs]
    return [ops.reshape(output, (-1, math.prod(ops.shape(output)[1:]))) for output in outputs]
