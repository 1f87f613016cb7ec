"""What the kernels of a model are, and which of them surgery does not change."""

from dataclasses import dataclass

import keras

from keras_gbr._keras.layer_tree import check_built
from keras_gbr.kernels import kernels_of, undeclared_weights
from keras_gbr.layers.equal_norm import check_kernel
from keras_gbr.layers.regularized import Regularized
from keras_gbr.surgery.clone import clone
from keras_gbr.surgery.selection import Layers, Place, candidates, is_unwrapped, places_of


@dataclass(frozen=True)
class LayerKernels:
    """A layer with kernels, as `list_kernels` lists it. `print` it for one line of text.

    Attributes:
        path: The name of the layer, after those of the nested models that it is in: "conv1",
            "encoder/dense".
        layer: The name of its class.
        kernels: Name and shape of each of its kernels. Empty if they cannot be read, as in a
            quantized layer.
        left_alone: Why `apply_enc` with default settings leaves the layer alone, and refuses it
            if `layers` chooses it. Empty if it does not.
        refused: Why `apply_enc` and `apply_regularizer` refuse the model unless `layers` leaves
            this layer out. Empty if they do not.

    Example:

    ```python
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="dense")])
    (dense,) = keras_gbr.list_kernels(model)
    print(dense)  # dense (Dense): kernel (4, 2)
    assert dense.kernels == (("kernel", (4, 2)),)
    ```
    """

    path: str
    layer: str
    kernels: tuple[tuple[str, tuple[int, ...]], ...]
    left_alone: str = ""
    refused: str = ""

    def __str__(self) -> str:
        parts = [", ".join(f"{name} {shape}" for name, shape in self.kernels)]
        parts += [f"left alone: {self.left_alone}" if self.left_alone else ""]
        parts += [f"refused: {self.refused}" if self.refused else ""]
        return f"{self.path} ({self.layer}): {'; '.join(filter(None, parts))}"


def list_kernels(model: keras.Model, layers: Layers = None) -> list[LayerKernels]:
    """Lists the layers of a model that have kernels, with those that `apply_enc` leaves alone.

    Nothing is changed. Each layer is examined on its own. So the list does not show that two
    layers share a variable, which `apply_enc` and `apply_regularizer` refuse.

    Args:
        model: A built model.
        layers: Which layers, as for `apply_enc`. By default all that have a kernel, followed by
            the layers whose own weights may be kernels, but are not declared in `gbr_kernels`.

    Returns:
        A list of `LayerKernels`, in the order of the model; last those with undeclared weights.

    Raises:
        ValueError: The model is not built, or `layers` chooses nothing or names a layer that is
            not there.

    Example:

    ```python
    stack = [keras.layers.LSTM(4, name="lstm"), keras.layers.Dense(2, name="dense")]
    lstm, dense = keras_gbr.list_kernels(keras.Sequential([keras.Input((8, 1)), *stack]))
    print(lstm)  # lstm (LSTM): lstm_cell/kernel (1, 16), ...; left alone: Filters of one entry ...
    assert lstm.left_alone and not dense.left_alone
    ```
    """
    check_built(model)
    listed = [_listed(place) for place in candidates(model, layers)]
    return [*listed, *(_undeclared(model) if layers is None else ())]


def _listed(place: Place) -> LayerKernels:
    if place.refusal is not None:
        return _entry(place, (), refused=str(place.refusal))
    kernels = tuple((raw.name, tuple(raw.variable.shape)) for raw in kernels_of(place.layer))
    try:
        Regularized(clone(place.layer), "l2")
    except ValueError as error:
        return _entry(place, kernels, refused=str(error))
    return _entry(place, kernels, left_alone=_why_no_enc(place.layer))


def _entry(
    place: Place,
    kernels: tuple[tuple[str, tuple[int, ...]], ...],
    left_alone: str = "",
    refused: str = "",
) -> LayerKernels:
    return LayerKernels(place.paths[0], type(place.layer).__name__, kernels, left_alone, refused)


def _why_no_enc(layer: keras.Layer) -> str:
    if not is_unwrapped(layer):
        return "It is wrapped already, or holds a wrapped layer."
    try:
        for kernel in kernels_of(layer):
            check_kernel(kernel)
    except ValueError as error:
        return str(error)
    return ""


def _undeclared(model: keras.Model) -> list[LayerKernels]:
    """The layers of a model with weights that may be kernels, but are not declared."""
    reason = (
        "made with `add_weight`; if they are kernels, declare them in the class of the layer, "
        '`gbr_kernels = {"weight": -1}`, with the axes of their filters'
    )
    return [
        _entry(place, tuple(weights), left_alone=reason)
        for place in places_of(model)
        if place.refusal is None and (weights := undeclared_weights(place.layer))
    ]
