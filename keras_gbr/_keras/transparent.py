"""The base of wrappers that are called like the layer inside them."""

import inspect
from collections.abc import Callable
from typing import Any

import keras

from keras_gbr._keras.layer_tree import children, comes_with_keras


class Transparent(keras.layers.Wrapper):
    """A wrapper that is called like the layer inside it and leaves masks and dtypes to it.

    Args:
        layer: The layer, built or not.
        **kwargs: Those of `keras.layers.Layer`; `dtype` has no effect.
    """

    def __init__(self, layer: keras.Layer, **kwargs: Any) -> None:
        # In the precision of the variables and without autocast, a wrapper reads kernels as they
        # are under any policy. The layer casts the inputs.
        kwargs["dtype"] = layer.variable_dtype
        # Keras reads from the signature of `call` which arguments are masks and which shapes
        # `build` gets.
        self.__dict__["call"] = _with_signature(self.call, layer.call)
        super().__init__(layer, autocast=False, **kwargs)
        self.build.__signature__ = inspect.signature(layer.build)  # type: ignore[attr-defined]
        self.supports_masking = layer.supports_masking

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        inner = unwrapped(self)
        if not self.built and _needs_call(inner, args, kwargs):
            with keras.name_scope(self.name):
                inner(*_symbolic(args), **_symbolic(kwargs))
        return super().__call__(*args, **kwargs)

    def build(self, *args: Any, **kwargs: Any) -> None:
        if not self.layer.built or _is_built_by_call(self.layer):
            build_from_shapes(self.layer, *args, **kwargs)
            self.layer.built = True

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer(*args, **kwargs)

    def compute_mask(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_mask(*args, **kwargs)

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_spec(*args, **kwargs)

    @property
    def _build_shapes_dict(self) -> Any:
        # The shapes that `build` got. Keras saves, exports and summarises by them.
        return self.layer._build_shapes_dict

    @_build_shapes_dict.setter
    def _build_shapes_dict(self, shapes: Any) -> None:
        pass

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "Transparent":
        # Keras' own method removes the layer from the caller's dictionary.
        return super().from_config(dict(config), custom_objects)


def unwrapped(layer: Any, wrappers: Any = Transparent, until: Any = ()) -> Any:
    """The layer inside all wrappers. Anything that is not a wrapper is returned itself.

    Args:
        layer: The layer.
        wrappers: The class of wrappers to look into, or a tuple of classes.
        until: As `wrappers`: the classes of wrappers to stop at.
    """
    while isinstance(layer, wrappers) and not isinstance(layer, until):
        layer = layer.layer
    return layer


def wrappers_of(layer: Any) -> list[Transparent]:
    """A wrapper and the wrappers inside it, the outer first; empty for any other layer."""
    found = []
    while isinstance(layer, Transparent):
        found.append(layer)
        layer = layer.layer
    return found


def build_from_shapes(layer: keras.Layer, *args: Any, **kwargs: Any) -> None:
    """Builds a layer as `layer.build` does, even if only its first call builds it completely.

    Args:
        layer: A layer that is not built, or has layers inside that are not.
        *args: The arguments of `layer.build`.
        **kwargs: As `args`.
    """
    if not _is_built_by_call(layer):
        layer.build(*args, **kwargs)
    if not _has_unbuilt(layer):
        return
    # A `build` may leave layers inside to the first call.
    for shapes in (*args, *kwargs.values()):
        layer(keras.tree.map_shape_structure(keras.KerasTensor, shapes))


def _is_built_by_call(layer: keras.Layer) -> bool:
    """Whether a layer has no `build` of its own, but holds layers that are not built."""
    return type(layer).build is keras.Layer.build and _has_unbuilt(layer)


def _needs_call(layer: keras.Layer, args: Any, kwargs: Any) -> bool:
    """Whether building a layer may take the arguments of its call, not only shapes."""
    if _is_built_by_call(layer):
        return True
    leaves = keras.tree.flatten((args, kwargs))
    is_foreign = not comes_with_keras(type(layer))
    return is_foreign and _has_unbuilt(layer) and sum(hasattr(v, "shape") for v in leaves) > 1


def _has_unbuilt(layer: keras.Layer) -> bool:
    return any(not child.built for child in children(layer))


def _symbolic(arguments: Any) -> Any:
    """Arguments of a call, with symbolic tensors in place of the tensors."""

    def replaced(value: Any) -> Any:
        if not hasattr(value, "shape") or not hasattr(value, "dtype"):
            return value
        return keras.KerasTensor(value.shape, keras.backend.standardize_dtype(value.dtype))

    return keras.tree.map_structure(replaced, arguments)


def _with_signature(function: Callable[..., Any], other: Callable[..., Any]) -> Any:
    """`function`, for which `inspect` shows the signature of `other`."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    forward.__signature__ = inspect.signature(other)  # type: ignore[attr-defined]
    return forward
