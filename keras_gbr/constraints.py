"""The equal norm constraint as a projection after each update."""

from typing import Any

import keras

from keras_gbr import _checks as check
from keras_gbr.maths.equal_norm import check_direction, equal_norm


@keras.saving.register_keras_serializable("keras_gbr")
class EqualNorm(keras.constraints.Constraint):
    r"""Projects the kernel onto $\|W\|_F^2 = \alpha$ after each update.

    `EqualNorm` overwrites the kernel after each update, so the gradient does not include the
    scaling. `ENC`, which is the form in the paper, computes with a scaled kernel and lets the
    gradient flow through the scaling. The kernel satisfies the constraint after the first update,
    not before.

    Args:
        alpha: Float > 0, the squared Frobenius norm.
        per_filter: Whether each filter is scaled, to the squared norm `alpha / filters`. Otherwise
            the kernel is scaled as a whole.
        center: Whether the mean (of each filter, or of the whole kernel) is subtracted first.
        filter_axis: The axis, or tuple of axes, that numbers the filters: -1 for dense,
            convolutional and recurrent kernels, -2 for transposed convolutions, (-2, -1) for
            depthwise kernels, 0 for an `Embedding`.

    Call arguments:
        w: The kernel, in the shape of its layer.

    Returns:
        The projected kernel, of the same shape and dtype. Filters of zeros stay zeros.

    Raises:
        ValueError: An argument is out of its range; or, in a call with `center`, the filters of
            the kernel have one entry.

    Example:

    ```python
    constraint = keras_gbr.EqualNorm(alpha=4.0)
    layer = keras.layers.Dense(64, kernel_constraint=constraint)
    kernel = constraint(keras.random.normal((5, 3), seed=0))
    assert abs(float(keras.ops.sum(kernel**2)) - 4.0) < 1e-5
    ```

    Reference:
        Li, Chen & Yang 2021, "Generalization Bound Regularizer: A Unified Perspective for
        Understanding Weight Decay", Chinese Journal of Computers, equations 20 to 23.
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
