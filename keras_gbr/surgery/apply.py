"""Wrapping the layers of a model."""

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gbr._keras.layer_tree import all_layers, check_built, comes_with_keras
from keras_gbr.kernels import check_start, kernels_of
from keras_gbr.layers.equal_norm import ENC, check_shape
from keras_gbr.layers.regularized import Regularized
from keras_gbr.layers.reparametrized import Reparametrized
from keras_gbr.regularizers import resolved
from keras_gbr.surgery.clone import clone
from keras_gbr.surgery.rebuild import rebuilt
from keras_gbr.surgery.selection import (
    LayerChange,
    Layers,
    cannot_change,
    selected,
    undeclared,
)
from keras_gbr.training.model import GBRMixin, GBRModel

# Outputs this much smaller, at most, are said to vanish.
_VANISHING = 1e-6


def apply_enc(
    model: keras.Model,
    layers: Layers = None,
    alpha: float = 1.0,
    per_filter: bool = True,
    center: bool = True,
    learnable_alpha: bool = False,
    dry_run: bool = False,
) -> keras.Model | list[LayerChange]:
    """A new model, in which each layer with a kernel is inside an `ENC`.

    Each layer is wrapped as a whole and keeps its name, weights and `trainable` flag, and so
    does the model. The given model is not touched, and shares nothing with the new one. That is
    not compiled.

    A functional or sequential model has the class of the given one, so a `GBRModel` stays one.
    If that class has a constructor of its own, as the tasks and backbones of KerasHub have, it
    comes back as a `keras.Model` (a `GBRModel` if it has the mixin) with the same inputs and
    outputs, without the methods and attributes of the class.

    A subclassed model is made anew from its configuration, with the layers in its attributes
    replaced. Its constructor knows nothing of that: save its weights, and load them into a model
    that the same call has made.

    Args:
        model: A built model: functional, sequential, or a subclassed one that Keras can copy
            (`get_config`). Models in it are changed as well.
        layers: Which layers: a function of a layer, a name, or a list of names. A name stands
            for every layer of that name, of a model in the model too; "encoder/dense" is the
            one in `encoder`, "encoder" all in it. By default all that have a kernel and are not
            wrapped, the classifier and embeddings included. A kernel of norm 1 makes small
            outputs: follow the classifier by batch normalisation, or leave it out. A layer with a
            kernel whose filters have one entry, such as a recurrent one on a univariate series,
            is left alone with `center`; `dry_run` says so.
        alpha: See `ENC`.
        per_filter: See `ENC`.
        center: See `ENC`.
        learnable_alpha: See `ENC`.
        dry_run: Whether to return a list of what would be changed, instead of a model; after that
            what would be left alone, though it has a kernel or may have one, with the reason.

    Returns:
        The new model, or a list of `LayerChange`.

    Raises:
        ValueError: The model is not built or cannot be copied; `layers` chooses nothing or
            names a layer that is not there; a chosen layer is wrapped already, quantized, has
            LoRA enabled, or is of a kind that `ENC` does not take; another argument is out of
            its range.

    Example:

    ```python
    model = keras.applications.ResNet50(weights=None, classes=10)
    model = keras_gbr.apply_enc(model, layers=lambda layer: layer.name != "predictions")
    ```

    Reference:
        Li, Chen & Yang, "Generalization Bound Regularizer: A Unified Perspective for
        Understanding Weight Decay", equations 20 to 23.
    """

    def wrap(layer: keras.Layer, name: str) -> keras.Layer:
        return ENC(layer, alpha, per_filter, center, learnable_alpha, name=name)

    def check(layer: keras.Layer) -> None:
        for kernel in kernels_of(layer):
            check_start(kernel, center)
            check_shape(kernel, per_filter, center)

    result = _wrapped(model, layers, wrap, _is_unwrapped, dry_run, check)
    if isinstance(result, keras.Model):
        _warn_of_small_outputs(result)
    return result


def apply_regularizer(
    model: keras.Model, regularizer: Any, layers: Layers = None, dry_run: bool = False
) -> keras.Model | list[LayerChange]:
    """A new model, in which a regularizer is added to each kernel.

    It is added to the one that a kernel has. Biases and normalisations have none. In layers that
    are wrapped already, such as by `ENC`, it sees the raw kernels. All else is as for
    `apply_enc`.

    Args:
        model: See `apply_enc`.
        regularizer: See `Regularized`.
        layers: See `apply_enc`. By default all that have a kernel.
        dry_run: See `apply_enc`.

    Returns:
        The new model, or a list of `LayerChange`.

    Raises:
        ValueError: As `apply_enc`, or `regularizer` is none.

    Example:

    ```python
    model = keras_gbr.apply_regularizer(model, keras_gbr.Spectral(0.01))
    ```
    """
    regularizer = resolved("regularizer", regularizer)

    def wrap(layer: keras.Layer, name: str) -> keras.Layer:
        return Regularized(layer, regularizer, name=name)

    return _wrapped(model, layers, wrap, lambda layer: True, dry_run)


def _wrapped(
    model: keras.Model,
    layers: Layers,
    wrap: Callable[[keras.Layer, str], keras.Layer],
    takes: Callable[[keras.Layer], bool],
    dry_run: bool,
    check: Callable[[keras.Layer], None] = lambda layer: None,
) -> keras.Model | list[LayerChange]:
    """The model with its chosen layers wrapped, or what would be done.

    `check` refuses a layer whose kernels cannot be changed to any use. By default such a layer
    is left alone; one that is chosen is an error.
    """
    check_built(model)
    places, left = {}, []
    for place in selected(model, layers, takes):
        try:
            check(place.layer)
            places[id(place.layer)] = place
        except ValueError as error:
            if layers is not None:
                raise cannot_change(place, error) from error
            left.append(place.change(str(error)))

    def change(layer: keras.Layer) -> tuple[keras.Layer, keras.Layer]:
        copy = clone(layer)
        if id(layer) not in places:
            return copy, copy
        try:
            return wrap(copy, layer.name), copy
        except ValueError as error:
            raise cannot_change(places[id(layer)], error) from error

    if dry_run:
        for place in places.values():
            change(place.layer)  # for what it refuses
        changes = [place.change() for place in places.values()]
        return [*changes, *left, *(undeclared(model) if layers is None else ())]
    return rebuilt(model, change, _class_for)


def _warn_of_small_outputs(model: keras.Model) -> None:
    """Says so where kernels of norm 1 make outputs that vanish, as in VGG16."""
    parts = all_layers(model)
    if any("Normalization" in type(part).__name__ for part in parts):
        return
    shrinkage = 1.0
    for part in parts:
        if isinstance(part, Reparametrized):
            for raw, kernel in zip(kernels_of(part.layer), part.kernels.values(), strict=True):
                old, new = (
                    float(np.linalg.norm(ops.convert_to_numpy(ops.copy(each))))
                    for each in (raw.variable, kernel)
                )
                # A kernel of zeros is one that its author wants to start there.
                shrinkage *= new / old if old else 1.0
    if shrinkage < _VANISHING:
        warnings.warn(
            f"Model {model.name!r} has no normalisation, and its kernels of norm 1 make the "
            f"outputs smaller by a factor of about {shrinkage:.0e}. Put a normalisation behind the "
            "layers, give a larger `alpha` (twice the number of filters is what initialisers make "
            "it), or leave layers out with `layers=`.",
            stacklevel=3,
        )


def _is_unwrapped(layer: keras.Layer) -> bool:
    return not any(isinstance(part, Reparametrized) for part in all_layers(layer))


def _class_for(model: keras.Model, plain: type) -> type:
    """The class of a model if that is made as the plain one is, else the nearest."""
    constructor = next(cls for cls in type(model).__mro__ if "__init__" in vars(cls))
    if constructor is GBRModel or comes_with_keras(constructor):
        return type(model)
    return GBRModel if isinstance(model, GBRMixin) and plain is keras.Model else plain
