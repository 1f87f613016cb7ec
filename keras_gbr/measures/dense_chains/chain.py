"""Recognises chains of dense layers, the networks for which the bounds of the theory hold."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from keras_gbr import _checks as check
from keras_gbr._keras.layer_tree import check_built, is_graph
from keras_gbr._keras.symbolic import Producer, producer
from keras_gbr._keras.transparent import unwrapped
from keras_gbr.kernels import CONVOLUTIONS, check_plain
from keras_gbr.layers.reparametrized import Reparametrized

# Layers that at inference move numbers to other places, or do nothing.
REARRANGING = (
    *(layers.Flatten, layers.Reshape, layers.Permute, layers.Identity, layers.InputLayer),
    *(layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
    *(layers.AlphaDropout, layers.GaussianDropout, layers.GaussianNoise),
    layers.ActivityRegularization,
)
# Layers that are an activation. Each works on one sample at a time.
ACTIVATIONS = (
    *(layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU),
    layers.Softmax,
)
_SCALING = (
    *(layers.BatchNormalization, layers.LayerNormalization, layers.GroupNormalization),
    *(layers.UnitNormalization, layers.RMSNormalization, layers.Normalization),
    *(layers.SpectralNormalization, layers.Rescaling),
)
_REASONS: list[tuple[Any, str]] = [
    (
        CONVOLUTIONS,
        "its matrix is the unrolled convolution, not its kernel: every entry of the kernel is used "
        "in many places",
    ),
    (_SCALING, "it scales by numbers that are in no kernel"),
    (layers.Dense, "it computes something of its own in `call`"),
    (layers.Wrapper, "what it does to the layer inside is not known"),
    (keras.Model, "its `call` does not show which layers follow each other"),
    (keras.Layer, "it is not known to be dense, an activation or a rearrangement of its input"),
    (object, "it is an operation and not a layer"),
]


@dataclass(frozen=True, eq=False)
class Link:
    """A layer of a chain.

    Attributes:
        path: Its name, after those of the nested models that it is in.
        layer: The layer, without a wrapper.
        kernel: The kernel `(inputs, units)` that a dense layer computes with; `None` for others.
    """

    path: str
    layer: keras.Layer
    kernel: Any = None

    @property
    def is_dense(self) -> bool:
        return self.kernel is not None


def dense_chain(model: keras.Model) -> list[Link]:
    """The layers of a model that is a chain of dense layers, in the order of computation.

    The dense layers may be in wrappers of this package. Between them there may be activations, and
    layers that rearrange their input or do nothing at inference.

    Args:
        model: A built model.

    Returns:
        `Link`s, at least one of them dense.

    Raises:
        ValueError: The model is not built or is not a chain of dense layers.
    """
    check_built(model)
    links = [_link(path, layer) for path, layer in _layers(model, "")]
    shape = getattr(model, "input_shape", None)
    if shape is None or not any(link.is_dense for link in links):
        raise check.error(
            "This holds for a chain of Dense layers. The model must have a dense layer and an "
            "input of a known shape.",
            "model",
            model,
        )
    for link in links:
        if link.is_dense and len(shape) != 2:
            reason = "it is applied at many places of its input, with one kernel for all"
            raise refused(link.path, link.layer, reason, "Put a Flatten before it.")
        shape = link.layer.compute_output_shape(shape)
    return links


def refused(path: str, layer: Any, reason: str, way_out: str = "") -> ValueError:
    """The error for a layer that does not belong in a chain of dense layers."""
    way_out = way_out or (
        "Build a model of the layers that are a chain; `measures.gbr` takes any model."
    )
    return check.error(
        f"This holds for a chain of Dense layers, and layer {path!r} breaks it: {reason}. "
        f"{way_out}",
        "layer",
        type(layer).__name__,
    )


def _layers(model: keras.Model, prefix: str) -> Iterator[tuple[str, Any]]:
    """The layers of a model and of those in it, with their paths."""
    for operation in _operations(model, prefix):
        path = prefix + operation.name
        operation = unwrapped(operation, until=Reparametrized)
        if isinstance(operation, keras.Model) and is_graph(operation):
            yield from _layers(operation, f"{path}/")
        else:
            yield path, operation


def _operations(model: keras.Model, prefix: str) -> list[Any]:
    if not is_graph(model):
        raise refused(prefix + model.name, model, _reason(model))
    if isinstance(model, keras.Sequential):
        return model.layers
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise refused(prefix + model.name, model, "it has several inputs or outputs")
    found = []
    tensor = model.outputs[0]
    while tensor is not model.inputs[0]:
        call = producer(tensor)
        broken = _broken(call)
        if broken:
            raise refused(prefix + call.operation.name, call.operation, broken)
        found.append(call.operation)
        (tensor,) = call.inputs
    return found[::-1]


def _broken(call: Producer) -> str:
    """Why a call of a layer is not a link of a chain; empty if it is."""
    if not call.inputs:
        return "it does not depend on the input"
    if len(call.inputs) > 1:
        return "it joins branches"
    return "it is called with `training=True`" if call.keywords.get("training") else ""


def _link(path: str, layer: Any) -> Link:
    kernel = None
    if isinstance(layer, Reparametrized):
        kernel = next(iter(layer.kernels.values()))
        # If it does not wrap a dense layer, the wrapped layer is refused below.
        layer = unwrapped(layer)
    if isinstance(layer, layers.Dense) and type(layer).call is layers.Dense.call:
        check_plain(layer)
        return Link(path, layer, layer.kernel if kernel is None else kernel)
    # The exact class: a derived one may do something else.
    if type(layer) not in (*REARRANGING, *ACTIVATIONS):
        raise refused(path, layer, _reason(layer))
    return Link(path, layer)


def _reason(layer: Any) -> str:
    return next(reason for classes, reason in _REASONS if isinstance(layer, classes))
