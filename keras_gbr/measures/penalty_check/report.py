"""The result of a comparison of gradients with differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from keras_gbr.measures.penalty_check.differences import Measured

# Rows above this are called noisy: no error below ten times the noise, a fifth, is seen in them.
_NOISY = 0.02


class Comparison(NamedTuple):
    """One row of a `PenaltyCheck`: two slopes along a change of the weights of one layer.

    Attributes:
        penalty: Name of the penalty.
        layer: Path of the layer: "conv1", "encoder/dense". In `PenaltyCheck.parts` the compared
            part, in parentheses.
        analytic: The slope from the gradient that training uses.
        numeric: The slope from central differences.
        noise: The possible error of `numeric`, relative to the larger of the two slopes.
        error: The difference of the slopes, relative to the larger of the two; 0 if it is less
            than ten times the noise.

    Example:

    ```python
    model.compile("sgd", loss, penalties=[keras_gbr.Jacobian(0.01)])
    row = keras_gbr.measures.check_penalty(model, x_train[:8], y_train[:8]).rows[0]
    assert isinstance(row, keras_gbr.measures.Comparison)
    assert row.penalty == "jacobian"
    ```
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
    # NaN counts as the largest error.
    return max(rows, key=lambda row: (math.isnan(row.error), row.error, -row.noise))


@dataclass(frozen=True)
class PenaltyCheck:
    """A comparison of the gradients of penalties with central differences, see `check_penalty`.

    Attributes:
        rows: A `Comparison` for each penalty and layer.
        reasons: Known causes of errors, such as an operation without second derivative.
        parts: The parts of the values, compared with the plain model: a `Comparison` for each place
            where a penalty takes gradients, such as "(gradient by the inputs)", for the outputs at
            moved inputs, and for the loss.

    Example:

    ```python
    model.compile("sgd", loss, penalties=[keras_gbr.InputGradient(0.1)])
    report = keras_gbr.measures.check_penalty(model, x_train[:8], y_train[:8])
    print(report)
    assert report.ok(report.max_error)
    assert report.off(report.max_error) == []
    ```
    """

    rows: tuple[Comparison, ...]
    reasons: tuple[str, ...] = ()
    parts: tuple[Comparison, ...] = ()

    @property
    def max_error(self) -> float:
        """The largest error of all rows and parts."""
        return max(row.error for row in (*self.rows, *self.parts))

    def ok(self, tolerance: float = 1e-3) -> bool:
        """Whether no error is above `tolerance`.

        Args:
            tolerance: The largest relative error that counts as right.
        """
        return not self.off(tolerance)

    def off(self, tolerance: float = 1e-3) -> list[Comparison]:
        """The rows and parts whose error is above `tolerance`.

        Args:
            tolerance: See `ok`.
        """
        return [row for row in (*self.rows, *self.parts) if not row.error <= tolerance]

    def __str__(self) -> str:
        """A table that marks the rows that are off, or too noisy to tell."""
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
