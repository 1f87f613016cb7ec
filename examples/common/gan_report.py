"""What wasserstein_gan.py measures on images, and its figure."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

from common.tools import write_whole

matplotlib.use("Agg")

from matplotlib import pyplot

NEIGHBOURS = 3
GRID = 8  # images per side


def precision_and_recall(
    real: np.ndarray, generated: np.ndarray, neighbours: int = NEIGHBOURS
) -> tuple[float, float]:
    """How many generated images are like real ones, and how many real ones like generated ones.

    An image is like the images of a set if it is closer to one of them than that image is to its
    own k-th neighbour in the set. Distances are Euclidean, between pixels.

    Args:
        real: Images `(samples, ...)`.
        generated: As many images.
        neighbours: k.

    Returns:
        Two shares from 0 to 1. A generator of noise has precision 0, one that makes a single
        good image has recall near 0.

    Reference:
        Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative
        Models", with pixels in place of a network's features.
    """
    flat_real, flat_generated = _flat(real), _flat(generated)
    return (
        _share_within(flat_real, flat_generated, neighbours),
        _share_within(flat_generated, flat_real, neighbours),
    )


def nearest(images: np.ndarray, others: np.ndarray) -> float:
    """The median, over `others`, of the distance to the nearest of `images`."""
    search = NearestNeighbors(n_neighbors=1).fit(_flat(images))
    return float(np.median(search.kneighbors(_flat(others))[0]))


def _share_within(reference: np.ndarray, others: np.ndarray, neighbours: int) -> float:
    # The nearest neighbour of each is the image itself.
    search = NearestNeighbors(n_neighbors=neighbours + 1).fit(reference)
    radii = search.kneighbors(reference)[0][:, -1]
    within = pairwise_distances(others, reference) <= radii
    return float(np.mean(np.any(within, axis=1)))


def _flat(images: np.ndarray) -> np.ndarray:
    return np.reshape(images, (len(images), -1))


def write_figure(
    rows: list[dict[str, float]],
    real: np.ndarray,
    generated: np.ndarray,
    reached: tuple[float, float],
    path: Path,
) -> None:
    """Draws real and generated digits, and what was measured over the epochs.

    Args:
        rows: What was measured, a row per epoch.
        real: Images that were not used in training.
        generated: Generated images, of which the first ones are shown.
        reached: Precision and recall of real images.
        path: The PNG file.
    """
    figure, axes = pyplot.subplot_mosaic(
        "rgd;rgn;rgq", figsize=(13, 4.6), width_ratios=(1, 1, 0.9), layout="constrained"
    )
    for key, images, title in (("r", real, "real, held out"), ("g", generated, "generated")):
        axes[key].imshow(_tiled(images), cmap="gray_r", vmin=0, vmax=1)
        axes[key].set_title(title)
        axes[key].axis("off")
    epochs = [row["epoch"] for row in rows]

    def curve(key: str, column: str, label: str, color: str = "tab:blue") -> None:
        axes[key].plot(epochs, [row[column] for row in rows], color=color, label=label)

    curve("d", "distance", "training images")
    curve("d", "held_out_distance", "held out", "tab:red")
    axes["d"].set_title("mean score of the critic, real minus generated", fontsize="medium")
    axes["d"].set_ylim(bottom=0)
    axes["d"].legend(frameon=False, loc="upper right", ncols=2)
    curve("n", "gradient_norm", "")
    axes["n"].axhline(1, color="0.6", linewidth=1, linestyle="--")
    axes["n"].set_title("mean norm of the critic's gradient", fontsize="medium")
    for column, level, color in zip(
        ("precision", "recall"), reached, ("tab:blue", "tab:red"), strict=True
    ):
        curve("q", column, column, color)
        axes["q"].axhline(level, color=color, linewidth=1, linestyle="--")
    axes["q"].set_title("precision and recall (dashed: real images)", fontsize="medium")
    axes["q"].legend(frameon=False, loc="lower right")
    _finish([axes[key] for key in "dnq"])
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=100))
    pyplot.close(figure)


def _finish(axes: list[Any]) -> None:
    for axis in axes:
        axis.grid(color="0.92")
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[:-1]:
        axis.tick_params(labelbottom=False)
    axes[-1].set_ylim(0, 1)
    axes[-1].set_xlabel("epoch")


def _tiled(images: np.ndarray) -> np.ndarray:
    """The first images `(samples, height, width, 1)` side by side, with white between them."""
    framed = np.pad(images[: GRID**2, ..., 0], ((0, 0), (1, 1), (1, 1)))
    rows = framed.reshape(GRID, GRID, *framed.shape[1:])
    return np.concatenate(np.concatenate(rows, axis=1), axis=1)
