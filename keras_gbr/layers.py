"""Wrapper layers that compute with a function of the kernel instead of the kernel itself."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import keras
from keras import ops

from keras_gbr import _validation as check
from keras_gbr.equal_norm import equal_norm, filter_lengths, weight_norm, weight_standardization
from keras_gbr.kernels import CONVOLUTIONS, DENSE, KINDS, check_layer, kernel_attribute

PACKAGE = "keras_gbr"


class Reparametrized(keras.layers.Wrapper):
    """Base of the wrappers: the layer computes with `reparametrize(kernel)`.

    The variable of the wrapped layer holds the raw kernel, which the optimizer updates and its
    own regularizer and constraint see. Every call, in training and in inference, computes the
    function anew and the gradient flows through it. Nothing is assigned. Activity
    regularizers, biases, activations and everything else of the layer stay as they are.

    A subclass implements `reparametrize` and may create weights of its own in `build`.

    Args:
        layer: The layer to wrap, of one of the classes in `kinds`; built or not.
        **kwargs: Those of `keras.layers.Layer`. Outputs have the dtype of those of `layer`;
            a `dtype` given here has no effect.

    Call arguments:
        inputs: As the wrapped layer.

    Input shape:
        As the wrapped layer.

    Output shape:
        As the wrapped layer.

    Raises:
        ValueError: `layer` is of another kind, quantized, or has LoRA enabled.
    """

    kinds: ClassVar[tuple[type, ...]] = KINDS

    def __init__(self, layer: keras.Layer, **kwargs: Any) -> None:
        check_layer(layer, self.kinds)
        # Computing in the precision of the variables, without autocast, reads the raw kernel as
        # it is under any policy, and leaves the casting of inputs to the layer.
        kwargs["dtype"] = layer.variable_dtype
        super().__init__(layer, autocast=False, **kwargs)
        self.supports_masking = layer.supports_masking

    def reparametrize(self, kernel: Any) -> Any:
        """The kernel to compute with.

        Args:
            kernel: Variable, the raw kernel.

        Returns:
            Tensor of the same shape and dtype.
        """
        raise TypeError(f"{type(self).__name__} must implement `reparametrize(kernel)`.")

    @property
    def kernel(self) -> Any:
        """The kernel that the layer computes with, a tensor in the precision of the variable."""
        return self.reparametrize(self.layer.kernel)

    def call(self, inputs: Any) -> Any:
        check_layer(self.layer, self.kinds)
        kernel = ops.cast(self.kernel, self.layer.compute_dtype)
        with _replaced_kernel(self.layer, kernel):
            return self.layer(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)

    def compute_output_spec(self, inputs: Any) -> Any:
        return self.layer.compute_output_spec(inputs)

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "Reparametrized":
        # Keras' own takes the layer out of the caller's dictionary.
        return super().from_config(dict(config), custom_objects)


@contextmanager
def _replaced_kernel(layer: keras.Layer, kernel: Any) -> Iterator[None]:
    """Lets a built layer read `kernel` in place of its variable.

    The instance dictionary is changed directly: an attribute assignment would make Keras track
    the tensor. Calling the layer itself, rather than `stateless_call`, keeps its losses.
    """
    attribute = kernel_attribute(layer)
    variable = vars(layer)[attribute]
    vars(layer)[attribute] = kernel
    try:
        yield
    finally:
        vars(layer)[attribute] = variable


@keras.saving.register_keras_serializable(PACKAGE)
class ENC(Reparametrized):
    r"""Equal norm constraint: the wrapped layer's kernel has $\|W\|_F^2 = \alpha$.

    The layer computes with a rescaled kernel; the gradient flows through the rescaling. With
    the default switches each of the $m$ filters is centred and scaled,

    $$\hat W_j = \sqrt{\alpha / m}\,(W_j - \bar W_j) / \|W_j - \bar W_j\| .$$

    | per_filter | center | equation |
    |---|---|---|
    | False | False | 20 |
    | True | False | 21 |
    | True | True | 22 (default) |
    | False | True | 23 |

    Kernels of norm 1 make small activations: follow the layer with batch normalisation, as the
    paper does, also behind the classifier, or leave the classifier out. Weight decay on the raw
    kernel has nothing to hold it back; use `ShiftedL2`.

    A filter of zeros stays one: it has no direction, and neither value nor gradient.

    Args:
        layer: A `Dense`, `Conv1D`, `Conv2D` or `Conv3D` layer.
        alpha: Float > 0, the squared Frobenius norm.
        per_filter: Whether every filter gets the same norm, instead of the whole kernel.
        center: Whether the mean (of each filter, or of the whole kernel) is subtracted.
        learnable_alpha: Whether alpha is trained, through its logarithm, starting at `alpha`.
        **kwargs: Those of `keras.layers.Layer`.

    Call arguments:
        inputs: As the wrapped layer.

    Input shape:
        As the wrapped layer.

    Output shape:
        As the wrapped layer.

    Raises:
        ValueError: `layer` is of another kind, quantized or has LoRA enabled, or another
            argument is out of its range.

    Example:

    ```python
    x = keras_gbr.ENC(keras.layers.Conv2D(32, 3, use_bias=False))(x)
    x = keras.layers.BatchNormalization()(x)
    ```

    Reference:
        Li, Chen & Yang, "Generalization Bound Regularizer: A Unified Perspective for
        Understanding Weight Decay", equations 20 to 23.
    """

    def __init__(
        self,
        layer: keras.Layer,
        alpha: float = 1.0,
        per_filter: bool = True,
        center: bool = True,
        learnable_alpha: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, **kwargs)
        self.alpha = check.number("alpha", alpha, exclusive=True)
        self.per_filter = check.boolean("per_filter", per_filter)
        self.center = check.boolean("center", center)
        self.learnable_alpha = check.boolean("learnable_alpha", learnable_alpha)

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        if self.learnable_alpha:
            self.log_alpha = self.add_weight(
                name="log_alpha",
                shape=(),
                initializer=keras.initializers.Constant(math.log(self.alpha)),
            )

    def reparametrize(self, kernel: Any) -> Any:
        alpha = ops.exp(self.log_alpha) if self.learnable_alpha else self.alpha
        return equal_norm(kernel, alpha, self.per_filter, self.center)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "per_filter": self.per_filter,
            "center": self.center,
            "learnable_alpha": self.learnable_alpha,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class ENCConv(ENC):
    """`ENC` for convolutions alone; every other layer is refused.

    Args:
        layer: A `Conv1D`, `Conv2D` or `Conv3D` layer.
        alpha: See `ENC`, as all further arguments.
        per_filter: See `ENC`.
        center: See `ENC`.
        learnable_alpha: See `ENC`.
        **kwargs: See `ENC`.
    """

    kinds = CONVOLUTIONS


@keras.saving.register_keras_serializable(PACKAGE)
class ENCDense(ENC):
    """`ENC` for dense layers alone; every other layer is refused.

    Args:
        layer: A `Dense` layer.
        alpha: See `ENC`, as all further arguments.
        per_filter: See `ENC`.
        center: See `ENC`.
        learnable_alpha: See `ENC`.
        **kwargs: See `ENC`.
    """

    kinds = DENSE


@keras.saving.register_keras_serializable(PACKAGE)
class WeightNorm(Reparametrized):
    r"""Weight normalisation: the layer computes with $g_j W_j / \|W_j\|$.

    Length and direction of each filter become separate parameters. The gains start at the
    lengths of the filters, so wrapping does not change what the layer computes.

    Args:
        layer: A `Dense`, `Conv1D`, `Conv2D` or `Conv3D` layer.
        **kwargs: Those of `keras.layers.Layer`.

    Raises:
        ValueError: `layer` is of another kind, quantized, or has LoRA enabled.

    Example:

    ```python
    x = keras_gbr.WeightNorm(keras.layers.Dense(64))(x)
    ```

    Reference:
        Salimans & Kingma 2016, equation 2.
    """

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        kernel = self.layer.kernel
        self.gain = self.add_weight(
            name="gain",
            shape=(kernel.shape[-1],),
            dtype=kernel.dtype,
            initializer=lambda shape, dtype: ops.cast(filter_lengths(kernel), dtype),
        )

    def reparametrize(self, kernel: Any) -> Any:
        return weight_norm(kernel, self.gain)


@keras.saving.register_keras_serializable(PACKAGE)
class WeightStandardization(Reparametrized):
    r"""Weight standardisation: the layer computes with $(W_j - \bar W_j) / s_j$.

    Each filter has mean 0 and variance 1 over its fan-in, hence large activations: follow the
    layer with a normalisation.

    Args:
        layer: A `Dense`, `Conv1D`, `Conv2D` or `Conv3D` layer.
        **kwargs: Those of `keras.layers.Layer`.

    Raises:
        ValueError: `layer` is of another kind, quantized, or has LoRA enabled.

    Example:

    ```python
    x = keras_gbr.WeightStandardization(keras.layers.Conv2D(32, 3, use_bias=False))(x)
    x = keras.layers.GroupNormalization(8)(x)
    ```

    Reference:
        Qiao et al. 2019, equation 9.
    """

    def reparametrize(self, kernel: Any) -> Any:
        return weight_standardization(kernel)
