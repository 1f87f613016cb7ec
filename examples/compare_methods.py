"""Trains one small convolutional network per method and compares the results.

    python examples/compare_methods.py [--dataset NAME] [--methods A B ...] [--epochs N] ...

See examples/README.md.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.tools import Progress, at_least, quiet_imports

with quiet_imports(__file__):
    import keras
    import numpy as np
    from common.images import Data, load
    from common.measures import Examiner, relative_step_time
    from common.network import BATCH_SIZE, Batches, network
    from common.report import mean_and_spread, table, write_csv, write_figure

    import keras_gbr as gbr

SHIFT = 1e-3
# The share of validation accuracy that a method may lose by a stronger setting.
TOLERANCE = 0.01


@dataclasses.dataclass(frozen=True)
class Method:
    """One row: what it changes in the plain network, and how its setting was found.

    Attributes:
        parts: The keyword arguments of `network`, given the setting.
        quantity: The quantity that the method reduces, by its name in the `Examiner`.
        parameter: Name of the setting.
        chosen: Its value: the outcome of `--tune` on digits.
        grid: The values that `--tune` tries, from the weakest to the strongest.
    """

    parts: Callable[[Any], dict[str, Any]] = lambda _: {}
    quantity: str = ""
    parameter: str = ""
    chosen: float | None = None
    grid: tuple[float, ...] = ()

    def setting(self, value: float | None) -> str:
        return f"{self.parameter}={value:g}" if self.parameter else ""


def _regularizer(make: Callable[[float], Any]) -> Callable[[float], dict[str, Any]]:
    return lambda value: {"regularizer": make(value)}


def _penalty(make: Callable[[float], Any]) -> Callable[[float], dict[str, Any]]:
    return lambda value: {"penalties": [make(value)]}


def _enc(per_filter: bool, center: bool, chosen: float) -> Method:
    def parts(alpha: float) -> dict[str, Any]:
        options = {"alpha": alpha, "per_filter": per_filter, "center": center}
        return {"wrap": functools.partial(gbr.ENCConv, **options)}

    return Method(parts, "mean ||W||^2, conv.", "alpha", chosen, (2.0, 1.0, 0.5, 0.25))


METHODS = {
    "plain": Method(),
    "l2": Method(
        _regularizer(keras.regularizers.L2),
        "sum ||W||^2",
        "factor",
        1e-1,
        (3e-3, 1e-2, 3e-2, 1e-1),
    ),
    "spectral": Method(
        _regularizer(gbr.Spectral),
        "sum sigma(W)^2",
        "factor",
        1.0,
        (3e-2, 1e-1, 3e-1, 1.0),
    ),
    "weissi": Method(
        _regularizer(gbr.WEISSI),
        "prod ||W||",
        "log_factor",
        1e-2,
        (1e-2, 3e-2, 1e-1, 2e-1),
    ),
    "shifted-l2": Method(
        _regularizer(functools.partial(gbr.ShiftedL2, epsilon=SHIFT)),
        "shifted L2 of W",
        "factor",
        1e-1,
        (3e-3, 1e-2, 3e-2, 1e-1),
    ),
    "enc-20": _enc(per_filter=False, center=False, chosen=0.25),
    "enc-21": _enc(per_filter=True, center=False, chosen=0.25),
    "enc-22": _enc(per_filter=True, center=True, chosen=0.25),
    "enc-23": _enc(per_filter=False, center=True, chosen=0.25),
    "weight-norm": Method(lambda _: {"wrap": gbr.WeightNorm}),
    "weight-standardization": Method(lambda _: {"wrap": gbr.WeightStandardization}),
    "jacobian": Method(_penalty(gbr.Jacobian), "gbr", "weight", 3e-3, (1e-4, 3e-4, 1e-3, 3e-3)),
    "input-gradient": Method(
        _penalty(gbr.InputGradient), "||d loss/dx||^2", "weight", 0.3, (0.03, 0.1, 0.3, 1.0)
    ),
    "parameter-gradient": Method(
        _penalty(gbr.ParameterGradient), "||d L/dW||^2", "weight", 0.3, (0.03, 0.1, 0.3, 1.0)
    ),
}


class Trainee:
    """The model of one method, compiled and traced once for all seeds."""

    def __init__(self, method: Method, value: float | None, data: Data, epochs: int) -> None:
        self._fresh = lambda: network(data, epochs, **method.parts(value))
        self._data, self._epochs = data, epochs
        self.model = self._fresh()

    def train(self, seed: int) -> None:
        """Trains from a new start, which depends only on the seed."""
        keras.utils.set_random_seed(seed)
        self.model.set_weights(self._fresh().get_weights())
        for variable in self.model.optimizer.variables:
            variable.assign(keras.ops.zeros_like(variable.value))
        batches = Batches(self._data)
        self.model.fit(batches, epochs=self._epochs, shuffle=False, verbose=0)


class Study:
    """Trains and measures methods on one data set."""

    def __init__(self, data: Data, options: argparse.Namespace, settings: int) -> None:
        """
        Args:
            data: The images.
            options: The command line.
            settings: How often `measure` will be called.
        """
        self._data, self._options = data, options
        self._examiner = Examiner(functools.partial(network, data, 1), data, options.epsilon, SHIFT)
        self._reference = network(data, options.epochs)
        self._progress = Progress(settings * options.seeds)

    def measure(self, name: str, value: float | None) -> dict[str, list[float]]:
        """Every measured quantity of a method with one setting, a value per seed."""
        trainee = Trainee(METHODS[name], value, self._data, self._options.epochs)
        batch = tuple(part[:BATCH_SIZE] for part in self._data.train)
        measured = []
        for seed in range(self._options.seeds):
            trainee.train(seed)
            self._examiner.take(trainee.model)
            values = self._examiner.columns() | self._examiner.quantities()
            values["step_time"] = relative_step_time(trainee.model, self._reference, batch)
            measured.append(values)
            self._progress.advance(f"{name} {METHODS[name].setting(value)} seed {seed}")
        return {key: [values[key] for values in measured] for key in measured[0]}


def compare(names: list[str], data: Data, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Trains and measures every method: a row each, with a value per seed in every column."""
    study = Study(data, options, len(names))
    rows: list[dict[str, Any]] = []
    for name in names:
        method = METHODS[name]
        row = study.measure(name, method.chosen)
        plain = rows[0] if rows else row
        texts = {"method": name, "setting": method.setting(method.chosen)}
        own = {"own": row.get(method.quantity), "own_plain": plain.get(method.quantity)}
        rows.append({**row, **texts, **own, "quantity": method.quantity})
    return rows


def tune(names: list[str], data: Data, options: argparse.Namespace) -> None:
    """Prints the results of every setting on the validation split, and the choice.

    The choice is the strongest setting that loses at most `TOLERANCE` of accuracy against the best
    of its grid, and whose own quantity is below that of the plain row.
    """
    data = dataclasses.replace(data, test=data.validation)  # The test split is not used.
    tuned = [name for name in names if METHODS[name].grid]
    study = Study(data, options, 1 + sum(len(METHODS[name].grid) for name in tuned))
    plain = study.measure("plain", None)
    lines = [f"{'plain':36}{_percent(plain['test_accuracy'])}"]
    for name in tuned:
        method, quantity = METHODS[name], METHODS[name].quantity
        results = {value: study.measure(name, value) for value in method.grid}
        best = max(np.mean(result["test_accuracy"]) for result in results.values())
        chosen = "none"
        for value, result in results.items():
            ratio = np.mean(result[quantity]) / np.mean(plain[quantity])
            if np.mean(result["test_accuracy"]) >= best - TOLERANCE and ratio < 1:
                chosen = method.setting(value)
            accuracy = _percent(result["test_accuracy"])
            lines.append(f"{name:20}{method.setting(value):16}{accuracy}   {ratio:.2g}")
        lines.append(f"{name:20}chosen: {chosen}")
    print("\nValidation accuracy in %, and the own quantity over that of plain:", *lines, sep="\n")


def _percent(values: list[float]) -> str:
    mean, spread = mean_and_spread(values)
    return f"{100 * mean:.2f} ±{100 * spread:.2f}"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        description="Trains one small network per method and compares the results.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--dataset", default="digits", help="digits, or a TFDS image classification set")
    add("--samples", type=at_least(1), help="at most so many training images")
    add(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=list(METHODS),
        metavar="METHOD",
        help=f"out of {', '.join(METHODS)}; plain always runs",
    )
    add("--epochs", type=at_least(1), default=25, help="epochs of every training")
    add("--seeds", type=at_least(1), default=3, help="trainings of every method")
    add(
        "--epsilon", type=float, default=0.125, help="largest change of a pixel by FGSM; 1 is white"
    )
    add("--output", type=Path, default=Path("results"), help="folder for the CSV and the PNG")
    add("--tune", action="store_true", help="choose settings on the validation split instead")
    add("--smoke", action="store_true", help="one epoch on few images, one seed: only a test")
    options = parser.parse_args(argv)
    if not 0 < options.epsilon <= 1:
        parser.error(f"argument --epsilon: must be in (0, 1]. Received: {options.epsilon}")
    if options.smoke:
        options.epochs, options.seeds, options.samples = 1, 1, 2 * BATCH_SIZE
    return options


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        data = load(options.dataset, options.samples)
    except (OSError, ValueError, ImportError) as error:
        raise SystemExit(f"compare_methods.py: error: {error}") from None
    names = ["plain", *(name for name in METHODS if name in options.methods and name != "plain")]
    if options.tune:
        tune(names, data, options)
        return
    rows = compare(names, data, options)
    title = (
        f"{data.name}: {len(data.train[0])} training and {len(data.test[0])} test images, "
        f"epochs: {options.epochs}, seeds: {options.seeds} (mean and standard deviation)"
    )
    print(f"\n{title}\nFGSM with epsilon {options.epsilon:g}\n\n{table(rows)}\n")
    write_csv(rows, options.output / "compare_methods.csv")
    write_figure(rows, title, options.epsilon, options.output / "compare_methods.png")
    print(f"Written: {options.output}/compare_methods.csv and .png")


if __name__ == "__main__":
    main()
