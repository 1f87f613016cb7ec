"""One recorded forward pass of a model, from which every penalty takes its gradients."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import keras
from keras import ops

from keras_gbr import backend
from keras_gbr._keras.calls import call
from keras_gbr._keras.layer_outputs import input_index, layer_at, replaced_outputs, require_batched
from keras_gbr._keras.layer_tree import all_layers
from keras_gbr._keras.per_sample_losses import compiled_loss, per_sample_losses
from keras_gbr.penalties.inputs import (
    as_taken,
    check_differentiable,
    first_samples,
    is_differentiable,
)


class ForwardPass:
    """What one forward pass of a model on a batch leaves behind.

    Gradients are taken with respect to the floating-point inputs, or at the output of an inner
    layer (`at`), which must have been named when the pass was made.

    Attributes:
        model: The model.
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
        at: Sequence[str | keras.Layer] = (),
    ) -> None:
        """Runs the model.

        Args:
            model: A built model.
            x: Inputs: a tensor or a structure of tensors `(batch_size, ...)`.
            y: Labels.
            sample_weight: Weights of the samples.
            training: Whether the model runs in training mode.
            parameters: Whether gradients of the parameters will be asked for.
            at: Where else gradients will be asked for: inner layers, or names of layers or
                inputs, as `at=` of a penalty.
        """
        self.y = y
        # Keras' loss applies the mask to the weights in place under PyTorch.
        self.sample_weight = keras.tree.map_structure(ops.copy, sample_weight, none_is_leaf=False)
        self.x = as_taken(model, x)
        self.batch_size = ops.shape(_leaves(self.x)[0])[0]
        optimizer = getattr(model, "optimizer", None)
        self.step = 0 if optimizer is None else optimizer.iterations
        self.model, self._training, self._parameters = model, training, parameters
        self._at = tuple(at)
        # What each `at` stands for: the place of an input, or a layer, which several may name.
        self._places = {
            each: layer_at(model, each) if index is None else index
            for each in self._at
            for index in [input_index(model, self.x, each)]
        }
        # Seeds and running means as the pass finds them: what a repetition starts from.
        self._state = [(v, _copy(v)) for v in model.non_trainable_variables]
        self._taken: dict[Any, list[Any]] = {}
        self._parts: dict[float, ForwardPass] = {}
        floats = [leaf for leaf in _leaves(self.x) if is_differentiable(leaf)]
        with backend.repeatable(model.trainable_weights) as self._repeatable:
            self.y_pred, watched, self._gradients = backend.record(
                self._record,
                floats,
                watches=bool(at),
                parameters=model.trainable_weights if parameters else None,
                layers=all_layers(model),
            )
        inputs = {
            index: [leaf] if is_differentiable(leaf) else []
            for index, leaf in enumerate(_leaves(self.x))
        }
        self._points: dict[Any, list[Any]] = {None: floats, **watched, **inputs}

    def _record(self, inputs: list[Any], watch: Callable[[str, Any], Any]) -> Any:
        with ExitStack() as stack:
            for layer in self._layers():
                hook = partial(self._watched, watch, layer)
                stack.enter_context(replaced_outputs(layer, hook))
            return self._run(self._with_floats(inputs))

    def _layers(self) -> list[keras.Layer]:
        """The inner layers whose outputs gradients will be asked for, each once."""
        layers = [place for place in self._places.values() if isinstance(place, keras.Layer)]
        return list({id(layer): layer for layer in layers}.values())

    def _watched(self, watch: Callable[[Any, Any], Any], layer: keras.Layer, tensor: Any) -> Any:
        require_batched(layer, tensor, _leaves(self.x)[0])
        return watch(layer, tensor)

    def _run(self, x: Any) -> Any:
        return call(self.model, x, self._training)

    def _with_floats(self, floats: list[Any]) -> Any:
        """The inputs with other floating-point tensors in place of theirs."""
        remaining = iter(floats)
        return keras.tree.map_structure(
            lambda leaf: next(remaining) if is_differentiable(leaf) else leaf,
            self.x,
            none_is_leaf=False,
        )

    @property
    def outputs(self) -> list[Any]:
        """The outputs of the model as a flat list."""
        return _leaves(self.y_pred)

    def part(self, fraction: float) -> "ForwardPass":
        """The pass on the first samples of the batch alone.

        It costs what a pass on a batch of that size costs. What it updates, such as moving
        averages, is dropped: the pass on the whole batch has done that.

        Args:
            fraction: The share of the samples, in (0, 1]. Rounded, at least one sample; at 1
                this pass itself.

        Returns:
            A `ForwardPass`.
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
        """The outputs at other inputs: the same function, with the same random numbers.

        Args:
            steps: What is added to the inputs, tensors like those of `input_gradients`.
            at: The inner layer whose output they are added to instead.

        Returns:
            A structure like `y_pred`. What the model updates on the way is dropped.
        """
        remaining = iter(steps)

        def moved(tensor: Any) -> Any:
            return tensor + ops.cast(next(remaining), tensor.dtype)

        place = self._places.get(at)
        with self._repeatable(self._state):
            if isinstance(place, keras.Layer):
                with replaced_outputs(place, moved):
                    return self._run(self.x)
            points = {id(point) for point in self.points(at)}
            floats = [moved(leaf) if id(leaf) in points else leaf for leaf in self._points[None]]
            return self._run(self._with_floats(floats))

    def losses(self, y_pred: Any) -> Any:
        """The compiled loss of each sample alone, as a function of the outputs.

        Args:
            y_pred: A structure like `y_pred`.

        Returns:
            Tensor `(batch_size,)`.
        """
        return per_sample_losses(compiled_loss(self.model), self.y, y_pred)

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
        # There is one value a sample: any other number of them is an error here.
        mean = ops.mean(ops.reshape(values, (self.batch_size,)))
        # A replica has no sample where the last batch is smaller than the number of replicas.
        return ops.where(self.batch_size > 0, mean, ops.zeros_like(mean))

    def points(self, at: str | keras.Layer | None = None) -> list[Any]:
        """The tensors that input gradients are taken at.

        Args:
            at: The inner layer whose outputs they are, `None` for the inputs.

        Returns:
            A list of floating-point tensors `(batch_size, ...)`.

        Raises:
            ValueError: There are none.
        """
        if at is None:
            check_differentiable(self.model, self.x)
        found = self._points.get(self._places.get(at))
        if found and (at is None or at in self._places):
            return found
        if at is not None:
            raise ValueError(
                "`at` must name a layer that the model calls and that has a floating-point "
                f"output, or a floating-point input. Received: at={at!r}"
            )
        raise ValueError(
            "A penalty on input gradients needs a floating-point input, and integers have "
            'no gradient. Give numbers as floats, `x.astype("float32")`. For indices, name the '
            'layer whose output it is taken at instead, `at="embedding"` for one of that name. '
            "Received: inputs of dtypes "
            f"{[keras.backend.standardize_dtype(leaf.dtype) for leaf in _leaves(self.x)]}"
        )

    def input_gradients(
        self, of: Callable[[Any], Any], at: str | keras.Layer | None = None
    ) -> list[Any]:
        """The gradient of a function of the outputs with respect to the inputs.

        Args:
            of: Function of a structure like `y_pred` that returns a tensor, whose sum is
                differentiated: with values `(batch_size,)`, each depending on its own sample,
                this gives the gradient of each. Equal functions share one pullback.
            at: The inner layer whose output takes the place of the inputs.

        Returns:
            A list of tensors like `points(at)`, zero where there is no path.

        Raises:
            ValueError: The model has no floating-point input, or its output does not depend
                on one.
        """
        if (of, at) not in self._taken:
            points = self.points(at)
            gradients = self._gradients(of, points)
            if all(gradient is None for gradient in gradients):
                raise ValueError(
                    "A penalty on input gradients needs a model whose output depends on its "
                    "inputs through differentiable operations. Remove the operation that stops "
                    "the gradient. Received: no path from the "
                    f"{'inputs' if at is None else f'output of {at!r}'} to the output of "
                    f"model {self.model.name!r}"
                )
            self._taken[of, at] = [
                ops.zeros_like(point) if gradient is None else gradient
                for gradient, point in zip(gradients, points, strict=True)
            ]
        return self._taken[of, at]

    def forget(self) -> None:
        """Lets go of the gradients, whose functions may hold this pass in turn.

        Where nothing else holds it, its memory is then free at once, and not when Python next
        looks for such cycles.
        """
        self._taken.clear()
        for part in self._parts.values():
            part.forget()

    def parameter_gradients(self, of: Callable[[Any], Any]) -> list[Any]:
        """The gradient of a function of the outputs with respect to the trainable parameters.

        Args:
            of: Function of a structure like `y_pred` that returns a tensor, whose sum is
                differentiated.

        Returns:
            A list of tensors, one for each parameter that has a gradient.
        """
        gradients = self._gradients(of, self.model.trainable_weights)
        if gradients and all(gradient is None for gradient in gradients):
            raise ValueError(
                "A penalty on parameter gradients needs a loss that depends on the trainable "
                "weights through differentiable operations. Received: no path from the "
                f"trainable weights to the loss of model {self.model.name!r}"
            )
        return [gradient for gradient in gradients if gradient is not None]


def _copy(variable: keras.Variable) -> Any:
    """The value of a variable as it is now. Some backends assign in place."""
    return ops.stop_gradient(ops.copy(variable.value))


def _share(fraction: float, size: Any) -> Any:
    """So many of `size` samples, rounded, at least one."""
    if isinstance(size, int):
        return max(round(fraction * size), 1)
    return ops.maximum(ops.cast(ops.round(fraction * ops.cast(size, "float32")), "int32"), 1)


def _leaves(structure: Any) -> list[Any]:
    return [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]
