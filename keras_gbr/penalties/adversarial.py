"""The loss at inputs that one step of an attack has moved."""

from functools import partial
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_gbr import _checks as check
from keras_gbr.maths.gradient_norms import check_norm, steepest_steps
from keras_gbr.maths.precision import at_least_float32
from keras_gbr.penalties.base import InputPenalty
from keras_gbr.penalties.forward_pass import ForwardPass
from keras_gbr.penalties.live_numbers import LiveNumber
from keras_gbr.penalties.output_functions import sample_losses


@keras.saving.register_keras_serializable("keras_gbr")
class Adversarial(InputPenalty):
    r"""Adds the loss at adversarial inputs: fast gradient training.

    Its value is the mean over the samples of $\ell_b(x_b + \delta_b)$, $\ell_b$ the compiled loss
    of sample $b$ alone and $\delta_b$ a step of length $\epsilon$ that increases the loss. The
    step is held constant in the derivative:

    - `norm="inf"`: $\epsilon \operatorname{sign} g$, the fast gradient sign method;
    - `norm=2`: $\epsilon g / \|g\|_2$;
    - `norm=1`: $\epsilon$ in the largest entry of $g$, 0 in the others;
    - `norm=None`: $\epsilon g$, the gradient itself. To first order in $\epsilon$ the value is then
      the loss plus $\epsilon$ times the value of `InputGradient`.

    With `weight` $w$ the training loss is $L + w L_\mathrm{adv}$. Random layers draw the same
    numbers for the moved inputs as for the given ones. Batch normalisation takes the statistics
    of the moved inputs and leaves its moving averages alone.

    Args:
        weight: Float >= 0 or a `LearningRateSchedule`; see `Penalty`.
        epsilon: Float > 0, the length of the step in units of the input (with `norm=None`, of
            the input squared over the loss). It can be set while a model trains, like `weight`.
        norm: `"inf"`, 2, 1 or `None`.
        data_range: Pair of floats `(low, high)` that the moved inputs are clipped to; `None` for
            no limits.
        at: The layer, or one of several inputs, that takes the place of the inputs; see
            `Penalty`.
        interval: See `Penalty`.
        fraction: See `Penalty`.
        name: Name of the metric.

    Raises:
        ValueError: An argument is out of its range, the model is compiled without a loss, or it
            has no floating-point input.

    Example:

    ```python
    fgsm = keras_gbr.Adversarial(1.0, epsilon=8 / 255, data_range=(0, 1))
    model.compile("sgd", loss, penalties=[fgsm])
    ```

    Reference:
        Goodfellow, Shlens & Szegedy 2015, "Explaining and Harnessing Adversarial Examples",
        section 6, https://arxiv.org/abs/1412.6572; Miyato, Dai & Goodfellow 2017 (`at` an
        embedding), https://arxiv.org/abs/1605.07725.
    """

    default_name = "adversarial"
    needs_loss = True
    epsilon = LiveNumber(partial(check.number, exclusive=True))

    def __init__(
        self,
        weight: float | LearningRateSchedule,
        epsilon: float,
        norm: int | str | None = "inf",
        data_range: tuple[float, float] | None = None,
        at: str | keras.Layer | None = None,
        interval: int = 1,
        fraction: float = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, at, name=name, interval=interval, fraction=fraction)
        self.epsilon = epsilon
        self.norm = None if norm is None else check_norm("norm", norm)
        self.data_range = (
            None if data_range is None else check.number_range("data_range", data_range)
        )

    def __call__(self, forward: ForwardPass, constants: Any = None) -> Any:
        steps = self.constants(forward) if constants is None else constants
        return at_least_float32(sample_losses(forward, forward.outputs_at(steps, self.at)))

    def constants(self, forward: ForwardPass) -> Any:
        """The steps that move the inputs."""
        gradients = forward.input_gradients(sample_losses, self.at)
        steps = gradients if self.norm is None else steepest_steps(gradients, self.norm)
        return [
            ops.stop_gradient(self._clipped(ops.cast(self.epsilon, step.dtype) * step, point))
            for step, point in zip(steps, forward.points(self.at), strict=True)
        ]

    def _clipped(self, step: Any, point: Any) -> Any:
        if self.data_range is None:
            return step
        point = ops.cast(point, step.dtype)
        return ops.clip(point + step, *self.data_range) - point

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "epsilon": self.epsilon,
            "norm": self.norm,
            "data_range": self.data_range,
        }
