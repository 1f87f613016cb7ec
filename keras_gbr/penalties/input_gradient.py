"""The norm of the gradient of the loss, or of another number, with respect to the input."""

from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_gbr import _checks as check
from keras_gbr import backend
from keras_gbr.maths.gradient_norms import (
    DUAL,
    check_norm,
    gradient_norms,
    squared_norms,
    steepest_steps,
)
from keras_gbr.maths.precision import at_least_float32
from keras_gbr.penalties.base import InputPenalty
from keras_gbr.penalties.forward_pass import ForwardPass
from keras_gbr.penalties.output_functions import OUTPUT_FUNCTIONS

METHODS = ("double_backprop", "finite_difference")


@keras.saving.register_keras_serializable("keras_gbr")
class InputGradient(InputPenalty):
    r"""Penalises the norm of the gradient with respect to the input.

    Its value is the mean over the samples of $(\|\partial \ell_b / \partial x_b\| - t)^2$ with
    $t$ the `target`, 0 by default, and $\ell_b$ a number of sample $b$:

    - `of="loss"` ("double backpropagation"): the compiled loss of the sample alone. It includes
      all outputs with their loss weights, but neither activity regularizers nor `add_loss`. If
      the loss has further axes, their mean counts. It depends neither on the batch size nor on
      the reduction of the loss.
    - `of="label_probability"`: the probability of its label.
    - `of="output"`: the output itself, for models with one output number, such as a critic.

    Several inputs count as one vector; integer inputs are left out. The mean has the sample and
    class weights that the mean of the loss has.

    `method="finite_difference"` has the same value. It needs no second derivatives, but a second
    forward pass: its gradient is that of $c (\sum_b \ell_b(x + v / c) - \ell_b(x))$. Here $v_b$ is
    the gradient of the value with respect to $\partial \ell_b / \partial x_b$, held constant, and
    $c$ makes `step` the root mean square of the lengths of $v_b / c$ over the batch. The error is
    about the step times the curvature along it; steps cross the kinks of ReLU, and in half
    precision the rounding error is divided by the step. (Finlay and Oberman square the difference
    quotients of unit steps. These are not the norms if batch normalisation couples the samples.)

    Batch normalisation in training mode couples the samples of a batch: the gradient of a
    sample's loss then includes its effect through the statistics of the others.

    Args:
        weight: Float >= 0 or a `LearningRateSchedule`; see `Penalty`.
        norm: 1, 2 or `"inf"`: which norm of the gradient. 1 is for attacks that are bounded in
            the infinity norm, `"inf"` for attacks that are bounded in the 1-norm.
        target: Float >= 0. Above 0 the penalty is two-sided, as in WGAN-GP with 1.
        of: `"loss"`, `"label_probability"` or `"output"`. The second needs one output
            `(batch_size, classes)`, of logits unless the compiled loss takes probabilities, or
            `(batch_size, 1)` for two classes, and labels that are integers `(batch_size,)` or
            `(batch_size, 1)`, or shaped as the output.
        method: `"double_backprop"` or `"finite_difference"`.
        step: Float > 0, the typical length of the step in units of the input and in the norm
            dual to `norm`; used by `method="finite_difference"` only.
        at: The layer, or one of several inputs, that takes the place of the inputs; see
            `Penalty`.
        interval: See `Penalty`.
        fraction: See `Penalty`.
        name: Name of the metric.

    Raises:
        ValueError: An argument is out of its range; with `of="loss"`, the model is compiled
            without a loss; it has no floating-point input; or the labels or outputs do not fit.

    Example:

    ```python
    model.compile("sgd", "mse", penalties=[keras_gbr.InputGradient(0.05)])
    ```

    Reference:
        Drucker & LeCun 1992, "Improving Generalization Performance Using Double
        Backpropagation", https://doi.org/10.1109/72.165600; Li, Chen & Yang, theorem 2 (the
        label's probability); Gulrajani et al. 2017, equation 3 (WGAN-GP),
        https://arxiv.org/abs/1704.00028; Finlay & Oberman 2019, "Scaleable input gradient
        regularization for adversarial robustness" (finite differences and norms),
        https://arxiv.org/abs/1905.11468.
    """

    default_name = "input_gradient"

    def __init__(
        self,
        weight: float | LearningRateSchedule,
        norm: int | str = 2,
        target: float = 0.0,
        of: str = "loss",
        method: str = "double_backprop",
        step: float = 0.01,
        at: str | keras.Layer | None = None,
        interval: int = 1,
        fraction: float = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, at, name=name, interval=interval, fraction=fraction)
        self.norm = check_norm("norm", norm)
        self.target = check.number("target", target)
        self.of = check.choice("of", of, OUTPUT_FUNCTIONS)
        self.method = check.choice("method", method, METHODS)
        self.step = check.number("step", step, exclusive=True)
        self.needs_loss = self.of == "loss"

    def __call__(self, forward: ForwardPass, constants: Any = None) -> Any:
        if self.method == "double_backprop":
            return self._value(forward)
        steps, scale, offset = constants or (*self._steps(forward), None)
        growth = self._growth(forward, steps, scale)
        if offset is None:
            offset = ops.stop_gradient(self._value(forward) - growth)
        return offset + growth

    def constants(self, forward: ForwardPass) -> Any:
        """The steps of the finite differences, their scale, and the rest of the value."""
        if self.method == "double_backprop":
            return None
        steps, scale = self._steps(forward)
        return steps, scale, self._value(forward) - self._growth(forward, steps, scale)

    def _gradients(self, forward: ForwardPass) -> list[Any]:
        return forward.input_gradients(OUTPUT_FUNCTIONS[self.of], self.at)

    def _value(self, forward: ForwardPass) -> Any:
        gradients = self._gradients(forward)
        if self.norm == 2 and self.target == 0:
            return squared_norms(gradients)
        return ops.square(gradient_norms(gradients, self.norm) - self.target)

    def _steps(self, forward: ForwardPass) -> tuple[list[Any], Any]:
        """The steps v / c and the scale c, as the docstring of the class names them."""
        gradients = self._gradients(forward)
        slopes = 2 * (gradient_norms(gradients, self.norm) - self.target)
        (mean,) = backend.replica_mean([ops.mean(ops.square(slopes))])
        scale = ops.stop_gradient(ops.sqrt(mean) / self.step)
        lengths = ops.divide_no_nan(slopes, ops.broadcast_to(scale, ops.shape(slopes)))
        directions = steepest_steps(gradients, DUAL[self.norm])
        shapes = [(-1, *[1] * (len(direction.shape) - 1)) for direction in directions]
        steps = [
            ops.stop_gradient(ops.reshape(lengths, shape) * direction)
            for shape, direction in zip(shapes, directions, strict=True)
        ]
        return steps, scale

    def _growth(self, forward: ForwardPass, steps: list[Any], scale: Any) -> Any:
        moved = forward.outputs_at(steps, self.at)
        high, low = (
            at_least_float32(OUTPUT_FUNCTIONS[self.of](forward, y_pred))
            for y_pred in (moved, forward.y_pred)
        )
        return (high - low) * ops.cast(scale, high.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "norm": self.norm,
            "target": self.target,
            "of": self.of,
            "method": self.method,
            "step": self.step,
        }
