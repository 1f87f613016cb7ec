"""Slopes by differences: their possible errors, and the step that shows most."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras import ops

# The number of points from which the rounding of a function is estimated, and their distance as a
# part of a step.
_NOISE_POINTS, _NOISE_PART = 12, 1 / 512
# The median magnitude of normally distributed numbers with variance 1.
_MEDIAN = 0.6745
# The longest step that rounding leads to, relative to the length of what is moved.
_LONGEST_STEP = 0.05
# The possible error of a slope, in units of its change when the step is doubled. Curvature makes a
# third of that change; one jump, where a unit switches, makes twice as much.
_SAFETY = 2.5
# How many times larger than the noise a difference must be to count.
_CLEAR = 10.0
# Where the slopes disagree or the noise is above `_SHARP`, the step is divided by `_FINER`, at most
# `_REFINEMENTS` times.
_REFINEMENTS, _FINER, _SHARP = 7, 4, 0.02


class Measured(NamedTuple):
    """The slopes along one direction; noise and difference relative to the larger of them."""

    analytic: float
    numeric: float
    noise: float
    difference: float

    @property
    def agrees(self) -> bool:
        """Whether the difference of the slopes is within the noise."""
        return self.difference <= _CLEAR * self.noise

    @property
    def error(self) -> float:
        """The difference of the slopes, 0 if they agree."""
        return 0.0 if self.agrees else self.difference


class _Step(NamedTuple):
    analytic: float
    numeric: float
    # Errors of the numeric slope: from curvature and rounding together, and from rounding.
    noise: float
    rounding: float


def sharpest(
    slopes: Callable[[float], tuple[float, float]], step: float, rounding: float, typical: float
) -> Measured:
    """The slopes along a direction, by the step that shows most.

    A penalty on a network of ReLUs jumps. Many jumps within a step add up to a slope that the
    gradient does not have, and a step twice as long may have the same slope. A shorter step has
    fewer jumps and another slope. A wrong gradient is equally wrong for every step. So the
    difference to the slopes of shorter steps, beyond their rounding, is noise of the longer step.

    Args:
        slopes: Takes a step; returns the slope by a central difference and by the gradient.
        step: The longest step.
        rounding: The typical error of a value of the function.
        typical: A scale of the slopes, for directions at right angles to the gradient.
    """
    steps: list[_Step] = []
    best = Measured(0.0, 0.0, math.inf, math.inf)
    for refinement in range(_REFINEMENTS + 1):
        length = step / _FINER**refinement
        numeric, analytic = slopes(length)
        coarse, _ = slopes(2 * length)
        # By chance kinks may hardly change a slope from one step to the next, but not twice.
        coarser = steps[-1].numeric if steps else slopes(4 * length)[0]
        from_rounding = 4 * rounding / length
        change = max(abs(numeric - coarse), abs(numeric - coarser) / 3)
        noise = _SAFETY * change + from_rounding
        steps.append(_Step(analytic, numeric, noise, from_rounding))
        best = min((_judged(steps, i, typical) for i in range(len(steps))), key=_uncertainty)
        if best.agrees and best.noise < _SHARP:
            break
    return best


def _judged(steps: list[_Step], index: int, typical: float) -> Measured:
    """The result of a step, given those of the shorter steps after it."""
    this = steps[index]
    jumps = [abs(this.numeric - s.numeric) - s.rounding for s in steps[index + 1 :]]
    noise = max([this.noise, *jumps])
    scale = max(abs(this.analytic), abs(this.numeric), typical) or 1.0
    return Measured(
        this.analytic, this.numeric, noise / scale, abs(this.analytic - this.numeric) / scale
    )


def _uncertainty(found: Measured) -> tuple[bool, float]:
    # NaN counts as the largest error.
    return math.isnan(found.difference), found.noise


def noise_line(nominal: float) -> np.ndarray:
    """The places on a line of the points from which rounding is estimated."""
    return nominal * _NOISE_PART * np.arange(_NOISE_POINTS)


def step_for(values: Any, epsilon: float, step: float | None) -> tuple[float, float]:
    """The rounding of a function, and the step of differences that fits it.

    The third differences of values on a short line hardly contain the smooth part. Independent
    errors of variance s^2 give them the variance 20 s^2. Single jumps do not move their median.

    Args:
        values: Values at the points of `noise_line`.
        epsilon: The spacing of numbers at 1 in the precision of the model.
        step: The step, if it is given.

    Returns:
        The typical error of a value, and the step relative to the length of what is moved.
    """
    rounding = np.median(np.abs(np.diff(values, 3))) / _MEDIAN / math.sqrt(20)
    rounding = max(float(rounding), epsilon * 2**-6 * abs(values[0]))
    if step is not None:
        return rounding, step
    nominal = epsilon ** (1 / 3)
    relative = rounding / abs(values[0]) if values[0] else epsilon
    return rounding, min(max(nominal, relative ** (1 / 3)), max(nominal, _LONGEST_STEP))


def random_directions(
    arrays: list[np.ndarray], rng: np.random.Generator, count: int
) -> list[list[np.ndarray]]:
    """Directions of length 1, each a list of arrays of the shapes of `arrays`."""
    return [unit([rng.standard_normal(array.shape) for array in arrays]) for _ in range(count)]


def typical_slope(gradient: list[np.ndarray]) -> float:
    """A scale of slopes for random directions, which may be at right angles to the gradient."""
    return norm(gradient) / math.sqrt(sum(array.size for array in gradient))


def unit(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Arrays scaled so that they have length 1 as one vector."""
    return [array / norm(arrays) for array in arrays]


def norm(arrays: list[np.ndarray]) -> float:
    """The length of arrays as one vector."""
    return math.sqrt(sum(float(np.sum(array**2)) for array in arrays))


def float64(values: Any) -> np.ndarray:
    """A tensor as an array in double precision."""
    return np.array(ops.convert_to_numpy(values), dtype="float64")
