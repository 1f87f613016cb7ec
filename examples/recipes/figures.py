"""Figures of the tables that have curves or attacks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from common.tools import write_whole

from recipes.render import COLUMNS
from recipes.results import Entry, Group

matplotlib.use("Agg")

from matplotlib import pyplot

_LINES = {"": "-", "test_": "--"}
_GBR = r"GBR: mean $\|\partial f/\partial x\|_F^2$"


def write_figure(group: Group, path: Path) -> bool:
    """Draws a group if its table has a figure.

    Args:
        group: The results.
        path: The PNG file.

    Returns:
        Whether it has one, and there is something to draw.
    """
    draw = FIGURES.get(group.table.name)
    if draw is None or not group.finished():
        return False
    with _figure(path) as figure:
        draw(group, figure)
        figure.suptitle(f"{group.table.heading}: {group.data}, scale {group.scale.name}")
    return True


@contextmanager
def _figure(path: Path) -> Iterator[Any]:
    figure = pyplot.figure(figsize=(11, 4.4), layout="constrained")
    try:
        yield figure
        write_whole(path, lambda temporary: figure.savefig(temporary, dpi=110))
    finally:
        pyplot.close(figure)


def curve(entries: list[Entry], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean and the sample standard deviation of a measure over the seeds, by epoch.

    Args:
        entries: Finished trainings of one row.
        name: The measure, as the histories have it.

    Returns:
        Epochs, means and deviations, where all seeds have a value. A single seed deviates by 0.
    """
    by_epoch: dict[int, list[float]] = {}
    for entry in entries:
        for point in entry.get("history", []):
            if point.get(name) is not None:
                by_epoch.setdefault(point["epoch"], []).append(point[name])
    whole = {epoch: v for epoch, v in sorted(by_epoch.items()) if len(v) == len(entries)}
    spreads = [np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in whole.values()]
    means = [np.mean(v) for v in whole.values()]
    return np.array(list(whole)), np.array(means), np.array(spreads)


def _over_epochs(group: Group, figure: Any) -> None:
    """The GBR on the left, the accuracy on the right; dashed on test images."""
    axes = figure.subplots(1, 2)
    colors = pyplot.colormaps["viridis"](np.linspace(0, 0.9, len(group.rows)))
    for color, (row, entries) in zip(colors, group.rows, strict=True):
        finished = [entry for entry in entries if entry["status"] == "finished"]
        for axis, name, factor in ((axes[0], "gbr", 1), (axes[1], "accuracy", 100)):
            for prefix, style in _LINES.items():
                epochs, means, spreads = curve(finished, prefix + name)
                label = row.label if not prefix else None
                axis.plot(epochs, factor * means, style, color=color, label=label)
                low, high = factor * (means - spreads), factor * (means + spreads)
                # The lower edge of a band must be on a logarithmic axis.
                low = np.maximum(low, factor * means / 10)
                axis.fill_between(epochs, low, high, color=color, alpha=0.15, linewidth=0)
    axes[0].set_yscale("log")
    axes[0].set_ylabel(_GBR)
    axes[1].set_ylabel("accuracy, %")
    for axis in axes:
        axis.set_xlabel("epoch (solid: training images, dashed: test images)")
        _quiet(axis, "both")
    axes[0].legend(frameon=False)


def _under_attack(group: Group, figure: Any) -> None:
    """A dot for each row and measure, with the deviation over the seeds."""
    names = ("test_accuracy", "fgsm_accuracy", "pgd_accuracy", "gbr_probabilities")
    rows = [
        (row.label, [entry for entry in entries if entry["status"] == "finished"])
        for row, entries in group.rows
    ]
    axes = figure.subplots(1, len(names), sharey=True)
    for axis, name in zip(axes, names, strict=True):
        for height, (_, entries) in enumerate(rows):
            found = [entry[name] for entry in entries if entry.get(name) is not None]
            values = COLUMNS[name].factor * np.array(found)
            if len(values):
                spread = values.std(ddof=1) if len(values) > 1 else 0.0
                axis.errorbar(values.mean(), height, xerr=spread, fmt="o", color="tab:blue")
        axis.set_xlabel(COLUMNS[name].heading)
        _quiet(axis, "y")
    axes[-1].set_xscale("log")
    axes[0].set_yticks(range(len(rows)), [label for label, _ in rows])
    axes[0].invert_yaxis()


def _quiet(axis: Any, grid: str) -> None:
    axis.grid(axis=grid, color="0.92")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


FIGURES: dict[str, Callable[[Group, Any], None]] = {
    "figure1": _over_epochs,
    "figure3": _over_epochs,
    "penalties": _under_attack,
}
