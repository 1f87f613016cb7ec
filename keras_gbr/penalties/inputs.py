"""Converts the data of a batch to tensors of the types that a model computes with."""

from typing import Any

import keras
from keras import ops

from keras_gbr import _checks as check
from keras_gbr._keras.layer_tree import is_built_from_graph
from keras_gbr.maths.precision import at_least_float32, is_float

# Attributes that only sparse or ragged tensors have.
_LAYOUTS = {"dense_shape": "sparse", "nse": "sparse", "row_splits": "ragged"}
# Too small for most indices, but usual for the pixels of an image.
_SMALL_INTEGERS = ("int8", "uint8", "int16", "uint16")


def as_taken(model: keras.Model, x: Any) -> Any:
    """Converts data to tensors, as the model itself does first.

    A functional or sequential model converts each input to its declared type. Any other model
    casts floating-point numbers to its precision, and leaves integers as they are.

    Args:
        model: A built model.
        x: An array or tensor, or a structure of them, with `None` for an optional input.

    Returns:
        Tensors in the same structure. Floating-point ones have at least single precision, so
        that gradients with respect to them have it too.
    """
    x = keras.tree.map_structure(ops.convert_to_tensor, x, none_is_leaf=False)
    leaves, declared = keras.tree.flatten(x), _declared(model, x)
    converted = [
        None if leaf is None else _converted(model, leaf, spec)
        for leaf, spec in zip(leaves, declared, strict=True)
    ]
    return keras.tree.pack_sequence_as(x, converted)


def check_differentiable(model: keras.Model, x: Any) -> None:
    """Refuses inputs that would silently be left out of input gradients.

    Args:
        model: The model.
        x: Data as `as_taken` returns them.

    Raises:
        ValueError: A tensor is sparse or ragged; or one holds small integers, and the model does
            not say whether they are numbers or indices.
    """
    for leaf, spec in zip(keras.tree.flatten(x), _declared(model, x), strict=True):
        if leaf is None:
            continue
        dtype = keras.backend.standardize_dtype(leaf.dtype)
        if layout(leaf) != "dense":
            raise check.error(
                "A gradient with respect to the inputs needs dense ones. Give a dense array, or "
                'take the gradient at the output of a layer, such as `at="hidden"` for one of '
                "that name.",
                "input",
                f"{layout(leaf)} tensor of shape {tuple(leaf.shape)} and dtype {dtype}",
            )
        if spec is None and dtype in _SMALL_INTEGERS:
            raise check.error(
                "A gradient leaves out integers, and a model with a `call` of its own does not say "
                f"whether inputs of dtype {dtype} are numbers, such as pixels, or "
                'indices. Give numbers as floats, `x.astype("float32")`, and indices as int32.',
                "input",
                f"tensor of shape {tuple(leaf.shape)} and dtype {dtype}",
            )


def first_samples(x: Any, size: Any) -> Any:
    """The first samples of a batch.

    Args:
        x: A tensor or structure of tensors `(batch_size, ...)`, which may contain `None`.
        size: Whole number or scalar integer tensor.

    Raises:
        ValueError: A tensor is sparse and cannot be cut.
    """

    def cut(leaf: Any) -> Any:
        try:
            return leaf[:size]
        except TypeError as error:
            raise check.error(
                "`fraction` needs dense tensors. Leave it out, or give the input as a dense array.",
                "input",
                f"{layout(leaf)} tensor of shape {tuple(leaf.shape)}",
            ) from error

    return keras.tree.map_structure(cut, x, none_is_leaf=False)


def is_differentiable(tensor: Any) -> bool:
    """Whether a tensor can have a gradient: it is dense and of a floating-point type."""
    return is_float(tensor) and layout(tensor) == "dense"


def layout(tensor: Any) -> str:
    """Whether a tensor is `"dense"`, `"sparse"` or `"ragged"`."""
    if getattr(tensor, "is_sparse", False) is True:
        return "sparse"
    return next((name for mark, name in _LAYOUTS.items() if hasattr(tensor, mark)), "dense")


def _declared(model: keras.Model, x: Any) -> list[Any]:
    """The `keras.Input` of each leaf of the data, `None` where the model declares none."""
    inputs = getattr(model, "inputs", None) if is_built_from_graph(model) else None
    number = len(keras.tree.flatten(x))
    if inputs is None:
        return [None] * number
    is_dict = isinstance(model, keras.Function) and isinstance(model.input, dict)
    if isinstance(x, dict) and not is_dict:
        named = {tensor.name: tensor for tensor in inputs}
        found = keras.tree.flatten({key: named.get(key) for key in x})
    else:
        found = list(inputs)
    return [*found, *[None] * number][:number]


def _converted(model: keras.Model, tensor: Any, spec: Any) -> Any:
    if spec is not None:
        tensor = ops.convert_to_tensor(tensor, spec.dtype, sparse=spec.sparse)
    elif is_float(tensor) and model.autocast and "float" in model.compute_dtype:
        # The model casts to half precision itself when it is called.
        double = model.compute_dtype == "float64"
        tensor = ops.cast(tensor, "float64" if double else "float32")
    return at_least_float32(tensor) if is_differentiable(tensor) else tensor
