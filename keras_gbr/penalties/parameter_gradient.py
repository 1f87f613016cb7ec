"""The gradient of the loss with respect to the parameters."""

from typing import Any

import keras
from keras import ops

from keras_gbr import backend
from keras_gbr.maths.precision import at_least_float32
from keras_gbr.penalties.base import Penalty
from keras_gbr.penalties.forward_pass import ForwardPass


@keras.saving.register_keras_serializable("keras_gbr")
class ParameterGradient(Penalty):
    r"""Penalises the squared norm of the gradient with respect to the trainable parameters.

    Its value is $\|\nabla_W L\|^2$ with $L$ the mean of the compiled loss over the batch,
    weighted by the sample weights, without regularization. If a sample has several positions
    (time steps, pixels), its loss is the mean over those that count. Every sample then counts
    alike, whereas in Keras' own mean every position counts alike. The two differ if masks or
    `ignore_class` leave out more positions of one sample than of another.

    Gradient descent with step $h$ follows $L + \frac h4 \|\nabla L\|^2$ to first order; the
    penalty makes this implicit regularization explicit. The mean is taken before the norm, so the
    value depends on the batch size through the noise of the gradient.

    Args:
        weight: Float >= 0 or a `LearningRateSchedule`; see `Penalty`.
        interval: See `Penalty`.
        fraction: See `Penalty`.
        name: Name of the metric.
        at: Has no effect: the gradient is with respect to the parameters.

    Raises:
        ValueError: An argument is out of its range, or the model is compiled without a loss.

    Example:

    ```python
    model.compile("sgd", "mse", penalties=[keras_gbr.ParameterGradient(0.025)])
    ```

    Reference:
        Barrett & Dherin 2021, "Implicit Gradient Regularization", equation 2,
        https://arxiv.org/abs/2009.11162.
    """

    default_name = "parameter_gradient"
    needs_loss = True
    needs_parameters = True

    def __call__(self, forward: ForwardPass) -> Any:
        gradients = forward.parameter_gradients(_mean_loss)
        if not gradients:  # the model has no trainable weights
            return ops.zeros(())
        gradients = [at_least_float32(gradient) for gradient in gradients]
        means = [ops.stop_gradient(mean) for mean in backend.replica_mean(gradients)]
        # On several replicas with gradients g, let m be their mean, held constant. The mean over
        # the replicas of 2 <m, g> - |m|^2 is |m|^2, and its gradient is that of |m|^2.
        return sum(
            2 * ops.sum(mean * gradient) - ops.sum(ops.square(mean))
            for mean, gradient in zip(means, gradients, strict=True)
        )


def _mean_loss(forward: ForwardPass, y_pred: Any) -> Any:
    return forward.sample_mean(forward.losses(y_pred))
