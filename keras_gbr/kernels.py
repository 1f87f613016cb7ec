"""The kernels of a layer: which variables they are, and which axes number their filters.

A filter holds the weights of one output unit. One or more axes of a kernel number its filters; the
other axes are the fan-in:

| kernel of | shape | axes of the filters |
|---|---|---|
| `Dense` | `(in, out)` | -1 |
| `EinsumDense`, attention projections | by the equation | those that the output keeps |
| `Conv1D` to `Conv3D` | `(*size, in / groups, out)` | -1 |
| `Conv1DTranspose` to `Conv3DTranspose` | `(*size, out, in)` | -2 |
| `DepthwiseConv1D`, `DepthwiseConv2D` | `(*size, in, multiplier)` | -2 and -1 |
| `SeparableConv1D`, `SeparableConv2D` | one depthwise, one pointwise | as those |
| `Embedding` | `(tokens, out)` | 0: each row |
| recurrent cells, input and recurrent | `(in, gates * units)` | -1: each gate's columns |

A layer of your own that makes kernels with `add_weight` declares them in `gbr_kernels`, an
attribute or property of the class. It maps the names of the attributes that hold kernels to the
axes of their filters.

```python
class Projection(keras.layers.Layer):
    gbr_kernels = {"weight": -1}

    def build(self, shape):
        self.weight = self.add_weight(shape=(shape[-1], 8))
```
"""

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from keras_gbr import _checks as check
from keras_gbr._keras.attributes import stored, stored_name
from keras_gbr._keras.layer_tree import all_layers, children, comes_with_keras, own_weights, walk
from keras_gbr.maths.filters import Axes

DENSE = (layers.Dense, layers.EinsumDense)
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
CONVOLUTIONS = (
    *(layers.Conv1D, layers.Conv2D, layers.Conv3D),
    *TRANSPOSED,
    *DEPTHWISE,
    *SEPARABLE,
)
CELLS = (layers.SimpleRNNCell, layers.LSTMCell, layers.GRUCell)
CONVOLUTIONAL_LSTMS = (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
# Layers that compute through other layers with kernels.
CONTAINERS = (
    *(layers.MultiHeadAttention, layers.GroupQueryAttention),
    *(layers.RNN, layers.StackedRNNCells),
    *(layers.Bidirectional, layers.TimeDistributed),
)
CELL_RULE: dict[str, Axes] = {"kernel": -1, "recurrent_kernel": -1}
LAYER_CLASSES = (*DENSE, *CONVOLUTIONS, layers.Embedding, *CELLS, *CONTAINERS)


@dataclass(frozen=True, eq=False)
class Kernel:
    """One kernel of a built layer.

    Attributes:
        name: The path to it from the layer given to `kernels_of`: "kernel", "lstm_cell/kernel".
        layer: The layer that stores it.
        filter_axis: The axis, or tuple of axes, that numbers the filters.
        attribute: The instance attribute of `layer` that stores it.
    """

    name: str
    layer: keras.Layer
    filter_axis: Axes
    attribute: str

    @property
    def variable(self) -> Any:
        """The variable itself, even while a wrapper makes the layer read another kernel."""
        return vars(self.layer)[self.attribute]


def kernels_of(layer: keras.Layer) -> list[Kernel]:
    """The kernels of a built layer and of the layers inside it, each once.

    Args:
        layer: A built layer. A layer that holds others has their kernels too.

    Raises:
        ValueError: One of the layers is quantized or has LoRA enabled.
    """
    # The cells of convolutional LSTMs have no public class.
    cells = {id(part.cell) for part in all_layers(layer) if isinstance(part, CONVOLUTIONAL_LSTMS)}

    def rule_of(part: keras.Layer) -> dict[str, Axes]:
        return CELL_RULE if id(part) in cells else _rule(part)

    def inside(part: keras.Layer) -> list[keras.Layer]:
        # A layer with a rule computes only with its own kernels.
        return children(part) if rule_of(part).keys() <= _declared(part).keys() else []

    found: dict[tuple[int, str], Kernel] = {}
    for path, part in walk(layer, inside):
        rule = {**rule_of(part), **_declared(part)}
        if rule:
            check_plain(part)
        for name, axes in rule.items():
            if stored(part, name) is not None:
                where = f"{path}/{name}" if path else name
                kernel = Kernel(where, part, axes, stored_name(part, name))
                found.setdefault((id(part), kernel.attribute), kernel)
    return list(found.values())


def undeclared_weights(layer: keras.Layer) -> list[tuple[str, tuple[int, ...]]]:
    """Weights that may be kernels, but are not declared.

    Args:
        layer: A built layer.

    Returns:
        Names and shapes of trainable weights that have two or more axes, belong to layers from
        outside of Keras, and are not declared in `gbr_kernels`.
    """
    known = {id(kernel.variable) for kernel in kernels_of(layer)}
    return [
        (variable.name, tuple(variable.shape))
        for part in all_layers(layer)
        if not comes_with_keras(type(part))
        for variable in own_weights(part)
        if len(variable.shape) > 1 and id(variable) not in known
    ]


def _declared(layer: keras.Layer) -> dict[str, Axes]:
    """The kernels that a layer declares in `gbr_kernels`.

    Raises:
        ValueError: A declared name is not an attribute with a variable, or has no axes.
    """
    declared = getattr(layer, "gbr_kernels", {})
    fits = isinstance(declared, dict) and all(
        isinstance(axes, (int, tuple))
        and (not layer.built or isinstance(vars(layer).get(name), keras.Variable))
        for name, axes in declared.items()
    )
    if not fits:
        raise check.error(
            f"`gbr_kernels` of {type(layer).__name__} must be a dict of the names of attributes "
            'that hold a variable, with the axes of its filters: {"weight": -1}.',
            "gbr_kernels",
            declared,
        )
    return declared


def _rule(layer: keras.Layer) -> dict[str, Axes]:
    """The kernels that a layer of Keras stores itself, with the axes of their filters."""
    if isinstance(layer, DEPTHWISE):
        return {"kernel": (-2, -1)}
    if isinstance(layer, SEPARABLE):
        return {"depthwise_kernel": (-2, -1), "pointwise_kernel": -1}
    if isinstance(layer, TRANSPOSED):
        return {"kernel": -2}
    if isinstance(layer, layers.EinsumDense):
        return {"kernel": _einsum_axes(layer.equation)}
    if isinstance(layer, (layers.Dense, *CONVOLUTIONS)):
        return {"kernel": -1}
    if isinstance(layer, layers.Embedding):
        return {"embeddings": 0, "reverse_embeddings": -1}
    if isinstance(layer, CELLS):
        return CELL_RULE
    return {}


def _einsum_axes(equation: str) -> tuple[int, ...]:
    """The axes of the kernel that the output keeps: "abc,cde->abde" has (1, 2)."""
    inputs, output = equation.replace(" ", "").split("->")
    return tuple(axis for axis, label in enumerate(inputs.split(",")[1]) if label in output)


def check_layer(layer: Any, layer_classes: tuple[type, ...] = LAYER_CLASSES) -> None:
    """Refuses a layer that is known to have no kernel, or whose kernels cannot be replaced.

    Args:
        layer: The layer, built or not.
        layer_classes: The accepted layer classes. The default accepts a layer from outside of
            Keras too, because only a built layer shows whether it holds kernels.

    Raises:
        ValueError: `layer` is of another class, is quantized, or has LoRA enabled.
    """
    is_model = isinstance(layer, keras.Model)
    if is_model and layer_classes is LAYER_CLASSES:
        raise check.error(
            "`layer` must be a layer. For the layers of a model use "
            "`keras_gbr.apply_enc(model)` or `keras_gbr.apply_regularizer(model, ...)`.",
            "layer",
            layer,
        )
    is_foreign = isinstance(layer, keras.Layer) and not comes_with_keras(type(layer))
    if is_model or not (
        isinstance(layer, layer_classes) or (is_foreign and layer_classes is LAYER_CLASSES)
    ):
        raise check.error(f"`layer` must be a {class_names(layer_classes)} layer.", "layer", layer)
    check_plain(layer)


def check_kernels(layer: keras.Layer) -> list[Kernel]:
    """The kernels of a built layer, at least one; see `kernels_of`.

    Raises:
        ValueError: There is no kernel, or one of the layers is quantized or has LoRA enabled.
    """
    kernels = kernels_of(layer)
    if not kernels:
        raise check.error(
            f"`layer` must have a kernel: be a {class_names(LAYER_CLASSES)} layer, or hold one.",
            "layer",
            layer,
        )
    return kernels


def check_start(kernel: Kernel, center: bool) -> None:
    """Refuses a kernel that starts without a direction: a normalisation would keep it zero.

    Args:
        kernel: The kernel.
        center: Whether its mean is subtracted.

    Raises:
        ValueError: Its initializer gives zeros or, with `center`, the same number everywhere.
    """
    part = kernel.name.rsplit("/", 1)[-1]
    names = (f"{part}_initializer", f"{part.removesuffix('_kernel')}_initializer")
    found = [(name, vars(kernel.layer)[name]) for name in names if name in vars(kernel.layer)]
    constants = (keras.initializers.Zeros, keras.initializers.Ones, keras.initializers.Constant)
    if not found or not isinstance(found[0][1], constants):
        return
    name, initializer = found[0]
    is_zero = isinstance(initializer, keras.initializers.Zeros)
    is_zero = is_zero or getattr(initializer, "value", None) == 0
    if is_zero or center:
        raise check.error(
            f"Kernel {kernel.name!r} starts with the same number everywhere. It has no direction "
            'and would always be zero. Take another initializer, such as "glorot_uniform", or '
            "leave the layer as it is.",
            name,
            initializer,
        )


def check_plain(layer: keras.Layer) -> None:
    """Refuses a layer whose kernel is not a single floating-point variable.

    Raises:
        ValueError: `layer` is quantized or has LoRA enabled.
    """
    if getattr(layer, "lora_enabled", False) or getattr(layer, "lora_rank", None):
        raise check.error(
            "`layer` must not have LoRA enabled: its kernel is a sum of several variables. "
            "Take the layer without `lora_rank`, or merge the LoRA weights first.",
            "layer",
            layer,
        )
    if getattr(layer, "quantization_mode", None):
        raise check.error(
            "`layer` must not be quantized: its kernel holds integers. Quantize after "
            "`keras_gbr.strip(model)`.",
            "layer",
            layer,
        )


def class_names(layer_classes: tuple[type, ...]) -> str:
    """Layer classes as a phrase for an error: "Dense, Conv1D or Conv2D"."""
    names = [cls.__name__ for cls in layer_classes]
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
