"""One recorded forward pass of a model, from which every penalty takes its gradients."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
from keras import ops

from keras_gbr import backend
from keras_gbr._keras.calls import call
from keras_gbr._keras.layer_outputs import replaced_outputs
from keras_gbr._keras.layer_tree import all_layers
from keras_gbr._keras.per_sample_losses import compiled_loss, per_sample_losses
from keras_gbr.backend.contract import Watch
from keras_gbr.penalties.gradient_points import GradientPoints, flat
from keras_gbr.penalties.inputs import as_taken, first_samples, is_differentiable

# A function of a forward pass and outputs of its model, which returns a tensor.
OutputFunction = Callable[["ForwardPass", Any], Any]


class ForwardPass:
    """One forward pass of a model on a batch, with the gradients of functions of its outputs.

    Every penalty of a step gets the same pass. A train step makes it, and so does
    `GBRModel.forward_pass`. What the methods return is differentiable with respect to the weights
    of the model.

    A function of the outputs is `function(forward, y_pred)`. It returns a tensor, whose sum is
    differentiated. `forward` is the pass itself, for its labels and other data; `y_pred` are the
    outputs to use, a structure like `forward.y_pred`. Gradients are kept by function, so penalties
    with the same function share them. A function should use the `forward` that it is given: if it
    holds a pass instead, only Python's garbage collector frees that pass.

    Gradients are taken with respect to the floating-point inputs; or at the output of an inner
    layer (`at`), which must be named when the pass is made.

    Attributes:
        model: The model.
        x, y, sample_weight: The batch, as `fit` unpacks it; `x` as tensors.
        y_pred: The outputs of the model.
        batch_size: Whole number or scalar tensor, the number of samples.
        step: Whole number or scalar integer tensor, the number of updates so far.

    Example:

    ```python
    forward = model.forward_pass(x, y)
    (gradient,) = forward.input_gradients(keras_gbr.ForwardPass.losses)
    (sum_of_rows,) = forward.input_gradients(lambda forward, y_pred: y_pred)
    ```
    """

    def __init__(
        self,
        model: keras.Model,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        training: bool = False,
        parameters: bool = False,
        at: Sequence[str | keras.Layer] = (),
    ) -> None:
        """Runs the model.

        Args:
            model: A built model.
            x: Inputs: a tensor or a structure of tensors `(batch_size, ...)`.
            y: Labels.
            sample_weight: Weights of the samples.
            training: Whether the model runs in training mode.
            parameters: Whether `parameter_gradients` will be called.
            at: The values of `at` that methods will be called with: inner layers, or names of
                layers or inputs, as `at=` of a penalty.

        Raises:
            ValueError: `at` names nothing in the model, or more than one layer.
        """
        self.y = y
        # Keras' loss applies the mask to the weights in place under PyTorch.
        self.sample_weight = keras.tree.map_structure(ops.copy, sample_weight, none_is_leaf=False)
        self.x = as_taken(model, x)
        self.batch_size = ops.shape(flat(self.x)[0])[0]
        optimizer = getattr(model, "optimizer", None)
        self.step = 0 if optimizer is None else optimizer.iterations
        self.model, self._training, self._parameters = model, training, parameters
        self._at = tuple(at)
        self._points = GradientPoints(model, self.x, at)
        # Seeds and moving averages before the pass. A repetition starts from them.
        self._state = [(v, _copy(v)) for v in model.non_trainable_variables]
        self._input_gradients: dict[Any, list[Any]] = {}
        self._parts: dict[float, ForwardPass] = {}
        with backend.repeatable(model.trainable_weights) as self._repeatable:
            recording = backend.record(
                self._record,
                self._points.floats,
                watches=bool(at),
                parameters=model.trainable_weights if parameters else None,
                layers=all_layers(model),
            )
        self.y_pred, watched, self._gradients = recording
        self._points.add(watched)

    def _record(self, inputs: list[Any], watch: Watch) -> Any:
        with self._points.watched_by(watch):
            return self._run(self._with_floats(inputs))

    def _run(self, x: Any) -> Any:
        return call(self.model, x, self._training)

    def _with_floats(self, floats: list[Any]) -> Any:
        """The inputs with other floating-point tensors."""
        remaining = iter(floats)
        return keras.tree.map_structure(
            lambda leaf: next(remaining) if is_differentiable(leaf) else leaf,
            self.x,
            none_is_leaf=False,
        )

    @property
    def outputs(self) -> list[Any]:
        """The outputs of the model as a flat list."""
        return flat(self.y_pred)

    def part(self, fraction: float) -> "ForwardPass":
        """A pass on the first samples of the batch.

        It costs as much as a pass on a batch of that size. It does not update moving averages and
        other state, because the pass on the whole batch has done so.

        Args:
            fraction: The share of the samples, in (0, 1]. Their number is rounded and at least 1.

        Returns:
            A `ForwardPass`: this one if `fraction` is 1.
        """
        if fraction == 1.0:
            return self
        if fraction not in self._parts:
            size = _share(fraction, self.batch_size)
            x, y, sample_weight = (
                first_samples(data, size) for data in (self.x, self.y, self.sample_weight)
            )
            with self._repeatable(self._state):
                self._parts[fraction] = ForwardPass(
                    self.model, x, y, sample_weight, self._training, self._parameters, self._at
                )
            self._parts[fraction].step = self.step
        return self._parts[fraction]

    def outputs_at(self, steps: list[Any], at: str | keras.Layer | None = None) -> Any:
        """The outputs at other inputs, from a second pass with the same random numbers.

        The second pass updates no variable.

        Args:
            steps: Tensors like those of `input_gradients`, which are added to the inputs.
            at: The inner layer whose output they are added to instead.

        Returns:
            A structure like `y_pred`.
        """
        remaining = iter(steps)

        def moved(tensor: Any) -> Any:
            return tensor + ops.cast(next(remaining), tensor.dtype)

        layer = self._points.layer(at)
        with self._repeatable(self._state):
            if layer is not None:
                with replaced_outputs(layer, moved):
                    return self._run(self.x)
            points = {id(point) for point in self.points(at)}
            floats = self._points.floats
            floats = [moved(leaf) if id(leaf) in points else leaf for leaf in floats]
            return self._run(self._with_floats(floats))

    def losses(self, y_pred: Any) -> Any:
        """The compiled loss of each sample alone, as a function of the outputs.

        As `ForwardPass.losses` it is a function for `input_gradients`.

        Args:
            y_pred: A structure like the attribute `y_pred`.

        Returns:
            Tensor `(batch_size,)`.
        """
        return per_sample_losses(compiled_loss(self.model), self.y, y_pred)

    def sample_mean(self, values: Any) -> Any:
        """The mean over the batch, with the sample weights that the mean loss has.

        Args:
            values: Tensor `(batch_size,)`.

        Returns:
            Scalar tensor: the sum of weight times value, divided by the batch size. If a sample
            has several weights, of time steps or of outputs, their mean counts.
        """
        weights = [
            ops.mean(ops.reshape(ops.cast(leaf, values.dtype), (self.batch_size, -1)), axis=1)
            for leaf in flat(self.sample_weight)
        ]
        if weights:
            values = values * (sum(weights) / len(weights))
        # The reshape fails unless there is one value per sample.
        mean = ops.mean(ops.reshape(values, (self.batch_size,)))
        # A replica has no samples if the last batch is smaller than the number of replicas.
        return ops.where(self.batch_size > 0, mean, ops.zeros_like(mean))

    def points(self, at: str | keras.Layer | None = None) -> list[Any]:
        """The tensors that input gradients are taken at.

        Args:
            at: An inner layer: the points are its outputs. `None`: the points are the inputs.

        Returns:
            A list of floating-point tensors `(batch_size, ...)`.

        Raises:
            ValueError: There are no such tensors.
        """
        return self._points.at(at)

    def input_gradients(
        self, function: OutputFunction, at: str | keras.Layer | None = None
    ) -> list[Any]:
        """The gradient of a function of the outputs with respect to the inputs.

        Args:
            function: `function(forward, y_pred)` returns a tensor, whose sum is differentiated. If
                it returns one value per sample `(batch_size,)`, and the samples are independent,
                the result is the gradient of each value.
            at: The inner layer whose output takes the place of the inputs.

        Returns:
            A list of tensors like `points(at)`, zero where there is no path.

        Raises:
            ValueError: The model has no floating-point input, or its output does not depend
                on one.
        """
        if (function, at) not in self._input_gradients:
            points = self.points(at)
            gradients = self._gradients(partial(function, self), points)
            if all(gradient is None for gradient in gradients):
                raise ValueError(
                    "A penalty on input gradients needs a model whose output depends on its "
                    "inputs through differentiable operations. Remove the operation that stops "
                    "the gradient. Received: no path from the "
                    f"{'inputs' if at is None else f'output of {at!r}'} to the output of "
                    f"model {self.model.name!r}"
                )
            self._input_gradients[function, at] = [
                ops.zeros_like(point) if gradient is None else gradient
                for gradient, point in zip(gradients, points, strict=True)
            ]
        return self._input_gradients[function, at]

    def parameter_gradients(self, function: OutputFunction) -> list[Any]:
        """The gradient of a function of the outputs with respect to the trainable parameters.

        Args:
            function: `function(forward, y_pred)` returns a tensor, whose sum is differentiated.

        Returns:
            A list of tensors, one for each parameter that has a gradient.

        Raises:
            ValueError: The function depends on no parameter.
        """
        gradients = self._gradients(partial(function, self), self.model.trainable_weights)
        if gradients and all(gradient is None for gradient in gradients):
            raise ValueError(
                "A penalty on parameter gradients needs a loss that depends on the trainable "
                "weights through differentiable operations. Received: no path from the "
                f"trainable weights to the loss of model {self.model.name!r}"
            )
        return [gradient for gradient in gradients if gradient is not None]


def _copy(variable: keras.Variable) -> Any:
    """A copy of the value of a variable, which some backends assign in place."""
    return ops.stop_gradient(ops.copy(variable.value))


def _share(fraction: float, size: Any) -> Any:
    """The number of samples in a fraction of `size`, rounded, at least one."""
    if isinstance(size, int):
        return max(round(fraction * size), 1)
    return ops.maximum(ops.cast(ops.round(fraction * ops.cast(size, "float32")), "int32"), 1)
