"""Gradient descent follows the flow of a modified loss, and a penalty makes that explicit.

    python examples/implicit_regularization.py [--steps N N ...] [--time T] [--seed S]

Barrett & Dherin 2021: gradient descent with step h stays closer to the gradient flow of
L + (h/4) ||grad L||^2, which is `ParameterGradient(h / 4)`, than to that of L. See
examples/README.md.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.tools import (
    Progress,
    aligned,
    at_least,
    positive,
    quiet_imports,
    write_csv,
    write_whole,
)

with quiet_imports(__file__):
    import keras
    import matplotlib
    import numpy as np
    from scipy.integrate import solve_ivp

    matplotlib.use("Agg")
    from matplotlib import pyplot

    import keras_gbr as gbr

POINTS = np.linspace(-1, 1, 6)[:, None]
LABELS = np.sin(3 * POINTS)
# Far below the smallest measured distance, about 1e-5.
TOLERANCES = {"rtol": 1e-10, "atol": 1e-12}

# The picture: two parameters, a step that is large for them, and a tenth of that step.
PLANE_START = (1.5, 2.5)
PLANE_STEP, PLANE_STEPS, FINER = 0.3, 12, 10


class Trail(keras.callbacks.Callback):
    """Notes the parameters after each step of `fit`, in `points`."""

    def __init__(self) -> None:
        super().__init__()
        self.points: list[np.ndarray] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # Under JAX Keras puts the weights back into the model when a callback asks for it.
        self.points.append(flat(self.model))


def flat(model: keras.Model) -> np.ndarray:
    """The parameters of a model as one vector."""
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


class Trainee:
    """A tanh network that fits six points of a sine, in double precision, as a flat vector.

    Args:
        units: Hidden units.
        biases: Whether the layers have biases; one unit without them leaves two parameters.
        step: Learning rate of plain gradient descent on all points.
        weight: Weight of the penalty on the parameter gradient; 0 is training without it.
    """

    def __init__(self, units: int, biases: bool, step: float, weight: float = 0.0) -> None:
        inputs = keras.Input((1,))
        hidden = keras.layers.Dense(units, activation="tanh", use_bias=biases)(inputs)
        outputs = keras.layers.Dense(1, use_bias=biases)(hidden)
        self.model = gbr.GBRModel(inputs, outputs)
        penalties = [gbr.ParameterGradient(weight)] if weight else []
        self.model.compile(keras.optimizers.SGD(step), "mse", penalties=penalties)

    @property
    def parameters(self) -> np.ndarray:
        return flat(self.model)

    @parameters.setter
    def parameters(self, values: np.ndarray) -> None:
        sizes = [math.prod(weight.shape) for weight in self.model.weights]
        parts = np.split(np.asarray(values), np.cumsum(sizes)[:-1])
        pairs = zip(parts, self.model.weights, strict=True)
        self.model.set_weights([part.reshape(weight.shape) for part, weight in pairs])

    def descend(self, start: Sequence[float], steps: int) -> np.ndarray:
        """Trains by `fit`; the parameters at the start and after each step."""
        self.parameters = start
        trail = Trail()
        # One epoch in which each batch is all points: an epoch for each step takes far longer.
        points, labels = (np.tile(array, (steps, 1)) for array in (POINTS, LABELS))
        options = {"batch_size": len(POINTS), "shuffle": False, "verbose": 0}
        self.model.fit(points, labels, callbacks=[trail], **options)
        return np.array([start, *trail.points])


class Flow(Trainee):
    """The gradient flow of the loss with its penalty, integrated to high accuracy."""

    def __init__(self, units: int, biases: bool, weight: float = 0.0) -> None:
        super().__init__(units, biases, step=1.0, weight=weight)

    def velocity(self, parameters: np.ndarray) -> np.ndarray:
        """Minus the gradient: what one training step with learning rate 1 adds."""
        self.parameters = parameters
        self.model.train_on_batch(POINTS, LABELS)
        return self.parameters - parameters

    def end(self, start: np.ndarray, time: float) -> np.ndarray:
        """The parameters after `time`, from `start`."""
        solution = solve_ivp(
            lambda _, parameters: self.velocity(parameters),
            (0.0, time),
            start,
            method="DOP853",
            **TOLERANCES,
        )
        if not solution.success:
            raise ArithmeticError(solution.message)
        return solution.y[:, -1]


def measure(
    steps: Sequence[int], time: float = 2.0, seed: int = 1, units: int = 3
) -> list[dict[str, float]]:
    """The distances of gradient descent from both flows at one time, for several step sizes.

    Args:
        steps: Numbers of gradient steps, increasing. The step size is `time / steps`.
        time: When to compare.
        seed: Seed of the start.
        units: Hidden units of the network, which has `3 * units + 1` parameters.

    Returns:
        A row for each number of steps: its distances, and their orders against the row before.

    Raises:
        ArithmeticError: Gradient descent diverges.
    """
    start = 0.8 * np.random.default_rng(seed).standard_normal(3 * units + 1)
    # Before the flows, which take long if gradient descent diverges.
    ends = [_end(units, start, time / number, number) for number in steps]
    progress = Progress(1 + len(steps))
    plain_end = Flow(units, True).end(start, time)
    progress.advance("flow of L")
    rows: list[dict[str, float]] = []
    for number, end in zip(steps, ends, strict=True):
        step = time / number
        modified_end = Flow(units, True, step / 4).end(start, time)
        row = {"steps": number, "step_size": step}
        row["plain"] = float(np.linalg.norm(end - plain_end))
        row["modified"] = float(np.linalg.norm(end - modified_end))
        for flow in ("plain", "modified"):
            row[f"{flow}_order"] = order(rows[-1], row, flow) if rows else math.nan
        rows.append(row)
        progress.advance(f"modified flow of step {step:g}")
    return rows


def _end(units: int, start: np.ndarray, step: float, number: int) -> np.ndarray:
    """Where gradient descent ends."""
    end = Trainee(units, True, step).descend(start, number)[-1]
    if not np.all(np.isfinite(end)):
        raise ArithmeticError(
            f"gradient descent diverges with step {step:g}. Take more --steps or less --time."
        )
    return end


def order(coarse: dict[str, float], fine: dict[str, float], flow: str) -> float:
    """The power of the step size with which a distance falls."""
    return math.log(coarse[flow] / fine[flow]) / math.log(coarse["step_size"] / fine["step_size"])


def plane_paths() -> dict[str, np.ndarray]:
    """Paths of a network with two parameters: one large step, and small ones on two losses."""
    fine, number = PLANE_STEP / FINER, PLANE_STEPS * FINER
    return {
        "large": Trainee(1, False, PLANE_STEP).descend(PLANE_START, PLANE_STEPS),
        "small": Trainee(1, False, fine).descend(PLANE_START, number),
        "explicit": Trainee(1, False, fine, PLANE_STEP / 4).descend(PLANE_START, number),
    }


def table(rows: list[dict[str, float]]) -> str:
    heading = ["steps", "step h", "from flow of L", "order", "from modified flow", "order"]
    cells = [heading]
    for row in rows:
        texts = [f"{row['steps']}", f"{row['step_size']:g}"]
        for flow in ("plain", "modified"):
            power = row[f"{flow}_order"]
            texts += [f"{row[flow]:.3e}", "" if math.isnan(power) else f"{power:.2f}"]
        cells.append(texts)
    return aligned(cells)


def write_figure(rows: list[dict[str, float]], paths: dict[str, np.ndarray], path: Path) -> None:
    """Draws the distances with lines of slope 1 and 2, and the paths in the plane."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    _draw_orders(left, rows)
    _draw_paths(right, paths)
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=110))
    pyplot.close(figure)


def _draw_orders(axis: Any, rows: list[dict[str, float]]) -> None:
    steps = np.array([row["step_size"] for row in rows])
    modified = r"that of $L+\frac{h}{4}\|\nabla L\|^2$"
    flows = (("plain", 1, "the flow of $L$"), ("modified", 2, modified))
    for (flow, slope, label), color in zip(flows, ("tab:blue", "tab:red"), strict=True):
        distances = np.array([row[flow] for row in rows])
        axis.loglog(steps, distances, "o", color=color, label=f"from {label}")
        reference = distances[-1] * (steps / steps[-1]) ** slope
        axis.loglog(steps, reference, "--", color=color, linewidth=1, label=f"slope {slope}")
    axis.set(xlabel="step $h$", ylabel="distance of gradient descent, at one time")
    axis.set_title("a network with ten parameters")
    axis.set_xticks(steps, [f"{step:.3g}" for step in steps])
    axis.minorticks_off()
    axis.grid(color="0.92")
    axis.legend(frameon=False)


def _draw_paths(axis: Any, paths: dict[str, np.ndarray]) -> None:
    everything = np.concatenate(list(paths.values()))
    low, high = everything.min(axis=0) - 0.15, everything.max(axis=0) + 0.15
    first, second = (np.linspace(*ends, 120) for ends in zip(low, high, strict=True))
    predictions = second[:, None, None] * np.tanh(first[:, None] * POINTS[:, 0])
    losses = np.mean((predictions - LABELS[:, 0]) ** 2, axis=-1)
    axis.contour(first, second, losses, 25, colors="0.85", linewidths=0.8)
    fine = PLANE_STEP / FINER
    axis.plot(*paths["large"].T, "ko-", markersize=5, label=f"steps of {PLANE_STEP:g} on $L$")
    axis.plot(*paths["small"].T, color="tab:blue", label=f"steps of {fine:g} on $L$")
    label = f"steps of {fine:g} with ParameterGradient({PLANE_STEP / 4:g})"
    axis.plot(*paths["explicit"].T, color="tab:red", label=label)
    axis.set(xlabel="$w$", ylabel="$v$", title=r"the network $v\,\tanh(w x)$")
    axis.legend(frameon=False, loc="upper left")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--steps",
        type=at_least(1),
        nargs="+",
        default=[32, 64, 128, 256],
        metavar="N",
        help="numbers of gradient steps in the time T, increasing; the step size is T / N",
    )
    add("--time", type=positive, default=2.0, metavar="T", help="when paths and flows are compared")
    add("--seed", type=at_least(0), default=1, help="seed of the start")
    add("--output", type=Path, default=Path("results"), help="folder for the CSV and the PNG")
    add("--smoke", action="store_true", help="two step sizes: only a test")
    options = parser.parse_args(argv)
    if keras.backend.backend() != "tensorflow":
        parser.error(
            "needs double precision and so the TensorFlow backend: under the others Keras takes "
            "means of float64 in float32. Received: "
            f"KERAS_BACKEND={keras.backend.backend()}"
        )
    if options.smoke:
        options.steps = [32, 64]
    if len(options.steps) < 2 or options.steps != sorted(set(options.steps)):
        parser.error(
            "argument --steps: must be two or more increasing numbers. "
            f"Received: {' '.join(map(str, options.steps))}"
        )
    return options


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        rows = measure(options.steps, options.time, options.seed)
    except (OSError, ArithmeticError) as error:
        raise SystemExit(f"implicit_regularization.py: error: {error}") from None
    paths = plane_paths()
    ends = {name: path[-1] for name, path in paths.items()}
    print(f"\nDistances of gradient descent at time {options.time:g}\n\n{table(rows)}\n")
    for name, text in (("small", "on L"), ("explicit", "with the penalty")):
        distance = np.linalg.norm(ends[name] - ends["large"])
        print(f"Two parameters: small steps {text} end {distance:.3f} from the large steps.")
    write_csv(rows, options.output / "implicit_regularization.csv")
    write_figure(rows, paths, options.output / "implicit_regularization.png")
    print(f"Written: {options.output}/implicit_regularization.csv and .png")


if __name__ == "__main__":
    main()
