"""What a comparison of gradients with differences found."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from keras_gbr.measures.penalty_check.differences import Measured

# What is called noisy: then ten times the noise, which no error is seen below, is a fifth.
_NOISY = 0.02


class Comparison(NamedTuple):
    """The slope of a penalty along a change of the weights of one layer, or of what it is made of.

    Attributes:
        penalty: Name of the penalty.
        layer: Path of the layer: "conv1", "encoder/dense". In `PenaltyCheck.parts` what is
            compared, in parentheses.
        analytic: The slope by the gradient that training takes.
        numeric: The slope by central differences.
        noise: How far `numeric` may be off, relative to the larger of the two.
        error: By how much the two differ, relative to the larger of the two; 0 if that is
            less than ten times the noise.
    """

    penalty: str
    layer: str
    analytic: float
    numeric: float
    noise: float
    error: float


def largest_error(penalty: str, layer: str, slopes: Sequence[Measured]) -> Comparison:
    """The comparison along the direction in which the slopes differ most.

    Args:
        penalty: See `Comparison`.
        layer: See `Comparison`.
        slopes: Those along each direction.
    """
    rows = [Comparison(penalty, layer, *each[:3], each.error) for each in slopes]
    # NaN is the largest error.
    return max(rows, key=lambda row: (math.isnan(row.error), row.error, -row.noise))


@dataclass(frozen=True)
class PenaltyCheck:
    """The gradients of penalties against central differences, see `check_penalty`.

    Attributes:
        rows: A `Comparison` for each penalty and layer.
        reasons: What is known of the causes, such as an operation without second derivative.
        parts: What the values of the penalties are made of, against the plain model: a
            `Comparison` for each place that a penalty takes gradients at, such as "(gradient by
            the inputs)", for the outputs at inputs that it moves, and for the loss.
    """

    rows: tuple[Comparison, ...]
    reasons: tuple[str, ...] = ()
    parts: tuple[Comparison, ...] = ()

    @property
    def max_error(self) -> float:
        """The largest error of all rows and parts."""
        return max(row.error for row in (*self.rows, *self.parts))

    def ok(self, tolerance: float = 1e-3) -> bool:
        """Whether no error is above `tolerance`."""
        return not self.off(tolerance)

    def off(self, tolerance: float = 1e-3) -> list[Comparison]:
        """The rows and parts whose error is above `tolerance`."""
        return [row for row in (*self.rows, *self.parts) if not row.error <= tolerance]

    def __str__(self) -> str:
        """A table, with a word on what is off, or too noisy to tell."""
        header = ("penalty", "layer", "analytic", "numeric", "noise", "error", "")
        off = self.off()
        cells = [header, *(_cells(row, row in off) for row in (*self.rows, *self.parts))]
        widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
        lines = [
            "  ".join(
                cell.ljust(width) if column < 2 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row[:-1], widths, strict=False))
            )
            + f"  {row[-1]}"
            for row in cells
        ]
        wrong = {row.penalty for row in self.parts if row in off}
        values = [f"{name}: its value is not that of the plain model." for name in sorted(wrong)]
        return "\n".join([*(line.rstrip() for line in lines), *values, *self.reasons])


def _cells(row: Comparison, is_off: bool) -> tuple[str, ...]:
    numbers = (f"{row.analytic:.6g}", f"{row.numeric:.6g}", f"{row.noise:.1e}", f"{row.error:.1e}")
    verdict = "off" if is_off else "noisy" if row.noise > _NOISY else ""
    return (row.penalty, row.layer, *numbers, verdict)
