"""Builds a model a second time, from other layers."""

from collections.abc import Callable

import keras

from keras_gbr import _checks as check
from keras_gbr._keras.layer_tree import check_built, is_graph
from keras_gbr._keras.symbolic import producer, without_calls
from keras_gbr.surgery import subclassed
from keras_gbr.surgery.clone import clone
from keras_gbr.surgery.state import copy_own_state, copy_state

# Takes a layer of the old model. Returns the layer to put in its place, and the part of that layer
# to which the state is copied. Neither is built.
Change = Callable[[keras.Layer], tuple[keras.Layer, keras.Layer]]


def rebuilt(
    model: keras.Model, change: Change, class_for: Callable[[keras.Model, type], type]
) -> keras.Model:
    """A new model with the graph, names, weights and flags of another one.

    Args:
        model: A built model. It is not touched and shares nothing with the result.
        change: See `Change`. It is called once for each layer, not for models.
        class_for: Takes a functional or sequential model and its plain class, `keras.Model` or
            `keras.Sequential`; returns the class of the new model.

    Raises:
        ValueError: The model is not built, or Keras cannot copy it or one of its layers.
    """
    check_built(model)
    rebuild = _Rebuild(change, class_for)
    new = rebuild.operation(model)
    rebuild.copy_states()
    return new


class _Rebuild:
    """The new layers and models by the old ones. Shared layers stay shared."""

    def __init__(self, change: Change, class_for: Callable[[keras.Model, type], type]) -> None:
        self.change = change
        self.class_for = class_for
        self.done: dict[int, keras.Operation] = {}
        self.models: list[keras.Model] = []
        self.layers: list[tuple[keras.Layer, keras.Layer, keras.Layer]] = []
        self.owners: dict[int, keras.Layer] = {}

    def operation(self, old: keras.Operation) -> keras.Operation:
        """The replacement of a layer, a model or an operation on tensors."""
        if id(old) not in self.done:
            self.done[id(old)] = self._made(old)
        return self.done[id(old)]

    def _made(self, old: keras.Operation) -> keras.Operation:
        if isinstance(old, keras.Model):
            self.models.append(old)  # the outer before the inner
            if not is_graph(old):
                subclassed.check_class(old)
                return subclassed.swapped(old, clone(old), self.operation)
            make = self._stack if isinstance(old, keras.Sequential) else self._graph
            return make(old)
        if not isinstance(old, keras.Layer):
            return without_calls(old)
        self._check_owns_its_variables(old)
        new, heir = self.change(old)
        self.layers.append((old, new, heir))
        return new

    def _graph(self, old: keras.Model) -> keras.Model:
        inputs = keras.tree.map_structure(_same_input, old.input)
        # `clone_model` compiles the copy of a compiled model and needs the constructor of a
        # functional one. So it gets a plain, uncompiled model of the same layers.
        twin = keras.Model(old.input, old.output, name=old.name)
        new = keras.models.clone_model(twin, input_tensors=inputs, clone_function=self.operation)
        cls = self.class_for(old, keras.Model)
        return new if cls is keras.Model else cls(inputs, new.output, name=old.name)

    def _stack(self, old: keras.Sequential) -> keras.Sequential:
        stack = [self.operation(layer) for layer in old.layers]
        # There are none if the input is not a single tensor.
        inputs = [_same_input(tensor) for tensor in getattr(old, "inputs", ())]
        new = self.class_for(old, keras.Sequential)([*inputs, *stack], name=old.name)
        if not inputs:
            subclassed.build_like(old, new)
        return new

    def _check_owns_its_variables(self, layer: keras.Layer) -> None:
        for variable in layer.variables:
            owner = self.owners.setdefault(id(variable), layer)
            if owner is not layer:
                raise check.error(
                    f"Layers {owner.name!r} and {layer.name!r} must not hold the same variable "
                    f"{variable.path!r}: each of their copies would get its own. Build "
                    "the model with one of the two in code.",
                    "layer",
                    layer,
                )

    def copy_states(self) -> None:
        # Setting the flag of a model or wrapper sets those of all layers inside it.
        for old in self.models:
            new = self.done[id(old)]
            new.trainable = old.trainable
            if new.dtype_policy != old.dtype_policy:
                new.dtype_policy = old.dtype_policy
            if not is_graph(old):
                copy_own_state(old, new)
        for old, new, heir in self.layers:
            if not old.built:
                continue
            if not new.built:
                _build(old, new)
            new.trainable = old.trainable
            copy_state(old, heir)


def _build(old: keras.Layer, new: keras.Layer) -> None:
    """Builds a layer that no call has built, from the shapes that the old layer was built with."""
    try:
        new.build_from_config(old.get_build_config())
    except Exception as error:
        raise subclassed.cannot_build(old) from error
    if not new.built:
        raise subclassed.cannot_build(old)


def _same_input(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """A new input like an input of a model, with the name of its input layer."""
    return clone(producer(tensor).operation).output
