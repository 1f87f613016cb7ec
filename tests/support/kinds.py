"""Every kind of layer with kernels, with its kernels and their filters listed by hand."""

import keras
import numpy as np
from keras import layers

import keras_gbr as gbr
from support.calls import to_numpy


@keras.saving.register_keras_serializable("kinds")
class Block(layers.Layer):
    """A custom layer that holds other layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(4, activation="tanh", name="first", dtype=self.dtype_policy)
        self.rest = [layers.Dense(3, name="second", dtype=self.dtype_policy)]

    def build(self, input_shape):
        self.first.build(input_shape)
        self.rest[0].build((*input_shape[:-1], 4))

    def call(self, x, scale=1.0, training=None):
        return scale * self.rest[0](self.first(x))


def stacked(**kwargs):
    cells = [layers.LSTMCell(3, name="one", **kwargs), layers.GRUCell(2, name="two", **kwargs)]
    dtype = kwargs.get("dtype")
    return layers.RNN(layers.StackedRNNCells(cells, name="cells", dtype=dtype), dtype=dtype)


# The layer, the shape of a sample, and the axes that number the filters of each kernel. A filter
# has at least three entries: two, centred and scaled, have nothing left to vary.
KINDS = {
    "Dense": (lambda **k: layers.Dense(3, **k), (4,), {"kernel": [1]}),
    "EinsumDense": (
        lambda **k: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="e", **k),
        *((5, 4), {"kernel": [1, 2]}),
    ),
    "EinsumDense of two fan-in axes": (
        lambda **k: layers.EinsumDense("abcd,cde->abe", (None, 3), **k),
        *((5, 2, 4), {"kernel": [2]}),
    ),
    "Conv1D": (lambda **k: layers.Conv1D(3, 2, **k), (5, 4), {"kernel": [2]}),
    "Conv2D": (lambda **k: layers.Conv2D(4, 2, groups=2, **k), (4, 3, 4), {"kernel": [3]}),
    "Conv3D": (lambda **k: layers.Conv3D(3, 2, **k), (3, 4, 3, 2), {"kernel": [4]}),
    "Conv1DTranspose": (
        lambda **k: layers.Conv1DTranspose(3, 2, strides=2, **k),
        *((5, 4), {"kernel": [1]}),
    ),
    "Conv2DTranspose": (
        lambda **k: layers.Conv2DTranspose(3, 2, padding="same", **k),
        *((4, 3, 2), {"kernel": [2]}),
    ),
    "Conv3DTranspose": (
        lambda **k: layers.Conv3DTranspose(3, 2, **k),
        *((2, 3, 2, 2), {"kernel": [3]}),
    ),
    "DepthwiseConv1D": (
        lambda **k: layers.DepthwiseConv1D(3, depth_multiplier=2, **k),
        *((5, 3), {"kernel": [1, 2]}),
    ),
    "DepthwiseConv2D": (
        lambda **k: layers.DepthwiseConv2D(2, depth_multiplier=2, **k),
        *((4, 4, 3), {"kernel": [2, 3]}),
    ),
    "SeparableConv1D": (
        lambda **k: layers.SeparableConv1D(4, 3, depth_multiplier=2, **k),
        *((5, 3), {"depthwise_kernel": [1, 2], "pointwise_kernel": [2]}),
    ),
    "SeparableConv2D": (
        lambda **k: layers.SeparableConv2D(4, 2, **k),
        *((4, 4, 3), {"depthwise_kernel": [2, 3], "pointwise_kernel": [3]}),
    ),
    "Embedding": (lambda **k: layers.Embedding(7, 3, **k), (5,), {"embeddings": [0]}),
    "MultiHeadAttention": (
        lambda **k: layers.MultiHeadAttention(2, 3, **k),
        (4, 5),
        {
            **{f"{name}/kernel": [1, 2] for name in ("query", "key", "value")},
            "attention_output/kernel": [2],
        },
    ),
    "GroupQueryAttention": (
        lambda **k: layers.GroupQueryAttention(3, 4, 2, **k),
        (4, 5),
        {
            **{f"{name}/kernel": [1, 2] for name in ("query", "key", "value")},
            "attention_output/kernel": [2],
        },
    ),
    **{
        cls.__name__: (
            lambda cls=cls, **k: cls(3, **k),
            (4, 3),
            {f"{cell}/kernel": [1], f"{cell}/recurrent_kernel": [1]},
        )
        for cls, cell in (
            (layers.SimpleRNN, "simple_rnn_cell"),
            (layers.LSTM, "lstm_cell"),
            (layers.GRU, "gru_cell"),
        )
    },
    "RNN": (
        stacked,
        (3, 3),
        {
            f"cells/{cell}/{name}": [1]
            for cell in ("one", "two")
            for name in ("kernel", "recurrent_kernel")
        },
    ),
    "TimeDistributed": (
        lambda **k: layers.TimeDistributed(
            layers.Dense(3, name="inner", **k), dtype=k.get("dtype")
        ),
        *((4, 3), {"inner/kernel": [1]}),
    ),
    "Bidirectional": (
        lambda **k: layers.Bidirectional(layers.GRU(3, name="gru", **k), dtype=k.get("dtype")),
        (4, 3),
        {
            f"{way}_gru/gru_cell/{name}": [1]
            for way in ("forward", "backward")
            for name in ("kernel", "recurrent_kernel")
        },
    ),
    "a layer of one's own": (Block, (4,), {"first/kernel": [1], "second/kernel": [1]}),
}
ATTENTION = ("MultiHeadAttention", "GroupQueryAttention")
CONVOLUTIONS = [kind for kind in KINDS if "Conv" in kind]
DENSE = [kind for kind in KINDS if "Dense" in kind]


def arguments(kind, part, make):
    """Constructor arguments that give every kernel a regularizer or a constraint."""
    names = {axis.split("/")[-1]: axes for axis, axes in KINDS[kind][2].items()}
    # "depthwise_kernel" has `depthwise_constraint`, "kernel" `kernel_constraint`.
    if kind.startswith("Depthwise"):
        names = {"depthwise_kernel": names["kernel"]}
    stems = {name: "kernel" if name == "kernel" else name.removesuffix("_kernel") for name in names}
    return {f"{stems[name]}_{part}": make(tuple(axes)) for name, axes in names.items()}


def accepts(wrapper, kind):
    """Whether a wrapper class takes this kind of layer."""
    return kind in {gbr.ENCConv: CONVOLUTIONS, gbr.ENCDense: DENSE}.get(wrapper, KINDS)


def example(kind, samples=2, seed=0):
    """A batch of inputs: Gaussian numbers, or tokens for an embedding."""
    rng = np.random.default_rng(seed)
    shape = (samples, *KINDS[kind][1])
    if kind == "Embedding":
        return rng.integers(0, 7, shape).astype("int32")
    return rng.standard_normal(shape).astype("float32")


def called(kind, layer, inputs):
    """The layer on its inputs; attention looks at the same sequence twice."""
    return layer(inputs, inputs) if kind in ATTENTION else layer(inputs)


def model_around(kind, layer, cls=keras.Model):
    """A model of one layer of this kind."""
    dtype = "int32" if kind == "Embedding" else None
    inputs = keras.Input(KINDS[kind][1], dtype=dtype)
    return cls(inputs, called(kind, layer, inputs))


def as_filters(kernel, axes):
    """The kernel as a float64 matrix, one filter per column, for NumPy."""
    kernel = np.moveaxis(to_numpy(kernel).astype("float64"), axes, range(-len(axes), 0))
    return kernel.reshape(-1, np.prod(kernel.shape[kernel.ndim - len(axes) :], dtype=int))


def from_filters(matrix, shape, axes):
    """The inverse of `as_filters`."""
    rest = [axis for axis in range(len(shape)) if axis not in axes]
    moved = matrix.reshape([shape[axis] for axis in rest + list(axes)])
    return np.moveaxis(moved, range(-len(axes), 0), axes)
