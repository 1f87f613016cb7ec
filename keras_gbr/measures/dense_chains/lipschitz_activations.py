r"""Which activations are 1-Lipschitz: $\|a(u) - a(v)\| \le \|u - v\|$ for all $u$, $v$."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import activations, layers, ops

# Activations with a slope in -1 to 1 everywhere and no jump. The Jacobian of `softmax` has
# eigenvalues in 0 to 1/2. Left out: gelu (slope up to 1.13), silu (1.10), mish (1.09), selu (1.76),
# hard_silu (1.5), log_softmax (norm up to the root of the number of classes), exponential and glu
# (unbounded), hard_shrink and threshold (they jump), and sparsemax (a projection in the paper, but
# Keras' version jumps).
_NAMES = (
    *("linear", "relu", "relu6", "leaky_relu", "elu", "celu", "softplus", "squareplus"),
    *("tanh", "hard_tanh", "tanh_shrink", "sigmoid", "hard_sigmoid", "log_sigmoid", "softsign"),
    *("soft_shrink", "sparse_plus", "sparse_sigmoid", "softmax"),
)
_FUNCTIONS = [getattr(activations, name) for name in _NAMES]
_LAYERS: dict[type, Callable[[Any], bool]] = {
    layers.Activation: lambda layer: is_nonexpansive(layer.activation),
    layers.Softmax: lambda layer: True,
    # Above a threshold the function jumps from 0 to the threshold.
    layers.ReLU: lambda layer: layer.threshold == 0 and abs(layer.negative_slope) <= 1,
    layers.LeakyReLU: lambda layer: abs(layer.negative_slope) <= 1,
    layers.PReLU: lambda layer: bool(np.max(np.abs(ops.convert_to_numpy(layer.alpha))) <= 1),
    layers.ELU: lambda layer: abs(layer.alpha) <= 1,
}


def is_nonexpansive(activation: Any) -> bool:
    """Whether an activation is known to be 1-Lipschitz.

    Args:
        activation: A function of `keras.activations`, or a built layer that is an activation.
    """
    if isinstance(activation, keras.Layer):
        return type(activation) in _LAYERS and _LAYERS[type(activation)](activation)
    return any(activation is function for function in _FUNCTIONS)
