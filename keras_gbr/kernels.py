"""What a layer's kernel is: which variable, which axis holds the filters, as a matrix."""

from typing import Any

import keras
from keras import ops

from keras_gbr._validation import fail
from keras_gbr.precision import at_least_float32

CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
DENSE = (keras.layers.Dense,)
KINDS = DENSE + CONVOLUTIONS


def kind_names(kinds: tuple[type, ...]) -> str:
    """The layer kinds as a phrase for an error: "Dense, Conv1D or Conv2D"."""
    names = [kind.__name__ for kind in kinds]
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def check_layer(layer: Any, kinds: tuple[type, ...] = KINDS) -> None:
    """Refuses a layer whose kernel cannot be replaced by a function of it.

    Args:
        layer: The layer, built or not.
        kinds: The layer classes that are accepted.

    Raises:
        ValueError: `layer` is of another kind, is quantized, or has LoRA enabled (its kernel
            is then no longer one variable).
    """
    if not isinstance(layer, kinds):
        raise fail(f"`layer` must be a {kind_names(kinds)} layer.", "layer", layer)
    if getattr(layer, "lora_enabled", False) or getattr(layer, "lora_rank", None):
        raise fail(
            "`layer` must not have LoRA enabled: its kernel is a sum of several variables. "
            "Wrap the layer without `lora_rank`, or merge the LoRA weights first.",
            "layer",
            layer,
        )
    if getattr(layer, "quantization_mode", None):
        raise fail(
            "`layer` must not be quantized: its kernel holds integers. Quantize after "
            "`keras_gbr.strip(model)`.",
            "layer",
            layer,
        )


def kernel_attribute(layer: keras.Layer) -> str:
    """The name of the instance attribute that stores the kernel of a built layer.

    `kernel` is a read-only property on some layers and the attribute itself on others.
    """
    kernel = layer.kernel
    return next(name for name, value in vars(layer).items() if value is kernel)


def layers_with_kernel(layer: keras.Layer) -> list[keras.Layer]:
    """The built layers below (and including) `layer` that have a kernel, each once.

    A wrapper of this package counts as one layer, with the kernel that it computes with; the
    layer inside is not listed again.
    """
    if hasattr(layer, "kernel"):
        return [layer]
    found = [inner for child in layer._layers for inner in layers_with_kernel(child)]
    return list(dict.fromkeys(found))


def as_matrix(kernel: Any) -> Any:
    """The kernel as a matrix of at least single precision, one filter a column.

    Args:
        kernel: Tensor or variable `(..., filters)`: `(in, out)` of a `Dense`,
            `(*kernel_size, in // groups, out)` of a convolution. A vector is one row.

    Returns:
        Tensor `(fan_in, filters)`; float32 or float64.
    """
    kernel = at_least_float32(kernel)
    filters = kernel.shape[-1] if len(kernel.shape) else 1
    return ops.reshape(kernel, (-1, filters))
