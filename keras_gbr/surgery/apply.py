"""Wraps the layers of a model."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import keras
import numpy as np
from keras import ops

from keras_gbr import _checks as check
from keras_gbr._keras.layer_tree import all_layers, check_built, comes_with_keras
from keras_gbr.kernels import kernels_of
from keras_gbr.layers.equal_norm import ENC, check_kernel
from keras_gbr.layers.regularized import Regularized
from keras_gbr.layers.reparametrized import Reparametrized
from keras_gbr.regularizers import resolved
from keras_gbr.surgery.clone import clone
from keras_gbr.surgery.rebuild import rebuilt
from keras_gbr.surgery.selection import Layers, cannot_change, is_unwrapped, selected
from keras_gbr.training.model import GBRMixin, GBRModel

# Outputs that shrink by more than this factor are said to vanish.
_VANISHING = 1e-6

P = ParamSpec("P")
R = TypeVar("R")


def _without_dry_run(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with an error that names `list_kernels` for those who pass `dry_run`."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if "dry_run" in kwargs:
            raise check.error(
                f"`{function.__name__}` has no argument `dry_run`. Call "
                "`keras_gbr.list_kernels(model, layers)` for a list of the kernels, with those "
                "that are refused or left alone.",
                "dry_run",
                kwargs["dry_run"],
            )
        return function(*args, **kwargs)

    return call


@_without_dry_run
def apply_enc(
    model: keras.Model,
    layers: Layers = None,
    alpha: float = 1.0,
    per_filter: bool = True,
    center: bool = True,
    learnable_alpha: bool = False,
) -> keras.Model:
    """Makes a new model in which each layer with a kernel is inside an `ENC`.

    Each layer is wrapped as a whole. Layers and model keep their names, weights and `trainable`
    flags. The given model is not touched and shares nothing with the new one. The new model is not
    compiled.

    A functional or sequential model keeps its class, so a `GBRModel` stays one. A class with a
    constructor of its own, such as the tasks and backbones of KerasHub, becomes a `keras.Model` (a
    `GBRModel` if it has the mixin) with the same inputs and outputs, without the methods and
    attributes of the class.

    A subclassed model is made anew from its configuration, and the layers in its attributes are
    replaced. Its constructor does not know of the wrappers. So save the weights of the new model,
    not the model itself, and load them into a model that the same call has made.

    Args:
        model: A built model: functional, sequential, or a subclassed one that Keras can copy
            (`get_config`). Models in it are changed as well.
        layers: Which layers: a function of a layer, a name, or a list of names. A name stands
            for every layer of that name, also in nested models; "encoder/dense" is the one in
            `encoder`, "encoder" is every layer in it. By default all layers that have a kernel and
            are not wrapped, the classifier and embeddings included. A kernel of norm 1 makes small
            outputs: put batch normalisation behind the classifier, or leave the classifier out. A
            layer is left alone if `ENC` would turn a kernel into zeros: if the kernel starts as
            zeros, or, with `center`, starts as a constant or has filters of one entry, as in a
            recurrent layer on a univariate series. `list_kernels` shows what is left alone, and
            why.
        alpha: See `ENC`.
        per_filter: See `ENC`.
        center: See `ENC`.
        learnable_alpha: See `ENC`.

    Returns:
        The new model.

    Raises:
        ValueError: The model is not built or cannot be copied; `layers` chooses nothing or
            names a layer that is not there; a chosen layer is wrapped already, quantized, has
            LoRA enabled, has a kernel that `ENC` would turn into zeros, or is of a kind that `ENC`
            does not take; two layers hold the same variable; another argument is out of its range.

    Example:

    ```python
    constrained = keras_gbr.apply_enc(model, layers=lambda layer: layer.name != "logits")
    assert isinstance(constrained.get_layer("conv"), keras_gbr.ENC)
    assert isinstance(constrained.get_layer("logits"), keras.layers.Dense)
    ```

    Reference:
        Li, Chen & Yang 2021, "Generalization Bound Regularizer: A Unified Perspective for
        Understanding Weight Decay", Chinese Journal of Computers, equations 20
        to 23.
    """

    def wrap(layer: keras.Layer, name: str) -> keras.Layer:
        return ENC(layer, alpha, per_filter, center, learnable_alpha, name=name)

    def check_layer(layer: keras.Layer) -> None:
        for kernel in kernels_of(layer):
            check_kernel(kernel, per_filter, center)

    result = _wrapped(model, layers, wrap, is_unwrapped, check_layer)
    _warn_of_small_outputs(result)
    return result


@_without_dry_run
def apply_regularizer(model: keras.Model, regularizer: Any, layers: Layers = None) -> keras.Model:
    """Makes a new model in which a regularizer is added to each kernel.

    A kernel keeps the regularizer that it has. Biases and normalisations get no regularizer. In
    layers that are wrapped already, by `ENC` for example, the raw kernels are regularized.
    Everything else is as for `apply_enc`.

    Args:
        model: See `apply_enc`.
        regularizer: See `Regularized`.
        layers: See `apply_enc`. By default all layers that have a kernel.

    Returns:
        The new model.

    Raises:
        ValueError: As `apply_enc`, or `regularizer` is not a regularizer.

    Example:

    ```python
    regularized = keras_gbr.apply_regularizer(model, keras_gbr.Spectral(0.01))
    assert len(regularized.losses) == len(keras_gbr.list_kernels(model))
    ```
    """
    regularizer = resolved("regularizer", regularizer)

    def wrap(layer: keras.Layer, name: str) -> keras.Layer:
        return Regularized(layer, regularizer, name=name)

    return _wrapped(model, layers, wrap, lambda layer: True)


def _wrapped(
    model: keras.Model,
    layers: Layers,
    wrap: Callable[[keras.Layer, str], keras.Layer],
    takes: Callable[[keras.Layer], bool],
    check_layer: Callable[[keras.Layer], None] = lambda layer: None,
) -> keras.Model:
    """The model with its chosen layers wrapped.

    `check_layer` refuses a layer whose kernels would become useless. If `layers` chooses that
    layer, the refusal is an error; without `layers` the layer is left alone.
    """
    check_built(model)
    places = {}
    for place in selected(model, layers, takes):
        try:
            check_layer(place.layer)
            places[id(place.layer)] = place
        except ValueError as error:
            if layers is not None:
                raise cannot_change(place, error) from error

    def change(layer: keras.Layer) -> tuple[keras.Layer, keras.Layer]:
        copy = clone(layer)
        if id(layer) not in places:
            return copy, copy
        try:
            return wrap(copy, layer.name), copy
        except ValueError as error:
            raise cannot_change(places[id(layer)], error) from error

    return rebuilt(model, change, _class_for)


def _warn_of_small_outputs(model: keras.Model) -> None:
    """Warns if kernels of norm 1 make outputs that vanish, as in VGG16."""
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
                # A kernel of zeros, under another wrapper, is meant to start at zero.
                shrinkage *= new / old if old else 1.0
    if shrinkage < _VANISHING:
        warnings.warn(
            f"Model {model.name!r} has no normalisation, and its kernels of norm 1 make the "
            f"outputs smaller by a factor of about {shrinkage:.0e}. Put a normalisation behind the "
            "layers, give a larger `alpha` (initialisers make it about twice the number of "
            "filters), or leave layers out with `layers=`.",
            stacklevel=4,
        )


def _class_for(model: keras.Model, plain: type) -> type:
    """The class of a model if it has the constructor of the plain class, else the nearest one."""
    constructor = next(cls for cls in type(model).__mro__ if "__init__" in vars(cls))
    if constructor is GBRModel or comes_with_keras(constructor):
        return type(model)
    return GBRModel if isinstance(model, GBRMixin) and plain is keras.Model else plain
