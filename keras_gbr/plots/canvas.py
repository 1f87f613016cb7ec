"""The look that all figures share. Only the first figure imports matplotlib."""

import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from keras_gbr import _checks as check

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito's colours, which colour-blind readers can tell apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# The colours of the palette that stand out from the shades of an ordered family.
_BESIDE_A_FAMILY = ("#D55E00", "#000000", "#CC79A7", "#E69F00")
_FAMILY_MAP = "YlGnBu"
_SMALLEST_FAMILY = 3


def check_axes(ax: Any) -> None:
    """Checks, before any work, that matplotlib is there and that `ax` is an Axes.

    Args:
        ax: An `Axes`, or `None` for a new figure.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: `ax` is neither an `Axes` nor `None`.
    """
    try:
        from matplotlib.axes import Axes
    except ImportError as error:
        raise ImportError(
            "keras_gbr.plots needs matplotlib. Install it with `pip install matplotlib`, or "
            "install keras_gbr with its extra `plots`."
        ) from error
    if ax is not None and not isinstance(ax, Axes):
        raise check.error(
            "`ax` must be a matplotlib Axes, or None for a new figure. "
            "`pyplot.subplots(rows, columns)` returns an array of them: pass one.",
            "ax",
            ax,
        )


def axes_or_new(ax: "Axes | None", width: float, height: float) -> "Axes":
    """`ax`, or the Axes of a new figure.

    Args:
        ax: An `Axes` or `None`.
        width: Width of a new figure in inches.
        height: Height of a new figure in inches.
    """
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.subplots(figsize=(width, height), layout="constrained")[1]
    return ax


def quiet_frame(ax: "Axes", grid: Literal["x", "y", "both"]) -> None:
    """Draws a frame on two sides and a light grid along the axis `grid`."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color="0.92")
    ax.set_axisbelow(True)


def colors(labels: Iterable[str]) -> dict[str, Any]:
    """A colour for each label.

    Three or more labels that are numbers, such as weight decays, are an ordered family and get
    colours from light to dark. So do labels that outnumber the palette. Others differ by hue.

    Args:
        labels: Different strings.

    Returns:
        Colours as matplotlib takes them, by label, in the order of `labels`.
    """
    from matplotlib import colormaps

    labels = list(labels)
    family = sorted(filter(_is_number, labels), key=float)
    if len(family) < _SMALLEST_FAMILY:
        if len(labels) <= len(PALETTE):
            return dict(zip(labels, PALETTE, strict=False))
        family = labels
    shades = colormaps[_FAMILY_MAP](np.linspace(0.3, 1, len(family)))
    others = (label for label in labels if label not in family)
    chosen = dict(zip(family, shades, strict=True)) | dict(
        zip(others, itertools.cycle(_BESIDE_A_FAMILY), strict=False)
    )
    return {label: chosen[label] for label in labels}


def _is_number(label: str) -> bool:
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False


def legend(ax: "Axes", *args: Any, **options: Any) -> None:
    """Draws a legend beside the data if the layout of the figure makes room for it.

    Args:
        ax: The `Axes`.
        *args: As `Axes.legend`.
        **options: As `Axes.legend`.
    """
    if ax.figure.get_layout_engine() is not None:
        options |= {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0}
    ax.legend(*args, alignment="left", frameon=False, **options)
