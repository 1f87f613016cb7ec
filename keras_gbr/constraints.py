"""The equal norm constraint as a projection after each update."""

from typing import Any

import keras

from keras_gbr import _checks as check
from keras_gbr.maths.equal_norm import check_direction, equal_norm


@keras.saving.register_keras_serializable("keras_gbr")
class EqualNorm(keras.constraints.Constraint):
    r"""Projects the kernel onto $\|W\|_F^2 = \alpha$ after each update.

    The optimizer steps freely and the result is scaled back. This is not the reparametrisation
    of the paper, where the gradient flows through the scaling and the optimizer keeps a raw
    kernel: for that, wrap the layer in `ENC`. The kernel satisfies the constraint from the
    first update on.

    Args:
        alpha: Float > 0, the squared Frobenius norm.
        per_filter: Whether every filter gets the same norm, instead of the whole kernel.
        center: Whether the mean (of each filter, or of the whole kernel) is removed.
        filter_axis: The axis, or tuple of axes, that number the filters: -1 for dense,
            convolutional and recurrent kernels, -2 for transposed convolutions, (-2, -1) for
            depthwise kernels, 0 for an `Embedding`.

    Call arguments:
        w: The kernel.

    Returns:
        The projected kernel, same shape and dtype. Filters of zeros stay zeros.

    Raises:
        ValueError: An argument is out of its range; when called, with `center`, on a kernel whose
            filters have one entry.

    Example:

    ```python
    keras.layers.Dense(64, kernel_constraint=keras_gbr.EqualNorm(alpha=1.0))
    ```

    Reference:
        Li, Chen & Yang, equations 20 to 23; see `keras_gbr.ENC`.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        per_filter: bool = True,
        center: bool = True,
        filter_axis: int | tuple[int, ...] = -1,
    ) -> None:
        self.alpha = check.number("alpha", alpha, exclusive=True)
        self.per_filter = check.boolean("per_filter", per_filter)
        self.center = check.boolean("center", center)
        self.filter_axis = check.axes("filter_axis", filter_axis)

    def __call__(self, w: Any) -> Any:
        if self.center:
            axes = self.filter_axis if self.per_filter else ()
            check_direction(tuple(w.shape), axes, "Set `center=False`.", "w")
        return equal_norm(w, self.alpha, self.per_filter, self.center, self.filter_axis)

    def get_config(self) -> dict[str, Any]:
        return {
            "alpha": self.alpha,
            "per_filter": self.per_filter,
            "center": self.center,
            "filter_axis": self.filter_axis,
        }
