"""One recorded forward pass of a model, from which every penalty takes its gradients."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import keras
from keras import ops

from keras_gbr import backend
from keras_gbr.losses import outputs_are_logits, per_sample_losses
from keras_gbr.precision import at_least_float32


class ForwardPass:
    """What one forward pass of a model on a batch leaves behind.

    Attributes:
        x, y, sample_weight: The batch, as `fit` unpacks it.
        y_pred: The outputs of the model.
        batch_size: Scalar tensor.
        step: Scalar integer tensor, the number of updates so far.
    """

    def __init__(
        self,
        model: keras.Model,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        training: bool = False,
        parameters: bool = False,
    ) -> None:
        """Runs the model.

        Args:
            model: A built model.
            x: Inputs: a tensor or a structure of tensors `(batch_size, ...)`.
            y: Labels.
            sample_weight: Weights of the samples.
            training: Whether the model runs in training mode.
            parameters: Whether gradients of the parameters will be asked for.
        """
        self.y, self.sample_weight = y, sample_weight
        self.x = keras.tree.map_structure(ops.convert_to_tensor, x, none_is_leaf=False)
        self._model = model
        self._inputs = [leaf for leaf in _leaves(self.x) if _is_float(leaf)]
        self.batch_size = ops.shape(_leaves(self.x)[0])[0]
        self.y_pred, self._pullback = backend.vjp(
            lambda: _run(model, self.x, training), self._inputs, parameters
        )
        optimizer = getattr(model, "optimizer", None)
        self.step = 0 if optimizer is None else optimizer.iterations

    @property
    def outputs(self) -> list[Any]:
        """The outputs of the model as a flat list."""
        return _leaves(self.y_pred)

    @cached_property
    def outputs_are_logits(self) -> bool:
        """Whether the compiled loss takes the outputs for logits; True without one."""
        return outputs_are_logits(getattr(self._model, "loss", None))

    def losses(self, y_pred: Any) -> Any:
        """The compiled loss of each sample alone, as a function of the outputs.

        Args:
            y_pred: A structure like `y_pred`.

        Returns:
            Tensor `(batch_size,)`.
        """
        return per_sample_losses(self._model._compile_loss, self.y, y_pred)

    def sample_mean(self, values: Any) -> Any:
        """The mean over the batch, weighted as the mean of the loss is.

        Args:
            values: Tensor `(batch_size,)`.

        Returns:
            Scalar tensor: the sum of weight times value over the batch size. Weights of time
            steps or of several outputs are averaged for each sample.
        """
        weights = [
            ops.mean(ops.reshape(ops.cast(leaf, values.dtype), (self.batch_size, -1)), axis=1)
            for leaf in _leaves(self.sample_weight)
        ]
        if weights:
            values = values * (sum(weights) / len(weights))
        mean = ops.mean(values)
        # A replica has no sample where the last batch is smaller than the number of replicas.
        return ops.where(self.batch_size > 0, mean, ops.zeros_like(mean))

    def input_gradients(self, of: Callable[[Any], Any]) -> list[Any]:
        """The gradient of a scalar with respect to the floating-point inputs.

        Args:
            of: Function of a structure like `y_pred` that returns a scalar tensor.

        Returns:
            A list of float32 (or float64) tensors `(batch_size, ...)`.

        Raises:
            ValueError: The model has no floating-point input, or its output does not depend
                on one.
        """
        if not self._inputs:
            raise ValueError(
                "A penalty on input gradients needs a floating-point input, and integers have "
                "no gradient. Split the model after its embedding, feed the embedded tensor to "
                "the second part, and train that with the penalty. Received: inputs of dtypes "
                f"{[keras.backend.standardize_dtype(leaf.dtype) for leaf in _leaves(self.x)]}"
            )
        gradients = self._gradients(of, self._inputs)
        if all(gradient is None for gradient in gradients):
            raise ValueError(
                "A penalty on input gradients needs a model whose output depends on its inputs "
                "through differentiable operations. Remove the operation that stops the "
                "gradient. Received: no path from the inputs to the output of model "
                f"{self._model.name!r}"
            )
        return [gradient for gradient in gradients if gradient is not None]

    def parameter_gradients(self, of: Callable[[Any], Any]) -> list[Any]:
        """The gradient of a scalar with respect to the trainable parameters.

        Args:
            of: Function of a structure like `y_pred` that returns a scalar tensor.

        Returns:
            A list of tensors, one for each parameter that has a gradient.
        """
        parameters = [weight.value for weight in self._model.trainable_weights]
        gradients = self._gradients(of, parameters)
        return [gradient for gradient in gradients if gradient is not None]

    def _gradients(self, of: Callable[[Any], Any], wrt: list[Any]) -> list[Any]:
        value, scalar_pullback = backend.vjp(lambda: of(self.y_pred), self.outputs)
        cotangents = [
            ops.zeros_like(output) if cotangent is None else cotangent
            for output, cotangent in zip(
                self.outputs, scalar_pullback(ops.ones_like(value), self.outputs), strict=True
            )
        ]
        return self._pullback(keras.tree.pack_sequence_as(self.y_pred, cotangents), wrt)


def squared_norms(gradients: list[Any]) -> Any:
    """The squared Euclidean norm of each sample's part of a list of gradients.

    Args:
        gradients: Tensors `(batch_size, ...)`.

    Returns:
        Tensor `(batch_size,)`, at least single precision.
    """
    total: Any = 0.0
    for gradient in gradients:
        flat = at_least_float32(ops.reshape(gradient, (ops.shape(gradient)[0], -1)))
        total = total + ops.sum(ops.square(flat), axis=1)
    return total


def _run(model: keras.Model, x: Any, training: bool) -> Any:
    return model(x, training=training) if model._call_has_training_arg else model(x)


def _leaves(structure: Any) -> list[Any]:
    return [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]


def _is_float(x: Any) -> bool:
    return "float" in keras.backend.standardize_dtype(x.dtype)
