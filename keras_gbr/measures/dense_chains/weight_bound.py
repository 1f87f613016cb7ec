"""Bounds on the GBR that follow from the weights alone."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_gbr.measures.dense_chains.chain import ACTIVATIONS, Link, dense_chain, refused
from keras_gbr.measures.dense_chains.lipschitz_activations import is_nonexpansive


class WeightBound(NamedTuple):
    r"""Two bounds on the GBR of a model, as `weight_bound` returns them. The second is looser.

    Attributes:
        product: $\prod_l \|W_l\|_F^2$.
        mean_power: $(\frac 1L \sum_l \|W_l\|_F^2)^L$.

    Example:

    ```python
    mlp = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "relu")])
    product, mean_power = keras_gbr.measures.weight_bound(mlp)
    assert product <= mean_power * (1 + 1e-6)
    ```
    """

    product: float
    mean_power: float


def weight_bound(model: keras.Model) -> WeightBound:
    r"""Bounds on the GBR from the norms of the kernels, for chains of dense layers.

    With $W_l$ the kernels and $D_l$ the Jacobians of the activations, $\|D_l\|_2 \le 1$, the
    Jacobian is $D_L W_L^T \cdots D_1 W_1^T$, and $\|AB\|_F \le \|A\|_2 \|B\|_F \le \|A\|_F
    \|B\|_F$ gives for every input

    $$\|\partial f / \partial x\|_F^2 \le \prod_l \|W_l\|_F^2
    \le \Big(\frac 1L \sum_l \|W_l\|_F^2\Big)^L ,$$

    where the last step is the inequality of geometric and arithmetic mean. The kernels are those
    that the layers compute with: under `ENC` each has the squared norm alpha. The bound holds for
    the logits. It also holds for the probabilities, since the softmax and the sigmoid shorten
    distances.

    Args:
        model: A built model: a sequential, functional or nested chain of `Dense` layers, bare or
            in wrappers of this package, with 1-Lipschitz activations, and layers between them
            that rearrange their input (`Flatten`) or do nothing at inference (`Dropout`).

    Returns:
        A `WeightBound(product, mean_power)`, infinite where a float overflows.

    Raises:
        ValueError: The model is not built, or a layer breaks the bound. A convolution does: its
            matrix is the unrolled operator, not the kernel. So does a normalisation: its scale is
            in no kernel.

    Example:

    ```python
    stack = [keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]
    mlp = keras.Sequential([keras.Input((4,)), *stack])
    x = np.random.default_rng(0).standard_normal((20, 4))
    assert keras_gbr.measures.gbr(mlp, x) <= keras_gbr.measures.weight_bound(mlp).product
    ```

    Reference:
        Li, Chen & Yang 2021, "Generalization Bound Regularizer: A Unified Perspective for
        Understanding Weight Decay", Chinese Journal of Computers, equation 17.
    """
    links = dense_chain(model)
    for link in links:
        _check_activation(link)
    kernels = [ops.convert_to_numpy(link.kernel) for link in links if link.is_dense]
    squares = [float(np.sum(np.square(kernel, dtype="float64"))) for kernel in kernels]
    with np.errstate(over="ignore"):
        mean_power = np.float64(np.mean(squares)) ** len(squares)
        return WeightBound(float(np.prod(squares)), float(mean_power))


def _check_activation(link: Link) -> None:
    if link.is_dense:
        activation = link.layer.activation
    elif isinstance(link.layer, ACTIVATIONS):
        activation = link.layer
    else:
        return
    if not is_nonexpansive(activation):
        name = getattr(activation, "__name__", repr(activation))
        raise refused(
            link.path,
            link.layer,
            f"its activation {name} is not known to be 1-Lipschitz",
            "Take one of `keras.activations` that is, such as relu, tanh or softplus; "
            "`measures.gbr` takes any model.",
        )
