"""The tensors that a forward pass takes gradients at: its inputs, or outputs of inner layers."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import keras

from keras_gbr._keras.layer_outputs import input_index, layer_at, replaced_outputs, require_batched
from keras_gbr.backend.contract import Watch
from keras_gbr.penalties.inputs import check_differentiable, is_differentiable


class GradientPoints:
    """The points of one forward pass, by the `at` of a penalty.

    Args:
        model: The model.
        x: Its inputs, tensors as `as_taken` returns them.
        at: What may be asked for: inner layers, or names of layers or inputs.

    Attributes:
        floats: The inputs that have a gradient.
    """

    def __init__(self, model: keras.Model, x: Any, at: Sequence[str | keras.Layer]) -> None:
        self._model, self._x = model, x
        # The index of an input, or a layer. Several names may stand for the same.
        self._places: dict[Any, int | keras.Layer] = {}
        for each in at:
            index = input_index(model, x, each)
            self._places[each] = layer_at(model, each) if index is None else index
        leaves = flat(x)
        inputs: dict[Any, list[Any]] = {
            index: [leaf] if is_differentiable(leaf) else [] for index, leaf in enumerate(leaves)
        }
        self.floats = [leaf for leaf in leaves if is_differentiable(leaf)]
        self._points: dict[Any, list[Any]] = {None: self.floats, **inputs}

    def layer(self, at: str | keras.Layer | None) -> keras.Layer | None:
        """The inner layer that `at` stands for, `None` if it stands for inputs."""
        place = self._places.get(at)
        return place if isinstance(place, keras.Layer) else None

    @contextmanager
    def watched_by(self, watch: Watch) -> Iterator[None]:
        """Lets a recording watch the outputs of the inner layers that a pass inside computes."""
        layers = [place for place in self._places.values() if isinstance(place, keras.Layer)]
        with ExitStack() as stack:
            for layer in {id(layer): layer for layer in layers}.values():
                hook = partial(self._watch, watch, layer)
                stack.enter_context(replaced_outputs(layer, hook))
            yield

    def _watch(self, watch: Watch, layer: keras.Layer, tensor: Any) -> Any:
        require_batched(layer, tensor, flat(self._x)[0])
        return watch(layer, tensor)

    def add(self, watched: dict[Any, list[Any]]) -> None:
        """Takes over the outputs that were watched, by their layer."""
        self._points.update(watched)

    def at(self, at: str | keras.Layer | None) -> list[Any]:
        """The points that `at` stands for, see `ForwardPass.points`."""
        if at is None:
            check_differentiable(self._model, self._x)
        found = self._points.get(self._places.get(at))
        if found and (at is None or at in self._places):
            return found
        if at is not None:
            raise ValueError(
                "`at` must name a layer that the model calls and that has a floating-point "
                f"output, or a floating-point input. Received: at={at!r}"
            )
        raise ValueError(
            "A penalty on input gradients needs a floating-point input, and integers have "
            'no gradient. Give numbers as floats, `x.astype("float32")`. For indices, take the '
            'gradient at the output of a layer, such as `at="embedding"` for one of that name. '
            "Received: inputs of dtypes "
            f"{[keras.backend.standardize_dtype(leaf.dtype) for leaf in flat(self._x)]}"
        )


def flat(structure: Any) -> list[Any]:
    """The leaves of a structure, without `None`."""
    return [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]
