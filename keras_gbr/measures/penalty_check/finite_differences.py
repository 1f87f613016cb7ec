"""The slopes of a penalty along changes of the weights."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gbr import backend
from keras_gbr._keras.layer_tree import all_layers
from keras_gbr.measures.compile_cache import compiled
from keras_gbr.measures.penalty_check.differences import (
    Measured,
    float64,
    noise_line,
    norm,
    random_directions,
    sharpest,
    step_for,
    typical_slope,
    unit,
)
from keras_gbr.measures.penalty_check.report import Comparison, largest_error
from keras_gbr.penalties import Penalty
from keras_gbr.penalties.forward_pass import ForwardPass


class Slopes:
    """The slopes of one penalty on one batch, by its gradient and by differences.

    Args:
        model: The model.
        penalty: The penalty.
        batch: Inputs, labels and weights of the samples.
        restore: Brings the model back to the state that every evaluation starts from.
    """

    def __init__(
        self, model: keras.Model, penalty: Penalty, batch: Any, restore: Callable[[], None]
    ) -> None:
        self.model, self.penalty, self.batch = model, penalty, batch
        self.restore, self.reason = restore, ""
        self.weights = model.trainable_weights
        self.constants = keras.tree.map_structure(
            ops.stop_gradient,
            penalty.constants(_forward_pass(model, penalty, batch)),
            none_is_leaf=False,
        )
        self._function = compiled(self._value, model)
        restore()
        self.gradients = self._gradients()
        restore()
        self.values = {id(weight): float64(weight) for weight in self.weights}

    def _value(self) -> Any:
        return value(self.model, self.penalty, self.batch, self.constants)

    def _gradients(self) -> dict[int, np.ndarray]:
        """The gradient of the penalty by each weight, under the `id` of the weight."""
        try:
            found = compiled(self._recorded_gradients, self.model)()
        except LookupError as error:
            raise ValueError(
                f"Penalty {self.penalty.name!r} has no gradient with this model: an operation of "
                f"it has no second derivative. Received: {error}"
            ) from error
        pairs = zip(self.weights, found, strict=True)
        return {id(weight): float64(gradient) for weight, gradient in pairs}

    def _recorded_gradients(self) -> list[Any]:
        total, _, gradients_of = backend.record(
            lambda inputs, watch: self._value(),
            [],
            parameters=self.weights,
            layers=all_layers(self.model),
        )
        if not self.model.run_eagerly:
            self.reason = _missing_second_derivative(total, self.model)
        found = gradients_of(lambda total: total, self.weights, strict=False)
        return [
            ops.zeros_like(weight.value) if gradient is None else gradient
            for weight, gradient in zip(self.weights, found, strict=True)
        ]

    def choose_step(self, step: float | None, epsilon: float, rng: np.random.Generator) -> None:
        """Sets the step of the differences from the rounding of the values.

        Args:
            step: The step, if it is given.
            epsilon: The spacing of numbers at 1 in the precision of the model.
            rng: Draws the line.
        """
        nominal = epsilon ** (1 / 3) if step is None else step
        line = [
            np.linalg.norm(self.values[id(weight)]) * each
            for weight in self.weights
            for each in unit([rng.standard_normal(tuple(weight.shape))])
        ]
        values = [self._at(self.weights, line, place)[0] for place in noise_line(nominal)]
        self.rounding, self.step = step_for(values, epsilon, step)

    def compared(
        self, penalty: str, path: str, variables: list[Any], rng: np.random.Generator, count: int
    ) -> Comparison:
        """The slopes by the variables of a layer, along the direction where they differ most.

        Args:
            penalty: Name of the penalty.
            path: Path of the layer.
            variables: Its trainable variables.
            rng: Draws the random directions.
            count: Number of random directions.
        """
        gradient = [self.gradients[id(variable)] for variable in variables]
        directions = random_directions(gradient, rng, count)
        if norm(gradient) > 0:
            directions.insert(0, unit(gradient))
        length = norm([self.values[id(variable)] for variable in variables]) or 1.0
        found = [self._sharpest(variables, direction, length) for direction in directions]
        return largest_error(penalty, path, found)

    def _sharpest(
        self, variables: list[Any], direction: list[np.ndarray], length: float
    ) -> Measured:
        gradient = [self.gradients[id(variable)] for variable in variables]
        return sharpest(
            lambda step: self._slopes(variables, direction, step),
            self.step * length,
            self.rounding,
            typical_slope(gradient),
        )

    def _slopes(
        self, variables: list[Any], direction: list[np.ndarray], step: float
    ) -> tuple[float, float]:
        """The slope along a direction by a central difference, and by the gradient."""
        high, above = self._at(variables, direction, step)
        low, below = self._at(variables, direction, -step)
        # By the actual change of the weights, which are rounded.
        rise = sum(
            np.sum(self.gradients[id(variable)] * (upper - lower))
            for variable, upper, lower in zip(variables, above, below, strict=True)
        )
        return (high - low) / (2 * step), float(rise) / (2 * step)

    def _at(
        self, variables: list[Any], direction: list[np.ndarray], step: float
    ) -> tuple[float, list[np.ndarray]]:
        """The value of the penalty a step away, and the weights there."""
        self.restore()
        for variable, change in zip(variables, direction, strict=True):
            moved = self.values[id(variable)] + step * change
            variable.assign(ops.convert_to_tensor(moved, variable.dtype))
        weights = [float64(variable) for variable in variables]
        return float(ops.convert_to_numpy(self._function())), weights


def value(model: keras.Model, penalty: Penalty, batch: Any, constants: Any) -> Any:
    """The unweighted value of a penalty on a batch, a scalar, in training mode."""
    forward = _forward_pass(model, penalty, batch)
    arguments = {} if constants is None else {"constants": constants}
    value = penalty(forward, **arguments)
    return forward.sample_mean(value) if len(value.shape) else value


def _forward_pass(model: keras.Model, penalty: Penalty, batch: Any) -> ForwardPass:
    x, y, sample_weight = batch
    at = penalty.at
    forward = ForwardPass(
        model, x, y, sample_weight, True, penalty.needs_parameters, [] if at is None else [at]
    )
    return forward.part(penalty.fraction)


def _missing_second_derivative(value: Any, model: keras.Model) -> str:
    try:
        backend.require_second_derivatives(value, model)
    except ValueError as error:
        return str(error)
    return ""
