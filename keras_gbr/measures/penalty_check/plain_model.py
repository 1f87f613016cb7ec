"""Compares the parts of a penalty with the plain model: its gradients, outputs and losses."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gbr._keras.calls import call
from keras_gbr._keras.masks import mask_of
from keras_gbr._keras.per_sample_losses import compiled_loss
from keras_gbr._keras.stateless import NestedStatelessScope
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
from keras_gbr.penalties.forward_pass import ForwardPass, OutputFunction
from keras_gbr.penalties.inputs import as_taken, is_differentiable

PARAMETERS = "(gradient by the parameters)"
INPUTS = "(gradient by the inputs)"
OUTPUTS = "(outputs at moved inputs)"
LOSS = "(loss)"
# The largest difference of outputs and losses that is rounding, in spacings of numbers at 1.
_ROUNDINGS = 2.0**10
_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


class _Observed(ForwardPass):
    """A forward pass that records the gradients and outputs that a penalty takes from it.

    Attributes:
        claims: Triples: the place of a gradient, the function of the outputs, the gradient.
        moved: Pairs of outputs at moved inputs: those of the pass, and those of the model.
    """

    claims: list[tuple[str, Any, list[Any]]]
    moved: list[tuple[Any, Any]]
    plain: Callable[[list[Any]], Any]

    def input_gradients(self, function: OutputFunction, at: Any = None) -> list[Any]:
        found = super().input_gradients(function, at)
        self._note(INPUTS if at is None else _place(at), function, found)
        return found

    def parameter_gradients(self, function: OutputFunction) -> list[Any]:
        weights = self.model.trainable_weights
        found = self._gradients(partial(function, self), weights)
        pairs = zip(found, weights, strict=True)
        self._note(
            PARAMETERS, function, [ops.zeros_like(w.value) if g is None else g for g, w in pairs]
        )
        return [gradient for gradient in found if gradient is not None]

    def outputs_at(self, steps: list[Any], at: Any = None) -> Any:
        outputs = super().outputs_at(steps, at)
        if at is None:
            self.moved.append((outputs, self.plain(steps)))
        return outputs

    def _note(self, place: str, function: OutputFunction, gradients: list[Any]) -> None:
        if not any(place == other and function == known for other, known, _ in self.claims):
            self.claims.append((place, function, gradients))


def _place(at: Any) -> str:
    return f"(gradient at {getattr(at, 'name', at)})"


class Plain:
    """The parts of one penalty on one batch, by the package and by the plain model.

    The plain model is called as a train step of Keras calls it, on the batch and the weights, as
    given or moved a little. No gradient of it is taken.

    Args:
        model: The model.
        penalty: The penalty.
        batch: Inputs, labels and weights of the samples.
        restore: Brings the model back to the state that every evaluation starts from.
        epsilon: The spacing of numbers at 1 in the precision of the model.
    """

    def __init__(
        self,
        model: keras.Model,
        penalty: Penalty,
        batch: Any,
        restore: Callable[[], None],
        epsilon: float,
    ) -> None:
        self.model, self.penalty, self.restore, self.epsilon = model, penalty, restore, epsilon
        self.batch = _share(batch, penalty.fraction)
        self.places: list[str] = []
        first = compiled(self._claimed, model)
        restore()
        gradients, points, self.moved, self.losses = keras.tree.map_structure(
            float64, first(), none_is_leaf=False
        )
        self.gradients = {
            place: [g for where, g in zip(self.places, gradients, strict=True) if where == place]
            for place in dict.fromkeys(self.places)
        }
        self.points = dict(zip(self.gradients, points, strict=True))

    def compared(self, rng: np.random.Generator, count: int) -> list[Comparison]:
        """A comparison for each place that gradients are taken at, the outputs, and the loss.

        Args:
            rng: Draws the random directions.
            count: Their number for each place.
        """
        rows = [self._row(place, rng, count) for place in self.gradients]
        pairs = [(OUTPUTS, self.moved), (LOSS, self.losses)]
        return rows + [self._equal(name, *pair) for name, pair in pairs if pair is not None]

    def _observed(self) -> tuple[_Observed, Callable[..., Any]]:
        """The penalty on a pass, and the plain model in the state before that pass."""
        x, y, sample_weight = self.batch
        model, at = self.model, self.penalty.at
        start = [(variable, ops.copy(variable.value)) for variable in model.variables]
        forward = _Observed(
            model,
            x,
            y,
            sample_weight,
            True,
            self.penalty.needs_parameters,
            [] if at is None else [at],
        )
        forward.claims, forward.moved = [], []
        taken = as_taken(model, x)

        def plain(steps: Any = None, weights: Any = None) -> Any:
            remaining = iter([] if steps is None else steps)

            def moved(leaf: Any) -> Any:
                step = next(remaining, None) if is_differentiable(leaf) else None
                return leaf if step is None else leaf + ops.cast(step, leaf.dtype)

            inputs = keras.tree.map_structure(moved, taken, none_is_leaf=False)
            shifts = dict(
                zip((id(w) for w in model.trainable_weights), weights or [], strict=False)
            )
            values = [(v, value + shifts.get(id(v), 0)) for v, value in start if id(v) in shifts]
            values += [(v, value) for v, value in start if id(v) not in shifts]
            with NestedStatelessScope(values):
                return call(model, inputs, training=True)

        forward.plain = plain
        self.penalty(forward)
        return forward, plain

    def _claimed(self) -> Any:
        """The gradients, the points they are taken at, and pairs of outputs and of losses."""
        forward, plain = self._observed()
        self.places = [place for place, _, _ in forward.claims]
        points = [
            [w.value for w in self.model.trainable_weights]
            if place == PARAMETERS
            else forward.points(self.penalty.at)
            for place in dict.fromkeys(self.places)
        ]
        losses = None
        if self.penalty.needs_loss and _is_mean(self.model, forward.outputs):
            outputs = plain()
            mean = ops.mean(forward.losses(outputs))
            losses = mean, compiled_loss(self.model)(forward.y, outputs)
        gradients = [list(gradient) for _, _, gradient in forward.claims]
        return gradients, points, forward.moved[0] if forward.moved else None, losses

    def _values(self, place: str) -> Callable[..., Any]:
        """The functions whose gradients are taken at a place, of the model moved there."""

        def values(*shifts: Any) -> list[Any]:
            forward, plain = self._observed()
            if place == PARAMETERS:
                outputs = plain(None, list(shifts))
            elif place == INPUTS:
                outputs = plain(list(shifts))
            else:
                outputs = ForwardPass.outputs_at(forward, list(shifts), self.penalty.at)
            claims = [function for where, function, _ in forward.claims if where == place]
            return [function(forward, outputs) for function in claims]

        return compiled(values, self.model)

    def _row(self, place: str, rng: np.random.Generator, count: int) -> Comparison:
        claims, points = self.gradients[place], self.points[place]
        function = self._values(place)
        length = norm(points) or 1.0

        def at(direction: list[np.ndarray], step: float) -> np.ndarray:
            self.restore()
            dtype = "float64" if self.epsilon < 1e-10 else "float32"
            moves = [ops.convert_to_tensor((step * d).astype(dtype)) for d in direction]
            return np.array([float64(value).sum() for value in function(*moves)])

        directions = random_directions(points, rng, count)
        signs = rng.choice((-1.0, 1.0), len(claims))
        parts = zip(*claims, strict=True)
        mixed = [sum(s * g for s, g in zip(signs, part, strict=True)) for part in parts]
        if norm(mixed) > 0:
            directions.insert(0, unit(mixed))
        places = noise_line(self.epsilon ** (1 / 3))
        line = np.array([at(directions[-1], length * place) for place in places])
        found = [
            _slope(at, direction, claim, line[:, number], number, (length, self.epsilon))
            for direction in directions
            for number, claim in enumerate(claims)
        ]
        return largest_error(self.penalty.name, place, found)

    def _equal(self, name: str, ours: Any, plain: Any) -> Comparison:
        ours, plain = (
            np.concatenate([part.reshape(-1) for part in keras.tree.flatten(each)])
            for each in (ours, plain)
        )
        worst = int(np.argmax(np.abs(ours - plain)))
        scale = max(np.max(np.abs(ours)), np.max(np.abs(plain))) or 1.0
        difference = abs(ours[worst] - plain[worst]) / scale
        noise = _ROUNDINGS * self.epsilon / 10
        error = 0.0 if difference <= 10 * noise else float(difference)
        return Comparison(
            self.penalty.name, name, float(ours[worst]), float(plain[worst]), noise, error
        )


def _slope(
    at: Callable[[list[np.ndarray], float], np.ndarray],
    direction: list[np.ndarray],
    claim: list[np.ndarray],
    line: np.ndarray,
    number: int,
    scales: tuple[float, float],
) -> Measured:
    """The slope of one of the functions along a direction, and by its gradient."""
    length, epsilon = scales
    analytic = float(sum(np.sum(g * d) for g, d in zip(claim, direction, strict=True)))
    rounding, step = step_for(line, epsilon, None)

    def slopes(step: float) -> tuple[float, float]:
        rise = at(direction, step)[number] - at(direction, -step)[number]
        return float(rise) / (2 * step), analytic

    return sharpest(slopes, step * length, rounding, typical_slope(claim))


def _is_mean(model: keras.Model, outputs: list[Any]) -> bool:
    """Whether the compiled loss of a batch is the mean of the losses of its samples.

    It is not if a loss is summed, or a mask leaves out entries.
    """
    losses = [loss for loss in keras.tree.flatten(model.loss) if loss is not None]
    losses = [keras.losses.get(loss) for loss in losses]
    means = all(getattr(loss, "reduction", "mean") in _MEANS for loss in losses)
    masked = any(mask_of(output) is not None for output in outputs)
    ignoring = any(getattr(loss, "ignore_class", None) is not None for loss in losses)
    return means and not masked and not ignoring


def _share(batch: Any, fraction: float) -> Any:
    """The first samples of a batch, as many as a penalty takes."""
    if fraction == 1.0:
        return batch
    size = max(round(fraction * keras.tree.flatten(batch[0])[0].shape[0]), 1)
    return keras.tree.map_structure(lambda leaf: leaf[:size], batch, none_is_leaf=False)
