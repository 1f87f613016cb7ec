"""Selects the layers of a model that are changed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_gbr import _checks as check
from keras_gbr._keras.layer_tree import all_layers, walk
from keras_gbr.kernels import kernels_of
from keras_gbr.layers.reparametrized import Reparametrized

Layers = Callable[[keras.Layer], bool] | str | Sequence[str] | None


@dataclass(frozen=True)
class Place:
    """A layer of a model and the paths that lead to it."""

    layer: keras.Layer
    paths: tuple[str, ...]

    @property
    def has_kernels(self) -> bool:
        return self.refusal is not None or bool(kernels_of(self.layer))

    @property
    def refusal(self) -> ValueError | None:
        """Why the kernels of the layer cannot be changed; `None` if they can."""
        try:
            kernels_of(self.layer)
        except ValueError as error:
            return error
        return None


def selected(
    model: keras.Model, layers: Layers, takes: Callable[[keras.Layer], bool]
) -> list[Place]:
    """The layers of a model, and of the models in it, to change.

    Args:
        model: A built model.
        layers: `None` for every layer with a kernel that `takes` accepts, or a function of a
            layer, or a name or list of names.
        takes: Whether a layer can be changed.

    Raises:
        ValueError: `layers` is of another type, chooses nothing, or names a layer that is not
            there or cannot be changed.
    """
    chosen = candidates(model, layers)
    if layers is None:
        chosen = [place for place in chosen if takes(place.layer)]
    for place in chosen:
        _check(place, takes)
    return chosen


def candidates(model: keras.Model, layers: Layers) -> list[Place]:
    """The layers with kernels that `layers` chooses, whether they can be changed or not.

    Args:
        model: A built model.
        layers: See `selected`; `None` for every layer with a kernel.

    Raises:
        ValueError: `layers` is of another type, chooses nothing, or names a layer that is not
            there.
    """
    places = places_of(model)
    if layers is None:
        return [place for place in places if place.has_kernels]
    if callable(layers) and not isinstance(layers, keras.Layer):
        chosen = [place for place in places if place.has_kernels and layers(place.layer)]
    else:
        chosen = _named(places, layers)
    if not chosen:
        raise check.error("`layers` must choose a layer with a kernel.", "layers", layers)
    return chosen


def places_of(model: keras.Model) -> list[Place]:
    """The layers of a model and of the models in it, each once."""
    paths: dict[int, tuple[keras.Layer, list[str]]] = {}
    for path, layer in walk(model, _models_layers):
        if not isinstance(layer, keras.Model):
            paths.setdefault(id(layer), (layer, []))[1].append(path)
    return [Place(layer, tuple(found)) for layer, found in paths.values()]


def _models_layers(layer: keras.Layer) -> list[keras.Layer]:
    return layer.layers if isinstance(layer, keras.Model) else []


def _named(places: list[Place], layers: Any) -> list[Place]:
    names = [layers] if isinstance(layers, str) else layers
    if not isinstance(names, (list, tuple, set)) or not all(isinstance(n, str) for n in names):
        raise check.error(
            "`layers` must be a function of a layer, a name or a list of names.", "layers", layers
        )
    chosen = [place for place in places if any(_answers(place, name) for name in names)]
    for name in names:
        if not any(_answers(place, name) and place.has_kernels for place in chosen):
            raise _no_such(places, name)
    # The name of a nested model stands for those of its layers that have kernels.
    return [place for place in chosen if place.has_kernels]


def _answers(place: Place, name: str) -> bool:
    return any(f"/{path}".endswith(f"/{name}") or f"/{name}/" in f"/{path}" for path in place.paths)


def _no_such(places: list[Place], name: str) -> ValueError:
    known = [path for place in places if place.has_kernels for path in place.paths]
    near = check.closest(name, [*known, *(path.rsplit("/", 1)[-1] for path in known)])
    closest = f"The closest names are {check.quoted(near)}." if near else "This model has none."
    return check.error(f"`layers` must name layers with a kernel. {closest}", "layers", name)


def _check(place: Place, takes: Callable[[keras.Layer], bool]) -> None:
    if place.refusal is not None:
        raise cannot_change(place, place.refusal) from place.refusal
    if not takes(place.layer):
        raise check.error(
            f"Layer {place.paths[0]!r} must not be wrapped already, nor hold a wrapped one: one "
            "function of the kernel at a time. Leave it out with `layers=`.",
            "layer",
            place.layer,
        )


def cannot_change(place: Place, reason: ValueError) -> ValueError:
    """The error for a layer that a wrapper refuses."""
    return ValueError(
        f"Layer {place.paths[0]!r} cannot be changed; leave it out with `layers=`. {reason}"
    )


def is_unwrapped(layer: keras.Layer) -> bool:
    """Whether no kernel of a layer, or of a layer inside it, is replaced by a wrapper."""
    return not any(isinstance(part, Reparametrized) for part in all_layers(layer))
