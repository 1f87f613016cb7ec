"""What compare_methods.py shows: a table, a CSV file and a figure."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from common import tools
from common.tools import aligned, write_whole

matplotlib.use("Agg")

from matplotlib import pyplot, ticker

# Column: (heading, factor for display, decimals; None for three significant digits).
COLUMNS = {
    "train_accuracy": ("train %", 100, 1),
    "test_accuracy": ("test %", 100, 1),
    "gap": ("gap", 100, 1),
    "gbr": ("GBR", 1, None),
    "gbr_probabilities": ("GBR of softmax", 1, None),
    "fgsm_accuracy": ("FGSM %", 100, 1),
    "step_time": ("step time", 1, 2),
}
OWN = {"own": ("this row", 1, None), "own_plain": ("plain row", 1, None)}

# One value per seed for each measured column; texts in the others.
Row = dict[str, Any]


def mean_and_spread(values: list[float]) -> tuple[float, float]:
    """The mean and the sample standard deviation, 0 for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def table(rows: list[Row]) -> str:
    """The main table and that of the own quantities, as aligned text."""
    main = [["method", *(heading for heading, *_ in COLUMNS.values())]]
    own = [["method", "its own quantity", *(heading for heading, *_ in OWN.values()), "ratio"]]
    for row in rows:
        main.append([row["method"], *(cell(row[c], *f[1:]) for c, f in COLUMNS.items())])
        if row["quantity"]:
            cells = [cell(row[column], *f[1:]) for column, f in OWN.items()]
            ratio = f"{np.mean(row['own']) / np.mean(row['own_plain']):.2g}"
            own.append([row["method"], row["quantity"], *cells, ratio])
    return aligned(main) + ("\n\n" + aligned(own) if len(own) > 1 else "")


def cell(values: list[float], factor: float = 1, decimals: int | None = None) -> str:
    """The mean and the spread as text, with three significant digits or some decimals."""
    mean, spread = (factor * number for number in mean_and_spread(values))
    if decimals is None:
        return f"{mean:.3g} ±{spread:.2g}"
    return f"{mean:.{decimals}f} ±{spread:.{decimals}f}"


def write_csv(rows: list[Row], path: Path) -> None:
    """One line per method; each measured column as its mean and its spread over the seeds."""
    lines = []
    for row in rows:
        line = {"method": row["method"], "setting": row["setting"]}
        for column in COLUMNS:
            line[column], line[f"{column}_spread"] = mean_and_spread(row[column])
        line["quantity"] = row["quantity"]
        for column in OWN:
            has_own = bool(row["quantity"])
            pair = mean_and_spread(row[column]) if has_own else ("", "")
            line[column], line[f"{column}_spread"] = pair
        lines.append(line)

    tools.write_csv(lines, path)


def write_figure(rows: list[Row], title: str, epsilon: float, path: Path) -> None:
    """A dot plot of each measure, with all methods on a shared axis."""
    panels = {
        "test_accuracy": "accuracy, %\n(test; hollow: train)",
        "fgsm_accuracy": f"accuracy under FGSM, %\n(epsilon {epsilon:g})",
        "gbr": "GBR of the logits\n(lower is smoother)",
        "gbr_probabilities": "GBR of the softmax\n(lower is smoother)",
        "step_time": "time per step,\nrelative to plain",
    }
    figure, axes = pyplot.subplots(
        1, len(panels), sharey=True, figsize=(14, 1.9 + 0.29 * len(rows)), layout="constrained"
    )
    for axis, (column, label) in zip(axes, panels.items(), strict=True):
        _panel(axis, rows, column)
        axis.set_xlabel(label)
    axes[0].set_yticks(range(len(rows)), [row["method"] for row in rows])
    axes[0].invert_yaxis()
    figure.suptitle(title)
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=130))
    pyplot.close(figure)


def _panel(axis: Any, rows: list[Row], column: str) -> None:
    factor = COLUMNS[column][1]
    heights = np.arange(len(rows))
    means, spreads = np.transpose([mean_and_spread(row[column]) for row in rows]) * factor
    if column.startswith("gbr"):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(ticker.NullLocator())
        spreads = np.stack([np.minimum(spreads, 0.9 * means), spreads])
    if column == "test_accuracy":
        train = [factor * np.mean(row["train_accuracy"]) for row in rows]
        axis.plot(train, heights, "o", markersize=5, markerfacecolor="white", color="tab:gray")
    axis.axvline(means[0], color="tab:orange", linewidth=1, linestyle="--", zorder=0)
    axis.errorbar(means, heights, xerr=spreads, fmt="o", markersize=5, capsize=3, color="tab:blue")
    axis.grid(axis="y", color="0.92")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
