"""Penalties in a custom `train_step`, on each backend, and a penalty outside of `compile`.

    python examples/custom_train_step.py [--epochs N]

A classifier, with the loss and the metrics loop of Keras' guides, trains with the penalties that it
was compiled with. A critic, which is never compiled, gets a penalty for a loss written by hand.
"""

import argparse
from typing import Any

from common.tools import at_least, quiet_imports

with quiet_imports(__file__):
    import keras
    import numpy as np
    from keras import layers, ops

    import keras_gbr as gbr

BACKEND = keras.backend.backend()


class Net(gbr.GBRMixin, keras.Model):
    """A network whose step is written by hand. Two lines of it are for the penalties."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.scores = layers.Dense(16, activation="tanh"), layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.scores(self.hidden(x))

    def total_loss(self, x: Any, y: Any) -> tuple[Any, Any]:
        """The loss with its penalties, and the outputs."""
        forward = self.forward_pass(x, y, training=True)
        loss = self.compute_loss(x, y, forward.y_pred)
        return self.penalized_loss(loss, forward), forward.y_pred

    def updated_metrics(self, y: Any, y_pred: Any, loss: Any) -> dict[str, Any]:
        """The loop of the guides, without the metrics of the penalties, which are up to date."""
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


class TensorFlowNet(Net):
    """The step under TensorFlow."""

    def train_step(self, data: Any) -> dict[str, Any]:
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss, y_pred = self.total_loss(x, y)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return self.updated_metrics(y, y_pred, loss)


class TorchNet(Net):
    """The step under PyTorch."""

    def train_step(self, data: Any) -> dict[str, Any]:
        import torch

        x, y = data
        loss, y_pred = self.total_loss(x, y)
        gradients = torch.autograd.grad(loss, [v.value for v in self.trainable_variables])
        with torch.no_grad():
            self.optimizer.apply(gradients, self.trainable_variables)
        return self.updated_metrics(y, y_pred, loss)


class JaxNet(Net):
    """The step under JAX, a function of the values of all variables."""

    def train_step(self, state: Any, data: Any) -> tuple[dict[str, Any], Any]:
        import jax

        x, y = data
        trainable, others, of_optimizer, of_metrics = state
        kept = [*self.non_trainable_variables, *self.metrics_variables]
        variables = [*kept, *self.optimizer.variables, *self.trainable_variables]

        def total(values: Any) -> tuple[Any, Any]:
            given = [*others, *of_metrics, *of_optimizer, *values]
            with keras.StatelessScope(list(zip(variables, given, strict=True))) as scope:
                loss, y_pred = self.total_loss(x, y)
                logs = self.updated_metrics(y, y_pred, loss)
            return loss, (logs, [scope.get_current_value(variable) for variable in kept])

        gradients, (logs, after) = jax.grad(total, has_aux=True)(trainable)
        trainable, of_optimizer = self.optimizer.stateless_apply(of_optimizer, gradients, trainable)
        return logs, (trainable, after[: len(others)], of_optimizer, after[len(others) :])


NETS = {"tensorflow": TensorFlowNet, "jax": JaxNet, "torch": TorchNet}


def slope_penalty(critic: Any, points: Any) -> Any:
    """The penalty of WGAN-GP, the mean of (|gradient| - 1)^2, as a term of any loss.

    Args:
        critic: A `GBRMixin` model, which need not be compiled.
        points: Tensor `(batch_size, ...)`.

    Returns:
        Scalar tensor.
    """
    penalty = gbr.InputGradient(1.0, target=1.0, of="output")
    return ops.mean(penalty(critic.forward_pass(points, training=True)))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=at_least(1), default=20)
    options = parser.parse_args(argv)
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).standard_normal((512, 8)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0).astype("int32")
    model = NETS[BACKEND]()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    penalties = [gbr.InputGradient(0.05)]
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"], penalties=penalties)
    history = model.fit(x, y, epochs=options.epochs, verbose=0).history
    print(*(f"{name} {values[-1]:.3g}" for name, values in history.items()))

    inputs = keras.Input((8,))
    hidden = layers.Dense(16, activation="tanh")(inputs)
    critic = gbr.GBRModel(inputs, layers.Dense(1)(hidden))
    value = slope_penalty(critic, ops.convert_to_tensor(x))
    print(f"penalty of a critic that is not compiled: {float(ops.convert_to_numpy(value)):.4g}")


if __name__ == "__main__":
    main()
