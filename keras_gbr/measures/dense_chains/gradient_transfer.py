"""Both sides of the inequality that links the gradients by the input and by the parameters."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gbr import _checks as check
from keras_gbr import backend
from keras_gbr._keras.per_sample_losses import compiled_loss, per_sample_losses
from keras_gbr.measures.data import Batch, Data
from keras_gbr.measures.dense_chains.chain import REARRANGING, Link, dense_chain, refused
from keras_gbr.measures.restored import unchanged

# The most entries of a stack of Jacobians, 128 MiB in double precision.
_ENTRIES = 2**24


@dataclass(frozen=True)
class GradientTransfer:
    """Both sides of the transfer inequality, see `gradient_transfer`.

    Attributes:
        layers: The names of the dense layers.
        layer_left: Array `(samples, layers)`, the left side of each layer.
        layer_right: Array `(samples, layers)`, the squared norm of the gradient by the kernel
            and the bias of each layer.

    Example:

    ```python
    mlp = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    sides = keras_gbr.measures.gradient_transfer(mlp, np.ones((5, 4)))
    assert sides.layer_left.shape == (5, len(sides.layers)) == (5, 2)
    assert sides.left.shape == sides.right.shape == (5,)
    ```
    """

    layers: tuple[str, ...]
    layer_left: np.ndarray
    layer_right: np.ndarray

    @property
    def left(self) -> np.ndarray:
        """The left side of each sample, array `(samples,)`."""
        return self.layer_left.sum(axis=1)

    @property
    def right(self) -> np.ndarray:
        """The squared norm of each sample's gradient by all kernels and biases, `(samples,)`."""
        return self.layer_right.sum(axis=1)


def gradient_transfer(
    model: keras.Model, x: Any, y: Any = None, batch_size: int = 32
) -> GradientTransfer:
    r"""How far a small gradient by the parameters forces a small one by the input.

    For one sample and a scalar function $f$ of a network of dense layers $z_l = W_l^T h_l +
    b_l$, $h_1 = x$,

    $$\|\nabla_x f\|^2 \sum_l \frac{1 + \|h_l\|^2}{\|W_l\|_2^2 \, \|\nabla_x h_l\|_2^2}
    \le \|\nabla_\theta f\|^2 ,$$

    with spectral norms of matrices. Proof: let $\delta_l = \nabla_{z_l} f$. The gradient by the
    kernel is $h_l \delta_l^T$ and that by the bias is $\delta_l$, so the part of layer $l$ in the
    right side is $(1 + \|h_l\|^2) \|\delta_l\|^2$. And $\nabla_x f = (\nabla_x h_l)^T W_l
    \delta_l$, so $\|\nabla_x f\| \le \|\nabla_x h_l\|_2 \|W_l\|_2 \|\delta_l\|$. The
    inequality therefore holds layer by layer, for every activation. In a layer without bias the 1
    is missing on both sides. Where $W_l$ or $\nabla_x h_l$ is zero, so is $\nabla_x f$, and the
    left side is 0.

    The kernels are those that the layers compute with, and the gradients are taken by them: under
    `ENC`, by the normalised kernels. Layers that are not trainable count too. The numbers are
    computed in the precision of the weights, and the inequality holds up to its rounding.

    Args:
        model: A built model: a sequential, functional or nested chain of `Dense` layers, see
            `weight_bound`, with any activations.
        x: As `gbr` takes it.
        y: Labels, if `x` is not a dataset. With labels $f$ is the compiled loss of each single
            sample. Without labels it is the output, which must be one unit.
        batch_size: Samples at a time. It bounds the memory and does not change the result.

    Returns:
        A `GradientTransfer`.

    Raises:
        ValueError: A layer breaks the inequality, such as a convolution, which uses each weight
            in many places; there are labels, but the model is compiled without a loss; there are
            no labels, but several outputs; or another argument is out of its range.

    Example:

    ```python
    mlp = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    mlp.compile("sgd", "mse")
    sides = keras_gbr.measures.gradient_transfer(mlp, np.ones((5, 4)), np.zeros((5, 2)))
    assert np.all(sides.left <= sides.right * (1 + 1e-5))
    ```

    Reference:
        Dherin, Munn & Barrett 2021, "The Geometric Occam's Razor Implicit in Deep Learning",
        https://arxiv.org/abs/2111.15090.
    """
    data = Data(x, y, batch_size=batch_size)
    links = dense_chain(model)
    _check_shared(links)
    weights = _weights(links)
    width = max(max(matrix.shape) for matrix, _ in weights)
    with unchanged(model):
        sides = [
            _sides(model, links, weights, part)
            for batch in data
            for part in _parts(batch, max(1, _ENTRIES // width**2))
        ]
    left, right = (np.concatenate(side) for side in zip(*sides, strict=True))
    return GradientTransfer(tuple(link.path for link in links if link.is_dense), left, right)


def _check_shared(links: list[Link]) -> None:
    dense = [link.layer for link in links if link.is_dense]
    for link in links:
        if link.is_dense and sum(layer is link.layer for layer in dense) > 1:
            reason = "it is used twice, and the gradient by its kernel is a sum"
            raise refused(link.path, link.layer, reason)


def _parts(batch: Batch, size: int) -> list[tuple[Any, Any]]:
    """Inputs and labels of at most `size` samples."""
    samples = keras.tree.flatten(batch.x)[0].shape[0]

    def cut(structure: Any, first: int) -> Any:
        return keras.tree.map_structure(lambda leaf: leaf[first : first + size], structure)

    return [
        (cut(batch.x, first), None if batch.y is None else cut(batch.y, first))
        for first in range(0, samples, size)
    ]


def _weights(links: list[Link]) -> list[tuple[np.ndarray, float]]:
    """The kernel of each dense layer with its squared spectral norm."""
    matrices: list[np.ndarray] = [_float64(link.kernel) for link in links if link.is_dense]
    if _rearranges(_head(links)):
        # A rotation of the input changes no norm, so the small triangular factor will do.
        matrices[0] = np.asarray(np.linalg.qr(matrices[0], mode="r"))
    return [(matrix, float(_squared_spectral_norms(matrix))) for matrix in matrices]


def _sides(
    model: keras.Model,
    links: list[Link],
    weights: list[tuple[np.ndarray, float]],
    part: tuple[Any, Any],
) -> tuple[np.ndarray, np.ndarray]:
    """The left and right side of each sample and layer."""
    x, y = part
    run = _Run(links, keras.tree.flatten(x)[0], lambda output: _scalar(model, output, y))
    left, right = [], []
    jacobian = None
    for index, (matrix, squared_norm) in enumerate(weights):
        jacobian = run.input_jacobian(index, jacobian)
        scale = squared_norm * _squared_spectral_norms(jacobian)
        bias = float(run.blocks[index][0].layer.use_bias)
        factor = bias + _squares(run.inputs[index])
        numerator = factor * _squares(run.input_gradient)
        left.append(np.divide(numerator, scale, out=np.zeros_like(factor), where=scale > 0))
        right.append(factor * _squares(run.deltas[index]))
        jacobian = matrix.T if jacobian is None else matrix.T @ jacobian
    return np.stack(left, axis=1), np.stack(right, axis=1)


def _scalar(model: keras.Model, output: Any, y: Any) -> Any:
    """The sum over samples of the function of the outputs whose gradients are compared."""
    if y is None:
        if math.prod(output.shape[1:]) != 1:
            raise check.error(
                "Without labels the output itself is differentiated, and must be one unit. "
                "Give labels for the gradients of the loss.",
                "output shape",
                tuple(output.shape),
            )
        return ops.sum(output)
    loss = compiled_loss(model)
    if loss is None:
        raise check.error(
            "With labels the compiled loss is differentiated: compile the model with a `loss`.",
            "loss",
            None,
        )
    return ops.sum(per_sample_losses(loss, y, output))


class _Run:
    """One pass through a chain, with the inputs and gradients of each dense layer.

    Attributes:
        blocks: Each dense layer with the layers between it and the next one.
        inputs: The input of each dense layer, `(samples, inputs)`.
        input_gradient: The gradient by the input of the chain, `(samples, ...)`.
        deltas: The gradient by the pre-activations of each dense layer, `(samples, units)`.
    """

    def __init__(self, links: list[Link], x: Any, scalar: Callable[[Any], Any]) -> None:
        starts = [index for index, link in enumerate(links) if link.is_dense]
        ends = [*starts[1:], len(links)]
        self.head = _head(links)
        self.blocks = [(links[i], links[i + 1 : j]) for i, j in zip(starts, ends, strict=True)]
        kernels = [ops.convert_to_tensor(link.kernel) for link, _ in self.blocks]
        self.x = ops.cast(x, kernels[0].dtype)

        def run(inputs: list[Any], watch: Callable[[str, Any], Any]) -> Any:
            h = _through(self.head, inputs[0])
            for (link, following), kernel in zip(self.blocks, kernels, strict=True):
                z = ops.matmul(watch("input", h), kernel)
                if link.layer.use_bias:
                    z = z + ops.convert_to_tensor(link.layer.bias)
                h = _through(following, link.layer.activation(watch("pre-activation", z)))
            return scalar(h)

        _, watched, gradients_of = backend.record(run, [self.x], watches=True)
        self.inputs, self.pre_activations = watched["input"], watched["pre-activation"]
        sources = [self.x, *self.pre_activations]
        gradients = gradients_of(lambda value: value, sources)
        self.input_gradient, *self.deltas = (
            ops.zeros_like(source) if gradient is None else gradient
            for source, gradient in zip(sources, gradients, strict=True)
        )

    def input_jacobian(self, index: int, before: np.ndarray | None) -> np.ndarray | None:
        """The Jacobian of the input of a dense layer by the input of the chain.

        Args:
            index: The number of the dense layer.
            before: The Jacobian of the pre-activations of the dense layer before, up to a
                rotation of the inputs: `(samples, units, inputs)`, or `(units, inputs)` for all
                samples.

        Returns:
            Array `(samples, outputs, inputs)`; `None` if the input is only rearranged.
        """
        outputs = self.inputs[index].shape[1]
        if index == 0:
            if _rearranges(self.head):
                return None
            return _jacobians(lambda x: _through(self.head, x), self.x, outputs)
        link, following = self.blocks[index - 1]

        def activation(z: Any) -> Any:
            return _through(following, link.layer.activation(z))

        return _jacobians(activation, self.pre_activations[index - 1], outputs) @ before


def _head(links: list[Link]) -> list[Link]:
    """The layers before the first dense one."""
    return links[: next(index for index, link in enumerate(links) if link.is_dense)]


def _rearranges(links: list[Link]) -> bool:
    return all(isinstance(link.layer, REARRANGING) for link in links)


def _through(links: list[Link], h: Any) -> Any:
    for link in links:
        h = link.layer(h)
    return h


def _jacobians(function: Callable[[Any], Any], x: Any, outputs: int) -> np.ndarray:
    """The Jacobian of each sample, `(samples, outputs, inputs)`: all rows in one pullback."""
    samples = x.shape[0]
    repeated = ops.convert_to_tensor(np.repeat(ops.convert_to_numpy(x), outputs, axis=0))
    y, _, gradients_of = backend.record(lambda inputs, watch: function(inputs[0]), [repeated])
    rows = ops.convert_to_tensor(np.tile(np.eye(outputs), (samples, 1)).reshape(y.shape), y.dtype)
    (gradient,) = gradients_of(lambda y: y * rows, [repeated])
    gradient = ops.zeros_like(repeated) if gradient is None else gradient
    return _float64(gradient).reshape(samples, outputs, -1)


def _squared_spectral_norms(matrices: np.ndarray | None) -> Any:
    """The squared norms of matrices `(..., rows, columns)`; `None` stands for a rearrangement."""
    if matrices is None:
        return 1.0
    transposed = np.swapaxes(matrices, -1, -2)
    wide = matrices.shape[-2] <= matrices.shape[-1]
    gram = matrices @ transposed if wide else transposed @ matrices
    return np.linalg.eigvalsh(gram)[..., -1]


def _squares(values: Any) -> np.ndarray:
    """The squared length of each sample's part."""
    flat = _float64(values).reshape(values.shape[0], -1)
    return np.sum(flat**2, axis=1)


def _float64(values: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(values), dtype="float64")
