"""Trains a network with weight decay from none to strong, and with ENC, and draws its GBR.

    python examples/weight_decay_and_gbr.py [--dataset NAME] [--decays W ...] [--epochs N] ...

Figures 1 to 3 of Li, Chen & Yang on a small scale, see examples/README.md.
"""

import argparse
import logging
import math
from pathlib import Path
from typing import Any

from common.tools import Progress, aligned, at_least, quiet_imports, write_csv, write_whole

with quiet_imports(__file__):
    import keras
    import numpy as np
    from common.images import Data, load
    from common.network import Batches, network
    from common.report import cell
    from matplotlib import pyplot

    import keras_gbr as gbr

# Each run traces functions of its own, which TensorFlow mistakes for needless retracing.
logging.getLogger("tensorflow").setLevel(logging.ERROR)

DECAYS = ("0", "1e-8", "1e-6", "1e-4", "1e-3", "1e-2")
ENC = "ENC"
# The epsilon of the shifted weight decay that goes with ENC.
SHIFT = 1e-3
BATCH_SIZE = 32
# The number of training images on which the GBR is measured.
MEASURED = 200

# A value per epoch by metric, as `fit` records them.
History = dict[str, list[float]]


def parts(label: str, enc_decay: str) -> dict[str, Any]:
    """What a run changes in the plain network: keyword arguments of `network`.

    The weight decay w of SGD adds w W to the gradient, which is the gradient of w/2 times the
    squared norm. Biases and normalisations have no decay.
    """
    if label == ENC:
        return {"wrap": gbr.ENCConv, "regularizer": gbr.ShiftedL2(float(enc_decay) / 2, SHIFT)}
    return {"regularizer": keras.regularizers.L2(float(label) / 2)}


def train(label: str, seed: int, data: Data, options: argparse.Namespace) -> History:
    """One training, which depends only on its arguments."""
    keras.utils.set_random_seed(seed)
    changed = parts(label, options.enc_decay)
    model = network(data, options.epochs, batch_size=BATCH_SIZE, **changed)
    images = data.train[0][:MEASURED]
    monitor = gbr.GBRMonitor(images, batch_size=len(images), measures=["gbr"], verbose=0)
    return model.fit(
        Batches(data, BATCH_SIZE),
        epochs=options.epochs,
        shuffle=False,
        verbose=0,
        validation_data=data.validation,
        validation_batch_size=250,
        callbacks=[monitor],
    ).history


def rows(runs: dict[str, list[History]]) -> list[dict[str, Any]]:
    """One row per run, seed and epoch."""
    return [
        {"run": label, "seed": seed, "epoch": epoch + 1}
        | {metric: values[epoch] for metric, values in history.items()}
        for label, histories in runs.items()
        for seed, history in enumerate(histories)
        for epoch in range(len(history["gbr"]))
    ]


def table(runs: dict[str, list[History]]) -> str:
    """The end of every run: mean and standard deviation over the seeds."""
    columns = {
        "GBR": ("gbr", 1, None),
        "train %": ("accuracy", 100, 1),
        "validation %": ("val_accuracy", 100, 1),
    }
    cells = [["weight decay", *columns]]
    for label, histories in runs.items():
        final = {metric: [history[metric][-1] for history in histories] for metric in histories[0]}
        cells.append([label, *(cell(final[m], *form) for m, *form in columns.values())])
    return aligned(cells)


def draw(runs: dict[str, list[History]], title: str, path: Path) -> None:
    """The GBR and the accuracies by epoch: means over the seeds, the GBR with its range."""
    means = {
        label: {m: np.mean([h[m] for h in histories], axis=0) for m in histories[0]}
        for label, histories in runs.items()
    }
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(14, 4.8), layout="constrained")
    gbr.plots.gbr_curves(means, ax=left)
    left.get_legend().set_title("weight decay:\nfinal val_accuracy")
    for line, histories in zip(left.get_lines(), runs.values(), strict=True):
        values = [history["gbr"] for history in histories]
        low, high = np.min(values, axis=0), np.max(values, axis=0)
        left.fill_between(line.get_xdata(), low, high, color=line.get_color(), alpha=0.15, lw=0)
    gbr.plots.learning_curves(means, ax=right)
    right.get_legend().set_title("weight decay")
    for ax in (left, right):
        _start_in_second_epoch(ax)
    figure.suptitle(title)
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=110))
    pyplot.close(figure)


def _start_in_second_epoch(ax: Any) -> None:
    """Leaves the first epoch out of the scale: the averages of the normalisations lag in it."""
    values = np.concatenate([line.get_ydata()[1:] for line in ax.get_lines()])
    if len(values):
        ax.set_ylim(bottom=0.95 * values.min())


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        description="Draws the GBR over the epochs for several weight decays and for ENC.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--dataset", default="digits", help="digits, or a TFDS image classification set")
    add("--samples", type=at_least(1), help="at most so many training images")
    add(
        "--decays",
        nargs="+",
        type=_decay,
        default=DECAYS,
        metavar="W",
        help="the weight decays; ENC always runs",
    )
    add("--enc-decay", type=_decay, default="1e-4", metavar="W", help="shifted weight decay of ENC")
    add("--epochs", type=at_least(1), default=40, help="epochs of every training")
    add("--seeds", type=at_least(1), default=3, help="trainings of every run")
    add("--output", type=Path, default=Path("results"), help="folder for the CSV and the PNG")
    add("--smoke", action="store_true", help="two epochs on few images, one seed: only a test")
    options = parser.parse_args(argv)
    if options.smoke:
        options.epochs, options.seeds, options.samples = 2, 1, 8 * BATCH_SIZE
    return options


def _decay(text: str) -> str:
    try:
        if 0 <= float(text) < math.inf:
            return text
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be a finite number >= 0. Received: {text}")


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        data = load(options.dataset, options.samples)
    except (OSError, ValueError, ImportError) as error:
        raise SystemExit(f"weight_decay_and_gbr.py: error: {error}") from None
    labels = [*dict.fromkeys(options.decays), ENC]
    progress = Progress(len(labels) * options.seeds)
    runs: dict[str, list[History]] = {label: [] for label in labels}
    for label in labels:
        for seed in range(options.seeds):
            runs[label].append(train(label, seed, data, options))
            progress.advance(f"{label} seed {seed}")
    title = (
        f"{data.name}: {len(data.train[0])} training and {len(data.validation[0])} validation "
        f"images, epochs: {options.epochs}, seeds: {options.seeds}"
    )
    print(f"\n{title} (mean and standard deviation)\n\n{table(runs)}\n")
    write_csv(rows(runs), options.output / "weight_decay_and_gbr.csv")
    draw(runs, title, options.output / "weight_decay_and_gbr.png")
    print(f"Written: {options.output}/weight_decay_and_gbr.csv and .png")


if __name__ == "__main__":
    main()
