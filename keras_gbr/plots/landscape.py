"""The figure of the loss around one input."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_gbr import _checks as check
from keras_gbr import backend
from keras_gbr._keras.layer_tree import check_built
from keras_gbr.penalties.forward_pass import ForwardPass
from keras_gbr.plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEVELS = 16


def loss_landscape(
    model: keras.Model,
    x: Any,
    y: Any,
    radius: float = 1.0,
    resolution: int = 31,
    batch_size: int = 128,
    seed: int = 0,
    ax: "Axes | None" = None,
) -> "Axes":
    r"""Draws the loss around one input, along its gradient and a random direction.

    The plane is $x + a u + b v$: $u$ points along the gradient of the loss at $x$, $v$ along a
    random direction orthogonal to it. Both have length 1. The loss is the compiled loss of that one
    sample, in inference mode. A network that reacts little to its input gives a flat picture. The
    model is not changed.

    Args:
        model: A compiled and built model of one floating-point input.
        x: Array `(1, ...)`, a batch of one sample such as `x_test[:1]`.
        y: Its label: an array `(1, ...)`, or a list or dict of them, as the loss takes it.
        radius: The largest $a$ and $b$: a Euclidean length, in the unit of the input.
        resolution: Number of points along each direction.
        batch_size: Points at a time. It bounds the memory and does not change the result.
        seed: Seed of the random direction.
        ax: The `matplotlib.axes.Axes` to draw on, or `None` for a new figure.

    Returns:
        The `Axes`, with filled contours and a mark at `x`, in the middle.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: The model is not built or has no compiled loss, `x` and `y` are not one
            sample, the gradient is zero or not finite, or another argument is out of its range.

    Example:

    ```python
    ax = keras_gbr.plots.loss_landscape(model, x_val[:1], y_val[:1], resolution=5)
    ```
    """
    canvas.check_axes(ax)
    plane = loss_plane(model, x, y, radius, resolution, batch_size, seed)
    from matplotlib.ticker import MaxNLocator

    ax = canvas.axes_or_new(ax, 5.8, 4.6)
    filled = ax.contourf(plane.offsets, plane.offsets, plane.losses, _LEVELS, cmap="viridis")
    ax.figure.colorbar(filled, ax=ax, label="loss", ticks=MaxNLocator(6))
    ax.plot(0, 0, "o", markersize=8, color="white", markeredgecolor="black")
    ax.set_aspect("equal")
    ax.set_xlabel("along the gradient of the loss, input units")
    ax.set_ylabel("along a random direction, input units")
    ax.set_title(f"loss {plane.loss:.3g} at the input")
    return ax


@dataclass(frozen=True)
class Plane:
    """The loss of one input on a plane through it.

    Attributes:
        u: The direction of the gradient of the loss, an array like the input, of length 1.
        v: A random direction orthogonal to `u`, of length 1.
        offsets: The values of a and of b, array `(resolution,)`.
        losses: The loss at x + a u + b v, array `(b, a)`.
        loss: The loss at x.
    """

    u: np.ndarray
    v: np.ndarray
    offsets: np.ndarray
    losses: np.ndarray
    loss: float


def loss_plane(
    model: keras.Model,
    x: Any,
    y: Any,
    radius: float = 1.0,
    resolution: int = 31,
    batch_size: int = 128,
    seed: int = 0,
) -> Plane:
    """The numbers that `loss_landscape` draws; see there for the arguments and errors."""
    radius = check.number("radius", radius, exclusive=True)
    resolution = check.integer("resolution", resolution, minimum=2)
    batch_size = check.integer("batch_size", batch_size)
    seed = check.integer("seed", seed, minimum=0)
    check_built(model)
    if not model.compiled or model.loss is None:
        raise check.error(
            "`model` must be compiled with a loss: `model.compile(loss=...)`.",
            "loss",
            getattr(model, "loss", None),
        )
    x, y = _one_sample(x, y)
    u = _gradient_direction(model, x, y)
    v = _orthogonal_direction(u, seed)
    offsets = np.linspace(-radius, radius, resolution)
    # The rows are b and the columns a, as contours take them; x itself is the last point.
    b, a = (np.append(grid, 0.0) for grid in np.meshgrid(offsets, offsets, indexing="ij"))
    losses = _losses(model, x, y, u, v, a, b, batch_size)
    return Plane(u, v, offsets, losses[:-1].reshape(resolution, resolution), float(losses[-1]))


def _one_sample(x: Any, y: Any) -> tuple[np.ndarray, Any]:
    expected = "`{}` must hold one sample: an array (1, ...), such as {}_test[:1]."
    try:
        x = np.asarray(x)
        y = keras.tree.map_structure(np.asarray, y)
    except (TypeError, ValueError) as error:
        raise check.error(expected.format("x", "x"), "x, y", (type(x), type(y))) from error
    if x.dtype.kind != "f" or x.ndim < 2 or len(x) != 1:
        raise check.error(
            f"{expected.format('x', 'x')} Its numbers must be floating-point.",
            "x",
            (x.shape, x.dtype.name),
        )
    labels = keras.tree.flatten(y)
    if any(leaf.dtype == object or leaf.shape[:1] != (1,) for leaf in labels):
        raise check.error(expected.format("y", "y"), "y", [leaf.shape for leaf in labels])
    return x.astype(keras.config.floatx()), y


def _gradient_direction(model: keras.Model, x: np.ndarray, y: Any) -> np.ndarray:
    forward = ForwardPass(model, x, _tensors(y))
    (gradient,) = forward.input_gradients(ForwardPass.losses)
    gradient = ops.convert_to_numpy(gradient).astype("float64")
    length = np.linalg.norm(gradient)
    if not (np.isfinite(length) and length > 0):
        raise check.error(
            "The gradient of the loss at `x` must be finite and not zero: without it there is "
            "no direction. Take another input.",
            "norm of the gradient",
            float(length),
        )
    return gradient / length


def _orthogonal_direction(u: np.ndarray, seed: int) -> np.ndarray:
    if u.size < 2:
        raise check.error("An input of one number has no second direction.", "x", u.shape)
    v = np.random.default_rng(seed).standard_normal(u.shape)
    v -= np.sum(u * v) * u
    return v / np.linalg.norm(v)


def _losses(
    model: keras.Model,
    x: np.ndarray,
    y: Any,
    u: np.ndarray,
    v: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    batch_size: int,
) -> np.ndarray:
    """The losses at x + a u + b v, an array like `a` and `b`, which are flat."""

    def losses(points: Any, labels: Any) -> Any:
        forward = ForwardPass(model, points, labels)
        return forward.losses(forward.y_pred)

    compiled = backend.compiled(losses, model)

    parts = []
    for first in range(0, len(a), batch_size):
        scales = np.stack([a[first : first + batch_size], b[first : first + batch_size]], axis=1)
        points = x + np.tensordot(scales, np.stack([u[0], v[0]]), axes=1)
        labels = _tensors(
            keras.tree.map_structure(partial(np.repeat, repeats=len(points), axis=0), y)
        )
        values = compiled(ops.convert_to_tensor(points.astype(x.dtype)), labels)
        parts.append(ops.convert_to_numpy(values))
    return np.concatenate(parts).astype("float64")


def _tensors(structure: Any) -> Any:
    return keras.tree.map_structure(ops.convert_to_tensor, structure)
